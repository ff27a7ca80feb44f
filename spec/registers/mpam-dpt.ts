/** MPAM and Device Permission Table registers (IHI 0070 6.3.41 to 6.3.43, 6.3.46 to 6.3.48). */
import { register } from '../layout.ts';

/** Largest MPAM ids (6.3.41). */
export const MPAMIDR = register(
  'MPAMIDR',
  { offset: 0x130, width: 32, access: 'RO', section: '6.3.41', when: 'IDR3.MPAM', text: 'largest MPAM ids' },
  {
    RES0_31_24: { bits: [31, 24], reserved: 'RES0' },
    PMG_MAX: { bits: [23, 16] },
    PARTID_MAX: { bits: [15, 0] },
  },
);

/** MPAM ids of accesses the SMMU makes itself (6.3.42). A write takes effect only if it sets Update. */
export const GMPAM = register(
  'GMPAM',
  {
    offset: 0x138,
    width: 32,
    access: 'RW',
    section: '6.3.42',
    when: 'IDR3.MPAM',
    text: 'MPAM ids of STE, queue and MSI accesses',
  },
  {
    Update: { bits: [31, 31], text: 'write 1 with the new values; reads 1 until they are applied' },
    RES0_30_24: { bits: [30, 24], reserved: 'RES0' },
    SO_PMG: { bits: [23, 16] },
    SO_PARTID: { bits: [15, 0] },
  },
);

/** MPAM ids of client traffic that bypasses (6.3.43). A write takes effect only if it sets Update. */
export const GBPMPAM = register(
  'GBPMPAM',
  {
    offset: 0x13c,
    width: 32,
    access: 'RW',
    section: '6.3.43',
    when: 'IDR3.MPAM',
    text: 'MPAM ids of bypassing traffic',
  },
  {
    Update: { bits: [31, 31], text: 'write 1 with the new values; reads 1 until they are applied' },
    RES0_30_24: { bits: [30, 24], reserved: 'RES0' },
    GBP_PMG: { bits: [23, 16] },
    GBP_PARTID: { bits: [15, 0] },
  },
);

/** Device Permission Table address (6.3.46). */
export const DPT_BASE = register(
  'DPT_BASE',
  { offset: 0x200, width: 64, access: 'RW', section: '6.3.46', when: 'IDR3.DPT', text: 'DPT address' },
  {
    RES0_63: { bits: [63, 63], reserved: 'RES0' },
    RA: { bits: [62, 62], text: 'read-allocate hint' },
    RES0_61_56: { bits: [61, 56], reserved: 'RES0' },
    BADDR: { bits: [55, 12], address: 12 },
    RES0_11_0: { bits: [11, 0], reserved: 'RES0' },
  },
);

/** Device Permission Table shape (6.3.47). */
export const DPT_BASE_CFG = register(
  'DPT_BASE_CFG',
  { offset: 0x208, width: 32, access: 'RW', section: '6.3.47', when: 'IDR3.DPT', text: 'DPT shape' },
  {
    RES0_31_24: { bits: [31, 24], reserved: 'RES0' },
    L0DPTSZ: { bits: [23, 20], values: { '1G': 0, '16G': 4, '64G': 6, '512G': 9 }, text: 'span of a level 0 entry' },
    RES0_19_16: { bits: [19, 16], reserved: 'RES0' },
    DPTGS: { bits: [15, 14], values: { '4K': 0, '64K': 1, '16K': 2 }, text: 'granule' },
    RES0_13_3: { bits: [13, 3], reserved: 'RES0' },
    DPTPS: {
      bits: [2, 0],
      values: { '32bit': 0, '36bit': 1, '40bit': 2, '42bit': 3, '44bit': 4, '48bit': 5, '52bit': 6 },
      text: 'size of the protected space',
    },
  },
);

/** Syndrome of GERROR.DPT_ERR (6.3.48). A write with FAULT 0 clears the whole register; any other is ignored. */
export const DPT_CFG_FAR = register(
  'DPT_CFG_FAR',
  { offset: 0x210, width: 64, access: 'W0C', section: '6.3.48', when: 'IDR3.DPT', text: 'DPT lookup fault' },
  {
    RES0_63_56: { bits: [63, 56], reserved: 'RES0' },
    FADDR: { bits: [55, 12], address: 12, text: 'address checked' },
    RES0_11_8: { bits: [11, 8], reserved: 'RES0' },
    DPT_FAULTCODE: {
      bits: [7, 4],
      values: { DPT_DISABLED: 0, DPT_WALK_FAULT: 1, DPT_GPC_FAULT: 2, DPT_EABT: 3 },
    },
    RES0_3_2: { bits: [3, 2], reserved: 'RES0' },
    LEVEL: { bits: [1, 1] },
    FAULT: { bits: [0, 0], text: 'a fault is held' },
  },
);
