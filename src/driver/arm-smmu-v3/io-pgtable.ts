/**
 * VMSAv8-64 tables of a stage 1 or stage 2 domain (kernel: io-pgtable-arm.c). Addresses are pairs of 32-bit halves
 * inside; bigints only at the calls.
 */
import { DESCRIPTOR_LOG2, type Granule } from '../../../spec/index.ts';
import type { Bus, Pa } from '../../hw/bus.ts';
import { PartialMapError } from '../iommu/map.ts';
import type { IotlbGather, MapProt } from '../iommu/ops.ts';
import { type Kernel, KernelError } from '../kernel.ts';
import {
  type Descriptors,
  descriptorsOf,
  formatOf,
  type LeafBits,
  shapeOf,
  type TableConfig,
  type TableFormat,
  type TableShape,
} from './io-pgtable-format.ts';

export type { TableConfig, TableFormat } from './io-pgtable-format.ts';

/** What a table asks of its domain (`struct iommu_flush_ops`). */
export interface TlbOps {
  /** Removes cached walks of a range whose table is about to be freed; done when it returns (`tlb_flush_walk`). */
  flushWalk(iova: bigint, size: bigint, granule: bigint): void;
  /** Notes `count` cleared entries of `size` bytes for the invalidation at the end of the unmap (`tlb_add_page`). */
  addPages(gather: IotlbGather, iova: bigint, size: bigint, count: number): void;
  /** Runs `release` as soon as no lost invalidation can matter. */
  retire(what: string, release: () => void): void;
}

/** The table size that a page size bit map and a CPU page size lead to (`arm_lpae_restrict_pgsizes`). */
export function chooseGranule(pgsizeBitmap: bigint, pageSize: number): Granule {
  const offered = (['4k', '16k', '64k'] as const).filter((name) => (pgsizeBitmap & GRANULE_BYTES[name]) !== 0n);
  const wanted = BigInt(pageSize);
  const exact = offered.find((name) => GRANULE_BYTES[name] === wanted);
  const smaller = offered.findLast((name) => GRANULE_BYTES[name] < wanted);
  const chosen = exact ?? smaller ?? offered[0];
  if (chosen === undefined) throw new KernelError('EINVAL', 'no page size that VMSAv8-64 knows');
  return chosen;
}

/** Bytes of a page by granule. */
export const GRANULE_BYTES = { '4k': 1n << 12n, '16k': 1n << 14n, '64k': 1n << 16n } as const;

/** Page sizes by granule, blocks included (`arm_lpae_restrict_pgsizes`). */
export const GRANULE_PAGES = {
  '4k': (1n << 12n) | (1n << 21n) | (1n << 30n),
  '16k': (1n << 14n) | (1n << 25n),
  '64k': (1n << 16n) | (1n << 29n) | (1n << 42n),
} as const;

const hiOf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn);
const loOf = (value: bigint): number => Number(value & 0xffff_ffffn);
const join = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** See the module comment. */
export class IoPageTable {
  readonly config: TableConfig;
  readonly format: TableFormat;
  readonly root: Pa;
  readonly #shape: TableShape;
  readonly #descriptors: Descriptors;
  readonly #kernel: Kernel;
  readonly #bus: Bus;
  readonly #tlb: TlbOps;
  readonly #tables = new Set<Pa>();
  readonly #name: string;

