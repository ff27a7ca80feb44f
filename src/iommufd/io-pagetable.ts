/** IOVA space of an IOAS: areas, allowed and reserved ranges, automatic placement (iommufd's io_pagetable.c). */
import type { Device, IommuDomain, MapProt } from '../driver/iommu/ops.ts';
import type { Kernel, Lock } from '../driver/kernel.ts';
import { DomainList } from './domain-list.ts';
import { fail } from './errors.ts';
import { DisjointIntervals, type Interval, spans } from './intervals.ts';
import { fillDomain, fillDomains, unfillDomain, unfillDomains } from './io-pagetable-fill.ts';
import type { IoptPages, StoredRange } from './pages.ts';
import { PAGE_BYTES, PAGE_SIZE } from './process.ts';
import { ReservedRanges } from './reserved.ts';

/** ULONG_MAX: the last IOVA there can be. */
export const IOVA_LAST = 0xffff_ffff_ffff_ffffn;

/** One mapping: IOVAs [start, last] show a slice of `pages` (struct iopt_area). */
export class IoptArea implements Interval<bigint>, StoredRange {
  readonly start: bigint;
  readonly last: bigint;
  readonly pageOffset: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly prot: MapProt;
  /** Null while the area is set up or torn down. */
  pages: IoptPages | null = null;
  /** The domain that stands for the pins; null: no domain maps the area. */
  storageDomain: IommuDomain | null = null;
  numAccesses = 0;
  /** Locked by HW_QUEUEs. */
  numLocks = 0;
  /** An unmap is under way: no new access. */
  preventAccess = false;

  constructor(iova: bigint, length: bigint, startByte: bigint, prot: MapProt) {
    this.start = iova;
    this.last = iova + length - 1n;
    this.pageOffset = Number(startByte % PAGE_SIZE);
    this.firstIndex = Number(startByte / PAGE_SIZE);
    this.lastIndex = Number((startByte + length - 1n) / PAGE_SIZE);
    this.prot = prot;
  }

  get length(): bigint {
    return this.last - this.start + 1n;
  }

  /** Bytes from the start of the pages to `iova`. */
  startByte(iova: bigint): bigint {
    return iova - this.start + BigInt(this.pageOffset) + BigInt(this.firstIndex) * PAGE_SIZE;
  }

  /** IOVA of the first byte that page `index` shows in this area. */
  iovaOf(index: number): bigint {
    if (index === this.firstIndex) return this.start;
    return this.start - BigInt(this.pageOffset) + BigInt((index - this.firstIndex) * PAGE_BYTES);
  }

  /** IOVA of the last byte that page `index` shows in this area. */
  lastIovaOf(index: number): bigint {
    return index === this.lastIndex ? this.last : this.iovaOf(index + 1) - 1n;
  }

  /** Page index of an IOVA. */
  indexOf(iova: bigint): number {
    return Number(this.startByte(iova) / PAGE_SIZE);
  }
}

/** Someone who pins pages of the IOAS or wants to hear of unmaps. */
export interface TableAccess {
  readonly iovaAlignment: bigint;
  /** Told of an unmap; must drop its pins of the range. */
  unmap(iova: bigint, length: bigint): void;
}

/** A piece of pages that one MAP or COPY turns into an area. */
export interface PagesPiece {
  readonly pages: IoptPages;
  readonly startByte: bigint;
  readonly length: bigint;
}

const lowestBit = (n: bigint): bigint => n & -n;

/** The next power of two at or above `n`. */
const roundUpPow2 = (n: bigint): bigint => 1n << BigInt((n - 1n).toString(2).length * (n > 1n ? 1 : 0));

/** See the module comment (struct io_pagetable). */
export class IoPageTable {
  readonly kernel: Kernel;
  readonly areas = new DisjointIntervals<bigint, IoptArea>();
  /** Domains kept in step; the first one stores the pins of new areas. */
  readonly domains = new DomainList();
  readonly accesses = new Set<TableAccess>();
  iovaAlignment = 1n;
  disableLargePages = false;
  /** Most alignment that automatic placement keeps: the page or huge-page size. */
  readonly maxAutoAlignment: bigint;
  #allowed = new DisjointIntervals<bigint, Interval<bigint>>();
  readonly #reserved = new ReservedRanges();
  readonly #iovaLock: Lock;
  readonly #domainsLock: Lock;
  #domainReaders = 0;

