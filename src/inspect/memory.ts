/** Physical memory as images show it: pieces at addresses, read where they are, with nothing between them. */
import type { Words } from '../../spec/layout.ts';
import { count, InputError } from './error.ts';

/** Bytes of one image: a buffer, or a file that is read piece by piece. */
export interface ByteSource {
  readonly length: number;
  /** `length` bytes from `offset`; both are inside the source. */
  read(offset: number, length: number): Uint8Array;
}

/** A source over bytes in memory. */
export const bufferSource = (bytes: Uint8Array): ByteSource => ({
  length: bytes.length,
  read: (offset, length) => bytes.subarray(offset, offset + length),
});

/** A piece of an image at an address. */
export interface Segment {
  /** Physical address of the first byte. */
  readonly base: bigint;
  readonly length: number;
  /** What the piece came from, for messages. */
  readonly name: string;
  readonly source: ByteSource;
  /** Where the piece begins in its source. */
  readonly offset: number;
}

/** Bytes compared or scanned at once. */
export const CHUNK = 1 << 20;

/** Physical addresses have at most this many bits (IHI 0070 3.4). */
export const ADDRESS_LIMIT = 1n << 56n;

/** The smaller of two; Math.min knows no bigints. */
export const lesser = (a: bigint, b: bigint): bigint => (b < a ? b : a);
/** The larger of two. */
export const greater = (a: bigint, b: bigint): bigint => (b > a ? b : a);

const end = (segment: Segment): bigint => segment.base + BigInt(segment.length);

/** Little-endian 32-bit words of bytes. */
export function wordsOf(bytes: Uint8Array): Words {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = new Uint32Array(bytes.length >>> 2);
  for (let i = 0; i < words.length; i++) words[i] = view.getUint32(4 * i, true);
  return words;
}

/** Images side by side. Two may cover the same bytes, if they agree. */
export class ImageMemory {
  /** Sorted by address, without overlaps. */
  readonly #segments: Segment[] = [];

  /** What there is, in order of address. */
  get segments(): readonly Segment[] {
    return this.#segments;
  }

  /**
   * Adds an image. Bytes that another image has already are compared with it.
   * @throws InputError if they differ, or if the image lies beyond 2^56.
   */
  add(image: Segment): void {
    if (image.length === 0) return;
    if (image.base < 0n || end(image) > ADDRESS_LIMIT)
      throw new InputError(
        `${image.name}: 0x${image.base.toString(16)} + ${count(image.length, 'byte')} is beyond 56 bits`,
      );
    let from = image.base;
    const pieces: Segment[] = [];
    let at = this.#after(image.base);
    const first = at;
    for (; at < this.#segments.length; at++) {
      const there = this.#segments[at];
      if (there === undefined || there.base >= end(image)) break;
      if (from < there.base) pieces.push(part(image, from, there.base));
      this.#compare(there, image);
      pieces.push(there);
      from = end(there);
    }
    if (from < end(image)) pieces.push(part(image, from, end(image)));
    this.#segments.splice(first, at - first, ...pieces);
  }

  /** Index of the first segment that ends after an address. */
  #after(pa: bigint): number {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const segment = this.#segments[middle];
      if (segment !== undefined && end(segment) <= pa) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #compare(there: Segment, image: Segment): void {
    let from = greater(there.base, image.base);
    const to = lesser(end(there), end(image));
    while (from < to) {
      const length = Number(to - from < BigInt(CHUNK) ? to - from : BigInt(CHUNK));
      const [a, b] = [there, image].map(({ source, offset, base }) =>
        source.read(offset + Number(from - base), length),
      );
      const wrong = a === undefined || b === undefined ? -1 : firstDifference(a, b);
      if (wrong >= 0)
        throw new InputError(
          `${image.name} and ${there.name} both hold address 0x${(from + BigInt(wrong)).toString(16)}, with different bytes`,
        );
      from += BigInt(length);
    }
  }

  /** Bytes of an address range, or undefined if any of them is in no image. */
  read(pa: bigint, length: number): Uint8Array | undefined {
    const at = this.#after(pa);
    const segment = this.#segments[at];
    if (segment === undefined || segment.base > pa) return undefined;
    if (pa + BigInt(length) <= end(segment))
      return segment.source.read(segment.offset + Number(pa - segment.base), length);
    const here = Number(end(segment) - pa);
    const rest = this.read(end(segment), length - here);
    if (rest === undefined) return undefined;
    const out = new Uint8Array(length);
    out.set(segment.source.read(segment.offset + Number(pa - segment.base), here));
    out.set(rest, here);
    return out;
  }

  /** Little-endian 32-bit words of an address range, or undefined if it is not all there. */
  readWords(pa: bigint, bytes: number): Words | undefined {
    const read = this.read(pa, bytes);
    return read === undefined ? undefined : wordsOf(read);
  }

  /** The parts of an address range: present ones, images without a gap between them as one, and the gaps, in order. */
  *parts(
    pa: bigint,
    length: bigint,
  ): Generator<{ readonly pa: bigint; readonly length: bigint; readonly present: boolean }> {
    const limit = pa + length;
    let from = pa;
    for (let at = this.#after(pa); from < limit; at++) {
      const segment = this.#segments[at];
      const start = segment === undefined || segment.base > limit ? limit : segment.base;
      if (start > from) yield { pa: from, length: start - from, present: false };
      if (segment === undefined || start >= limit) return;
      from = greater(from, start);
      let last = segment;
      for (let next = this.#segments[at + 1]; next?.base === end(last); next = this.#segments[at + 1]) {
        last = next;
        at++;
      }
      const stop = lesser(end(last), limit);
      yield { pa: from, length: stop - from, present: true };
      from = stop;
    }
  }
}

function part(image: Segment, from: bigint, to: bigint): Segment {
  return { ...image, base: from, length: Number(to - from), offset: image.offset + Number(from - image.base) };
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}
