import { describe, expect, test } from 'vitest';
import { iommu_vevent_arm_smmuv3, iommufd_vevent_header } from '../../spec/uapi.ts';
import { ArmSmmuDriver } from '../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../src/driver/iommu/index.ts';
import type { IommufdViommu } from '../../src/driver/iommu/ops.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { twoSmmus } from '../../src/hw/index.ts';
import { IommufdContext, VfioDevice } from '../../src/iommufd/index.ts';
import { AddressSpace, PageList } from '../../src/lab/vmm/address-space.ts';
import { errno, Lab, users, VSTE } from './lab.ts';

/** A machine with two SMMUs, two devices behind each, one VM memory. */
function twoInstances() {
  const machine = twoSmmus();
  const kernel = new LocalKernel(machine.bus);
  const driver = new ArmSmmuDriver(kernel);
  const core = new IommuCore(kernel);
  for (const iommu of driver.probeAll())
    core.registerIommu(
      iommu,
      machine.bus.firmware.devices.filter(({ smmu }) => smmu === iommu.name),
    );
  const first = kernel.allocPages('vm', 0x40_0000);
  const pages = new PageList(
    machine.bus,
    Array.from({ length: 1024 }, (_, i) => first + BigInt(i) * 4096n),
  );
  const memory = new AddressSpace();
  memory.map({ va: 0x4000_0000n, pages, writable: true });
  const ctx = new IommufdContext({ kernel, process: { memory } });
  const devices = core.devices.map((dev) => {
    const endpoint = machine.endpoint(dev.name);
    return new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
  });
  const ids = devices.map((device) => device.bind(ctx));
  const ioas = ctx.ioasAlloc().out_ioas_id;
  ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: 0x4000_0000n, length: 0x40_0000n, iova: 0x8000_0000n });
  const s2 = ctx.hwptAlloc({ flags: 1, dev_id: ids[0] ?? 0, pt_id: ioas }).out_hwpt_id;
  return { machine, driver, ctx, devices, ids, s2, pages };
}

const BYPASS = Uint8Array.from([9, ...new Array<number>(15).fill(0)]);

