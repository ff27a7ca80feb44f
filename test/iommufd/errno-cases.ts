/** Every way in which an ioctl fails, by kernel function: the rows of docs/iommufd-coverage.md. */

import type { ViommuOps } from '../../src/driver/iommu/ops.ts';
import type { Errno } from '../../src/driver/kernel.ts';
import type { HwptPaging } from '../../src/iommufd/hwpt.ts';
import type { DeviceObject, IommufdContext } from '../../src/iommufd/index.ts';
import type { ViommuObject } from '../../src/iommufd/viommu.ts';
import { FILE, type Lab, type LabOptions, NOTHING, RO, RW, VSTE } from './lab.ts';
import { MOCK } from './mock-driver.ts';

/** One cell. */
export interface ErrnoCase {
  readonly ioctl: string;
  readonly errno: Errno;
  /** Which check fails. */
  readonly when: string;
  readonly lab?: LabOptions;
  /** Everything up to the call that must fail, which it returns. */
  readonly run: (lab: Lab) => () => unknown;
}

const MAX = 0xffff_ffff_ffff_ffffn;
const GPA = 0x8000_0000n;
/** More than SIZE_MAX - PAGE_SIZE, and page aligned. */
const TOO_LONG = MAX - 0xfffn;

type Row = readonly [errno: Errno, when: string, run: (lab: Lab) => () => unknown, lab?: LabOptions];

const cases: ErrnoCase[] = [];
function rows(ioctl: string, list: readonly Row[]): void {
  for (const [errno, when, run, lab] of list)
    cases.push({ ioctl, errno, when, run, ...(lab === undefined ? {} : { lab }) });
}

/** The same call on a context that is bound and mapped. */
const withIoas =
  (call: (ctx: IommufdContext, ioas: number, lab: Lab) => unknown) =>
  (lab: Lab): (() => unknown) => {
    const ioas = lab.mapped();
    return () => call(lab.ctx, ioas, lab);
  };
const bound =
  (call: (ctx: IommufdContext, dev: number, ioas: number, lab: Lab) => unknown) =>
  (lab: Lab): (() => unknown) => {
    const dev = lab.ctx.bind(lab.a).id;
    const ioas = lab.mapped();
    return () => call(lab.ctx, dev, ioas, lab);
  };
type Nested = ReturnType<Lab['nested']>;
const nested =
  (call: (ctx: IommufdContext, ids: Nested, lab: Lab) => unknown) =>
  (lab: Lab): (() => unknown) => {
    const ids = lab.nested();
    return () => call(lab.ctx, ids, lab);
  };

/** Makes the copy of the answer fail. */
const noResponse = (lab: Lab, call: () => unknown): unknown => {
  lab.kernel.failNth(1, 'copy:to-user:response');
  return call();
};

rows('IOMMU_DESTROY', [
  ['ENOENT', 'the id names nothing', (lab) => () => lab.ctx.destroy({ id: 9 })],
  ['ENOENT', 'the id is 0', (lab) => () => lab.ctx.destroy({ id: 0 })],
  ['EBUSY', 'a device is held by its driver', bound((ctx, dev) => ctx.destroy({ id: dev }))],
  ['EBUSY', 'a nesting parent is held by its vIOMMU', nested((ctx, { parent }) => ctx.destroy({ id: parent }))],
]);

rows('IOMMU_IOAS_ALLOC', [
  ['EOPNOTSUPP', 'flags is not 0', (lab) => () => lab.ctx.ioasAlloc({ flags: 1 })],
  ['EFAULT', 'the answer cannot be copied', (lab) => () => noResponse(lab, () => lab.ctx.ioasAlloc())],
  [
    'ENOMEM',
    'no memory for the object',
    (lab) => () => {
      lab.kernel.failNth(1, 'alloc:iommufd:IOAS');
      lab.ctx.ioasAlloc();
    },
  ],
]);

const range = (start: bigint, last: bigint): Uint8Array => new Uint8Array(new BigUint64Array([start, last]).buffer);

rows('IOMMU_IOAS_IOVA_RANGES', [
  ['EOPNOTSUPP', '__reserved is not 0', withIoas((ctx, id) => ctx.ioasIovaRanges({ ioas_id: id, __reserved: 1 }))],
  ['ENOENT', 'no such IOAS', (lab) => () => lab.ctx.ioasIovaRanges({ ioas_id: 3 })],
  [
    'EFAULT',
    'the array is not writable',
    withIoas((ctx, id) => ctx.ioasIovaRanges({ ioas_id: id, num_iovas: 1, allowed_iovas: NOTHING })),
  ],
  ['EMSGSIZE', 'more ranges than room', withIoas((ctx, id) => ctx.ioasIovaRanges({ ioas_id: id }))],
]);

rows('IOMMU_IOAS_ALLOW_IOVAS', [
  ['EOPNOTSUPP', '__reserved is not 0', withIoas((ctx, id) => ctx.ioasAllowIovas({ ioas_id: id, __reserved: 1 }))],
  ['ENOENT', 'no such IOAS', (lab) => () => lab.ctx.ioasAllowIovas({ ioas_id: 3 })],
  [
    'EFAULT',
    'the array is not readable',
    withIoas((ctx, id) => ctx.ioasAllowIovas({ ioas_id: id, num_iovas: 1, allowed_iovas: NOTHING })),
  ],
  [
    'EINVAL',
    'start is not below last',
    withIoas((ctx, id) => ctx.ioasAllowIovas({ ioas_id: id, num_iovas: 1, allowed_iovas: range(1n, 1n) })),
  ],
  [
    'EINVAL',
    'two entries overlap',
    withIoas((ctx, id) => {
      const two = new Uint8Array([...range(0n, 0xfffn), ...range(0xfffn, 0x1fffn)]);
      ctx.ioasAllowIovas({ ioas_id: id, num_iovas: 2, allowed_iovas: two });
    }),
  ],
  [
    'EADDRINUSE',
    'an entry meets a reserved range',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasAllowIovas({ ioas_id: ioas, num_iovas: 1, allowed_iovas: range(0n, MAX) });
    }),
  ],
]);

