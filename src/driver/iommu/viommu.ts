/** A vIOMMU without iommufd: what its allocation ioctl does around the driver (iommufd_viommu_alloc_ioctl). */
import { KernelError } from '../kernel.ts';
import { groupOf } from './group.ts';
import type { Device, IommuDomain, IommufdCallbacks, IommufdViommu, IommuOps, UserData } from './ops.ts';
import { VIOMMU_CORE_SIZE } from './ops.ts';

/** A vIOMMU and the way to end it. */
export interface OwnedViommu {
  readonly viommu: IommufdViommu;
  /** Has the driver clean up. @throws Error the second time: a bug of the caller */
  destroy(): void;
}

/**
 * Allocates a vIOMMU of `type` on the IOMMU of `dev` over the nesting parent `parent`: size, then init, then the check
 * that init set `ops`. `data` is null if user space gave none.
 * @throws KernelError EOPNOTSUPP (type 0; the driver has no such vIOMMU, or a size below the core's part; init left no
 * ops), EINVAL (the parent is another driver's, or no paging domain), ENOMEM, the driver's errors
 */
export function viommuAlloc(
  ops: IommuOps,
  dev: Device,
  type: number,
  parent: IommuDomain,
  data: UserData | null,
  callbacks: IommufdCallbacks,
): OwnedViommu {
  if (type === 0) throw new KernelError('EOPNOTSUPP', 'the default vIOMMU type cannot be allocated');
  const size = ops.viommuInit ? (ops.getViommuSize?.(dev, type) ?? 0) : 0;
  if (size === 0) throw new KernelError('EOPNOTSUPP', `${ops.name} has no vIOMMU of type ${type} for ${dev.name}`);
  if (size < VIOMMU_CORE_SIZE)
    throw new KernelError('EOPNOTSUPP', `vIOMMU of ${size} bytes, less than the core's part`);
  if (parent.type !== 'paging' || (parent.owner !== null && parent.owner !== ops)) {
    throw new KernelError('EINVAL', "the parent is not a paging domain of the device's driver");
  }
  groupOf(dev).kernel.alloc('viommu');
  const viommu: IommufdViommu = { type, iommuDev: dev.iommu, parent, ops: null, priv: null, callbacks };
  let ended = false;
  const destroy = () => {
    if (ended) throw new Error('the vIOMMU is destroyed');
    ended = true;
    viommu.ops?.destroy?.(viommu);
  };
  try {
    ops.viommuInit?.(viommu, parent, data);
    if (viommu.ops === null) throw new KernelError('EOPNOTSUPP', 'the driver left the vIOMMU without ops');
  } catch (error) {
    destroy();
    throw error;
  }
  return { viommu, destroy };
}