describe('the seven roles of a vIOMMU', () => {
  test('1: a name space for guest-owned ids: two vIOMMUs on one SMMU have different VMIDs, so equal ASIDs do not meet', () => {
    const { ctx, ids, s2, driver } = twoInstances();
    const [a, b] = [ids[0] ?? 0, ids[1] ?? 0];
    const one = ctx.viommuAlloc({ type: 1, dev_id: a, hwpt_id: s2 }).out_viommu_id;
    const two = ctx.viommuAlloc({ type: 1, dev_id: b, hwpt_id: s2 }).out_viommu_id;
    expect(driver.smmu('smmu0').vmids.used).toBe(2);
    ctx.destroy({ id: one });
    ctx.destroy({ id: two });
    expect(driver.smmu('smmu0').vmids.used).toBe(0);
  });

  test('2: one nesting parent shared by two physical IOMMUs: DMA through either reaches the same page', () => {
    const { ctx, ids, s2, devices, pages } = twoInstances();
    for (const [i, device] of devices.entries()) {
      const dev = ids[i] ?? 0;
      const viommu = ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: s2 }).out_viommu_id;
      device.attach(ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: BYPASS }).out_hwpt_id);
      expect(device.dma(0x8000_0000n + BigInt(i * 4), Uint8Array.of(i + 1, 0, 0, 0))).toBe(true);
    }
    expect([...new Uint32Array(pages.read(0, 16).buffer)]).toEqual([1, 2, 3, 4]);
    expect(errno(() => ctx.destroy({ id: s2 }))).toBe('EBUSY');
  });

  test('3: virtual device ids: the same one may stand for another device in another vIOMMU, never twice in one', () => {
    const lab = new Lab();
    const { parent, viommu, dev } = lab.nested();
    const b = lab.ctx.bind(lab.b).id;
    const other = lab.ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: parent }).out_viommu_id;
    lab.ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev, virt_id: 7n });
    expect(errno(() => lab.ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: b, virt_id: 7n }))).toBe('EEXIST');
    lab.ctx.vdeviceAlloc({ viommu_id: other, dev_id: b, virt_id: 7n });
    const [one, two] = [viommu, other].map((id) => lab.ctx.objects.peek(id) as unknown as IommufdViommu);
    expect(one?.callbacks.findDev(one, 7n)).toBe(lab.a);
    expect(two?.callbacks.findDev(two, 7n)).toBe(lab.b);
    expect(one?.callbacks.getVdevId(one, lab.a)).toBe(7n);
    expect(() => one?.callbacks.getVdevId(one, lab.b)).toThrow('ENOENT');
  });

  test('4: forwarded invalidation: the guest commands reach the driver in order, until the first bad one', () => {
    const lab = new Lab();
    const { viommu } = lab.nested();
    const data = new Uint8Array(new Uint32Array([0x10, 0, 0, 0, 0x11, 0, 0, 0, 0xbad, 0, 0, 0, 0x12, 0, 0, 0]).buffer);
    const call = () =>
      lab.ctx.hwptInvalidate({ hwpt_id: viommu, data_type: 1, entry_len: 16, entry_num: 4, data_uptr: data });
    expect(errno(call)).toBe('EIO');
    expect(lab.driver.calls.filter((line) => line.startsWith('invalidate'))).toEqual([
      'invalidate 0x10',
      'invalidate 0x11',
    ]);
  });

  test('5: directly assigned invalidation queues: guest memory pinned for hardware, its doorbell page mapped by the VMM', () => {
    const lab = new Lab({ contiguous: true });
    const { viommu, ioas } = lab.nested();
    const queue = { viommu_id: viommu, type: 1, nesting_parent_iova: 0x8000_0100n, length: 0x1800n };
    const first = lab.ctx.hwQueueAlloc({ ...queue, index: 0 }).out_hw_queue_id;
    const second = lab.ctx.hwQueueAlloc({ ...queue, index: 1 }).out_hw_queue_id;
    expect(second - first).toBe(2); // each queue takes a second id for its access
    const start = lab.rw.lookup(0n, 1)?.pa ?? 0n;
    expect(lab.driver.calls).toContain(`queue 0 at 0x${(start + 0x100n).toString(16)}`);
    expect(errno(() => lab.ctx.ioasUnmap({ ioas_id: ioas, length: 0xffff_ffff_ffff_ffffn }))).toBe('EBUSY');
    expect(errno(() => lab.ctx.destroy({ id: first }))).toBe('EBUSY'); // queue 1 depends on queue 0
    const vma = lab.ctx.mmap({ offset: 0x1000n, length: 0x1_0000n });
    lab.ctx.destroy({ id: second });
    lab.ctx.destroy({ id: first });
    expect(errno(() => lab.ctx.destroy({ id: viommu }))).toBe('EBUSY'); // mapped
    vma.fork();
    vma.close();
    expect(errno(() => lab.ctx.destroy({ id: viommu }))).toBe('EBUSY');
    vma.close();
    lab.ctx.destroy({ id: viommu });
    expect(lab.ctx.mmaps.size).toBe(0);
    lab.ctx.ioasUnmap({ ioas_id: ioas, length: 0xffff_ffff_ffff_ffffn });
  });

  test('6: interrupts of those queues: the driver forwards an error map to the vIOMMU, whatever HWPT is attached', () => {
    const lab = new Lab();
    const { viommu } = lab.nested();
    const queue = lab.ctx.veventqAlloc({ viommu_id: viommu, type: 2, veventq_depth: 2 });
    const object = lab.ctx.objects.peek(viommu) as unknown as IommufdViommu;
    object.callbacks.reportEvent(
      object,
      2,
      Uint8Array.from({ length: 16 }, (_, i) => i),
    );
    const record = lab.ctx.read(queue.out_veventq_fd, 4096);
    expect(record).toHaveLength(iommufd_vevent_header.bytes + 16);
    expect(iommufd_vevent_header.decode(record)).toEqual({ flags: 0, sequence: 0 });
    expect(() => object.callbacks.reportEvent(object, 1, new Uint8Array(32))).toThrow('EOPNOTSUPP');
  });

  test('7: event reporting that belongs to no single HWPT: the event outlives the HWPT it came from', () => {
    const { ctx, ids, s2, devices } = twoInstances();
    const [dev, device] = [ids[0] ?? 0, devices[0]];
    if (device === undefined) throw new Error('no device');
    const viommu = ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: s2 }).out_viommu_id;
    ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev, virt_id: 0x77n });
    const fd = ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 8 }).out_veventq_fd;
    // A stage 1 whose CD is all zeros: C_BAD_CD.
    const vste = new Uint8Array(new BigUint64Array([0x8000_100bn, 0xd6n]).buffer);
    const hwpt = ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: vste }).out_hwpt_id;
    device.attach(hwpt);
    expect(device.dma(0x1000n, new Uint8Array(4))).toBe(false);
    device.detach();
    ctx.destroy({ id: hwpt });
    const record = ctx.read(fd, 4096);
    const event = iommu_vevent_arm_smmuv3.decode(record.subarray(iommufd_vevent_header.bytes)).evt;
    expect(event[0]).toBe((0x77n << 32n) | 0x0an);
  });
});

test('a vIOMMU holds its parent and nothing of the device that named it', () => {
  const lab = new Lab();
  const { dev, parent, viommu } = lab.nested();
  expect(users(lab.ctx, parent)).toBe(2);
  expect(users(lab.ctx, dev)).toBe(2);
  const hwpt = lab.ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: VSTE }).out_hwpt_id;
  expect(users(lab.ctx, viommu)).toBe(2);
  expect(users(lab.ctx, parent)).toBe(2);
  lab.ctx.destroy({ id: hwpt });
  lab.ctx.destroy({ id: viommu });
  lab.ctx.destroy({ id: parent });
});
