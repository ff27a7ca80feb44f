/** Who owns which VMID, as announced: kept beside the driver, from what it says and not from what it stores. */
import type { Hypervisor } from '../driver/arm-smmu-v3/index.ts';
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
  /** Called when a VMID has just become free. */
  onFree: ((smmu: string, vmid: number) => void) | null = null;
  /** Whether anybody announced anything: without it ownership is undecided. */
  heard = false;

  constructor(kernel: LocalKernel) {
    kernel.onNote(({ what, act, where, id, owner }) => {
      if (what !== 'vmid') return;
      this.version++;
      if (act === 'alloc') this.#take(where, Number(id), owner);
      else if (act === 'give') this.#give(where, Number(id), owner);
      else if (act === 'free') this.#free(where, Number(id), owner);
    });
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
    const map = this.#of(smmu);
    const owners = map.get(vmid) ?? new Set();
    if (owners.size > 0) this.#fault(smmu, vmid, `${owner} takes VMID ${vmid}, which ${[...owners].join(' and ')} has`);
    if (vmid === 0) this.#fault(smmu, vmid, `VMID 0 is handed out to ${owner}`);
    owners.add(owner);
    map.set(vmid, owners);
  }

  #give(smmu: string, vmid: number, owner: string): void {
    const map = this.#of(smmu);
    if (!map.has(vmid)) this.#fault(smmu, vmid, `VMID ${vmid} is given to ${owner} and nobody has it`);
    map.set(vmid, new Set([owner]));
  }

  /** `owner` has `vmid` no more. */
  #free(smmu: string, vmid: number, owner: string): void {
    const owners = this.#of(smmu).get(vmid);
    if (owners?.delete(owner) !== true) {
      this.#fault(smmu, vmid, `${owner} frees VMID ${vmid}, which is not its own`);
      return;
    }
    if (owners.size > 0) return;
    this.#of(smmu).delete(vmid);
    this.onFree?.(smmu, vmid);
  }

  #fault(smmu: string, vmid: number, message: string): void {
    this.faults.push({ smmu, vmid, message: `${smmu}: ${message}` });
  }

  /** Owners of a VMID; empty: it is free. */
  ownersOf(smmu: string, vmid: number): ReadonlySet<string> {
    return this.#owners.get(smmu)?.get(vmid) ?? NOBODY;
  }

  /** VMIDs that are owned on an SMMU, ascending. */
  taken(smmu: string): number[] {
    return [...(this.#owners.get(smmu)?.keys() ?? [])].sort((a, b) => a - b);
  }

  /** Every owned VMID as `smmu0 3 viommu:1`, sorted. */
  list(): string[] {
    return [...this.#owners]
      .flatMap(([smmu, map]) => [...map].map(([vmid, owners]) => `${smmu} ${vmid} ${[...owners].join(' and ')}`))
      .sort();
  }
}

const NOBODY: ReadonlySet<string> = new Set();

/**
 * A hypervisor that owns the VMIDs (policy 'external'): one number for each VM, the same on all SMMUs, lowest first. It
 * announces what it pins as a driver announces what it allocates.
 */
export class LabHypervisor implements Hypervisor {
  readonly #kernel: LocalKernel;
  readonly #vms = new Map<string, { readonly vmid: number; readonly pins: Map<string, number> }>();

  constructor(kernel: LocalKernel) {
    this.#kernel = kernel;
  }

  pinVmid(vm: string, smmu: string): number {
    let entry = this.#vms.get(vm);
    if (entry === undefined) {
      entry = { vmid: this.#lowestFree(), pins: new Map() };
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
    if (entry.pins.size === 0) this.#vms.delete(vm);
    this.#announce('free', vm, smmu, entry.vmid);
  }

  #announce(act: 'alloc' | 'free', vm: string, smmu: string, vmid: number): void {
    this.#kernel.announce({ what: 'vmid', act, where: smmu, id: BigInt(vmid), owner: `vm of ${vm}` });
  }

  #lowestFree(): number {
    const taken = new Set([...this.#vms.values()].map(({ vmid }) => vmid));
    let vmid = 1;
    while (taken.has(vmid)) vmid++;
    return vmid;
  }
}
