import { describe, expect, test } from 'vitest';
import type { IommufdCallbacks, IommufdViommu, IommuOps, ViommuOps } from '../../../src/driver/iommu/ops.ts';
import { VIOMMU_CORE_SIZE } from '../../../src/driver/iommu/ops.ts';
import { viommuAlloc } from '../../../src/driver/iommu/viommu.ts';
import { KernelError } from '../../../src/driver/kernel.ts';
import { errnoOf, fixture, MockDriver, node } from './mock-ops.ts';

const never = (): never => {
  throw new Error('not expected');
};
const callbacks: IommufdCallbacks = {
  reportEvent: never,
  findDev: never,
  getVdevId: never,
  allocMmap: never,
  destroyMmap: never,
  hwQueueDepend: never,
  hwQueueUndepend: never,
};

function setup(size: number, init: (viommu: IommufdViommu, ops: ViommuOps) => void = (v, ops) => (v.ops = ops)) {
  const destroyed: IommufdViommu[] = [];
  const ops: ViommuOps = { destroy: (viommu) => destroyed.push(viommu) };
  const overrides: Partial<IommuOps> = {
    getViommuSize: (_dev, type) => (type === 1 ? size : 0),
    viommuInit: (viommu) => init(viommu, ops),
  };
  const f = fixture(overrides);
  const a = f.core.probeDevice(node('A'), f.driver.iommu);
  const parent = f.driver.alloc('s2');
  const alloc = (type = 1) => viommuAlloc(f.driver.ops, a, type, parent, null, callbacks);
  return { ...f, a, parent, destroyed, alloc };
}

describe('vIOMMU allocation [iommufd_viommu_alloc_ioctl, iommufd.md 9.1]', () => {
  test('init fills ops; destroy runs the driver once', () => {
    const { alloc, parent, destroyed, driver } = setup(VIOMMU_CORE_SIZE);
    const { viommu, destroy } = alloc();
    expect([viommu.type, viommu.parent, viommu.iommuDev]).toEqual([1, parent, driver.iommu]);
    destroy();
    expect(destroyed).toEqual([viommu]);
    expect(destroy).toThrow('destroyed');
  });

  test('EOPNOTSUPP: type 0, unknown type, no such op, a size below the core part', () => {
    expect(errnoOf(() => setup(VIOMMU_CORE_SIZE).alloc(0))).toBe('EOPNOTSUPP');
    expect(errnoOf(() => setup(VIOMMU_CORE_SIZE).alloc(2))).toBe('EOPNOTSUPP');
    expect(errnoOf(() => setup(VIOMMU_CORE_SIZE - 1).alloc())).toBe('EOPNOTSUPP');
    const f = fixture();
    const a = f.core.probeDevice(node('A'), f.driver.iommu);
    const parent = f.driver.alloc('s2');
    expect(errnoOf(() => viommuAlloc(f.driver.ops, a, 1, parent, null, callbacks))).toBe('EOPNOTSUPP');
  });

  test("EINVAL: the parent is another driver's or no paging domain; tested after the size", () => {
    const { a, driver } = setup(VIOMMU_CORE_SIZE);
    for (const parent of [new MockDriver('x').alloc('s2'), driver.alloc('nested'), driver.identity]) {
      expect(errnoOf(() => viommuAlloc(driver.ops, a, 1, parent, null, callbacks))).toBe('EINVAL');
      expect(errnoOf(() => viommuAlloc(driver.ops, a, 2, parent, null, callbacks))).toBe('EOPNOTSUPP');
    }
  });

  test('an init that fails before it set ops is not destroyed; after it, it is', () => {
    const early = setup(VIOMMU_CORE_SIZE, () => {
      throw new KernelError('ENOSPC', 'no VMID');
    });
    expect(errnoOf(() => early.alloc())).toBe('ENOSPC');
    expect(early.destroyed.length).toBe(0);
    const late = setup(VIOMMU_CORE_SIZE, (viommu, ops) => {
      viommu.ops = ops;
      throw new KernelError('EINVAL', 'no');
    });
    expect(errnoOf(() => late.alloc())).toBe('EINVAL');
    expect(late.destroyed.length).toBe(1);
  });

  test('an init that leaves no ops is a bug of the driver: EOPNOTSUPP; a failed allocation: ENOMEM', () => {
    expect(errnoOf(() => setup(VIOMMU_CORE_SIZE, () => {}).alloc())).toBe('EOPNOTSUPP');
    const f = setup(VIOMMU_CORE_SIZE);
    f.kernel.failNth(1, 'alloc:viommu');
    expect(errnoOf(() => f.alloc())).toBe('ENOMEM');
    expect(f.alloc().viommu.ops).not.toBe(null);
  });
});
