import { describe, expect, test } from 'vitest';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault, iommufd_vevent_header } from '../../spec/uapi.ts';
import { IopfQueue, reportDeviceFault } from '../../src/driver/iommu/index.ts';
import type { IommufdViommu, PageFault } from '../../src/driver/iommu/ops.ts';
import type { DeviceObject } from '../../src/iommufd/index.ts';
import { errno, Lab, NOTHING, RW, VSTE } from './lab.ts';

function veventLab(depth: number) {
  const lab = new Lab();
  const { viommu } = lab.nested();
  const { out_veventq_id: id, out_veventq_fd: fd } = lab.ctx.veventqAlloc({
    viommu_id: viommu,
    type: 1,
    veventq_depth: depth,
  });
  const object = lab.ctx.objects.peek(viommu) as unknown as IommufdViommu;
  const report = (n: number): void => object.callbacks.reportEvent(object, 1, new Uint8Array(32).fill(n));
  /** "sequence:first byte", or "sequence:lost". */
  const read = (count = 4096): string[] => {
    const bytes = lab.ctx.read(fd, count);
    const out: string[] = [];
    for (let at = 0; at < bytes.length; ) {
      const { flags, sequence } = iommufd_vevent_header.decode(bytes.subarray(at));
      out.push(`${sequence}:${flags === 1 ? 'lost' : bytes[at + 8]}`);
      at += flags === 1 ? 8 : 40;
    }
    return out;
  };
  return { lab, ctx: lab.ctx, viommu, id, fd, report, read };
}

describe('vEVENTQ (iommufd_veventq_fops_read, iommufd_viommu_report_event)', () => {
  test('every report takes a sequence number; a full queue notes the loss at its tail only', () => {
    const { report, read } = veventLab(2);
    for (const n of [10, 11, 12, 13]) report(n);
    expect(read()).toEqual(['0:10', '1:11', '3:lost']);
    report(14);
    expect(read()).toEqual(['4:14']);
  });

  test('the LOST header goes once a later event shows the gap', () => {
    const { report, read, ctx, fd } = veventLab(1);
    for (const n of [10, 11]) report(n);
    expect(ctx.read(fd, 40)).toHaveLength(40);
    report(12);
    expect(read()).toEqual(['2:12']);
  });

  test('an allocation that fails loses the event and says ENOMEM to the driver', () => {
    const { lab, report, read } = veventLab(4);
    lab.kernel.failNth(1, 'alloc:iommufd:vevent');
    expect(errno(() => report(10))).toBe('ENOMEM');
    report(11);
    expect(read()).toEqual(['1:11']);
  });

  test('delivered + lost = reported, for every depth', () => {
    for (let depth = 1; depth < 6; depth++) {
      const { report, read } = veventLab(depth);
      for (let n = 0; n < 5; n++) report(n);
      const lines = read();
      const lost = lines.some((line) => line.endsWith('lost')) ? 5 - (lines.length - 1) : 0;
      expect(lines.filter((line) => !line.endsWith('lost')).length + lost).toBe(5);
    }
  });

  test('read: less than a header is EINVAL even when empty; a whole event must fit; empty reads 0 bytes', () => {
    const { ctx, fd, report } = veventLab(2);
    expect(errno(() => ctx.read(fd, 7))).toBe('EINVAL');
    expect(ctx.read(fd, 8)).toHaveLength(0);
    report(1);
    report(2);
    expect(errno(() => ctx.read(fd, 39))).toBe('EINVAL');
    expect(ctx.read(fd, 79)).toHaveLength(40);
    expect(ctx.poll(fd)).toEqual({ readable: true, writable: false });
    expect(ctx.read(fd, 40)).toHaveLength(40);
    expect(ctx.poll(fd).readable).toBe(false);
  });

  test('a copy that faults puts the event back', () => {
    const { ctx, fd, report, read } = veventLab(2);
    report(7);
    expect(errno(() => ctx.readTo(fd, NOTHING, 4096))).toBe('EFAULT');
    expect(ctx.readTo(fd, RW, 4096)).toBe(40);
    expect(read()).toEqual([]);
  });

  test('write is EINVAL; the object outlives nothing: EBUSY while the descriptor is open, then it can be destroyed', () => {
    const { ctx, fd, id, viommu } = veventLab(2);
    expect(errno(() => ctx.write(fd, new Uint8Array(8)))).toBe('EINVAL');
    expect(errno(() => ctx.destroy({ id }))).toBe('EBUSY');
    ctx.closeFd(fd);
    expect(errno(() => ctx.read(fd, 8))).toBe('EBADF');
    expect(errno(() => ctx.destroy({ id: viommu }))).toBe('EBUSY');
    ctx.destroy({ id });
    ctx.destroy({ id: viommu });
  });
});

const fault = (grpid: number, more: Partial<PageFault> = {}): PageFault => ({
  addr: 0x1000n,
  pasid: undefined,
  grpid,
  lastPage: true,
  read: true,
  write: false,
  exec: false,
  priv: false,
  ...more,
});

