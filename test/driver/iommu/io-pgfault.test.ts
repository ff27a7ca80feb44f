import { describe, expect, test } from 'vitest';
import {
  attachDevicePasid,
  attachGroupHandle,
  attachHandleGet,
  detachDevicePasid,
  detachGroupHandle,
  newAttachHandle,
  replaceGroupHandle,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf, NO_PASID } from '../../../src/driver/iommu/group.ts';
import { IopfQueue, reportDeviceFault } from '../../../src/driver/iommu/io-pgfault.ts';
import { KernelError } from '../../../src/driver/kernel.ts';
import { collectFaults, errnoOf, fixture, node, pageFault, probeGroup } from './mock-ops.ts';

function setup() {
  const f = fixture();
  const [a, b] = probeGroup(f, 'A', 'B');
  if (!a || !b) throw new Error('no devices');
  const group = groupOf(a);
  const queue = new IopfQueue(f.kernel, 'mock0-iopf');
  queue.addDevice(a);
  queue.addDevice(b);
  const nested = f.driver.alloc('nested');
  const groups = collectFaults(nested);
  const handle = newAttachHandle(nested, f);
  attachGroupHandle(nested, group, handle);
  f.driver.take();
  return { ...f, a, b, group, queue, nested, groups, handle };
}

describe('grouping [iommu_report_device_fault, iommufd.md 10.2.1]', () => {
  test('partial faults wait for the last page of their group and come in the order of arrival', () => {
    const { a, groups, handle, driver } = setup();
    reportDeviceFault(a, pageFault(7, { addr: 0x1000n, lastPage: false }));
    reportDeviceFault(a, pageFault(8, { addr: 0x9000n, lastPage: false }));
    reportDeviceFault(a, pageFault(7, { addr: 0x2000n, lastPage: false }));
    expect(groups).toEqual([]);
    reportDeviceFault(a, pageFault(7, { addr: 0x3000n }));
    expect(groups.length).toBe(1);
    expect(groups[0]?.faults.map((fault) => fault.addr)).toEqual([0x1000n, 0x2000n, 0x3000n]);
    expect(groups[0]?.handle).toBe(handle);
    expect(groups[0]?.dev).toBe(a);
    expect(a.faultParam?.partial.map((fault) => fault.grpid)).toEqual([8]);
    expect(driver.take()).toEqual([]);
  });

  test('groups of two devices with the same number do not mix', () => {
    const { a, b, groups } = setup();
    reportDeviceFault(a, pageFault(7, { addr: 0x1000n, lastPage: false }));
    reportDeviceFault(b, pageFault(7, { addr: 0x2000n }));
    expect(groups[0]?.faults.map((fault) => fault.addr)).toEqual([0x2000n]);
  });

  test('a group is answered once: the last fault goes to the driver with the code', () => {
    const { a, groups, driver } = setup();
    reportDeviceFault(a, pageFault(7, { lastPage: false }));
    reportDeviceFault(a, pageFault(7));
    groups[0]?.respond('success');
    groups[0]?.respond('invalid');
    expect(driver.take()).toEqual(['respond A g7 success']);
    expect(a.faultParam?.pending.size).toBe(0);
  });
});

