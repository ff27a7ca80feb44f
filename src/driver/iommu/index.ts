/** The iommu core: what Linux keeps in iommu.c, iommu-sva.c and io-pgfault.c. */
export * from './attach.ts';
export * from './core.ts';
export * from './default-domain.ts';
export * from './group.ts';
export * from './io-pgfault.ts';
export * from './map.ts';
export * from './ops.ts';
export * from './parts.ts';
export * from './reset.ts';
export * from './resv.ts';
export * from './sva.ts';
export * from './viommu.ts';
