/** IOVA ranges that cannot be mapped, each with those who say so; equal ranges of many owners are one. */
import type { Interval } from './intervals.ts';

interface Counted extends Interval<bigint> {
  owners: number;
}

/** The reserved list of one IOAS: apertures of domains, reserved regions of devices. */
export class ReservedRanges {
  readonly #ranges = new Map<string, Counted>();
  readonly #byOwner = new Map<object, string[]>();

  /** The ranges, each once, in no order. */
  get ranges(): Interval<bigint>[] {
    return [...this.#ranges.values()];
  }

  /** True if any range meets [start, last]. */
  meets(start: bigint, last: bigint): boolean {
    for (const range of this.#ranges.values()) if (range.start <= last && range.last >= start) return true;
    return false;
  }

  add(start: bigint, last: bigint, owner: object): void {
    const key = `${start}-${last}`;
    const range = this.#ranges.get(key);
    if (range === undefined) this.#ranges.set(key, { start, last, owners: 1 });
    else range.owners++;
    const keys = this.#byOwner.get(owner);
    if (keys === undefined) this.#byOwner.set(owner, [key]);
    else keys.push(key);
  }

  /** Takes everything of an owner back. */
  removeOwner(owner: object): void {
    for (const key of this.#byOwner.get(owner) ?? []) {
      const range = this.#ranges.get(key);
      if (range === undefined) continue;
      range.owners--;
      if (range.owners === 0) this.#ranges.delete(key);
    }
    this.#byOwner.delete(owner);
  }
}
