/**
 * NVIDIA Tegra241 CMDQV: registers and windows. There is no public manual; sources are Linux 7.2
 * drivers/iommu/arm/arm-smmu-v3/tegra241-cmdqv.c ("Linux") and QEMU hw/arm/tegra241-cmdqv.h ("QEMU"). Fields whose
 * section says QEMU are known from there only.
 */

import { type Register, register } from './layout.ts';
import { CERROR } from './registers/queues.ts';

const LINUX = 'Linux tegra241-cmdqv.c';
const QEMU = 'QEMU tegra241-cmdqv.h';

/** Bytes of each page and window. */
export const CMDQV_PAGE_BYTES = 0x10000;

/** Byte offset of the page with the global registers, page 'cmdqv'. */
export const CMDQV_CONFIG_PAGE = 0x0;

/** Byte offset of the global window on VCMDQ control registers, page 'vcmdq0'. Slots by VCMDQ number. */
export const CMDQV_VCMDQ_PAGE0 = 0x10000;

/** Byte offset of the global window on VCMDQ address registers, page 'vcmdq1'. Slots by VCMDQ number. */
export const CMDQV_VCMDQ_PAGE1 = 0x20000;

/** Byte offset of the first VINTF's windows. */
const VINTF_WINDOWS = 0x30000;

/** Bytes of one VINTF's two windows. */
const VINTF_WINDOW_STRIDE = 2 * CMDQV_PAGE_BYTES;

/** Byte offset of VINTF v's window on control registers, by logical VCMDQ. The page a VM maps. */
export const vintfPage0 = (v: number): number => VINTF_WINDOWS + v * VINTF_WINDOW_STRIDE;

/** Byte offset of VINTF v's window on address registers, by logical VCMDQ. */
export const vintfPage1 = (v: number): number => vintfPage0(v) + CMDQV_PAGE_BYTES;

/** Bytes that a CMDQV with so many VINTFs decodes. */
export const cmdqvFootprint = (vintfs: number): number => vintfPage0(vintfs);

/** Bytes between VCMDQ slots in every window. */
export const VCMDQ_STRIDE = 0x80;

/** Byte offset of VINTF v's registers in the 'cmdqv' page. */
export const vintfBlock = (v: number): number => 0x1000 + v * VINTF_BLOCK_STRIDE;

/** Bytes of one VINTF's registers. */
export const VINTF_BLOCK_STRIDE = 0x100;

/** Most VINTFs: CMDQ_ALLOC.VINTF has 6 bits, VINTF_ERR_MAP 64. */
export const CMDQV_MAX_VINTFS = 64;

/** Most VCMDQs: CMDQ_ALLOC.LVCMDQ has 7 bits, CMDQ_ERR_MAP 128. */
export const CMDQV_MAX_VCMDQS = 128;

/** Most StreamID pairs of a VINTF: SID_MATCH fills 0x40 to 0x7f. */
export const CMDQV_MAX_SIDS = 16;

/** Global configuration. */
export const CMDQV_CONFIG = register(
  'CMDQV_CONFIG',
  { page: 'cmdqv', offset: 0x0, width: 32, access: 'RW', section: LINUX, text: 'global configuration' },
  {
    RES0_31_21: { bits: [31, 21], reserved: 'RES0' },
    CONS_DRAM_EN: { bits: [20, 20], section: QEMU, text: 'write CONS to memory' },
    CMDQ_MAX_CMD_BATCH: { bits: [19, 12], section: QEMU },
    CMDQ_MAX_CLK_BATCH: { bits: [11, 4], section: QEMU },
    CMDQV_PER_CMD_OFFSET: { bits: [3, 1], section: QEMU, values: { '16B': 1 } },
    CMDQV_EN: { bits: [0, 0], text: 'enable' },
  },
);

