import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { PagingDomain } from '../../../src/driver/arm-smmu-v3/index.ts';
import { iommuMap, iommuUnmap } from '../../../src/driver/iommu/index.ts';
import { qemuVirt } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach } from './shim.ts';

const RW = { read: true, write: true, cache: true };
const DEV = '0000:00:05.0';

const rigFor = (pageSize: 4096 | 16384 | 65536): Rig => new Rig({ settings: { pageSize } }).boot();

const alloc = (rig: Rig, nestParent: boolean): PagingDomain =>
  rig.driver.domainAllocPagingFlags(rig.device(DEV), nestParent ? { nestParent } : {}, null) as PagingDomain;

describe('leaves as Linux writes them (linux-driver 5, Page tables 6)', () => {
  const leafOf = (rig: Rig, domain: PagingDomain, iova: bigint): bigint => {
    let table = domain.table.root;
    for (let level = 0; level < 3; level++) {
      const shift = BigInt(12 + 9 * (3 - level));
      const entry = rig.machine.bus.load64(table + 8n * ((iova >> shift) & 0x1ffn));
      if ((entry & 2n) === 0n) return entry;
      table = entry & 0x0000fffffffff000n;
    }
    return rig.machine.bus.load64(table + 8n * ((iova >> 12n) & 0x1ffn));
  };
  const cases = [
    [false, RW, 0xf47n],
    [false, { read: true, write: false, cache: true }, 0xfc7n],
    [false, { read: true, write: true, cache: false, mmio: true, noexec: true }, 0x0060_0000_0000_0e4bn],
    [true, RW, 0x7ffn],
    [true, { read: false, write: true, cache: false, mmio: true, noexec: true }, 0x0060_0000_0000_0687n],
  ] as const;
  test.each(cases)('nest parent %s, %o: PA OR %x', (nestParent, prot, bits) => {
    const rig = rigFor(4096);
    const domain = alloc(rig, nestParent);
    iommuMap(domain, 0x12345000n, 0x56789000n, 0x1000n, prot);
    expect(leafOf(rig, domain, 0x12345000n)).toBe(0x56789000n | bits);
  });

  test('a block has type 1, a table is its address OR 3', () => {
    const rig = rigFor(4096);
    const domain = alloc(rig, false);
    iommuMap(domain, 0x40000000n, 0x80000000n, 0x40000000n, RW);
    expect(leafOf(rig, domain, 0x40000000n)).toBe(0x80000000n | 0xf45n);
    expect(rig.machine.bus.load64(domain.table.root) & 0xfffn).toBe(3n);
  });
});

test('geometry: S2 with OAS 44 and 4K starts at level 0 with a 32-entry root, SL0 2 (linux-driver 5, 3)', () => {
  const domain = alloc(rigFor(4096), true);
  expect(domain.table.format).toMatchObject({ t0sz: 20, sl0: 2, tg0: '4KB', ps: 4 });
  expect(domain.aperture.end).toBe(2n ** 44n - 1n);
});

test.each([
  ['BITS_40', 4096, 2, 1],
  ['BITS_42', 4096, 8, 1],
  ['BITS_40', 16384, 16, 2],
  ['BITS_48', 16384, 2, 1],
] as const)(
  'concatenation where the architecture demands it: OAS %s, page %i: %i tables from level %i',
  (OAS, pageSize, tables, start) => {
    const rig = new Rig({
      machine: { smmus: [{ config: { ...qemuVirt, IDR5: { ...qemuVirt.IDR5, OAS } }, base: 0x0905_0000n }] },
      settings: { pageSize },
    }).boot();
    const domain = alloc(rig, true);
    // S2SL0 = 3 AND NOT(start + 1) for 4K, 3 AND NOT(start) otherwise.
    expect(domain.table.format.sl0).toBe(pageSize === 4096 ? 3 & ~(start + 1) : 3 & ~start);
    const top = 2n ** BigInt(Number(OAS.slice(5))) - BigInt(pageSize);
    deviceAttach(rig, domain, rig.device(DEV));
    iommuMap(domain, top, 0x6000_0000n, BigInt(pageSize), RW);
    expect(rig.machine.endpoint(DEV).write(top, Uint8Array.of(tables))).toMatchObject({ status: 'ok' });
    expect(rig.machine.bus.load32(0x6000_0000n) & 0xff).toBe(tables);
  },
);

