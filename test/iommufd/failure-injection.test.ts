import { expect, test } from 'vitest';
import { KernelError } from '../../src/driver/kernel.ts';
import type { DeviceObject } from '../../src/iommufd/index.ts';
import { FILE, Lab, RW, VSTE } from './lab.ts';

/** Everything that a leak would show in. */
function snapshot(lab: Lab): unknown {
  const { ctx, kernel, driver } = lab;
  return {
    objects: ctx.objects.list().map(({ kind, id, users, waitCnt }) => `${kind} ${id} users=${users} wait=${waitCnt}`),
    pages: kernel.pagesUsed,
    pinned: ctx.pins.pinned,
    files: ctx.files.size,
    mmaps: ctx.mmaps.size,
    fileRefs: ctx.fileRefs,
    driver: driver.live.size,
    igroups: [...ctx.igroups.values()].map(({ attachments }) => [...attachments.keys()]),
    owners: lab.core.groups.map(({ ownerCount, domain }) => `${ownerCount} ${domain?.type}`),
  };
}

type Ids = { dev: number; ioas: number; parent: number; viommu: number };
interface Path {
  readonly name: string;
  readonly setUp?: (lab: Lab, ids: Ids) => number;
  readonly call: (lab: Lab, ids: Ids, more: number) => unknown;
  /** Without the nested set-up. */
  readonly bare?: boolean;
}

const GPA = 0x8000_0000n;
const deviceOf = (lab: Lab, ids: Ids): DeviceObject => lab.ctx.objects.peek(ids.dev) as DeviceObject;
const nestedHwpt = (lab: Lab, { dev, viommu }: Ids, more = {}): number =>
  lab.ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: VSTE, ...more }).out_hwpt_id;

const PATHS: readonly Path[] = [
  { name: 'bind', bare: true, call: ({ ctx, a }) => ctx.bind(a) },
  { name: 'IOAS_ALLOC', bare: true, call: ({ ctx }) => ctx.ioasAlloc() },
  {
    name: 'IOAS_MAP',
    call: ({ ctx }, { ioas }) => ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x4000n, iova: 0n }),
  },
  {
    name: 'IOAS_COPY',
    call: ({ ctx }, { ioas }) =>
      ctx.ioasCopy({ flags: 7, src_ioas_id: ioas, dst_ioas_id: ioas, src_iova: GPA, length: 0x4000n }),
  },
  {
    name: 'IOAS_ALLOW_IOVAS',
    call: ({ ctx }, { ioas }) =>
      ctx.ioasAllowIovas({
        ioas_id: ioas,
        num_iovas: 1,
        allowed_iovas: new Uint8Array(new BigUint64Array([0n, 0xfffn]).buffer),
      }),
  },
  { name: 'HWPT_ALLOC paging', call: ({ ctx }, { dev, ioas }) => ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }) },
  { name: 'HWPT_ALLOC nested', call: (lab, ids) => nestedHwpt(lab, ids) },
  {
    name: 'HWPT_ALLOC nested on the parent',
    call: ({ ctx }, { dev, parent }) => ctx.hwptAlloc({ dev_id: dev, pt_id: parent, data_type: 2, data_uptr: VSTE }),
  },
  {
    name: 'HWPT_ALLOC with a fault queue',
    setUp: ({ ctx }) => ctx.faultQueueAlloc().out_fault_id,
    call: (lab, ids, fault) => nestedHwpt(lab, ids, { flags: 4, fault_id: fault }),
  },
  {
    name: 'VIOMMU_ALLOC',
    call: ({ ctx }, { dev, parent }) => ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: parent }),
  },
  {
    name: 'VDEVICE_ALLOC',
    call: ({ ctx }, { dev, viommu }) => ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev, virt_id: 7n }),
  },
  {
    name: 'VEVENTQ_ALLOC',
    call: ({ ctx }, { viommu }) => ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 4 }),
  },
  { name: 'FAULT_QUEUE_ALLOC', call: ({ ctx }) => ctx.faultQueueAlloc() },
  {
    name: 'HW_QUEUE_ALLOC',
    call: ({ ctx }, { viommu }) =>
      ctx.hwQueueAlloc({ viommu_id: viommu, type: 1, nesting_parent_iova: GPA, length: 4096n }),
  },
  {
    name: 'HWPT_INVALIDATE',
    call: ({ ctx }, { viommu }) =>
      ctx.hwptInvalidate({ hwpt_id: viommu, data_type: 1, entry_len: 16, entry_num: 1, data_uptr: new Uint8Array(16) }),
  },
  { name: 'GET_HW_INFO', call: ({ ctx }, { dev }) => ctx.getHwInfo({ dev_id: dev, data_len: 40, data_uptr: RW }) },
  {
    name: 'attach to an IOAS',
    call: (lab, ids) => lab.ctx.attach(deviceOf(lab, ids), ids.ioas),
  },
  {
    name: 'replace by a nested HWPT',
    setUp: (lab, ids) => {
      lab.ctx.attach(deviceOf(lab, ids), ids.ioas);
      return nestedHwpt(lab, ids);
    },
    call: (lab, ids, more) => lab.ctx.replace(deviceOf(lab, ids), more),
  },
  {
    name: 'replace by another IOAS',
    setUp: (lab, ids) => {
      lab.ctx.attach(deviceOf(lab, ids), ids.ioas);
      return lab.mapped();
    },
    call: (lab, ids, more) => lab.ctx.replace(deviceOf(lab, ids), more),
  },
  {
    name: 'IOAS_IOVA_RANGES',
    call: ({ ctx }, { ioas }) => ctx.ioasIovaRanges({ ioas_id: ioas, num_iovas: 4, allowed_iovas: RW }),
  },
  {
    name: 'IOAS_MAP_FILE',
    call: ({ ctx }, { ioas }) => ctx.ioasMapFile({ ioas_id: ioas, flags: 7, fd: FILE, length: 0x4000n, iova: 0n }),
  },
  { name: 'OPTION', call: ({ ctx }, { ioas }) => ctx.option({ option_id: 1, op: 1, object_id: ioas }) },
  {
    name: 'VFIO_IOAS',
    setUp: ({ ctx }, { ioas }) => {
      ctx.vfioIoasOp({ op: 1, ioas_id: ioas });
      return ioas;
    },
    call: ({ ctx }) => ctx.vfioIoasOp({}),
  },
  { name: 'IOAS_CHANGE_PROCESS', bare: true, call: ({ ctx }) => ctx.ioasChangeProcess() },
  {
    name: 'HWPT_SET_DIRTY_TRACKING',
    setUp: ({ ctx }, { dev, ioas }) => ctx.hwptAlloc({ dev_id: dev, pt_id: ioas, flags: 2 }).out_hwpt_id,
    call: ({ ctx }, _ids, hwpt) => ctx.hwptSetDirtyTracking({ hwpt_id: hwpt, flags: 1 }),
  },
  {
    name: 'mmap',
    call: ({ ctx }) => ctx.mmap({ offset: 0x1000n, length: 0x1_0000n }),
  },
];

