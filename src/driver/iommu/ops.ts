/**
 * What an IOMMU driver implements and what the iommu core and iommufd call: `IommuOps`, the domain operations,
 * `ViommuOps`, and what iommufd offers a driver with each vIOMMU, `IommufdCallbacks`. Shapes follow
 * include/linux/iommu.h and include/linux/iommufd.h; names are theirs in camelCase.
 */
import type { DeviceNode, Pa } from '../../hw/bus.ts';
import type { IommuGroup } from './group.ts';
import type { FaultParam } from './io-pgfault.ts';

/** A physical IOMMU instance (`struct iommu_device`). */
export interface IommuDevice {
  /** For example "smmu0". */
  readonly name: string;
  readonly ops: IommuOps;
  /** False once the instance is gone; what the kernel could not see (iommufd.md 13.2). */
  live: boolean;
}

/** A device behind an IOMMU, known to the core (`struct device` with its `dev_iommu`). */
export interface Device {
  readonly name: string;
  readonly node: DeviceNode;
  readonly iommu: IommuDevice;
  /** The driver's per-device part (`dev_iommu_priv_get`). */
  priv: object | null;
  /**
   * `dev->iommu->max_pasids`. 0: none. The core sets what the device itself can do (2^ssidBits) before `probeDevice`,
   * which lowers it to what the IOMMU can do.
   */
  maxPasids: number;
  /** `dev->iommu_group`: set by the core between probe and release. */
  group?: IommuGroup | null;
  /** `dev->iommu->fault_param`: set while the device is in a page-fault queue. */
  faultParam?: FaultParam | null;
}

/** Kinds of domain (`__IOMMU_DOMAIN_*`). */
export type DomainType = 'blocked' | 'identity' | 'paging' | 'dma' | 'dma-fq' | 'nested' | 'sva';

/** Access permissions and attributes of a mapping (`IOMMU_READ` ...). */
export interface MapProt {
  readonly read: boolean;
  readonly write: boolean;
  readonly cache: boolean;
  readonly noexec?: boolean;
  readonly mmio?: boolean;
  readonly priv?: boolean;
}

/** Pages whose TLB invalidation is still owed (`struct iommu_iotlb_gather`). `end` is inclusive. */
export interface IotlbGather {
  start: bigint;
  end: bigint;
  pgsize: bigint;
  /** Nothing gathered yet. */
  empty: boolean;
  /** The caller flushes later, all at once (`queued`): the driver then gathers nothing. */
  readonly queued?: boolean;
}

/**
 * Where a device stands in a fault report: the attachment that the fault belongs to (`struct iommu_attach_handle`).
 * Made by `newAttachHandle` for one attachment and never used for another.
 */
export interface AttachHandle {
  readonly domain: IommuDomain;
  /** Whatever the owner keeps with it (iommufd: its device object). */
  readonly owner: object | null;
  /** True from the end of attach to the end of detach or replace; no reader may find a handle that is not. */
  live: boolean;
}

/** A domain (`struct iommu_domain`). Drivers extend it with their own fields. */
export interface IommuDomain {
  readonly type: DomainType;
  /** The ops that allocated it (`domain->owner`); null for static domains. */
  owner: IommuOps | null;
  readonly ops: DomainOps;
  /** Page sizes as a bit map. */
  readonly pgsizeBitmap: bigint;
  /** Addresses the domain can map, both ends included. */
  readonly aperture: { readonly start: bigint; readonly end: bigint };
  /**
   * Set by iommufd and SVA (`iopf_handler`): gets complete page-fault groups and answers each once. If it throws, the
   * core answers 'failure'.
   */
  iopfHandler: ((group: PageFaultGroup) => void) | null;
  /** Present on domains allocated with dirty tracking. */
  readonly dirtyOps?: DirtyOps;
  /** Nested domains: the nesting parent (Arm: s2_parent). */
  readonly parent?: IommuDomain;
}

