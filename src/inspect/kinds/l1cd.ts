/** Level 1 Context Descriptors. */
import { L1CD } from '../../../spec/l1cd.ts';
import type { Words } from '../../../spec/layout.ts';
import { l1cdProblems } from '../../../spec/legality/l1cd.ts';
import type { Meanings } from '../record.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';

const L1CD_MEANINGS: Meanings = {
  V: (view) => (view.num('V') === 1 ? 'valid' : 'invalid: C_BAD_SUBSTREAMID, the rest is ignored'),
};

function readL1cd(words: Words, { caps, cdContext }: DecodeOptions): Reading {
  const valid = L1CD.num(words, 'V') === 1;
  return {
    name: L1CD.name,
    layout: L1CD,
    valid,
    meanings: L1CD_MEANINGS,
    summary: (view) => (valid ? `leaf table at ${view.address('L2Ptr')}` : 'invalid'),
    ignored: (name) => !valid && name !== 'V',
    problems: valid ? l1cdProblems(words, caps, { s2Enabled: cdContext?.s2Enabled }) : [],
  };
}

/** Reads L1CDs. */
export const reader: Reader = { kind: 'l1cd', bytes: L1CD.bytes, what: 'an L1CD', read: readL1cd };
