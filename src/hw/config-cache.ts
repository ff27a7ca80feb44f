/**
 * The configuration cache (IHI 0070 3.21.3, 4.3, 5.6.2): STEs, L1STDs, CDs, L1CDs and PARTID maps as they were when they were fetched, valid
 * or not, until an invalidation names them. A failed fetch leaves nothing here.
 */
import type { Words } from '../../spec/layout.ts';
import type { CdEntry } from './context-descriptor.ts';
import type { SteEntry } from './stream-table.ts';

/** Sizes. Where a cache is full, what was fetched first goes. */
export interface ConfigCacheOptions {
  /** Streams: an STE with the CDs and L1CDs fetched through it. 0: nothing is cached. */
  readonly streams: number;
  /** CDs of one stream, and L1CDs of one stream. */
  readonly cds: number;
  /** L1STDs. */
  readonly l1stds: number;
}

/** 4096 streams of up to 1024 CDs each, 1024 L1STDs. */
export const DEFAULT_CONFIG_CACHE: ConfigCacheOptions = { streams: 4096, cds: 1024, l1stds: 1024 };

/** Nothing is cached. */
export const NO_CONFIG_CACHE: ConfigCacheOptions = { streams: 0, cds: 0, l1stds: 0 };

/** Direct-mapped front of the streams. */
const FRONT = 256;
/** SPLIT and CD leaf sizes that a cached descriptor may have been fetched with. */
const SPLITS = [6, 8, 10] as const;
const LEAVES = [6, 10] as const;
const KEY_BITS = 16;

/** What is cached of one stream. */
export class CachedStream {
  readonly sid: number;
  readonly ste: SteEntry;
  /** The CD with index 0, which needs no look-up. */
  cd0: CdEntry | null = null;
  readonly cds = new Map<number, CdEntry>();
  readonly l1cds = new Map<number, Words>();

  constructor(sid: number, ste: SteEntry) {
    this.sid = sid;
    this.ste = ste;
  }

  /** The CD of an index, or null. */
  cd(index: number): CdEntry | null {
    return index === 0 ? this.cd0 : (this.cds.get(index) ?? null);
  }
}

function put<T>(map: Map<number, T>, key: number, value: T, limit: number): void {
  if (limit === 0) return;
  map.delete(key);
  if (map.size >= limit) {
    const [first] = map.keys();
    if (first !== undefined) map.delete(first);
  }
  map.set(key, value);
}

/** See the module comment. */
export class ConfigCache {
  readonly #options: ConfigCacheOptions;
  readonly #streams = new Map<number, CachedStream>();
  readonly #front: (CachedStream | null)[] = new Array<CachedStream | null>(FRONT).fill(null);
  readonly #l1stds = new Map<number, Words>();
  readonly #vms = new Map<number, Words>();

  constructor(options: ConfigCacheOptions) {
    this.#options = options;
  }

  /** What is cached of a stream, or null. */
  stream(sid: number): CachedStream | null {
    const front = this.#front[sid & (FRONT - 1)] as CachedStream | null;
    if (front !== null && front.sid === sid) return front;
    const found = this.#streams.get(sid) ?? null;
    if (found !== null) this.#front[sid & (FRONT - 1)] = found;
    return found;
  }

