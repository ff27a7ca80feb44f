/** Who owns which VMID, as announced: kept beside the driver, from what it says and not from what it stores. */
import { type Hypervisor, INHERITED } from '../driver/arm-smmu-v3/index.ts';
import type { LocalKernel } from '../driver/local-kernel.ts';

/** An announcement that cannot be true. */
export interface LedgerFault {
  readonly smmu: string;
  readonly vmid: number;
  readonly message: string;
}

/** See the module comment. Listens to a kernel from its first breath. */
export class VmidLedger {
  readonly #owners = new Map<string, Map<number, Set<string>>>();
  /** Announcements that contradict earlier ones, oldest first. */
  readonly faults: LedgerFault[] = [];
  /** Grows with each announcement of a VMID. */
  version = 0;
  /** Called when a VMID has just become free, with who had it last. */
  onFree: ((smmu: string, vmid: number, owner: string) => void) | null = null;
  /** Whether anybody announced anything: without it ownership is undecided. */
  heard = false;
  #takenOver = false;
  /** Who owned what has changed since {@link mark}, by SMMU and VMID. */
  readonly #before = new Map<string, Map<number, string>>();
  /** What {@link taken} gave last, of each SMMU. */
  readonly #taken = new Map<string, { readonly version: number; readonly vmids: readonly number[] }>();

  constructor(kernel: LocalKernel) {
    kernel.onNote(({ what, act, where, id, owner }) => {
      if (what === 'driver') this.#forget();
      if (what !== 'vmid') return;
      this.version++;
      if (act === 'alloc') this.#take(where, Number(id), owner);
      else if (act === 'give') this.#give(where, Number(id), owner);
      else if (act === 'free') this.#free(where, Number(id), owner);
    });
  }

  /** Another kernel runs: whoever owned anything is gone, and it may find numbers in use. */
  #forget(): void {
    this.version++;
    for (const [smmu, map] of this.#owners) for (const vmid of map.keys()) this.#remember(smmu, vmid);
    this.#owners.clear();
    this.#takenOver = true;
  }

