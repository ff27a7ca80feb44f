/** Failures in calls that end, read or answer something, and time-outs along a VM's life with a VINTF and queues. */
import { expect, test } from 'vitest';
import { iommu_hwpt_page_response } from '../../spec/uapi.ts';
import { IopfQueue, reportDeviceFault } from '../../src/driver/iommu/index.ts';
import type { IommufdViommu } from '../../src/driver/iommu/ops.ts';
import type { DeviceObject } from '../../src/iommufd/index.ts';
import { Lab as CmdqvLab, Vm } from '../driver/tegra241/lab.ts';
import { errno, Lab, RW, VSTE } from './lab.ts';

const GPA = 0x8000_0000n;

/** Everything that a leak would show in. */
const snapshot = ({ ctx, kernel, driver }: Lab): unknown => ({
  objects: ctx.objects.list().map(({ kind, id, users, waitCnt }) => `${kind} ${id} users=${users} wait=${waitCnt}`),
  pages: kernel.pagesUsed,
  pinned: ctx.pins.pinned,
  files: ctx.files.size,
  fileRefs: ctx.fileRefs,
  driver: driver.live.size,
});

type Ids = ReturnType<Lab['nested']>;
const deviceOf = ({ ctx }: Lab, { dev }: Ids): DeviceObject => ctx.objects.peek(dev) as DeviceObject;
const nestedHwpt = ({ ctx }: Lab, { dev, viommu }: Ids, more = {}): number =>
  ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: VSTE, ...more }).out_hwpt_id;

/** Makes an object that nothing but its id holds. */
const OBJECTS: Readonly<Record<string, (lab: Lab, ids: Ids) => number>> = {
  IOAS: ({ ctx }) => ctx.ioasAlloc().out_ioas_id,
  'IOAS with a mapping': (lab) => lab.mapped(),
  HWPT_PAGING: ({ ctx }, { dev, ioas }) => ctx.hwptAlloc({ dev_id: dev, pt_id: ioas }).out_hwpt_id,
  HWPT_NESTED: (lab, ids) => nestedHwpt(lab, ids),
  VIOMMU: ({ ctx }, { dev, parent }) => ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: parent }).out_viommu_id,
  VDEVICE: ({ ctx }, { dev, viommu }) =>
    ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev, virt_id: 7n }).out_vdevice_id,
  VEVENTQ: ({ ctx }, { viommu }) => {
    const queue = ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 4 });
    ctx.closeFd(queue.out_veventq_fd);
    return queue.out_veventq_id;
  },
  FAULT: ({ ctx }) => {
    const queue = ctx.faultQueueAlloc();
    ctx.closeFd(queue.out_fault_fd);
    return queue.out_fault_id;
  },
  HW_QUEUE: ({ ctx }, { viommu }) =>
    ctx.hwQueueAlloc({ viommu_id: viommu, type: 1, nesting_parent_iova: GPA, length: 4096n }).out_hw_queue_id,
};

interface Path {
  readonly name: string;
  /** @returns the call; it throws if it succeeds with a wrong result */
  readonly make: (lab: Lab, ids: Ids) => () => void;
}

const PATHS: readonly Path[] = [
  ...Object.entries(OBJECTS).map(
    ([kind, alloc]): Path => ({
      name: `DESTROY of ${kind}`,
      make: (lab, ids) => {
        const before = snapshot(lab);
        const id = alloc(lab, ids);
        return () => {
          lab.ctx.destroy({ id });
          expect(snapshot(lab)).toEqual(before);
        };
      },
    }),
  ),
  {
    name: 'detach and unbind',
    make: (lab, ids) => {
      const idev = deviceOf(lab, ids);
      lab.ctx.destroy({ id: ids.viommu });
      lab.ctx.attach(idev, ids.parent);
      return () => {
        lab.ctx.detach(idev);
        expect(lab.ctx.unbind(idev)).toBe(true);
        expect(lab.ctx.objects.peek(ids.dev)).toBeUndefined();
      };
    },
  },
  {
    name: 'read of a vEVENTQ',
    make: ({ ctx }, { viommu }) => {
      const { out_veventq_fd: fd } = ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 4 });
      const object = ctx.objects.peek(viommu) as unknown as IommufdViommu;
      object.callbacks.reportEvent(object, 1, new Uint8Array(32));
      return () => expect(ctx.readTo(fd, RW, 4096)).toBe(40);
    },
  },
  ...(['read', 'write'] as const).map(
    (act): Path => ({
      name: `${act} of a fault queue`,
      make: (lab, ids) => {
        const { ctx } = lab;
        const { out_fault_id, out_fault_fd: fd } = ctx.faultQueueAlloc();
        const hwpt = nestedHwpt(lab, ids, { flags: 4, fault_id: out_fault_id });
        new IopfQueue(lab.kernel, 'mock').addDevice(lab.a);
        ctx.attach(deviceOf(lab, ids), hwpt);
        const access = { read: true, write: false, exec: false, priv: false };
        reportDeviceFault(lab.a, { addr: 0n, pasid: undefined, grpid: 3, lastPage: true, ...access });
        if (act === 'read') return () => expect(ctx.readTo(fd, RW, 40)).toBe(40);
        ctx.read(fd, 40);
        return () => expect(ctx.write(fd, iommu_hwpt_page_response.encode({ cookie: 1, code: 0 }))).toBe(8);
      },
    }),
  ),
];

