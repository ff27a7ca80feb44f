/** Remembers what follows from the words of a record alone. */
import type { Words } from './layout.ts';

/** Records remembered, as log2. */
const SLOTS_LOG2 = 7;
/** An odd number whose product spreads over the high bits (Knuth's multiplicative hash). */
const SPREAD = 0x9e3779b1;

/**
 * A function of a record's words with a memory of its latest results. The same few STEs and CDs are looked at again and
 * again: by hardware at each fetch, by the sanitizer at each store, in one lab after another. Direct-mapped, of fixed size.
 */
export class RecordMemo<T> {
  readonly #words: number;
  readonly #make: (record: Words) => T;
  readonly #keys: Int32Array;
  readonly #values: T[] = [];
  readonly #full = new Uint8Array(1 << SLOTS_LOG2);

  /**
   * @param words 32-bit words of a record
   * @param make the function; it must not keep the record
   */
  constructor(words: number, make: (record: Words) => T) {
    this.#words = words;
    this.#make = make;
    this.#keys = new Int32Array(words << SLOTS_LOG2);
  }

  /** The function's value. */
  of(record: Words): T {
    let hash = 0;
    for (let i = 0; i < this.#words; i++) hash = Math.imul(hash ^ (record[i] as number), SPREAD) ^ (hash >>> 15);
    const slot = Math.imul(hash, SPREAD) >>> (32 - SLOTS_LOG2);
    const at = slot * this.#words;
    if (this.#full[slot] !== 0 && this.#holds(at, record)) return this.#values[slot] as T;
    const value = this.#make(record);
    for (let i = 0; i < this.#words; i++) this.#keys[at + i] = record[i] as number;
    this.#values[slot] = value;
    this.#full[slot] = 1;
    return value;
  }

  #holds(at: number, record: Words): boolean {
    for (let i = 0; i < this.#words; i++) if (this.#keys[at + i] !== ((record[i] as number) | 0)) return false;
    return true;
  }
}
