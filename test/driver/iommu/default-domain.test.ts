import { describe, expect, test } from 'vitest';
import { deviceClaimDmaOwner, deviceReleaseDmaOwner } from '../../../src/driver/iommu/attach.ts';
import { groupStoreType } from '../../../src/driver/iommu/default-domain.ts';
import { groupOf } from '../../../src/driver/iommu/group.ts';
import { errnoOf, fixture, node, probeGroup } from './mock-ops.ts';

describe('1:1 regions [iommu_create_device_direct_mappings]', () => {
  test('are mapped before the attach; addresses are rounded up to pages', () => {
    const { core, driver } = fixture();
    driver.resv = [
      { start: 0x8800n, length: 0x2000n, type: 'direct' },
      { start: 0x2_0000n, length: 0x1000n, type: 'direct-relaxable' },
      { start: 0x4_0000n, length: 0x1000n, type: 'reserved' },
    ];
    core.probeDevice(node('A'), driver.iommu);
    expect(driver.take()).toEqual(['probe A', 'map 9000 1000 x2', 'map 20000 1000 x1', 'attach A s1#1 <- blocked']);
  });

  test('pages that are mapped already are left out', () => {
    const { core, driver } = fixture();
    driver.resv = [
      { start: 0x9000n, length: 0x1000n, type: 'direct' },
      { start: 0x8000n, length: 0x3000n, type: 'direct-relaxable' },
    ];
    core.probeDevice(node('A'), driver.iommu);
    expect(driver.take().filter((call) => call.startsWith('map'))).toEqual([
      'map 9000 1000 x1',
      'map 8000 1000 x1',
      'map a000 1000 x1',
    ]);
  });

  test('an identity default domain needs no mapping', () => {
    const { core, driver } = fixture({ defaultDomainType: 'identity' });
    driver.resv = [{ start: 0x9000n, length: 0x1000n, type: 'direct' }];
    const a = core.probeDevice(node('A'), driver.iommu);
    expect(driver.take()).toEqual(['probe A', 'attach A identity <- blocked']);
    expect(groupOf(a).defaultDomain).toBe(driver.identity);
    expect(groupOf(a).member(a).requireDirect).toBe(true);
  });

  test('a map that fails is tried again after the attach; failing again undoes the probe', () => {
    const again = fixture();
    again.driver.resv = [{ start: 0x9000n, length: 0x1000n, type: 'direct' }];
    again.driver.refuse('s1#1', 's1#1', 'ENOMEM');
    again.core.probeDevice(node('A'), again.driver.iommu);
    expect(again.driver.take().slice(-2)).toEqual(['attach A s1#1 <- blocked', 'map 9000 1000 x1']);

    const never = fixture();
    never.driver.resv = again.driver.resv;
    never.driver.refuse('s1#1', 's1#1', 'ENOMEM', 2);
    expect(errnoOf(() => never.core.probeDevice(node('A'), never.driver.iommu))).toBe('ENOMEM');
    expect([never.core.devices.length, never.driver.domains.size]).toEqual([0, 0]);
  });

  test('a device that must not be blocked is released to the identity domain', () => {
    const { core, driver } = fixture();
    driver.resv = [{ start: 0x9000n, length: 0x1000n, type: 'direct' }];
    const a = core.probeDevice(node('A'), driver.iommu);
    driver.take();
    core.releaseDevice(a);
    expect(driver.take()).toEqual(['attach A identity <- s1#1', 'release A', 'free s1#1']);
  });
});

describe('change of type [iommu_group_store_type, linux-driver.md 6.8]', () => {
  test('goes directly from the old to the new domain, then frees the old', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    groupStoreType(groupOf(a), 'identity');
    expect(f.driver.take()).toEqual(['attach A identity <- s1#1', 'attach B identity <- s1#1', 'free s1#1']);
    groupStoreType(groupOf(a), 'identity');
    expect(f.driver.take()).toEqual([]);
    groupStoreType(groupOf(a), 'auto');
    expect(f.driver.take()).toEqual(['attach A s1#2 <- identity', 'attach B s1#2 <- identity']);
    expect(groupOf(a).defaultDomainType).toBe('dma');
  });

  test('from dma to dma-fq the domain stays, also under a kernel driver or an owner', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    f.driver.take();
    groupStoreType(groupOf(a), 'dma-fq');
    expect([groupOf(a).defaultDomainType, f.driver.take()]).toEqual(['dma-fq', []]);
  });

  test('EPERM while owned; EBUSY while attached to something else', () => {
    const f = fixture();
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    deviceClaimDmaOwner(a, f);
    expect(errnoOf(() => groupStoreType(groupOf(a), 'identity'))).toBe('EPERM');
    deviceReleaseDmaOwner(a);
    expect(errnoOf(() => groupStoreType(groupOf(a), 'identity'))).toBe('none');
  });

  test.each([['A'], ['B']])('if %s fails the group keeps its domain and the new one is freed', (name) => {
    const f = fixture({ defaultDomainType: 'identity' });
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    f.driver.refuse(name, 's1#1', 'EIO');
    expect(errnoOf(() => groupStoreType(groupOf(a), 'dma'))).toBe('EIO');
    expect([f.driver.rids.get('A'), f.driver.rids.get('B')]).toEqual([f.driver.identity, f.driver.identity]);
    expect([groupOf(a).defaultDomain, groupOf(a).defaultDomainType]).toEqual([f.driver.identity, 'identity']);
    expect(f.driver.domains.size).toBe(0);
  });

  test('a 1:1 region that cannot be mapped even after the attach: back to the old domain', () => {
    const f = fixture({ defaultDomainType: 'identity' });
    f.driver.resv = [{ start: 0x9000n, length: 0x1000n, type: 'direct' }];
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    f.driver.refuse('s1#1', 's1#1', 'ENOMEM', 2);
    expect(errnoOf(() => groupStoreType(groupOf(a), 'dma'))).toBe('ENOMEM');
    expect(f.driver.take().slice(-2)).toEqual(['attach A identity <- s1#1', 'free s1#1']);
    expect(groupOf(a).domain).toBe(f.driver.identity);
  });

  test('a DMA domain without page sizes cannot be a default domain: EINVAL', () => {
    const f = fixture({ defaultDomainType: 'identity', domainAllocPagingFlags: () => f.driver.alloc('nested') });
    const [a] = probeGroup(f, 'A');
    if (!a) throw new Error('no device');
    expect(errnoOf(() => groupStoreType(groupOf(a), 'dma'))).toBe('EINVAL');
    expect(f.driver.domains.size).toBe(0);
  });
});
