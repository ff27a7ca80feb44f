/** The iommufd ioctls (Linux 7.2 drivers/iommu/iommufd/main.c, iommufd_ioctl_ops). */
import * as s from './ioctl-structs.ts';
import type { AnyStruct } from './struct.ts';

/** The ioctl type of iommufd and VFIO: ';'. All their commands are _IO(';', nr), without size or direction bits. */
export const IOMMUFD_TYPE = 0x3b;

/** Number of the first iommufd ioctl; lower ones belong to VFIO. */
export const IOMMUFD_CMD_BASE = 0x80;

/** One ioctl. */
export interface Ioctl<S extends AnyStruct = AnyStruct> {
  readonly name: string;
  /** Low 8 bits of the request. */
  readonly nr: number;
  /** The whole request number. */
  readonly request: number;
  /** The argument. Its first u32 is the caller's size (VFIO: argsz). */
  readonly struct: S;
  /** Smallest size the kernel accepts; missing bytes up to the struct's own size read as zero. */
  readonly minBytes: number;
}

/** The request number of _IO(';', nr). */
export const ioctlRequest = (nr: number): number => (IOMMUFD_TYPE << 8) | nr;

/** Makes an ioctl. minBytes: all of the struct unless given. */
export const ioctl = <S extends AnyStruct>(name: string, nr: number, struct: S, minBytes = struct.bytes): Ioctl<S> => ({
  name,
  nr,
  request: ioctlRequest(nr),
  struct,
  minBytes,
});

/** The iommufd ioctls by name, in order of number. */
export const IOMMUFD_IOCTLS = {
  IOMMU_DESTROY: ioctl('IOMMU_DESTROY', 0x80, s.iommu_destroy),
  IOMMU_IOAS_ALLOC: ioctl('IOMMU_IOAS_ALLOC', 0x81, s.iommu_ioas_alloc),
  IOMMU_IOAS_ALLOW_IOVAS: ioctl('IOMMU_IOAS_ALLOW_IOVAS', 0x82, s.iommu_ioas_allow_iovas),
  IOMMU_IOAS_COPY: ioctl('IOMMU_IOAS_COPY', 0x83, s.iommu_ioas_copy),
  IOMMU_IOAS_IOVA_RANGES: ioctl('IOMMU_IOAS_IOVA_RANGES', 0x84, s.iommu_ioas_iova_ranges),
  IOMMU_IOAS_MAP: ioctl('IOMMU_IOAS_MAP', 0x85, s.iommu_ioas_map),
  IOMMU_IOAS_UNMAP: ioctl('IOMMU_IOAS_UNMAP', 0x86, s.iommu_ioas_unmap),
  IOMMU_OPTION: ioctl('IOMMU_OPTION', 0x87, s.iommu_option),
  IOMMU_VFIO_IOAS: ioctl('IOMMU_VFIO_IOAS', 0x88, s.iommu_vfio_ioas),
  IOMMU_HWPT_ALLOC: ioctl('IOMMU_HWPT_ALLOC', 0x89, s.iommu_hwpt_alloc, s.iommu_hwpt_alloc.endOf('__reserved')),
  IOMMU_GET_HW_INFO: ioctl('IOMMU_GET_HW_INFO', 0x8a, s.iommu_hw_info, s.iommu_hw_info.endOf('__reserved')),
  IOMMU_HWPT_SET_DIRTY_TRACKING: ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', 0x8b, s.iommu_hwpt_set_dirty_tracking),
  IOMMU_HWPT_GET_DIRTY_BITMAP: ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', 0x8c, s.iommu_hwpt_get_dirty_bitmap),
  IOMMU_HWPT_INVALIDATE: ioctl('IOMMU_HWPT_INVALIDATE', 0x8d, s.iommu_hwpt_invalidate),
  IOMMU_FAULT_QUEUE_ALLOC: ioctl('IOMMU_FAULT_QUEUE_ALLOC', 0x8e, s.iommu_fault_alloc),
  IOMMU_IOAS_MAP_FILE: ioctl('IOMMU_IOAS_MAP_FILE', 0x8f, s.iommu_ioas_map_file),
  IOMMU_VIOMMU_ALLOC: ioctl(
    'IOMMU_VIOMMU_ALLOC',
    0x90,
    s.iommu_viommu_alloc,
    s.iommu_viommu_alloc.endOf('out_viommu_id'),
  ),
  IOMMU_VDEVICE_ALLOC: ioctl('IOMMU_VDEVICE_ALLOC', 0x91, s.iommu_vdevice_alloc),
  IOMMU_IOAS_CHANGE_PROCESS: ioctl('IOMMU_IOAS_CHANGE_PROCESS', 0x92, s.iommu_ioas_change_process),
  IOMMU_VEVENTQ_ALLOC: ioctl(
    'IOMMU_VEVENTQ_ALLOC',
    0x93,
    s.iommu_veventq_alloc,
    s.iommu_veventq_alloc.endOf('out_veventq_fd'),
  ),
  IOMMU_HW_QUEUE_ALLOC: ioctl('IOMMU_HW_QUEUE_ALLOC', 0x94, s.iommu_hw_queue_alloc),
} as const;

/** Names of the iommufd ioctls. */
export type IommufdIoctlName = keyof typeof IOMMUFD_IOCTLS;
