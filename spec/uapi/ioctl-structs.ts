/** Argument structs of the iommufd ioctls (Linux 7.2 include/uapi/linux/iommufd.h). */
import {
  HW_CAPABILITIES,
  HW_INFO_FLAGS,
  HW_INFO_TYPE,
  HW_QUEUE_TYPE,
  HWPT_ALLOC_FLAGS,
  HWPT_DATA_TYPE,
  HWPT_GET_DIRTY_FLAGS,
  HWPT_INVALIDATE_DATA_TYPE,
  HWPT_SET_DIRTY_FLAGS,
  IOAS_MAP_FLAGS,
  OPTION_ID,
  OPTION_OP,
  VEVENTQ_TYPE,
  VFIO_IOAS_OP,
  VIOMMU_TYPE,
} from './constants.ts';
import { struct } from './struct.ts';

const HEADER = 'linux/iommufd.h';

/** Destroys an object. */
export const iommu_destroy = struct(
  'iommu_destroy',
  { bytes: 8, source: HEADER, text: 'destroys an object' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    id: { offset: 4, width: 4 },
  },
);

/** Makes an IO address space. */
export const iommu_ioas_alloc = struct(
  'iommu_ioas_alloc',
  { bytes: 12, source: HEADER, text: 'makes an IO address space' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4 },
    out_ioas_id: { offset: 8, width: 4 },
  },
);

/** Asks which IOVAs may be mapped. */
export const iommu_ioas_iova_ranges = struct(
  'iommu_ioas_iova_ranges',
  { bytes: 32, source: HEADER, text: 'asks which IOVAs may be mapped' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    ioas_id: { offset: 4, width: 4 },
    num_iovas: { offset: 8, width: 4, text: 'in: room in the array; out: all there are' },
    __reserved: { offset: 12, width: 4, reserved: true },
    allowed_iovas: { offset: 16, width: 8, text: 'pointer to iommu_iova_range[]' },
    out_iova_alignment: { offset: 24, width: 8 },
  },
);

/** Restricts automatic placement. */
export const iommu_ioas_allow_iovas = struct(
  'iommu_ioas_allow_iovas',
  { bytes: 24, source: HEADER, text: 'restricts automatic placement' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    ioas_id: { offset: 4, width: 4 },
    num_iovas: { offset: 8, width: 4 },
    __reserved: { offset: 12, width: 4, reserved: true },
    allowed_iovas: { offset: 16, width: 8, text: 'pointer to iommu_iova_range[]' },
  },
);

/** Maps user memory. */
export const iommu_ioas_map = struct(
  'iommu_ioas_map',
  { bytes: 40, source: HEADER, text: 'maps user memory' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: IOAS_MAP_FLAGS },
    ioas_id: { offset: 8, width: 4 },
    __reserved: { offset: 12, width: 4, reserved: true },
    user_va: { offset: 16, width: 8 },
    length: { offset: 24, width: 8 },
    iova: { offset: 32, width: 8, text: 'in with FIXED_IOVA, else out' },
  },
);

/** Maps a file. */
export const iommu_ioas_map_file = struct(
  'iommu_ioas_map_file',
  { bytes: 40, source: HEADER, text: 'maps a file' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: IOAS_MAP_FLAGS },
    ioas_id: { offset: 8, width: 4 },
    fd: { offset: 12, width: 4, signed: true },
    start: { offset: 16, width: 8 },
    length: { offset: 24, width: 8 },
    iova: { offset: 32, width: 8, text: 'in with FIXED_IOVA, else out' },
  },
);

/** Maps what another IOAS maps. */
export const iommu_ioas_copy = struct(
  'iommu_ioas_copy',
  { bytes: 40, source: HEADER, text: 'maps what another IOAS maps' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: IOAS_MAP_FLAGS },
    dst_ioas_id: { offset: 8, width: 4 },
    src_ioas_id: { offset: 12, width: 4 },
    length: { offset: 16, width: 8 },
    dst_iova: { offset: 24, width: 8, text: 'in with FIXED_IOVA, else out' },
    src_iova: { offset: 32, width: 8 },
  },
);

