/** Moving an area's pages into and out of domains, in the order and sizes in which the kernel does (pages.c). */
import { iommuMap, iommuUnmap } from '../driver/iommu/map.ts';
import type { IommuDomain } from '../driver/iommu/ops.ts';
import type { IoPageTable, IoptArea } from './io-pagetable.ts';
import type { Batch, IoptPages } from './pages.ts';
import { batchPages, contiguousAfter } from './pages.ts';
import { PAGE_BYTES, PAGE_SIZE } from './process.ts';

/** Unmaps the pages [first, last] of the area; a domain that unmaps anything else is broken. */
function unmapRange(domain: IommuDomain, area: IoptArea, pages: IoptPages, first: number, last: number): void {
  const iova = area.iovaOf(first);
  const size = area.lastIovaOf(last) - iova + 1n;
  const done = pages.unmapping(iova, size);
  const unmapped = iommuUnmap(domain, iova, size);
  if (unmapped !== size) throw new Error(`unmap of 0x${size.toString(16)} bytes removed 0x${unmapped.toString(16)}`);
  pages.unmapped(domain, first, last, done);
}

/** Unmaps a whole area in one call, leaving the pins to another domain. Kernel: iopt_area_unmap_domain(). */
export function unmapArea(domain: IommuDomain, area: IoptArea, pages: IoptPages): void {
  unmapRange(domain, area, pages, area.firstIndex, area.lastIndex);
}

/** Maps one batch; on an error nothing of it stays mapped. Kernel: batch_to_domain(). */
function mapBatch(table: IoPageTable, domain: IommuDomain, area: IoptArea, pages: IoptPages, batch: Batch): void {
  const start = area.iovaOf(batch.start);
  let iova = start;
  let offset = batch.start === area.firstIndex ? BigInt(area.pageOffset) : 0n;
  try {
    for (const run of batch.runs) {
      const room = area.last + 1n - iova;
      const bytes = BigInt(run.count * PAGE_BYTES) - offset;
      const size = bytes < room ? bytes : room;
      const pa = BigInt(run.pfn) * PAGE_SIZE + offset;
      if (!table.disableLargePages) iommuMap(domain, iova, pa, size, area.prot);
      else mapSmall(domain, area, iova, pa, size);
      iova += size;
      offset = 0n;
    }
  } catch (error) {
    if (iova !== start) iommuUnmap(domain, start, iova - start);
    // The run that failed may have been mapped in part, too.
    pages.unmapped(domain, batch.start, batch.start + batch.count - 1, () => {});
    throw error;
  }
}

/** Page by page, so that the area can be split later. Kernel: batch_iommu_map_small(). */
function mapSmall(domain: IommuDomain, area: IoptArea, iova: bigint, pa: bigint, size: bigint): void {
  for (let done = 0n; done < size; done += PAGE_SIZE) {
    try {
      iommuMap(domain, iova + done, pa + done, PAGE_SIZE, area.prot);
    } catch (error) {
      if (done > 0n) iommuUnmap(domain, iova, done);
      throw error;
    }
  }
}

/**
 * Unmaps the pages up to `lastIndex` and unpins those that nobody else holds. An unmap always ends where the physical
 * run ends, as the map did; what must stay pinned is unmapped but not unpinned. Kernel: __iopt_area_unfill_domain().
 */
function unfillPages(area: IoptArea, pages: IoptPages, domain: IommuDomain, lastIndex: number): void {
  let unmappedEnd = area.firstIndex;
  for (const span of pages.held(area.firstIndex, lastIndex)) {
    if (span.used) continue;
    for (let at = span.start; at <= span.last; ) {
      let batchLast = span.last;
      if (unmappedEnd <= span.last) {
        const from = Math.max(at, unmappedEnd);
        batchLast = from + batchPages(pages, from, span.last, from > at) - 1;
        let end = batchLast;
        if (batchLast === span.last && span.last !== lastIndex) end += contiguousAfter(pages, span.last, lastIndex);
        unmapRange(domain, area, pages, unmappedEnd, end);
        unmappedEnd = end + 1;
      }
      pages.unpin(at, batchLast);
      at = batchLast + 1;
    }
  }
  if (unmappedEnd !== lastIndex + 1) unmapRange(domain, area, pages, unmappedEnd, lastIndex);
}

