/**
 * Mapping and unmapping ranges: splitting them into pages and blocks, rolling a failed map back, and gathering the TLB
 * invalidations that an unmap owes (iommu_map, iommu_unmap, struct iommu_iotlb_gather).
 */
import type { Pa } from '../../hw/bus.ts';
import type { Errno } from '../kernel.ts';
import { KernelError } from '../kernel.ts';
import type { DomainType, IommuDomain, IotlbGather, MapProt } from './ops.ts';

/** A failed `mapPages` that left the first `mapped` bytes of its range mapped. */
export class PartialMapError extends KernelError {
  override readonly name = 'PartialMapError';
  readonly mapped: bigint;
  constructor(errno: Errno, why: string, mapped: bigint) {
    super(errno, why);
    this.mapped = mapped;
  }
}

/** A run of equal pages: `count` times `pgsize` bytes. */
export interface PageRun {
  readonly pgsize: bigint;
  readonly count: number;
}

const PAGING: ReadonlySet<DomainType> = new Set<DomainType>(['paging', 'dma', 'dma-fq']);

/** Whether a domain has a page table of the core's (`__IOMMU_DOMAIN_PAGING`). */
export function isPagingDomain(domain: IommuDomain): boolean {
  return PAGING.has(domain.type);
}

const sizesOfBitmap = new Map<bigint, readonly bigint[]>();

/** The page sizes of a bit map, ascending, in bytes. */
export function pageSizes(bitmap: bigint): readonly bigint[] {
  let sizes = sizesOfBitmap.get(bitmap);
  if (sizes === undefined) {
    const found: bigint[] = [];
    for (let rest = bitmap; rest > 0n; rest &= rest - 1n) found.push(rest & -rest);
    sizes = found;
    sizesOfBitmap.set(bitmap, sizes);
  }
  return sizes;
}

/**
 * The next run of a range of `size` bytes: the largest page that length and alignment of `iova` and `pa` allow, and as
 * many of them as come before a larger page is possible. Kernel: iommu_pgsize().
 * @throws KernelError EINVAL if not even the smallest page fits
 */
export function nextPageRun(sizes: readonly bigint[], iova: bigint, pa: Pa, size: bigint): PageRun {
  const merged = iova | pa;
  let pick = -1;
  for (const [i, candidate] of sizes.entries()) {
    if (candidate > size || (merged & (candidate - 1n)) !== 0n) break;
    pick = i;
  }
  const pgsize = sizes[pick];
  if (pgsize === undefined) throw new KernelError('EINVAL', 'no page size fits the range');
  const bigger = sizes[pick + 1];
  let span = size;
  // A larger page needs both addresses at the same offset in it, and room for one whole page behind the boundary.
  if (bigger !== undefined && ((iova ^ pa) & (bigger - 1n)) === 0n) {
    const toBoundary = bigger - (merged & (bigger - 1n));
    if (toBoundary + bigger <= size) span = toBoundary;
  }
  return { pgsize, count: Number(span / pgsize) };
}

/**
 * Maps [iova, iova + size) to [pa, pa + size). On an error nothing of it stays mapped. Kernel: iommu_map().
 * @throws KernelError EINVAL (not a paging domain; not aligned to the smallest page), ENODEV (no page table
 * operations), the driver's errors
 */
export function iommuMap(domain: IommuDomain, iova: bigint, pa: Pa, size: bigint, prot: MapProt): void {
  if (!isPagingDomain(domain)) throw new KernelError('EINVAL', `a ${domain.type} domain has no page table`);
  const sizes = pageSizes(domain.pgsizeBitmap);
  const smallest = sizes[0];
  if (domain.ops.mapPages === undefined || smallest === undefined) {
    throw new KernelError('ENODEV', 'the domain cannot map');
  }
  if (((iova | pa | size) & (smallest - 1n)) !== 0n) {
    throw new KernelError('EINVAL', `address or size is not a multiple of the smallest page, ${smallest} bytes`);
  }
  let done = 0n;
  try {
    while (done < size) {
      const { pgsize, count } = nextPageRun(sizes, iova + done, pa + done, size - done);
      const mapped = domain.ops.mapPages(domain, iova + done, pa + done, pgsize, count, prot);
      if (mapped <= 0n) throw new Error('mapPages mapped nothing and gave no error: a bug of the driver');
      done += mapped;
    }
  } catch (error) {
    if (error instanceof PartialMapError) done += error.mapped;
    if (done > 0n) iommuUnmap(domain, iova, done);
    throw error;
  }
}

