/** Address translation operations (IHI 0070 chapter 9, 6.3.37 to 6.3.40, 6.3.44, 6.3.99 to 6.3.102). */
import { layout, register } from '../layout.ts';

const CTRL_FIELDS = {
  RES0_31_1: { bits: [31, 1], reserved: 'RES0' },
  RUN: { bits: [0, 0], text: 'write 1 to start; reads 1 until PAR is written' },
} as const;

const SID_FIELDS = {
  RES0_63_53: { bits: [63, 53], reserved: 'RES0' },
  SSID_VALID: { bits: [52, 52], when: 'IDR1.SSIDSIZE' },
  SUBSTREAMID: { bits: [51, 32], when: 'IDR1.SSIDSIZE' },
  STREAMID: { bits: [31, 0] },
} as const;

const ADDR_FIELDS = {
  ADDR: { bits: [63, 12], address: 12, text: 'input address' },
  TYPE: { bits: [11, 10], values: { STAGE1: 1, STAGE2: 2, BOTH: 3 }, text: 'stages; VATOS takes STAGE1 only' },
  PnU: { bits: [9, 9], text: 'privileged' },
  RnW: { bits: [8, 8], text: 'read' },
  InD: { bits: [7, 7], text: 'instruction; ignored for writes' },
  HTTUI: { bits: [6, 6], text: 'inhibit hardware flag update' },
  RES0_5_0: { bits: [5, 0], reserved: 'RES0' },
} as const;

/** Fault codes in PAR.FAULTCODE (9.1.4). Those under 0xfd are numbers of events. */
export const ATOS_FAULTCODE = {
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_STREAM_DISABLED: 0x06,
  C_BAD_SUBSTREAMID: 0x08,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
  F_TLB_CONFLICT: 0x20,
  F_CFG_CONFLICT: 0x21,
  F_VMS_FETCH: 0x25,
  INTERNAL_ERR: 0xfd,
  INV_STAGE: 0xfe,
  INV_REQ: 0xff,
} as const;

const PAR_FIELDS = {
  ATTR: { bits: [63, 56], text: 'memory attributes, as a MAIR byte' },
  ADDR: { bits: [55, 12], address: 12, text: 'output address; with Size the lowest set bit tells the size' },
  Size: { bits: [11, 11], values: { '4K': 0, IN_ADDR: 1 } },
  RES0_10: { bits: [10, 10], reserved: 'RES0' },
  SH: { bits: [9, 8], values: { NSH: 0, OSH: 2, ISH: 3 } },
  RES0_7_1: { bits: [7, 1], reserved: 'RES0' },
  FAULT: { bits: [0, 0], text: '0: this layout; 1: the fault layout' },
} as const;

/** GATOS_PAR and VATOS_PAR when FAULT is 1 (6.3.40). */
export const ATOS_PAR_FAULT = layout(
  'ATOS_PAR_FAULT',
  { bytes: 8, section: '6.3.40', text: 'result of a failed address translation operation' },
  {
    IMPDEF_63_60: { bits: [63, 60], reserved: 'IMPDEF' },
    RES0_59_56: { bits: [59, 56], reserved: 'RES0' },
    FADDR: { bits: [55, 12], address: 12, text: 'IPA given to stage 2; 0 for VATOS' },
    FAULTCODE: { bits: [11, 4], values: ATOS_FAULTCODE },
    RES0_3: { bits: [3, 3], reserved: 'RES0' },
    REASON: { bits: [2, 1], values: { NONE: 0, S2_CD: 1, S2_TT: 2, S2_IN: 3 }, text: 'where stage 2 failed' },
    FAULT: { bits: [0, 0] },
  },
);

/** Start of a global address translation operation (6.3.37). */
export const GATOS_CTRL = register(
  'GATOS_CTRL',
  { offset: 0x100, width: 32, access: 'RW', section: '6.3.37', when: 'IDR0.ATOS', text: 'GATOS start' },
  CTRL_FIELDS,
);

/** Stream that a global operation is about (6.3.38). */
export const GATOS_SID = register(
  'GATOS_SID',
  { offset: 0x108, width: 64, access: 'RW', section: '6.3.38', when: 'IDR0.ATOS', text: 'GATOS stream' },
  SID_FIELDS,
);

/** Address and kind of a global operation (6.3.39). */
export const GATOS_ADDR = register(
  'GATOS_ADDR',
  { offset: 0x110, width: 64, access: 'RW', section: '6.3.39', when: 'IDR0.ATOS', text: 'GATOS address and kind' },
  ADDR_FIELDS,
);

/** Result of a global operation (6.3.40); {@link ATOS_PAR_FAULT} when FAULT is 1. */
export const GATOS_PAR = register(
  'GATOS_PAR',
  { offset: 0x118, width: 64, access: 'RO', section: '6.3.40', when: 'IDR0.ATOS', text: 'GATOS result' },
  PAR_FIELDS,
);

/** VMID whose streams the VATOS page may ask about (6.3.44). */
export const VATOS_SEL = register(
  'VATOS_SEL',
  { offset: 0x180, width: 32, access: 'RW', section: '6.3.44', when: 'IDR0.VATOS', text: 'VMID of VATOS' },
  { RES0_31_16: { bits: [31, 16], reserved: 'RES0' }, VMID: { bits: [15, 0] } },
);

/** Start of a virtual address translation operation (6.3.99). */
export const VATOS_CTRL = register(
  'VATOS_CTRL',
  {
    offset: 0xa00,
    width: 32,
    access: 'RW',
    section: '6.3.99',
    page: 'vatos',
    when: 'IDR0.VATOS',
    text: 'VATOS start',
  },
  CTRL_FIELDS,
);

/** Stream that a virtual operation is about (6.3.100). */
export const VATOS_SID = register(
  'VATOS_SID',
  {
    offset: 0xa08,
    width: 64,
    access: 'RW',
    section: '6.3.100',
    page: 'vatos',
    when: 'IDR0.VATOS',
    text: 'VATOS stream',
  },
  SID_FIELDS,
);

/** Address and kind of a virtual operation (6.3.101). */
export const VATOS_ADDR = register(
  'VATOS_ADDR',
  {
    offset: 0xa10,
    width: 64,
    access: 'RW',
    section: '6.3.101',
    page: 'vatos',
    when: 'IDR0.VATOS',
    text: 'VATOS address and kind',
  },
  ADDR_FIELDS,
);

/** Result of a virtual operation (6.3.102); {@link ATOS_PAR_FAULT} when FAULT is 1. */
export const VATOS_PAR = register(
  'VATOS_PAR',
  {
    offset: 0xa18,
    width: 64,
    access: 'RO',
    section: '6.3.102',
    page: 'vatos',
    when: 'IDR0.VATOS',
    text: 'VATOS result',
  },
  PAR_FIELDS,
);
