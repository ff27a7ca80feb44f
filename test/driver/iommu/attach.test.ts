import { describe, expect, test } from 'vitest';
import {
  attachDevice,
  attachGroupHandle,
  attachHandleGet,
  detachDevice,
  detachGroupHandle,
  deviceClaimDmaOwner,
  deviceReleaseDmaOwner,
  deviceUnuseDefaultDomain,
  deviceUseDefaultDomain,
  getDomainForDev,
  groupClaimDmaOwner,
  groupReleaseDmaOwner,
  newAttachHandle,
  replaceGroupHandle,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf, NO_PASID } from '../../../src/driver/iommu/group.ts';
import { errnoOf, type Fixture, fixture, MockDriver, node, probeGroup } from './mock-ops.ts';

const owner = { name: 'iommufd' };
const other = { name: 'another iommufd' };

function owned(...names: string[]) {
  const f = fixture();
  const [a, b] = probeGroup(f, ...names);
  if (!a) throw new Error('no device');
  deviceClaimDmaOwner(a, owner);
  f.driver.take();
  return { ...f, a, b: b ?? a, group: groupOf(a) };
}

describe('ownership of a group [iommu_device_claim_dma_owner, iommufd.md 7.1]', () => {
  test('one owner may claim each device of the group; another owner gets EPERM', () => {
    const f = fixture();
    const [a, b] = probeGroup(f, 'A', 'B');
    if (!a || !b) throw new Error('no devices');
    deviceClaimDmaOwner(a, owner);
    deviceClaimDmaOwner(b, owner);
    expect(errnoOf(() => deviceClaimDmaOwner(b, other))).toBe('EPERM');
    expect(groupOf(a).ownerCount).toBe(2);
    deviceReleaseDmaOwner(a);
    expect(errnoOf(() => deviceClaimDmaOwner(a, other))).toBe('EPERM');
    deviceReleaseDmaOwner(b);
    expect(getDomainForDev(a)).toBe(groupOf(a).defaultDomain);
    deviceClaimDmaOwner(a, other);
    expect(f.driver.rids.get('B')).toBe(f.driver.blocked);
  });

  test('a whole group is claimed once, even by the same owner', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    groupClaimDmaOwner(groupOf(a), owner);
    expect(errnoOf(() => groupClaimDmaOwner(groupOf(a), owner))).toBe('EPERM');
    groupReleaseDmaOwner(groupOf(a));
    expect(f.driver.rids.get('A')).toBe(groupOf(a).defaultDomain);
  });

  test('a kernel driver on the default domain and an owner keep each other out', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    deviceUseDefaultDomain(a);
    expect(errnoOf(() => deviceClaimDmaOwner(a, owner))).toBe('EPERM');
    deviceUnuseDefaultDomain(a);
    deviceClaimDmaOwner(a, owner);
    expect(errnoOf(() => deviceUseDefaultDomain(a))).toBe('EBUSY');
  });

  test('a group that is attached without an owner cannot be claimed: EBUSY', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    attachDevice(f.driver.alloc('s1'), a);
    expect(errnoOf(() => deviceClaimDmaOwner(a, owner))).toBe('EBUSY');
  });

  test('firmware that demands 1:1 mappings forbids the claim: EINVAL, nothing changed', () => {
    const f = fixture();
    f.driver.resv = [{ start: 0x8000n, length: 0x1000n, type: 'direct' }];
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    expect(errnoOf(() => deviceClaimDmaOwner(a, owner))).toBe('EINVAL');
    expect(f.driver.take()).toEqual([]);
    expect(groupOf(a).ownerCount).toBe(0);
  });

  test('a release while an attachment is left warns and changes nothing', () => {
    const { group, a, driver, kernel } = owned('A');
    const s2 = driver.alloc('s2');
    attachGroupHandle(s2, group, newAttachHandle(s2, null));
    deviceReleaseDmaOwner(a);
    expect(kernel.messages.length).toBe(1);
    expect([group.ownerCount, group.domain]).toEqual([1, s2]);
  });
});

