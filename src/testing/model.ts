/**
 * The rules of who owns a VMID, as plain sets and maps. Nothing here is shared with the driver: it is told what was asked
 * for and whether the kernel said yes, and says who must own a VMID on which SMMU, whose VMID a device's STE carries, and
 * what each device reaches.
 *
 * An owner is a string without a number: `v0#1` (the first vIOMMU of that name), `s0#1` (the S2 itself), `s0#1@smmu1` (the
 * S2 attached directly there), `vm of s0#1` (its virtual machine).
 */
import type { VmidPolicyName } from '../driver/arm-smmu-v3/index.ts';
import type { VsteMode } from './guest.ts';
import { CaseError } from './lab.ts';
import type { Operation, OperationResult } from './operations.ts';

interface Paging {
  readonly key: string;
  /** Where it was allocated. */
  readonly smmu: string;
  readonly stage2: boolean;
  readonly ioas: string;
}

interface Viommu {
  readonly key: string;
  readonly smmu: string;
  readonly parent: Paging;
}

interface Nested {
  readonly parent: Paging;
  readonly viommu: Viommu | null;
  readonly vste: VsteMode;
}

/** What a device is attached to. */
type Target =
  | { readonly kind: 'ioas'; readonly ioas: string }
  | { readonly kind: 'paging'; readonly hwpt: Paging }
  | { readonly kind: 'nested'; readonly hwpt: Nested };

/** What the model has to know of the machine. */
export interface ModelSetup {
  /** Devices have ATS: a PCI reset blocks them. Default false. */
  readonly ats?: boolean;
  /** Null: the driver is not the shipped one; who owns what is its own affair. */
  readonly policy: VmidPolicyName | null;
  /** SMMU of each device. */
  readonly smmuOf: ReadonlyMap<string, string>;
}

/** What {@link OkResult.saw} says of a reset that could not give the device back what it had. */
export const STAYS_BLOCKED = 'stays blocked';

/** See the module comment. */
export class VmidModel {
  /** Null: nothing is known of owners, only of attachments. */
  readonly policy: VmidPolicyName | null;
  readonly #smmuOf: ReadonlyMap<string, string>;
  readonly #paging = new Map<string, Paging>();
  readonly #viommus = new Map<string, Viommu>();
  readonly #nested = new Map<string, Nested>();
  readonly #attached = new Map<string, Target>();
  /** Devices that a reset left blocked, because what they had could not be restored. */
  readonly #blocked = new Set<string>();
  readonly #pasids = new Map<string, Map<number, Target>>();
  /** Devices in a PCI reset, with how many are under way. */
  readonly #resets = new Map<string, number>();
  readonly #serials = new Map<string, number>();
  /** Devices with the STE of a kernel that runs no more, and the owner of the tag in it; null: none. */
  readonly #inherited = new Map<string, string | null>();
  /** SMMUs that are switched off, and whether they still abort everything or have lost their registers. */
  readonly #off = new Map<string, 'aborts' | 'lost'>();
  readonly #ats: boolean;

  constructor({ policy, smmuOf, ats = false }: ModelSetup) {
    this.policy = policy;
    this.#ats = ats;
    this.#smmuOf = smmuOf;
  }

