/** When a level 1 Context Descriptor names no table of CDs: C_BAD_SUBSTREAMID (IHI 0070 5.3, 3.4.3). */
import type { Caps } from '../caps.ts';
import { L1CD } from '../l1cd.ts';
import type { Words } from '../layout.ts';
import { addressBeyond, firstProblemOf, type Problem, problemsOf, type Rule, shows } from './rule.ts';

/** What of the STE decides whether an L1CD is usable. */
export interface L1cdContext {
  /** Stage 2 is on: L2Ptr is an IPA, limited by IAS. Undefined: not known. */
  readonly s2Enabled?: boolean | undefined;
}

const pointerBeyond = addressBeyond(L1CD, 'L2Ptr');

/**
 * The rules of an L1CD with V=1. Of the choices, those of SMMUv3.1: beyond OAS, or IAS with stage 2 on, the descriptor
 * is bad (not truncated, not a stage 2 fault).
 */
export const L1CD_RULES: readonly Rule<L1cdContext>[] = [
  {
    id: 'L1CD-L2PTR',
    section: '3.4.3',
    fields: ['L2Ptr'],
    broken: (words, caps, context) => {
      if (caps === undefined) return undefined;
      const known = context?.s2Enabled;
      const bits = known === undefined ? Math.max(caps.OAS, caps.IAS) : known ? caps.IAS : caps.OAS;
      if (!pointerBeyond(words, bits)) return undefined;
      return `${shows(L1CD, words, 'L2Ptr')}, legal below 2^${bits} (${known === true ? 'an IPA, IAS' : 'OAS'} ${bits})`;
    },
  },
];

/** Every rule that an L1CD breaks. V is not looked at. */
export function l1cdProblems(words: Words, caps?: Caps, context?: L1cdContext): Problem[] {
  return problemsOf(L1CD_RULES, words, caps, context);
}

/** The first rule that an L1CD breaks. Allocates nothing for a legal one. V is not looked at. */
export function firstL1cdProblem(words: Words, caps?: Caps, context?: L1cdContext): Problem | undefined {
  return firstProblemOf(L1CD_RULES, words, caps, context);
}