  /** Caches an STE, without any CD. */
  keep(sid: number, ste: SteEntry): CachedStream {
    const stream = new CachedStream(sid, ste);
    if (this.#options.streams === 0) return stream;
    if (this.#streams.size >= this.#options.streams && !this.#streams.has(sid)) {
      const [first] = this.#streams.keys();
      if (first !== undefined) this.#drop(first);
    }
    this.#drop(sid);
    this.#streams.set(sid, stream);
    return stream;
  }

  /** Caches a CD of a stream. */
  keepCd(stream: CachedStream, index: number, cd: CdEntry): void {
    if (this.#options.streams === 0) return;
    if (index === 0) stream.cd0 = this.#options.cds === 0 ? null : cd;
    else put(stream.cds, index, cd, this.#options.cds);
  }

  /** The L1CD of a leaf table's number, or null. */
  l1cd(stream: CachedStream, index: number, leafLog2: number): Words | null {
    return stream.l1cds.get(index * KEY_BITS + leafLog2) ?? null;
  }

  /** Caches an L1CD. */
  keepL1cd(stream: CachedStream, index: number, leafLog2: number, words: Words): void {
    if (this.#options.streams !== 0) put(stream.l1cds, index * KEY_BITS + leafLog2, words, this.#options.cds);
  }

  /** The L1STD of an index into the level 1 table, or null. */
  l1std(index: number, SPLIT: number): Words | null {
    return this.#l1stds.get(index * KEY_BITS + SPLIT) ?? null;
  }

  /** Caches an L1STD. */
  keepL1std(index: number, SPLIT: number, words: Words): void {
    put(this.#l1stds, index * KEY_BITS + SPLIT, words, this.#options.l1stds);
  }

  #drop(sid: number): void {
    this.#streams.delete(sid);
    if (this.#front[sid & (FRONT - 1)]?.sid === sid) this.#front[sid & (FRONT - 1)] = null;
  }

  /** CMD_CFGI_STE: the STE with all CDs and L1CDs fetched through it; unless `leaf`, also the L1STD used for it. */
  invalidateSte(sid: number, leaf: boolean): void {
    const unsigned = sid >>> 0;
    this.#drop(unsigned);
    if (!leaf) for (const split of SPLITS) this.#l1stds.delete((unsigned >>> split) * KEY_BITS + split);
  }

  /** CMD_CFGI_STE_RANGE: the aligned block of 2^(range + 1) StreamIDs that `sid` lies in, L1STDs included (4.3.2). */
  invalidateSteRange(sid: number, range: number): void {
    const size = 2 ** (range + 1);
    const first = Math.floor((sid >>> 0) / size) * size;
    const last = first + size - 1;
    if (size <= this.#streams.size) for (let one = first; one <= last; one++) this.#drop(one);
    else for (const one of [...this.#streams.keys()]) if (one >= first && one <= last) this.#drop(one);
    for (const key of [...this.#l1stds.keys()]) {
      const split = key % KEY_BITS;
      const begin = Math.floor(key / KEY_BITS) * 2 ** split;
      if (begin <= last && begin + 2 ** split > first) this.#l1stds.delete(key);
    }
  }

  /** CMD_CFGI_ALL. */
  invalidateAll(): void {
    this.#streams.clear();
    this.#front.fill(null);
    this.#l1stds.clear();
    this.#vms.clear();
  }

  /** CMD_CFGI_CD: the CD at an index of the stream's table; unless `leaf`, also its L1CD. */
  invalidateCd(sid: number, ssid: number, leaf: boolean): void {
    const stream = this.stream(sid >>> 0);
    if (stream === null) return;
    if (ssid === 0) stream.cd0 = null;
    else stream.cds.delete(ssid);
    if (!leaf) for (const log2 of LEAVES) stream.l1cds.delete((ssid >>> log2) * KEY_BITS + log2);
  }

  /** CMD_CFGI_CD_ALL: every CD and L1CD fetched through the stream. */
  invalidateCdAll(sid: number): void {
    const stream = this.stream(sid >>> 0);
    if (stream === null) return;
    stream.cd0 = null;
    stream.cds.clear();
    stream.l1cds.clear();
  }

  /** The PARTID map of a VMID's VMS, or null. */
  vms(VMID: number): Words | null {
    return this.#vms.get(VMID) ?? null;
  }

  /** Caches a PARTID map, by VMID alone. */
  keepVms(VMID: number, words: Words): void {
    put(this.#vms, VMID, words, this.#options.streams);
  }

  /** CMD_CFGI_VMS_PIDM. */
  invalidateVmsPidm(VMID: number): void {
    this.#vms.delete(VMID);
  }

  /** Cached streams in the order they were fetched. For inspection. */
  streams(): CachedStream[] {
    return [...this.#streams.values()];
  }

  /** StreamIDs whose cached STE names a VMID. For inspection. */
  holdersOf(VMID: number): number[] {
    return this.streams()
      .filter(({ ste }) => ste.VMID === VMID)
      .map(({ sid }) => sid);
  }
}
