/** Driver side: the kernel context, the iommu core, the Arm SMMUv3 driver. */
export * from './arm-smmu-v3/index.ts';
export * from './iommu/index.ts';
export * from './kernel.ts';
export { LocalKernel, type LocalKernelOptions, type LogLine, type PlannedFailure } from './local-kernel.ts';
export * from './tegra241/index.ts';