interface Step {
  readonly map: boolean;
  readonly page: number;
  readonly pages: number;
  readonly block: boolean;
}

const step = fc.record({
  map: fc.boolean(),
  page: fc.integer({ min: 0, max: 40 }),
  pages: fc.integer({ min: 1, max: 20 }),
  block: fc.boolean(),
});

describe.each([4096, 16384, 65536] as const)('map and unmap of any range, page size %i', (pageSize) => {
  const pgsize = BigInt(pageSize);
  const block = pageSize === 4096 ? 1n << 21n : pageSize === 16384 ? 1n << 25n : 1n << 29n;
  test.each([
    ['stage 1', false],
    ['stage 2', true],
  ])('%s: software walk, device and table memory agree with a map of pages', (_name, nestParent) => {
    const rig = rigFor(pageSize);
    const endpoint = rig.machine.endpoint(DEV);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const before = rig.kernel.pagesUsed;
        const domain = alloc(rig, nestParent);
        deviceAttach(rig, domain, rig.device(DEV));
        const model = new Map<bigint, bigint>();
        const run = ({ map, page, pages, block: wide }: Step): void => {
          // Around a block boundary, so that blocks, tables and their mixtures come up.
          const iova = wide ? block * BigInt(page % 3) : block - 20n * pgsize + BigInt(page) * pgsize;
          const size = wide ? block : BigInt(pages) * pgsize;
          const target = (iova & (block - 1n)) + 0x6000_0000n;
          const covered = [...model.keys()].filter((at) => at >= iova && at < iova + size);
          if (map) {
            if (covered.length > 0) expect(() => iommuMap(domain, iova, target, size, RW)).toThrow(/^EEXIST/);
            else {
              iommuMap(domain, iova, target, size, RW);
              for (let at = 0n; at < size; at += pgsize) model.set(iova + at, target + at);
            }
          } else if (BigInt(covered.length) * pgsize === size && !splitsBlock(iova, size)) {
            expect(iommuUnmap(domain, iova, size)).toBe(size);
            for (const at of covered) model.delete(at);
          }
        };
        /** A block goes as a whole: an unmap of a part of one is refused, as in Linux. */
        const splitsBlock = (iova: bigint, size: bigint): boolean => {
          const partly = (at: bigint): boolean => at % block !== 0n && blocks.has(at - (at % block));
          return partly(iova) || partly(iova + size);
        };
        const blocks = new Set<bigint>();
        for (const each of steps) {
          const wide = each.block ? block * BigInt(each.page % 3) : -1n;
          const free = wide >= 0n && ![...model.keys()].some((at) => at >= wide && at < wide + block);
          run(each);
          if (each.map && free) blocks.add(wide);
          for (const at of blocks) if (!model.has(at)) blocks.delete(at);
          const probes = [block - pgsize, block, block + pgsize, 0n, 2n * block - pgsize, 2n * block];
          for (const at of [...probes, block - 20n * pgsize + BigInt(each.page) * pgsize]) {
            expect(domain.table.iovaToPhys(at + 5n)).toBe(model.has(at) ? (model.get(at) ?? 0n) + 5n : undefined);
            const inRam = (model.get(at) ?? 0n) < 0x8000_0000n - pgsize;
            if (inRam) expect(endpoint.write(at, Uint8Array.of(1)).status).toBe(model.has(at) ? 'ok' : 'abort');
          }
        }
        deviceAttach(rig, rig.driver.blockedDomain, rig.device(DEV));
        domain.ops.free(domain);
        expect(rig.kernel.pagesUsed).toBe(before);
        rig.kernel.runInterrupts();
      }),
      { numRuns: 40 },
    );
  });
});
