import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { IommuDomain } from '../../src/driver/iommu/ops.ts';
import type { IommufdContext } from '../../src/iommufd/index.ts';
import { errno, FILE, Lab, RO, RW } from './lab.ts';
import type { MockDomain } from './mock-driver.ts';

const GPA = 0x8000_0000n;
const ALL = 0xffff_ffff_ffff_ffffn;

/** Domains of a context's HWPTs by id. */
const domainOf = (ctx: IommufdContext, id: number): MockDomain =>
  (ctx.objects.peek(id) as unknown as { liveDomain: IommuDomain }).liveDomain as MockDomain;

const ranges = (ctx: IommufdContext, id: number): [bigint, bigint][] => {
  const array = new Uint8Array(16 * 8);
  const { num_iovas } = ctx.ioasIovaRanges({ ioas_id: id, num_iovas: 8, allowed_iovas: array });
  const words = new BigUint64Array(array.buffer);
  return Array.from({ length: num_iovas }, (_, i) => [words[2 * i] ?? 0n, words[2 * i + 1] ?? 0n]);
};
const allow = (ctx: IommufdContext, id: number, ...list: bigint[]): void =>
  void ctx.ioasAllowIovas({
    ioas_id: id,
    num_iovas: list.length / 2,
    allowed_iovas: new Uint8Array(new BigUint64Array(list).buffer),
  });

describe('placement (iopt_alloc_iova, iopt_check_iova)', () => {
  test('a new IOAS has everything free, alignment 1; 0 is never chosen', () => {
    const { ctx } = new Lab();
    const id = ctx.ioasAlloc().out_ioas_id;
    expect(ranges(ctx, id)).toEqual([[0n, ALL]]);
    expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: 8192n }).iova).toBe(0x1000n);
    expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: 4096n }).iova).toBe(0x3000n);
  });

  test('the offset in the page is kept', () => {
    const { ctx } = new Lab();
    const id = ctx.ioasAlloc().out_ioas_id;
    expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW + 0x123n, length: 10n }).iova).toBe(0x1123n);
  });

  test('automatic IOVAs keep to the allowed list and out of reserved ranges; fixed ones need not be allowed', () => {
    const { ctx, a } = new Lab();
    const dev = ctx.bind(a);
    const id = ctx.ioasAlloc().out_ioas_id;
    allow(ctx, id, 0x7000n, 0x8fffn, 0x9000n, 0x9fffn);
    expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: 0x3000n }).iova).toBe(0x7000n); // neighbours are one
    expect(ctx.ioasMap({ ioas_id: id, flags: 7, user_va: RW, length: 0x1000n, iova: 0n }).iova).toBe(0n);
    allow(ctx, id);
    ctx.attach(dev, id);
    expect(ranges(ctx, id)).toEqual([
      [0n, 0x7ff_ffffn],
      [0x810_0000n, 0xffff_ffff_ffffn],
    ]);
    expect(errno(() => ctx.ioasMap({ ioas_id: id, flags: 7, user_va: RW, length: 0x1000n, iova: 0x800_0000n }))).toBe(
      'EINVAL',
    );
    ctx.detach(dev);
    expect(ranges(ctx, id)).toEqual([[0n, ALL]]);
  });

  test('alignment is kept up to the huge page size of a kernel that has one', () => {
    const { ctx } = new Lab({ context: { hugePageSize: 0x20_0000n } });
    const id = ctx.ioasAlloc().out_ioas_id;
    expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: 0x40_0000n }).iova).toBe(0x20_0000n);
  });

  test('the lowest place, as a search of every page would find it', () => {
    const piece = fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 6 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.integer({ min: 1, max: 9 }), (pieces, want) => {
        const { ctx } = new Lab();
        const id = ctx.ioasAlloc().out_ioas_id;
        const used = new Set<number>([0]);
        for (const [page, count] of pieces) {
          const pages = Array.from({ length: count }, (_, i) => page + i);
          const clash = pages.some((n) => n > 0 && used.has(n)) || (page === 0 && used.has(-1));
          const result = errno(() =>
            ctx.ioasMap({
              ioas_id: id,
              flags: 7,
              user_va: RW,
              length: BigInt(count) * 4096n,
              iova: BigInt(page) * 4096n,
            }),
          );
          expect(result).toBe(clash ? 'EEXIST' : 'ok');
          if (clash) continue;
          for (const n of pages) used.add(n === 0 ? -1 : n);
        }
        let lowest = 1;
        while (Array.from({ length: want }, (_, i) => lowest + i).some((n) => used.has(n))) lowest++;
        expect(ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: BigInt(want) * 4096n }).iova).toBe(
          BigInt(lowest) * 4096n,
        );
      }),
    );
  });
});

