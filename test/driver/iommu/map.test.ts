import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  iommuMap,
  iommuUnmap,
  iommuUnmapFast,
  iotlbGatherAddPage,
  iotlbSync,
  iovaToPhys,
  newGather,
  nextPageRun,
  PartialMapError,
  pageSizes,
} from '../../../src/driver/iommu/map.ts';
import { errnoOf, MockDriver } from './mock-ops.ts';

const K = 0x400n;
const M = K * K;
const G = M * K;
/** 4 KiB, 2 MiB, 1 GiB: 2^12 | 2^21 | 2^30. */
const GRANULE_4K = 0x4020_1000n;
const PROT = { read: true, write: true, cache: true };

describe('page runs, worked out by hand from the rule [iommu_pgsize, linux-driver.md P7]', () => {
  // Largest page allowed by length and alignment of both addresses; as many as come before a larger one is possible.
  test.each([
    ['one page', 0x1000n, 0x1000n, 4n * K, 4n * K, 1],
    ['short of a block: all as pages', 0n, 0n, 2n * M - 4n * K, 4n * K, 511],
    ['exactly a block', 0n, 0n, 2n * M, 2n * M, 1],
    ['a block and a page: the block first', 0n, 0n, 2n * M + 4n * K, 2n * M, 1],
    [
      'pages up to the boundary, then a whole block follows',
      2n * M - 8n * K,
      2n * M - 8n * K,
      2n * M + 8n * K,
      4n * K,
      2,
    ],
    [
      'behind the boundary less than a block is left: all as pages',
      2n * M - 8n * K,
      0n + 2n * M - 8n * K,
      2n * M,
      4n * K,
      512,
    ],
    ['one byte of room short: no block', 4n * K, 4n * K, 4n * M - 8n * K, 4n * K, 1022],
    ['just enough room: 511 pages, then the block', 4n * K, 4n * K, 4n * M - 4n * K, 4n * K, 511],
    ['differently offset in the block: pages all the way', 4n * K, 8n * K, 8n * M, 4n * K, 2048],
    ['physical address not aligned to the block', 0n, 4n * K, 8n * M, 4n * K, 2048],
    ['three blocks, short of 1 GiB', 2n * M, 2n * M, 6n * M, 2n * M, 3],
    ['blocks up to 1 GiB, which follows whole', G - 4n * M, 3n * G - 4n * M, G + 4n * M, 2n * M, 2],
    ['blocks over the 1 GiB boundary, nothing whole behind', G - 4n * M, 3n * G - 4n * M, G, 2n * M, 512],
    ['1 GiB pages have no larger one', 4n * G, 8n * G, 5n * G + 2n * M, G, 5],
    ['address 0 is aligned to everything', 0n, 0n, 3n * G, G, 3],
  ])('%s', (_what, iova, pa, size, pgsize, count) => {
    expect(nextPageRun(pageSizes(GRANULE_4K), iova, pa, size)).toEqual({ pgsize, count });
  });

  test('16 KiB and 64 KiB granules: 16K/32M, 64K/512M', () => {
    const sizes16 = pageSizes((1n << 14n) | (1n << 25n));
    expect(nextPageRun(sizes16, 32n * M - 32n * K, 32n * M - 32n * K, 64n * M)).toEqual({ pgsize: 16n * K, count: 2 });
    const sizes64 = pageSizes((1n << 16n) | (1n << 29n));
    expect(nextPageRun(sizes64, 512n * M, 0n, 1024n * M)).toEqual({ pgsize: 512n * M, count: 2 });
  });

  test('pageSizes lists a bit map upwards', () => {
    expect(pageSizes(GRANULE_4K)).toEqual([4n * K, 2n * M, G]);
    expect(pageSizes(0n)).toEqual([]);
  });

  test('the runs of a range tile it, aligned, with the largest page at each step', () => {
    const page = fc.bigInt(0n, 3n * 512n * 512n);
    fc.assert(
      fc.property(page, page, fc.bigInt(1n, 3n * 512n * 512n), (iovaPage, paPage, pages) => {
        const sizes = pageSizes(GRANULE_4K);
        let at = 0n;
        const size = pages * 4n * K;
        while (at < size) {
          const iova = iovaPage * 4n * K + at;
          const pa = paPage * 4n * K + at;
          const run = nextPageRun(sizes, iova, pa, size - at);
          const span = run.pgsize * BigInt(run.count);
          expect(run.count).toBeGreaterThan(0);
          expect([iova % run.pgsize, pa % run.pgsize]).toEqual([0n, 0n]);
          expect(at + span <= size).toBe(true);
          // No larger page fits at the start of any page of the run.
          for (const larger of sizes.filter((each) => each > run.pgsize)) {
            const first = (larger - (iova % larger)) % larger;
            const usable = (iova - pa) % larger === 0n && at + first + larger <= size;
            expect(usable && first < span).toBe(false);
          }
          at += span;
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('map [iommu_map]', () => {
  test('calls the driver once for each run', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    iommuMap(s1, 2n * M - 8n * K, 6n * M - 8n * K, 4n * M + 12n * K, PROT);
    expect(driver.take()).toEqual(['map 1fe000 1000 x2', 'map 200000 200000 x2', 'map 600000 1000 x1']);
    expect(iovaToPhys(s1, 2n * M)).toBe(6n * M);
  });

  test('a failure in the middle unmaps what was mapped, with its invalidation', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    const { mapPages } = s1.ops;
    let calls = 0;
    s1.ops.mapPages = (domain, iova, pa, pgsize, count, prot) => {
      calls++;
      if (calls === 3) driver.refuse(null, s1.name, 'ENOMEM');
      return mapPages?.(domain, iova, pa, pgsize, count, prot) ?? 0n;
    };
    expect(errnoOf(() => iommuMap(s1, 2n * M - 8n * K, 2n * M - 8n * K, 4n * M, PROT))).toBe('ENOMEM');
    expect(s1.pages.size).toBe(0);
    expect(driver.take().slice(-3)).toEqual(['unmap 1fe000 1000 x2', 'unmap 200000 200000 x1', 'sync 1fe000-3fffff']);
  });

  test('a failed call that says how much it mapped has that unmapped too', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    s1.ops.mapPages = (_domain, iova, pa, pgsize) => {
      s1.pages.set(iova, { pa, size: pgsize });
      throw new PartialMapError('ENOMEM', 'no table for the second page', pgsize);
    };
    expect(errnoOf(() => iommuMap(s1, 0x1000n, 0x1000n, 8n * K, PROT))).toBe('ENOMEM');
    expect(s1.pages.size).toBe(0);
    expect(driver.take()).toEqual(['unmap 1000 1000 x1', 'sync 1000-1fff']);
  });

  test('a short answer is continued', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    const { mapPages } = s1.ops;
    s1.ops.mapPages = (domain, iova, pa, pgsize, _count, prot) => mapPages?.(domain, iova, pa, pgsize, 1, prot) ?? 0n;
    iommuMap(s1, 0x1000n, 0x9000n, 12n * K, PROT);
    expect(driver.take()).toEqual(['map 1000 1000 x1', 'map 2000 1000 x1', 'map 3000 1000 x1']);
  });

  test('EINVAL: not a paging domain, or not aligned; ENODEV: the domain cannot map', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    expect(errnoOf(() => iommuMap(driver.identity, 0n, 0n, 4n * K, PROT))).toBe('EINVAL');
    expect(errnoOf(() => iommuMap(driver.alloc('nested'), 0n, 0n, 4n * K, PROT))).toBe('EINVAL');
    expect(errnoOf(() => iommuMap(s1, 0x800n, 0n, 4n * K, PROT))).toBe('EINVAL');
    expect(errnoOf(() => iommuMap(s1, 0n, 0x800n, 4n * K, PROT))).toBe('EINVAL');
    expect(errnoOf(() => iommuMap(s1, 0n, 0n, 0x800n, PROT))).toBe('EINVAL');
    expect(errnoOf(() => iommuMap({ ...s1, pgsizeBitmap: 0n }, 0n, 0n, 4n * K, PROT))).toBe('ENODEV');
    expect(driver.take()).toEqual([]);
  });
});

describe('unmap [iommu_unmap]', () => {
  test('looks only at the IOVA, so it may ask for a block where pages are', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    iommuMap(s1, 0n, 4n * K, 2n * M, PROT);
    driver.take();
    iommuUnmap(s1, 0n, 2n * M);
    expect(driver.take()[0]).toBe('unmap 0 200000 x1');
  });

  test('stops at a hole and returns what it unmapped; the invalidation covers just that', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    iommuMap(s1, 0x1000n, 0x1000n, 8n * K, PROT);
    driver.take();
    expect(iommuUnmap(s1, 0x1000n, 16n * K)).toBe(8n * K);
    expect(driver.take()).toEqual(['unmap 1000 1000 x4', 'unmap 3000 1000 x2', 'sync 1000-2fff']);
  });

  test('nothing there, not aligned, or no paging domain: 0 and no invalidation', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    expect(iommuUnmap(s1, 0x1000n, 4n * K)).toBe(0n);
    expect(iommuUnmap(s1, 0x1800n, 4n * K)).toBe(0n);
    expect(iommuUnmap(driver.identity, 0x1000n, 4n * K)).toBe(0n);
    expect(driver.take()).toEqual(['unmap 1000 1000 x1']);
  });

  test('unmapFast leaves the invalidation to the caller', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    iommuMap(s1, 0x1000n, 0x1000n, 4n * K, PROT);
    driver.take();
    const gather = newGather();
    expect(iommuUnmapFast(s1, 0x1000n, 4n * K, gather)).toBe(4n * K);
    expect(driver.take()).toEqual(['unmap 1000 1000 x1']);
    iotlbSync(s1, gather);
    expect(driver.take()).toEqual(['sync 1000-1fff']);
    iotlbSync(s1, gather);
    expect(driver.take()).toEqual([]);
  });
});

