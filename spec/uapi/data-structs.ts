/** Structs that iommufd ioctls and queues carry by pointer or by read() (Linux 7.2 include/uapi/linux/iommufd.h). */
import {
  HW_INFO_VTD_FLAGS,
  HWPT_VTD_S1_FLAGS,
  PAGE_RESPONSE_CODE,
  PGFAULT_FLAGS,
  PGFAULT_PERM,
  VEVENTQ_FLAGS,
  VTD_INVALIDATE_FLAGS,
} from './constants.ts';
import { struct } from './struct.ts';

const HEADER = 'linux/iommufd.h';

/** A range of IOVAs, both ends included. */
export const iommu_iova_range = struct(
  'iommu_iova_range',
  { bytes: 16, source: HEADER, text: 'a range of IOVAs, both ends included' },
  {
    start: { offset: 0, width: 8 },
    last: { offset: 8, width: 8 },
  },
);

/** Nested HWPT: the first two words of the guest's STE. */
export const iommu_hwpt_arm_smmuv3 = struct(
  'iommu_hwpt_arm_smmuv3',
  { bytes: 16, source: HEADER, text: "nested HWPT: the first two words of the guest's STE" },
  {
    ste: { offset: 0, width: 8, count: 2 },
  },
);

/** Nested HWPT of Intel VT-d. */
export const iommu_hwpt_vtd_s1 = struct(
  'iommu_hwpt_vtd_s1',
  { bytes: 24, source: HEADER, text: 'nested HWPT of Intel VT-d' },
  {
    flags: { offset: 0, width: 8, values: HWPT_VTD_S1_FLAGS },
    pgtbl_addr: { offset: 8, width: 8 },
    addr_width: { offset: 16, width: 4 },
    __reserved: { offset: 20, width: 4, reserved: true },
  },
);

/** Nested HWPT of AMD. */
export const iommu_hwpt_amd_guest = struct(
  'iommu_hwpt_amd_guest',
  { bytes: 32, source: HEADER, text: 'nested HWPT of AMD' },
  {
    dte: { offset: 0, width: 8, count: 4 },
  },
);

/** ID registers of an SMMUv3. */
export const iommu_hw_info_arm_smmuv3 = struct(
  'iommu_hw_info_arm_smmuv3',
  { bytes: 40, source: HEADER, text: 'ID registers of an SMMUv3' },
  {
    flags: { offset: 0, width: 4 },
    __reserved: { offset: 4, width: 4, reserved: true },
    idr: { offset: 8, width: 4, count: 6 },
    iidr: { offset: 32, width: 4 },
    aidr: { offset: 36, width: 4 },
  },
);

/** What a VM may have of a Tegra241 CMDQV. */
export const iommu_hw_info_tegra241_cmdqv = struct(
  'iommu_hw_info_tegra241_cmdqv',
  { bytes: 8, source: HEADER, text: 'what a VM may have of a Tegra241 CMDQV' },
  {
    flags: { offset: 0, width: 4 },
    version: { offset: 4, width: 1 },
    log2vcmdqs: { offset: 5, width: 1 },
    log2vsids: { offset: 6, width: 1 },
    __reserved: { offset: 7, width: 1, reserved: true },
  },
);

/** Registers of Intel VT-d. */
export const iommu_hw_info_vtd = struct(
  'iommu_hw_info_vtd',
  { bytes: 24, source: HEADER, text: 'registers of Intel VT-d' },
  {
    flags: { offset: 0, width: 4, values: HW_INFO_VTD_FLAGS },
    __reserved: { offset: 4, width: 4, reserved: true },
    cap_reg: { offset: 8, width: 8 },
    ecap_reg: { offset: 16, width: 8 },
  },
);

/** Registers of AMD. */
export const iommu_hw_info_amd = struct(
  'iommu_hw_info_amd',
  { bytes: 16, source: HEADER, text: 'registers of AMD' },
  {
    efr: { offset: 0, width: 8 },
    efr2: { offset: 8, width: 8 },
  },
);