describe('attach and detach of a group [iommufd.md 7.3, 7.6]', () => {
  test('a handle lives from attach to detach', () => {
    const { group, driver } = owned('A', 'B');
    const s2 = driver.alloc('s2');
    const handle = newAttachHandle(s2, owner);
    expect(handle.live).toBe(false);
    attachGroupHandle(s2, group, handle);
    expect(handle.live).toBe(true);
    expect(attachHandleGet(group, NO_PASID)).toBe(handle);
    expect(handle.owner).toBe(owner);
    detachGroupHandle(s2, group);
    expect(handle.live).toBe(false);
    expect(errnoOf(() => attachHandleGet(group, NO_PASID))).toBe('ENOENT');
    expect(group.domain).toBe(driver.blocked);
  });

  test('without an owner a detach returns to the default domain', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    const s1 = f.driver.alloc('s1');
    attachGroupHandle(s1, groupOf(a), newAttachHandle(s1, null));
    detachGroupHandle(s1, groupOf(a));
    expect(f.driver.take()).toEqual(['attach A s1#2 <- s1#1', 'attach A s1#1 <- s1#2']);
  });

  test('EBUSY: the slot is taken, or the group has a domain that is neither default nor blocking', () => {
    const { group, driver } = owned('A');
    const s2 = driver.alloc('s2');
    attachGroupHandle(s2, group, newAttachHandle(s2, null));
    expect(errnoOf(() => attachGroupHandle(s2, group, newAttachHandle(s2, null)))).toBe('EBUSY');

    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    const s1 = f.driver.alloc('s1');
    attachDevice(s1, a);
    const next = f.driver.alloc('s2');
    expect(errnoOf(() => attachGroupHandle(next, groupOf(a), newAttachHandle(next, null)))).toBe('EBUSY');
    detachDevice(s1, a);
    expect(errnoOf(() => attachGroupHandle(next, groupOf(a), newAttachHandle(next, null)))).toBe('none');
  });

  test("EINVAL: another driver's domain, tested after EBUSY; its static domains are foreign too", () => {
    const { group, driver } = owned('A');
    const foreign = new MockDriver('foreign');
    for (const domain of [foreign.alloc('s2'), foreign.blocked, foreign.identity]) {
      expect(errnoOf(() => attachGroupHandle(domain, group, newAttachHandle(domain, null)))).toBe('EINVAL');
    }
    const s2 = driver.alloc('s2');
    attachGroupHandle(s2, group, newAttachHandle(s2, null));
    const late = foreign.alloc('s2');
    expect(errnoOf(() => attachGroupHandle(late, group, newAttachHandle(late, null)))).toBe('EBUSY');
  });

  test("the driver's own static domains can be attached although they have no owner", () => {
    const { group, driver } = owned('A');
    attachGroupHandle(driver.identity, group, newAttachHandle(driver.identity, null));
    expect(driver.rids.get('A')).toBe(driver.identity);
  });

  test('attachHandleGet with a type: EBUSY if the domain is of another', () => {
    const { group, driver } = owned('A');
    const s2 = driver.alloc('s2');
    attachGroupHandle(s2, group, newAttachHandle(s2, null));
    expect(errnoOf(() => attachHandleGet(group, NO_PASID, 'nested'))).toBe('EBUSY');
    expect(attachHandleGet(group, NO_PASID, 'paging').domain).toBe(s2);
  });

  test('a handle serves one attachment: the wrong domain or a second use is a bug of the caller', () => {
    const f = owned('A');
    const s2 = f.driver.alloc('s2');
    const handle = newAttachHandle(s2, null);
    expect(() => attachGroupHandle(f.driver.alloc('s2'), f.group, handle)).toThrow('made for another domain');
    attachGroupHandle(s2, f.group, handle);
    expect(() => replaceGroupHandle(f.group, s2, handle)).toThrow('belongs to another attachment');
  });

  test('attachDevice is for groups of one device: EINVAL else, also at detach (a warning)', () => {
    const { a, driver, kernel } = owned('A', 'B');
    const s2 = driver.alloc('s2');
    expect(errnoOf(() => attachDevice(s2, a))).toBe('EINVAL');
    detachDevice(s2, a);
    expect(kernel.messages.length).toBe(1);
    expect(driver.take()).toEqual([]);
  });

  test('a failed allocation leaves the group as it was, and the same call then succeeds', () => {
    const { group, driver, kernel } = owned('A');
    const s2 = driver.alloc('s2');
    kernel.failNth(1, 'alloc:iommu');
    const handle = newAttachHandle(s2, null);
    expect(errnoOf(() => attachGroupHandle(s2, group, handle))).toBe('ENOMEM');
    expect([group.domain, group.pasidArray.size, handle.live]).toEqual([driver.blocked, 0, false]);
    attachGroupHandle(s2, group, handle);
    expect(handle.live).toBe(true);
  });
});

