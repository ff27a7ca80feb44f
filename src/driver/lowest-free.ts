/** Numbers from a range, the lowest free one first, in time that does not grow with how many are taken. */
export class LowestFree {
  readonly #min: number;
  /** Numbers from here on were never taken. */
  #fresh: number;
  /** Numbers below that were given back: a binary heap, the smallest at the front, and the same as a set. */
  readonly #heap: number[] = [];
  readonly #given = new Set<number>();

  constructor(min: number) {
    this.#min = min;
    this.#fresh = min;
  }

  /** Numbers taken. */
  get used(): number {
    return this.#fresh - this.#min - this.#given.size;
  }

  has(n: number): boolean {
    return n >= this.#min && n < this.#fresh && !this.#given.has(n);
  }

  /** The lowest free number, not taken yet. */
  peek(): number {
    return this.#heap[0] ?? this.#fresh;
  }

  /** Takes {@link peek}. */
  take(): number {
    const lowest = this.#heap[0];
    if (lowest === undefined) return this.#fresh++;
    this.#given.delete(lowest);
    const last = this.#heap.pop();
    if (last !== undefined && this.#heap.length > 0) this.#sink(last);
    return lowest;
  }

  /** Takes a number that is not the lowest. @returns false if it is taken, or below the lowest */
  takeAt(n: number): boolean {
    if (n < this.#min || this.has(n)) return false;
    while (this.#fresh <= n) {
      this.#given.add(this.#fresh);
      this.#rise(this.#fresh++);
    }
    this.#given.delete(n);
    const heap = this.#heap.filter((one) => one !== n);
    this.#heap.length = 0;
    for (const one of heap) this.#rise(one);
    return true;
  }

  /** Gives a number back. @returns false if it was not taken */
  give(n: number): boolean {
    if (!this.has(n)) return false;
    this.#given.add(n);
    this.#rise(n);
    return true;
  }

  #rise(n: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(n);
    for (let up = (at - 1) >> 1; at > 0 && (heap[up] ?? 0) > n; up = (at - 1) >> 1) {
      heap[at] = heap[up] ?? n;
      at = up;
    }
    heap[at] = n;
  }

  #sink(n: number): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] ?? n) < (heap[child] ?? n)) child++;
      const value = heap[child] ?? n;
      if (value >= n) break;
      heap[at] = value;
      at = child;
    }
    heap[at] = n;
  }
}