  constructor(kernel: Kernel, maxAutoAlignment: bigint) {
    this.kernel = kernel;
    this.maxAutoAlignment = maxAutoAlignment;
    this.#iovaLock = kernel.lock('iommufd:iova');
    this.#domainsLock = kernel.lock('iommufd:domains');
  }

  /** Runs `body` while no area can come or go (iova_rwsem). */
  locked<T>(body: () => T): T {
    return this.kernel.withLock(this.#iovaLock, body);
  }

  /** Runs `body`, as others may, while no domain can come or go (domains_rwsem, held for reading). */
  #whileDomainsStay<T>(body: () => T): T {
    this.kernel.withLock(this.#domainsLock, () => {
      this.#domainReaders++;
    });
    try {
      return body();
    } finally {
      this.#domainReaders--;
    }
  }

  /** Runs `body`, which adds or removes a domain, alone (domains_rwsem, held for writing). */
  #changingDomains<T>(body: () => T): T {
    return this.kernel.withLock(this.#domainsLock, () => {
      // One CPU: the reader is an outer call, which will not end before this one.
      if (this.#domainReaders > 0) throw new Error('deadlock: iommufd:domains is held for reading');
      return body();
    });
  }

  /** What may be mapped: the complement of the reserved ranges. */
  usable(): Interval<bigint>[] {
    return spans(this.#reserved.ranges, 0n, IOVA_LAST, 1n).filter((span) => !span.used);
  }

  /** Kernel: iopt_set_allow_iova(). @throws KernelError EADDRINUSE; the old list is kept */
  setAllowed(allowed: DisjointIntervals<bigint, Interval<bigint>>): void {
    this.kernel.withLock(this.#iovaLock, () => {
      for (const range of allowed)
        if (this.#reserved.meets(range.start, range.last))
          fail('EADDRINUSE', `allowed range ${hex(range)} meets a reserved one`);
      this.#allowed = allowed;
    });
  }

  /** Kernel: iopt_reserve_iova(). @throws KernelError EADDRINUSE, ENOMEM */
  #reserve(start: bigint, last: bigint, owner: object): void {
    if (this.areas.first(start, last) !== undefined)
      fail('EADDRINUSE', `${hex({ start, last })} is reserved and holds a mapping`);
    if (this.#allowed.first(start, last) !== undefined)
      fail('EADDRINUSE', `${hex({ start, last })} is reserved and meets an allowed range`);
    this.kernel.alloc('iommufd:reserved');
    this.#reserved.add(start, last, owner);
  }

  /** Kernel: iopt_remove_reserved_iova(). */
  removeReserved(owner: object): void {
    this.#reserved.removeOwner(owner);
  }

  /** Kernel: iopt_table_enforce_dev_resv_regions(). @throws KernelError EADDRINUSE, ENOMEM */
  enforceDevResvRegions(dev: Device): void {
    this.kernel.withLock(this.#iovaLock, () => {
      try {
        for (const region of dev.iommu.ops.getResvRegions(dev))
          if (region.type !== 'direct-relaxable') this.#reserve(region.start, region.start + region.length - 1n, dev);
      } catch (error) {
        this.removeReserved(dev);
        throw error;
      }
    });
  }

  /** The lowest place for `length` bytes whose source is `address`. Kernel: iopt_alloc_iova(). */
  #allocIova(address: bigint, length: bigint): bigint {
    if (length >= IOVA_LAST / 2n) fail('EOVERFLOW', `length 0x${length.toString(16)} is too large to be placed`);
    const size = roundUpPow2(length);
    const natural = address === 0n || lowestBit(address) > size ? size : lowestBit(address);
    const alignment = natural < this.maxAutoAlignment ? natural : this.maxAutoAlignment;
    if (alignment < this.iovaAlignment)
      fail('EINVAL', `source and length are aligned to 0x${alignment.toString(16)} only`);
    const placeIn = (start: bigint, last: bigint): bigint | undefined => {
      const aligned = ((start + alignment - 1n) & ~(alignment - 1n)) | (address % PAGE_SIZE);
      return aligned < last && last - aligned >= length - 1n ? aligned : undefined;
    };
    const [low, high] = [PAGE_SIZE, IOVA_LAST - PAGE_SIZE];
    const allowed = spans([...this.#allowed], low, high, 1n).filter((span) => span.used);
    for (const window of this.#allowed.size === 0 ? [{ start: low, last: high }] : allowed) {
      const start = placeIn(window.start, window.last);
      if (start === undefined) continue;
      for (const hole of this.#holes(start, window.last)) {
        const iova = placeIn(hole.start, hole.last);
        if (iova !== undefined) return iova;
      }
    }
    return fail('ENOSPC', `no hole of 0x${length.toString(16)} bytes`);
  }

  #holes(start: bigint, last: bigint): Interval<bigint>[] {
    const used = [...this.#reserved.ranges, ...this.areas.meeting(start, last)];
    return spans(used, start, last, 1n).filter((span) => !span.used);
  }

  /** Kernel: iopt_check_iova(). @throws KernelError EINVAL, EOVERFLOW, EEXIST */
  #checkIova(iova: bigint, length: bigint): void {
    if ((iova & (this.iovaAlignment - 1n)) !== 0n)
      fail('EINVAL', `IOVA 0x${iova.toString(16)} is not aligned to 0x${this.iovaAlignment.toString(16)}`);
    const last = iova + length - 1n;
    if (last > IOVA_LAST) fail('EOVERFLOW', 'IOVA and length overflow');
    if (this.#reserved.meets(iova, last)) fail('EINVAL', `${hex({ start: iova, last })} meets a reserved range`);
    if (this.areas.first(iova, last) !== undefined) fail('EEXIST', `${hex({ start: iova, last })} is mapped already`);
  }

  /** Kernel: iopt_insert_area(). @throws KernelError EPERM, EINVAL, EOVERFLOW */
  #insertArea(piece: PagesPiece, iova: bigint, prot: MapProt): IoptArea {
    if (prot.write && !piece.pages.writable) fail('EPERM', 'the pages were mapped without WRITEABLE');
    const area = new IoptArea(iova, piece.length, piece.startByte, prot);
    if ((BigInt(area.pageOffset) & (this.iovaAlignment - 1n)) !== 0n)
      fail('EINVAL', `the source's offset in its page is not aligned to 0x${this.iovaAlignment.toString(16)}`);
    if (area.last > IOVA_LAST) fail('EOVERFLOW', 'IOVA and length overflow');
    this.areas.insert(area);
    return area;
  }

  /**
   * Turns the pieces into areas that lie one behind the other. Kernel: iopt_map_pages().
   * @param iova where to map; undefined: at the lowest hole that fits
   * @returns the IOVA of the first
   * @throws KernelError EINVAL, EOVERFLOW, EEXIST, ENOSPC, EPERM, EFAULT, ENOMEM; nothing of it remains
   */
  map(pieces: readonly PagesPiece[], length: bigint, iova: bigint | undefined, prot: MapProt): bigint {
    const made: IoptArea[] = [];
    try {
      const start = this.#allocAreas(pieces, length, iova, prot, made);
      this.#whileDomainsStay(() => this.#fillAreas(pieces, made));
      return start;
    } catch (error) {
      for (const area of made) this.areas.remove(area);
      throw error;
    }
  }

  #allocAreas(
    pieces: readonly PagesPiece[],
    length: bigint,
    iova: bigint | undefined,
    prot: MapProt,
    made: IoptArea[],
  ): bigint {
    for (const _ of pieces) this.kernel.alloc('iommufd:area');
    return this.kernel.withLock(this.#iovaLock, () => {
      if ((length & (this.iovaAlignment - 1n)) !== 0n || length === 0n)
        fail('EINVAL', `length 0x${length.toString(16)} is not a multiple of 0x${this.iovaAlignment.toString(16)}`);
      if (iova !== undefined) this.#checkIova(iova, length);
      const start = iova ?? this.#allocIova(sourceAddress(pieces), length);
      let at = start;
      for (const piece of pieces) {
        made.push(this.#insertArea(piece, at, prot));
        at += piece.length;
      }
      return start;
    });
  }

  #fillAreas(pieces: readonly PagesPiece[], areas: readonly IoptArea[]): void {
    const done: [IoptArea, IoptPages][] = [];
    try {
      for (const [i, area] of areas.entries()) {
        const pages = pieces[i]?.pages;
        if (pages === undefined) continue;
        fillDomains(this, area, pages);
        done.push([area, pages]);
      }
    } catch (error) {
      for (const [area, pages] of done) unfillDomains(this, area, pages);
      throw error;
    }
    for (const [area, pages] of done) {
      area.pages = pages;
      pages.refs++;
    }
  }

  /**
   * The pages behind [iova, iova + length), which may span several adjacent areas. The caller puts each piece's pages.
   * Kernel: iopt_get_pages(). @throws KernelError EINVAL, EOVERFLOW, ENOENT, ENOMEM
   */
  getPages(iova: bigint, length: bigint): PagesPiece[] {
    if (length === 0n) fail('EINVAL', 'length is 0');
    const last = iova + length - 1n;
    if (last > IOVA_LAST) fail('EOVERFLOW', 'source IOVA and length overflow');
    return this.locked(() => {
      const pieces: PagesPiece[] = [];
      for (const { area, pages, first, end } of this.contiguous(iova, last)) {
        this.kernel.alloc('iommufd:pages-list');
        pieces.push({ pages, startByte: area.startByte(first), length: end - first + 1n });
      }
      for (const { pages } of pieces) pages.refs++;
      return pieces;
    });
  }

  /**
   * The areas of [iova, last] without a hole between them, each with the part that is asked for.
   * @throws KernelError ENOENT if something of the range is not mapped (after what comes before it)
   */
  *contiguous(iova: bigint, last: bigint): Generator<{ area: IoptArea; pages: IoptPages; first: bigint; end: bigint }> {
    for (let at = iova; ; ) {
      const area = this.areas.first(at, at);
      if (area === undefined || area.pages === null) fail('ENOENT', `IOVA 0x${at.toString(16)} is not mapped`);
      const end = area.last < last ? area.last : last;
      yield { area, pages: area.pages, first: at, end };
      if (end === last) return;
      at = end + 1n;
    }
  }

  /**
   * Removes all areas that lie in [start, last], ascending, until one forbids it. Kernel: iopt_unmap_iova_range().
   * @returns bytes unmapped; 0 if there was nothing
   * @throws KernelError EBUSY, ENOENT (an area lies only partly inside), EDEADLOCK; areas below are gone by then
   */
  unmap(start: bigint, last: bigint): bigint {
    for (let bytes = 0n; ; ) {
      const step = this.#whileDomainsStay(() => this.#unmapFirst(start, last));
      if (step === undefined) return bytes;
      if (typeof step === 'bigint') bytes += step;
      else this.#notifyUnmap(step);
    }
  }

  /** Unmaps the lowest area of a range. @returns its bytes, the area if accesses pin it, undefined if there is none */
  #unmapFirst(start: bigint, last: bigint): bigint | IoptArea | undefined {
    const found = this.locked(() => {
      const area = this.areas.first(start, last);
      if (area === undefined) return undefined;
      const { pages } = area;
      if (pages === null) fail('EBUSY', `${hex(area)} is being mapped or unmapped`);
      if (area.numLocks > 0) fail('EBUSY', `${hex(area)} is locked by a HW_QUEUE`);
      if (area.start < start || area.last > last) fail('ENOENT', `${hex(area)} lies only partly in the range`);
      if (area.numAccesses > 0) return { area, pages: null };
      area.pages = null;
      return { area, pages };
    });
    if (found === undefined) return undefined;
    const { area, pages } = found;
    if (pages === null) return area;
    unfillDomains(this, area, pages);
    this.locked(() => this.areas.remove(area));
    pages.put();
    return area.length;
  }

  #notifyUnmap(area: IoptArea): void {
    area.preventAccess = true;
    for (const access of this.accesses) access.unmap(area.start, area.length);
    if (area.numAccesses > 0) {
      this.kernel.log('warn', `iommufd: an access keeps its pins of ${hex(area)}`);
      fail('EDEADLOCK', `an access keeps its pins of ${hex(area)}`);
    }
  }

  /** Every area meets a larger alignment. @throws KernelError EADDRINUSE */
  #checkAlignment(alignment: bigint): void {
    const mask = alignment - 1n;
    for (const area of this.areas)
      if (((area.start | area.length | BigInt(area.pageOffset)) & mask) !== 0n)
        fail('EADDRINUSE', `${hex(area)} is not aligned to 0x${alignment.toString(16)}`);
  }

  /** Kernel: iopt_calculate_iova_alignment(). @throws KernelError EADDRINUSE */
  #calculateAlignment(): void {
    let alignment = this.disableLargePages ? PAGE_SIZE : 1n;
    alignment = max(alignment, this.domains.alignment);
    for (const access of this.accesses) alignment = max(alignment, access.iovaAlignment);
    if (alignment > this.iovaAlignment) this.#checkAlignment(alignment);
    this.iovaAlignment = alignment;
  }

  /**
   * Fills a domain with all areas and keeps it in step from now on. Kernel: iopt_table_add_domain().
   * @throws KernelError EINVAL, EADDRINUSE, EFAULT, ENOMEM; the domain is then empty
   */
  addDomain(domain: IommuDomain): void {
    const alignment = max(DomainList.pageSize(domain), this.iovaAlignment);
    if (alignment > PAGE_SIZE) fail('EINVAL', 'the domain cannot map single pages of this kernel');
    this.#changingDomains(() =>
      this.kernel.withLock(this.#iovaLock, () => {
        if (alignment !== this.iovaAlignment) this.#checkAlignment(alignment);
        try {
          const { start, end } = domain.aperture;
          if (start !== 0n) this.#reserve(0n, start - 1n, domain);
          if (end !== IOVA_LAST) this.#reserve(end + 1n, IOVA_LAST, domain);
          this.kernel.alloc('iommufd:domains');
          fillDomain(this, domain);
        } catch (error) {
          this.removeReserved(domain);
          throw error;
        }
        this.iovaAlignment = alignment;
        this.domains.add(domain);
      }),
    );
  }

  /** Empties a domain and lets it go. Kernel: iopt_table_remove_domain(). */
  removeDomain(domain: IommuDomain): void {
    this.#changingDomains(() => {
      this.domains.remove(domain);
      unfillDomain(this, domain);
      this.removeReserved(domain);
      this.#calculateAlignment();
    });
  }

  /** Kernel: iopt_add_access(). @throws KernelError EADDRINUSE, ENOMEM */
  addAccess(access: TableAccess): void {
    this.kernel.alloc('iommufd:access-list');
    this.accesses.add(access);
    try {
      this.#calculateAlignment();
    } catch (error) {
      this.accesses.delete(access);
      throw error;
    }
  }

  /** Kernel: iopt_remove_access(). */
  removeAccess(access: TableAccess): void {
    this.accesses.delete(access);
    this.#calculateAlignment();
  }

  /** Kernel: iopt_enable_large_pages(). */
  enableLargePages(): void {
    this.disableLargePages = false;
    this.#calculateAlignment();
  }

  /** Kernel: iopt_disable_large_pages(). @throws KernelError EINVAL, EADDRINUSE */
  setDisableLargePages(): void {
    if (this.disableLargePages) return;
    if (this.domains.size > 0 && this.areas.size > 0)
      fail('EINVAL', 'a domain already maps areas, perhaps with huge pages');
    this.disableLargePages = true;
    try {
      this.#calculateAlignment();
    } catch (error) {
      this.disableLargePages = false;
      throw error;
    }
  }
}

/** Where the source of the first piece lies: its low bits decide the alignment of an automatic IOVA. */
function sourceAddress(pieces: readonly PagesPiece[]): bigint {
  const [first] = pieces;
  if (first === undefined) return 0n;
  const { source } = first.pages;
  return (source.kind === 'user' ? source.va : source.start) + first.startByte;
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);

/** A range for messages. */
export const hex = (range: Interval<bigint>): string => `[0x${range.start.toString(16)}, 0x${range.last.toString(16)}]`;