/** What the block offers. Counts are log2. */
export const CMDQV_PARAM = register(
  'CMDQV_PARAM',
  { page: 'cmdqv', offset: 0x4, width: 32, access: 'RO', section: LINUX, text: 'what the block offers' },
  {
    RES0_31_16: { bits: [31, 16], reserved: 'RES0' },
    NUM_SID_PER_VM_LOG2: { bits: [15, 12], text: 'log2 of StreamID pairs of a VINTF' },
    NUM_VINTF_LOG2: { bits: [11, 8], text: 'log2 of VINTFs' },
    NUM_VCMDQ_LOG2: { bits: [7, 4], text: 'log2 of VCMDQs' },
    VER: { bits: [3, 0], text: 'version' },
  },
);

/** Enable in force. */
export const CMDQV_STATUS = register(
  'CMDQV_STATUS',
  { page: 'cmdqv', offset: 0x8, width: 32, access: 'RO', section: LINUX, text: 'enable in force' },
  { RES0_31_1: { bits: [31, 1], reserved: 'RES0' }, CMDQV_ENABLED: { bits: [0, 0] } },
);

/** VINTFs with an error, bit v modulo 32 of word v / 32. */
export const CMDQV_VINTF_ERR_MAP = register(
  'CMDQV_VINTF_ERR_MAP',
  {
    page: 'cmdqv',
    offset: 0x14,
    width: 32,
    access: 'RO',
    section: LINUX,
    repeat: { count: 2, stride: 4 },
    text: 'VINTFs with an error',
  },
  { MAP: { bits: [31, 0] } },
);

/** VINTFs whose errors raise no interrupt. */
export const CMDQV_VINTF_INT_MASK = register(
  'CMDQV_VINTF_INT_MASK',
  {
    page: 'cmdqv',
    offset: 0x1c,
    width: 32,
    access: 'RW',
    section: QEMU,
    repeat: { count: 2, stride: 4 },
    text: 'VINTFs whose errors raise no interrupt',
  },
  { MASK: { bits: [31, 0] } },
);

/** VCMDQs with an error, bit q modulo 32 of word q / 32. */
export const CMDQV_CMDQ_ERR_MAP = register(
  'CMDQV_CMDQ_ERR_MAP',
  {
    page: 'cmdqv',
    offset: 0x24,
    width: 32,
    access: 'RO',
    section: LINUX,
    repeat: { count: 4, stride: 4 },
    text: 'VCMDQs with an error',
  },
  { MAP: { bits: [31, 0] } },
);

/** Which logical queue of which VINTF a VCMDQ is. */
export const CMDQV_CMDQ_ALLOC = register(
  'CMDQV_CMDQ_ALLOC',
  {
    page: 'cmdqv',
    offset: 0x200,
    width: 32,
    access: 'RW',
    section: LINUX,
    repeat: { count: CMDQV_MAX_VCMDQS, stride: 4 },
    text: 'which logical queue of which VINTF a VCMDQ is',
  },
  {
    RES0_31_21: { bits: [31, 21], reserved: 'RES0' },
    VINTF: { bits: [20, 15] },
    RES0_14_8: { bits: [14, 8], reserved: 'RES0' },
    LVCMDQ: { bits: [7, 1], text: 'logical VCMDQ of that VINTF' },
    ALLOCATED: { bits: [0, 0] },
  },
);

/** Configuration of a VINTF. */
export const VINTF_CONFIG = register(
  'VINTF_CONFIG',
  { page: 'vintf', offset: 0x0, width: 32, access: 'RW', section: LINUX, text: 'configuration of a VINTF' },
  {
    RES0_31_18: { bits: [31, 18], reserved: 'RES0' },
    HYP_OWN: { bits: [17, 17], text: 'full command set; reads 0 in a guest' },
    VMID: { bits: [16, 1], text: 'replaces the VMID of TLBI commands unless HYP_OWN' },
    EN: { bits: [0, 0], text: 'enable' },
  },
);