describe('replace of a group [iommufd.md 7.5]', () => {
  function attached(): ReturnType<typeof owned> & { s2: ReturnType<Fixture['driver']['alloc']> } {
    const f = owned('A', 'B');
    const s2 = f.driver.alloc('s2');
    attachGroupHandle(s2, f.group, newAttachHandle(s2, null));
    f.driver.take();
    return { ...f, s2 };
  }

  test('goes from the old to the new domain without passing the blocking one; the old handle ends', () => {
    const { group, driver, s2 } = attached();
    const old = attachHandleGet(group, NO_PASID);
    const next = driver.alloc('s2');
    const handle = newAttachHandle(next, null);
    replaceGroupHandle(group, next, handle);
    expect(driver.take()).toEqual([`attach A ${next.name} <- ${s2.name}`, `attach B ${next.name} <- ${s2.name}`]);
    expect([old.live, handle.live]).toEqual([false, true]);
    expect(attachHandleGet(group, NO_PASID)).toBe(handle);
  });

  test('the same domain with a new handle: no driver call, the handles change', () => {
    const { group, driver, s2 } = attached();
    const old = attachHandleGet(group, NO_PASID);
    const handle = newAttachHandle(s2, null);
    replaceGroupHandle(group, s2, handle);
    expect(driver.take()).toEqual([]);
    expect([old.live, handle.live]).toEqual([false, true]);
  });

  test('is all or nothing: if the second device fails, the first returns and the old handle stays', () => {
    const { group, driver, s2 } = attached();
    const old = attachHandleGet(group, NO_PASID);
    const next = driver.alloc('s2');
    driver.refuse('B', next.name, 'EINVAL');
    const handle = newAttachHandle(next, null);
    expect(errnoOf(() => replaceGroupHandle(group, next, handle))).toBe('EINVAL');
    expect([driver.rids.get('A'), driver.rids.get('B'), group.domain]).toEqual([s2, s2, s2]);
    expect([old.live, handle.live]).toEqual([true, false]);
    expect(attachHandleGet(group, NO_PASID)).toBe(old);
  });

  test('a device that cannot even return is blocked, and the log says so', () => {
    const { group, driver, s2, kernel } = attached();
    const next = driver.alloc('s2');
    driver.refuse('B', next.name, 'EINVAL');
    driver.refuse('A', s2.name, 'EIO');
    expect(errnoOf(() => replaceGroupHandle(group, next, newAttachHandle(next, null)))).toBe('EINVAL');
    expect(driver.rids.get('A')).toBe(driver.blocked);
    expect(driver.rids.get('B')).toBe(s2);
    expect(kernel.messages.length).toBe(1);
  });
});

test('a device without a group: ENODEV', () => {
  const { core, driver } = fixture();
  const a = core.probeDevice(node('A'), driver.iommu);
  core.releaseDevice(a);
  expect(errnoOf(() => deviceClaimDmaOwner(a, owner))).toBe('ENODEV');
  expect(getDomainForDev(a)).toBe(null);
});
