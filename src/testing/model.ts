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
  /** Null: the driver is not the shipped one; who owns what is its own affair. */
  readonly policy: VmidPolicyName | null;
  /** SMMU of each device. */
  readonly smmuOf: ReadonlyMap<string, string>;
}

/** See the module comment. */
export class VmidModel {
  /** Null: nothing is known of owners, only of attachments. */
  readonly policy: VmidPolicyName | null;
  readonly #smmuOf: ReadonlyMap<string, string>;
  readonly #paging = new Map<string, Paging>();
  readonly #viommus = new Map<string, Viommu>();
  readonly #nested = new Map<string, Nested>();
  readonly #attached = new Map<string, Target>();
  readonly #serials = new Map<string, number>();

  constructor({ policy, smmuOf }: ModelSetup) {
    this.policy = policy;
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
        return;
      case 'detach':
      case 'unbind':
        this.#attached.delete(o.dev);
        return;
      case 'destroy':
        this.#paging.delete(o.name);
        this.#viommus.delete(o.name);
        this.#nested.delete(o.name);
        return;
      default:
    }
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
    const target = this.#attached.get(dev);
    if (target === undefined || (target.kind === 'nested' && target.hwpt.vste === 'abort')) return null;
    return this.#tag(target, this.#smmu(dev));
  }

  /** IO address space that a device reaches; null: none. */
  ioasOf(dev: string): string | null {
    const target = this.#attached.get(dev);
    if (target === undefined) return null;
    if (target.kind === 'ioas') return target.ioas;
    return target.kind === 'paging' ? target.hwpt.ioas : target.hwpt.parent.ioas;
  }

  /** Whether a device reaches its IOAS without tables of a guest in between. */
  reachesDirectly(dev: string): boolean {
    const target = this.#attached.get(dev);
    return target !== undefined && (target.kind !== 'nested' || target.hwpt.vste === 'bypass');
  }

  /** Everybody who must own exactly one VMID on an SMMU now. */
  owners(smmu: string): Set<string> {
    const owners = new Set<string>();
    if (this.policy === 'at-domain-alloc') {
      for (const s2 of this.#paging.values()) if (s2.stage2 && s2.smmu === smmu) owners.add(s2.key);
      return owners;
    }
    for (const viommu of this.#viommus.values())
      if (viommu.smmu === smmu) owners.add(this.policy === 'external' ? `vm of ${viommu.parent.key}` : viommu.key);
    for (const [dev, target] of this.#attached) {
      const tag = this.#smmu(dev) === smmu ? this.#tag(target, smmu) : null;
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
    return [...this.#attached].some(
      ([dev, target]) => this.#smmu(dev) === smmu && this.#tag(target, smmu) === `${s2.key}@${smmu}`,
    );
  }
}
