/**
 * With which errors operations can end in a lab, and at which points the kernel can be made to fail there. Arguments that
 * no operation has (a reserved field that is not 0, a bad pointer) are tested by docs/iommufd-coverage.md, not here.
 */
import type { VmidPolicyName } from '../../driver/arm-smmu-v3/index.ts';
import type { Errno } from '../../driver/kernel.ts';
import type { OperationName } from '../operations.ts';

const ERRNOS: Readonly<Partial<Record<OperationName, readonly Errno[]>>> = {
  attach: ['EBUSY', 'EFAULT', 'EINVAL', 'ENOENT', 'ENOMEM', 'ENOSPC'],
  bind: ['EBUSY', 'EINVAL', 'ENOENT', 'ENOMEM'],
  copy: ['EEXIST', 'EFAULT', 'ENOENT', 'ENOMEM'],
  destroy: ['EBUSY', 'ENOENT'],
  detach: ['EINVAL'],
  dirtyRead: ['ENOENT', 'EOPNOTSUPP'],
  dirtyTracking: ['ENOENT', 'EOPNOTSUPP'],
  faultQueueAlloc: ['EFAULT', 'ENOMEM'],
  faultRead: ['EBADF', 'EFAULT'],
  faultRespond: ['EBADF', 'EFAULT', 'EINVAL'],
  hwQueueAlloc: ['EEXIST', 'EINVAL', 'EIO', 'ENOENT', 'ENOMEM', 'EOPNOTSUPP'],
  hwptAlloc: ['EFAULT', 'EINVAL', 'ENOENT', 'ENOMEM', 'ENOSPC', 'EOPNOTSUPP'],
  invalidate: ['EFAULT', 'EIO', 'ENODEV', 'ENOENT', 'ENOMEM', 'EOPNOTSUPP', 'ETIMEDOUT'],
  ioasAlloc: ['EFAULT', 'ENOMEM'],
  // Only the spaces of the VMs are mapped into, which are there, at addresses that they allow.
  map: ['EEXIST', 'EFAULT', 'ENOMEM'],
  mmExec: ['ENOMEM'],
  mmap: ['EINVAL'],
  nestedAlloc: ['EFAULT', 'EINVAL', 'ENOENT', 'ENOMEM', 'EOPNOTSUPP'],
  pasidAttach: ['EBUSY', 'EINVAL', 'ENOENT', 'ENOMEM'],
  pasidDetach: ['EINVAL'],
  queueClose: ['EBADF'],
  smmuResume: ['ETIMEDOUT'],
  // Labs with processes are of SMMUs that can walk their tables.
  svaBind: ['EBUSY', 'ENOMEM'],
  unmap: ['EBUSY', 'ENOENT'],
  unmapAll: ['EBUSY', 'ENOENT'],
  vdeviceAlloc: ['EEXIST', 'EFAULT', 'ENOENT', 'ENOMEM', 'ENOSPC', 'EOPNOTSUPP'],
  veventRead: ['EBADF', 'EFAULT'],
  veventqAlloc: ['EEXIST', 'ENOENT', 'ENOMEM'],
  viommuAlloc: ['EBUSY', 'EFAULT', 'EINVAL', 'ENOENT', 'ENOMEM', 'ENOSPC', 'EOPNOTSUPP', 'ETIMEDOUT'],
};

/** `hwptAlloc ENOMEM`: operations, and how they can fail. */
export const ERRNO_LIST: readonly string[] = Object.entries(ERRNOS).flatMap(([op, errnos]) =>
  errnos.map((errno) => `${op} ${errno}`),
);

/** Of {@link ERRNO_LIST}, those that a policy alone can give: by it, or by its way of taking VMIDs. */
const OF_POLICY: Readonly<Record<string, VmidPolicyName>> = {
  'viommuAlloc EBUSY': 'viommu-only',
  'nestedAlloc EOPNOTSUPP': 'at-domain-alloc',
  'hwptAlloc ENOSPC': 'at-domain-alloc',
};

/** Whether an operation can end so where the policy is fixed. */
export const underPolicy = (errno: string, policy: string | undefined): boolean =>
  policy === undefined || OF_POLICY[errno] === undefined || OF_POLICY[errno] === policy;

const ALLOCATIONS = [
  'cd-table',
  'domain',
  'invs',
  'invs-build',
  'iommu:pasid-array',
  'iommufd:ACCESS',
  'iommufd:DEVICE',
  'iommufd:FAULT',
  'iommufd:HWPT_NESTED',
  'iommufd:HWPT_PAGING',
  'iommufd:HW_QUEUE',
  'iommufd:IOAS',
  'iommufd:VDEVICE',
  'iommufd:VEVENTQ',
  'iommufd:VIOMMU',
  'iommufd:access-list',
  'iommufd:area',
  'iommufd:attach',
  'iommufd:attach-handle',
  'iommufd:domains',
  'iommufd:group',
  'iommufd:mmap',
  'iommufd:pages',
  'iommufd:pages-access',
  'iommufd:pages-list',
  'iommufd:pfn-batch',
  'iommufd:reserved',
  'iommufd:vdevs',
  'iommufd:vevent',
  'iopf:fault-param',
  'iopf:group',
  'lvcmdqs',
  'master-domain',
  'nested-domain',
  's1-table',
  's2-table',
  'user-commands',
  'sva-domain',
  'sva:handle',
  'sva:mm-data',
  'vcmdq-user',
  'vmaster',
  'vmid',
];
const IDS = ['asid', 'iommufd:fault-cookie', 'iommufd:fd', 'iommufd:object', 'pasid', 'vintf', 'vsid'];
const COPIES = [
  'from-user:IOMMU_HWPT_ALLOC.data_uptr',
  'from-user:IOMMU_HWPT_INVALIDATE.data_uptr',
  'from-user:IOMMU_VIOMMU_ALLOC.data_uptr',
  'from-user:write',
  'iommufd:pin-pages',
  'to-user:IOMMU_VIOMMU_ALLOC.data_uptr',
  'to-user:read',
  'to-user:response',
];
const POLLS = ['CR0ACK', 'IRQ_CTRLACK', 'cmdq:sync', 'cmdqv:VCMDQ_STATUS', 'cmdqv:VINTF_STATUS'];

/** Points of the kernel that operations come by after it has started, and that can be made to fail. */
export const FAILURE_POINTS: readonly string[] = [
  ...ALLOCATIONS.map((name) => `alloc:${name}`),
  ...IDS.map((name) => `ids:${name}`),
  ...COPIES.map((name) => `copy:${name}`),
  ...POLLS.map((name) => `poll:${name}`),
];

/** Parts of {@link FAILURE_POINTS} that only machines with a CMDQV have. */
const OF_CMDQV =
  /HW_QUEUE|VIOMMU_ALLOC\.data|:(?:iommufd:(?:ACCESS|access-list|mmap|pages-access)|lvcmdqs|vcmdq-user|vintf|vsid)$|cmdqv:/;

/** Whether a point is reached on machines with a CMDQV only. */
export const ofCmdqv = (point: string): boolean => OF_CMDQV.test(point);
