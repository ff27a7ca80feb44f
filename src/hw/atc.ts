/** An endpoint's address translation cache (PCIe ATS). */
import type { AtcInvalidation } from './commands/context.ts';

/** A cached completion of a Translation Request. */
export interface AtcEntry {
  /** -1 without a PASID. */
  readonly SubstreamID: number;
  readonly privileged: boolean;
  readonly base: bigint;
  readonly sizeLog2: number;
  /** What the completion gave: a physical address, or an intermediate one with split-stage ATS. */
  readonly output: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
}

/** Entries kept; the oldest goes. */
const CAPACITY = 1024;

/** Largest translation that is kept as one entry. */
const MAX_SIZE_LOG2 = 52;

const keyOf = (SubstreamID: number, privileged: boolean, base: bigint, sizeLog2: number): string =>
  `${SubstreamID}${privileged ? 'p' : 'u'}${sizeLog2}:${base}`;

/** See the module comment. */
export class Atc {
  readonly #entries = new Map<string, AtcEntry>();
  readonly #sizes = new Map<number, number>();

  get size(): number {
    return this.#entries.size;
  }

  /** Every entry, oldest first. */
  get entries(): AtcEntry[] {
    return [...this.#entries.values()];
  }

  /** The entry that covers an address, if there is one. */
  lookup(SubstreamID: number, privileged: boolean, address: bigint): AtcEntry | undefined {
    for (const size of this.#sizes.keys()) {
      const base = (address >> BigInt(size)) << BigInt(size);
      const entry = this.#entries.get(keyOf(SubstreamID, privileged, base, size));
      if (entry !== undefined) return entry;
    }
    return undefined;
  }

  /** Keeps a completion. */
  insert(entry: AtcEntry): void {
    const sizeLog2 = Math.min(entry.sizeLog2, MAX_SIZE_LOG2);
    const key = keyOf(entry.SubstreamID, entry.privileged, entry.base, sizeLog2);
    if (this.#entries.has(key)) this.#drop(key);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size >= CAPACITY && oldest !== undefined) this.#drop(oldest);
    this.#entries.set(key, { ...entry, sizeLog2 });
    this.#sizes.set(sizeLog2, (this.#sizes.get(sizeLog2) ?? 0) + 1);
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    const left = (this.#sizes.get(entry.sizeLog2) ?? 1) - 1;
    if (left === 0) this.#sizes.delete(entry.sizeLog2);
    else this.#sizes.set(entry.sizeLog2, left);
  }

  /** An ATS Invalidate. Without a PASID it reaches entries with and without one; so does Global. */
  invalidate({ SubstreamID, global, addrHi, addrLo, spanLog2 }: AtcInvalidation): void {
    const all = spanLog2 >= 64;
    const address = (BigInt(addrHi >>> 0) << 32n) | BigInt(addrLo >>> 0);
    const first = all ? 0n : (address >> BigInt(spanLog2)) << BigInt(spanLog2);
    const end = first + (1n << BigInt(Math.min(spanLog2, 64)));
    for (const [key, entry] of [...this.#entries]) {
      if (SubstreamID >= 0 && !global && entry.SubstreamID !== SubstreamID) continue;
      if (entry.base < end && first < entry.base + (1n << BigInt(entry.sizeLog2))) this.#drop(key);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#sizes.clear();
  }
}
