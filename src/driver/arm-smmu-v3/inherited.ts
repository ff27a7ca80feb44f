/**
 * What a driver that takes over a running SMMU owes to the one before: numbers that its Stream table still names are kept
 * from the allocators, and come back once no entry names them and the TLB has forgotten them.
 */
import { type IdAllocator, KernelError } from '../kernel.ts';
import { issueWithSync } from './command-batch.ts';
import { tlbiEl2Asid, tlbiNhAsid, tlbiS12Vmall } from './commands.ts';
import { type LiveTable, type LiveView, readLiveTable } from './live-table.ts';
import type { DriverParts } from './parts.ts';
import { isEnabled } from './reset.ts';
import type { Master, Smmu } from './smmu.ts';

/** Owner of reserved numbers, in announcements. */
export const INHERITED = 'inherited';

/** Steps of an adoption that a test or the bug zoo wraps. */
export interface AdoptionPart {
  /** Reads the live table. @throws KernelError EINVAL if it is damaged */
  read(smmu: LiveView): LiveTable;
  /** Keeps a number from the allocators. */
  reserveVmid(smmu: Smmu, vmid: number): void;
  reserveAsid(asids: IdAllocator, asid: number): void;
  /** No entry names the number any more: its TLB entries go. */
  flushVmid(smmu: Smmu, vmid: number): void;
  flushAsid(smmu: Smmu, asid: number): void;
}

/** The steps as shipped. */
export const adoptionPart: AdoptionPart = {
  read: readLiveTable,
  reserveVmid: (smmu, vmid) => smmu.parts.vmidPolicy.adopt(smmu, vmid),
  reserveAsid: (asids, asid) => void asids.reserve(asid),
  flushVmid: (smmu, vmid) => void issueWithSync(smmu, tlbiS12Vmall(vmid)),
  flushAsid: (smmu, asid) => void issueWithSync(smmu, smmu.features.e2h ? tlbiEl2Asid(asid) : tlbiNhAsid(asid)),
};

/** By number: StreamIDs that name it. */
type Names = Map<number, Set<number>>;

const name = (names: Names, number: number, sid: number): void => {
  const sids = names.get(number);
  if (sids === undefined) names.set(number, new Set([sid]));
  else sids.add(sid);
};

/** Numbers that `sid` was the last to name. */
function forget(names: Names, sid: number): number[] {
  const gone: number[] = [];
  for (const [number, sids] of names)
    if (sids.delete(sid) && sids.size === 0) {
      names.delete(number);
      gone.push(number);
    }
  return gone;
}

/**
 * ASIDs are numbers of all SMMUs of a driver: which SMMUs still name each that is inherited. They are reserved before the
 * first domain is made, those of SMMUs that are probed later too.
 */
export class InheritedAsids {
  readonly #smmus = new Map<number, Set<string>>();

  /** An SMMU names an ASID. True: nobody did before. */
  add(asid: number, smmu: string): boolean {
    const smmus = this.#smmus.get(asid);
    if (smmus === undefined) this.#smmus.set(asid, new Set([smmu]));
    else smmus.add(smmu);
    return smmus === undefined;
  }

  /** An SMMU names an ASID no more. True: nobody does. */
  remove(asid: number, smmu: string): boolean {
    const smmus = this.#smmus.get(asid);
    if (smmus?.delete(smmu) !== true || smmus.size > 0) return false;
    return this.#smmus.delete(asid);
  }

