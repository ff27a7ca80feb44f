/** Stream Table Entries. */
import type { Words } from '../../../spec/layout.ts';
import { steProblems } from '../../../spec/legality/ste.ts';
import { STE } from '../../../spec/ste.ts';
import { steFieldIgnored } from '../../../spec/used.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';
import { STE_MEANINGS, steSummary } from './ste-words.ts';

function readSte(words: Words, { caps }: DecodeOptions): Reading {
  const valid = STE.num(words, 'V') === 1;
  return {
    name: STE.name,
    layout: STE,
    valid,
    meanings: STE_MEANINGS,
    summary: steSummary,
    ignored: (name) => steFieldIgnored(name, words, caps),
    problems: valid ? steProblems(words, caps) : [],
  };
}

/** Reads STEs. */
export const reader: Reader = { kind: 'ste', bytes: STE.bytes, what: 'an STE', read: readSte };