  #of(smmu: string): Map<number, Set<string>> {
    let map = this.#owners.get(smmu);
    if (map === undefined) {
      map = new Map();
      this.#owners.set(smmu, map);
    }
    return map;
  }

  /** `owner` has `vmid` from now on. */
  #take(smmu: string, vmid: number, owner: string): void {
    this.heard = true;
    this.#remember(smmu, vmid);
    const map = this.#of(smmu);
    const owners = map.get(vmid) ?? new Set();
    if (owners.size > 0) this.#fault(smmu, vmid, `${owner} takes VMID ${vmid}, which ${[...owners].join(' and ')} has`);
    if (vmid === 0) this.#fault(smmu, vmid, `VMID 0 is handed out to ${owner}`);
    owners.add(owner);
    map.set(vmid, owners);
  }

  #give(smmu: string, vmid: number, owner: string): void {
    this.#remember(smmu, vmid);
    const map = this.#of(smmu);
    if (!map.has(vmid) && !this.#takenOver)
      this.#fault(smmu, vmid, `VMID ${vmid} is given to ${owner} and nobody has it`);
    map.set(vmid, new Set([owner]));
  }

  /** `owner` has `vmid` no more. */
  #free(smmu: string, vmid: number, owner: string): void {
    this.#remember(smmu, vmid);
    const owners = this.#of(smmu).get(vmid);
    if (owners?.delete(owner) !== true) {
      this.#fault(smmu, vmid, `${owner} frees VMID ${vmid}, which is not its own`);
      return;
    }
    if (owners.size > 0) return;
    this.#of(smmu).delete(vmid);
    this.onFree?.(smmu, vmid, owner);
  }

  #fault(smmu: string, vmid: number, message: string): void {
    this.faults.push({ smmu, vmid, message: `${smmu}: ${message}` });
  }

  /** {@link changes} begin here. */
  mark(): void {
    if (this.#before.size > 0) this.#before.clear();
  }

  #remember(smmu: string, vmid: number): void {
    let map = this.#before.get(smmu);
    if (map === undefined) {
      map = new Map();
      this.#before.set(smmu, map);
    }
    if (!map.has(vmid)) map.set(vmid, this.#line(smmu, vmid));
  }

  /** What differs from what was at the last {@link mark}, as lines of {@link list}. */
  changes(): { readonly gone: readonly string[]; readonly came: readonly string[] } {
    const gone: string[] = [];
    const came: string[] = [];
    for (const [smmu, vmids] of this.#before)
      for (const [vmid, before] of vmids) {
        const now = this.#line(smmu, vmid);
        if (before !== now && before !== '') gone.push(before);
        if (before !== now && now !== '') came.push(now);
      }
    return { gone: gone.sort(), came: came.sort() };
  }

  /** A VMID as {@link list} has it; '': it is free. */
  #line(smmu: string, vmid: number): string {
    const owners = this.#owners.get(smmu)?.get(vmid);
    return owners === undefined ? '' : `${smmu} ${vmid} ${[...owners].join(' and ')}`;
  }

  /** Owners of a VMID; empty: it is free. */
  ownersOf(smmu: string, vmid: number): ReadonlySet<string> {
    return this.#owners.get(smmu)?.get(vmid) ?? NOBODY;
  }

  /** VMIDs that are owned on an SMMU, ascending, without those of {@link TENANT}s. */
  taken(smmu: string): readonly number[] {
    const known = this.#taken.get(smmu);
    if (known?.version === this.version) return known.vmids;
    const vmids: number[] = [];
    for (const [vmid, owners] of this.#owners.get(smmu) ?? []) if (!isTenants(owners)) vmids.push(vmid);
    vmids.sort((a, b) => a - b);
    this.#taken.set(smmu, { version: this.version, vmids });
    return vmids;
  }

  /** Every owned VMID as `smmu0 3 viommu:1`, sorted. */
  list(): string[] {
    return [...this.#owners].flatMap(([smmu, map]) => [...map.keys()].map((vmid) => this.#line(smmu, vmid))).sort();
  }
}

const NOBODY: ReadonlySet<string> = new Set();

/** Begins the names of those who own VMIDs and have nothing to do with the lab's VMs. */
export const TENANT = 'tenant';

function isTenants(owners: ReadonlySet<string>): boolean {
  for (const owner of owners) if (!ofTenant(owner)) return false;
  return owners.size > 0;
}

const TENANTS = new RegExp(`^(vm of )?${TENANT} `);

/** Whether an owner is a {@link TENANT}. */
export const ofTenant = (owner: string): boolean => TENANTS.test(owner);

/**
 * A hypervisor that owns the VMIDs (policy 'external'): one number for each VM, the same on all SMMUs, lowest first. It
 * announces what it pins as a driver announces what it allocates.
 */
export class LabHypervisor implements Hypervisor {
  readonly #kernel: LocalKernel;
  readonly #vms = new Map<string, { readonly vmid: number; readonly pins: Map<string, number> }>();

  /** Numbers of the VMs. */
  readonly #numbers = new Set<number>();

  readonly #max: (smmu: string) => number;

  /** @param max highest VMID of an SMMU: a wider one is pinned and never used there */
  constructor(kernel: LocalKernel, max: (smmu: string) => number = () => Number.POSITIVE_INFINITY) {
    this.#kernel = kernel;
    this.#max = max;
  }

  /** Numbers found in use on an SMMU that was taken over. */
  readonly #reserved = new Map<string, Set<number>>();

  reserveVmid(vmid: number, smmu: string): void {
    this.#reserved.set(smmu, (this.#reserved.get(smmu) ?? new Set()).add(vmid));
    this.#kernel.announce({ what: 'vmid', act: 'give', where: smmu, id: BigInt(vmid), owner: INHERITED });
  }

  unreserveVmid(vmid: number, smmu: string): void {
    this.#reserved.get(smmu)?.delete(vmid);
    this.#kernel.announce({ what: 'vmid', act: 'free', where: smmu, id: BigInt(vmid), owner: INHERITED });
  }

  /** Numbers that no VM can be given on an SMMU any more. */
  used(smmu: string): number {
    let used = this.#numbers.size;
    for (const vmid of this.#reserved.get(smmu) ?? []) if (!this.#numbers.has(vmid)) used++;
    return used;
  }

  pinVmid(vm: string, smmu: string): number {
    let entry = this.#vms.get(vm);
    if (entry === undefined) {
      entry = { vmid: this.#lowestFree(), pins: new Map() };
      this.#numbers.add(entry.vmid);
      this.#vms.set(vm, entry);
    }
    const pins = entry.pins.get(smmu) ?? 0;
    entry.pins.set(smmu, pins + 1);
    if (pins === 0) this.#announce('alloc', vm, smmu, entry.vmid);
    return entry.vmid;
  }

  unpinVmid(vm: string, smmu: string): void {
    const entry = this.#vms.get(vm);
    const pins = entry?.pins.get(smmu) ?? 0;
    if (entry === undefined || pins === 0) {
      // Nobody's: the ledger takes it down as a fault.
      this.#announce('free', vm, smmu, entry?.vmid ?? 0);
      return;
    }
    if (pins > 1) {
      entry.pins.set(smmu, pins - 1);
      return;
    }
    entry.pins.delete(smmu);
    if (entry.pins.size === 0) {
      this.#vms.delete(vm);
      this.#numbers.delete(entry.vmid);
    }
    this.#announce('free', vm, smmu, entry.vmid);
  }

  #announce(act: 'alloc' | 'free', vm: string, smmu: string, vmid: number): void {
    if (vmid > this.#max(smmu)) return;
    this.#kernel.announce({ what: 'vmid', act, where: smmu, id: BigInt(vmid), owner: `vm of ${vm}` });
  }

  #lowestFree(): number {
    // A VM has one number everywhere: what is reserved on one SMMU is given to nobody.
    const reserved = [...this.#reserved.values()];
    let vmid = 1;
    while (this.#numbers.has(vmid) || reserved.some((vmids) => vmids.has(vmid))) vmid++;
    return vmid;
  }
}
