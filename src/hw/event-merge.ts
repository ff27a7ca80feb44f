/** Merging of event records (IHI 0070 3.5.5, 7.3.1): which records may be merged, and when two are similar. */
import { EVENTS } from '../../spec/events.ts';
import type { Words } from '../../spec/layout.ts';
import { C_BAD_STE, C_BAD_STREAMID, F_STE_FETCH, F_UUT } from './faults.ts';
import type { Transaction } from './transaction.ts';

/** Events without an STE that could forbid it. */
const ALWAYS: ReadonlySet<number> = new Set([F_UUT, C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE]);

/** Whether STE.MEV lets the record of a transaction's event be merged. Records of stalls never are. */
export const mayMerge = (t: Transaction): boolean => t.MEV || ALWAYS.has(t.event);

/** Bits of InputAddr that do not count: the place in a 4 KB page. */
const IN_PAGE = 0xfff;
const INPUT_ADDR = EVENTS.F_TRANSLATION.parts('InputAddr')[0]?.word ?? 0;
const EVENT_NUMBER = EVENTS.F_TRANSLATION.slot('EventNumber');

const IN_PAGE_EVENTS: ReadonlySet<number> = new Set(
  (
    [
      'F_TRANSL_FORBIDDEN',
      'F_WALK_EABT',
      'F_TRANSLATION',
      'F_ADDR_SIZE',
      'F_ACCESS',
      'F_PERMISSION',
      'F_TLB_CONFLICT',
    ] as const
  ).map((name) => EVENTS[name].number),
);

/** Two records say the same: every defined field agrees, but for what 7.3 lists as ignored. */
export function similar(one: Words, other: Words): boolean {
  const number = ((one[EVENT_NUMBER.word] ?? 0) >>> EVENT_NUMBER.shift) & EVENT_NUMBER.mask;
  const ignored = IN_PAGE_EVENTS.has(number) ? IN_PAGE : 0;
  return one.every((word, i) => ((word ^ (other[i] ?? 0)) & (i === INPUT_ADDR ? ~ignored : -1)) === 0);
}
