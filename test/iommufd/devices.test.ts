import { describe, expect, test } from 'vitest';
import { VFIO_IOCTLS } from '../../spec/uapi.ts';
import { deviceUseDefaultDomain } from '../../src/driver/iommu/index.ts';
import { VfioDevice } from '../../src/iommufd/index.ts';
import { errno, Lab, RW, users, VSTE } from './lab.ts';

const ALL = 0xffff_ffff_ffff_ffffn;

describe('bind and unbind (iommufd_device_bind)', () => {
  test('refusals: not coherent EINVAL, MSIs not isolated EPERM, another owner EPERM, in use by a driver EPERM', () => {
    const incoherent = new Lab({ coherent: false });
    expect(errno(() => incoherent.ctx.bind(incoherent.a))).toBe('EINVAL');
    const shared = new Lab({ context: { isolatedMsi: () => false } });
    expect(errno(() => shared.ctx.bind(shared.a))).toBe('EPERM');
    const unsafe = new Lab({ context: { isolatedMsi: () => false, allowUnsafeInterrupts: true } });
    expect(errno(() => unsafe.ctx.bind(unsafe.a))).toBe('ok');
    const lab = new Lab();
    lab.ctx.bind(lab.a);
    expect(errno(() => lab.open().bind(lab.a))).toBe('EPERM');
    deviceUseDefaultDomain(lab.b);
    expect(errno(() => lab.ctx.bind(lab.b))).toBe('EPERM');
  });

  test('bind blocks the device, unbind returns it to its default domain', () => {
    const lab = new Lab();
    const idev = lab.ctx.bind(lab.a);
    expect([lab.driver.rids.get('a')?.type, idev.users]).toEqual(['blocked', 2]);
    expect(lab.ctx.unbind(idev)).toBe(true);
    expect(lab.driver.rids.get('a')?.type).toBe('identity');
    expect(() => lab.ctx.attach(idev, 1)).toThrow('was freed');
  });

  test('unbind with an attachment left: refused with a warning, the object stays', () => {
    const lab = new Lab();
    const idev = lab.ctx.bind(lab.a);
    lab.ctx.attach(idev, lab.mapped());
    expect(lab.ctx.unbind(idev)).toBe(false);
    expect(idev.live).toBe(true);
    lab.ctx.detach(idev);
  });

  test('unbind revokes the vDEVICE: its driver part goes, its id stays taken, its virtual id is free at once', () => {
    const lab = new Lab();
    const { viommu, dev } = lab.nested();
    const idev = lab.ctx.bind(lab.b);
    const vdev = lab.ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: idev.id, virt_id: 3n }).out_vdevice_id;
    expect([idev.users, idev.waitCnt]).toEqual([3, 2]);
    expect(lab.ctx.unbind(idev)).toBe(true);
    expect(lab.driver.calls).toContain('vdevice-destroy');
    expect(errno(() => lab.ctx.destroy({ id: vdev }))).toBe('ENOENT');
    expect(lab.ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev, virt_id: 3n }).out_vdevice_id).not.toBe(vdev);
  });
});

describe('ids', () => {
  test('lowest free from 1; a failure leaves no gap; an automatic HWPT takes one and gives it back', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const idev = ctx.bind(lab.a);
    const ioas = lab.mapped();
    expect([idev.id, ioas]).toEqual([1, 2]);
    lab.driver.fail('alloc-paging', 'ENOMEM');
    expect(errno(() => ctx.hwptAlloc({ dev_id: 1, pt_id: 2 }))).toBe('ENOMEM');
    expect(ctx.attach(idev, ioas)).toBe(3);
    const hwpt = ctx.hwptAlloc({ dev_id: 1, pt_id: 2 }).out_hwpt_id;
    expect(hwpt).toBe(4);
    expect(ctx.replace(idev, hwpt)).toBe(4);
    expect(errno(() => ctx.destroy({ id: 3 }))).toBe('ENOENT');
    expect(ctx.ioasAlloc().out_ioas_id).toBe(3);
  });
});