  /** Takes note of an operation and how it ended. What failed changed nothing. */
  apply(o: Operation, result: OperationResult): void {
    if (result.status !== 'ok') return;
    switch (o.op) {
      case 'hwptAlloc': {
        const stage2 = o.nestParent === true;
        this.#paging.set(o.as, { key: this.#key(o.as), smmu: this.#smmu(o.dev), stage2, ioas: o.ioas });
        return;
      }
      case 'viommuAlloc': {
        const parent = this.#paging.get(o.parent);
        if (parent === undefined) throw new Error(`viommuAlloc succeeded on ${o.parent}, which is no paging HWPT`);
        this.#viommus.set(o.as, { key: this.#key(o.as), smmu: this.#smmu(o.dev), parent });
        return;
      }
      case 'nestedAlloc': {
        const viommu = this.#viommus.get(o.on) ?? null;
        const parent = viommu?.parent ?? this.#paging.get(o.on);
        if (parent === undefined) throw new Error(`nestedAlloc succeeded on ${o.on}, which cannot have a child`);
        this.#nested.set(o.as, { parent, viommu, vste: o.vste });
        return;
      }
      case 'attach':
        this.#attached.set(o.dev, this.#target(o.to));
        this.#blocked.delete(o.dev);
        return;
      case 'detach':
        this.#attached.delete(o.dev);
        return;
      case 'bind':
        this.#inherited.delete(o.dev);
        return;
      case 'smmuSuspend':
        this.#off.set(o.smmu, o.power === 'off' || o.power === 'warm' ? 'lost' : (this.#off.get(o.smmu) ?? 'aborts'));
        return;
      case 'smmuResume':
      case 'smmuReset':
        this.#off.delete(o.smmu);
        return;
      case 'smmuUnplug':
        this.#off.set(o.smmu, 'lost');
        for (const [dev, smmu] of this.#smmuOf) if (smmu === o.smmu) this.#leave(dev);
        return;
      case 'kexec':
        this.#kexec(o);
        return;
      case 'unbind':
        this.#attached.delete(o.dev);
        this.#pasids.delete(o.dev);
        return;
      case 'pasidAttach':
        this.#pasids.set(
          o.dev,
          (this.#pasids.get(o.dev) ?? new Map<number, Target>()).set(o.pasid, this.#target(o.to)),
        );
        return;
      case 'pasidDetach':
        this.#pasids.get(o.dev)?.delete(o.pasid);
        return;
      case 'resetBegin':
        if (this.#ats) this.#resets.set(o.dev, (this.#resets.get(o.dev) ?? 0) + 1);
        return;
      case 'resetEnd':
        this.#resetEnd(o.dev, result.saw === STAYS_BLOCKED);
        return;
      case 'destroy':
        this.#mustBeFree(o.name);
        this.#paging.delete(o.name);
        this.#viommus.delete(o.name);
        this.#nested.delete(o.name);
        return;
      default:
    }
  }

  /** @throws Error if something that is there holds what was destroyed */
  #mustBeFree(name: string): void {
    const gone = this.#paging.get(name) ?? this.#viommus.get(name) ?? this.#nested.get(name);
    const holder =
      this.#attachedTo(name) ??
      keyOf(this.#paging, ({ ioas }) => ioas === name) ??
      (gone === undefined
        ? undefined
        : (keyOf(this.#viommus, ({ parent }) => parent === gone) ??
          keyOf(this.#nested, ({ parent, viommu }) => (viommu ?? parent) === gone)));
    if (holder !== undefined)
      throw new Error(`destroy(${name}) succeeded, and ${holder} is made from it or attached to it`);
  }

  /** A device, or a PASID of one, that is attached to what has a name. */
  #attachedTo(name: string): string | undefined {
    const target = this.#target(name);
    const same = (one: Target): boolean =>
      one.kind === 'ioas'
        ? target.kind === 'ioas' && one.ioas === name
        : target.kind === one.kind && one.hwpt === target.hwpt;
    const pasids = [...this.#pasids].find(([, targets]) => [...targets.values()].some(same));
    return keyOf(this.#attached, same) ?? pasids?.[0];
  }

  #leave(dev: string): void {
    for (const known of [this.#attached, this.#pasids, this.#resets, this.#blocked, this.#inherited]) known.delete(dev);
  }

  /** Nothing of the VMs is left but what streams do that were adopted. */
  #kexec(o: Extract<Operation, { op: 'kexec' }>): void {
    const kept: [string, string | null][] = [];
    for (const [dev, smmu] of this.#smmuOf) {
      if (!this.adopts(o, smmu)) continue;
      const inherited = this.#inherited.has(dev);
      if (inherited || this.#effective(dev) !== undefined) kept.push([dev, this.tagOf(dev)]);
    }
    for (const dev of this.#smmuOf.keys()) this.#leave(dev);
    for (const known of [this.#paging, this.#viommus, this.#nested, this.#off]) known.clear();
    for (const [dev, tag] of kept) this.#inherited.set(dev, tag);
  }

  /** Whether a kernel that takes over must adopt the Stream table of an SMMU: it is on, and the table is sound. */
  adopts({ how, damage }: Extract<Operation, { op: 'kexec' }>, smmu: string): boolean {
    return how !== 'orderly' && !this.#off.has(smmu) && (damage === undefined || this.#smmu(damage.dev) !== smmu);
  }

  /** Whether an SMMU is off, and then what its traffic meets; undefined: it is on. */
  offOf(smmu: string): 'aborts' | 'lost' | undefined {
    return this.#off.get(smmu);
  }

  #resetEnd(dev: string, blocked: boolean): void {
    const left = (this.#resets.get(dev) ?? 0) - 1;
    if (left > 0) this.#resets.set(dev, left);
    else this.#resets.delete(dev);
    if (blocked) this.#blocked.add(dev);
  }

  /** What a device's STE is about; undefined: it is blocked. */
  #effective(dev: string): Target | undefined {
    return this.#resets.has(dev) || this.#blocked.has(dev) ? undefined : this.#attached.get(dev);
  }

  #key(name: string): string {
    const serial = (this.#serials.get(name) ?? 0) + 1;
    this.#serials.set(name, serial);
    return `${name}#${serial}`;
  }

  #smmu(dev: string): string {
    const smmu = this.#smmuOf.get(dev);
    if (smmu === undefined) throw new CaseError(`the model knows no ${dev}`);
    return smmu;
  }

  #target(name: string): Target {
    const paging = this.#paging.get(name);
    if (paging !== undefined) return { kind: 'paging', hwpt: paging };
    const nested = this.#nested.get(name);
    if (nested !== undefined) return { kind: 'nested', hwpt: nested };
    return { kind: 'ioas', ioas: name };
  }

  /** The owner of the tag of an attachment on an SMMU; null: it has no stage 2. */
  #tag(target: Target, smmu: string): string | null {
    if (target.kind === 'ioas') return null;
    const viommu = target.kind === 'nested' ? target.hwpt.viommu : null;
    const s2 = target.kind === 'nested' ? target.hwpt.parent : target.hwpt;
    if (!s2.stage2) return null;
    if (this.policy === 'at-domain-alloc') return s2.key;
    if (this.policy === 'external') return `vm of ${s2.key}`;
    return viommu === null ? `${s2.key}@${smmu}` : viommu.key;
  }

  /** Whose VMID the STE of a device carries; null: its stage 2 is off. */
  tagOf(dev: string): string | null {
    const inherited = this.#inherited.get(dev);
    if (inherited !== undefined) return inherited;
    const target = this.#effective(dev);
    if (target === undefined || (target.kind === 'nested' && target.hwpt.vste === 'abort')) return null;
    return this.#tag(target, this.#smmu(dev));
  }

  /** Whose VMID the commands of a vIOMMU carry; null: there is none of that name. */
  tagOfViommu(name: string): string | null {
    const viommu = this.#viommus.get(name);
    if (viommu === undefined) return null;
    if (this.policy === 'at-domain-alloc') return viommu.parent.key;
    return this.policy === 'external' ? `vm of ${viommu.parent.key}` : viommu.key;
  }

  /** IO address space that a device reaches, with a PASID or without; null: none. */
  ioasOf(dev: string, pasid?: number): string | null {
    const target = this.#reached(dev, pasid);
    if (target === undefined) return null;
    if (target.kind === 'ioas') return target.ioas;
    return target.kind === 'paging' ? target.hwpt.ioas : target.hwpt.parent.ioas;
  }

  /** The paging HWPT that a device is attached to itself, with a PASID or without; null: another kind, or none. */
  pagingOf(dev: string, pasid?: number): string | null {
    const target = this.#reached(dev, pasid);
    if (target?.kind !== 'paging') return null;
    return keyOf(this.#paging, (one) => one === target.hwpt) ?? null;
  }

  /** A PASID that the host has attached has a target of its own; else a guest's tables choose by it. */
  #reached(dev: string, pasid: number | undefined): Target | undefined {
    const target = this.#effective(dev);
    if (pasid === undefined) return target;
    const own = this.#resets.has(dev) ? undefined : this.#pasids.get(dev)?.get(pasid);
    return own ?? (target?.kind === 'nested' ? target : undefined);
  }

  /** Whether a device reaches its IOAS without tables of a guest in between. */
  reachesDirectly(dev: string, pasid?: number): boolean {
    const target = this.#reached(dev, pasid);
    if (target?.kind !== 'nested') return target !== undefined;
    // A transaction with a SubstreamID is refused where there is no stage 1.
    return target.hwpt.vste === 'bypass' && pasid === undefined;
  }

  /** A device that a reset has blocked. */
  inReset(dev: string): boolean {
    return this.#resets.has(dev) || this.#blocked.has(dev);
  }

  /** Everybody who must own exactly one VMID on an SMMU now. */
  owners(smmu: string): Set<string> {
    const owners = new Set<string>();
    for (const [dev, tag] of this.#inherited) if (tag !== null && this.#smmu(dev) === smmu) owners.add(tag);
    if (this.policy === 'at-domain-alloc') {
      for (const s2 of this.#paging.values()) if (s2.stage2 && s2.smmu === smmu) owners.add(s2.key);
      return owners;
    }
    for (const viommu of this.#viommus.values())
      if (viommu.smmu === smmu) owners.add(this.policy === 'external' ? `vm of ${viommu.parent.key}` : viommu.key);
    for (const dev of this.#attached.keys()) {
      const target = this.#effective(dev);
      const tag = this.#smmu(dev) === smmu && target !== undefined ? this.#tag(target, smmu) : null;
      if (tag !== null) owners.add(tag);
    }
    return owners;
  }

  /**
   * The errno with which policy 'viommu-only' must refuse an operation; null: it has no objection. An S2 and its vIOMMUs
   * never both hold a VMID on one SMMU.
   */
  refusal(o: Operation): 'EBUSY' | null {
    if (this.policy !== 'viommu-only') return null;
    if (o.op === 'viommuAlloc') {
      const parent = this.#paging.get(o.parent);
      return parent !== undefined && this.#direct(parent, this.#smmu(o.dev)) ? 'EBUSY' : null;
    }
    if (o.op !== 'attach') return null;
    const target = this.#target(o.to);
    if (target.kind === 'ioas' || (target.kind === 'nested' && target.hwpt.viommu !== null)) return null;
    const s2 = target.kind === 'nested' ? target.hwpt.parent : target.hwpt;
    const smmu = this.#smmu(o.dev);
    const hasViommu = [...this.#viommus.values()].some((one) => one.parent === s2 && one.smmu === smmu);
    return s2.stage2 && hasViommu ? 'EBUSY' : null;
  }

  /** Whether an S2 is attached on an SMMU without a vIOMMU in between. */
  #direct(s2: Paging, smmu: string): boolean {
    return [...this.#attached.keys()].some((dev) => {
      const target = this.#effective(dev);
      return target !== undefined && this.#smmu(dev) === smmu && this.#tag(target, smmu) === `${s2.key}@${smmu}`;
    });
  }
}

/** The first key whose value is such. */
function keyOf<T>(map: ReadonlyMap<string, T>, such: (value: T) => boolean): string | undefined {
  for (const [key, value] of map) if (such(value)) return key;
  return undefined;
}