/** Operations of a domain (`struct iommu_domain_ops`). A missing one is a null pointer in C. */
export interface DomainOps {
  /**
   * Attaches the device's RID; `old` is the domain that it leaves. A device that never had one leaves the driver's
   * `blockedDomain`: that is what hardware does to it before the first attach. @throws KernelError
   */
  attachDev(domain: IommuDomain, dev: Device, old: IommuDomain): void;
  /** Attaches one PASID; `old` is null if the PASID had none. @throws KernelError */
  setDevPasid?(domain: IommuDomain, dev: Device, pasid: number, old: IommuDomain | null): void;
  /**
   * Maps `count` pages of `pgsize` bytes; returns the bytes mapped, which may be fewer: the core asks again for the
   * rest. A call that fails has undone its own part, or throws `PartialMapError` (map.ts), and the core undoes it.
   * @throws KernelError ENOMEM, EEXIST, EINVAL, ERANGE
   */
  mapPages?(domain: IommuDomain, iova: bigint, pa: Pa, pgsize: bigint, count: number, prot: MapProt): bigint;
  /** Clears `count` pages of `pgsize` bytes; returns the bytes unmapped. */
  unmapPages?(domain: IommuDomain, iova: bigint, pgsize: bigint, count: number, gather: IotlbGather): bigint;
  iotlbSync?(domain: IommuDomain, gather: IotlbGather): void;
  flushIotlbAll?(domain: IommuDomain): void;
  iovaToPhys?(domain: IommuDomain, iova: bigint): Pa | undefined;
  enforceCacheCoherency?(domain: IommuDomain): boolean;
  cacheInvalidateUser?(domain: IommuDomain, array: UserArray): void;
  /**
   * Runs `release`, which gives up memory that the domain mapped, as soon as no lost invalidation of the domain can
   * matter: at once, unless a CMD_SYNC timed out. The caller has unmapped the memory and synced before.
   */
  retire?(domain: IommuDomain, what: string, release: () => void): void;
  free(domain: IommuDomain): void;
}

/** Dirty tracking (`struct iommu_dirty_ops`). */
export interface DirtyOps {
  setDirtyTracking(domain: IommuDomain, enable: boolean): void;
  /** Calls `dirty` for each dirty run in the range; clears unless told not to. */
  readAndClearDirty(
    domain: IommuDomain,
    iova: bigint,
    length: bigint,
    noClear: boolean,
    dirty: (iova: bigint, length: bigint) => void,
    gather: IotlbGather,
  ): void;
}

/** Driver-specific bytes from user space (`struct iommu_user_data`); reading them may fault. */
export interface UserData {
  readonly type: number;
  readonly length: number;
  /**
   * The first `size` bytes (`iommu_copy_struct_from_user`).
   * @throws KernelError EINVAL if the type differs, the length is below `minLength` or above `size`; EFAULT
   */
  copy(type: number, size: number, minLength: number): Uint8Array;
  /** Writes the struct back (`iommu_copy_struct_to_user`). @throws KernelError as {@link copy} */
  copyBack(type: number, bytes: Uint8Array, minLength: number): void;
}

/** An array of equal structs from user space (`struct iommu_user_data_array`). */
export interface UserArray {
  readonly type: number;
  readonly entryLength: number;
  /** In: entries given. Out: entries handled. */
  entryNum: number;
  /**
   * All entries, each `size` bytes (`iommu_copy_struct_from_full_user_array`).
   * @throws KernelError EINVAL (type differs, no entries), E2BIG (non-zero tail), EFAULT
   */
  copyAll(type: number, size: number): Uint8Array[];
}

/** Flags of `domain_alloc_paging_flags` and HWPT_ALLOC. */
export interface PagingFlags {
  readonly nestParent?: boolean;
  readonly dirtyTracking?: boolean;
  readonly pasid?: boolean;
  /** The virtual machine a stage 2 is for, where a hypervisor owns VMIDs. Default: one of its own. */
  readonly vm?: string;
}

/** Answers of `capable` (`enum iommu_cap`). */
export type IommuCap =
  | 'cache-coherency'
  | 'enforce-cache-coherency'
  | 'dirty-tracking'
  | 'noexec'
  | 'ats-not-supported';

/** A reserved region of a device (`struct iommu_resv_region`). */
export interface ResvRegion {
  readonly start: bigint;
  readonly length: bigint;
  readonly type: 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'sw-msi';
  /** How a direct region is mapped. Default: read, write, cacheable. */
  readonly prot?: MapProt;
}

