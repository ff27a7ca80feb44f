/** smmulab: SMMUv3, Tegra241 CMDQV and iommufd in one process. Each part also has an entry of its own. */

export * as spec from '../spec/index.ts';
export * as driver from './driver/index.ts';
export * as hw from './hw/index.ts';
export * as inspect from './inspect/index.ts';
export * as iommufd from './iommufd/index.ts';
export * as lab from './lab/index.ts';
export * as sanitizer from './sanitizer/index.ts';
export * as testing from './testing/index.ts';