rows('IOMMU_IOAS_MAP', [
  ['EOPNOTSUPP', 'unknown flag', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 8 }))],
  ['EOPNOTSUPP', '__reserved is not 0', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, __reserved: 1 }))],
  ['EOVERFLOW', 'length is U64_MAX', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, length: MAX }))],
  ['EOVERFLOW', 'iova is U64_MAX', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, iova: MAX }))],
  ['EINVAL', 'neither READABLE nor WRITEABLE', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 1 }))],
  ['ENOENT', 'no such IOAS', (lab) => () => lab.ctx.ioasMap({ ioas_id: 3, flags: 7, length: 4096n })],
  [
    'EOVERFLOW',
    'user_va and length overflow',
    withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, user_va: MAX - 4095n, length: 4096n })),
  ],
  ['EINVAL', 'length is 0', withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7 }))],
  [
    'EINVAL',
    'length is above SIZE_MAX - PAGE_SIZE',
    withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, length: TOO_LONG })),
  ],
  [
    'EINVAL',
    'length is not a multiple of the alignment',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 1n, iova: 0n });
    }),
  ],
  [
    'EINVAL',
    'the fixed IOVA is not aligned',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n, iova: 1n });
    }),
  ],
  [
    'EOVERFLOW',
    'the fixed IOVA and length overflow',
    withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, length: 4096n, iova: MAX - 100n })),
  ],
  [
    'EINVAL',
    'the fixed IOVA meets a reserved range',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n, iova: 1n << 48n });
    }),
  ],
  [
    'EEXIST',
    'an area is there',
    withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 7, length: 4096n, iova: GPA })),
  ],
  [
    'EOVERFLOW',
    'an automatic IOVA of half the space',
    withIoas((ctx, id) => ctx.ioasMap({ ioas_id: id, flags: 6, length: MAX / 2n })),
  ],
  [
    'EINVAL',
    "an automatic IOVA whose source is aligned to less than the IOAS's alignment",
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 6, user_va: RW + 8n, length: 4096n });
    }),
  ],
  [
    'ENOSPC',
    'no hole in the allowed ranges',
    withIoas((ctx, id) => {
      ctx.ioasAllowIovas({ ioas_id: id, num_iovas: 1, allowed_iovas: range(0x1000n, 0x1fffn) });
      ctx.ioasMap({ ioas_id: id, flags: 6, user_va: RW, length: 8192n });
    }),
  ],
  [
    'EINVAL',
    'the offset in the page is not aligned',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW + 8n, length: 4096n, iova: 0n });
    }),
  ],
  [
    'EFAULT',
    'a domain is there and the pages cannot be pinned',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: NOTHING, length: 4096n, iova: 0n });
    }),
  ],
  [
    'EFAULT',
    'a domain is there and read-only memory is mapped WRITEABLE',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RO, length: 4096n, iova: 0n });
    }),
  ],
  [
    'ENOMEM',
    'more pages than RLIMIT_MEMLOCK',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n * 300n, iova: 0n });
    }),
    { memlockPages: 300 } as LabOptions,
  ],
]);

/** An IOAS with a domain: alignment and reserved ranges count. */
const withDomain = (call: (ctx: IommufdContext, ioas: number) => unknown) =>
  bound((ctx, dev, ioas) => {
    ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
    return call(ctx, ioas);
  });
/** Automatic IOVAs may lie in half a page only. */
function allowOnly(ctx: IommufdContext, ioas: number): IommufdContext {
  ctx.ioasAllowIovas({ ioas_id: ioas, num_iovas: 1, allowed_iovas: range(0x1000n, 0x17ffn) });
  return ctx;
}

const mapFile = (ctx: IommufdContext, ioas: number, more: Record<string, number | bigint>): unknown =>
  ctx.ioasMapFile({ ioas_id: ioas, flags: 7, fd: FILE, length: 4096n, ...more });

rows('IOMMU_IOAS_MAP_FILE', [
  ['EOPNOTSUPP', 'unknown flag', withIoas((ctx, id) => mapFile(ctx, id, { flags: 8 }))],
  ['EOVERFLOW', 'length is U64_MAX', withIoas((ctx, id) => mapFile(ctx, id, { length: MAX }))],
  ['EINVAL', 'neither READABLE nor WRITEABLE', withIoas((ctx, id) => mapFile(ctx, id, { flags: 1 }))],
  ['ENOENT', 'no such IOAS', (lab) => () => mapFile(lab.ctx, 3, {})],
  ['EINVAL', 'length is 0', withIoas((ctx, id) => mapFile(ctx, id, { length: 0n }))],
  ['EOVERFLOW', 'iova is U64_MAX', withIoas((ctx, id) => mapFile(ctx, id, { iova: MAX }))],
  ['EOVERFLOW', 'start and length overflow', withIoas((ctx, id) => mapFile(ctx, id, { start: MAX - 10n }))],
  ['EBADF', 'the descriptor is not open', withIoas((ctx, id) => mapFile(ctx, id, { fd: -1 }))],
  ['EINVAL', 'length is above SIZE_MAX - PAGE_SIZE', withIoas((ctx, id) => mapFile(ctx, id, { length: TOO_LONG }))],
  ['EINVAL', 'the fixed IOVA is not aligned', withDomain((ctx, ioas) => mapFile(ctx, ioas, { iova: 1n }))],
  [
    'EINVAL',
    'the fixed IOVA meets a reserved range',
    withDomain((ctx, ioas) => mapFile(ctx, ioas, { iova: 1n << 48n })),
  ],
  ['EOVERFLOW', 'the fixed IOVA and length overflow', withIoas((ctx, id) => mapFile(ctx, id, { iova: MAX - 100n }))],
  [
    'EOVERFLOW',
    'an automatic IOVA of half the space',
    withIoas((ctx, id) => mapFile(ctx, id, { flags: 6, length: MAX / 2n })),
  ],
  ['ENOSPC', 'no hole in the allowed ranges', withIoas((ctx, id) => mapFile(allowOnly(ctx, id), id, { flags: 6 }))],
  ['EEXIST', 'an area is there', withIoas((ctx, id) => mapFile(ctx, id, { iova: GPA }))],
  [
    'EINVAL',
    'a domain is there and the range passes the end of the file',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      mapFile(ctx, ioas, { start: 0x3f000n, length: 0x2000n });
    }),
  ],
]);

