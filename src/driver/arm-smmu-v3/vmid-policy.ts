/**
 * The one place from which every VMID comes: STE, invalidation array, user command and VINTF all use what these
 * functions return (design: "Where a nested STE's VMID comes from"; linux-driver: "VMID: today and proposed").
 */
import { VmidError } from '../../hw/vmid.ts';
import { KernelError } from '../kernel.ts';
import { NestedDomain, type PagingDomain } from './domains.ts';
import { INHERITED } from './inherited.ts';
import type { Inv, InvKey, InvType } from './invalidation.ts';
import type { Smmu } from './smmu.ts';
import type { Vsmmu } from './vsmmu.ts';

/**
 * - at-attach: each vIOMMU takes its own VMID; a direct attach of an S2 takes one for each (S2, SMMU).
 * - viommu-only: the same, but an S2 and its vIOMMUs never both hold a VMID on one SMMU.
 * - at-domain-alloc: the S2 takes it when it is allocated and belongs to one SMMU (Linux 7.2).
 * - external: a hypervisor owns the numbers; one VM has one VMID on all SMMUs (BTM).
 */
export type VmidPolicyName = 'at-attach' | 'viommu-only' | 'at-domain-alloc' | 'external';

/** Who owns VMIDs in policy 'external'. */
export interface Hypervisor {
  /** The VM's VMID, kept for it until as many {@link unpinVmid} calls. */
  pinVmid(vm: string, smmu: string): number;
  unpinVmid(vm: string, smmu: string): void;
  /** The driver found the number in use on an SMMU it took over: no VM may be given it, until it is unreserved. */
  reserveVmid?(vmid: number, smmu: string): void;
  unreserveVmid?(vmid: number, smmu: string): void;
}

/** A VMID under which a domain's translations are cached on one SMMU. */
export interface VmidTag {
  readonly type: 'S2_VMID' | 'S2_VMID_VSMMU';
  readonly vmid: number;
  /** Allocated by this call: an attach that fails must give it back. */
  readonly fresh: boolean;
}

/** See the module comment. */
export interface VmidPolicy {
  readonly name: VmidPolicyName;
  /** An S2 may be attached on SMMUs other than the one it was allocated for. */
  readonly shares: boolean;
  /** A stage 2 domain is allocated. @throws KernelError ENOSPC, ENOMEM */
  s2Alloc(domain: PagingDomain): void;
  /** A paging domain is freed: no attachment and no vIOMMU is left. */
  s2Free(domain: PagingDomain): void;
  /** Sets `vsmmu.vmid`. @throws KernelError ENOSPC, EBUSY, ENOMEM */
  vsmmuInit(vsmmu: Vsmmu): void;
  /** The vIOMMU ends; nothing names its VMID any more. */
  vsmmuDestroy(vsmmu: Vsmmu): void;
  /** The tag of an S2 or nested domain on an SMMU, allocated at its first attach there. @throws KernelError ENOSPC, EBUSY, ENOMEM */
  tagFor(domain: PagingDomain | NestedDomain, smmu: Smmu): VmidTag;
  /** A tag of `parent` has no user left and is clean, or its first attach failed. */
  tagUnused(parent: PagingDomain, tag: InvKey): void;
  /** Whether an attachment of `domain` must have stage 1 under the VMID removed with every stage 2 change. */
  clearsStage1(domain: PagingDomain | NestedDomain): boolean;
  /** Whether a nested domain may do without a vIOMMU. */
  readonly nestedWithoutViommu: boolean;
  /** A number that the Stream table of the driver before names: nobody is given it. */
  adopt(smmu: Smmu, vmid: number): void;
  /** No entry names it any more, and it is clean. */
  disown(smmu: Smmu, vmid: number): void;
}

/** The two ends of an inherited number's life, where the SMMU's own allocator hands numbers out. */
const ownNumbers: Pick<VmidPolicy, 'adopt' | 'disown'> = {
  adopt: (smmu, vmid) => {
    smmu.vmids.reserve(vmid, INHERITED);
    smmu.kernel.announce({ what: 'vmid', act: 'give', where: smmu.name, id: BigInt(vmid), owner: INHERITED });
  },
  disown: (smmu, vmid) => give(smmu, vmid, INHERITED),
};

