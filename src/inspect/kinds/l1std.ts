/** Level 1 Stream Table Descriptors. */
import { L1STD } from '../../../spec/l1std.ts';
import type { Words } from '../../../spec/layout.ts';
import { l1stdProblems } from '../../../spec/legality/l1std.ts';
import type { Meanings } from '../record.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';

const L1STD_MEANINGS: Meanings = {
  Span: (view) => {
    const span = view.num('Span');
    if (span === 0) return 'no STEs: C_BAD_STREAMID';
    return span > 11 ? 'reserved, behaves as 0: C_BAD_STREAMID' : span === 1 ? '1 STE' : `${2 ** (span - 1)} STEs`;
  },
};

const readL1std = (words: Words, { caps, split }: DecodeOptions): Reading => ({
  name: L1STD.name,
  layout: L1STD,
  valid: true,
  meanings: L1STD_MEANINGS,
  summary: (view) =>
    view.num('Span') === 0 ? 'no STEs' : `${L1STD_MEANINGS.Span?.(view, 'Span')} at ${view.address('L2Ptr')}`,
  ignored: (name) => name === 'L2Ptr' && L1STD.num(words, 'Span') === 0,
  problems: l1stdProblems(words, caps, { SPLIT: split }),
});

/** Reads L1STDs. */
export const reader: Reader = { kind: 'l1std', bytes: L1STD.bytes, what: 'an L1STD', read: readL1std };