const copy = (ctx: IommufdContext, ioas: number, more: Record<string, number | bigint>): unknown =>
  ctx.ioasCopy({ flags: 7, src_ioas_id: ioas, dst_ioas_id: ioas, length: 4096n, src_iova: GPA, ...more });

rows('IOMMU_IOAS_COPY', [
  ['EOPNOTSUPP', 'unknown flag', withIoas((ctx, id) => copy(ctx, id, { flags: 8 }))],
  ['EOVERFLOW', 'src_iova is U64_MAX', withIoas((ctx, id) => copy(ctx, id, { src_iova: MAX }))],
  ['EOVERFLOW', 'dst_iova is U64_MAX', withIoas((ctx, id) => copy(ctx, id, { dst_iova: MAX }))],
  ['EOVERFLOW', 'length is U64_MAX', withIoas((ctx, id) => copy(ctx, id, { length: MAX }))],
  ['EINVAL', 'neither READABLE nor WRITEABLE', withIoas((ctx, id) => copy(ctx, id, { flags: 1 }))],
  ['ENOENT', 'no such source', withIoas((ctx, id) => copy(ctx, id, { src_ioas_id: 9 }))],
  ['EINVAL', 'length is 0', withIoas((ctx, id) => copy(ctx, id, { length: 0n }))],
  ['EOVERFLOW', 'source and length overflow', withIoas((ctx, id) => copy(ctx, id, { src_iova: MAX - 1n }))],
  ['ENOENT', 'a hole in the source', withIoas((ctx, id) => copy(ctx, id, { length: 0x20_0000n }))],
  ['ENOENT', 'no such destination', withIoas((ctx, id) => copy(ctx, id, { dst_ioas_id: 9 }))],
  ['EEXIST', 'an area is there', withIoas((ctx, id) => copy(ctx, id, { dst_iova: GPA }))],
  ['EINVAL', 'length is not a multiple of the alignment', withDomain((ctx, ioas) => copy(ctx, ioas, { length: 1n }))],
  ['EINVAL', 'the fixed IOVA is not aligned', withDomain((ctx, ioas) => copy(ctx, ioas, { dst_iova: 1n }))],
  [
    'EINVAL',
    'the fixed IOVA meets a reserved range',
    withDomain((ctx, ioas) => copy(ctx, ioas, { dst_iova: 1n << 48n })),
  ],
  [
    'EINVAL',
    'the offset in the page is not aligned',
    withDomain((ctx, ioas) => copy(ctx, ioas, { src_iova: GPA + 8n })),
  ],
  ['EOVERFLOW', 'the fixed IOVA and length overflow', withIoas((ctx, id) => copy(ctx, id, { dst_iova: MAX - 100n }))],
  ['ENOSPC', 'no hole in the allowed ranges', withIoas((ctx, id) => copy(allowOnly(ctx, id), id, { flags: 6 }))],
  [
    'EFAULT',
    'the destination has a domain and the pages cannot be pinned',
    withDomain((ctx, ioas) => {
      const source = ctx.ioasAlloc().out_ioas_id;
      ctx.ioasMap({ ioas_id: source, flags: 7, user_va: NOTHING, length: 4096n, iova: GPA });
      copy(ctx, ioas, { src_ioas_id: source });
    }),
  ],
  [
    'EPERM',
    'a WRITEABLE copy of pages mapped without',
    withIoas((ctx, id) => {
      ctx.ioasMap({ ioas_id: id, flags: 5, user_va: RO, length: 4096n, iova: 0n });
      copy(ctx, id, { src_iova: 0n, dst_iova: 0x10000n });
    }),
  ],
]);

rows('IOMMU_IOAS_UNMAP', [
  ['ENOENT', 'no such IOAS', (lab) => () => lab.ctx.ioasUnmap({ ioas_id: 3, length: 1n })],
  ['EOVERFLOW', 'length is U64_MAX', withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id, iova: 1n, length: MAX }))],
  ['EOVERFLOW', 'iova is U64_MAX', withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id, iova: MAX, length: 1n }))],
  ['EINVAL', 'length is 0', withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id }))],
  [
    'EOVERFLOW',
    'iova and length overflow',
    withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id, iova: MAX - 1n, length: 4n })),
  ],
  ['ENOENT', 'nothing there', withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id, length: 4096n }))],
  [
    'ENOENT',
    'an area lies only partly inside',
    withIoas((ctx, id) => ctx.ioasUnmap({ ioas_id: id, iova: GPA, length: 4096n })),
  ],
  [
    'EBUSY',
    'a HW_QUEUE locks the area',
    nested((ctx, { viommu, ioas }) => {
      ctx.hwQueueAlloc({ type: 1, viommu_id: viommu, nesting_parent_iova: GPA, length: 4096n });
      ctx.ioasUnmap({ ioas_id: ioas, length: MAX });
    }),
  ],
  [
    'EBUSY',
    'the area is being mapped',
    bound((ctx, dev, ioas, lab) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      let inner: unknown = null;
      const stop = lab.kernel.onPoint((point) => {
        if (point !== 'alloc:iommufd:pfn-batch') return;
        stop();
        try {
          ctx.ioasUnmap({ ioas_id: ioas, iova: 0x9000_0000n, length: 4096n });
        } catch (error) {
          inner = error;
        }
      });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n, iova: 0x9000_0000n });
      if (inner !== null) throw inner;
    }),
  ],
  [
    'EDEADLOCK',
    'an access keeps its pins',
    withIoas((ctx, id) => {
      const access = ctx.accessCreate({ needsPinPages: true, unmap: () => {} });
      access.attach(id);
      access.pinPages(GPA, 4096n, false);
      ctx.ioasUnmap({ ioas_id: id, length: MAX });
    }),
  ],
]);

