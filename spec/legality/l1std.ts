/** When a level 1 Stream Table Descriptor names no array of STEs (IHI 0070 5.1, 7.3.3, 3.4.3). */
import type { Caps } from '../caps.ts';
import { L1STD } from '../l1std.ts';
import { slotValue, type Words } from '../layout.ts';
import { addressBeyond, type Problem, problemsOf, type Rule, shows } from './rule.ts';

/** What of STRTAB_BASE_CFG decides whether an L1STD is usable. */
export interface L1stdContext {
  /** Effective STRTAB_BASE_CFG.SPLIT: 6, 8 or 10. */
  readonly SPLIT?: number | undefined;
}

const SPAN = L1STD.slot('Span');
const pointerBeyond = addressBeyond(L1STD, 'L2Ptr');

/** SPLIT is 10 at most, so no Span above this names an array in any configuration. */
const MAX_SPAN = 11;

/** The rules of an L1STD. Span=0 is legal: it says that the descriptor names nothing. */
export const L1STD_RULES: readonly Rule<L1stdContext>[] = [
  {
    id: 'L1STD-SPAN',
    section: '5.1',
    fields: ['Span'],
    broken: (words, _caps, context) => {
      const span = slotValue(words, SPAN);
      const max = context?.SPLIT === undefined ? MAX_SPAN : context.SPLIT + 1;
      if (span <= max) return undefined;
      const why = context?.SPLIT === undefined ? '12 to 31 are reserved' : `SPLIT ${context.SPLIT}`;
      return `${shows(L1STD, words, 'Span')}, legal 0..${max} (${why}): C_BAD_STREAMID`;
    },
  },
  {
    id: 'L1STD-L2PTR',
    section: '3.4.3',
    fields: ['L2Ptr', 'Span'],
    // Beyond OAS an SMMU may truncate or report F_STE_FETCH; the latter is the choice here.
    broken: (words, caps) =>
      caps !== undefined && slotValue(words, SPAN) !== 0 && pointerBeyond(words, caps.OAS)
        ? `${shows(L1STD, words, 'L2Ptr')}, legal below 2^${caps.OAS} (OAS ${caps.OAS}): F_STE_FETCH`
        : undefined,
  },
];

/** Every rule that an L1STD breaks. */
export function l1stdProblems(words: Words, caps?: Caps, context?: L1stdContext): Problem[] {
  return problemsOf(L1STD_RULES, words, caps, context);
}
