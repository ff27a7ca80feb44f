import type { Bus, Pa } from '../hw/bus.ts';

/** Bytes of the smallest piece, as log2. */
const SHIFT = 12;

/** Stored over what is handed out again, piece by piece. */
const ZEROS = new Uint8Array(16 << SHIFT);

/** Pages of one {@link TakenRuns} block, as log2. */
const BLOCK_SHIFT = 12;
const BLOCK_PAGES = 1 << BLOCK_SHIFT;

/**
 * Runs handed out, by first page number. Blocks of numbers, not a Map of runs: a Map in which a few of very many keys
 * come and go walks over what was deleted.
 */
class TakenRuns {
  /** Lengths of runs by first page; 0: none begins there. */
  readonly #blocks = new Map<number, Uint32Array>();
  count = 0;

  /** Length of the run that begins at a page; 0: none does. */
  at(first: number): number {
    return this.#blocks.get(Math.floor(first / BLOCK_PAGES))?.[first % BLOCK_PAGES] ?? 0;
  }

  add(first: number, pages: number): void {
    const number = Math.floor(first / BLOCK_PAGES);
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = new Uint32Array(BLOCK_PAGES);
      this.#blocks.set(number, block);
    }
    block[first % BLOCK_PAGES] = pages;
    this.count++;
  }

  remove(first: number): void {
    const block = this.#blocks.get(Math.floor(first / BLOCK_PAGES));
    if (block !== undefined) block[first % BLOCK_PAGES] = 0;
    this.count--;
  }

  /** First pages, ascending. */
  firsts(): number[] {
    const out: number[] = [];
    for (const [number, block] of [...this.#blocks].sort(([a], [b]) => a - b))
      for (let i = 0; i < BLOCK_PAGES; i++) if (block[i] !== 0) out.push(number * BLOCK_PAGES + i);
    return out;
  }
}

/** A run of free pages, in page numbers: [first, end). */
interface Extent {
  first: number;
  end: number;
}

/**
 * Physically contiguous memory out of the firmware's RAM: the lowest free place, aligned to the size rounded up to a
 * power of two. Deterministic; what is freed is handed out again.
 */
export class PageAllocator {
  readonly #bus: Bus;
  readonly #free: Extent[];
  readonly #taken = new TakenRuns();
  /** Single pages given back, the latest last; null: they return to the free runs at once. */
  readonly #hot: number[] | null;
  /** Pages below were handed out before and may hold old bytes; those above are as the machine was switched on. */
  #touched = 0;

  /** @param reuse 'latest': a single page that was given back is handed out first, as Linux's per-CPU lists do */
  constructor(bus: Bus, reuse: 'lowest' | 'latest' = 'lowest') {
    this.#bus = bus;
    this.#hot = reuse === 'latest' ? [] : null;
    this.#free = bus.firmware.ram
      .map(({ base, size }) => ({ first: Number(base >> BigInt(SHIFT)), end: Number((base + size) >> BigInt(SHIFT)) }))
      .sort((a, b) => a.first - b.first);
  }

  /** Zeroed memory; undefined when nothing large enough is free. */
  alloc(bytes: number): Pa | undefined {
    const pages = Math.max(1, Math.ceil(bytes / (1 << SHIFT)));
    const hot = pages === 1 ? this.#hot?.pop() : undefined;
    if (hot !== undefined) return this.#handOut(hot, pages);
    const align = 2 ** Math.ceil(Math.log2(pages));
    for (const [i, extent] of this.#free.entries()) {
      const first = Math.ceil(extent.first / align) * align;
      if (first + pages > extent.end) continue;
      this.#take(i, extent, first, first + pages);
      return this.#handOut(first, pages);
    }
    if (this.#hot === null || this.#hot.length === 0) return undefined;
    for (const page of this.#hot.splice(0)) this.#give({ first: page, end: page + 1 });
    return this.alloc(bytes);
  }

  #handOut(first: number, pages: number): Pa {
    this.#taken.add(first, pages);
    const pa = BigInt(first) << BigInt(SHIFT);
    this.#zero(pa, first, pages);
    return pa;
  }

  /** Gives memory back. @throws Error if it is not allocated from here */
  free(pa: Pa): void {
    const first = Number(pa >> BigInt(SHIFT));
    const pages = this.#taken.at(first);
    if (pages === 0) throw new Error(`0x${pa.toString(16)} is not allocated`);
    this.#taken.remove(first);
    if (pages === 1 && this.#hot !== null) this.#hot.push(first);
    else this.#give({ first, end: first + pages });
  }

  /** Number of allocations not given back. */
  get used(): number {
    return this.#taken.count;
  }

  /** Addresses of allocations not given back, ascending. */
  get taken(): Pa[] {
    return this.#taken.firsts().map((first) => BigInt(first) << BigInt(SHIFT));
  }

  #take(index: number, extent: Extent, first: number, end: number): void {
    const rest: Extent[] = [];
    if (extent.first < first) rest.push({ first: extent.first, end: first });
    if (end < extent.end) rest.push({ first: end, end: extent.end });
    const [only, second] = rest;
    // Most requests cut a page off the front; an array of thousands of runs is not moved for that.
    if (only !== undefined && second === undefined) this.#free[index] = only;
    else this.#free.splice(index, 1, ...rest);
  }

  #give(run: Extent): void {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#free[middle]?.first ?? 0) < run.first) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before?.end === run.first;
    const joinsAfter = after?.first === run.end;
    if (before !== undefined && joinsBefore) {
      before.end = joinsAfter && after !== undefined ? after.end : run.end;
      if (joinsAfter) this.#free.splice(low, 1);
    } else if (after !== undefined && joinsAfter) after.first = run.first;
    else this.#free.splice(low, 0, run);
  }

  #zero(pa: Pa, first: number, pages: number): void {
    const old = Math.min(pages, Math.max(0, this.#touched - first)) << SHIFT;
    for (let done = 0; done < old; done += ZEROS.length)
      this.#bus.storeBytes(pa + BigInt(done), old - done < ZEROS.length ? ZEROS.subarray(0, old - done) : ZEROS);
    this.#touched = Math.max(this.#touched, first + pages);
  }
}
