/**
 * Physical memory: sparse, little-endian, 56-bit addresses. What lies outside every region answers with an external
 * abort.
 *
 * Two faces. The edge takes bigints and throws {@link BusError}. The hot face takes an address and a 64-bit value as
 * halves (hi, lo), returns false on an external abort and allocates nothing. Halves that it gives back are signed
 * 32-bit integers (`| 0`); it takes signed and unsigned ones alike. Both need a little-endian host.
 */
import { BusError, type Pa } from './bus.ts';

/** log2 of the bytes that one stored page holds. Measured against 4 KiB and 16 KiB pages: 64 KiB reads fastest. */
const PAGE_SHIFT = 16;
const PAGE_BYTES = 1 << PAGE_SHIFT;
const PAGE_WORDS = PAGE_BYTES >>> 2;
/** Word index of an aligned 64-bit unit inside its page. */
const UNIT_MASK = PAGE_WORDS - 2;
const WORD_MASK = PAGE_WORDS - 1;
/** Pages that the direct-mapped lookup holds; index and tag together are the 40 bits of a page number. */
const LOOKUP_BITS = 10;
const LOOKUP_MASK = (1 << LOOKUP_BITS) - 1;
const TAG_LO = PAGE_SHIFT + LOOKUP_BITS;
const TAG_HI = 32 - TAG_LO;
/** No page has it: an address has 24 high bits, so a tag has 30. */
const NO_TAG = -1;

/** Regions begin and end at multiples of this. */
const REGION_ALIGN = 0x1000n;
/** First address that does not exist. */
const LIMIT = 1n << 56n;

/** An untouched page reads as this one; nobody writes it. */
const ZERO_PAGE = new Int32Array(PAGE_WORDS);

/** Addresses below 2^53 as one double, exact: a page number has 40 bits. */
const pageNumber = (hi: number, lo: number): number => (hi >>> 0) * 2 ** (32 - PAGE_SHIFT) + (lo >>> PAGE_SHIFT);

/** [base, end) in units of {@link REGION_ALIGN}; `words` is the caller's buffer, if there is one. */
interface Region {
  readonly first: number;
  readonly end: number;
  readonly words: Int32Array | undefined;
}

/** A region as {@link Memory.regions} lists it. */
export interface MemoryRegion {
  readonly base: Pa;
  readonly size: bigint;
  /** It shows a caller's `ArrayBuffer`: stores through that are not announced. */
  readonly backed: boolean;
}

/**
 * Called after each store, from whoever it came: address of the first byte (halves) and the number of bytes. A store
 * through a caller's own `ArrayBuffer` is not seen.
 */
export type StoreWatch = (hi: number, lo: number, bytes: number) => void;

/** Answer of {@link Memory.compareExchange64}. */
export const Exchange = { Abort: -1, Different: 0, Done: 1 } as const;
export type Exchange = (typeof Exchange)[keyof typeof Exchange];

/** See the module comment. */
export class Memory {
  /** High half of what the last hot load read; a 32-bit load clears it. */
  hi = 0;
  /** Low half of what the last hot load read. */
  lo = 0;
  /** Store watch, or null. One function: who wants more than one composes them. */
  watch: StoreWatch | null = null;

  readonly #tags = new Int32Array(1 << LOOKUP_BITS).fill(NO_TAG);
  readonly #views: Int32Array[] = new Array<Int32Array>(1 << LOOKUP_BITS).fill(ZERO_PAGE);
  readonly #pages = new Map<number, Int32Array>();
  #regions: readonly Region[] = [];

