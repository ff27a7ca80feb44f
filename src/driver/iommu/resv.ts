/** Reserved regions of a whole group (iommu_get_group_resv_regions). */
import type { IommuGroup } from './group.ts';
import type { ResvRegion } from './ops.ts';

/** The order of equal starts: the kernel's enum. */
const TYPE_ORDER: readonly ResvRegion['type'][] = ['direct', 'direct-relaxable', 'reserved', 'msi', 'sw-msi'];

/**
 * The reserved regions of all devices of a group by ascending start; regions of one type that overlap or touch are one.
 * Kernel: iommu_get_group_resv_regions().
 */
export function getGroupResvRegions(group: IommuGroup): ResvRegion[] {
  const all = group.locked(() => group.devices.flatMap(({ dev }) => [...dev.iommu.ops.getResvRegions(dev)]));
  return mergeResvRegions(all);
}

/** Sorts and merges. Kernel: iommu_insert_resv_region(). */
export function mergeResvRegions(regions: readonly ResvRegion[]): ResvRegion[] {
  const sorted = [...regions].sort((a, b) => {
    if (a.start !== b.start) return a.start < b.start ? -1 : 1;
    return TYPE_ORDER.indexOf(a.type) - TYPE_ORDER.indexOf(b.type);
  });
  const merged: ResvRegion[] = [];
  const lastOfType = new Map<ResvRegion['type'], number>();
  for (const region of sorted) {
    const at = lastOfType.get(region.type);
    const top = at === undefined ? undefined : merged[at];
    if (at === undefined || top === undefined || region.start > top.start + top.length) {
      lastOfType.set(region.type, merged.length);
      merged.push(region);
      continue;
    }
    const end = region.start + region.length;
    if (end > top.start + top.length) merged[at] = { ...top, length: end - top.start };
  }
  return merged;
}