rows('IOMMU_IOAS_CHANGE_PROCESS', [
  ['EOPNOTSUPP', '__reserved is not 0', (lab) => () => lab.ctx.ioasChangeProcess({ __reserved: 1 })],
  ['EINVAL', 'a mapping is not of a file', withIoas((ctx) => ctx.ioasChangeProcess())],
  [
    'EBUSY',
    'an area is being mapped',
    bound((ctx, dev, ioas, lab) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      let inner: unknown = null;
      const stop = lab.kernel.onPoint((point) => {
        if (point !== 'alloc:iommufd:pfn-batch') return;
        stop();
        try {
          ctx.ioasChangeProcess();
        } catch (error) {
          inner = error;
        }
      });
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n, iova: 0x9000_0000n });
      if (inner !== null) throw inner;
    }),
  ],
]);

rows('IOMMU_OPTION', [
  ['EOPNOTSUPP', '__reserved is not 0', (lab) => () => lab.ctx.option({ __reserved: 1 })],
  ['EOPNOTSUPP', 'unknown option', (lab) => () => lab.ctx.option({ option_id: 2 })],
  ['EOPNOTSUPP', 'RLIMIT_MODE of an object', (lab) => () => lab.ctx.option({ object_id: 1 })],
  [
    'EPERM',
    'RLIMIT_MODE without CAP_SYS_RESOURCE',
    (lab) => () => lab.ctx.option({ val64: 1n }),
    { incapable: true } as LabOptions,
  ],
  ['EBUSY', 'RLIMIT_MODE once an object exists', withIoas((ctx) => ctx.option({ val64: 1n }))],
  ['EINVAL', 'RLIMIT_MODE above 1', (lab) => () => lab.ctx.option({ val64: 2n })],
  ['EOPNOTSUPP', 'RLIMIT_MODE with an unknown op', (lab) => () => lab.ctx.option({ op: 2 })],
  ['ENOENT', 'HUGE_PAGES of no IOAS', (lab) => () => lab.ctx.option({ option_id: 1, object_id: 9 })],
  ['EINVAL', 'HUGE_PAGES above 1', withIoas((ctx, id) => ctx.option({ option_id: 1, object_id: id, val64: 2n }))],
  [
    'EOPNOTSUPP',
    'HUGE_PAGES with an unknown op',
    withIoas((ctx, id) => ctx.option({ option_id: 1, op: 2, object_id: id })),
  ],
  [
    'EINVAL',
    'HUGE_PAGES 0 with a domain and an area',
    bound((ctx, dev, ioas) => {
      ctx.hwptAlloc({ dev_id: dev, pt_id: ioas });
      ctx.option({ option_id: 1, object_id: ioas });
    }),
  ],
  [
    'EADDRINUSE',
    'HUGE_PAGES 0 with an area that is not page aligned',
    withIoas((ctx, id) => {
      ctx.ioasMap({ ioas_id: id, flags: 7, user_va: RW, length: 8n, iova: 0n });
      ctx.option({ option_id: 1, object_id: id });
    }),
  ],
  ['EFAULT', 'val64 cannot be copied', (lab) => () => noResponse(lab, () => lab.ctx.option({ op: 1 }))],
]);

rows('IOMMU_VFIO_IOAS', [
  ['EOPNOTSUPP', '__reserved is not 0', (lab) => () => lab.ctx.vfioIoasOp({ __reserved: 1 })],
  ['EOPNOTSUPP', 'unknown op', (lab) => () => lab.ctx.vfioIoasOp({ op: 3 })],
  ['ENODEV', 'GET with none set', (lab) => () => lab.ctx.vfioIoasOp({})],
  ['ENOENT', 'SET of no IOAS', (lab) => () => lab.ctx.vfioIoasOp({ op: 1, ioas_id: 5 })],
]);

rows('IOMMU_GET_HW_INFO', [
  ['EOPNOTSUPP', 'unknown flag', bound((ctx, dev) => ctx.getHwInfo({ dev_id: dev, flags: 2 }))],
  ['EOPNOTSUPP', '__reserved is not 0', bound((ctx, dev) => ctx.getHwInfo({ dev_id: dev, __reserved: [0, 0, 1] }))],
  ['ENOENT', 'no such device', (lab) => () => lab.ctx.getHwInfo({ dev_id: 1 })],
  [
    'EOPNOTSUPP',
    'the driver lacks the input type',
    bound((ctx, dev) => ctx.getHwInfo({ dev_id: dev, flags: 1, in_data_type: 9 })),
  ],
  ['EOPNOTSUPP', 'the driver gives type NONE', bound((ctx, dev) => ctx.getHwInfo({ dev_id: dev })), { hwInfoType: 0 }],
  [
    'EFAULT',
    'the buffer is not writable',
    bound((ctx, dev) => ctx.getHwInfo({ dev_id: dev, data_len: 4, data_uptr: RO })),
  ],
]);

const hwpt = (
  ctx: IommufdContext,
  dev: number,
  pt: number,
  more: Record<string, number | bigint | Uint8Array> = {},
): unknown => ctx.hwptAlloc({ dev_id: dev, pt_id: pt, ...more });
const nestedData = { data_type: MOCK.NESTED_DATA, data_uptr: VSTE };

const deviceOf = (lab: Lab, id: number): DeviceObject => lab.ctx.objects.peek(id) as DeviceObject;
/** A vIOMMU whose driver lacks an operation. */
function withoutOp(ctx: IommufdContext, id: number, op: keyof ViommuOps): void {
  Object.assign((ctx.objects.peek(id) as ViommuObject).ops ?? {}, { [op]: undefined });
}