/** Takes a VMID of an SMMU. @throws KernelError ENOSPC, ENOMEM */
function take(smmu: Smmu, owner: string): number {
  smmu.kernel.alloc('vmid');
  try {
    const vmid = smmu.vmids.alloc(owner);
    smmu.kernel.announce({ what: 'vmid', act: 'alloc', where: smmu.name, id: BigInt(vmid), owner });
    return vmid;
  } catch (error) {
    if (error instanceof VmidError) throw new KernelError('ENOSPC', `${smmu.name}: ${error.message}`);
    throw error;
  }
}

/** Gives a VMID back as soon as no lost invalidation can matter. */
function give(smmu: Smmu, vmid: number, owner: string): void {
  smmu.quarantine.retire([smmu], `${smmu.name} VMID ${vmid}`, () => {
    smmu.kernel.announce({ what: 'vmid', act: 'free', where: smmu.name, id: BigInt(vmid), owner });
    smmu.vmids.free(vmid, owner);
  });
}

const parentOf = (domain: PagingDomain | NestedDomain): PagingDomain =>
  domain instanceof NestedDomain ? domain.parent : domain;

/** The live tag of a type in a domain's array on an SMMU (`arm_smmu_find_iotlb_tag`). */
const liveTag = (domain: PagingDomain, smmu: Smmu, type: InvType): Inv | undefined =>
  domain.invs.find((inv) => inv.smmu === smmu && inv.type === type && inv.users > 0);

/** Linux 7.2: the number belongs to the S2; vIOMMUs borrow it. */
function atDomainAlloc(nestedWithoutViommu: boolean): VmidPolicy {
  return {
    name: 'at-domain-alloc',
    shares: false,
    nestedWithoutViommu,
    s2Alloc: (domain) => {
      domain.vmid = take(domain.smmu, domain.name);
    },
    s2Free: (domain) => {
      if (domain.vmid !== 0) give(domain.smmu, domain.vmid, domain.name);
      domain.vmid = 0;
    },
    vsmmuInit: (vsmmu) => {
      vsmmu.vmid = vsmmu.parent.vmid;
    },
    vsmmuDestroy: () => {},
    tagFor: (domain) => ({ type: 'S2_VMID', vmid: parentOf(domain).vmid, fresh: false }),
    tagUnused: () => {},
    clearsStage1: (domain) => parentOf(domain).nestParent,
    ...ownNumbers,
  };
}

/** Where the two sharing policies and 'external' differ: who hands numbers out, and who is refused. */
interface Source {
  readonly name: VmidPolicyName;
  takeS2(domain: PagingDomain, smmu: Smmu): number;
  giveS2(domain: PagingDomain, smmu: Smmu, vmid: number): void;
  takeVsmmu(vsmmu: Vsmmu): number;
  giveVsmmu(vsmmu: Vsmmu): void;
  /** An S2, or a nested domain without vIOMMU, is to be attached. @throws KernelError EBUSY */
  checkDirect(parent: PagingDomain, smmu: Smmu): void;
  /** A vIOMMU is to be made. @throws KernelError EBUSY */
  checkVsmmu(vsmmu: Vsmmu): void;
  adopt(smmu: Smmu, vmid: number): void;
  disown(smmu: Smmu, vmid: number): void;
}

function sharing(source: Source): VmidPolicy {
  return {
    name: source.name,
    shares: true,
    nestedWithoutViommu: true,
    s2Alloc: () => {},
    s2Free: () => {},
    vsmmuInit: (vsmmu) => {
      source.checkVsmmu(vsmmu);
      vsmmu.vmid = source.takeVsmmu(vsmmu);
    },
    vsmmuDestroy: (vsmmu) => source.giveVsmmu(vsmmu),
    tagFor: (domain, smmu) => {
      // Never searched for: two vIOMMUs of one S2 on one SMMU each have a live tag.
      if (domain instanceof NestedDomain && domain.vsmmu !== null)
        return { type: 'S2_VMID_VSMMU', vmid: domain.vsmmu.vmid, fresh: false };
      const parent = parentOf(domain);
      source.checkDirect(parent, smmu);
      const live = liveTag(parent, smmu, 'S2_VMID');
      if (live !== undefined) return { type: 'S2_VMID', vmid: live.id, fresh: false };
      return { type: 'S2_VMID', vmid: source.takeS2(parent, smmu), fresh: true };
    },
    tagUnused: (parent, tag) => {
      if (tag.type === 'S2_VMID') source.giveS2(parent, tag.smmu, tag.id);
    },
    clearsStage1: (domain) => domain instanceof NestedDomain,
    adopt: source.adopt,
    disown: source.disown,
  };
}

