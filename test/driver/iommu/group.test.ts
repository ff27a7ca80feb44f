import { describe, expect, test } from 'vitest';
import { attachGroupHandle, deviceClaimDmaOwner, newAttachHandle } from '../../../src/driver/iommu/attach.ts';
import { groupOf, groupSetDomainNofail } from '../../../src/driver/iommu/group.ts';
import { errnoOf, fixture, node, probeGroup } from './mock-ops.ts';

describe('probe and release [iommu_probe_device, iommu_release_device]', () => {
  test('a device alone gets a default domain of its own, allocated before the attach', () => {
    const { core, driver } = fixture();
    const a = core.probeDevice(node('A'), driver.iommu);
    expect(driver.take()).toEqual(['probe A', 'attach A s1#1 <- blocked']);
    expect(groupOf(a).domain).toBe(groupOf(a).defaultDomain);
    expect(groupOf(a).defaultDomainType).toBe('dma');
    expect(a.maxPasids).toBe(16);
  });

  test('a second device of the group joins the domain that the group has', () => {
    const { core, driver } = fixture();
    const a = core.probeDevice(node('A', { groupAlias: 'g' }), driver.iommu);
    const b = core.probeDevice(node('B', { groupAlias: 'g', ssidBits: 0 }), driver.iommu);
    expect(groupOf(b)).toBe(groupOf(a));
    expect(b.maxPasids).toBe(0);
    expect(driver.take().slice(2)).toEqual(['probe B', 'attach B s1#1 <- blocked']);
    expect(core.groups.length).toBe(1);
  });

  test('a device that joins an owned group is blocked with it', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    const b = f.core.probeDevice(node('B', { groupAlias: 'g' }), f.driver.iommu);
    expect(f.driver.rids.get('B')).toBe(f.driver.blocked);
    expect(groupOf(b).domain).toBe(f.driver.blocked);
  });

  test('a bus probe makes all devices known before the first attach, group by group', () => {
    const { kernel, core, driver } = fixture();
    core.unregisterIommu(driver.iommu);
    const devices = core.registerIommu(driver.iommu, [
      node('A', { groupAlias: 'g' }),
      node('B'),
      node('C', { groupAlias: 'g' }),
    ]);
    expect(devices.map((d) => d.name)).toEqual(['A', 'B', 'C']);
    expect(driver.take()).toEqual([
      'probe A',
      'probe B',
      'probe C',
      'attach A s1#1 <- blocked',
      'attach C s1#1 <- blocked',
      'attach B s1#2 <- blocked',
    ]);
    expect(kernel.messages).toEqual([]);
  });

  test.each([['probe'], ['attach']])('a failing %s leaves no device, no group and no domain', (what) => {
    const { core, driver } = fixture();
    driver.refuse('A', what === 'probe' ? null : 's1#1', 'ENOMEM');
    expect(errnoOf(() => core.probeDevice(node('A'), driver.iommu))).toBe('ENOMEM');
    expect(core.devices).toEqual([]);
    expect(core.groups).toEqual([]);
    expect(driver.domains.size).toBe(0);
    expect(driver.rids.size).toBe(0);
    expect(errnoOf(() => core.probeDevice(node('A'), driver.iommu))).toBe('none');
    expect(core.groups[0]?.id).toBe(0);
  });

  test('a failing bus probe leaves nothing of the instance', () => {
    const { core, driver } = fixture();
    core.unregisterIommu(driver.iommu);
    driver.refuse('B', 's1#2', 'EIO');
    expect(errnoOf(() => core.registerIommu(driver.iommu, [node('A'), node('B')]))).toBe('EIO');
    expect([core.devices.length, core.groups.length, core.iommus.length, driver.domains.size]).toEqual([0, 0, 0, 0]);
  });

  test('every allocation of a probe can fail; nothing leaks and the next probe succeeds', () => {
    for (let nth = 1; ; nth++) {
      const { kernel, core, driver } = fixture();
      const plan = kernel.failNth(nth, '');
      const errno = errnoOf(() => core.probeDevice(node('A', { groupAlias: 'g' }), driver.iommu));
      if (plan.fired === null) {
        expect(nth).toBeGreaterThan(4);
        break;
      }
      kernel.clearFailures();
      if (errno === 'none') continue;
      expect(errno).toBe('ENOMEM');
      expect([core.devices.length, core.groups.length, driver.domains.size]).toEqual([0, 0, 0]);
      expect(driver.rids.size).toBe(0);
      core.probeDevice(node('A', { groupAlias: 'g' }), driver.iommu);
      expect(core.groups[0]?.id).toBe(0);
    }
  });

  test('names are unique and instances must be registered', () => {
    const { core, driver } = fixture();
    core.probeDevice(node('A'), driver.iommu);
    expect(errnoOf(() => core.probeDevice(node('A'), driver.iommu))).toBe('EEXIST');
    expect(errnoOf(() => core.registerIommu(driver.iommu))).toBe('EBUSY');
    core.unregisterIommu(driver.iommu);
    expect(errnoOf(() => core.probeDevice(node('B'), driver.iommu))).toBe('ENODEV');
  });

  test('a released device is blocked first; the last one frees the default domain', () => {
    const f = fixture();
    const [a, b] = probeGroup(f, 'A', 'B');
    if (!a || !b) throw new Error('no devices');
    f.core.releaseDevice(a);
    expect(f.driver.take()).toEqual(['attach A blocked <- s1#1', 'release A']);
    f.core.releaseDevice(b);
    expect(f.driver.take()).toEqual(['attach B blocked <- s1#1', 'release B', 'free s1#1']);
    expect(f.core.groups).toEqual([]);
    expect(errnoOf(() => groupOf(a))).toBe('ENODEV');
  });

  test('the last device of a group in use cannot be released', () => {
    const f = fixture();
    const [a, b] = probeGroup(f, 'A', 'B');
    if (!a || !b) throw new Error('no devices');
    deviceClaimDmaOwner(a, f);
    f.core.releaseDevice(b);
    expect(errnoOf(() => f.core.releaseDevice(a))).toBe('EBUSY');
    expect(f.core.devices).toEqual([a]);
  });
});

