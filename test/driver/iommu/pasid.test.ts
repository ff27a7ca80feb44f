import { describe, expect, test } from 'vitest';
import {
  attachDevicePasid,
  attachHandleGet,
  detachDevicePasid,
  deviceClaimDmaOwner,
  newAttachHandle,
  replaceDevicePasid,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf } from '../../../src/driver/iommu/group.ts';
import { errnoOf, fixture, MockDriver, node } from './mock-ops.ts';

/** A and B have 16 PASIDs, C has none. */
function setup() {
  const f = fixture();
  const [a, b, c] = ['A', 'B', 'C'].map((name) =>
    f.core.probeDevice(node(name, { groupAlias: 'g', ssidBits: name === 'C' ? 0 : 4 }), f.driver.iommu),
  );
  if (!a || !b || !c) throw new Error('no devices');
  f.driver.take();
  return { ...f, a, b, c, group: groupOf(a) };
}

describe('attach of a PASID [iommu_attach_device_pasid, iommufd.md 7.3.4d]', () => {
  test('every device of the group that has PASIDs is set; others are skipped', () => {
    const { a, driver, group } = setup();
    const s1 = driver.alloc('s1');
    const handle = newAttachHandle(s1, null);
    attachDevicePasid(s1, a, 5, handle);
    expect(driver.take()).toEqual([`pasid A 5 ${s1.name} <- none`, `pasid B 5 ${s1.name} <- none`]);
    expect(attachHandleGet(group, 5)).toBe(handle);
    detachDevicePasid(s1, a, 5);
    expect(driver.take()).toEqual([`pasid A 5 blocked <- ${s1.name}`, `pasid B 5 blocked <- ${s1.name}`]);
    expect(handle.live).toBe(false);
  });

  test('a group without a PASID-capable device: success, nothing programmed', () => {
    const { core, driver } = fixture();
    const d = core.probeDevice(node('D', { ssidBits: 0 }), driver.iommu);
    driver.take();
    const s1 = driver.alloc('s1');
    attachDevicePasid(s1, d, 1000, newAttachHandle(s1, null));
    expect(driver.take()).toEqual([]);
    expect(attachHandleGet(groupOf(d), 1000).domain).toBe(s1);
  });

  test('EOPNOTSUPP: the domain has no setDevPasid; tested before the owner and the PASID', () => {
    const { a, driver } = setup();
    const nested = driver.alloc('nested');
    expect(errnoOf(() => attachDevicePasid(nested, a, 0, newAttachHandle(nested, null)))).toBe('EOPNOTSUPP');
    expect(errnoOf(() => replaceDevicePasid(nested, a, 0, newAttachHandle(nested, null)))).toBe('EOPNOTSUPP');
  });

  test('EOPNOTSUPP: the blocked domain has no setDevPasid, so the attach could not be undone', () => {
    const withoutPasid = new MockDriver().alloc('nested', 'blocked');
    const f = fixture({ blockedDomain: withoutPasid });
    const { a } = setup();
    const dev = { ...a, iommu: f.driver.iommu };
    expect(errnoOf(() => attachDevicePasid(f.driver.alloc('s1'), dev, 1))).toBe('EOPNOTSUPP');
  });

  test("EINVAL: another driver's domain, PASID 0, PASID at or beyond max_pasids", () => {
    const { a, driver } = setup();
    const foreign = new MockDriver('foreign').alloc('s1');
    const s1 = driver.alloc('s1');
    expect(errnoOf(() => attachDevicePasid(foreign, a, 1))).toBe('EINVAL');
    expect(errnoOf(() => attachDevicePasid(s1, a, 0))).toBe('EINVAL');
    expect(errnoOf(() => attachDevicePasid(s1, a, 16))).toBe('EINVAL');
    expect(errnoOf(() => attachDevicePasid(s1, a, -1))).toBe('EINVAL');
    expect(errnoOf(() => attachDevicePasid(s1, a, 15))).toBe('none');
    expect(driver.take().length).toBe(2);
  });

  test('EBUSY: the slot is taken, even by the same domain; the first handle stays', () => {
    const { a, b, driver, group } = setup();
    const s1 = driver.alloc('s1');
    const first = newAttachHandle(s1, null);
    attachDevicePasid(s1, a, 5, first);
    expect(errnoOf(() => attachDevicePasid(s1, b, 5, newAttachHandle(s1, null)))).toBe('EBUSY');
    expect(attachHandleGet(group, 5)).toBe(first);
  });

  test('if the second device fails, the first is blocked again and the slot is free', () => {
    const { a, driver, group } = setup();
    const s1 = driver.alloc('s1');
    driver.refuse('B', s1.name, 'ENOMEM');
    const handle = newAttachHandle(s1, null);
    expect(errnoOf(() => attachDevicePasid(s1, a, 5, handle))).toBe('ENOMEM');
    expect(driver.pasids.size).toBe(0);
    expect([group.pasidArray.size, handle.live]).toEqual([0, false]);
    attachDevicePasid(s1, a, 5, handle);
    expect(handle.live).toBe(true);
  });

  test('a bare attach has no handle to get: ENOENT', () => {
    const { a, driver, group } = setup();
    attachDevicePasid(driver.alloc('s1'), a, 5);
    expect(errnoOf(() => attachHandleGet(group, 5))).toBe('ENOENT');
    expect(errnoOf(() => attachHandleGet(group, 6))).toBe('ENOENT');
  });

  test('an attached PASID keeps owners out: EBUSY', () => {
    const { a, driver } = setup();
    attachDevicePasid(driver.alloc('s1'), a, 5);
    expect(errnoOf(() => deviceClaimDmaOwner(a, driver))).toBe('EBUSY');
  });
});