describe('gathering [iommu_iotlb_gather_add_page]', () => {
  test.each([
    ['next to it, above', 0x3000n, 0x1000n, [], '2000-3fff'],
    ['next to it, below', 0x1000n, 0x1000n, [], '1000-2fff'],
    ['the same page again', 0x2000n, 0x1000n, [], '2000-2fff'],
    ['a gap above', 0x4000n, 0x1000n, ['sync 2000-2fff'], '4000-4fff'],
    ['a gap below', 0x0n, 0x1000n, ['sync 2000-2fff'], '0-fff'],
    ['another page size', 0x200000n, 0x200000n, ['sync 2000-2fff'], '200000-3fffff'],
  ])('after page 2000: %s', (_what, iova, size, before, gathered) => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    const gather = newGather();
    iotlbGatherAddPage(s1, gather, 0x2000n, 0x1000n);
    iotlbGatherAddPage(s1, gather, iova, size);
    expect(driver.take()).toEqual(before);
    iotlbSync(s1, gather);
    expect(driver.take()).toEqual([`sync ${gathered}`]);
    expect(gather).toEqual({ start: 0n, end: 0n, pgsize: 0n, empty: true, queued: false });
  });

  test('page 0 alone counts as gathered', () => {
    const driver = new MockDriver();
    const s1 = driver.alloc('s1');
    const gather = newGather();
    iotlbGatherAddPage(s1, gather, 0n, 0x1000n);
    iotlbSync(s1, gather);
    expect(driver.take()).toEqual(['sync 0-fff']);
  });
});

test('iovaToPhys: identity is itself, blocked is nowhere [iommu_iova_to_phys]', () => {
  const driver = new MockDriver();
  expect(iovaToPhys(driver.identity, 0x1234n)).toBe(0x1234n);
  expect(iovaToPhys(driver.blocked, 0x1234n)).toBe(undefined);
  expect(iovaToPhys(driver.alloc('s1'), 0x1000n)).toBe(undefined);
});