rows('IOMMU_HWPT_ALLOC', [
  ['EOPNOTSUPP', '__reserved is not 0', bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { __reserved: 1 }))],
  ['EINVAL', 'data without a type', bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { data_len: 4 }))],
  ['EINVAL', 'a type without data', bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { data_type: 2 }))],
  ['ENOENT', 'no such device', withIoas((ctx, ioas) => hwpt(ctx, 9, ioas))],
  ['EINVAL', 'pt_id names nothing', bound((ctx, dev) => hwpt(ctx, dev, 9))],
  ['EINVAL', 'pt_id names a device', bound((ctx, dev) => hwpt(ctx, dev, dev))],
  ['EOPNOTSUPP', 'IOAS: unknown flag', bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { flags: 16 }))],
  [
    'EOPNOTSUPP',
    'IOAS: flags, and the driver cannot allocate with flags',
    bound((ctx, dev, ioas, lab) => {
      Object.assign(lab.driver.ops, { domainAllocPagingFlags: undefined });
      hwpt(ctx, dev, ioas, { flags: 1 });
    }),
  ],
  [
    'EOPNOTSUPP',
    'IOAS: dirty tracking the device lacks',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { flags: 2 })),
    { dirty: false },
  ],
  [
    'EOPNOTSUPP',
    'IOAS: fault queue for a nesting parent',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, { flags: 5 })),
  ],
  ['EOPNOTSUPP', 'IOAS: the driver refuses the data', bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas, nestedData))],
  [
    'EINVAL',
    'IOAS: the domain cannot map single pages',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas)),
    { pgsizeBitmap: 0x1_0000n },
  ],
  [
    'EADDRINUSE',
    'IOAS: an area is not aligned',
    bound((ctx, dev, ioas) => {
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 8n, iova: 0n });
      hwpt(ctx, dev, ioas);
    }),
  ],
  [
    'EADDRINUSE',
    'IOAS: an area is outside the aperture',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas)),
    { aperture: { start: 0n, end: 0xffffn } },
  ],
  [
    'EADDRINUSE',
    'IOAS: an allowed range is outside the aperture',
    bound((ctx, dev) => {
      const ioas = ctx.ioasAlloc().out_ioas_id;
      ctx.ioasAllowIovas({ ioas_id: ioas, num_iovas: 1, allowed_iovas: range(0n, 1n << 50n) });
      hwpt(ctx, dev, ioas);
    }),
  ],
  [
    'EFAULT',
    'IOAS: pages cannot be pinned',
    bound((ctx, dev, ioas) => {
      ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: NOTHING, length: 4096n, iova: 0n });
      hwpt(ctx, dev, ioas);
    }),
  ],
  [
    'EINVAL',
    'IOAS: the domain cannot enforce coherency',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ioas)),
    { enforceCoherency: false },
  ],
  [
    'EOPNOTSUPP',
    'HWPT: flags of a paging one',
    nested((ctx, { dev, parent }) => hwpt(ctx, dev, parent, { flags: 1, ...nestedData })),
  ],
  ['EOPNOTSUPP', 'HWPT: no data', nested((ctx, { dev, parent }) => hwpt(ctx, dev, parent))],
  [
    'EOPNOTSUPP',
    'HWPT: the driver nests on a vIOMMU only',
    nested((ctx, { dev, parent }) => hwpt(ctx, dev, parent, nestedData)),
    { nestedOnParent: false },
  ],
  [
    'EINVAL',
    'HWPT: not a nesting parent',
    bound((ctx, dev, ioas) => hwpt(ctx, dev, ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id, nestedData)),
  ],
  [
    'EINVAL',
    'HWPT: an automatic one',
    bound((ctx, dev, ioas, lab) => hwpt(ctx, dev, ctx.attach(deviceOf(lab, dev), ioas), nestedData)),
  ],
  [
    'EINVAL',
    'HWPT: of another driver',
    nested((ctx, { dev, parent }) => {
      Object.assign((ctx.objects.peek(parent) as HwptPaging).liveDomain, { owner: null });
      hwpt(ctx, dev, parent, nestedData);
    }),
  ],
  [
    'EINVAL',
    'VIOMMU: the device is behind another IOMMU',
    nested((ctx, { viommu }, lab) => hwpt(ctx, ctx.bind(lab.c).id, viommu, nestedData)),
  ],
  [
    'EOPNOTSUPP',
    'VIOMMU: flags of a paging one',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { flags: 1, ...nestedData })),
  ],
  ['EOPNOTSUPP', 'VIOMMU: no data', nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu))],
  [
    'EOPNOTSUPP',
    'VIOMMU: it cannot nest',
    nested((ctx, { dev, viommu }) => {
      withoutOp(ctx, viommu, 'allocDomainNested');
      hwpt(ctx, dev, viommu, nestedData);
    }),
  ],
  [
    'EOPNOTSUPP',
    'VIOMMU: the driver makes another kind of domain',
    nested((ctx, { dev, viommu, parent }) => {
      const { ops } = ctx.objects.peek(viommu) as ViommuObject;
      const other = (ctx.objects.peek(parent) as HwptPaging).liveDomain;
      Object.assign(ops ?? {}, { allocDomainNested: () => ({ ...other }) });
      hwpt(ctx, dev, viommu, nestedData);
    }),
  ],
  [
    'EOPNOTSUPP',
    'VIOMMU: the driver refuses ALLOC_PASID',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { flags: 8, ...nestedData })),
  ],
  [
    'EINVAL',
    'VIOMMU: the driver wants another type',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { data_type: 1, data_uptr: VSTE })),
  ],
  [
    'EINVAL',
    'VIOMMU: the driver wants another length',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { data_type: 2, data_uptr: new Uint8Array(17) })),
  ],
  [
    'EFAULT',
    'VIOMMU: the data is not readable',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { data_type: 2, data_len: 16, data_uptr: NOTHING })),
  ],
  [
    'EIO',
    'VIOMMU: the driver refuses the vSTE',
    nested((ctx, { dev, viommu }, lab) => {
      lab.driver.fail('alloc-nested', 'EIO');
      hwpt(ctx, dev, viommu, nestedData);
    }),
  ],
  [
    'ENOENT',
    'the fault queue is not one',
    nested((ctx, { dev, viommu }) => hwpt(ctx, dev, viommu, { flags: 4, fault_id: viommu, ...nestedData })),
  ],
  [
    'EFAULT',
    'the answer cannot be copied',
    bound((ctx, dev, ioas, lab) => noResponse(lab, () => hwpt(ctx, dev, ioas))),
  ],
  [
    'ENOMEM',
    'no memory for the object',
    bound((ctx, dev, ioas, lab) => {
      lab.kernel.failNth(1, 'alloc:iommufd:HWPT_PAGING');
      hwpt(ctx, dev, ioas);
    }),
  ],
]);

