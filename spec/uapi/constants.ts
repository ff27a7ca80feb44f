/** Values of the iommufd user API (Linux 7.2 include/uapi/linux/iommufd.h) and of the core's limits. */

/** Flags of IOMMU_IOAS_MAP, _MAP_FILE and _COPY. */
export const IOAS_MAP_FLAGS = { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 } as const;

/** IOMMU_OPTION: which option. */
export const OPTION_ID = { RLIMIT_MODE: 0, HUGE_PAGES: 1 } as const;

/** IOMMU_OPTION: what to do. */
export const OPTION_OP = { SET: 0, GET: 1 } as const;

/** IOMMU_VFIO_IOAS: what to do. */
export const VFIO_IOAS_OP = { GET: 0, SET: 1, CLEAR: 2 } as const;

/** Flags of IOMMU_HWPT_ALLOC. */
export const HWPT_ALLOC_FLAGS = { NEST_PARENT: 1, DIRTY_TRACKING: 2, FAULT_ID_VALID: 4, ALLOC_PASID: 8 } as const;

/** What IOMMU_HWPT_ALLOC's data is. */
export const HWPT_DATA_TYPE = { NONE: 0, VTD_S1: 1, ARM_SMMUV3: 2, AMD_GUEST: 3 } as const;

/** Flags of iommu_hwpt_vtd_s1. */
export const HWPT_VTD_S1_FLAGS = { SRE: 1, EAFE: 2, WPE: 4 } as const;

/** What IOMMU_GET_HW_INFO's data is. DEFAULT, as an input type, has the same number as NONE. */
export const HW_INFO_TYPE = { NONE: 0, INTEL_VTD: 1, ARM_SMMUV3: 2, TEGRA241_CMDQV: 3, AMD: 4 } as const;

/** IOMMU_GET_HW_INFO in_data_type: whatever the device's IOMMU has. */
export const HW_INFO_TYPE_DEFAULT = 0;

/** Flags of IOMMU_GET_HW_INFO. */
export const HW_INFO_FLAGS = { INPUT_TYPE: 1 } as const;

/** Flags of iommu_hw_info_vtd. */
export const HW_INFO_VTD_FLAGS = { ERRATA_772415_SPR17: 1 } as const;

/** Bits of IOMMU_GET_HW_INFO out_capabilities. */
export const HW_CAPABILITIES = {
  DIRTY_TRACKING: 1,
  PCI_PASID_EXEC: 2,
  PCI_PASID_PRIV: 4,
  PCI_ATS_NOT_SUPPORTED: 8,
} as const;

/** Flags of IOMMU_HWPT_SET_DIRTY_TRACKING. */
export const HWPT_SET_DIRTY_FLAGS = { ENABLE: 1 } as const;

/** Flags of IOMMU_HWPT_GET_DIRTY_BITMAP. */
export const HWPT_GET_DIRTY_FLAGS = { NO_CLEAR: 1 } as const;

/** What the entries of IOMMU_HWPT_INVALIDATE are. */
export const HWPT_INVALIDATE_DATA_TYPE = { VTD_S1: 0, ARM_SMMUV3: 1 } as const;

/** Flags of iommu_hwpt_vtd_s1_invalidate. */
export const VTD_INVALIDATE_FLAGS = { LEAF: 1 } as const;

/** Flags of iommu_hwpt_pgfault. */
export const PGFAULT_FLAGS = { PASID_VALID: 1, LAST_PAGE: 2 } as const;

/** Access bits of iommu_hwpt_pgfault. */
export const PGFAULT_PERM = { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 } as const;

/** Codes of iommu_hwpt_page_response that user space may send. */
export const PAGE_RESPONSE_CODE = { SUCCESS: 0, INVALID: 1 } as const;

/** Types of a vIOMMU. DEFAULT is refused. */
export const VIOMMU_TYPE = { DEFAULT: 0, ARM_SMMUV3: 1, TEGRA241_CMDQV: 2 } as const;

/** Types of a vEVENTQ. DEFAULT is refused. */
export const VEVENTQ_TYPE = { DEFAULT: 0, ARM_SMMUV3: 1, TEGRA241_CMDQV: 2 } as const;

/** Flags of iommufd_vevent_header. */
export const VEVENTQ_FLAGS = { LOST_EVENTS: 1 } as const;

/** Types of a hardware queue. DEFAULT is refused. */
export const HW_QUEUE_TYPE = { DEFAULT: 0, TEGRA241_CMDQV: 1 } as const;

/** Kinds of objects. Numbers are the kernel's own, not part of the API. */
export const IOMMUFD_OBJECT_TYPE = {
  NONE: 0,
  DEVICE: 1,
  HWPT_PAGING: 2,
  HWPT_NESTED: 3,
  IOAS: 4,
  ACCESS: 5,
  FAULT: 6,
  VIOMMU: 7,
  VDEVICE: 8,
  VEVENTQ: 9,
  HW_QUEUE: 10,
} as const;

/** First object id. */
export const IOMMUFD_FIRST_ID = 1;

/** Last object id: the kernel's xa_limit_31b. */
export const IOMMUFD_LAST_ID = 0x7fff_ffff;

/** Largest veventq_depth: VEVENTQ_MAX_DEPTH. */
export const VEVENTQ_MAX_DEPTH = 1 << 19;

/** Largest entry_num of IOMMU_HWPT_INVALIDATE. */
export const INVALIDATE_MAX_ENTRIES = 1 << 19;

/** Last sequence number of a vEVENT; 0 follows. */
export const VEVENT_LAST_SEQUENCE = 0x7fff_ffff;

/** Events that Linux delivers through a vEVENTQ of type ARM_SMMUV3 (iommu_vevent_arm_smmuv3). */
export const VEVENT_ARM_SMMUV3_EVENTS = [
  'C_BAD_STE',
  'F_STREAM_DISABLED',
  'C_BAD_SUBSTREAMID',
  'C_BAD_CD',
  'F_TRANSLATION',
  'F_ADDR_SIZE',
  'F_ACCESS',
  'F_PERMISSION',
] as const;

/** Commands that Linux accepts through a vIOMMU; any other is EIO (arm_vsmmu_convert_user_cmd). */
export const VIOMMU_ARM_SMMUV3_COMMANDS = [
  'CMD_TLBI_NSNH_ALL',
  'CMD_TLBI_NH_VA',
  'CMD_TLBI_NH_VAA',
  'CMD_TLBI_NH_ALL',
  'CMD_TLBI_NH_ASID',
  'CMD_ATC_INV',
  'CMD_CFGI_CD',
  'CMD_CFGI_CD_ALL',
] as const;

/** Fields that a nested STE may set, by 64-bit word (iommu_hwpt_arm_smmuv3). */
export const NESTED_STE_FIELDS = [
  ['V', 'Config', 'S1Fmt', 'S1ContextPtr', 'S1CDMax'],
  ['EATS', 'S1DSS', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD'],
] as const;

/** Fields of the ID registers that a VMM may take from iommu_hw_info_arm_smmuv3, by index of idr[]. */
export const HW_INFO_IDR_FIELDS = {
  0: ['ST_LEVEL', 'TERM_MODEL', 'STALL_MODEL', 'TTENDIAN', 'CD2L', 'ASID16', 'TTF'],
  1: ['SIDSIZE', 'SSIDSIZE'],
  3: ['BBML', 'RIL'],
  5: ['VAX', 'GRAN64K', 'GRAN16K', 'GRAN4K'],
} as const;