/** A call that has nothing of the kind that can fail (DESTROY, detach, unbind) succeeds at once: it must not fail. */
for (const { name, make } of PATHS)
  for (const [prefix, expected] of [
    ['alloc:', 'ENOMEM'],
    ['ids:', 'ENOMEM'],
    ['copy:', 'EFAULT'],
  ] as const)
    test(`${name}: where ${prefix} can fail, ${expected} comes out, nothing changes, and the call then succeeds`, () => {
      for (let n = 1; n < 20; n++) {
        const lab = new Lab({ contiguous: true });
        const call = make(lab, lab.nested());
        const before = snapshot(lab);
        const plan = lab.kernel.failNth(n, prefix);
        const result = errno(call);
        if (plan.fired === null) {
          expect(result).toBe('ok');
          return;
        }
        expect(result, `${plan.fired}`).toBe(expected);
        expect(snapshot(lab), `${plan.fired}`).toEqual(before);
        lab.kernel.clearFailures();
        call();
      }
      throw new Error('20 failures in one call');
    });

test('every poll of a VM life with VINTF, pair and queues timing out in turn: no VINTF or slot is left, the next life succeeds', () => {
  for (let n = 1; n < 60; n++) {
    const lab = new CmdqvLab().boot();
    const { impl } = lab;
    const { vmids } = lab.driver.smmu('smmu0');
    const vm = new Vm(lab);
    const base = { objects: vm.ctx.objects.size, pages: lab.kernel.pagesUsed, vmids: vmids.used };
    const vintfs = impl.vintfIds.used;
    const life = (): string => {
      const made: number[] = [];
      const result = errno(() => {
        const { id } = vm.viommu();
        made.push(id);
        made.push(vm.vdevice(id, 5n));
        for (const index of [0, 1]) made.push(vm.queue(id, index, vm.pages(1), 4096n));
      });
      for (const id of made.reverse()) vm.ctx.destroy({ id });
      return result;
    };
    const plan = lab.kernel.failNth(n, 'poll:');
    const result = life();
    if (plan.fired === null) {
      expect(result).toBe('ok');
      expect(n).toBeGreaterThan(4);
      return;
    }
    expect(['ok', 'ETIMEDOUT'], `${plan.fired}`).toContain(result);
    const held = lab.driver.quarantined().filter(({ what }) => what.includes('VINTF')).length;
    expect(impl.vintfIds.used, `${plan.fired}`).toBe(vintfs + held);
    expect(impl.users.size, `${plan.fired}`).toBe(0);
    lab.kernel.clearFailures();
    expect(life()).toBe('ok');
    const left = { objects: vm.ctx.objects.size, pages: lab.kernel.pagesUsed, vmids: vmids.used };
    expect([left, impl.vintfIds.used, lab.driver.quarantined()], `${plan.fired}`).toEqual([base, vintfs, []]);
  }
  throw new Error('60 polls in one life');
});

test('UNMAP of everything whose answer cannot be copied: EFAULT; made again it succeeds, and no page is pinned', () => {
  for (let n = 1; n < 20; n++) {
    const lab = new Lab({ contiguous: true });
    const { ctx } = lab;
    const { ioas } = lab.nested();
    const call = () => ctx.ioasUnmap({ ioas_id: ioas, iova: 0n, length: 0xffff_ffff_ffff_ffffn });
    const plan = lab.kernel.failNth(n, 'copy:');
    const result = errno(call);
    if (plan.fired === null) {
      expect(result).toBe('ok');
      expect(n).toBeGreaterThan(1);
      return;
    }
    expect(result, `${plan.fired}`).toBe('EFAULT');
    lab.kernel.clearFailures();
    call();
    expect(ctx.pins.pinned, `${plan.fired}`).toBe(0);
  }
  throw new Error('20 copies in one call');
});

test('HWPT_GET_DIRTY_BITMAP: a copy that fails gives EFAULT or, at the bitmap, 0 (7.2); counts stay, the next call succeeds', () => {
  for (let n = 1; n < 20; n++) {
    const lab = new Lab({ contiguous: true });
    const { ctx } = lab;
    const ids = lab.nested();
    const hwpt_id = ctx.hwptAlloc({ dev_id: ids.dev, pt_id: ids.ioas, flags: 2 }).out_hwpt_id;
    ctx.attach(deviceOf(lab, ids), hwpt_id);
    ctx.hwptSetDirtyTracking({ hwpt_id, flags: 1 });
    lab.driver.dma(lab.a, GPA);
    const before = snapshot(lab);
    const call = () =>
      ctx.hwptGetDirtyBitmap({ hwpt_id, iova: GPA, length: 0x8000n, page_size: 0x1000n, data: new Uint8Array(1) });
    const plan = lab.kernel.failNth(n, 'copy:');
    const result = errno(call);
    expect(['ok', 'EFAULT'], `${plan.fired}`).toContain(result);
    expect(snapshot(lab), `${plan.fired}`).toEqual(before);
    if (plan.fired === null) {
      expect(n).toBeGreaterThan(1);
      return;
    }
    lab.kernel.clearFailures();
    call();
  }
  throw new Error('20 copies in one call');
});