const dirtyHwpt = bound; // readability: these need a device and an IOAS only
rows('IOMMU_HWPT_SET_DIRTY_TRACKING', [
  ['EOPNOTSUPP', 'unknown flag', (lab) => () => lab.ctx.hwptSetDirtyTracking({ flags: 2 })],
  ['ENOENT', 'not a paging HWPT', withIoas((ctx, id) => ctx.hwptSetDirtyTracking({ hwpt_id: id }))],
  [
    'EOPNOTSUPP',
    'made without DIRTY_TRACKING',
    nested((ctx, { parent }) => ctx.hwptSetDirtyTracking({ hwpt_id: parent, flags: 1 })),
  ],
  [
    'EIO',
    'the driver fails',
    dirtyHwpt((ctx, dev, ioas, lab) => {
      const id = ctx.hwptAlloc({ dev_id: dev, pt_id: ioas, flags: 2 }).out_hwpt_id;
      lab.driver.fail('set-dirty', 'EIO');
      ctx.hwptSetDirtyTracking({ hwpt_id: id, flags: 1 });
    }),
  ],
]);

const bitmap = (ctx: IommufdContext, id: number, more: Record<string, number | bigint>): unknown =>
  ctx.hwptGetDirtyBitmap({ hwpt_id: id, iova: GPA, length: 0x1000n, page_size: 0x1000n, data: RW, ...more });
rows('IOMMU_HWPT_GET_DIRTY_BITMAP', [
  ['EOPNOTSUPP', 'unknown flag', nested((ctx, { parent }) => bitmap(ctx, parent, { flags: 2 }))],
  ['EOPNOTSUPP', '__reserved is not 0', nested((ctx, { parent }) => bitmap(ctx, parent, { __reserved: 1 }))],
  ['ENOENT', 'not a paging HWPT', nested((ctx, { viommu }) => bitmap(ctx, viommu, {}))],
  [
    'EOVERFLOW',
    'iova and length overflow',
    nested((ctx, { parent }) => bitmap(ctx, parent, { iova: MAX - 0xfffn, length: 0x2000n })),
  ],
  ['EOVERFLOW', 'length 0, which wraps', nested((ctx, { parent }) => bitmap(ctx, parent, { length: 0n }))],
  ['EINVAL', 'iova is not aligned', nested((ctx, { parent }) => bitmap(ctx, parent, { iova: GPA + 1n }))],
  ['EINVAL', 'the end is not aligned', nested((ctx, { parent }) => bitmap(ctx, parent, { length: 0x1001n }))],
  ['EINVAL', 'page_size is 0', nested((ctx, { parent }) => bitmap(ctx, parent, { page_size: 0n }))],
  [
    'EINVAL',
    'the range is not aligned to page_size',
    nested((ctx, { parent }) => bitmap(ctx, parent, { page_size: 0x2000n })),
  ],
  ['EOPNOTSUPP', 'made without DIRTY_TRACKING', nested((ctx, { parent }) => bitmap(ctx, parent, {}))],
]);

const invalidate = (ctx: IommufdContext, id: number, more: Record<string, number | bigint | Uint8Array>): unknown =>
  ctx.hwptInvalidate({
    hwpt_id: id,
    data_type: 1,
    entry_len: 16,
    entry_num: 1,
    data_uptr: new Uint8Array(16),
    ...more,
  });
rows('IOMMU_HWPT_INVALIDATE', [
  ['EOPNOTSUPP', '__reserved is not 0', nested((ctx, { viommu }) => invalidate(ctx, viommu, { __reserved: 1 }))],
  ['EINVAL', 'data_uptr is 0', nested((ctx, { viommu }) => invalidate(ctx, viommu, { data_uptr: 0n }))],
  ['EINVAL', 'entry_len is 0', nested((ctx, { viommu }) => invalidate(ctx, viommu, { entry_len: 0 }))],
  ['EINVAL', 'entry_len is above a page', nested((ctx, { viommu }) => invalidate(ctx, viommu, { entry_len: 4097 }))],
  [
    'EINVAL',
    'more than 2^19 entries',
    nested((ctx, { viommu }) => invalidate(ctx, viommu, { entry_num: 2 ** 19 + 1 })),
  ],
  ['ENOENT', 'the id names nothing', (lab) => () => invalidate(lab.ctx, 5, {})],
  [
    'EOPNOTSUPP',
    'a nested HWPT of a driver that takes them by vIOMMU',
    nested((ctx, { dev, viommu }) => {
      const id = ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, ...nestedData }).out_hwpt_id;
      invalidate(ctx, id, {});
    }),
    { nestedOnParent: false },
  ],
  ['EINVAL', 'the parent HWPT', nested((ctx, { parent }) => invalidate(ctx, parent, {}))],
  ['EINVAL', 'an IOAS', nested((ctx, { ioas }) => invalidate(ctx, ioas, {}))],
  [
    'EOPNOTSUPP',
    'a vIOMMU of a driver that takes none',
    nested((ctx, { viommu }) => {
      withoutOp(ctx, viommu, 'cacheInvalidate');
      invalidate(ctx, viommu, {});
    }),
  ],
  ['EINVAL', 'the driver wants another type', nested((ctx, { viommu }) => invalidate(ctx, viommu, { data_type: 0 }))],
  [
    'E2BIG',
    'an entry has a tail that is not zero',
    nested((ctx, { viommu }) => invalidate(ctx, viommu, { entry_len: 24, data_uptr: new Uint8Array(24).fill(1) })),
  ],
  [
    'EFAULT',
    'the entries are not readable',
    nested((ctx, { viommu }) => invalidate(ctx, viommu, { data_uptr: NOTHING })),
  ],
  [
    'EIO',
    'the driver refuses an entry',
    nested((ctx, { viommu }) =>
      invalidate(ctx, viommu, { data_uptr: new Uint8Array(new Uint32Array([MOCK.BAD_COMMAND, 0, 0, 0]).buffer) }),
    ),
  ],
  [
    'EFAULT',
    'entry_num cannot be copied, whatever failed before',
    nested((ctx, { viommu }, lab) => noResponse(lab, () => invalidate(ctx, viommu, { __reserved: 1 }))),
  ],
]);

