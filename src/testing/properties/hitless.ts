/**
 * An STE that can be changed without a gap is changed without one: a device that moves between two attachments never
 * meets V=0 on the way if only one 64-bit word of those that both use has to change (IHI 0070 3.21.3). What an STE uses, and
 * what may change at any time, is what Linux's writer takes for it (arm_smmu_get_ste_used, _update_safe), from the tables in
 * spec/; how it is done is worked out here.
 */
import { slotValue, type Words } from '../../../spec/layout.ts';
import { linuxSteSafe, linuxSteUsed } from '../../../spec/linux-used.ts';
import { STE } from '../../../spec/ste.ts';
import { watchStores } from '../../sanitizer/pages.ts';
import type { Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { steAddress } from '../stes.ts';

const RULE = 'hitless';

const V = STE.slot('V');

/** An STE before an attach, and what happens to it. */
interface Observed {
  readonly sid: number;
  readonly smmu: string;
  readonly at: bigint;
  readonly before: Words;
  gap: boolean;
}

/** Whether one 64-bit word is all that has to change at once between two valid STEs. */
export function canBeHitless(from: Words, to: Words): boolean {
  const fromUsed = linuxSteUsed(from);
  const toUsed = linuxSteUsed(to);
  const safe = linuxSteSafe(from, to);
  const critical = new Set<number>();
  for (let i = 0; i < to.length; i++) {
    const kept = (fromUsed[i] ?? 0) & ~(safe[i] ?? 0);
    // What the old STE does not use may be filled in first.
    const filled = ((from[i] ?? 0) & kept) | ((to[i] ?? 0) & ~kept);
    if (((filled ^ (to[i] ?? 0)) & (toUsed[i] ?? 0)) !== 0) critical.add(i >>> 1);
  }
  return critical.size <= 1;
}

class Hitless implements Monitor {
  readonly #watched: Watched;
  #observed: Observed[] = [];
  #unwatch: (() => void) | null = null;
  #failing = false;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before(o: Operation): void {
    if (o.op !== 'attach' && o.op !== 'detach') return;
    const { lab } = this.#watched;
    const { smmu: name, endpoint } = lab.device(o.dev);
    const { memory, smmus } = lab.machine;
    const smmu = smmus.find((one) => one.name === name);
    if (smmu === undefined) return;
    // A device that does not answer CMD_ATC_INV is cut off in the middle of anything.
    if (lab.devices.some((one) => one.smmu === name && one.endpoint.ats?.hang === true)) return;
    this.#observed = endpoint.streamIds.flatMap((sid) => {
      const at = steAddress(memory, smmu, sid);
      const before = at === undefined ? undefined : readSte(this.#watched, at);
      if (at === undefined || before === undefined || slotValue(before, V) === 0) return [];
      return [{ sid, smmu: name, at, before, gap: false }];
    });
    this.#unwatch = watchStores(memory, (hi, lo) => {
      for (const one of this.#observed)
        if (BigInt(hi >>> 0) === one.at >> 32n && BigInt(lo >>> 0) === (one.at & 0xffff_ffffn) && memory.load64(hi, lo))
          one.gap ||= (memory.lo & V.mask) === 0;
    });
  }

  after({ op }: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    const observed = this.#observed;
    this.#observed = [];
    const failing = this.#failing;
    this.#failing = op === 'fail';
    // An update whose CMD_SYNC is lost ends with V=0 on purpose.
    if (failing || result.status !== 'ok') return null;
    for (const { sid, smmu, at, before, gap } of observed) {
      const now = readSte(this.#watched, at);
      if (!gap || now === undefined || slotValue(now, V) === 0 || !canBeHitless(before, now)) continue;
      return {
        rule: RULE,
        message: `${smmu}: the STE of StreamID 0x${sid.toString(16)} had V=0 during the ${op}, which one 64-bit word at a time could do`,
      };
    }
    return null;
  }
}

function readSte({ lab }: Watched, at: bigint): Words | undefined {
  const { memory } = lab.machine;
  const words = STE.zero();
  const hi = Number(at >> 32n);
  const lo = Number(at & 0xffff_ffffn);
  for (let i = 0; i < words.length; i += 2) {
    if (!memory.load64(hi, lo + 4 * i)) return undefined;
    words[i] = memory.lo;
    words[i + 1] = memory.hi;
  }
  return words;
}

/** See the module comment. */
export const hitless: Property = {
  name: RULE,
  title: 'an STE that can be changed without a gap never has V=0 on the way',
  foreign: false,
  monitor: (watched) => new Hitless(watched),
};
