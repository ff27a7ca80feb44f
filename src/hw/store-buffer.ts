/**
 * The stores of one weakly ordered CPU that devices do not see yet. A store becomes visible at a moment that the schedule
 * draws, in any order except to the same 64-bit unit, and at the latest at a barrier.
 */
import type { Memory } from './memory.ts';
import type { Schedule, Speculator } from './schedule.ts';

/** Stores that wait at most; a further one pushes one out. */
const CAPACITY = 64;

/** A store to a 64-bit unit, or to part of it. */
interface Pending {
  readonly hi: number;
  readonly lo: number;
  readonly maskHi: number;
  readonly maskLo: number;
  readonly valueHi: number;
  readonly valueLo: number;
}

/** Addresses below 2^56 in units of 8 bytes: exact as a double. */
const unitOf = (hi: number, lo: number): number => (hi >>> 0) * 2 ** 29 + (lo >>> 3);

const ALL = -1;

/** See the module comment. */
export class StoreBuffer implements Speculator {
  readonly name: string;
  readonly #memory: Memory;
  readonly #schedule: Schedule;
  readonly #published: () => void;
  readonly #issued: (hi: number, lo: number) => void;
  readonly #units = new Map<number, Pending[]>();
  #count = 0;
  /** Halves of the last {@link load}. */
  hi = 0;
  lo = 0;

  /**
   * @param published called each time a store has become visible
   * @param issued called each time one begins to wait
   */
  constructor(
    name: string,
    memory: Memory,
    schedule: Schedule,
    published: () => void,
    issued: (hi: number, lo: number) => void = () => {},
  ) {
    this.name = name;
    this.#memory = memory;
    this.#schedule = schedule;
    this.#published = published;
    this.#issued = issued;
  }

  /** Stores that wait. */
  get size(): number {
    return this.#count;
  }

  /** Stores the bits of `mask` of the unit at (hi, lo). False: no memory there. */
  store(hi: number, lo: number, maskHi: number, maskLo: number, valueHi: number, valueLo: number): boolean {
    if (!this.#memory.load64(hi, lo)) return false;
    const unit = unitOf(hi, lo);
    const pending: Pending = { hi, lo: lo & ~7, maskHi, maskLo, valueHi, valueLo };
    const before = this.#units.get(unit);
    if (before === undefined) this.#units.set(unit, [pending]);
    else before.push(pending);
    this.#count++;
    this.#issued(hi, lo);
    // One that is pushed out is no moment of its own: filling a page would be five hundred of them.
    if (this.#count > CAPACITY) this.#publishOne(false);
    return true;
  }

  /** Stores all 64 bits. */
  store64(hi: number, lo: number, valueHi: number, valueLo: number): boolean {
    return this.store(hi, lo, ALL, ALL, valueHi, valueLo);
  }

  /** Stores 32 bits. */
  store32(hi: number, lo: number, value: number): boolean {
    const high = (lo & 4) !== 0;
    return this.store(hi, lo, high ? ALL : 0, high ? 0 : ALL, value, value);
  }

  /** Loads a unit as the CPU sees it: memory under its own stores. False: no memory there. */
  load(hi: number, lo: number): boolean {
    if (!this.#memory.load64(hi, lo)) return false;
    this.hi = this.#memory.hi;
    this.lo = this.#memory.lo;
    for (const one of this.#units.get(unitOf(hi, lo)) ?? []) {
      this.hi = (this.hi & ~one.maskHi) | (one.valueHi & one.maskHi);
      this.lo = (this.lo & ~one.maskLo) | (one.valueLo & one.maskLo);
    }
    return true;
  }

  /** Makes every store visible, one by one, in the order the schedule draws. */
  drain(): void {
    while (this.#count > 0) this.#publishOne(true);
  }

  /** A moment at which one store may become visible. */
  speculate(): void {
    if (this.#count > 0) this.#publishOne(true);
  }

  #publishOne(moment: boolean): void {
    const pick = this.#schedule.choose(this.name, 'store', this.#units.size);
    let at = 0;
    for (const [unit, pending] of this.#units) {
      if (at++ !== pick) continue;
      this.#publish(unit, pending);
      if (moment) this.#published();
      return;
    }
  }

  #publish(unit: number, pending: Pending[]): void {
    const one = pending.shift();
    if (one === undefined) return;
    if (pending.length === 0) this.#units.delete(unit);
    this.#count--;
    const memory = this.#memory;
    if (!memory.load64(one.hi, one.lo)) return;
    const hi = (memory.hi & ~one.maskHi) | (one.valueHi & one.maskHi);
    const lo = (memory.lo & ~one.maskLo) | (one.valueLo & one.maskLo);
    // A narrow store touches only its own half, as memory's watchers see it.
    if (one.maskHi === 0 && one.maskLo === ALL) memory.store32(one.hi, one.lo, lo);
    else if (one.maskLo === 0 && one.maskHi === ALL) memory.store32(one.hi, one.lo + 4, hi);
    else memory.store64(one.hi, one.lo, hi, lo);
  }
}
