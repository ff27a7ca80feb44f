/** Physical addresses as numbers of 64-bit units: exact in a double for all 56 address bits. */
import type { Memory } from '../hw/memory.ts';

/** log2 of the bytes of a unit. */
const UNIT_LOG2 = 3;
/** Units of 4 KiB. */
export const PAGE_UNITS = 512;

/** The unit that holds an address. */
export const unitOf = (hi: number, lo: number): number => (hi >>> 0) * 2 ** (32 - UNIT_LOG2) + (lo >>> UNIT_LOG2);

/** High half of a unit's address. */
export const unitHi = (unit: number): number => Math.floor(unit / 2 ** (32 - UNIT_LOG2));

/** Low half of a unit's address, unsigned. */
export const unitLo = (unit: number): number => (unit % 2 ** (32 - UNIT_LOG2)) * 2 ** UNIT_LOG2;

/** The unit of an address that is a bigint. */
export const unitOfPa = (pa: bigint): number => Number(pa >> BigInt(UNIT_LOG2));

/** A unit's address, written out. */
export const showUnit = (unit: number): string => `0x${(BigInt(unit) << BigInt(UNIT_LOG2)).toString(16)}`;

/** Number of the 4 KiB page that holds a unit. */
export const pageOf = (unit: number): number => Math.floor(unit / PAGE_UNITS);

/**
 * Reads memory without leaving a trace in it: hardware may be in the middle of a load of its own when a store is
 * announced.
 */
export class Peek {
  hi = 0;
  lo = 0;
  readonly #memory: Memory;

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  /** Loads a unit into {@link hi}, {@link lo}; false outside memory (both are 0 then). */
  load(unit: number): boolean {
    const memory = this.#memory;
    const { hi, lo } = memory;
    const here = unit < 2 ** 53 && memory.load64(unitHi(unit) | 0, unitLo(unit) | 0);
    this.hi = here ? memory.hi : 0;
    this.lo = here ? memory.lo : 0;
    memory.hi = hi;
    memory.lo = lo;
    return here;
  }

  /** What a page of 4 KiB holds, as halves, low half first; zeros outside memory. */
  page(number: number): Int32Array {
    const unit = number * PAGE_UNITS;
    return this.#memory.page(unitHi(unit) | 0, unitLo(unit) | 0) ?? new Int32Array(2 * PAGE_UNITS);
  }

  /** Reads `words.length / 2` units into a record; false if one lies outside memory. */
  words(unit: number, words: Uint32Array): boolean {
    for (let i = 0; i < words.length; i += 2) {
      if (!this.load(unit + i / 2)) return false;
      words[i] = this.lo;
      words[i + 1] = this.hi;
    }
    return true;
  }
}
