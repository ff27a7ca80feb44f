import { describe, expect, test } from 'vitest';
import {
  attachDevicePasid,
  attachGroupHandle,
  detachDevicePasid,
  detachGroupHandle,
  deviceClaimDmaOwner,
  newAttachHandle,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf } from '../../../src/driver/iommu/group.ts';
import { pciDevResetDone, pciDevResetPrepare } from '../../../src/driver/iommu/reset.ts';
import { errnoOf, fixture, probeGroup } from './mock-ops.ts';

function setup() {
  const f = fixture();
  const [a, b] = probeGroup(f, 'A', 'B');
  if (!a || !b) throw new Error('no devices');
  const group = groupOf(a);
  deviceClaimDmaOwner(a, f);
  const s1 = f.driver.alloc('s1');
  attachGroupHandle(s1, group, newAttachHandle(s1, null));
  const pasid = f.driver.alloc('s1');
  for (const each of [9, 3]) attachDevicePasid(pasid, a, each, newAttachHandle(pasid, null));
  f.driver.take();
  return { ...f, a, b, group, s1, pasid };
}

describe('PCI reset [pci_dev_reset_iommu_prepare, linux-driver.md 6.8]', () => {
  test('RID, then PASIDs ascending are blocked, on this device alone, and come back', () => {
    const { a, driver, s1, pasid, group } = setup();
    pciDevResetPrepare(a);
    expect(driver.take()).toEqual([
      `attach A blocked <- ${s1.name}`,
      `pasid A 3 blocked <- ${pasid.name}`,
      `pasid A 9 blocked <- ${pasid.name}`,
    ]);
    expect(group.domain).toBe(s1);
    pciDevResetDone(a);
    expect(driver.take()).toEqual([
      `attach A ${s1.name} <- blocked`,
      `pasid A 3 ${pasid.name} <- none`,
      `pasid A 9 ${pasid.name} <- none`,
    ]);
  });

  test('attach and replace in between fail with EBUSY, for siblings too', () => {
    const { a, b, driver, group, s1 } = setup();
    pciDevResetPrepare(a);
    const next = driver.alloc('s1');
    const handle = newAttachHandle(next, null);
    expect(errnoOf(() => replaceGroupHandle(group, next, handle))).toBe('EBUSY');
    expect(errnoOf(() => attachDevicePasid(next, b, 1, handle))).toBe('EBUSY');
    expect(errnoOf(() => replaceDevicePasid(next, b, 3, handle))).toBe('EBUSY');
    expect(group.domain).toBe(s1);
    pciDevResetDone(a);
    replaceGroupHandle(group, next, handle);
    expect(handle.live).toBe(true);
  });

  test('detach in between ends the attachment; the reset device stays blocked and then follows', () => {
    const { a, driver, group, s1, pasid } = setup();
    pciDevResetPrepare(a);
    driver.take();
    detachDevicePasid(pasid, a, 3);
    detachGroupHandle(s1, group);
    expect(driver.take()).toEqual([`pasid B 3 blocked <- ${pasid.name}`, `attach B blocked <- ${s1.name}`]);
    s1.ops.free(s1);
    driver.take();
    pciDevResetDone(a);
    expect(driver.take()).toEqual([`pasid A 9 ${pasid.name} <- none`]);
    expect(driver.rids.get('A')).toBe(driver.blocked);
  });

  test('resets nest, and two devices may be in reset at once', () => {
    const { a, b, driver, group } = setup();
    pciDevResetPrepare(a);
    pciDevResetPrepare(a);
    pciDevResetPrepare(b);
    expect(group.recoveryCount).toBe(2);
    driver.take();
    pciDevResetDone(a);
    expect(driver.take()).toEqual([]);
    pciDevResetDone(a);
    pciDevResetDone(b);
    expect(driver.take().length).toBe(6);
    expect(group.recoveryCount).toBe(0);
  });

  test('a device without ATS is left alone', () => {
    const { a, driver, group } = setup();
    driver.ats = false;
    pciDevResetPrepare(a);
    expect([driver.take(), group.recoveryCount]).toEqual([[], 0]);
    pciDevResetDone(a);
    expect(driver.take()).toEqual([]);
  });

  test('a prepare that fails leaves the device attached and the group open', () => {
    const { a, driver, group, s1 } = setup();
    driver.refuse('A', 'blocked', 'EIO');
    expect(errnoOf(() => pciDevResetPrepare(a))).toBe('EIO');
    expect([group.recoveryCount, group.member(a).resetDepth, driver.rids.get('A')]).toEqual([0, 0, s1]);
  });

  test('a device that cannot come back stays blocked, and the log says so', () => {
    const { a, driver, kernel, s1, group } = setup();
    pciDevResetPrepare(a);
    driver.refuse('A', s1.name, 'ENOMEM');
    pciDevResetDone(a);
    expect(driver.rids.get('A')).toBe(driver.blocked);
    expect(driver.pasids.has('A/3')).toBe(true);
    expect([kernel.messages.length, group.recoveryCount]).toEqual([1, 0]);
  });
});
