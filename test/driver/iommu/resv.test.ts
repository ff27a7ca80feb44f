import { describe, expect, test } from 'vitest';
import { groupOf } from '../../../src/driver/iommu/group.ts';
import type { ResvRegion } from '../../../src/driver/iommu/ops.ts';
import { getGroupResvRegions, mergeResvRegions } from '../../../src/driver/iommu/resv.ts';
import { fixture, probeGroup } from './mock-ops.ts';

const region = (start: bigint, length: bigint, type: ResvRegion['type']): ResvRegion => ({ start, length, type });

describe('reserved regions of a group [iommu_get_group_resv_regions]', () => {
  test('the same region of two devices is one', () => {
    const f = fixture();
    f.driver.resv = [region(0x800_0000n, 0x10_0000n, 'sw-msi')];
    const [a] = probeGroup(f, 'A', 'B');
    if (!a) throw new Error('no device');
    expect(getGroupResvRegions(groupOf(a))).toEqual([region(0x800_0000n, 0x10_0000n, 'sw-msi')]);
  });

  test.each([
    [
      'overlapping',
      [region(0n, 0x2000n, 'reserved'), region(0x1000n, 0x2000n, 'reserved')],
      [region(0n, 0x3000n, 'reserved')],
    ],
    ['touching', [region(0x1000n, 0x1000n, 'msi'), region(0n, 0x1000n, 'msi')], [region(0n, 0x2000n, 'msi')]],
    [
      'one inside the other',
      [region(0n, 0x5000n, 'msi'), region(0x1000n, 0x1000n, 'msi')],
      [region(0n, 0x5000n, 'msi')],
    ],
    [
      'apart',
      [region(0x3000n, 0x1000n, 'msi'), region(0n, 0x1000n, 'msi')],
      [region(0n, 0x1000n, 'msi'), region(0x3000n, 0x1000n, 'msi')],
    ],
    [
      'of different types, though they overlap; direct first',
      [region(0n, 0x2000n, 'reserved'), region(0n, 0x1000n, 'direct')],
      [region(0n, 0x1000n, 'direct'), region(0n, 0x2000n, 'reserved')],
    ],
    [
      'merged across one of another type between them',
      [region(0n, 0x2000n, 'msi'), region(0x1000n, 0x1000n, 'direct'), region(0x2000n, 0x1000n, 'msi')],
      [region(0n, 0x3000n, 'msi'), region(0x1000n, 0x1000n, 'direct')],
    ],
  ])('%s', (_what, input, expected) => {
    expect(mergeResvRegions(input)).toEqual(expected);
  });
});