describe('attach and replace (iommufd_device_do_replace)', () => {
  test('automatic domains: the second device shares the first one that fits; user HWPTs are never picked', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const [a, b] = [ctx.bind(lab.a), ctx.bind(lab.b)];
    const ioas = lab.mapped();
    ctx.hwptAlloc({ dev_id: a.id, pt_id: ioas });
    const auto = ctx.attach(a, ioas);
    expect(ctx.attach(b, ioas)).toBe(auto);
    expect(users(ctx, auto)).toBe(3);
    ctx.detach(a);
    expect(users(ctx, auto)).toBe(2);
    ctx.detach(b);
    expect(errno(() => ctx.destroy({ id: auto }))).toBe('ENOENT');
  });

  test('EINVAL of an automatic domain means "does not fit": a new one is made; other errors come out', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const [a, b] = [ctx.bind(lab.a), ctx.bind(lab.b)];
    const ioas = lab.mapped();
    const auto = ctx.attach(a, ioas);
    lab.driver.fail('attach-s1', 'EINVAL');
    const second = ctx.attach(b, ioas);
    expect(second).not.toBe(auto);
    ctx.detach(b);
    lab.driver.fail('attach-s1', 'EBUSY');
    expect(errno(() => ctx.attach(b, ioas))).toBe('EBUSY');
  });

  test('attach errors: EBUSY twice, EINVAL for another type, ENOENT, EADDRINUSE over a mapping', () => {
    const lab = new Lab();
    const { ctx } = lab;
    const idev = ctx.bind(lab.a);
    const ioas = lab.mapped();
    expect(errno(() => ctx.attach(idev, 99))).toBe('ENOENT');
    expect(errno(() => ctx.attach(idev, idev.id))).toBe('EINVAL');
    expect(errno(() => ctx.replace(idev, ioas))).toBe('EINVAL');
    ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 4096n, iova: 0x800_0000n });
    expect(errno(() => ctx.attach(idev, ioas))).toBe('EADDRINUSE');
    ctx.ioasUnmap({ ioas_id: ioas, iova: 0x800_0000n, length: 4096n });
    ctx.attach(idev, ioas);
    expect(errno(() => ctx.attach(idev, ioas))).toBe('EBUSY');
  });

  test('a group is attached once and replaced whole, all or nothing; each device counts', () => {
    const lab = new Lab({ aliases: true });
    const { ctx } = lab;
    const [a, b] = [ctx.bind(lab.a), ctx.bind(lab.b)];
    const ioas = lab.mapped();
    const [one, two] = [0, 0].map(() => ctx.hwptAlloc({ dev_id: a.id, pt_id: ioas }).out_hwpt_id);
    if (one === undefined || two === undefined) throw new Error('no HWPTs');
    ctx.attach(a, one);
    expect(errno(() => ctx.attach(b, two))).toBe('EINVAL');
    ctx.attach(b, one);
    expect(users(ctx, one)).toBe(3);
    lab.driver.fail('attach-s1', 'ENOMEM');
    expect(errno(() => ctx.replace(b, two))).toBe('ENOMEM');
    expect([users(ctx, one), users(ctx, two)]).toEqual([3, 1]);
    ctx.replace(b, two);
    expect([users(ctx, one), users(ctx, two)]).toEqual([1, 3]);
    expect([lab.driver.rids.get('a'), lab.driver.rids.get('a') === lab.driver.rids.get('b')]).toEqual([
      lab.driver.rids.get('b'),
      true,
    ]);
    ctx.detach(a);
    expect(lab.driver.rids.get('b')?.type).toBe('paging');
    ctx.detach(b);
    expect(lab.driver.rids.get('b')?.type).toBe('blocked');
  });

  test('a replace that fails inside one IOAS: reserved regions stay; with the quirk of 7.2 they are lost', () => {
    const count = (quirks: 'none' | 'linux-7.2'): number => {
      const lab = new Lab({ context: { quirks } });
      const { ctx } = lab;
      const idev = ctx.bind(lab.a);
      const ioas = lab.mapped();
      const [one, two] = [0, 0].map(() => ctx.hwptAlloc({ dev_id: idev.id, pt_id: ioas }).out_hwpt_id);
      ctx.attach(idev, one ?? 0);
      lab.driver.fail('attach-s1', 'EBUSY');
      expect(errno(() => ctx.replace(idev, two ?? 0))).toBe('EBUSY');
      return ctx.ioasIovaRanges({ ioas_id: ioas, num_iovas: 9, allowed_iovas: RW }).num_iovas;
    };
    expect([count('none'), count('linux-7.2')]).toEqual([2, 1]);
  });

  test('PASIDs: only HWPTs made for them, and only beside a RID that has one too', () => {
    const lab = new Lab({ ssidBits: 4 });
    const { ctx } = lab;
    const idev = ctx.bind(lab.a);
    const ioas = lab.mapped();
    const plain = ctx.hwptAlloc({ dev_id: idev.id, pt_id: ioas }).out_hwpt_id;
    const pasid = ctx.hwptAlloc({ dev_id: idev.id, pt_id: ioas, flags: 8 }).out_hwpt_id;
    expect(errno(() => ctx.attach(idev, plain, 3))).toBe('EINVAL');
    expect(errno(() => ctx.attach(idev, ioas, 3))).toBe('EINVAL');
    expect(errno(() => ctx.attach(idev, pasid, 16))).toBe('EINVAL');
    expect(ctx.attach(idev, pasid, 3)).toBe(pasid);
    expect(errno(() => ctx.attach(idev, plain))).toBe('EINVAL');
    ctx.attach(idev, pasid);
    ctx.detach(idev, 3);
    ctx.replace(idev, plain);
    expect(errno(() => ctx.attach(idev, pasid, 3))).toBe('EINVAL');
    expect(users(ctx, pasid)).toBe(1);
  });
});