/** Unmaps. */
export const iommu_ioas_unmap = struct(
  'iommu_ioas_unmap',
  { bytes: 24, source: HEADER, text: 'unmaps' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    ioas_id: { offset: 4, width: 4 },
    iova: { offset: 8, width: 8 },
    length: { offset: 16, width: 8, text: 'out: bytes unmapped' },
  },
);

/** Sets or gets an option. */
export const iommu_option = struct(
  'iommu_option',
  { bytes: 24, source: HEADER, text: 'sets or gets an option' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    option_id: { offset: 4, width: 4, values: OPTION_ID },
    op: { offset: 8, width: 2, values: OPTION_OP },
    __reserved: { offset: 10, width: 2, reserved: true },
    object_id: { offset: 12, width: 4 },
    val64: { offset: 16, width: 8 },
  },
);

/** Names the IOAS of the VFIO container interface. */
export const iommu_vfio_ioas = struct(
  'iommu_vfio_ioas',
  { bytes: 12, source: HEADER, text: 'names the IOAS of the VFIO container interface' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    ioas_id: { offset: 4, width: 4 },
    op: { offset: 8, width: 2, values: VFIO_IOAS_OP },
    __reserved: { offset: 10, width: 2, reserved: true },
  },
);

/** Makes a hardware page table. */
export const iommu_hwpt_alloc = struct(
  'iommu_hwpt_alloc',
  { bytes: 48, source: HEADER, text: 'makes a hardware page table' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: HWPT_ALLOC_FLAGS },
    dev_id: { offset: 8, width: 4 },
    pt_id: { offset: 12, width: 4, text: 'IOAS, nesting parent HWPT or vIOMMU' },
    out_hwpt_id: { offset: 16, width: 4 },
    __reserved: { offset: 20, width: 4, reserved: true },
    data_type: { offset: 24, width: 4, values: HWPT_DATA_TYPE },
    data_len: { offset: 28, width: 4 },
    data_uptr: { offset: 32, width: 8 },
    fault_id: { offset: 40, width: 4, text: 'fault queue, with FAULT_ID_VALID' },
    __reserved2: { offset: 44, width: 4, reserved: true },
  },
);

/** Asks what the IOMMU of a device offers. */
export const iommu_hw_info = struct(
  'iommu_hw_info',
  { bytes: 40, source: HEADER, text: 'asks what the IOMMU of a device offers' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: HW_INFO_FLAGS },
    dev_id: { offset: 8, width: 4 },
    data_len: { offset: 12, width: 4, text: 'in: room; out: what the kernel has' },
    data_uptr: { offset: 16, width: 8 },
    in_data_type: { offset: 24, width: 4, values: HW_INFO_TYPE },
    out_data_type: { offset: 24, width: 4, unionWith: 'in_data_type', values: HW_INFO_TYPE },
    out_max_pasid_log2: { offset: 28, width: 1, text: '0: no PASIDs' },
    __reserved: { offset: 29, width: 1, count: 3, reserved: true },
    out_capabilities: { offset: 32, width: 8, values: HW_CAPABILITIES },
  },
);

/** Switches dirty tracking. */
export const iommu_hwpt_set_dirty_tracking = struct(
  'iommu_hwpt_set_dirty_tracking',
  { bytes: 16, source: HEADER, text: 'switches dirty tracking' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4, values: HWPT_SET_DIRTY_FLAGS },
    hwpt_id: { offset: 8, width: 4 },
    __reserved: { offset: 12, width: 4, reserved: true },
  },
);

/** Reads dirty bits. */
export const iommu_hwpt_get_dirty_bitmap = struct(
  'iommu_hwpt_get_dirty_bitmap',
  { bytes: 48, source: HEADER, text: 'reads dirty bits' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    hwpt_id: { offset: 4, width: 4 },
    flags: { offset: 8, width: 4, values: HWPT_GET_DIRTY_FLAGS },
    __reserved: { offset: 12, width: 4, reserved: true },
    iova: { offset: 16, width: 8 },
    length: { offset: 24, width: 8 },
    page_size: { offset: 32, width: 8 },
    data: { offset: 40, width: 8 },
  },
);

