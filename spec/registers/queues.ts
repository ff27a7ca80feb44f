/** Stream table and queue registers (IHI 0070 6.3.24 to 6.3.29, 6.3.33, 6.3.95 to 6.3.98). */
import { register } from '../layout.ts';

/** Stream table address (6.3.24). Read-only with IDR1.TABLES_PRESET. */
export const STRTAB_BASE = register(
  'STRTAB_BASE',
  { offset: 0x80, width: 64, access: 'RW', section: '6.3.24', text: 'Stream table address' },
  {
    RES0_63: { bits: [63, 63], reserved: 'RES0' },
    RA: { bits: [62, 62], text: 'read-allocate hint' },
    RES0_61_56: { bits: [61, 56], reserved: 'RES0' },
    ADDR: { bits: [55, 6], address: 6 },
    RES0_5_0: { bits: [5, 0], reserved: 'RES0' },
  },
);

/** Stream table shape (6.3.25). Reserved FMT values act as LINEAR, unlisted SPLIT values as 4K. */
export const STRTAB_BASE_CFG = register(
  'STRTAB_BASE_CFG',
  { offset: 0x88, width: 32, access: 'RW', section: '6.3.25', text: 'Stream table shape' },
  {
    RES0_31_18: { bits: [31, 18], reserved: 'RES0' },
    FMT: { bits: [17, 16], when: 'IDR0.ST_LEVEL=1', values: { LINEAR: 0, TWO_LEVEL: 1 } },
    RES0_15_11: { bits: [15, 11], reserved: 'RES0' },
    SPLIT: {
      bits: [10, 6],
      when: 'IDR0.ST_LEVEL=1',
      values: { '4K': 6, '16K': 8, '64K': 10 },
      text: 'StreamID bits that index a leaf table',
    },
    LOG2SIZE: { bits: [5, 0], text: 'StreamID bits that the table covers' },
  },
);

const BASE_RA_FIELDS = {
  RES0_63: { bits: [63, 63], reserved: 'RES0' },
  RA: { bits: [62, 62], text: 'read-allocate hint' },
  RES0_61_56: { bits: [61, 56], reserved: 'RES0' },
  ADDR: { bits: [55, 5], address: 5 },
  LOG2SIZE: { bits: [4, 0], text: 'log2 of the number of entries' },
} as const;

const BASE_WA_FIELDS = {
  RES0_63: { bits: [63, 63], reserved: 'RES0' },
  WA: { bits: [62, 62], text: 'write-allocate hint' },
  RES0_61_56: { bits: [61, 56], reserved: 'RES0' },
  ADDR: { bits: [55, 5], address: 5 },
  LOG2SIZE: { bits: [4, 0], text: 'log2 of the number of entries' },
} as const;

const EVENT_PROD_FIELDS = {
  OVFLG: { bits: [31, 31], text: 'overflow; active while it differs from OVACKFLG' },
  RES0_30_20: { bits: [30, 20], reserved: 'RES0' },
  WR: { bits: [19, 0], text: 'write index and wrap bit' },
} as const;

const EVENT_CONS_FIELDS = {
  OVACKFLG: { bits: [31, 31], text: 'overflow acknowledged' },
  RES0_30_20: { bits: [30, 20], reserved: 'RES0' },
  RD: { bits: [19, 0], text: 'read index and wrap bit' },
} as const;

/** Command error codes, in CMDQ_CONS.ERR (7.1). Undefined while GERROR.CMDQ_ERR is not active. */
export const CERROR = {
  CERROR_NONE: 0,
  CERROR_ILL: 1,
  CERROR_ABT: 2,
  CERROR_ATC_INV_SYNC: 3,
} as const;

/** Command queue address and size (6.3.26). Read-only with IDR1.QUEUES_PRESET. */
export const CMDQ_BASE = register(
  'CMDQ_BASE',
  { offset: 0x90, width: 64, access: 'RW', section: '6.3.26', text: 'Command queue address and size' },
  BASE_RA_FIELDS,
);

/** Command queue write index (6.3.27). */
export const CMDQ_PROD = register(
  'CMDQ_PROD',
  { offset: 0x98, width: 32, access: 'RW', section: '6.3.27', text: 'Command queue write index' },
  { RES0_31_20: { bits: [31, 20], reserved: 'RES0' }, WR: { bits: [19, 0], text: 'write index and wrap bit' } },
);

/** Command queue read index and error code (6.3.28). */
export const CMDQ_CONS = register(
  'CMDQ_CONS',
  { offset: 0x9c, width: 32, access: 'RW', section: '6.3.28', text: 'Command queue read index and error' },
  {
    RES0_31: { bits: [31, 31], reserved: 'RES0' },
    ERR: { bits: [30, 24], values: CERROR, text: 'why consumption stopped' },
    RES0_23_20: { bits: [23, 20], reserved: 'RES0' },
    RD: { bits: [19, 0], text: 'read index and wrap bit' },
  },
);

/** Event queue address and size (6.3.29). Read-only with IDR1.QUEUES_PRESET. */
export const EVENTQ_BASE = register(
  'EVENTQ_BASE',
  { offset: 0xa0, width: 64, access: 'RW', section: '6.3.29', text: 'Event queue address and size' },
  BASE_WA_FIELDS,
);

/** Event queue write index and overflow flag (6.3.95). */
export const EVENTQ_PROD = register(
  'EVENTQ_PROD',
  { offset: 0xa8, width: 32, access: 'RW', section: '6.3.95', page: 'page1', text: 'Event queue write index' },
  EVENT_PROD_FIELDS,
);

/** Event queue read index and overflow acknowledge (6.3.96). */
export const EVENTQ_CONS = register(
  'EVENTQ_CONS',
  { offset: 0xac, width: 32, access: 'RW', section: '6.3.96', page: 'page1', text: 'Event queue read index' },
  EVENT_CONS_FIELDS,
);

/** PRI queue address and size (6.3.33). Read-only with IDR1.QUEUES_PRESET. */
export const PRIQ_BASE = register(
  'PRIQ_BASE',
  {
    offset: 0xc0,
    width: 64,
    access: 'RW',
    section: '6.3.33',
    when: 'IDR0.PRI',
    text: 'PRI queue address and size',
  },
  BASE_WA_FIELDS,
);

/** PRI queue write index and overflow flag (6.3.97). */
export const PRIQ_PROD = register(
  'PRIQ_PROD',
  {
    offset: 0xc8,
    width: 32,
    access: 'RW',
    section: '6.3.97',
    page: 'page1',
    when: 'IDR0.PRI',
    text: 'PRI queue write index',
  },
  EVENT_PROD_FIELDS,
);

/** PRI queue read index and overflow acknowledge (6.3.98). */
export const PRIQ_CONS = register(
  'PRIQ_CONS',
  {
    offset: 0xcc,
    width: 32,
    access: 'RW',
    section: '6.3.98',
    page: 'page1',
    when: 'IDR0.PRI',
    text: 'PRI queue read index',
  },
  EVENT_CONS_FIELDS,
);
