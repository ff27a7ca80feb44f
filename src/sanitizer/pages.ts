/** Watched memory: who wants to know of stores to which 64-bit units, with what stood there before. */
import type { Memory } from '../hw/memory.ts';
import { PAGE_UNITS, type Peek, pageOf, unitOf } from './units.ts';

/** Hears of the stores to a region. */
export interface Sink {
  /** A unit changed. `bytes`: width of the store. Halves are signed. */
  stored(unit: number, oldHi: number, oldLo: number, newHi: number, newLo: number, bytes: number): void;
}

interface Region {
  readonly first: number;
  readonly end: number;
  readonly sink: Sink;
}

/** A page of 4 KiB that lies in a region. */
interface Page {
  /** What stood there, as 32-bit halves; null until it is needed. */
  shadow: Int32Array | null;
  regions: Region[];
}

/** Regions above this many pages get their shadows page by page, on the first store. */
const EAGER_PAGES = 512;

/** See the module comment. */
export class Pages {
  readonly #pages = new Map<number, Page>();
  readonly #large: Region[] = [];
  readonly #peek: Peek;
  /** Called once for each unit that changed, before the sinks. */
  onStore: ((unit: number, hi: number, lo: number, bytes: number) => void) | null = null;

  /** Called once for each unit that changed, after the sinks. */
  afterStore: ((unit: number) => void) | null = null;

  constructor(peek: Peek) {
    this.#peek = peek;
  }

  /** Watches `units` 64-bit units from `first` on. */
  add(first: number, units: number, sink: Sink): void {
    const region = { first, end: first + units, sink };
    const last = pageOf(region.end - 1);
    if (last - pageOf(first) >= EAGER_PAGES) {
      this.#large.push(region);
      return;
    }
    for (let number = pageOf(first); number <= last; number++) this.#page(number).regions.push(region);
  }

  /** Ends a watch that began with these arguments. */
  remove(first: number, units: number, sink: Sink): void {
    const large = this.#large.findIndex((region) => region.first === first && region.sink === sink);
    if (large >= 0) {
      const [gone] = this.#large.splice(large, 1);
      for (const [number, page] of this.#pages) this.#forget(number, page, (region) => region === gone);
      return;
    }
    for (let number = pageOf(first); number <= pageOf(first + units - 1); number++) {
      const page = this.#pages.get(number);
      if (page !== undefined) this.#forget(number, page, (region) => region.first === first && region.sink === sink);
    }
  }

  #forget(number: number, page: Page, which: (region: Region) => boolean): void {
    const at = page.regions.findIndex(which);
    if (at < 0) return;
    // A new list: the old one may be in the middle of being told.
    page.regions = page.regions.filter((_, i) => i !== at);
    if (page.regions.length === 0) this.#pages.delete(number);
  }

  #page(number: number): Page {
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = { shadow: this.#peek.page(number), regions: [] };
      this.#pages.set(number, page);
    }
    return page;
  }

  /** What the watched page of a unit holds, as halves, low half first; null while that is not known. */
  shadow(unit: number): Int32Array | null {
    return this.#pages.get(pageOf(unit))?.shadow ?? null;
  }

  /** Whether stores to a unit may matter to somebody. */
  watches(unit: number): boolean {
    return this.#large.length > 0 || this.#pages.has(pageOf(unit));
  }

  /** A store of `bytes` bytes at an address was made: what {@link Memory.watch} is told. */
  stored(hi: number, lo: number, bytes: number): void {
    const first = unitOf(hi, lo);
    const last = bytes <= 8 && (lo & 7) + bytes <= 8 ? first : first + Math.floor(((lo & 7) + bytes - 1) / 8);
    for (let number = pageOf(first); number <= pageOf(last); number++) {
      const page = this.#pages.get(number) ?? this.#firstStore(number);
      if (page === undefined) continue;
      const from = Math.max(first, number * PAGE_UNITS);
      this.compare(number, page, from, Math.min(last, (number + 1) * PAGE_UNITS - 1), bytes);
    }
  }

  /** A page of a large region begins to be followed; what stood there before is not known. */
  #firstStore(number: number): Page | undefined {
    if (this.#large.length === 0) return undefined;
    const regions = this.#large.filter(({ first, end }) => pageOf(first) <= number && number <= pageOf(end - 1));
    if (regions.length === 0) return undefined;
    const page = { shadow: null, regions };
    this.#pages.set(number, page);
    return page;
  }

  /** Tells the sinks what differs from the shadow in a stretch of a page. */
  compare(number: number, page: Page, from: number, to: number, bytes: number): void {
    const base = number * PAGE_UNITS;
    const known = page.shadow !== null;
    page.shadow ??= this.#peek.page(number);
    const { shadow } = page;
    for (let unit = from; unit <= to; unit++) {
      const at = 2 * (unit - base);
      const oldLo = known ? (shadow[at] ?? 0) : 0;
      const oldHi = known ? (shadow[at + 1] ?? 0) : 0;
      this.#peek.load(unit);
      const { hi, lo } = this.#peek;
      if (oldLo === lo && oldHi === hi) continue;
      shadow[at] = lo;
      shadow[at + 1] = hi;
      let told = false;
      for (const { first, end, sink } of page.regions) {
        if (unit < first || unit >= end) continue;
        if (!told) this.onStore?.(unit, hi, lo, bytes);
        told = true;
        sink.stored(unit, oldHi, oldLo, hi, lo, bytes);
      }
      if (told) this.afterStore?.(unit);
    }
  }

  /** Compares every watched page that `covers` names: for memory whose stores are not announced. */
  poll(covers: (page: number) => boolean): void {
    for (const [number, page] of [...this.#pages])
      if (covers(number)) this.compare(number, page, number * PAGE_UNITS, (number + 1) * PAGE_UNITS - 1, 8);
  }
}

/** Composes a store watch with one that may be there already. Returns how to take it away. */
export function watchStores(memory: Memory, stored: (hi: number, lo: number, bytes: number) => void): () => void {
  const before = memory.watch;
  const both =
    before === null
      ? stored
      : (hi: number, lo: number, bytes: number): void => {
          before(hi, lo, bytes);
          stored(hi, lo, bytes);
        };
  memory.watch = both;
  return () => {
    if (memory.watch === both) memory.watch = before;
  };
}
