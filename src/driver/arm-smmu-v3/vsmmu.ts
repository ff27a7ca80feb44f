/** The driver's part of a vIOMMU (kernel: `struct arm_vsmmu`, arm-smmu-v3-iommufd.c; linux-driver 9). */
import { CMD_SYNC, STE, type Words } from '../../../spec/index.ts';
import { HWPT_DATA_TYPE, HWPT_INVALIDATE_DATA_TYPE, VIOMMU_TYPE } from '../../../spec/uapi/constants.ts';
import type {
  Device,
  DomainOps,
  IommuDomain,
  IommufdVdevice,
  IommufdViommu,
  IommuOps,
  PagingFlags,
  UserArray,
  UserData,
  ViommuOps,
} from '../iommu/ops.ts';
import { VIOMMU_CORE_SIZE } from '../iommu/ops.ts';
import { KernelError } from '../kernel.ts';
import { checkSmmu, masterOf } from './attach-domains.ts';
import { BATCH_ENTRIES, issueList } from './command-batch.ts';
import { NestedDomain, PagingDomain } from './domains.ts';
import type { Smmu } from './smmu.ts';

/** Bytes that the driver adds to the core's vIOMMU. */
const VSMMU_EXTRA = 24;

/** Bytes of a vSTE: two 64-bit words. */
const VSTE_BYTES = STE.bytes / 4;

/** Most commands of a VM under one CMD_SYNC. */
export const USER_BATCH = BATCH_ENTRIES - 1;

/** A vIOMMU on one SMMU over one S2. */
export class Vsmmu {
  readonly name: string;
  readonly smmu: Smmu;
  readonly parent: PagingDomain;
  readonly viommu: IommufdViommu;
  /** The virtual machine, where a hypervisor owns VMIDs. */
  readonly vm: string;
  /** Set by the VMID policy; read by STE, invalidation array, user commands and VINTF. */
  vmid = 0;

  constructor(smmu: Smmu, parent: PagingDomain, viommu: IommufdViommu) {
    this.name = smmu.label('viommu');
    this.smmu = smmu;
    this.parent = parent;
    this.viommu = viommu;
    this.vm = viommu.vm ?? parent.vm;
  }

  /** The vSID of a device. @throws KernelError ENOENT without a vDEVICE */
  vsidOf(dev: Device): bigint {
    return this.viommu.callbacks.getVdevId(this.viommu, dev);
  }

  /** The StreamID behind a vSID (`arm_vsmmu_vsid_to_sid`). */
  sidOf(vsid: number): number | undefined {
    const dev = this.viommu.callbacks.findDev(this.viommu, BigInt(vsid));
    return dev === undefined ? undefined : masterOf(dev).streams[0]?.sid;
  }
}

/** Bytes of a vIOMMU of this type for a device; 0: there is none (`arm_smmu_get_viommu_size`). */
export function getViommuSize(dev: Device, type: number): number {
  const { smmu, node } = masterOf(dev);
  const { features, impl } = smmu;
  if (!features.nesting || features.forceSync) return 0;
  // Without either, a VM could make accesses that bypass the caches the host relies on.
  if (!features.s2fwb && !node.canWbs) return 0;
  if (type === VIOMMU_TYPE.ARM_SMMUV3) return VIOMMU_CORE_SIZE + VSMMU_EXTRA;
  return impl?.viommuType === type ? (impl.getViommuSize?.(smmu) ?? 0) : 0;
}

/** Makes a vIOMMU this driver's (`arm_vsmmu_init`). @throws KernelError EINVAL, ENOSPC, EBUSY, ENOMEM, the companion's */
export function viommuInit(
  smmu: Smmu,
  viommu: IommufdViommu,
  parent: IommuDomain,
  userData: UserData | null,
  ops: ViommuOps,
): void {
  if (!(parent instanceof PagingDomain) || parent.kind !== 's2')
    throw new KernelError('EINVAL', 'the parent is not a stage 2 domain');
  checkSmmu(parent, smmu);
  const { vmidPolicy } = smmu.parts;
  const vsmmu = new Vsmmu(smmu, parent, viommu);
  vmidPolicy.vsmmuInit(vsmmu);
  try {
    if (viommu.type !== VIOMMU_TYPE.ARM_SMMUV3) smmu.impl?.vsmmuInit?.(vsmmu, viommu, userData, ops);
  } catch (error) {
    vmidPolicy.vsmmuDestroy(vsmmu);
    throw error;
  }
  parent.vsmmus.set(smmu, (parent.vsmmus.get(smmu) ?? 0) + 1);
  viommu.priv = vsmmu;
  viommu.ops ??= ops;
}

/** The driver's part of a vIOMMU. @throws KernelError EINVAL if it is another driver's */
export function vsmmuOf(viommu: IommufdViommu): Vsmmu {
  if (viommu.priv instanceof Vsmmu) return viommu.priv;
  throw new KernelError('EINVAL', "the vIOMMU is another driver's");
}

/** Ends the driver's part: last step of every type's destroy (`arm_vsmmu_destroy`). */
export function vsmmuDestroy(viommu: IommufdViommu): void {
  const vsmmu = vsmmuOf(viommu);
  const { parent, smmu } = vsmmu;
  const left = (parent.vsmmus.get(smmu) ?? 0) - 1;
  if (left > 0) parent.vsmmus.set(smmu, left);
  else parent.vsmmus.delete(smmu);
  smmu.parts.vmidPolicy.vsmmuDestroy(vsmmu);
}