/** Status of a VINTF. */
export const VINTF_STATUS = register(
  'VINTF_STATUS',
  { page: 'vintf', offset: 0x4, width: 32, access: 'RO', section: LINUX, text: 'status of a VINTF' },
  {
    RES0_31_24: { bits: [31, 24], reserved: 'RES0' },
    VI_NUM_LVCMDQ: { bits: [23, 16], section: QEMU, text: 'logical VCMDQs' },
    RES0_15_4: { bits: [15, 4], reserved: 'RES0' },
    STATUS: { bits: [3, 1], values: { NO_ERROR: 0, VCMDQ_ERROR: 1 }, section: QEMU },
    ENABLED: { bits: [0, 0], text: 'enable in force' },
  },
);

/** Global filter configuration; not described anywhere. */
export const VINTF_GLB_FILT_CFG = register(
  'VINTF_GLB_FILT_CFG',
  { page: 'vintf', offset: 0xc, width: 32, access: 'RO', section: QEMU, text: 'filter configuration, not described' },
  { IMPDEF_31_0: { bits: [31, 0], reserved: 'IMPDEF' } },
);

/** Global filter data; not described anywhere. */
export const VINTF_GLB_FILT_DATA = register(
  'VINTF_GLB_FILT_DATA',
  { page: 'vintf', offset: 0x10, width: 32, access: 'RO', section: QEMU, text: 'filter data, not described' },
  { IMPDEF_31_0: { bits: [31, 0], reserved: 'IMPDEF' } },
);

/** Virtual StreamID of a pair. */
export const VINTF_SID_MATCH = register(
  'VINTF_SID_MATCH',
  {
    page: 'vintf',
    offset: 0x40,
    width: 32,
    access: 'RW',
    section: LINUX,
    repeat: { count: CMDQV_MAX_SIDS, stride: 4 },
    text: 'virtual StreamID of a pair',
  },
  {
    RES0_31_21: { bits: [31, 21], reserved: 'RES0' },
    VIRT_SID: { bits: [20, 1] },
    ENABLE: { bits: [0, 0] },
  },
);

/** Physical StreamID of a pair. */
export const VINTF_SID_REPLACE = register(
  'VINTF_SID_REPLACE',
  {
    page: 'vintf',
    offset: 0x80,
    width: 32,
    access: 'RW',
    section: LINUX,
    repeat: { count: CMDQV_MAX_SIDS, stride: 4 },
    text: 'physical StreamID of a pair',
  },
  { RES0_31_20: { bits: [31, 20], reserved: 'RES0' }, PHYS_SID: { bits: [19, 0], section: QEMU } },
);

/** Logical VCMDQs with an error, bit l modulo 32 of word l / 32. */
export const VINTF_LVCMDQ_ERR_MAP = register(
  'VINTF_LVCMDQ_ERR_MAP',
  {
    page: 'vintf',
    offset: 0xc0,
    width: 32,
    access: 'RO',
    section: LINUX,
    repeat: { count: 4, stride: 4 },
    text: 'logical VCMDQs with an error',
  },
  { MAP: { bits: [31, 0] } },
);

/** VCMDQ_CONS.ERR: the SMMU's codes, and one more. */
export const VCMDQ_ERR = { ...CERROR, CERROR_ILL_ACCESS: 4 } as const;

const SLOTS = { count: CMDQV_MAX_VCMDQS, stride: VCMDQ_STRIDE } as const;

/** Read index and error of a VCMDQ. */
export const VCMDQ_CONS = register(
  'VCMDQ_CONS',
  { page: 'vcmdq0', offset: 0x0, width: 32, access: 'RW', section: LINUX, repeat: SLOTS, text: 'read index and error' },
  {
    RES0_31: { bits: [31, 31], reserved: 'RES0' },
    ERR: { bits: [30, 24], values: VCMDQ_ERR, text: 'why consumption stopped' },
    RES0_23_20: { bits: [23, 20], reserved: 'RES0' },
    RD: { bits: [19, 0], section: QEMU, text: 'read index and wrap bit' },
  },
);

/** Write index of a VCMDQ. */
export const VCMDQ_PROD = register(
  'VCMDQ_PROD',
  { page: 'vcmdq0', offset: 0x4, width: 32, access: 'RW', section: LINUX, repeat: SLOTS, text: 'write index' },
  {
    RES0_31_20: { bits: [31, 20], reserved: 'RES0' },
    WR: { bits: [19, 0], section: QEMU, text: 'write index and wrap bit' },
  },
);

