/** Closed intervals in ascending order: what the kernel keeps in interval trees. */

/** [start, last], both ends included. */
export interface Interval<N extends bigint | number> {
  readonly start: N;
  readonly last: N;
}

/** Intervals that do not overlap, sorted. Lookup is a binary search. */
export class DisjointIntervals<N extends bigint | number, T extends Interval<N>> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** Position of the first interval that ends at or after `at`. */
  #position(at: N): number {
    let lo = 0;
    let hi = this.#items.length;
    while (lo < hi) {
      const mid = (lo + hi) >>> 1;
      const item = this.#items[mid];
      if (item !== undefined && item.last < at) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  /** The lowest interval that meets [start, last]. */
  first(start: N, last: N): T | undefined {
    const item = this.#items[this.#position(start)];
    return item !== undefined && item.start <= last ? item : undefined;
  }

  /** All intervals that meet [start, last], ascending. */
  *meeting(start: N, last: N): Generator<T> {
    for (let i = this.#position(start); i < this.#items.length; i++) {
      const item = this.#items[i];
      if (item === undefined || item.start > last) return;
      yield item;
    }
  }

  /** @throws Error if it would overlap: the caller has to look first */
  insert(item: T): void {
    const at = this.#position(item.start);
    const next = this.#items[at];
    if (next !== undefined && next.start <= item.last) throw new Error('overlapping intervals');
    this.#items.splice(at, 0, item);
  }

  remove(item: T): void {
    const at = this.#position(item.start);
    if (this.#items[at] !== item) throw new Error('interval is not in the list');
    this.#items.splice(at, 1);
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#items[Symbol.iterator]();
  }

  /** Forgets all of them. */
  clear(): void {
    this.#items.length = 0;
  }
}

/** A stretch that is either covered by some interval or by none. */
export interface Span<N extends bigint | number> extends Interval<N> {
  readonly used: boolean;
}

/**
 * Cuts [first, last] into covered stretches and holes, ascending. The intervals may overlap and come in any order.
 * @param one the number 1 of the type in use
 */
export function spans<N extends bigint | number>(
  intervals: readonly Interval<N>[],
  first: N,
  last: N,
  one: N,
): Span<N>[] {
  if (intervals.length === 0) return [{ start: first, last, used: false }];
  const next = (n: N): N => ((n as bigint) + (one as bigint)) as N;
  const before = (n: N): N => ((n as bigint) - (one as bigint)) as N;
  const inside = intervals.filter((i) => i.start <= last && i.last >= first);
  inside.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const out: Span<N>[] = [];
  let at = first;
  let done = false;
  for (let i = 0; i < inside.length && !done; ) {
    const head = inside[i];
    if (head === undefined) break;
    if (head.start > at) {
      out.push({ start: at, last: before(head.start), used: false });
      at = head.start;
    }
    let end = head.last;
    for (i++; i < inside.length; i++) {
      const more = inside[i];
      // Neighbours count as one stretch, as the kernel's span iterator has it.
      if (more === undefined || before(more.start) > end) break;
      if (more.last > end) end = more.last;
    }
    if (end >= last) {
      out.push({ start: at, last, used: true });
      done = true;
    } else {
      out.push({ start: at, last: end, used: true });
      at = next(end);
    }
  }
  if (!done) out.push({ start: at, last, used: false });
  return out;
}