/** Where a VM finds its VINTF. */
export const iommu_viommu_tegra241_cmdqv = struct(
  'iommu_viommu_tegra241_cmdqv',
  { bytes: 16, source: HEADER, text: 'where a VM finds its VINTF' },
  {
    out_vintf_mmap_offset: { offset: 0, width: 8 },
    out_vintf_mmap_length: { offset: 8, width: 8 },
  },
);

/** One SMMUv3 command. */
export const iommu_viommu_arm_smmuv3_invalidate = struct(
  'iommu_viommu_arm_smmuv3_invalidate',
  { bytes: 16, source: HEADER, text: 'one SMMUv3 command' },
  {
    cmd: { offset: 0, width: 8, count: 2, text: 'one Command queue entry' },
  },
);

/** One VT-d invalidation. */
export const iommu_hwpt_vtd_s1_invalidate = struct(
  'iommu_hwpt_vtd_s1_invalidate',
  { bytes: 24, source: HEADER, text: 'one VT-d invalidation' },
  {
    addr: { offset: 0, width: 8 },
    npages: { offset: 8, width: 8 },
    flags: { offset: 16, width: 4, values: VTD_INVALIDATE_FLAGS },
    __reserved: { offset: 20, width: 4, reserved: true },
  },
);

/** Header of each vEVENT. */
export const iommufd_vevent_header = struct(
  'iommufd_vevent_header',
  { bytes: 8, source: HEADER, text: 'header of each vEVENT' },
  {
    flags: { offset: 0, width: 4, values: VEVENTQ_FLAGS },
    sequence: { offset: 4, width: 4 },
  },
);

/** An SMMUv3 event record with the virtual StreamID. */
export const iommu_vevent_arm_smmuv3 = struct(
  'iommu_vevent_arm_smmuv3',
  { bytes: 32, source: HEADER, text: 'an SMMUv3 event record with the virtual StreamID' },
  {
    evt: { offset: 0, width: 8, count: 4 },
  },
);

/** Logical VCMDQs with an error. */
export const iommu_vevent_tegra241_cmdqv = struct(
  'iommu_vevent_tegra241_cmdqv',
  { bytes: 16, source: HEADER, text: 'logical VCMDQs with an error' },
  {
    lvcmdq_err_map: { offset: 0, width: 8, count: 2 },
  },
);

/** A page fault read from a fault queue. */
export const iommu_hwpt_pgfault = struct(
  'iommu_hwpt_pgfault',
  { bytes: 40, source: HEADER, text: 'a page fault read from a fault queue' },
  {
    flags: { offset: 0, width: 4, values: PGFAULT_FLAGS },
    dev_id: { offset: 4, width: 4 },
    pasid: { offset: 8, width: 4 },
    grpid: { offset: 12, width: 4 },
    perm: { offset: 16, width: 4, values: PGFAULT_PERM },
    __reserved: { offset: 20, width: 4, reserved: true },
    addr: { offset: 24, width: 8 },
    length: { offset: 32, width: 4 },
    cookie: { offset: 36, width: 4 },
  },
);

/** Answer to a page fault. */
export const iommu_hwpt_page_response = struct(
  'iommu_hwpt_page_response',
  { bytes: 8, source: HEADER, text: 'answer to a page fault' },
  {
    cookie: { offset: 0, width: 4 },
    code: { offset: 4, width: 4, values: PAGE_RESPONSE_CODE },
  },
);

/** All of these structs by their C name. */
export const IOMMUFD_DATA_STRUCTS = {
  iommu_iova_range,
  iommu_hwpt_arm_smmuv3,
  iommu_hwpt_vtd_s1,
  iommu_hwpt_amd_guest,
  iommu_hw_info_arm_smmuv3,
  iommu_hw_info_tegra241_cmdqv,
  iommu_hw_info_vtd,
  iommu_hw_info_amd,
  iommu_viommu_tegra241_cmdqv,
  iommu_viommu_arm_smmuv3_invalidate,
  iommu_hwpt_vtd_s1_invalidate,
  iommufd_vevent_header,
  iommu_vevent_arm_smmuv3,
  iommu_vevent_tegra241_cmdqv,
  iommu_hwpt_pgfault,
  iommu_hwpt_page_response,
} as const;
