/** smmulab: SMMUv3, Tegra241 CMDQV and iommufd in one process. Each layer also has an entry of its own. */
export * as driver from './driver/index.ts';
export * as hw from './hw/index.ts';
export * as inspect from './inspect/index.ts';
export * as iommufd from './iommufd/index.ts';
export * as spec from '../spec/index.ts';