/** What a driver implements (`struct iommu_ops`). Public: out-of-tree drivers implement it. */
export interface IommuOps {
  readonly name: string;
  capable(dev: Device, cap: IommuCap): boolean;
  /** Raw hardware information; `type` 0 is the driver's default. @throws KernelError EOPNOTSUPP for another type */
  hwInfo?(dev: Device, type: number): { readonly type: number; readonly data: Uint8Array };
  /**
   * Calls `then` as soon as no lost invalidation for the device can matter: at once, unless a CMD_SYNC timed out. Until
   * then nothing that was done to the device counts as done. Without it everything does at once.
   */
  settled?(dev: Device, then: () => void): void;
  readonly identityDomain: IommuDomain;
  readonly blockedDomain: IommuDomain;
  readonly defaultDomainType: 'dma' | 'dma-fq' | 'identity';
  /** PASID tables of nested domains belong to the guest (`user_pasid_table`): faults of unknown PASIDs go to the RID. */
  readonly userPasidTable?: boolean;
  /** @throws KernelError EOPNOTSUPP, ENOMEM, EBUSY (ASIDs), ENOSPC (VMIDs) */
  domainAllocPagingFlags?(dev: Device, flags: PagingFlags, userData: UserData | null): IommuDomain;
  /** A nested domain on a parent without a vIOMMU. @throws KernelError EOPNOTSUPP, EINVAL, EIO */
  domainAllocNested?(dev: Device, parent: IommuDomain, flags: PagingFlags, userData: UserData): IommuDomain;
  domainAllocSva?(dev: Device, mm: MmStruct): IommuDomain;
  probeDevice(dev: Device): void;
  /** After probe and the first attach: the device goes away. */
  releaseDevice(dev: Device): void;
  getResvRegions(dev: Device): readonly ResvRegion[];
  /** The device keeps what it has until something other than the default domain is attached (`is_attach_deferred`). */
  isAttachDeferred?(dev: Device): boolean;
  /**
   * The device has an ATS capability that may be used (`pci_ats_supported`, of the PCI core). Without this op the
   * answer of `capable` to 'ats-not-supported' stands for it.
   */
  pciAtsSupported?(dev: Device): boolean;
  /** Answers a page fault that this driver reported (`page_response`). */
  pageResponse?(dev: Device, fault: PageFault, code: PageResponseCode): void;
  /** Bytes of the driver's vIOMMU struct for this type; 0: not supported (`get_viommu_size`). */
  getViommuSize?(dev: Device, type: number): number;
  /** Makes `viommu` the driver's: must set `viommu.ops`; undoes its own work on error (`viommu_init`). */
  viommuInit?(viommu: IommufdViommu, parent: IommuDomain, userData: UserData | null): void;
}

/** A process address space for SVA (`struct mm_struct`): its page table is the driver's affair through `pgd`. */
export interface MmStruct {
  readonly name: string;
  /** Stage 1 root of the process, 4 levels of 4 KiB granule, 48 bits. */
  readonly pgd: Pa;
  /** Told of invalidations and of the end of the address space (`mmu_notifier`). */
  readonly notifiers: Set<MmNotifier>;
  /**
   * Makes the page present if the address space allows the access (`handle_mm_fault` behind the VMA checks); false: it
   * does not. Without it every page fault is answered 'invalid'.
   */
  handleFault?(fault: PageFault): boolean;
}

/** `struct mmu_notifier_ops`, the part that SVA uses. */
export interface MmNotifier {
  invalidateRange(start: bigint, end: bigint): void;
  release(): void;
}

/** One page request (`struct iommu_fault_page_request`). */
export interface PageFault {
  readonly addr: bigint;
  readonly pasid: number | undefined;
  readonly grpid: number;
  readonly lastPage: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly exec: boolean;
  readonly priv: boolean;
}

/** A complete group of page requests (`struct iopf_group`). */
export interface PageFaultGroup {
  readonly dev: Device;
  readonly handle: AttachHandle;
  readonly faults: readonly PageFault[];
  /** Answers the whole group. Only the first answer counts; the core gives one when the attachment ends. */
  respond(code: PageResponseCode): void;
}