/**
 * Unmaps [iova, iova + size) and waits for the invalidation. Returns the bytes unmapped: less than `size` if it met a
 * hole, more if the last leaf was larger. Kernel: iommu_unmap().
 */
export function iommuUnmap(domain: IommuDomain, iova: bigint, size: bigint): bigint {
  const gather = newGather();
  try {
    return iommuUnmapFast(domain, iova, size, gather);
  } finally {
    iotlbSync(domain, gather);
  }
}

/**
 * Unmaps without the final invalidation: the caller owes {@link iotlbSync} with the same gather.
 * Kernel: iommu_unmap_fast(). Returns the bytes unmapped; 0 also for a range that is not aligned.
 */
export function iommuUnmapFast(domain: IommuDomain, iova: bigint, size: bigint, gather: IotlbGather): bigint {
  const sizes = pageSizes(domain.pgsizeBitmap);
  const smallest = sizes[0];
  if (!isPagingDomain(domain) || domain.ops.unmapPages === undefined || smallest === undefined) return 0n;
  if (((iova | size) & (smallest - 1n)) !== 0n) return 0n;
  let done = 0n;
  while (done < size) {
    const { pgsize, count } = nextPageRun(sizes, iova + done, iova + done, size - done);
    const unmapped = domain.ops.unmapPages(domain, iova + done, pgsize, count, gather);
    if (unmapped <= 0n) break;
    done += unmapped;
  }
  return done;
}

/** Where `iova` goes (`iommu_iova_to_phys`); undefined where nothing is mapped. */
export function iovaToPhys(domain: IommuDomain, iova: bigint): Pa | undefined {
  if (domain.type === 'identity') return iova;
  if (domain.type === 'blocked') return undefined;
  return domain.ops.iovaToPhys?.(domain, iova);
}

/** An empty gather (`iommu_iotlb_gather_init`); `queued`: the driver gathers nothing, a flush queue does it later. */
export function newGather(queued = false): IotlbGather {
  return { start: 0n, end: 0n, pgsize: 0n, empty: true, queued };
}

/** Extends the gather by a range (`iommu_iotlb_gather_add_range`). */
export function iotlbGatherAddRange(gather: IotlbGather, iova: bigint, size: bigint): void {
  const end = iova + size - 1n;
  if (gather.empty || iova < gather.start) gather.start = iova;
  if (gather.empty || end > gather.end) gather.end = end;
  gather.empty = false;
}

/**
 * Extends the gather by one page of `size` bytes, or by `count` of them one after the other. One of another size, or
 * neither overlapping nor next to what is gathered, has the driver invalidate that first.
 * Kernel: iommu_iotlb_gather_add_page().
 */
export function iotlbGatherAddPage(
  domain: IommuDomain,
  gather: IotlbGather,
  iova: bigint,
  size: bigint,
  count = 1,
): void {
  const disjoint = !gather.empty && (iova + size < gather.start || iova > gather.end + 1n);
  if ((gather.pgsize !== 0n && gather.pgsize !== size) || disjoint) iotlbSync(domain, gather);
  gather.pgsize = size;
  iotlbGatherAddRange(gather, iova, size * BigInt(count));
}

/** Has the driver invalidate what is gathered, and empties it. Kernel: iommu_iotlb_sync(). */
export function iotlbSync(domain: IommuDomain, gather: IotlbGather): void {
  if (!gather.empty) domain.ops.iotlbSync?.(domain, gather);
  gather.start = 0n;
  gather.end = 0n;
  gather.pgsize = 0n;
  gather.empty = true;
}

/** Has the driver invalidate all of the domain. Kernel: iommu_flush_iotlb_all(). */
export function flushIotlbAll(domain: IommuDomain): void {
  domain.ops.flushIotlbAll?.(domain);
}
