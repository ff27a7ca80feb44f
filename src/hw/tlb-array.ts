/**
 * One translation cache: sets of entries, found by address, size and tag. A lookup looks at one set for each size that
 * is in use, so its cost does not grow with the number of entries.
 */
import type { SplitBlock, TagGroup, TagSpace } from './tag-space.ts';

/** Shape of a cache. `ways` entries a set; entries / ways is a power of two; 0 entries: the cache is off. */
export interface CacheShape {
  readonly entries: number;
  readonly ways: number;
  /** Which entry of a full set goes: the one longest there, or the one longest not used. */
  readonly replacement: 'round-robin' | 'lru';
}

/** A cached translation, or a cached table descriptor. Addresses are halves, with the low `sizeLog2` bits zero. */
export class TlbEntry {
  space: TagSpace | null = null;
  tag = 0;
  addrHi = 0;
  addrLo = 0;
  /** log2 of the bytes it covers. */
  sizeLog2 = 0;
  /** Output address; of a table entry: the next table's address. */
  outHi = 0;
  outLo = 0;
  /** Intermediate address of a combined entry. */
  ipaHi = 0;
  ipaLo = 0;
  /** Level of the leaf (of stage 1, if stage 1 is part of it) or table descriptor. */
  level = 0;
  /** log2 of the granule of that stage. */
  granule = 0;
  /** Stage 1 permissions (permissions.ts), or what table descriptors took away. */
  perm1 = 0;
  /** Stage 2 permissions. */
  perm2 = 0;
  /** Memory type, shareability and hints (attributes.ts): of stage 1 and 2 combined, or of stage 2 alone. */
  attributes = 0;
  /** Made of both stages. */
  combined = false;
  /** The stage 1 block it is a piece of, or null. */
  block: SplitBlock | null = null;
  /** Time of last use, for `lru`. */
  used = 0;

  /** Whether a lookup can still hit it. */
  get live(): boolean {
    return this.space !== null && this.tag !== 0 && this.space.id === this.tag && this.block?.dead !== true;
  }
}

const KEY_WORDS = 3;
/** Multiplier of Fibonacci hashing: spreads neighbouring pages over the sets. */
const SPREAD = 0x9e37_79b1;
const SIZES = 64;
const CLOCK_MASK = 0x3fff_ffff;

/** See the module comment. */
export class TlbArray {
  readonly shape: CacheShape;
  /** The cache exists. */
  readonly on: boolean;
  readonly #ways: number;
  readonly #setShift: number;
  /** Address low half | size, address high half, tag: what has to be equal. Tag 0: free. */
  readonly #keys: Int32Array;
  readonly #entries: (TlbEntry | undefined)[];
  /** Places that ever held an entry. */
  readonly #filled: number[] = [];
  #ordered = true;
  readonly #turn: Uint8Array;
  readonly #sizes = new Int32Array(SIZES);
  #sizeCount = 0;
  readonly #lru: boolean;
  #clock = 0;

  /** @throws RangeError for a shape that has no power of two of sets, or more than 64 ways */
  constructor(shape: CacheShape) {
    const sets = shape.entries === 0 ? 1 : shape.entries / shape.ways;
    if (!Number.isInteger(sets) || sets < 1 || (sets & (sets - 1)) !== 0 || sets > 1 << 20)
      throw new RangeError(`${shape.entries} entries in ${shape.ways} ways are not a power of two of sets`);
    if (!Number.isInteger(shape.ways) || shape.ways < 1 || shape.ways > 64)
      throw new RangeError(`${shape.ways} ways: 1 to 64 are possible`);
    this.shape = shape;
    this.on = shape.entries !== 0;
    this.#ways = shape.ways;
    this.#setShift = 32 - Math.log2(sets);
    this.#keys = new Int32Array((this.on ? sets * shape.ways : 0) * KEY_WORDS);
    this.#entries = new Array<TlbEntry | undefined>(this.on ? sets * shape.ways : 0).fill(undefined);
    this.#turn = new Uint8Array(sets);
    this.#lru = shape.replacement === 'lru';
  }