export type PageResponseCode = 'success' | 'invalid' | 'failure';

/** Bytes of the core's own vIOMMU struct: a driver's `getViommuSize` must not be smaller (the struct embeds it). */
export const VIOMMU_CORE_SIZE = 160;
/** The same for vDEVICE and HW_QUEUE. */
export const VDEVICE_CORE_SIZE = 96;
export const HW_QUEUE_CORE_SIZE = 112;

/** The core part of a vIOMMU (`struct iommufd_viommu`). */
export interface IommufdViommu {
  readonly type: number;
  readonly iommuDev: IommuDevice;
  /** The nesting parent's domain. */
  readonly parent: IommuDomain;
  /** The virtual machine, where a hypervisor owns VMIDs. Default: that of the parent. */
  readonly vm?: string;
  /** Set by the driver's `viommuInit`; null until then. */
  ops: ViommuOps | null;
  /** The driver's part of the struct. */
  priv: object | null;
  readonly callbacks: IommufdCallbacks;
}

/** The core part of a vDEVICE (`struct iommufd_vdevice`). */
export interface IommufdVdevice {
  readonly viommu: IommufdViommu;
  readonly dev: Device;
  /** The vSID: 64 bits. */
  readonly virtId: bigint;
  /** Set by `vdeviceInit` to undo its work. */
  destroy: ((vdev: IommufdVdevice) => void) | null;
  priv: object | null;
}

/** The core part of a hardware queue (`struct iommufd_hw_queue`). */
export interface IommufdHwQueue {
  readonly viommu: IommufdViommu;
  readonly type: number;
  /** Guest PA of the queue, its length in bytes. */
  readonly baseAddr: bigint;
  readonly length: bigint;
  /** Set by `hwQueueInitPhys` to undo its work. */
  destroy: ((queue: IommufdHwQueue) => void) | null;
  priv: object | null;
}

/** A driver's operations on its vIOMMU (`struct iommufd_viommu_ops`). */
export interface ViommuOps {
  /** The driver's clean-up only; the core drops its references afterwards. */
  destroy?(viommu: IommufdViommu): void;
  /** @throws KernelError EOPNOTSUPP, EINVAL, EIO */
  allocDomainNested?(viommu: IommufdViommu, flags: PagingFlags, userData: UserData): IommuDomain;
  /** Sets `array.entryNum` to the entries handled, also on error. @throws KernelError EINVAL, EIO, ETIMEDOUT */
  cacheInvalidate?(viommu: IommufdViommu, array: UserArray): void;
  readonly vdeviceSize?: number;
  vdeviceInit?(vdev: IommufdVdevice): void;
  getHwQueueSize?(viommu: IommufdViommu, type: number): number;
  hwQueueInitPhys?(queue: IommufdHwQueue, index: number, pa: Pa): void;
}

/** What iommufd offers a driver with each vIOMMU (the exports of drivers/iommu/iommufd/driver.c). */
export interface IommufdCallbacks {
  /** `iommufd_viommu_report_event`. @throws KernelError EOPNOTSUPP without a queue of that type; ENOMEM */
  reportEvent(viommu: IommufdViommu, type: number, data: Uint8Array): void;
  /** `iommufd_viommu_find_dev`: the device behind a virtual id. */
  findDev(viommu: IommufdViommu, virtId: bigint): Device | undefined;
  /** `iommufd_viommu_get_vdev_id`. @throws KernelError ENOENT */
  getVdevId(viommu: IommufdViommu, dev: Device): bigint;
  /** `iommufd_viommu_alloc_mmap`: returns the mmap offset. @throws KernelError EINVAL, ENOMEM */
  allocMmap(viommu: IommufdViommu, addr: Pa, length: bigint): bigint;
  destroyMmap(viommu: IommufdViommu, offset: bigint): void;
  /** `iommufd_hw_queue_depend`: `queue` keeps `on` alive. @throws KernelError EINVAL */
  hwQueueDepend(queue: IommufdHwQueue, on: IommufdHwQueue): void;
  hwQueueUndepend(queue: IommufdHwQueue, on: IommufdHwQueue): void;
}