describe('which attachment gets a fault [find_fault_handler]', () => {
  test('an attached PASID its own, any other PASID the nested domain of the RID', () => {
    const { a, driver, groups, group } = setup();
    const s1 = driver.alloc('s1');
    const ofPasid = collectFaults(s1);
    attachDevicePasid(s1, a, 5, newAttachHandle(s1, null));
    reportDeviceFault(a, pageFault(1, { pasid: 5 }));
    reportDeviceFault(a, pageFault(2, { pasid: 6 }));
    reportDeviceFault(a, pageFault(3));
    expect(ofPasid.map((each) => each.handle)).toEqual([attachHandleGet(group, 5)]);
    expect(groups.map((each) => each.faults[0]?.grpid)).toEqual([2, 3]);
    expect(groups.every((each) => each.handle === attachHandleGet(group, NO_PASID))).toBe(true);
  });

  test('without user-managed PASID tables, or if the RID is not nested, an unknown PASID is answered invalid', () => {
    const { a, driver, nested, group, groups } = setup();
    driver.userPasidTable = false;
    expect(errnoOf(() => reportDeviceFault(a, pageFault(2, { pasid: 6 })))).toBe('EINVAL');
    driver.userPasidTable = true;
    detachGroupHandle(nested, group);
    const s1 = driver.alloc('s1');
    const ofRid = collectFaults(s1);
    attachGroupHandle(s1, group, newAttachHandle(s1, null));
    driver.take();
    expect(errnoOf(() => reportDeviceFault(a, pageFault(3, { pasid: 6 })))).toBe('EINVAL');
    expect(driver.take().filter((call) => call.startsWith('respond'))).toEqual(['respond A g3 invalid']);
    expect([groups.length, ofRid.length]).toEqual([0, 0]);
  });

  test('a domain without a handler, and nothing attached: answered invalid at once, also a partial fault', () => {
    const { a, driver, nested, group } = setup();
    nested.iopfHandler = null;
    expect(errnoOf(() => reportDeviceFault(a, pageFault(1)))).toBe('EINVAL');
    detachGroupHandle(nested, group);
    driver.take();
    expect(errnoOf(() => reportDeviceFault(a, pageFault(2, { lastPage: false })))).toBe('EINVAL');
    expect(driver.take()).toEqual(['respond A g2 invalid']);
    expect(a.faultParam?.partial).toEqual([]);
  });

  test('a device in no queue: answered invalid', () => {
    const { core, driver, nested } = setup();
    const c = core.probeDevice(node('C'), driver.iommu);
    const other = driver.alloc('nested');
    other.iopfHandler = nested.iopfHandler;
    attachGroupHandle(other, groupOf(c), newAttachHandle(other, null));
    driver.take();
    expect(errnoOf(() => reportDeviceFault(c, pageFault(1)))).toBe('EINVAL');
    expect(driver.take()).toEqual(['respond C g1 invalid']);
  });
});

describe('failures on the way', () => {
  test('no memory for a group, or a handler that fails: answered failure', () => {
    const { a, driver, kernel, nested, groups } = setup();
    kernel.failNth(1, 'alloc:iopf:group');
    reportDeviceFault(a, pageFault(1));
    expect(groups).toEqual([]);
    nested.iopfHandler = () => {
      throw new KernelError('EIO', 'no');
    };
    reportDeviceFault(a, pageFault(2));
    expect(driver.take()).toEqual(['respond A g1 failure', 'respond A g2 failure']);
    expect(a.faultParam?.pending.size).toBe(0);
  });

  test('an error that is no errno is a bug: the device gets its answer, the error passes', () => {
    const { a, driver, nested } = setup();
    nested.iopfHandler = () => {
      throw new Error('bug');
    };
    expect(() => reportDeviceFault(a, pageFault(1))).toThrow('bug');
    expect(driver.take()).toEqual(['respond A g1 failure']);
  });

  test('no memory for a partial fault: ENOMEM, the group goes on without it', () => {
    const { a, kernel, groups } = setup();
    kernel.failNth(1, 'alloc:iopf:partial');
    expect(errnoOf(() => reportDeviceFault(a, pageFault(1, { addr: 0x1000n, lastPage: false })))).toBe('ENOMEM');
    reportDeviceFault(a, pageFault(1, { addr: 0x2000n }));
    expect(groups[0]?.faults.map((fault) => fault.addr)).toEqual([0x2000n]);
  });
});