/** Kinds of failure, and the errno that comes out. */
const KINDS = [
  ['alloc:', 'ENOMEM'],
  ['ids:', 'ENOMEM'],
  ['copy:', 'EFAULT'],
] as const;

const NO_IDS: Ids = { dev: 0, ioas: 0, parent: 0, viommu: 0 };

for (const { name, setUp, call, bare } of PATHS)
  for (const [prefix, expected] of KINDS)
    test(`${name}: every ${prefix} that fails gives ${expected}, leaks nothing, and the call then succeeds`, () => {
      for (let n = 1; ; n++) {
        const lab = new Lab({ contiguous: true });
        const ids = bare ? NO_IDS : lab.nested();
        const more = setUp?.(lab, ids) ?? 0;
        const before = snapshot(lab);
        const plan = lab.kernel.failNth(n, prefix);
        let error: unknown;
        try {
          call(lab, ids, more);
        } catch (thrown) {
          error = thrown;
        }
        if (plan.fired === null) {
          expect(error).toBeUndefined();
          expect(n).toBeLessThan(60);
          return;
        }
        expect(error, `${plan.fired}`).toBeInstanceOf(KernelError);
        expect((error as KernelError).errno, `${plan.fired}`).toBe(expected);
        expect(snapshot(lab), `${plan.fired}`).toEqual(before);
        lab.kernel.clearFailures();
        call(lab, ids, more);
        expect(lab.kernel.messages.filter(({ level }) => level !== 'info')).toEqual([]);
      }
    });

test('close after any failure leaves nothing', () => {
  const lab = new Lab();
  const ids = lab.nested();
  const base = lab.kernel.pagesUsed;
  lab.kernel.failNth(2, 'alloc:');
  expect(() => nestedHwpt(lab, ids)).toThrow();
  lab.kernel.clearFailures();
  lab.ctx.unbind(deviceOf(lab, ids));
  lab.ctx.close();
  expect(lab.ctx.objects.empty).toBe(true);
  expect(lab.driver.live.size).toBe(0);
  expect(lab.ctx.pins.pinned).toBe(0);
  expect(lab.kernel.pagesUsed).toBe(base);
});
