/** Context Descriptors. */
import { CD } from '../../../spec/cd.ts';
import type { Words } from '../../../spec/layout.ts';
import { cdProblems } from '../../../spec/legality/cd.ts';
import { cdFieldIgnored, cdLayout } from '../../../spec/used.ts';
import { CD_MEANINGS, cdSummary } from './cd-words.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';

function readCd(words: Words, { caps, cdContext }: DecodeOptions): Reading {
  const valid = CD.num(words, 'V') === 1;
  return {
    name: CD.name,
    layout: cdLayout(caps),
    valid,
    meanings: CD_MEANINGS,
    summary: cdSummary,
    ignored: (name) => cdFieldIgnored(name, words, caps, cdContext),
    problems: valid ? cdProblems(words, caps, cdContext) : [],
  };
}

/** Reads CDs. */
export const reader: Reader = { kind: 'cd', bytes: CD.bytes, what: 'a CD', read: readCd };