/** Invalidates caches of a nested HWPT or a vIOMMU. */
export const iommu_hwpt_invalidate = struct(
  'iommu_hwpt_invalidate',
  { bytes: 32, source: HEADER, text: 'invalidates caches of a nested HWPT or a vIOMMU' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    hwpt_id: { offset: 4, width: 4, text: 'nested HWPT or vIOMMU' },
    data_uptr: { offset: 8, width: 8 },
    data_type: { offset: 16, width: 4, values: HWPT_INVALIDATE_DATA_TYPE },
    entry_len: { offset: 20, width: 4 },
    entry_num: { offset: 24, width: 4, text: 'out: entries handled' },
    __reserved: { offset: 28, width: 4, reserved: true },
  },
);

/** Makes a fault queue. */
export const iommu_fault_alloc = struct(
  'iommu_fault_alloc',
  { bytes: 16, source: HEADER, text: 'makes a fault queue' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4 },
    out_fault_id: { offset: 8, width: 4 },
    out_fault_fd: { offset: 12, width: 4 },
  },
);

/** Makes a vIOMMU. */
export const iommu_viommu_alloc = struct(
  'iommu_viommu_alloc',
  { bytes: 40, source: HEADER, text: 'makes a vIOMMU' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4 },
    type: { offset: 8, width: 4, values: VIOMMU_TYPE },
    dev_id: { offset: 12, width: 4 },
    hwpt_id: { offset: 16, width: 4, text: 'nesting parent' },
    out_viommu_id: { offset: 20, width: 4 },
    data_len: { offset: 24, width: 4 },
    __reserved: { offset: 28, width: 4, reserved: true },
    data_uptr: { offset: 32, width: 8 },
  },
);

/** Makes a vDEVICE. */
export const iommu_vdevice_alloc = struct(
  'iommu_vdevice_alloc',
  { bytes: 24, source: HEADER, text: 'makes a vDEVICE' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    viommu_id: { offset: 4, width: 4 },
    dev_id: { offset: 8, width: 4 },
    out_vdevice_id: { offset: 12, width: 4 },
    virt_id: { offset: 16, width: 8, text: 'for SMMUv3 the virtual StreamID' },
  },
);

/** Charges pinned memory to the caller. */
export const iommu_ioas_change_process = struct(
  'iommu_ioas_change_process',
  { bytes: 8, source: HEADER, text: 'charges pinned memory to the caller' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    __reserved: { offset: 4, width: 4, reserved: true },
  },
);

/** Makes a vEVENTQ. */
export const iommu_veventq_alloc = struct(
  'iommu_veventq_alloc',
  { bytes: 32, source: HEADER, text: 'makes a vEVENTQ' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4 },
    viommu_id: { offset: 8, width: 4 },
    type: { offset: 12, width: 4, values: VEVENTQ_TYPE },
    veventq_depth: { offset: 16, width: 4 },
    out_veventq_id: { offset: 20, width: 4 },
    out_veventq_fd: { offset: 24, width: 4 },
    __reserved: { offset: 28, width: 4, reserved: true },
  },
);

/** Gives a hardware queue to a VM. */
export const iommu_hw_queue_alloc = struct(
  'iommu_hw_queue_alloc',
  { bytes: 40, source: HEADER, text: 'gives a hardware queue to a VM' },
  {
    size: { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' },
    flags: { offset: 4, width: 4 },
    viommu_id: { offset: 8, width: 4 },
    type: { offset: 12, width: 4, values: HW_QUEUE_TYPE },
    index: { offset: 16, width: 4, text: 'logical VCMDQ' },
    out_hw_queue_id: { offset: 20, width: 4 },
    nesting_parent_iova: { offset: 24, width: 8, text: 'guest physical address of the queue' },
    length: { offset: 32, width: 8 },
  },
);

/** All of these structs by their C name. */
export const IOMMUFD_IOCTL_STRUCTS = {
  iommu_destroy,
  iommu_ioas_alloc,
  iommu_ioas_iova_ranges,
  iommu_ioas_allow_iovas,
  iommu_ioas_map,
  iommu_ioas_map_file,
  iommu_ioas_copy,
  iommu_ioas_unmap,
  iommu_option,
  iommu_vfio_ioas,
  iommu_hwpt_alloc,
  iommu_hw_info,
  iommu_hwpt_set_dirty_tracking,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_invalidate,
  iommu_fault_alloc,
  iommu_viommu_alloc,
  iommu_vdevice_alloc,
  iommu_ioas_change_process,
  iommu_veventq_alloc,
  iommu_hw_queue_alloc,
} as const;