  /** ASIDs that an SMMU names. */
  of(smmu: string): number[] {
    return [...this.#smmus].filter(([, smmus]) => smmus.has(smmu)).map(([asid]) => asid);
  }
}

/** Reserves the ASIDs of the live tables of all SMMUs: a domain of one may come to be used on another. */
export function reserveAsids(
  views: readonly LiveView[],
  parts: Pick<DriverParts, 'adoption' | 'asids'>,
  inherited: InheritedAsids,
): void {
  for (const view of views) {
    if (!isEnabled(view)) continue;
    try {
      for (const { asids } of parts.adoption.read(view).streams)
        for (const asid of asids) if (inherited.add(asid, view.name)) parts.adoption.reserveAsid(parts.asids, asid);
    } catch (error) {
      // Damaged: its own probe will say so, and not adopt it.
      if (!(error instanceof KernelError)) throw error;
    }
  }
}

/** What one SMMU inherits. Nothing, unless {@link adopt} was called. */
export class Inherited {
  readonly #smmu: Smmu;
  readonly #allAsids: InheritedAsids;
  #table: LiveTable | null = null;
  /** Streams with the STE of the driver before. */
  readonly #sids = new Set<number>();
  readonly #vmids: Names = new Map();
  readonly #asids: Names = new Map();

  /** @param allAsids shared by the SMMUs of a driver */
  constructor(smmu: Smmu, allAsids: InheritedAsids) {
    this.#smmu = smmu;
    this.#allAsids = allAsids;
  }

  /** The table that was adopted; null: the driver made its own. */
  get table(): LiveTable | null {
    return this.#table;
  }

  /** StreamIDs whose STE is still that of the driver before, ascending. */
  get sids(): number[] {
    return [...this.#sids].sort((a, b) => a - b);
  }

  /** VMIDs that are still reserved, ascending. */
  get vmids(): number[] {
    return [...this.#vmids.keys()].sort((a, b) => a - b);
  }

  /** ASIDs that are still reserved because of this SMMU, ascending. */
  get asids(): number[] {
    return [...this.#asids.keys()].sort((a, b) => a - b);
  }

  /**
   * Reads the live table and reserves every number in it.
   * @throws KernelError EINVAL if it is damaged; then nothing is reserved
   */
  adopt(): LiveTable {
    const { adoption } = this.#smmu.parts;
    const table = adoption.read(this.#smmu);
    this.#table = table;
    for (const { sid, vmid, asids } of table.streams) {
      this.#sids.add(sid);
      if (vmid !== 0) name(this.#vmids, vmid, sid);
      for (const asid of asids) name(this.#asids, asid, sid);
    }
    for (const vmid of this.#vmids.keys()) adoption.reserveVmid(this.#smmu, vmid);
    for (const asid of this.#asids.keys())
      if (this.#allAsids.add(asid, this.#smmu.name)) adoption.reserveAsid(this.#smmu.parts.asids, asid);
    return table;
  }

  /** The table is not adopted: ASIDs that only it named are free, because everything is flushed. */
  refuse(): void {
    for (const asid of this.#allAsids.of(this.#smmu.name)) this.#release(asid);
  }

  /** Each SMMU answers for itself: one of those that named the ASID may be suspended, or have lost a CMD_SYNC. */
  #release(asid: number): void {
    const smmu = this.#smmu;
    const { asids } = smmu.parts;
    smmu.quarantine.retire([smmu], `inherited ASID ${asid}`, () => {
      if (this.#allAsids.remove(asid, smmu.name) && asids.has(asid)) asids.free(asid);
    });
  }

  /** Whether a stream of the device still has the STE of the driver before (`arm_smmu_is_attach_deferred`). */
  holds({ streams }: Master): boolean {
    return this.#sids.size > 0 && streams.some(({ sid }) => this.#sids.has(sid));
  }

  /**
   * Every stream of the device has an STE of this driver, and the old one is cached nowhere: numbers that no other stream
   * names are flushed and come back.
   */
  claim(master: Master): void {
    if (!this.holds(master)) return;
    const smmu = this.#smmu;
    const { adoption, vmidPolicy } = smmu.parts;
    const gone = master.streams.filter(({ sid }) => this.#sids.delete(sid)).map(({ sid }) => sid);
    for (const vmid of gone.flatMap((sid) => forget(this.#vmids, sid))) {
      adoption.flushVmid(smmu, vmid);
      vmidPolicy.disown(smmu, vmid);
    }
    for (const asid of gone.flatMap((sid) => forget(this.#asids, sid))) {
      adoption.flushAsid(smmu, asid);
      this.#release(asid);
    }
  }
}
