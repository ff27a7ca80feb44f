/** Hardware pages that a vIOMMU's driver offers to user space for mmap (iommufd_fops_mmap and its helpers). */

import type { Kernel } from '../driver/kernel.ts';
import type { Pa } from '../hw/bus.ts';
import { fail } from './errors.ts';
import { DisjointIntervals, type Interval, spans } from './intervals.ts';
import type { IommufdObject } from './object.ts';
import type { IommufdParts } from './parts.ts';
import { PAGE_SIZE } from './process.ts';

/** One mappable range: offsets [start, last] of the iommufd file show physical pages from `pa` on. */
interface Region extends Interval<bigint> {
  readonly owner: IommufdObject;
  readonly pa: Pa;
}

/** Offsets end where a loff_t does. */
const OFFSET_LAST = 0x7fff_ffff_ffff_ffffn;

/** How user space maps (the arguments of mmap that count). */
export interface MmapRequest {
  readonly offset: bigint;
  readonly length: bigint;
  /** MAP_SHARED. Default true. */
  readonly shared?: boolean;
  /** PROT_EXEC. Default false. */
  readonly exec?: boolean;
}

/** A mapping in a process: device memory, written through, not cached. Each copy (fork) holds the owner. */
export class Vma {
  readonly pa: Pa;
  readonly length: bigint;
  #open = 1;
  readonly #owner: IommufdObject;
  readonly #hold: IommufdParts['mmapHold'];
  readonly #put: () => void;

  constructor(pa: Pa, length: bigint, owner: IommufdObject, hold: IommufdParts['mmapHold'], put: () => void) {
    this.pa = pa;
    this.length = length;
    this.#owner = owner;
    this.#hold = hold;
    this.#put = put;
  }

  /** Id of the object whose pages it shows: an offset that is kept for too long may lead to another one's. */
  get ownerId(): number {
    return this.#owner.id;
  }

  /** Copies that exist. */
  get copies(): number {
    return this.#open;
  }

  /** A copy by fork. */
  fork(): void {
    this.#owner.use('mmap');
    this.#hold.get(this.#owner);
    this.#open++;
  }

  /** munmap of one copy. */
  close(): void {
    if (this.#open === 0) throw new Error('the mapping is gone');
    this.#open--;
    this.#hold.put(this.#owner);
    if (this.#open === 0) this.#put();
  }
}

/** The offset space of one context. */
export class MmapSpace {
  readonly #kernel: Kernel;
  readonly #hold: IommufdParts['mmapHold'];
  readonly #regions = new DisjointIntervals<bigint, Region>();

  constructor(kernel: Kernel, { mmapHold }: IommufdParts) {
    this.#kernel = kernel;
    this.#hold = mmapHold;
  }

  get size(): number {
    return this.#regions.size;
  }

  /** Offers `length` bytes at `pa`; the lowest free offset. Kernel: iommufd_viommu_alloc_mmap(). @throws KernelError EINVAL, ENOMEM */
  alloc(owner: IommufdObject, pa: Pa, length: bigint): bigint {
    if (length === 0n || ((pa | length) & (PAGE_SIZE - 1n)) !== 0n)
      fail('EINVAL', `mmap region 0x${pa.toString(16)}+0x${length.toString(16)} is empty or not page aligned`);
    this.#kernel.alloc('iommufd:mmap');
    const holes = spans([...this.#regions], PAGE_SIZE, OFFSET_LAST, 1n);
    const hole = holes.find((span) => !span.used && span.last - span.start >= length - 1n);
    if (hole === undefined) fail('ENOMEM', 'no offsets left');
    this.#regions.insert({ start: hole.start, last: hole.start + length - 1n, owner, pa });
    return hole.start;
  }

  /** Takes a region back. Kernel: iommufd_viommu_destroy_mmap(). @throws Error for an unknown offset: a bug of the driver */
  destroy(owner: IommufdObject, offset: bigint): void {
    const region = this.#regions.first(offset, offset);
    if (region?.start !== offset || region.owner !== owner)
      throw new Error(`no mmap region at 0x${offset.toString(16)}`);
    this.#regions.remove(region);
  }

  /** Maps exactly one region. Kernel: iommufd_fops_mmap(). @throws KernelError EINVAL, EPERM, ENXIO */
  map(request: MmapRequest, get: () => void, put: () => void): Vma {
    const { offset, length } = request;
    if (length === 0n || (length & (PAGE_SIZE - 1n)) !== 0n)
      fail('EINVAL', 'length is not a multiple of the page size');
    if (request.shared === false) fail('EINVAL', 'the mapping must be MAP_SHARED');
    if (request.exec === true) fail('EPERM', 'the mapping must not be executable');
    const region = this.#regions.first(offset, offset);
    if (region === undefined || region.owner.users === 0) fail('ENXIO', `no region at offset 0x${offset.toString(16)}`);
    if (region.start !== offset || region.last !== offset + length - 1n)
      fail('ENXIO', 'offset and length are not exactly those of a region');
    this.#hold.get(region.owner);
    get();
    return new Vma(region.pa, length, region.owner, this.#hold, put);
  }
}