rows('IOMMU_FAULT_QUEUE_ALLOC', [
  ['EOPNOTSUPP', 'flags is not 0', (lab) => () => lab.ctx.faultQueueAlloc({ flags: 1 })],
  [
    'EMFILE',
    'no descriptor is left',
    (lab) => () => {
      lab.ctx.faultQueueAlloc();
      lab.ctx.faultQueueAlloc();
    },
    { maxFd: 4 } as LabOptions,
  ],
  ['EFAULT', 'the answer cannot be copied', (lab) => () => noResponse(lab, () => lab.ctx.faultQueueAlloc())],
]);

const viommu = (ctx: IommufdContext, dev: number, parent: number, more: Record<string, number> = {}): unknown =>
  ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: parent, ...more });
rows('IOMMU_VIOMMU_ALLOC', [
  ['EOPNOTSUPP', 'flags is not 0', nested((ctx, { dev, parent }) => viommu(ctx, dev, parent, { flags: 1 }))],
  ['EOPNOTSUPP', 'type DEFAULT', nested((ctx, { dev, parent }) => viommu(ctx, dev, parent, { type: 0 }))],
  ['ENOENT', 'no such device', (lab) => () => viommu(lab.ctx, 1, 1)],
  [
    'EOPNOTSUPP',
    'the driver lacks the ops, whatever the HWPT',
    bound((ctx, dev) => viommu(ctx, dev, 99)),
    { viommu: false },
  ],
  [
    'EOPNOTSUPP',
    'size 0: the driver lacks the type',
    nested((ctx, { dev, parent }) => viommu(ctx, dev, parent, { type: 7 })),
  ],
  ['EOPNOTSUPP', 'the struct does not embed the core', bound((ctx, dev) => viommu(ctx, dev, 99)), { viommuSize: 8 }],
  ['ENOENT', 'hwpt_id is not a paging HWPT', bound((ctx, dev) => viommu(ctx, dev, dev))],
  [
    'EINVAL',
    'the HWPT is not a nesting parent',
    bound((ctx, dev, ioas) => viommu(ctx, dev, ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id)),
  ],
  [
    'ENOSPC',
    'viommuInit fails',
    nested((ctx, { dev, parent }, lab) => {
      lab.driver.fail('viommu-init', 'ENOSPC');
      viommu(ctx, dev, parent);
    }),
  ],
  [
    'EOPNOTSUPP',
    'viommuInit leaves ops unset',
    bound((ctx, dev, ioas) => viommu(ctx, dev, ctx.hwptAlloc({ dev_id: dev, pt_id: ioas, flags: 1 }).out_hwpt_id)),
    { setOps: false },
  ],
  [
    'EFAULT',
    'the answer cannot be copied',
    nested((ctx, { dev, parent }, lab) => noResponse(lab, () => viommu(ctx, dev, parent))),
  ],
]);

const vdevice = (ctx: IommufdContext, viommuId: number, dev: number, virtId = 5n): unknown =>
  ctx.vdeviceAlloc({ viommu_id: viommuId, dev_id: dev, virt_id: virtId });
rows('IOMMU_VDEVICE_ALLOC', [
  ['ENOENT', 'no such vIOMMU', bound((ctx, dev) => vdevice(ctx, dev, dev))],
  ['ENOENT', 'no such device', nested((ctx, ids) => vdevice(ctx, ids.viommu, ids.viommu))],
  [
    'EINVAL',
    'the device is behind another IOMMU',
    nested((ctx, ids, lab) => vdevice(ctx, ids.viommu, ctx.bind(lab.c).id)),
  ],
  [
    'ENOENT',
    'the device is being unbound',
    nested((ctx, ids, lab) => {
      const idev = ctx.bind(lab.b);
      vdevice(ctx, ids.viommu, idev.id);
      let inner: unknown = null;
      const stop = lab.kernel.onPoint((point) => {
        if (point !== `unlock:iommufd:igroup:${lab.b.group?.id}` || !idev.destroying) return;
        stop();
        try {
          vdevice(ctx, ids.viommu, idev.id, 6n);
        } catch (error) {
          inner = error;
        }
      });
      ctx.unbind(idev);
      if (inner !== null) throw inner;
    }),
  ],
  [
    'EEXIST',
    'the device has one already',
    nested((ctx, ids) => {
      vdevice(ctx, ids.viommu, ids.dev, 5n);
      vdevice(ctx, ids.viommu, ids.dev, 6n);
    }),
  ],
  [
    'EOPNOTSUPP',
    'the struct does not embed the core',
    nested((ctx, ids) => vdevice(ctx, ids.viommu, ids.dev)),
    { vdeviceSize: 8 },
  ],
  [
    'EOPNOTSUPP',
    'a size without an init',
    nested((ctx, ids) => vdevice(ctx, ids.viommu, ids.dev)),
    { vdeviceInit: false },
  ],
  [
    'EEXIST',
    'the virtual id is in use',
    nested((ctx, ids, lab) => {
      vdevice(ctx, ids.viommu, ids.dev);
      vdevice(ctx, ids.viommu, ctx.bind(lab.b).id);
    }),
  ],
  [
    'ENOSPC',
    'vdeviceInit fails',
    nested((ctx, ids, lab) => {
      lab.driver.fail('vdevice-init', 'ENOSPC');
      vdevice(ctx, ids.viommu, ids.dev);
    }),
  ],
  [
    'EFAULT',
    'the answer cannot be copied',
    nested((ctx, ids, lab) => noResponse(lab, () => vdevice(ctx, ids.viommu, ids.dev))),
  ],
]);

