/** Pointer fields as pairs of halves. */
import type { Layout, Words } from '../../spec/layout.ts';

/** Where an address stands in a record: the 64-bit word with everything but the address masked out. */
export interface InPlace {
  readonly word: number;
  readonly loMask: number;
  readonly hiMask: number;
}

/** The place of an address field. @throws Error if its bits do not stand where the address has them. */
export function inPlace(layout: Layout, name: string): InPlace {
  const mask = layout.mask([name]);
  const [part] = layout.parts(name);
  const at = ((part?.word ?? 0) & 1) * 32 + (part?.shift ?? 0);
  const word = (part?.word ?? 0) & ~1;
  if (at !== layout.field(name).address) throw new Error(`${layout.name}.${name} does not stand at its own bits`);
  return { word, loMask: (mask[word] ?? 0) | 0, hiMask: (mask[word + 1] ?? 0) | 0 };
}

/** Low half of the address. */
export const addressLo = (words: Words, place: InPlace): number => (words[place.word] ?? 0) & place.loMask;

/** High half of the address. */
export const addressHi = (words: Words, place: InPlace): number => (words[place.word + 1] ?? 0) & place.hiMask;