/** Enable of a VCMDQ. */
export const VCMDQ_CONFIG = register(
  'VCMDQ_CONFIG',
  { page: 'vcmdq0', offset: 0x8, width: 32, access: 'RW', section: LINUX, repeat: SLOTS, text: 'enable' },
  { RES0_31_1: { bits: [31, 1], reserved: 'RES0' }, CMDQ_EN: { bits: [0, 0] } },
);

/** Enable in force of a VCMDQ. */
export const VCMDQ_STATUS = register(
  'VCMDQ_STATUS',
  { page: 'vcmdq0', offset: 0xc, width: 32, access: 'RO', section: LINUX, repeat: SLOTS, text: 'enable in force' },
  { RES0_31_1: { bits: [31, 1], reserved: 'RES0' }, ENABLED: { bits: [0, 0] } },
);

const GERROR_FIELDS = {
  RES0_31_3: { bits: [31, 3], reserved: 'RES0' },
  CMDQ_INIT_ERR: { bits: [2, 2], section: QEMU, text: 'BASE was refused' },
  CONS_DRAM_WR_ABT_ERR: { bits: [1, 1], section: QEMU, text: 'write of CONS to memory aborted' },
  CMDQ_ERR: { bits: [0, 0], section: QEMU, text: 'command error, code in VCMDQ_CONS.ERR' },
} as const;

/** Errors of a VCMDQ; active while they differ from VCMDQ_GERRORN. */
export const VCMDQ_GERROR = register(
  'VCMDQ_GERROR',
  { page: 'vcmdq0', offset: 0x10, width: 32, access: 'RO', section: LINUX, repeat: SLOTS, text: 'errors' },
  GERROR_FIELDS,
);

/** Errors of a VCMDQ acknowledged. */
export const VCMDQ_GERRORN = register(
  'VCMDQ_GERRORN',
  { page: 'vcmdq0', offset: 0x14, width: 32, access: 'RW', section: LINUX, repeat: SLOTS, text: 'errors acknowledged' },
  GERROR_FIELDS,
);

/** Address and size of a VCMDQ. */
export const VCMDQ_BASE = register(
  'VCMDQ_BASE',
  { page: 'vcmdq1', offset: 0x0, width: 64, access: 'RW', section: LINUX, repeat: SLOTS, text: 'address and size' },
  {
    RES0_63_48: { bits: [63, 48], reserved: 'RES0' },
    ADDR: { bits: [47, 5], address: 5 },
    LOG2SIZE: { bits: [4, 0], text: 'log2 of the number of entries' },
  },
);

/** Where CONS is written to memory. */
export const VCMDQ_CONS_INDX_BASE = register(
  'VCMDQ_CONS_INDX_BASE',
  {
    page: 'vcmdq1',
    offset: 0x8,
    width: 64,
    access: 'RW',
    section: LINUX,
    repeat: SLOTS,
    text: 'where CONS is written to memory',
  },
  { RES0_63_48: { bits: [63, 48], reserved: 'RES0' }, ADDR: { bits: [47, 0], section: QEMU } },
);

/** Every CMDQV register, by page and offset. */
export const TEGRA241_REGISTERS: readonly Register[] = [
  CMDQV_CONFIG,
  CMDQV_PARAM,
  CMDQV_STATUS,
  CMDQV_VINTF_ERR_MAP,
  CMDQV_VINTF_INT_MASK,
  CMDQV_CMDQ_ERR_MAP,
  CMDQV_CMDQ_ALLOC,
  VINTF_CONFIG,
  VINTF_STATUS,
  VINTF_GLB_FILT_CFG,
  VINTF_GLB_FILT_DATA,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  VINTF_LVCMDQ_ERR_MAP,
  VCMDQ_CONS,
  VCMDQ_PROD,
  VCMDQ_CONFIG,
  VCMDQ_STATUS,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_BASE,
  VCMDQ_CONS_INDX_BASE,
];