  /**
   * Makes [base, base + size) exist, zero-filled (or showing `backing`, whose first byte stands at `base`).
   * @throws RangeError if it is not 4 KiB aligned, leaves the 56-bit space, overlaps a region, or `backing` is short.
   */
  addRegion(base: Pa, size: bigint, backing?: ArrayBuffer): void {
    if (base < 0n || size <= 0n || base % REGION_ALIGN !== 0n || size % REGION_ALIGN !== 0n)
      throw new RangeError(`region 0x${base.toString(16)}+0x${size.toString(16)} is not made of 4 KiB units`);
    if (base + size > LIMIT) throw new RangeError(`region 0x${base.toString(16)} leaves the 56-bit address space`);
    if (backing !== undefined && BigInt(backing.byteLength) < size)
      throw new RangeError(`backing of ${backing.byteLength} bytes is shorter than the region (${size})`);
    const first = Number(base / REGION_ALIGN);
    const end = first + Number(size / REGION_ALIGN);
    const clash = this.#regions.find((other) => first < other.end && other.first < end);
    if (clash !== undefined) throw new RangeError(`region 0x${base.toString(16)} overlaps another`);
    const words = backing === undefined ? undefined : new Int32Array(backing, 0, Number(size) / 4);
    this.#regions = [...this.#regions, { first, end, words }].sort((a, b) => a.first - b.first);
    this.#tags.fill(NO_TAG);
  }