const veventq = (ctx: IommufdContext, id: number, more: Record<string, number> = {}): unknown =>
  ctx.veventqAlloc({ viommu_id: id, type: 1, veventq_depth: 4, ...more });
rows('IOMMU_VEVENTQ_ALLOC', [
  ['EOPNOTSUPP', 'flags is not 0', nested((ctx, ids) => veventq(ctx, ids.viommu, { flags: 1 }))],
  ['EOPNOTSUPP', '__reserved is not 0', nested((ctx, ids) => veventq(ctx, ids.viommu, { __reserved: 1 }))],
  ['EOPNOTSUPP', 'type DEFAULT', nested((ctx, ids) => veventq(ctx, ids.viommu, { type: 0 }))],
  ['EINVAL', 'depth 0', nested((ctx, ids) => veventq(ctx, ids.viommu, { veventq_depth: 0 }))],
  ['EINVAL', 'depth above 2^19', nested((ctx, ids) => veventq(ctx, ids.viommu, { veventq_depth: 2 ** 19 + 1 }))],
  ['ENOENT', 'no such vIOMMU', (lab) => () => veventq(lab.ctx, 4)],
  [
    'EEXIST',
    'one of that type is there',
    nested((ctx, ids) => {
      veventq(ctx, ids.viommu);
      veventq(ctx, ids.viommu);
    }),
  ],
  [
    'EMFILE',
    'no descriptor is left',
    nested((ctx, ids) => {
      ctx.faultQueueAlloc();
      veventq(ctx, ids.viommu);
    }),
    { maxFd: 4 } as LabOptions,
  ],
  ['EFAULT', 'the answer cannot be copied', nested((ctx, ids, lab) => noResponse(lab, () => veventq(ctx, ids.viommu)))],
]);

const queue = (ctx: IommufdContext, id: number, more: Record<string, number | bigint> = {}): unknown =>
  ctx.hwQueueAlloc({ viommu_id: id, type: 1, nesting_parent_iova: GPA, length: 4096n, ...more });
rows('IOMMU_HW_QUEUE_ALLOC', [
  ['EOPNOTSUPP', 'flags is not 0', nested((ctx, ids) => queue(ctx, ids.viommu, { flags: 1 }))],
  ['EOPNOTSUPP', 'type DEFAULT', nested((ctx, ids) => queue(ctx, ids.viommu, { type: 0 }))],
  ['EINVAL', 'length is 0', nested((ctx, ids) => queue(ctx, ids.viommu, { length: 0n }))],
  [
    'EOVERFLOW',
    'address and length overflow',
    nested((ctx, ids) => queue(ctx, ids.viommu, { nesting_parent_iova: MAX })),
  ],
  ['ENOENT', 'no such vIOMMU', (lab) => () => queue(lab.ctx, 5)],
  ['EOPNOTSUPP', 'the driver has no queues', nested((ctx, ids) => queue(ctx, ids.viommu)), { hwQueues: false }],
  ['EOPNOTSUPP', 'the driver lacks the type', nested((ctx, ids) => queue(ctx, ids.viommu, { type: 2 }))],
  [
    'EOPNOTSUPP',
    'the struct does not embed the core',
    nested((ctx, ids) => {
      Object.assign((ctx.objects.peek(ids.viommu) as ViommuObject).ops ?? {}, { getHwQueueSize: () => 8 });
      queue(ctx, ids.viommu);
    }),
  ],
  [
    'ERANGE',
    'rounding the length up overflows',
    nested((ctx, ids) => queue(ctx, ids.viommu, { nesting_parent_iova: 0n, length: MAX })),
  ],
  ['ENOENT', 'the range is not mapped', nested((ctx, ids) => queue(ctx, ids.viommu, { nesting_parent_iova: 0n }))],
  [
    'EADDRINUSE',
    'an area is not page aligned',
    nested((ctx, ids) => queue(ctx, ids.viommu)),
    { pgsizeBitmap: 0x8n, unaligned: true } as LabOptions,
  ],
  [
    'EPERM',
    'the area is not READABLE',
    nested((ctx, ids) => {
      ctx.ioasMap({ ioas_id: ids.ioas, flags: 3, user_va: RW, length: 4096n, iova: 0n });
      queue(ctx, ids.viommu, { nesting_parent_iova: 0n });
    }),
  ],
  ['EFAULT', 'the pages are not contiguous', nested((ctx, ids) => queue(ctx, ids.viommu, { length: 8192n }))],
  [
    'EINVAL',
    'the area is being unmapped',
    nested((ctx, ids) => {
      let inner: unknown = null;
      const access = ctx.accessCreate({
        needsPinPages: true,
        unmap: () => {
          try {
            queue(ctx, ids.viommu);
          } catch (error) {
            inner = error;
          }
          access.unpinPages(GPA, 4096n);
        },
      });
      access.attach(ids.ioas);
      access.pinPages(GPA, 4096n, false);
      ctx.ioasUnmap({ ioas_id: ids.ioas, iova: GPA, length: 0x10_0000n });
      if (inner !== null) throw inner;
    }),
  ],
  ['EIO', 'the driver refuses the index', nested((ctx, ids) => queue(ctx, ids.viommu, { index: 1 }))],
  [
    'EEXIST',
    'the index is in use',
    nested((ctx, ids) => {
      queue(ctx, ids.viommu);
      queue(ctx, ids.viommu);
    }),
  ],
  ['EFAULT', 'the answer cannot be copied', nested((ctx, ids, lab) => noResponse(lab, () => queue(ctx, ids.viommu)))],
]);

/** All cells. */
export const ERRNO_CASES: readonly ErrnoCase[] = cases;
