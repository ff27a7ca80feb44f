/** How a kind of record is read: the parts in which kinds differ, and what they share. */
import type { Caps } from '../../../spec/caps.ts';
import type { Granule, Level } from '../../../spec/descriptors.ts';
import { type Layout, LayoutError, type Words } from '../../../spec/layout.ts';
import type { CdContext } from '../../../spec/legality/cd.ts';
import {
  type DecodedField,
  type DecodedProblem,
  type DecodedRecord,
  hex,
  type Meanings,
  meaningOf,
  type RecordKind,
  View,
} from '../record.ts';

/** What, besides its words, decides what a record means. */
export interface DecodeOptions {
  /** The SMMU. Without it, only what is illegal on every SMMU is a problem. */
  readonly caps?: Caps | undefined;
  /** Granule of pte1 and pte2; default 4k. */
  readonly granule?: Granule | undefined;
  /** Level of pte1 and pte2; default 3. */
  readonly level?: Level | undefined;
  /** CD.DS or STE.S2DS for pte1 and pte2: 52-bit sizes with 4 KB and 16 KB granules. */
  readonly ds?: boolean | undefined;
  /** The effective output size is 52 bits, for pte1 and pte2 with the 64 KB granule. */
  readonly pa52?: boolean | undefined;
  /** What is known of the STE through which a CD is used. */
  readonly cdContext?: CdContext | undefined;
  /** Effective STRTAB_BASE_CFG.SPLIT, for l1std. */
  readonly split?: number | undefined;
}

/** How one kind is decoded: the parts that differ. */
export interface Reading {
  readonly name: string;
  readonly layout: Layout;
  readonly valid: boolean;
  readonly meanings: Meanings;
  readonly summary: (view: View) => string;
  readonly ignored?: (name: string) => boolean;
  readonly problems: readonly DecodedProblem[];
}

/** A kind of record. */
export interface Reader {
  readonly kind: RecordKind;
  readonly bytes: number;
  /** What a record is called in a sentence: "an STE". */
  readonly what: string;
  read(words: Words, options: DecodeOptions): Reading;
}

function fieldsOf(view: View, { meanings, ignored }: Reading): DecodedField[] {
  const out: DecodedField[] = [];
  for (const name of view.layout.names) {
    const value = view.get(name);
    if (view.layout.field(name).reserved !== undefined && value === 0n) continue;
    const meaning = meaningOf(view, name, meanings);
    out.push({
      name,
      bits: view.layout.bits(name),
      value: hex(value),
      ...(meaning === undefined ? {} : { meaning }),
      ...(ignored?.(name) === true ? { ignored: true as const } : {}),
    });
  }
  return out;
}

/**
 * One record in words.
 * @param words the record's 32-bit words, as many as its kind has
 * @throws LayoutError for a wrong number of words, or a level that the granule does not have.
 */
export function decodeWith(reader: Reader, words: Words, options: DecodeOptions = {}): DecodedRecord {
  if (words.length * 4 !== reader.bytes)
    throw new LayoutError(`${reader.what} is ${reader.bytes} bytes, not ${words.length * 4}`);
  const reading = reader.read(words, options);
  const view = new View(reading.layout, words, options.caps);
  return {
    kind: reader.kind,
    name: reading.name,
    valid: reading.valid,
    summary: reading.summary(view),
    fields: fieldsOf(view, reading),
    problems: reading.problems,
  };
}