/** Little-endian words of bytes. */
const wordsOf = (bytes: Uint8Array): Words => {
  const byte = (at: number): number => bytes[at] ?? 0;
  const words = new Uint32Array(bytes.byteLength / 4);
  for (let i = 0; i < words.length; i++) {
    const at = 4 * i;
    words[i] = byte(at) | (byte(at + 1) << 8) | (byte(at + 2) << 16) | (byte(at + 3) << 24);
  }
  return words;
};

function refuseFlags(flags: PagingFlags): void {
  if (flags.nestParent === true || flags.dirtyTracking === true || flags.pasid === true)
    throw new KernelError('EOPNOTSUPP', 'a nested domain takes no flags');
}

/** A nested domain of a vIOMMU (`arm_vsmmu_alloc_domain_nested`). @throws KernelError EOPNOTSUPP, EINVAL, EFAULT, EIO, ENOMEM */
export function allocDomainNested(
  viommu: IommufdViommu,
  flags: PagingFlags,
  userData: UserData,
  ops: DomainOps,
  owner: IommuOps,
): NestedDomain {
  const vsmmu = vsmmuOf(viommu);
  refuseFlags(flags);
  const { nested, kernel } = vsmmu.smmu.parts;
  const bytes = userData.copy(HWPT_DATA_TYPE.ARM_SMMUV3, VSTE_BYTES, VSTE_BYTES);
  const { vste, enableAts } = nested.validateVste(wordsOf(bytes));
  kernel.alloc('nested-domain');
  return new NestedDomain(ops, owner, vsmmu.parent, vsmmu, vste, enableAts);
}

/**
 * A nested domain directly on its parent, without vSIDs. No Linux driver of today has it; design "VMID policies".
 * @throws KernelError EOPNOTSUPP, EINVAL, EFAULT, EIO, ENOMEM
 */
export function allocNestedOnParent(
  smmu: Smmu,
  parent: IommuDomain,
  canWbs: boolean,
  flags: PagingFlags,
  userData: UserData,
  ops: DomainOps,
  owner: IommuOps,
): NestedDomain {
  const { vmidPolicy, nested, kernel } = smmu.parts;
  const { features } = smmu;
  if (!vmidPolicy.nestedWithoutViommu) throw new KernelError('EOPNOTSUPP', 'a nested domain needs a vIOMMU');
  refuseFlags(flags);
  if (!features.nesting || features.forceSync || (!features.s2fwb && !canWbs))
    throw new KernelError('EOPNOTSUPP', `${smmu.name} cannot nest for this device`);
  if (!(parent instanceof PagingDomain) || !parent.nestParent)
    throw new KernelError('EINVAL', 'the parent is not a nesting parent');
  checkSmmu(parent, smmu);
  const bytes = userData.copy(HWPT_DATA_TYPE.ARM_SMMUV3, VSTE_BYTES, VSTE_BYTES);
  const given = wordsOf(bytes);
  const { vste, enableAts } = nested.validateVste(given);
  if (enableAts) throw new KernelError('EINVAL', 'vSTE.EATS without a vIOMMU: the VM has no StreamID for CMD_ATC_INV');
  kernel.alloc('nested-domain');
  return new NestedDomain(ops, owner, parent, null, vste, false);
}

/** How user commands are issued on behalf of a VM. */
export interface UserInvalidation {
  readonly smmu: Smmu;
  /** Undefined: the VM has no VMID there now, so nothing is cached and commands are only checked. */
  readonly vmid: number | undefined;
  readonly sidOf: (vsid: number) => number | undefined;
}

/**
 * A VM's invalidation commands (`arm_vsmmu_cache_invalidate`): converted, then issued to the SMMU's own queue, up to 63
 * under one CMD_SYNC. `entryNum` becomes the number of entries handled, also on error: by option 'kernel' those
 * converted, by 'uapi' those issued.
 * @throws KernelError EINVAL, EFAULT, ENOMEM, EIO, ETIMEDOUT
 */
export function cacheInvalidate({ smmu, vmid, sidOf }: UserInvalidation, array: UserArray): void {
  const { kernel, nested } = smmu.parts;
  const given = array.entryNum;
  if (array.type !== HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3 || given === 0) {
    array.entryNum = 0;
    throw new KernelError('EINVAL', given === 0 ? 'no entries' : 'the invalidation data are not ARM_SMMUV3');
  }
  // Without memory for the copy nothing is reported handled or not: entry_num stays as given.
  kernel.alloc('user-commands');
  array.entryNum = 0;
  const entries = array.copyAll(HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3, CMD_SYNC.bytes);
  let issued = 0;
  let batch: Words[] = [];
  const flush = (): void => {
    if (batch.length === 0) return;
    if (vmid !== undefined && !issueList(smmu, smmu.cmdq, batch, true)) {
      array.entryNum = smmu.options.entryNum === 'uapi' ? issued : issued + batch.length - 1;
      throw new KernelError('ETIMEDOUT', "the CMD_SYNC of a VM's commands timed out");
    }
    issued += batch.length;
    batch = [];
  };
  for (const [i, entry] of entries.entries()) {
    try {
      batch.push(nested.convertCommand(wordsOf(entry), vmid ?? 0, sidOf));
    } catch (error) {
      // Linux counts what it converted, and has not issued the last group of it.
      array.entryNum = smmu.options.entryNum === 'uapi' ? issued : i;
      throw error;
    }
    if (batch.length === USER_BATCH) flush();
  }
  flush();
  array.entryNum = given;
}

/** Checks a vDEVICE (`arm_smmu_vdevice_init`). @throws KernelError EOPNOTSUPP */
export function vdeviceInit(vdev: IommufdVdevice): void {
  const { streams } = masterOf(vdev.dev);
  if (streams.length !== 1)
    throw new KernelError('EOPNOTSUPP', `${vdev.dev.name} has ${streams.length} streams: a vSID names one`);
}
