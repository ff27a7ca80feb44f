/**
 * Updates STEs and CDs so that hardware, which reads 64 bits at a time and in any order, never sees a mixture
 * (kernel: `arm_smmu_write_entry`, `arm_smmu_entry_qword_diff`; IHI 0070 3.21.3).
 */
import { toQwords, type Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';

/** One 64-bit store. */
export interface EntryWrite {
  readonly qword: number;
  readonly value: bigint;
}

/** Stores that may become visible in any order, and the invalidation that ends them. */
export interface EntryStep {
  readonly writes: readonly EntryWrite[];
  readonly sync: true;
}

/** How to get from one entry to another. Steps that would store nothing are left out. */
export interface EntryPlan {
  /** V stays 1 throughout, both ends included; an unchanged entry is hitless. */
  readonly hitless: boolean;
  readonly steps: readonly EntryStep[];
}

/** Bits of an entry that hardware reads, as ones. */
export type UsedBits = (entry: Words) => Words;

/** Bits that both entries use but whose order of change does not matter, as ones. */
export type SafeBits = (current: Words, target: Words) => Words;

const differs = (a: Words, b: Words, qword: number): boolean =>
  a[2 * qword] !== b[2 * qword] || a[2 * qword + 1] !== b[2 * qword + 1];

/** Of an invalid entry hardware reads V and nothing else. */
const valid = (usedBits: Words): boolean => {
  let ones = 0;
  for (let i = 0; i < usedBits.length; i++) for (let word = usedBits[i] ?? 0; word !== 0; word &= word - 1) ones++;
  return ones > 1;
};

const qwordOf = (words: Words, qword: number): bigint =>
  (BigInt(words[2 * qword + 1] ?? 0) << 32n) | BigInt(words[2 * qword] ?? 0);

/** Builds a plan by making its stores on a copy. */
class Planner {
  readonly #entry: Words;
  readonly steps: EntryStep[] = [];

  constructor(current: Words) {
    this.#entry = current.slice();
  }

  /** A step that stores the target's value in those 64-bit words from `first` to `end`, `but` one, that differ. */
  step(target: Words, first: number, end: number, but = -1): void {
    const writes: EntryWrite[] = [];
    for (let qword = first; qword < end; qword++) {
      if (qword === but || !differs(this.#entry, target, qword)) continue;
      writes.push({ qword, value: qwordOf(target, qword) });
      this.#entry[2 * qword] = target[2 * qword] ?? 0;
      this.#entry[2 * qword + 1] = target[2 * qword + 1] ?? 0;
    }
    if (writes.length > 0) this.steps.push({ writes, sync: true });
  }
}

/**
 * The stores that turn `current` into `target` (`arm_smmu_write_entry`). At most one 64-bit word that hardware reads
 * may change while the entry is valid; with two or more the entry is taken out of use first. Bits that `used` does
 * not claim are written with the rest.
 */
export function planEntryUpdate(current: Words, target: Words, used: UsedBits, safe: SafeBits): EntryPlan {
  const currentUsed = used(current);
  const targetUsed = used(target);
  const safeBits = safe(current, target);
  const intermediate = new Uint32Array(current.length);
  const critical: number[] = [];
  for (let i = 0; i < current.length; i++) {
    // Safe means safe while both entries use the bit; otherwise its use begins or ends with the critical word.
    const safeHere = (safeBits[i] ?? 0) & (currentUsed[i] ?? 0) & (targetUsed[i] ?? 0);
    const keep = (currentUsed[i] ?? 0) & ~safeHere;
    const wanted = target[i] ?? 0;
    const between = ((current[i] ?? 0) & keep) | (wanted & ~keep);
    intermediate[i] = between;
    if (((between ^ wanted) & (targetUsed[i] ?? 0)) !== 0 && critical.at(-1) !== i >>> 1) critical.push(i >>> 1);
  }
  const planner = new Planner(current);
  const qwords = current.length / 2;
  const [only] = critical;
  const disruptive = critical.length > 1;
  if (disruptive) {
    const off = current.slice();
    off.fill(0, 0, 2);
    planner.step(off, 0, 1);
    planner.step(target, 1, qwords);
    planner.step(target, 0, 1);
  } else {
    if (only !== undefined) {
      planner.step(intermediate, 0, qwords, only);
      planner.step(target, only, only + 1);
    }
    planner.step(target, 0, qwords);
  }
  const unchanged = planner.steps.length === 0;
  return { hitless: unchanged || (!disruptive && valid(currentUsed) && valid(targetUsed)), steps: planner.steps };
}

/** Reads an entry of `words` 32-bit words from memory. */
export function readEntry(kernel: Kernel, pa: Pa, words: number): Words {
  const { bus } = kernel;
  const out = new Uint32Array(words);
  const hi = Number(pa >> 32n);
  // An entry is aligned to its size: no carry into the high half.
  const lo = Number(pa & 0xffff_ffffn);
  for (let i = 0; i < words; i += 2) {
    bus.loadPair(hi, lo + 4 * i);
    out[i] = bus.pairLo;
    out[i + 1] = bus.pairHi;
  }
  return out;
}

/** Stores a whole entry that no hardware can reach yet. */
export function storeEntry(kernel: Kernel, pa: Pa, entry: Words): void {
  for (const [qword, value] of toQwords(entry).entries()) kernel.bus.store64(pa + BigInt(8 * qword), value);
}

/** What to do when the sync between two steps times out: go on as Linux does, or try once more and then give up. */
export type OnTimeout = 'continue' | 'invalidate';

/**
 * Carries a plan out: each step's stores in ascending order, then `sync`, which invalidates the entry and waits.
 *
 * Without a completed invalidation the next step could be seen together with what came before the last one. So
 * 'invalidate' tries the sync once more, and if that fails too leaves the entry invalid.
 * @returns false if the invalidation of what now stands in memory is not complete
 */
export function executeEntryPlan(
  kernel: Kernel,
  pa: Pa,
  plan: EntryPlan,
  sync: () => boolean,
  onTimeout: OnTimeout = 'continue',
): boolean {
  const { steps } = plan;
  let done = true;
  for (let i = 0; i < steps.length; i++) {
    for (const { qword, value } of steps[i]?.writes ?? []) kernel.bus.store64(pa + BigInt(8 * qword), value);
    done = sync();
    const last = i === steps.length - 1;
    if (done || last || onTimeout === 'continue' || sync()) continue;
    kernel.bus.store64(pa, 0n);
    sync();
    return false;
  }
  return done;
}

/** What the writer has to know of a kind of entry. */
export interface EntryRules {
  readonly used: UsedBits;
  readonly safe: SafeBits;
  readonly onTimeout: OnTimeout;
}

/** Writes entries; the part that a test or the bug zoo wraps. */
export interface EntryWriter {
  /** Makes the entry at `pa` equal to `target`. False: a CMD_SYNC timed out. */
  write(kernel: Kernel, pa: Pa, target: Words, rules: EntryRules, sync: () => boolean): boolean;
}

/** The kernel's writer. */
export const entryWriter: EntryWriter = {
  write: (kernel, pa, target, { used, safe, onTimeout }, sync) => {
    const plan = planEntryUpdate(readEntry(kernel, pa, target.length), target, used, safe);
    return executeEntryPlan(kernel, pa, plan, sync, onTimeout);
  },
};