describe('replace of a PASID [iommu_replace_device_pasid]', () => {
  test('all devices or none; handles change only on success', () => {
    const { a, driver, group } = setup();
    const s1 = driver.alloc('s1');
    const next = driver.alloc('s1');
    const old = newAttachHandle(s1, null);
    attachDevicePasid(s1, a, 5, old);
    driver.take();
    driver.refuse('B', next.name, 'EIO');
    const handle = newAttachHandle(next, null);
    expect(errnoOf(() => replaceDevicePasid(next, a, 5, handle))).toBe('EIO');
    expect(driver.take()).toEqual([
      `pasid A 5 ${next.name} <- ${s1.name}`,
      `pasid 5 B ${next.name} refused`,
      `pasid A 5 ${s1.name} <- ${next.name}`,
    ]);
    expect([old.live, handle.live, attachHandleGet(group, 5)]).toEqual([true, false, old]);
    replaceDevicePasid(next, a, 5, handle);
    expect([old.live, handle.live, attachHandleGet(group, 5)]).toEqual([false, true, handle]);
    expect([driver.pasids.get('A/5'), driver.pasids.get('B/5')]).toEqual([next, next]);
  });

  test('a device that cannot return to the old domain is blocked on that PASID', () => {
    const { a, driver, kernel } = setup();
    const s1 = driver.alloc('s1');
    const next = driver.alloc('s1');
    attachDevicePasid(s1, a, 5, newAttachHandle(s1, null));
    driver.refuse('B', next.name, 'EIO');
    driver.refuse('A', s1.name, 'EIO');
    expect(errnoOf(() => replaceDevicePasid(next, a, 5, newAttachHandle(next, null)))).toBe('EIO');
    expect([driver.pasids.get('A/5'), driver.pasids.get('B/5')]).toEqual([undefined, s1]);
    expect(kernel.messages.length).toBe(1);
  });

  test('EINVAL: nothing attached; the handle in use', () => {
    const { a, driver } = setup();
    const s1 = driver.alloc('s1');
    const handle = newAttachHandle(s1, null);
    expect(errnoOf(() => replaceDevicePasid(s1, a, 5, handle))).toBe('EINVAL');
    attachDevicePasid(s1, a, 5, handle);
    expect(errnoOf(() => replaceDevicePasid(s1, a, 5, handle))).toBe('EINVAL');
    expect(handle.live).toBe(true);
  });

  test('with the same domain only the handle changes', () => {
    const { a, driver, group } = setup();
    const s1 = driver.alloc('s1');
    attachDevicePasid(s1, a, 5, newAttachHandle(s1, null));
    driver.take();
    const handle = newAttachHandle(s1, null);
    replaceDevicePasid(s1, a, 5, handle);
    expect(driver.take()).toEqual([]);
    expect(attachHandleGet(group, 5)).toBe(handle);
  });

  test('a detach of another domain warns and leaves the attachment', () => {
    const { a, driver, group, kernel } = setup();
    const s1 = driver.alloc('s1');
    attachDevicePasid(s1, a, 5, newAttachHandle(s1, null));
    detachDevicePasid(driver.alloc('s1'), a, 5);
    expect(kernel.messages.length).toBe(1);
    expect(attachHandleGet(group, 5).live).toBe(true);
  });
});