describe('the end of an attachment answers what is pending [iommufd.md 10.2.4, 13.8]', () => {
  test('detach: hardware first, then invalid to this handle, of every device of the group', () => {
    const { a, b, driver, nested, group, groups, handle } = setup();
    const s1 = driver.alloc('s1');
    const ofPasid = collectFaults(s1);
    attachDevicePasid(s1, a, 5, newAttachHandle(s1, null));
    reportDeviceFault(a, pageFault(1));
    reportDeviceFault(b, pageFault(2));
    reportDeviceFault(a, pageFault(3, { pasid: 5 }));
    driver.take();
    const liveAtAnswer: boolean[] = [];
    const { pageResponse } = driver.ops;
    Object.assign(driver.ops, {
      pageResponse: (...args: Parameters<NonNullable<typeof pageResponse>>) => {
        liveAtAnswer.push(handle.live);
        pageResponse?.(...args);
      },
    });
    detachGroupHandle(nested, group);
    expect(driver.take()).toEqual([
      'attach A s1#1 <- nested#2',
      'attach B s1#1 <- nested#2',
      'respond A g1 invalid',
      'respond B g2 invalid',
    ]);
    expect([liveAtAnswer, handle.live]).toEqual([[true, true], false]);
    groups[0]?.respond('success');
    expect(driver.take()).toEqual([]);
    expect(ofPasid[0]?.handle.live).toBe(true);
    detachDevicePasid(s1, a, 5);
    expect(driver.take().at(-1)).toBe('respond A g3 invalid');
  });

  test('replace: the old handle is answered; faults from now on carry the new one', () => {
    const { a, driver, group, groups } = setup();
    reportDeviceFault(a, pageFault(1));
    const next = driver.alloc('nested');
    const later = collectFaults(next);
    const handle = newAttachHandle(next, null);
    replaceGroupHandle(group, next, handle);
    expect(driver.take().at(-1)).toBe('respond A g1 invalid');
    reportDeviceFault(a, pageFault(2));
    expect(later[0]?.handle).toBe(handle);
    expect(groups.length).toBe(1);
  });

  test('a replace that fails answers nothing', () => {
    const { a, driver, group } = setup();
    reportDeviceFault(a, pageFault(1));
    const next = driver.alloc('nested');
    driver.refuse('B', next.name, 'EBUSY');
    expect(errnoOf(() => replaceGroupHandle(group, next, newAttachHandle(next, null)))).toBe('EBUSY');
    expect(driver.take().some((call) => call.startsWith('respond'))).toBe(false);
    expect(a.faultParam?.pending.size).toBe(1);
  });
});

describe('the queue of an IOMMU [iopf_queue_add_device, iopf_queue_remove_device]', () => {
  test('a device is in one queue: EBUSY; a driver that cannot answer has none: ENODEV; ENOMEM', () => {
    const { a, kernel, queue } = setup();
    expect(errnoOf(() => queue.addDevice(a))).toBe('EBUSY');
    expect(errnoOf(() => new IopfQueue(kernel, 'other').addDevice(a))).toBe('EBUSY');
    queue.removeDevice(a);
    kernel.failNth(1, 'alloc:iopf');
    expect(errnoOf(() => queue.addDevice(a))).toBe('ENOMEM');
    expect(queue.devices.map((dev) => dev.name)).toEqual(['B']);
    queue.addDevice(a);
    expect(queue.devices.map((dev) => dev.name)).toEqual(['B', 'A']);
    const mute = fixture({ pageResponse: undefined } as never);
    const m = mute.core.probeDevice(node('M'), mute.driver.iommu);
    expect(errnoOf(() => new IopfQueue(kernel, 'mute').addDevice(m))).toBe('ENODEV');
  });

  test('removal drops partial faults and answers pending groups, oldest first', () => {
    const { a, b, driver, queue } = setup();
    reportDeviceFault(a, pageFault(1, { lastPage: false }));
    reportDeviceFault(a, pageFault(2));
    reportDeviceFault(a, pageFault(3));
    reportDeviceFault(b, pageFault(4));
    queue.removeDevice(a);
    expect(driver.take()).toEqual(['respond A g2 invalid', 'respond A g3 invalid']);
    expect(a.faultParam).toBe(null);
    expect(() => queue.removeDevice(a)).toThrow('not in the page-fault queue');
  });

  test('an overflow discards the partial faults of all devices and no pending group', () => {
    const { a, b, queue, groups } = setup();
    reportDeviceFault(a, pageFault(1, { addr: 0x1000n, lastPage: false }));
    reportDeviceFault(b, pageFault(2, { addr: 0x2000n, lastPage: false }));
    reportDeviceFault(b, pageFault(3));
    queue.discardPartial();
    reportDeviceFault(a, pageFault(1, { addr: 0x3000n }));
    reportDeviceFault(b, pageFault(2, { addr: 0x4000n }));
    expect(groups.map((each) => each.faults.map((fault) => fault.addr))).toEqual([[0x1000n], [0x3000n], [0x4000n]]);
  });
});