  /** All regions by address. */
  get regions(): MemoryRegion[] {
    return this.#regions.map(({ first, end, words }) => ({
      base: BigInt(first) * REGION_ALIGN,
      size: BigInt(end - first) * REGION_ALIGN,
      backed: words !== undefined,
    }));
  }

  /** Bytes of host memory in use for contents. */
  get bytesInUse(): number {
    return this.#pages.size * PAGE_BYTES;
  }

  /** Whether [pa, pa + bytes) lies in regions altogether. */
  covers(pa: Pa, bytes: number): boolean {
    if (pa < 0n || pa + BigInt(bytes) > LIMIT) return false;
    let unit = Number(pa / REGION_ALIGN);
    const end = unit + Math.floor((Number(pa % REGION_ALIGN) + Math.max(bytes, 1) - 1) / Number(REGION_ALIGN));
    while (unit <= end) {
      const region = this.#regionOf(unit);
      if (region === undefined) return false;
      unit = region.end;
    }
    return true;
  }

  // The hot face. Addresses have at most 56 bits.

  /** Loads the aligned 64-bit unit at (hi, lo) into {@link hi}, {@link lo}; low 3 address bits are ignored. */
  load64(hi: number, lo: number): boolean {
    const i = (lo >>> PAGE_SHIFT) & LOOKUP_MASK;
    if (this.#tags[i] !== ((hi << TAG_HI) | (lo >>> TAG_LO))) return this.#loadMiss(hi, lo & ~7, true);
    const view = this.#views[i] as Int32Array;
    const at = (lo >>> 2) & UNIT_MASK;
    this.lo = view[at] as number;
    this.hi = view[at + 1] as number;
    return true;
  }

  /** Loads the aligned 32-bit word at (hi, lo) into {@link lo}. */
  load32(hi: number, lo: number): boolean {
    const i = (lo >>> PAGE_SHIFT) & LOOKUP_MASK;
    if (this.#tags[i] !== ((hi << TAG_HI) | (lo >>> TAG_LO))) return this.#loadMiss(hi, lo & ~3, false);
    this.lo = (this.#views[i] as Int32Array)[(lo >>> 2) & WORD_MASK] as number;
    this.hi = 0;
    return true;
  }

  /** Stores the aligned 64-bit unit at (hi, lo). */
  store64(hi: number, lo: number, valueHi: number, valueLo: number): boolean {
    const view = this.#writable(hi, lo);
    if (view === undefined) return false;
    const at = this.#at & ~1;
    view[at] = valueLo;
    view[at + 1] = valueHi;
    if (this.watch !== null) this.watch(hi, lo & ~7, 8);
    return true;
  }

  /** Stores the aligned 32-bit word at (hi, lo). */
  store32(hi: number, lo: number, value: number): boolean {
    const view = this.#writable(hi, lo);
    if (view === undefined) return false;
    view[this.#at] = value;
    if (this.watch !== null) this.watch(hi, lo & ~3, 4);
    return true;
  }

  /** Stores `new` if memory holds `old`; else {@link hi}, {@link lo} show what it holds. */
  compareExchange64(hi: number, lo: number, oldHi: number, oldLo: number, newHi: number, newLo: number): Exchange {
    if (!this.load64(hi, lo)) return Exchange.Abort;
    if (this.hi !== (oldHi | 0) || this.lo !== (oldLo | 0)) return Exchange.Different;
    return this.store64(hi, lo, newHi, newLo) ? Exchange.Done : Exchange.Abort;
  }

  /** A copy of the 4 KiB that (hi, lo) lies in, as 32-bit words; undefined outside memory. */
  page(hi: number, lo: number): Int32Array | undefined {
    const view = this.#storage(hi, lo & ~0xfff, false);
    return view?.slice(this.#at, this.#at + 0x400);
  }

  /** Word index of the last {@link #writable} inside the view it returned. */
  #at = 0;

  #writable(hi: number, lo: number): Int32Array | undefined {
    const i = (lo >>> PAGE_SHIFT) & LOOKUP_MASK;
    this.#at = (lo >>> 2) & WORD_MASK;
    if (this.#tags[i] === ((hi << TAG_HI) | (lo >>> TAG_LO))) {
      const view = this.#views[i] as Int32Array;
      if (view !== ZERO_PAGE) return view;
    }
    return this.#storage(hi, lo, true);
  }

  #loadMiss(hi: number, lo: number, wide: boolean): boolean {
    const view = this.#storage(hi, lo, false);
    if (view === undefined) return false;
    this.lo = view[this.#at] as number;
    this.hi = wide ? (view[this.#at + 1] as number) : 0;
    return true;
  }

  /**
   * The words that hold (hi, lo), with {@link #at} showing where; undefined outside every region. Enters the page into
   * the lookup if one region covers all of it.
   */
  #storage(hi: number, lo: number, write: boolean): Int32Array | undefined {
    const number = pageNumber(hi, lo);
    const unit = (hi >>> 0) * 2 ** 20 + (lo >>> 12);
    const region = hi >>> 24 === 0 ? this.#regionOf(unit) : undefined;
    if (region === undefined) return undefined;
    const units = PAGE_BYTES / 0x1000;
    const whole = region.first <= number * units && (number + 1) * units <= region.end;
    this.#at = (lo >>> 2) & WORD_MASK;
    let view: Int32Array | undefined;
    if (region.words === undefined) view = this.#page(number, write);
    else if (whole) view = region.words.subarray((number * units - region.first) * 0x400).subarray(0, PAGE_WORDS);
    else {
      this.#at = (unit - region.first) * 0x400 + ((lo & 0xfff) >>> 2);
      return region.words;
    }
    if (whole) {
      const i = (lo >>> PAGE_SHIFT) & LOOKUP_MASK;
      this.#tags[i] = (hi << TAG_HI) | (lo >>> TAG_LO);
      this.#views[i] = view;
    }
    return view;
  }

  #page(number: number, write: boolean): Int32Array {
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    if (!write) return ZERO_PAGE;
    const page = new Int32Array(PAGE_WORDS);
    this.#pages.set(number, page);
    return page;
  }

  #regionOf(unit: number): Region | undefined {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const region = this.#regions[middle];
      if (region === undefined || unit < region.first) high = middle;
      else if (unit >= region.end) low = middle + 1;
      else return region;
    }
    return undefined;
  }

  // The edge.

  /** @throws BusError outside memory */
  read8(pa: Pa): number {
    return this.readBytes(pa, 1)[0] ?? 0;
  }

  /** Any alignment. @throws BusError outside memory */
  read16(pa: Pa): number {
    const bytes = this.readBytes(pa, 2);
    return (bytes[0] ?? 0) | ((bytes[1] ?? 0) << 8);
  }

  /** Unsigned; any alignment. @throws BusError outside memory */
  read32(pa: Pa): number {
    return Number(BigInt.asUintN(32, this.#read(pa, 4)));
  }

  /** Any alignment; an aligned unit is read at once. @throws BusError outside memory */
  read64(pa: Pa): bigint {
    return this.#read(pa, 8);
  }

  #read(pa: Pa, size: 4 | 8): bigint {
    if (pa % BigInt(size) === 0n && pa >= 0n && pa < LIMIT) {
      const hi = Number(pa >> 32n);
      const lo = Number(pa & 0xffff_ffffn);
      if (!(size === 8 ? this.load64(hi, lo) : this.load32(hi, lo))) throw new BusError(pa, `${size}-byte read`);
      return (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
    }
    let value = 0n;
    for (const byte of this.readBytes(pa, size).toReversed()) value = (value << 8n) | BigInt(byte);
    return value;
  }

  /** @throws BusError outside memory */
  write8(pa: Pa, value: number): void {
    this.writeBytes(pa, Uint8Array.of(value));
  }

  /** Any alignment. @throws BusError outside memory */
  write16(pa: Pa, value: number): void {
    this.writeBytes(pa, Uint8Array.of(value, value >>> 8));
  }

  /** Any alignment. @throws BusError outside memory */
  write32(pa: Pa, value: number): void {
    this.#write(pa, 4, BigInt(value));
  }

  /** Any alignment; an aligned unit is written at once. @throws BusError outside memory */
  write64(pa: Pa, value: bigint): void {
    this.#write(pa, 8, value);
  }

  #write(pa: Pa, size: 4 | 8, value: bigint): void {
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    if (pa % BigInt(size) === 0n && pa >= 0n && pa < LIMIT) {
      const hi = Number(pa >> 32n);
      const lo = Number(pa & 0xffff_ffffn);
      if (!(size === 8 ? this.store64(hi, lo, high, low) : this.store32(hi, lo, low)))
        throw new BusError(pa, `${size}-byte write`);
      return;
    }
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = (i < 4 ? low : high) >>> ((i & 3) * 8);
    this.writeBytes(pa, bytes);
  }

  /** A copy of [pa, pa + n). @throws BusError if any byte of it lies outside memory */
  readBytes(pa: Pa, n: number): Uint8Array {
    if (!this.covers(pa, n)) throw new BusError(pa, `${n}-byte read`);
    const out = new Uint8Array(n);
    this.#chunks(pa, n, false, (view, at, done) =>
      out.set(view.subarray(at, at + Math.min(n - done, view.length - at)), done),
    );
    return out;
  }

  /** @throws BusError if any byte lies outside memory; nothing is written then */
  writeBytes(pa: Pa, bytes: Uint8Array): void {
    if (!this.covers(pa, bytes.length)) throw new BusError(pa, `${bytes.length}-byte write`);
    this.#chunks(pa, bytes.length, true, (view, at, done) => {
      const inOne = done === 0 && bytes.length <= view.length - at;
      view.set(inOne ? bytes : bytes.subarray(done, done + view.length - at), at);
    });
    if (this.watch !== null) this.watch(Number(pa >> 32n), Number(pa & 0xffff_ffffn), bytes.length);
  }

  /** Fills [pa, pa + n) with a byte. @throws BusError if any byte lies outside memory; nothing is written then */
  fill(pa: Pa, n: number, byte: number): void {
    if (!this.covers(pa, n)) throw new BusError(pa, `${n}-byte fill`);
    this.#chunks(pa, n, true, (view, at, done) => view.fill(byte, at, at + n - done));
    if (this.watch !== null) this.watch(Number(pa >> 32n), Number(pa & 0xffff_ffffn), n);
  }

  /** Calls `visit` for each stored piece of [pa, pa + n) with the piece's bytes, where in them to start, and how far we are. */
  #chunks(pa: Pa, n: number, write: boolean, visit: (view: Uint8Array, at: number, done: number) => void): void {
    for (let done = 0; done < n; ) {
      const here = pa + BigInt(done);
      const lo = Number(here & 0xffff_ffffn);
      const view = this.#storage(Number(here >> 32n), lo, write);
      if (view === undefined) throw new BusError(here, 'access');
      const unit = this.#at * 4 - (lo & 0xffc);
      // One 4 KiB unit at a time: a page may belong to several regions.
      const bytes = new Uint8Array(view.buffer, view.byteOffset + unit, 0x1000);
      const at = lo & 0xfff;
      visit(bytes, at, done);
      done += 0x1000 - at;
    }
  }
}