describe('domains in step (iopt_area_fill_domains, iopt_table_add_domain)', () => {
  const leaves = (domain: MockDomain): string[] =>
    [...domain.leaves]
      .map(
        ([iova, { pa, size, write }]) =>
          `${iova.toString(16)}>${pa.toString(16)}+${size.toString(16)}${write ? 'w' : ''}`,
      )
      .sort();

  test('every domain shows every area, whichever came first; unmap empties all; pins end with the last', () => {
    const { ctx, a } = new Lab();
    const dev = ctx.bind(a).id;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    const one = ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id;
    ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x8000n, iova: GPA });
    const two = ctx.hwptAlloc({ dev_id: dev, pt_id: ioas, flags: 1 }).out_hwpt_id;
    ctx.ioasMap({ ioas_id: ioas, flags: 5, user_va: RO, length: 0x4000n, iova: 0n });
    expect(leaves(domainOf(ctx, one))).toHaveLength(12);
    expect(leaves(domainOf(ctx, two))).toEqual(leaves(domainOf(ctx, one)));
    expect(ctx.pins.pinned).toBe(12);
    ctx.destroy({ id: one });
    expect(leaves(domainOf(ctx, two))).toHaveLength(12);
    expect(ctx.ioasUnmap({ ioas_id: ioas, length: ALL }).length).toBe(0xc000n);
    expect(leaves(domainOf(ctx, two))).toEqual([]);
    expect(ctx.pins.pinned).toBe(0);
  });

  test('contiguous memory is mapped in blocks where they fit, and page by page with HUGE_PAGES 0', () => {
    const count = (huge: boolean): number => {
      const { ctx, a } = new Lab({ contiguous: true });
      const dev = ctx.bind(a).id;
      const ioas = ctx.ioasAlloc().out_ioas_id;
      if (!huge) ctx.option({ option_id: 1, object_id: ioas, val64: 0n });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x40_0000n, iova: GPA });
      return domainOf(ctx, ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id).leaves.size;
    };
    expect(count(true)).toBe(2);
    expect(count(false)).toBe(1024);
  });

  test('a copy shares the pages: pinned once, and they stay while either lives', () => {
    const { ctx, a } = new Lab();
    const dev = ctx.bind(a).id;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    const hwpt = ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id;
    ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x8000n, iova: GPA });
    ctx.ioasCopy({
      flags: 5,
      src_ioas_id: ioas,
      dst_ioas_id: ioas,
      src_iova: GPA + 0x2000n,
      length: 0x3000n,
      dst_iova: 0n,
    });
    expect(ctx.pins.pinned).toBe(8);
    const { leaves: pages } = domainOf(ctx, hwpt);
    expect(pages.get(0n)?.pa).toBe(pages.get(GPA + 0x2000n)?.pa);
    expect(pages.get(0n)?.write).toBe(false);
    ctx.ioasUnmap({ ioas_id: ioas, iova: GPA, length: 0x8000n });
    expect(ctx.pins.pinned).toBe(3);
    ctx.ioasUnmap({ ioas_id: ioas, length: ALL });
    expect(ctx.pins.pinned).toBe(0);
  });

  test('a copy over several adjacent areas makes one area of each piece', () => {
    const { ctx } = new Lab();
    const ioas = ctx.ioasAlloc().out_ioas_id;
    for (const i of [0n, 1n, 2n])
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x2000n, iova: GPA + i * 0x2000n });
    ctx.ioasCopy({
      flags: 7,
      src_ioas_id: ioas,
      dst_ioas_id: ioas,
      src_iova: GPA + 0x1000n,
      length: 0x4000n,
      dst_iova: 0n,
    });
    expect(errno(() => ctx.ioasUnmap({ ioas_id: ioas, length: 0x2000n }))).toBe('ENOENT');
    expect(ctx.ioasUnmap({ ioas_id: ioas, iova: 0x1000n, length: 0x2000n }).length).toBe(0x2000n);
  });

  test('unmap is not atomic: areas below the one that forbids it are gone', () => {
    const { ctx } = new Lab();
    const ioas = ctx.ioasAlloc().out_ioas_id;
    for (const iova of [0x1000n, 0x8000n]) ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x2000n, iova });
    expect(errno(() => ctx.ioasUnmap({ ioas_id: ioas, iova: 0x1000n, length: 0x8000n }))).toBe('ENOENT');
    expect(ctx.ioasUnmap({ ioas_id: ioas, length: ALL }).length).toBe(0x2000n);
  });

  test('a map that fails in the middle leaves every domain as it was', () => {
    const { ctx, a, kernel } = new Lab();
    const dev = ctx.bind(a).id;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    const hwpts = [0, 1, 0].map((flags) => ctx.hwptAlloc({ dev_id: dev, pt_id: ioas, flags }).out_hwpt_id);
    for (let n = 1; n < 24; n++) {
      kernel.failNth(n, 'alloc:mock:map');
      expect(errno(() => ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x8000n, iova: GPA }))).toBe(
        'ENOMEM',
      );
      expect(hwpts.map((id) => domainOf(ctx, id).leaves.size)).toEqual([0, 0, 0]);
      expect(ctx.pins.pinned).toBe(0);
    }
  });
});

