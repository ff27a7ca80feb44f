/** The erratum `invalidation-may-miss-entry-in-use` (NVIDIA Tegra264): an invalidation passes an entry being used. */
import type { Schedule } from './schedule.ts';
import { TagKind, type TagSpace } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import type { TlbEntry } from './tlb-array.ts';
import type { Transaction } from './transaction.ts';

/** One invalidation in this many passes the entry in use. */
const RARITY = 2;

/** What has to be put back of an entry that an invalidation passed. */
interface Passed {
  readonly space: TagSpace;
  readonly entry: TlbEntry;
  readonly copy: Partial<TlbEntry>;
}

/** Watches which leaf entry the last transaction used, and keeps it over an invalidation that the schedule picks. */
export class EntryInUse {
  readonly #agent: string;
  readonly #tlb: Tlb;
  readonly #schedule: Schedule;
  #hi = 0;
  #lo = 0;
  #VMID = -1;
  #ASID = -1;
  #used = false;

  constructor(smmu: string, tlb: Tlb, schedule: Schedule) {
    this.#agent = `${smmu}.erratum`;
    this.#tlb = tlb;
    this.#schedule = schedule;
  }

  /** A transaction was translated. */
  note(t: Transaction): void {
    this.#used = t.event === 0;
    this.#hi = t.addrHi | 0;
    this.#lo = t.addrLo | 0;
    this.#VMID = t.VMID;
    this.#ASID = t.ASID;
  }

  /** The entry that this invalidation will pass, or null. An entry is in use until one invalidation has passed. */
  before(): Passed | null {
    if (!this.#used) return null;
    this.#used = false;
    if (this.#schedule.choose(this.#agent, 'miss', RARITY) !== 0) return null;
    for (const cache of [this.#tlb.va, this.#tlb.ipa])
      for (const entry of cache.live())
        if (this.#covers(entry) && entry.space !== null) return passed(entry, entry.space);
    return null;
  }

  #covers(entry: TlbEntry): boolean {
    const { space, sizeLog2: size } = entry;
    if (space?.group.VMID !== this.#VMID || (this.#ASID >= 0 && space.ASID >= 0 && space.ASID !== this.#ASID))
      return false;
    const hi = size < 32 ? this.#hi : this.#hi & (-1 << (size - 32));
    const lo = size < 32 ? this.#lo & (-1 << size) : 0;
    return (entry.addrHi | 0) === (hi | 0) && (entry.addrLo | 0) === (lo | 0);
  }

  /** The invalidation is done: the entry it passed is still there. */
  after({ space, entry, copy }: Passed): void {
    if (entry.live) return;
    const cache = space.kind === TagKind.IPA ? this.#tlb.ipa : this.#tlb.va;
    const { addrHi = 0, addrLo = 0, sizeLog2 = 0 } = copy;
    Object.assign(cache.insert(addrHi, addrLo, sizeLog2, space, this.#tlb.groups.live(space)), copy, { block: null });
  }
}

function passed(entry: TlbEntry, space: TagSpace): Passed {
  const { addrHi, addrLo, sizeLog2, outHi, outLo, ipaHi, ipaLo, level, granule, perm1, perm2, attributes, combined } =
    entry;
  const copy = {
    addrHi,
    addrLo,
    sizeLog2,
    outHi,
    outLo,
    ipaHi,
    ipaLo,
    level,
    granule,
    perm1,
    perm2,
    attributes,
    combined,
  };
  return { space, entry, copy };
}