describe('close (iommufd_fops_release)', () => {
  test('bound devices, queues and mmaps keep the file; the last of them releases everything, users before used', () => {
    const lab = new Lab();
    const { viommu, dev, ioas } = lab.nested();
    lab.ctx.hwptAlloc({ dev_id: dev, pt_id: viommu, data_type: 2, data_uptr: VSTE });
    const { out_veventq_fd: fd } = lab.ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 1 });
    const vma = lab.ctx.mmap({ offset: 0x1000n, length: 0x1_0000n });
    lab.ctx.vfioIoasOp({ op: 1, ioas_id: ioas });
    lab.ctx.close();
    expect(lab.ctx.objects.size).toBeGreaterThan(5);
    lab.ctx.closeFd(fd);
    vma.close();
    lab.ctx.unbind(lab.ctx.objects.peek(dev) as never);
    expect(lab.ctx.objects.empty).toBe(true);
    expect(lab.driver.live.size).toBe(0);
    expect(lab.kernel.messages.filter(({ level }) => level === 'warn')).toEqual([]);
  });

  test('the VFIO container IOAS is forgotten when it is destroyed', () => {
    const lab = new Lab();
    const id = lab.ctx.ioasAlloc().out_ioas_id;
    lab.ctx.vfioIoasOp({ op: 1, ioas_id: id });
    expect(lab.ctx.vfioIoasOp({}).ioas_id).toBe(id);
    lab.ctx.destroy({ id });
    expect(errno(() => lab.ctx.vfioIoasOp({}))).toBe('ENODEV');
  });
});

describe('mmap (iommufd_fops_mmap)', () => {
  test.each([
    ['EINVAL', 'length is no multiple of a page', { offset: 0x1000n, length: 100n }],
    ['EINVAL', 'not MAP_SHARED', { offset: 0x1000n, length: 0x1_0000n, shared: false }],
    ['EPERM', 'PROT_EXEC', { offset: 0x1000n, length: 0x1_0000n, exec: true }],
    ['ENXIO', 'no region', { offset: 0x100_0000n, length: 0x1_0000n }],
    ['ENXIO', 'part of a region', { offset: 0x1000n, length: 0x1000n }],
    ['ENXIO', 'inside a region', { offset: 0x2000n, length: 0xf000n }],
  ])('%s: %s', (expected, _why, request) => {
    const lab = new Lab();
    lab.nested();
    expect(errno(() => lab.ctx.mmap(request))).toBe(expected);
  });
});

