/**
 * Records in words: STE, CD, level 1 descriptors, commands, events and translation table descriptors, each field with
 * its bits, value and meaning, what is ignored marked, what is illegal named by rule and section.
 */
import type { Words } from '../../spec/layout.ts';
import { reader as cd } from './kinds/cd.ts';
import { reader as cmd } from './kinds/cmd.ts';
import { reader1 as pte1, reader2 as pte2 } from './kinds/descriptor.ts';
import { reader as event } from './kinds/event.ts';
import { reader as l1cd } from './kinds/l1cd.ts';
import { reader as l1std } from './kinds/l1std.ts';
import { type DecodeOptions, decodeWith, type Reader } from './kinds/reader.ts';
import { reader as ste } from './kinds/ste.ts';
import type { DecodedRecord, RecordKind } from './record.ts';

export type { DecodeOptions } from './kinds/reader.ts';

/** All readers, by kind. */
export const READERS: Readonly<Record<RecordKind, Reader>> = { ste, cd, l1std, l1cd, cmd, event, pte1, pte2 };

/**
 * One record in words.
 * @param words the record's 32-bit words, as many as its kind has
 * @throws LayoutError for a wrong number of words, or a level that the granule does not have.
 */
export function decode(kind: RecordKind, words: Words, options: DecodeOptions = {}): DecodedRecord {
  return decodeWith(READERS[kind], words, options);
}