/** Numbers from the SMMU's own allocator. */
const allocator = {
  takeS2: (domain: PagingDomain, smmu: Smmu) => take(smmu, domain.name),
  giveS2: (domain: PagingDomain, smmu: Smmu, vmid: number) => give(smmu, vmid, domain.name),
  takeVsmmu: (vsmmu: Vsmmu) => take(vsmmu.smmu, vsmmu.name),
  giveVsmmu: (vsmmu: Vsmmu) => give(vsmmu.smmu, vsmmu.vmid, vsmmu.name),
  ...ownNumbers,
};

const atAttach: Source = { name: 'at-attach', ...allocator, checkDirect: () => {}, checkVsmmu: () => {} };

const viommuOnly: Source = {
  name: 'viommu-only',
  ...allocator,
  checkDirect: (parent, smmu) => {
    if ((parent.vsmmus.get(smmu) ?? 0) > 0)
      throw new KernelError('EBUSY', `${parent.name} has a vIOMMU on ${smmu.name}: attach a nested domain of it`);
  },
  checkVsmmu: ({ parent, smmu }) => {
    if (liveTag(parent, smmu, 'S2_VMID') !== undefined)
      throw new KernelError('EBUSY', `${parent.name} is attached directly on ${smmu.name}`);
  },
};

/** A VM's number on an SMMU, and the S2 it stands for. */
interface Pin {
  readonly parent: PagingDomain;
  count: number;
}

/** Numbers from a hypervisor: pinned where at-attach allocates, unpinned where it frees. */
function external(hypervisor: Hypervisor): Source {
  const pins = new Map<string, Pin>();
  const pin = (vm: string, smmu: Smmu, parent: PagingDomain): number => {
    smmu.kernel.alloc('vmid');
    const key = `${smmu.name} ${vm}`;
    const held = pins.get(key) ?? { parent, count: 0 };
    // One number cannot tag two different stage 2 tables (IHI 0070 5.2.1).
    if (held.parent !== parent) throw new KernelError('EBUSY', `${vm} has another stage 2 on ${smmu.name}`);
    const vmid = hypervisor.pinVmid(vm, smmu.name);
    if (vmid < 1 || vmid > smmu.vmids.max) {
      hypervisor.unpinVmid(vm, smmu.name);
      throw new KernelError('ENOSPC', `VMID ${vmid} of ${vm} does not fit ${smmu.name}: 1..${smmu.vmids.max}`);
    }
    held.count++;
    pins.set(key, held);
    return vmid;
  };
  const unpin = (vm: string, smmu: Smmu, vmid: number): void =>
    smmu.quarantine.retire([smmu], `${smmu.name} VMID ${vmid}`, () => {
      const key = `${smmu.name} ${vm}`;
      const held = pins.get(key);
      if (held !== undefined && --held.count === 0) pins.delete(key);
      hypervisor.unpinVmid(vm, smmu.name);
    });
  return {
    name: 'external',
    takeS2: (domain, smmu) => pin(domain.vm, smmu, domain),
    giveS2: (domain, smmu, vmid) => unpin(domain.vm, smmu, vmid),
    takeVsmmu: (vsmmu) => pin(vsmmu.vm, vsmmu.smmu, vsmmu.parent),
    giveVsmmu: (vsmmu) => unpin(vsmmu.vm, vsmmu.smmu, vsmmu.vmid),
    checkDirect: () => {},
    checkVsmmu: () => {},
    adopt: (smmu, vmid) => hypervisor.reserveVmid?.(vmid, smmu.name),
    disown: (smmu, vmid) =>
      smmu.quarantine.retire([smmu], `${smmu.name} VMID ${vmid}`, () => hypervisor.unreserveVmid?.(vmid, smmu.name)),
  };
}

/** The policy of a name. @throws RangeError 'external' without a hypervisor */
export function makeVmidPolicy(
  name: VmidPolicyName,
  options: { readonly hypervisor: Hypervisor | null; readonly nestedWithoutViommu: boolean },
): VmidPolicy {
  if (name === 'at-domain-alloc') return atDomainAlloc(options.nestedWithoutViommu);
  if (name === 'at-attach') return sharing(atAttach);
  if (name === 'viommu-only') return sharing(viommuOnly);
  if (options.hypervisor === null) throw new RangeError("VMID policy 'external' needs a hypervisor");
  return sharing(external(options.hypervisor));
}
