/** Index arithmetic of a queue (IHI 0070 3.5.1): base, size, PROD and CONS of one ring in memory. */
import type { Words } from '../../spec/layout.ts';
import type { Cell } from './registers.ts';

/** Largest LOG2SIZE that any queue has (IDR1.CMDQS, EVENTQS, PRIQS). */
const MAX_LOG2SIZE = 19;

/** Block access to physical memory; false is an external abort. */
export interface BlockMemory {
  /** Fills `words` from memory at a 4-byte aligned address. */
  readWords(paHi: number, paLo: number, words: Words): boolean;
  /** Writes `words` to memory at a 4-byte aligned address. */
  writeWords(paHi: number, paLo: number, words: Words): boolean;
}

/** One queue: its registers' cells and where its entries lie. Indices carry the wrap bit above the index bits. */
export class Ring {
  readonly base: Cell;
  readonly prodCell: Cell;
  readonly consCell: Cell;
  readonly entryBytes: number;
  readonly #max: number;
  readonly #sizeMask: number;
  readonly #prodMask: number;
  readonly #consMask: number;
  readonly #addressLo: number;
  readonly #addressHi: number;
  /** Address of the last {@link locate}. */
  paHi = 0;
  paLo = 0;

  /** @param max IDR1.CMDQS, EVENTQS or PRIQS, by which LOG2SIZE is capped */
  constructor(base: Cell, prod: Cell, cons: Cell, entryBytes: number, max: number) {
    this.base = base;
    this.prodCell = prod;
    this.consCell = cons;
    this.entryBytes = entryBytes;
    this.#max = Math.min(max, MAX_LOG2SIZE);
    this.#sizeMask = base.register.slot('LOG2SIZE').mask;
    this.#prodMask = prod.register.slot('WR').mask;
    this.#consMask = cons.register.slot('RD').mask;
    const address = base.register.mask(['ADDR']);
    this.#addressLo = address[0] ?? 0;
    this.#addressHi = (address[1] ?? 0) & base.writableHi;
  }

  /** log2 of the number of entries in force. */
  get qs(): number {
    return Math.min(this.base.lo & this.#sizeMask, this.#max);
  }

  /** Index and wrap bits together. */
  get mask(): number {
    return (2 << this.qs) - 1;
  }

  get prod(): number {
    return this.prodCell.lo & this.#prodMask & this.mask;
  }

  get cons(): number {
    return this.consCell.lo & this.#consMask & this.mask;
  }

  /** Stores PROD.WR, leaving other fields. */
  set prod(value: number) {
    this.prodCell.lo = ((this.prodCell.lo & ~this.#prodMask) | value) >>> 0;
  }

  /** Stores CONS.RD, leaving other fields. */
  set cons(value: number) {
    this.consCell.lo = ((this.consCell.lo & ~this.#consMask) | value) >>> 0;
  }

  /** Entries between CONS and PROD; more than {@link size} if software wrote an inconsistent pair. */
  get used(): number {
    return ((this.prodCell.lo & this.#prodMask) - (this.consCell.lo & this.#consMask)) & this.mask;
  }

  /** Number of entries. */
  get size(): number {
    return 1 << this.qs;
  }

  get empty(): boolean {
    return this.used === 0;
  }

  /** Full, or inconsistent: an output queue with inconsistent indices counts as full (3.5.1). */
  get full(): boolean {
    return this.used >= this.size;
  }

  /** The indices fit each other; otherwise nothing is consumed (3.5.1). */
  get consistent(): boolean {
    return this.used <= this.size;
  }

  /** The index after `index`, wrap bit included. */
  next(index: number): number {
    return (index + 1) & this.mask;
  }

  /** Leaves the address of the entry at `index` in paHi and paLo. The base is aligned to the queue's size (6.3.26). */
  locate(index: number): void {
    const align = Math.max(32, this.entryBytes * this.size);
    const baseLo = (this.base.lo & this.#addressLo & -align) >>> 0;
    const offset = (index & (this.size - 1)) * this.entryBytes;
    // An aligned base and an offset below the alignment: no carry into the high half.
    this.paLo = (baseLo | offset) >>> 0;
    this.paHi = (this.base.hi & this.#addressHi) >>> 0;
  }
}
