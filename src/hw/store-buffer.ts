/**
 * The stores of one weakly ordered CPU that devices do not see yet. A store becomes visible at a moment that the schedule
 * draws, in any order except to the same 64-bit unit, and at the latest at a barrier.
 */
import type { Memory } from './memory.ts';
import type { Schedule, Speculator } from './schedule.ts';

/** Stores that wait at most; a further one pushes one out. */
const CAPACITY = 64;

/** A store to a 64-bit unit, or to part of it. Made once and used again: filling a page is five hundred of them. */
class Pending {
  readonly place: number;
  hi = 0;
  lo = 0;
  maskHi = 0;
  maskLo = 0;
  valueHi = 0;
  valueLo = 0;
  /** Which store of this buffer it is: they are counted. */
  serial = 0;
  /** The next store to the same unit; in the list of unused ones, the next of those. */
  next: Pending | null = null;

  constructor(place: number) {
    this.place = place;
  }
}

/** Places of the table that says cheaply which units have no store waiting. */
const BUCKETS = 256;
const bucketOf = (lo: number): number => (lo >>> 3) & (BUCKETS - 1);

const ALL = -1;

/** Addresses below 2^56 in units of 8 bytes: exact as a double. */
const unitOf = (hi: number, lo: number): number => (hi >>> 0) * 2 ** 29 + (lo >>> 3);

/** See the module comment. */
export class StoreBuffer implements Speculator {
  readonly name: string;
  readonly #memory: Memory;
  readonly #schedule: Schedule;
  readonly #published: () => void;
  readonly #issued: (hi: number, lo: number) => void;
  /** Every {@link Pending} there is, by its place. */
  readonly #all: Pending[] = [];
  /** Places of the oldest store of each unit that has one, in the order in which the units began to wait. */
  readonly #units = new Uint8Array(CAPACITY + 1);
  #unitCount = 0;
  /** How many of {@link #units} fall into each bucket. */
  readonly #buckets = new Uint8Array(BUCKETS);
  #unused: Pending | null = null;
  #count = 0;
  #serial = 0;
  /** The store that becomes visible now; 0: none. */
  #publishing = 0;
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
    const memory = this.#memory;
    if (!memory.load64(hi, lo)) return false;
    let last = this.#find(hi | 0, lo & ~7);
    // What stands there already, with nothing on its way: nobody can tell when it becomes visible.
    if (last === null && ((memory.hi ^ valueHi) & maskHi) === 0 && ((memory.lo ^ valueLo) & maskLo) === 0) return true;
    const one = this.#take(hi | 0, lo & ~7);
    one.maskHi = maskHi;
    one.maskLo = maskLo;
    one.valueHi = valueHi;
    one.valueLo = valueLo;
    one.serial = ++this.#serial;
    if (last === null) {
      this.#units[this.#unitCount++] = one.place;
      this.#buckets[bucketOf(lo)] = (this.#buckets[bucketOf(lo)] ?? 0) + 1;
    } else {
      while (last.next !== null) last = last.next;
      last.next = one;
    }
    this.#count++;
    this.#issued(hi, lo);
    // One that is pushed out is no moment of its own: filling a page would be five hundred of them.
    if (this.#count > CAPACITY) this.#publishOne(false);
    return true;
  }

  /** The oldest store that waits of an aligned unit. */
  #find(hi: number, lo: number): Pending | null {
    if (this.#buckets[bucketOf(lo)] === 0) return null;
    for (let i = 0; i < this.#unitCount; i++) {
      const one = this.#all[this.#units[i] as number] as Pending;
      if (one.lo === lo && one.hi === hi) return one;
    }
    return null;
  }

  #take(hi: number, lo: number): Pending {
    const one = this.#unused ?? new Pending(this.#all.length);
    if (this.#unused === null) this.#all.push(one);
    this.#unused = one.next;
    one.hi = hi;
    one.lo = lo;
    one.next = null;
    return one;
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
    for (let one = this.#find(hi | 0, lo & ~7); one !== null; one = one.next) {
      this.hi = (this.hi & ~one.maskHi) | (one.valueHi & one.maskHi);
      this.lo = (this.lo & ~one.maskLo) | (one.valueLo & one.maskLo);
    }
    return true;
  }

  /** Whether the store that becomes visible now overtakes an earlier one to the `bytes` bytes at (hi, lo), which still waits. */
  overtakes(hi: number, lo: number, bytes: number): boolean {
    if (this.#publishing === 0) return false;
    const first = unitOf(hi, lo);
    const end = first + bytes / 8;
    for (let i = 0; i < this.#unitCount; i++) {
      const one = this.#all[this.#units[i] as number] as Pending;
      const unit = unitOf(one.hi, one.lo);
      if (unit >= first && unit < end && one.serial < this.#publishing) return true;
    }
    return false;
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
    const units = this.#units;
    const pick = this.#schedule.choose(this.name, 'store', this.#unitCount);
    const one = this.#all[units[pick] as number] as Pending;
    if (one.next !== null) units[pick] = one.next.place;
    else {
      this.#unitCount--;
      for (let i = pick; i < this.#unitCount; i++) units[i] = units[i + 1] as number;
      this.#buckets[bucketOf(one.lo)] = (this.#buckets[bucketOf(one.lo)] ?? 0) - 1;
    }
    this.#count--;
    this.#publishing = one.serial;
    this.#publish(one);
    this.#publishing = 0;
    one.next = this.#unused;
    this.#unused = one;
    if (moment) this.#published();
  }

  #publish(one: Pending): void {
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