  #set(hi: number, lo: number, size: number, salt: number): number {
    const number = size < 32 ? (lo >>> size) | (hi << (32 - size)) : hi >>> (size - 32);
    // A shift by 32 is a shift by 0 in this language: one set has setShift 32.
    return this.#setShift === 32 ? 0 : Math.imul(number ^ salt, SPREAD) >>> this.#setShift;
  }

  /** The entry of any size that covers (hi, lo) under one of two tags, or null. Smaller tags than 1 match nothing. */
  lookup(hi: number, lo: number, salt: number, tag: number, otherTag: number): TlbEntry | null {
    for (let i = 0; i < this.#sizeCount; i++) {
      const found = this.lookupSize(hi, lo, this.#sizes[i] as number, salt, tag, otherTag);
      if (found !== null) return found;
    }
    return null;
  }

  /** How many entries cover (hi, lo) under a tag. */
  matches(hi: number, lo: number, salt: number, tag: number): number {
    let found = 0;
    for (let i = 0; i < this.#sizeCount; i++)
      if (this.lookupSize(hi, lo, this.#sizes[i] as number, salt, tag, 0) !== null) found++;
    return found;
  }

  /** As {@link lookup}, entries of 2^size bytes only. */
  lookupSize(hi: number, lo: number, size: number, salt: number, tag: number, otherTag: number): TlbEntry | null {
    const keyHi = size < 32 ? hi | 0 : hi & (-1 << (size - 32));
    const keyLo = (size < 32 ? lo & (-1 << size) : 0) | size;
    const keys = this.#keys;
    let at = this.#set(hi, lo, size, salt) * this.#ways;
    for (const end = at + this.#ways; at < end; at++) {
      const key = at * KEY_WORDS;
      if (keys[key] !== keyLo || keys[key + 1] !== keyHi) continue;
      const found = keys[key + 2] as number;
      if (found === 0 || (found !== tag && found !== otherTag)) continue;
      const entry = this.#entries[at] as TlbEntry;
      if (entry.block?.dead === true) continue;
      if (this.#lru) entry.used = this.#tick();
      return entry;
    }
    return null;
  }

  /**
   * Makes room for an entry of 2^size bytes at (hi, lo) under `space`, whose number is `tag`, and returns it with key
   * and tag filled in. An entry with the same key is replaced. The cache must be on.
   */
  insert(hi: number, lo: number, size: number, space: TagSpace, tag: number): TlbEntry {
    const keyHi = size < 32 ? hi | 0 : hi & (-1 << (size - 32));
    const addrLo = size < 32 ? lo & (-1 << size) : 0;
    const at = this.#place(this.#set(hi, lo, size, space.group.salt), addrLo | size, keyHi, tag);
    let entry = this.#entries[at];
    if (entry === undefined) {
      entry = new TlbEntry();
      this.#entries[at] = entry;
      this.#filled.push(at);
      this.#ordered = false;
    }
    const key = at * KEY_WORDS;
    this.#keys[key] = addrLo | size;
    this.#keys[key + 1] = keyHi;
    this.#keys[key + 2] = tag;
    entry.space = space;
    entry.tag = tag;
    entry.addrHi = keyHi;
    entry.addrLo = addrLo;
    entry.sizeLog2 = size;
    entry.ipaHi = entry.ipaLo = entry.perm1 = entry.perm2 = entry.attributes = 0;
    entry.combined = false;
    entry.block = null;
    entry.used = this.#tick();
    this.#noteSize(size);
    return entry;
  }

  /** Stays a small integer; when it starts over, one choice of a victim may be poor. */
  #tick(): number {
    this.#clock = (this.#clock + 1) & CLOCK_MASK;
    return this.#clock;
  }

  #noteSize(size: number): void {
    for (let i = 0; i < this.#sizeCount; i++) if (this.#sizes[i] === size) return;
    this.#sizes[this.#sizeCount++] = size;
  }

  /** The way an entry goes to: its own, else a free or dead one, else the victim. */
  #place(set: number, keyLo: number, keyHi: number, tag: number): number {
    const first = set * this.#ways;
    let free = -1;
    let oldest = first;
    for (let at = first; at < first + this.#ways; at++) {
      const key = at * KEY_WORDS;
      if (this.#keys[key] === keyLo && this.#keys[key + 1] === keyHi && this.#keys[key + 2] === tag) return at;
      const entry = this.#entries[at];
      if (free < 0 && (this.#keys[key + 2] === 0 || entry === undefined || !entry.live)) free = at;
      if (entry !== undefined && entry.used < (this.#entries[oldest]?.used ?? 0)) oldest = at;
    }
    if (free >= 0) return free;
    if (this.#lru) return oldest;
    const turn = this.#turn[set] as number;
    this.#turn[set] = turn + 1 === this.#ways ? 0 : turn + 1;
    return first + turn;
  }

  #clear(at: number): void {
    this.#keys[at * KEY_WORDS + 2] = 0;
    const entry = this.#entries[at];
    if (entry !== undefined) {
      entry.tag = 0;
      entry.block = null;
    }
  }

  /**
   * Drops entries of a group that overlap [first, last] (addresses divided by 4096, both included) and for which
   * `goes` is true. Looks at one set for each size in use and piece of that size, or at every entry if that is less.
   */
  dropRange(group: TagGroup, first: number, last: number, goes: (entry: TlbEntry) => boolean): void {
    for (let i = 0; i < this.#sizeCount; i++) {
      const size = this.#sizes[i] as number;
      const unit = 2 ** (size - 12);
      const from = Math.floor(first / unit);
      const to = Math.floor(last / unit);
      if ((to - from) * this.#ways < this.#entries.length)
        for (let number = from; number <= to; number++) this.#dropPiece(group, number, size, goes);
      else this.#dropScan(group, first, last, size, goes);
    }
  }

  #dropPiece(group: TagGroup, number: number, size: number, goes: (entry: TlbEntry) => boolean): void {
    const hi = size < 32 ? Math.floor(number / 2 ** (32 - size)) | 0 : (number * 2 ** (size - 32)) | 0;
    const lo = size < 32 ? number << size : 0;
    const keyLo = lo | size;
    let at = this.#set(hi, lo, size, group.salt) * this.#ways;
    for (const end = at + this.#ways; at < end; at++) {
      const key = at * KEY_WORDS;
      if (this.#keys[key] !== keyLo || this.#keys[key + 1] !== hi || this.#keys[key + 2] === 0) continue;
      const entry = this.#entries[at];
      if (entry?.space?.group === group && goes(entry)) this.#clear(at);
    }
  }

  #dropScan(group: TagGroup, first: number, last: number, size: number, goes: (entry: TlbEntry) => boolean): void {
    for (let at = 0; at < this.#entries.length; at++) {
      const entry = this.#entries[at];
      if (entry === undefined || entry.tag === 0 || entry.sizeLog2 !== size || entry.space?.group !== group) continue;
      const begin = (entry.addrHi >>> 0) * 2 ** 20 + (entry.addrLo >>> 12);
      if (begin <= last && begin + 2 ** (size - 12) > first && goes(entry)) this.#clear(at);
    }
  }

  /** Nothing was ever put in. */
  get untouched(): boolean {
    return this.#sizeCount === 0;
  }

  /** Number of places for entries: what {@link evict} takes. */
  get places(): number {
    return this.#entries.length;
  }

  /** Drops what stands at a place; any entry may go at any time (3.21.1). False: nothing live was there. */
  evict(place: number): boolean {
    const live = this.#entries[place]?.live === true;
    if (live) this.#clear(place);
    return live;
  }

  /** Every entry that a lookup can still hit, by place. For inspection. */
  *live(): Generator<TlbEntry> {
    if (!this.#ordered) this.#filled.sort((a, b) => a - b);
    this.#ordered = true;
    for (const at of this.#filled) {
      const entry = this.#entries[at];
      if (entry?.live === true) yield entry;
    }
  }
}