describe('files', () => {
  test('MAP_FILE maps the pages of the file', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const dev = ctx.bind(lab.a).id;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    ctx.ioasMapFile({ ioas_id: ioas, flags: 7, fd: FILE, start: 0x3000n, length: 0x2000n, iova: GPA });
    const domain = domainOf(ctx, ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id);
    expect(domain.leaves.get(GPA)?.pa).toBe(lab.file.lookup(0x3000n, 1)?.pa);
    expect(errno(() => ctx.ioasChangeProcess())).toBe('ok');
  });
});

describe('accesses (iommufd_access_pin_pages, _rw)', () => {
  function accessLab() {
    const lab = new Lab();
    const ioas = lab.mapped();
    const unmapped: [bigint, bigint][] = [];
    const access = lab.ctx.accessCreate({
      needsPinPages: true,
      unmap: (iova, length) => {
        unmapped.push([iova, length]);
        for (const [pinned, size] of pins.splice(0)) access.unpinPages(pinned, size);
      },
    });
    const pins: [bigint, bigint][] = [];
    access.attach(ioas);
    return { lab, ctx: lab.ctx, ioas, access, unmapped, pins };
  }

  test('pins the right pages; an unmap asks for them back first', () => {
    const { lab, ctx, ioas, access, unmapped, pins } = accessLab();
    const runs = access.pinPages(GPA + 0x1000n, 0x2000n, true);
    pins.push([GPA + 0x1000n, 0x2000n]);
    expect(runs.map(({ pfn }) => BigInt(pfn) * 4096n)).toEqual([1n, 2n].map((i) => lab.rw.lookup(i * 4096n, 1)?.pa));
    expect(ctx.pins.pinned).toBe(2);
    ctx.ioasUnmap({ ioas_id: ioas, length: ALL });
    expect(unmapped).toEqual([[GPA, 0x10_0000n]]);
    expect(ctx.pins.pinned).toBe(0);
  });

  test('rw copies both ways, byte by byte; a hole is ENOENT after the part before it', () => {
    const { lab, access } = accessLab();
    access.rw(GPA + 0xffen, Uint8Array.of(1, 2, 3, 4), true);
    expect([...lab.rw.read(0xffe, 4)]).toEqual([1, 2, 3, 4]);
    const data = new Uint8Array(4);
    access.rw(GPA + 0xffen, data, false);
    expect([...data]).toEqual([1, 2, 3, 4]);
    lab.rw.write(0xf_fffe, Uint8Array.of(8, 9));
    expect(errno(() => access.rw(GPA + 0xf_fffen, data, false))).toBe('ENOENT');
    expect([...data]).toEqual([8, 9, 3, 4]);
    expect(errno(() => access.rw(GPA, new Uint8Array(0), false))).toBe('EINVAL');
    expect(errno(() => access.rw(ALL, data, false))).toBe('EOVERFLOW');
    expect(lab.ctx.pins.pinned).toBe(0);
  });

  test('permissions, alignment and lifetime', () => {
    const { lab, ctx, ioas, access } = accessLab();
    ctx.ioasMap({ ioas_id: ioas, flags: 5, user_va: RO, length: 4096n, iova: 0n });
    expect(errno(() => access.pinPages(0n, 4096n, true))).toBe('EPERM');
    expect(errno(() => access.rw(0n, new Uint8Array(1), true))).toBe('EPERM');
    expect(errno(() => access.attach(ioas))).toBe('EINVAL');
    expect(errno(() => ctx.destroy({ id: ioas }))).toBe('EBUSY');
    expect(errno(() => ctx.destroy({ id: access.id }))).toBe('EBUSY');
    const other = ctx.ioasAlloc().out_ioas_id;
    access.replace(other);
    ctx.destroy({ id: ioas });
    expect(errno(() => access.rw(GPA, new Uint8Array(1), false))).toBe('ENOENT');
    ctx.accessDestroy(access);
    ctx.destroy({ id: other });
    expect(() => access.rw(GPA, new Uint8Array(1), false)).toThrow('was freed');
    expect(lab.ctx.fileRefs).toBe(1);
  });

  test('an access that pins makes 4 KiB the alignment while it is attached', () => {
    const { ctx, ioas, access } = accessLab();
    expect(ctx.ioasIovaRanges({ ioas_id: ioas, num_iovas: 1, allowed_iovas: RW }).out_iova_alignment).toBe(0x1000n);
    access.detach();
    expect(ctx.ioasIovaRanges({ ioas_id: ioas, num_iovas: 1, allowed_iovas: RW }).out_iova_alignment).toBe(1n);
  });
});