  /** @throws KernelError ENOMEM */
  constructor(kernel: Kernel, config: TableConfig, tlb: TlbOps) {
    this.config = config;
    this.#kernel = kernel;
    this.#bus = kernel.bus;
    this.#tlb = tlb;
    this.#shape = shapeOf(config);
    this.format = formatOf(config, this.#shape);
    this.#descriptors = descriptorsOf(config);
    this.#name = `s${config.stage}-table`;
    this.root = kernel.allocPages(this.#name, this.#shape.rootEntries << DESCRIPTOR_LOG2);
  }

  /** Tables besides the root. */
  get tables(): ReadonlySet<Pa> {
    return this.#tables;
  }

  #index(level: number, hi: number, lo: number): number {
    const shift = this.#shape.shift(level);
    const raw = shift >= 32 ? hi >>> (shift - 32) : ((lo >>> shift) | (hi << (32 - shift))) >>> 0;
    return raw & ((level === this.#shape.startLevel ? this.#shape.rootEntries : this.#shape.entries) - 1);
  }

  /** Level whose entries map `pgsize` bytes. @throws KernelError EINVAL */
  #levelOf(pgsize: bigint): number {
    if ((pgsize & this.config.pgsizeBitmap) !== pgsize || pgsize === 0n)
      throw new KernelError('EINVAL', `0x${pgsize.toString(16)} is not a page size of the table`);
    for (let level = this.#shape.startLevel; level <= 3; level++)
      if (1n << BigInt(this.#shape.shift(level)) === pgsize) return level;
    throw new KernelError('EINVAL', `0x${pgsize.toString(16)} is above the table's start level`);
  }

  #checkRange(iova: bigint, pa: Pa, bytes: bigint): void {
    if ((iova + bytes - 1n) >> BigInt(this.config.ias) !== 0n)
      throw new KernelError('ERANGE', `IOVA range ends beyond ${this.config.ias} bits`);
    if ((pa + bytes - 1n) >> BigInt(this.config.oas) !== 0n)
      throw new KernelError('ERANGE', `output range ends beyond ${this.config.oas} bits`);
  }

  /**
   * Maps `count` pages of `pgsize` bytes (`arm_lpae_map_pages`). Returns the bytes mapped.
   * @throws PartialMapError EEXIST (something is mapped there), ENOMEM, after the part it names
   * @throws KernelError EINVAL, ERANGE
   */
  mapPages(iova: bigint, pa: Pa, pgsize: bigint, count: number, prot: MapProt): bigint {
    if (!prot.read && !prot.write) throw new KernelError('EINVAL', 'a mapping needs read or write permission');
    const level = this.#levelOf(pgsize);
    if (((iova | pa) & (pgsize - 1n)) !== 0n) throw new KernelError('EINVAL', 'address is not aligned to the page');
    this.#checkRange(iova, pa, pgsize * BigInt(count));
    const bits = this.#descriptors.leafBits(level, prot);
    let left = count;
    let at = iova;
    let out = pa;
    try {
      while (left > 0) {
        const run = this.#mapRun(level, at, out, pgsize, left, bits);
        left -= run;
        at += BigInt(run) * pgsize;
        out += BigInt(run) * pgsize;
      }
    } catch (error) {
      if (error instanceof KernelError) throw new PartialMapError(error.errno, error.message, at - iova);
      throw error;
    } finally {
      // New entries before whatever starts a walk of them.
      this.#kernel.dmaWmb('pgtable:map');
    }
    return at - iova;
  }

  /** Maps as many pages as lie in one table. Returns their number. */
  #mapRun(level: number, iova: bigint, pa: Pa, pgsize: bigint, count: number, bits: LeafBits): number {
    const hi = hiOf(iova);
    const lo = loOf(iova);
    const table = this.#walkTo(level, hi, lo);
    const index = this.#index(level, hi, lo);
    const run = Math.min(count, this.#shape.entries - (index & (this.#shape.entries - 1)));
    const tableHi = hiOf(table);
    const first = (loOf(table) + (index << DESCRIPTOR_LOG2)) >>> 0;
    this.#clearWay(level, tableHi, first, run, iova, pgsize);
    let paHi = hiOf(pa);
    let paLo = loOf(pa);
    const stepHi = hiOf(pgsize);
    const stepLo = loOf(pgsize);
    for (let i = 0; i < run; i++) {
      const leaf = this.#descriptors.leaf(level, bits, paHi, paLo);
      this.#bus.storePair(tableHi, first + (i << DESCRIPTOR_LOG2), leaf.hi, leaf.lo);
      const sum = paLo + stepLo;
      paHi += stepHi + (sum > 0xffff_ffff ? 1 : 0);
      paLo = sum >>> 0;
    }
    return run;
  }

  /** Entries to be written hold nothing, or tables left empty by an earlier unmap (`arm_lpae_init_pte`). */
  #clearWay(level: number, tableHi: number, first: number, run: number, iova: bigint, pgsize: bigint): void {
    const tables: number[] = [];
    for (let i = 0; i < run; i++) {
      this.#bus.loadPair(tableHi, first + (i << DESCRIPTOR_LOG2));
      const { pairHi, pairLo } = this.#bus;
      if ((pairLo & this.#descriptors.valid) === 0) continue;
      if (this.#descriptors.isLeaf(pairLo, level)) throw new KernelError('EEXIST', 'the IOVA is mapped');
      const sub = this.#descriptors.address(pairHi, pairLo, level, false);
      if (this.#mapsAnything(join(sub.hi, sub.lo), level + 1))
        throw new KernelError('EEXIST', 'smaller pages are mapped where the block would be');
      tables.push(i);
    }
    for (const i of tables) {
      this.#bus.loadPair(tableHi, first + (i << DESCRIPTOR_LOG2));
      this.#dropTable(level, tableHi, first + (i << DESCRIPTOR_LOG2), iova + BigInt(i) * pgsize, pgsize);
    }
  }

  /** Whether a table or one below it has a leaf. Linux does not look: its callers never map twice. */
  #mapsAnything(table: Pa, level: number): boolean {
    for (let i = 0; i < this.#shape.entries; i++) {
      this.#bus.loadPair(hiOf(table), (loOf(table) + (i << DESCRIPTOR_LOG2)) >>> 0);
      const { pairHi, pairLo } = this.#bus;
      if ((pairLo & this.#descriptors.valid) === 0) continue;
      if (this.#descriptors.isLeaf(pairLo, level)) return true;
      const sub = this.#descriptors.address(pairHi, pairLo, level, false);
      if (this.#mapsAnything(join(sub.hi, sub.lo), level + 1)) return true;
    }
    return false;
  }

  /** Clears a table entry, has cached walks removed, then frees the table. The pair registers hold the entry. */
  #dropTable(level: number, entryHi: number, entryLo: number, iova: bigint, size: bigint): void {
    const sub = this.#descriptors.address(this.#bus.pairHi, this.#bus.pairLo, level, false);
    this.#bus.storePair(entryHi, entryLo, 0, 0);
    this.#tlb.flushWalk(iova, size, GRANULE_BYTES[this.config.granule]);
    this.#freeTable(join(sub.hi, sub.lo), level + 1);
  }

  #freeTable(table: Pa, level: number): void {
    if (level < 3) {
      for (let i = 0; i < this.#shape.entries; i++) {
        this.#bus.loadPair(hiOf(table), (loOf(table) + (i << DESCRIPTOR_LOG2)) >>> 0);
        const { pairHi, pairLo } = this.#bus;
        if ((pairLo & this.#descriptors.valid) === 0 || this.#descriptors.isLeaf(pairLo, level)) continue;
        const sub = this.#descriptors.address(pairHi, pairLo, level, false);
        this.#freeTable(join(sub.hi, sub.lo), level + 1);
      }
    }
    this.#tables.delete(table);
    this.#tlb.retire('page table', () => this.#kernel.freePages(this.#name, table));
  }

  /** The table of `level` that covers the address; made on the way where missing. @throws KernelError EEXIST, ENOMEM */
  #walkTo(target: number, hi: number, lo: number): Pa {
    let table = this.root;
    for (let level = this.#shape.startLevel; level < target; level++) {
      const tableHi = hiOf(table);
      const entry = (loOf(table) + (this.#index(level, hi, lo) << DESCRIPTOR_LOG2)) >>> 0;
      this.#bus.loadPair(tableHi, entry);
      const { pairHi, pairLo } = this.#bus;
      if ((pairLo & this.#descriptors.valid) === 0) table = this.#install(tableHi, entry);
      else if (this.#descriptors.isLeaf(pairLo, level)) throw new KernelError('EEXIST', 'the IOVA lies in a block');
      else {
        const next = this.#descriptors.address(pairHi, pairLo, level, false);
        table = join(next.hi, next.lo);
      }
    }
    return table;
  }

  #install(entryHi: number, entryLo: number): Pa {
    const table = this.#kernel.allocPages(this.#name, this.#shape.entries << DESCRIPTOR_LOG2);
    this.#tables.add(table);
    // The empty table before the entry that names it (`arm_lpae_install_table`).
    this.#kernel.dmaWmb('pgtable:table');
    const { hi, lo } = this.#descriptors.table(hiOf(table), loOf(table));
    this.#bus.storePair(entryHi, entryLo, hi, lo);
    return table;
  }

  /**
   * Clears `count` entries of `pgsize` bytes (`arm_lpae_unmap_pages`); stops at a hole. A table where a block is asked
   * for goes with all it maps. Returns the bytes unmapped.
   * @throws KernelError EINVAL for a size that is no page size
   */
  unmapPages(iova: bigint, pgsize: bigint, count: number, gather: IotlbGather): bigint {
    const level = this.#levelOf(pgsize);
    if ((iova & (pgsize - 1n)) !== 0n || (iova + pgsize * BigInt(count) - 1n) >> BigInt(this.config.ias) !== 0n)
      return 0n;
    let done = 0;
    while (done < count) {
      const run = this.#unmapRun(level, iova + BigInt(done) * pgsize, pgsize, count - done, gather);
      if (run === 0) break;
      done += run;
    }
    return BigInt(done) * pgsize;
  }

  #unmapRun(level: number, iova: bigint, pgsize: bigint, count: number, gather: IotlbGather): number {
    const hi = hiOf(iova);
    const lo = loOf(iova);
    const table = this.#find(level, hi, lo);
    if (table === undefined) return 0;
    const index = this.#index(level, hi, lo);
    const most = Math.min(count, this.#shape.entries - (index & (this.#shape.entries - 1)));
    const tableHi = hiOf(table);
    const first = (loOf(table) + (index << DESCRIPTOR_LOG2)) >>> 0;
    let run = 0;
    for (; run < most; run++) {
      const entry = first + (run << DESCRIPTOR_LOG2);
      this.#bus.loadPair(tableHi, entry);
      const low = this.#bus.pairLo;
      if ((low & this.#descriptors.valid) === 0) break;
      if (!this.#descriptors.isLeaf(low, level))
        this.#dropTable(level, tableHi, entry, iova + BigInt(run) * pgsize, pgsize);
    }
    for (let i = 0; i < run; i++) this.#bus.storePair(tableHi, first + (i << DESCRIPTOR_LOG2), 0, 0);
    if (gather.queued !== true && run > 0) this.#tlb.addPages(gather, iova, pgsize, run);
    return run;
  }

  /** The table of `level` that covers the address; undefined where there is none or a larger leaf. */
  #find(target: number, hi: number, lo: number): Pa | undefined {
    let table = this.root;
    for (let level = this.#shape.startLevel; level < target; level++) {
      this.#bus.loadPair(hiOf(table), (loOf(table) + (this.#index(level, hi, lo) << DESCRIPTOR_LOG2)) >>> 0);
      const { pairHi, pairLo } = this.#bus;
      if ((pairLo & this.#descriptors.valid) === 0 || this.#descriptors.isLeaf(pairLo, level)) return undefined;
      const next = this.#descriptors.address(pairHi, pairLo, level, false);
      table = join(next.hi, next.lo);
    }
    return table;
  }

  /** Where an address goes (`arm_lpae_iova_to_phys`). */
  iovaToPhys(iova: bigint): Pa | undefined {
    if (iova < 0n || iova >> BigInt(this.config.ias) !== 0n) return undefined;
    let table = this.root;
    for (let level = this.#shape.startLevel; level <= 3; level++) {
      const index = this.#index(level, hiOf(iova), loOf(iova));
      this.#bus.loadPair(hiOf(table), (loOf(table) + (index << DESCRIPTOR_LOG2)) >>> 0);
      const { pairHi, pairLo } = this.#bus;
      if ((pairLo & this.#descriptors.valid) === 0) return undefined;
      const leaf = this.#descriptors.isLeaf(pairLo, level);
      const next = this.#descriptors.address(pairHi, pairLo, level, leaf);
      table = join(next.hi, next.lo);
      if (leaf) return table | (iova & ((1n << BigInt(this.#shape.shift(level))) - 1n));
    }
    return undefined;
  }

  /**
   * Calls `dirty` for each written leaf in the range and makes it clean, unless told not to
   * (`arm_lpae_read_and_clear_dirty`). The leaf changes by compare and exchange: hardware may write it at any time.
   */
  readAndClearDirty(
    iova: bigint,
    length: bigint,
    noClear: boolean,
    dirty: (iova: bigint, length: bigint) => void,
  ): void {
    const end = iova + length;
    for (let at = iova; at < end; ) at = this.#visitDirty(at, noClear, dirty);
  }

  /** Returns the address after the entry that covers `iova`. */
  #visitDirty(iova: bigint, noClear: boolean, dirty: (iova: bigint, length: bigint) => void): bigint {
    let table = this.root;
    for (let level = this.#shape.startLevel; ; level++) {
      const entryHi = hiOf(table);
      const entryLo = (loOf(table) + (this.#index(level, hiOf(iova), loOf(iova)) << DESCRIPTOR_LOG2)) >>> 0;
      this.#bus.loadPair(entryHi, entryLo);
      const { pairHi, pairLo } = this.#bus;
      const size = 1n << BigInt(this.#shape.shift(level));
      const after = (iova & ~(size - 1n)) + size;
      if ((pairLo & this.#descriptors.valid) === 0) return after;
      if (this.#descriptors.isLeaf(pairLo, level)) {
        if (this.#isDirty(pairHi, pairLo)) {
          dirty(iova & ~(size - 1n), size);
          if (!noClear) this.#makeClean(entryHi, entryLo);
        }
        return after;
      }
      const next = this.#descriptors.address(pairHi, pairLo, level, false);
      table = join(next.hi, next.lo);
    }
  }

  #isDirty(hi: number, lo: number): boolean {
    const { dbm, readOnly } = this.#descriptors;
    return (hi & dbm.hi) !== 0 && (lo & readOnly.lo) === 0;
  }

  #makeClean(entryHi: number, entryLo: number): void {
    const { readOnly } = this.#descriptors;
    let { pairHi, pairLo } = this.#bus;
    while (!this.#bus.compareExchangePair(entryHi, entryLo, pairHi, pairLo, pairHi, (pairLo | readOnly.lo) >>> 0))
      ({ pairHi, pairLo } = this.#bus);
  }

  /** Frees all tables. Nothing walks them any more. */
  free(): void {
    for (const table of [...this.#tables, this.root])
      this.#tlb.retire('page table', () => this.#kernel.freePages(this.#name, table));
    this.#tables.clear();
  }
}