/** Maps one area into a domain that is being added. Kernel: iopt_area_fill_domain(). */
function fillAreaIntoDomain(table: IoPageTable, area: IoptArea, pages: IoptPages, domain: IommuDomain): void {
  let done = area.firstIndex;
  try {
    for (const batch of pages.batches(area.firstIndex, area.lastIndex)) {
      mapBatch(table, domain, area, pages, batch);
      done = batch.start + batch.count;
    }
  } catch (error) {
    pages.unpinUnheld(done, area.lastIndex);
    if (done > area.firstIndex) unfillPages(area, pages, domain, done - 1);
    throw error;
  }
}

/** Maps all areas into a domain that is being added. Kernel: iopt_fill_domain(). */
export function fillDomain(table: IoPageTable, domain: IommuDomain): void {
  const filled: IoptArea[] = [];
  try {
    for (const area of table.areas) {
      const { pages } = area;
      if (pages === null) continue;
      fillAreaIntoDomain(table, area, pages, domain);
      filled.push(area);
      if (area.storageDomain === null) {
        area.storageDomain = domain;
        pages.stored.add(area);
      }
    }
  } catch (error) {
    for (const area of filled) {
      const { pages } = area;
      if (pages === null) continue;
      if (table.domains.size === 0) dropStorage(area, pages);
      unfillPages(area, pages, domain, area.lastIndex);
    }
    throw error;
  }
}

/** Empties a domain that has left the table's list. Kernel: iopt_unfill_domain(). */
export function unfillDomain(table: IoPageTable, domain: IommuDomain): void {
  const heir = table.domains.first;
  for (const area of table.areas) {
    const { pages } = area;
    if (pages === null) continue;
    if (heir !== undefined) {
      if (area.storageDomain === domain) area.storageDomain = heir;
      unmapArea(domain, area, pages);
    } else {
      dropStorage(area, pages);
      unfillPages(area, pages, domain, area.lastIndex);
    }
  }
}

/** Maps a new area into all domains, batch by batch. Kernel: iopt_area_fill_domains(). */
export function fillDomains(table: IoPageTable, area: IoptArea, pages: IoptPages): void {
  const storage = table.domains.first;
  if (storage === undefined) return;
  // Where each domain stands: everything below is mapped.
  const done = [...table.domains].map(() => area.firstIndex);
  try {
    for (const batch of pages.batches(area.firstIndex, area.lastIndex))
      for (const [i, domain] of [...table.domains].entries()) {
        mapBatch(table, domain, area, pages, batch);
        done[i] = batch.start + batch.count;
      }
  } catch (error) {
    undoFill(table, area, pages, done);
    throw error;
  }
  area.storageDomain = storage;
  pages.stored.add(area);
}

/** Every domain is unmapped before the last one unpins. */
function undoFill(table: IoPageTable, area: IoptArea, pages: IoptPages, done: readonly number[]): void {
  const all = Math.min(...done);
  pages.unpinUnheld(Math.max(...done), area.lastIndex);
  for (const [i, domain] of [...table.domains].entries()) {
    const end = done[i] ?? area.firstIndex;
    const last = i === table.domains.size - 1;
    if (last && all > area.firstIndex) unfillPages(area, pages, domain, all - 1);
    else if (!last && end > area.firstIndex) unmapRange(domain, area, pages, area.firstIndex, end - 1);
  }
  pages.unpinUnheld(area.firstIndex, area.lastIndex);
}

/** Takes an area out of all domains, the one that stores the pins last. Kernel: iopt_area_unfill_domains(). */
export function unfillDomains(table: IoPageTable, area: IoptArea, pages: IoptPages): void {
  const storage = area.storageDomain;
  if (storage === null) return;
  for (const domain of table.domains) if (domain !== storage) unmapArea(domain, area, pages);
  dropStorage(area, pages);
  unfillPages(area, pages, storage, area.lastIndex);
}

function dropStorage(area: IoptArea, pages: IoptPages): void {
  pages.stored.delete(area);
  area.storageDomain = null;
}