function faultLab() {
  const lab = new Lab();
  const { dev, viommu, ioas } = lab.nested();
  const { out_fault_id: id, out_fault_fd: fd } = lab.ctx.faultQueueAlloc();
  const hwpt = lab.ctx.hwptAlloc({
    flags: 4,
    fault_id: id,
    dev_id: dev,
    pt_id: viommu,
    data_type: 2,
    data_uptr: VSTE,
  }).out_hwpt_id;
  const idev = lab.ctx.objects.peek(dev) as DeviceObject;
  new IopfQueue(lab.kernel, 'mock').addDevice(lab.a);
  lab.ctx.attach(idev, hwpt);
  const read = (count = 4000) => {
    const bytes = lab.ctx.read(fd, count);
    return Array.from({ length: bytes.length / 40 }, (_, i) => iommu_hwpt_pgfault.decode(bytes.subarray(i * 40)));
  };
  const respond = (cookie: number, code: number): number =>
    lab.ctx.write(fd, iommu_hwpt_page_response.encode({ cookie, code }));
  const responses = (): string[] => lab.driver.calls.filter((line) => line.startsWith('respond'));
  return { lab, ctx: lab.ctx, idev, id, fd, hwpt, ioas, read, respond, responses };
}

describe('FAULT queue (iommufd_fault_fops_read, _write)', () => {
  test('a group is read whole, with one cookie; the answer reaches the device', () => {
    const { lab, read, respond, responses, idev } = faultLab();
    reportDeviceFault(lab.a, fault(3, { lastPage: false, write: true }));
    expect(read()).toEqual([]);
    reportDeviceFault(lab.a, fault(3, { addr: 0x2000n, pasid: 9 }));
    expect(read()).toMatchObject([
      { flags: 0, dev_id: idev.id, grpid: 3, perm: 3, addr: 0x1000n, cookie: 1, length: 0 },
      { flags: 3, pasid: 9, perm: 1, addr: 0x2000n, cookie: 1 },
    ]);
    expect(respond(1, 0)).toBe(8);
    expect(responses()).toEqual(['respond a g3 success']);
    expect(errno(() => respond(1, 0))).toBe('EINVAL');
  });

  test('read and write: counts that are no multiple are ESPIPE; unknown code and cookie EINVAL; earlier entries count', () => {
    const { lab, ctx, fd, read, responses } = faultLab();
    expect(errno(() => ctx.read(fd, 39))).toBe('ESPIPE');
    expect(errno(() => ctx.write(fd, new Uint8Array(4)))).toBe('ESPIPE');
    for (const grpid of [1, 2]) reportDeviceFault(lab.a, fault(grpid));
    expect(errno(() => ctx.read(fd, 0))).toBe('ok');
    expect(read(40)).toHaveLength(1);
    expect(read(40)).toHaveLength(1);
    const both = new Uint8Array(16);
    both.set(iommu_hwpt_page_response.encode({ cookie: 1, code: 1 }));
    both.set(iommu_hwpt_page_response.encode({ cookie: 2, code: 2 }), 8);
    expect(ctx.write(fd, both)).toBe(8);
    expect(errno(() => ctx.write(fd, both.subarray(8)))).toBe('EINVAL');
    expect(responses()).toEqual(['respond a g1 invalid']);
  });

  test('a group that does not fit is put back; alone it is EINVAL', () => {
    const { lab, ctx, fd, read } = faultLab();
    reportDeviceFault(lab.a, fault(1));
    reportDeviceFault(lab.a, fault(2, { lastPage: false }));
    reportDeviceFault(lab.a, fault(2));
    expect(read(80)).toHaveLength(1);
    expect(errno(() => ctx.read(fd, 40))).toBe('EINVAL');
    expect(read(80)).toHaveLength(2);
  });

  test('detach and replace answer what is pending on the old attachment INVALID, read or not', () => {
    const { lab, ctx, idev, ioas, read, respond, responses } = faultLab();
    for (const grpid of [1, 2]) reportDeviceFault(lab.a, fault(grpid));
    read(40);
    ctx.replace(idev, ioas);
    expect(responses().sort()).toEqual(['respond a g1 invalid', 'respond a g2 invalid']);
    expect(errno(() => respond(1, 0))).toBe('EINVAL');
    expect(read()).toEqual([]);
  });

  test('lifetimes: HWPT and descriptor hold the queue; always writable', () => {
    const { ctx, id, fd, hwpt, idev } = faultLab();
    expect(ctx.poll(fd)).toEqual({ readable: false, writable: true });
    expect(errno(() => ctx.destroy({ id }))).toBe('EBUSY');
    ctx.closeFd(fd);
    expect(errno(() => ctx.destroy({ id }))).toBe('EBUSY');
    ctx.detach(idev);
    ctx.destroy({ id: hwpt });
    ctx.destroy({ id });
  });
});