describe('dirty tracking (iommu_read_and_clear_dirty)', () => {
  test('what the device wrote since the start, once; NO_CLEAR reads it again; bits are only ever set', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const idev = ctx.bind(lab.a);
    const ioas = lab.mapped(0x8000n);
    const id = ctx.hwptAlloc({ dev_id: idev.id, pt_id: ioas, flags: 2 }).out_hwpt_id;
    ctx.attach(idev, id);
    ctx.hwptSetDirtyTracking({ hwpt_id: id, flags: 1 });
    lab.driver.dma(lab.a, GPA + 0x2000n);
    lab.driver.dma(lab.a, GPA + 0x5000n);
    const read = (flags: number, fill = 0): number => {
      const data = new Uint8Array(1).fill(fill);
      ctx.hwptGetDirtyBitmap({ hwpt_id: id, flags, iova: GPA, length: 0x8000n, page_size: 0x1000n, data });
      return data[0] ?? 0;
    };
    expect(read(1)).toBe(0b100100);
    expect(read(0, 0b1)).toBe(0b100101);
    expect(read(0)).toBe(0);
    lab.driver.dma(lab.a, GPA);
    ctx.hwptSetDirtyTracking({ hwpt_id: id, flags: 1 });
    expect(read(0)).toBe(0);
  });

  test('a hole, and a bitmap that cannot be written, end the walk and the ioctl says 0 (7.2)', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const idev = ctx.bind(lab.a);
    const ioas = lab.mapped(0x2000n);
    const id = ctx.hwptAlloc({ dev_id: idev.id, pt_id: ioas, flags: 2 }).out_hwpt_id;
    ctx.attach(idev, id);
    ctx.hwptSetDirtyTracking({ hwpt_id: id, flags: 1 });
    lab.driver.dma(lab.a, GPA);
    const bitmap = { hwpt_id: id, iova: GPA, length: 0x8000n, page_size: 0x1000n };
    expect(errno(() => ctx.hwptGetDirtyBitmap({ ...bitmap, data: RO }))).toBe('ok');
    const data = new Uint8Array(1);
    ctx.hwptGetDirtyBitmap({ ...bitmap, data });
    expect(data[0]).toBeLessThan(2);
  });
});
