/** The translating STEs of each SMMU, kept: a Stream table is looked through again only when it may have changed. */
import type { Words } from '../../spec/layout.ts';
import type { Machine } from '../hw/machine.ts';
import type { Memory } from '../hw/memory.ts';
import type { Smmu } from '../hw/smmu.ts';
import { watchStores } from '../sanitizer/pages.ts';
import { forEachTranslatingSte } from './stes.ts';

/** An STE with V=1 and a stage that is on, as memory holds it. */
export interface TranslatingSte {
  readonly sid: number;
  readonly ste: Words;
}

/** Number of a 4 KiB page of memory: exact, an address has 56 bits. */
const pageOf = (hi: number, lo: number): number => (hi >>> 0) * 2 ** 20 + (lo >>> 12);

/** What is known of one SMMU's table: good until a store hits one of its pages or a register moves it. */
class Table {
  readonly smmu: Smmu;
  entries: readonly TranslatingSte[] = [];
  #pages = new Set<number>();
  #first = Number.POSITIVE_INFINITY;
  #last = -1;
  #registers = { strtabHi: 0, strtabLo: 0, LOG2SIZE: 0, SPLIT: 0, twoLevel: false };
  #stale = true;

  constructor(smmu: Smmu) {
    this.smmu = smmu;
  }

  /** Memory was written from page `first` to page `last`. */
  stored(first: number, last: number): void {
    if (this.#stale || last < this.#first || first > this.#last) return;
    for (let page = first; page <= last && !this.#stale; page++) this.#stale = this.#pages.has(page);
  }

  read(memory: Memory): readonly TranslatingSte[] {
    const { strtabHi, strtabLo, LOG2SIZE, SPLIT, twoLevel } = this.smmu.regs;
    const was = this.#registers;
    const moved =
      was.strtabHi !== strtabHi ||
      was.strtabLo !== strtabLo ||
      was.LOG2SIZE !== LOG2SIZE ||
      was.SPLIT !== SPLIT ||
      was.twoLevel !== twoLevel;
    if (!this.#stale && !moved) return this.entries;
    this.#registers = { strtabHi, strtabLo, LOG2SIZE, SPLIT, twoLevel };
    this.#stale = false;
    this.#pages = new Set();
    this.#first = Number.POSITIVE_INFINITY;
    this.#last = -1;
    const entries: TranslatingSte[] = [];
    forEachTranslatingSte(
      memory,
      this.smmu,
      (sid, ste) => void entries.push({ sid, ste: ste.slice() }),
      (hi, lo, bytes) => this.#uses(pageOf(hi, lo), pageOf(hi, lo + bytes - 1)),
    );
    this.entries = entries;
    return entries;
  }

  #uses(first: number, last: number): void {
    for (let page = first; page <= last; page++) this.#pages.add(page);
    this.#first = Math.min(this.#first, first);
    this.#last = Math.max(this.#last, last);
  }
}

/** See the module comment. It watches the stores to memory from when it is made. */
export class StreamTables {
  readonly #memory: Memory;
  readonly #tables = new Map<Smmu, Table>();

  constructor({ memory, smmus }: Machine) {
    this.#memory = memory;
    for (const smmu of smmus) this.#tables.set(smmu, new Table(smmu));
    const tables = [...this.#tables.values()];
    watchStores(memory, (hi, lo, bytes) => {
      const first = pageOf(hi, lo);
      const last = bytes <= 8 ? first : pageOf(hi, lo) + Math.floor(((lo & 0xfff) + bytes - 1) / 4096);
      for (const table of tables) table.stored(first, last);
    });
  }

  /** The translating STEs of an SMMU in order of StreamID. The same array is given until something may have changed. */
  of(smmu: Smmu): readonly TranslatingSte[] {
    const table = this.#tables.get(smmu);
    if (table === undefined) throw new RangeError(`${smmu.name} is not an SMMU of this machine`);
    return table.read(this.#memory);
  }
}