describe('VfioDevice (drivers/vfio/iommufd.c)', () => {
  const { VFIO_DEVICE_ATTACH_IOMMUFD_PT: ATTACH, VFIO_DEVICE_DETACH_IOMMUFD_PT: DETACH } = VFIO_IOCTLS;
  function vfioLab() {
    const lab = new Lab({ ssidBits: 4 });
    const device = new VfioDevice(lab.a, (iova) => lab.driver.dma(lab.a, iova) !== undefined);
    return { lab, device, devid: device.bind(lab.ctx), ioas: lab.mapped() };
  }

  test('attach replaces what is attached, a failed one leaves it; detach of nothing is fine', () => {
    const { lab, device, devid, ioas } = vfioLab();
    device.detach();
    expect(device.dma(0x8000_0000n, new Uint8Array(4))).toBe(false);
    device.attach(ioas);
    expect(device.dma(0x8000_0000n, new Uint8Array(4))).toBe(true);
    const hwpt = lab.ctx.hwptAlloc({ dev_id: devid, pt_id: ioas }).out_hwpt_id;
    lab.driver.fail('attach-s1', 'EIO');
    expect(errno(() => device.attach(hwpt))).toBe('EIO');
    expect(device.dma(0x8000_0000n, new Uint8Array(4))).toBe(true);
    expect(device.attach(hwpt)).toBe(hwpt);
    device.close();
    expect([device.bound, lab.ctx.igroups.size]).toEqual([false, 0]);
    expect(device.bind(lab.ctx)).toBe(devid);
    expect(errno(() => device.bind(lab.ctx))).toBe('EINVAL');
  });

  test('raw: argsz, flags, PASID, and pt_id written back', () => {
    const { lab, device, devid, ioas } = vfioLab();
    const attach = (fields: Parameters<typeof ATTACH.struct.encode>[0]): Uint8Array => {
      const bytes = ATTACH.struct.encode({ argsz: 16, pt_id: ioas, ...fields });
      device.ioctl(ATTACH.request, bytes);
      return bytes;
    };
    expect(errno(() => attach({ argsz: 8 }))).toBe('EINVAL');
    expect(errno(() => attach({ flags: 2 }))).toBe('EINVAL');
    expect(errno(() => attach({ argsz: 12, flags: 1 }))).toBe('EINVAL');
    // The kernel's IDA of PASIDs takes ints.
    expect(errno(() => attach({ argsz: 16, flags: 1, pasid: 0x8000_0000 }))).toBe('ENOSPC');
    expect(errno(() => device.ioctl(0x3b00, new Uint8Array(16)))).toBe('ENOTTY');
    expect(ATTACH.struct.decode(attach({ argsz: 12 })).pt_id).toBe(3);
    const pasid = lab.ctx.hwptAlloc({ dev_id: devid, pt_id: ioas, flags: 8 }).out_hwpt_id;
    attach({ pt_id: pasid });
    attach({ pt_id: pasid, flags: 1, pasid: 5 });
    expect(users(lab.ctx, pasid)).toBe(3);
    const detach = (fields: Parameters<typeof DETACH.struct.encode>[0]): void =>
      device.ioctl(DETACH.request, DETACH.struct.encode({ argsz: 12, ...fields }));
    expect(errno(() => detach({ flags: 2 }))).toBe('EINVAL');
    expect(errno(() => detach({ argsz: 8, flags: 1 }))).toBe('EINVAL');
    detach({ flags: 1, pasid: 5 });
    detach({ argsz: 8 });
    expect(users(lab.ctx, pasid)).toBe(1);
    expect(lab.ctx.ioasUnmap({ ioas_id: ioas, length: ALL }).length).toBe(0x10_0000n);
  });
});