describe('moving a group [__iommu_group_set_domain_internal]', () => {
  test('device after device, in the order of joining', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A', 'B', 'C');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    expect(f.driver.take()).toEqual([
      'attach A blocked <- s1#1',
      'attach B blocked <- s1#1',
      'attach C blocked <- s1#1',
    ]);
  });

  test('an error on the third device returns the first two to the old domain, and only those', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A', 'B', 'C');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    const s2 = f.driver.alloc('s2');
    f.driver.take();
    f.driver.refuse('C', s2.name, 'ENOMEM');
    const handle = newAttachHandle(s2, null);
    expect(errnoOf(() => attachGroupHandle(s2, groupOf(a), handle))).toBe('ENOMEM');
    expect(f.driver.take()).toEqual([
      'attach A s2#2 <- blocked',
      'attach B s2#2 <- blocked',
      'attach C s2#2 refused',
      'attach A blocked <- s2#2',
      'attach B blocked <- s2#2',
    ]);
    expect(groupOf(a).domain).toBe(f.driver.blocked);
    expect(groupOf(a).pasidArray.size).toBe(0);
    expect(handle.live).toBe(false);
  });

  test('a group that has the domain already makes no driver call', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    f.driver.take();
    attachGroupHandle(f.driver.blocked, groupOf(a), newAttachHandle(f.driver.blocked, null));
    expect(f.driver.take()).toEqual([]);
  });

  test('a teardown goes on past a device that fails, blocks it and warns', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    const group = groupOf(a);
    const s2 = f.driver.alloc('s2');
    f.driver.refuse('A', s2.name, 'EIO');
    expect(groupSetDomainNofail(group, s2)).toBe(false);
    expect(f.driver.take()).toEqual(['attach A s2#2 refused', 'attach A blocked <- s1#1', 'attach B s2#2 <- s1#1']);
    expect(f.kernel.messages.map((m) => m.level)).toEqual(['err']);
  });
});
