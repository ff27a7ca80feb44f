/** Enhanced Command queues and their control pages (IHI 0070 3.5.6, 6.2.5, 6.3.49 to 6.3.51, 6.3.107 to 6.3.109). */
import { register } from '../layout.ts';

/** Most control pages and most queues in one of them: IDR6.CMDQ_CONTROL_PAGE_LOG2NUMP and LOG2NUMQ are at most 8. */
export const ECMDQ_MAX_PAGES = 256;

/** Most queues in one control page. */
export const ECMDQ_MAX_QUEUES = 256;

/** Bytes of a control page. */
export const ECMDQ_PAGE_BYTES = 0x10000;

/** Bytes between the queues of a control page: they are spread evenly (6.2.5). `log2numq` is IDR6's field, 0 to 8. */
export const ecmdqStride = (log2numq: number): number => ECMDQ_PAGE_BYTES >>> log2numq;

/** Where a command queue control page lies (6.3.49). */
export const CMDQ_CONTROL_PAGE_BASE = register(
  'CMDQ_CONTROL_PAGE_BASE',
  {
    offset: 0x4000,
    width: 64,
    access: 'RO',
    section: '6.3.49',
    when: 'IDR1.ECMDQ',
    repeat: { count: ECMDQ_MAX_PAGES, stride: 0x20 },
    text: 'place of a command queue control page',
  },
  {
    RES0_63_56: { bits: [63, 56], reserved: 'RES0' },
    ADDR: { bits: [55, 16], address: 16, text: 'byte offset from page 0' },
    RES0_15_3: { bits: [15, 3], reserved: 'RES0' },
    CMDQGS: { bits: [2, 1], values: { '64K': 1 }, text: 'page size' },
    CMDQ_CONTROL_PAGE_PRESET: { bits: [0, 0], text: 'the queues are registers; reads 1' },
  },
);

/** Enable of a control page (6.3.50). */
export const CMDQ_CONTROL_PAGE_CFG = register(
  'CMDQ_CONTROL_PAGE_CFG',
  {
    offset: 0x4008,
    width: 32,
    access: 'RO',
    section: '6.3.50',
    when: 'IDR1.ECMDQ',
    repeat: { count: ECMDQ_MAX_PAGES, stride: 0x20 },
    text: 'enable of a control page',
  },
  { RES0_31_1: { bits: [31, 1], reserved: 'RES0' }, EN: { bits: [0, 0], text: 'reads 1' } },
);

/** Status of a control page (6.3.51). */
export const CMDQ_CONTROL_PAGE_STATUS = register(
  'CMDQ_CONTROL_PAGE_STATUS',
  {
    offset: 0x400c,
    width: 32,
    access: 'RO',
    section: '6.3.51',
    when: 'IDR1.ECMDQ',
    repeat: { count: ECMDQ_MAX_PAGES, stride: 0x20 },
    text: 'status of a control page',
  },
  { RES0_31_1: { bits: [31, 1], reserved: 'RES0' }, ENACK: { bits: [0, 0], text: 'reads 1' } },
);

/** The stride printed with the registers holds for 256 queues; {@link ecmdqStride} is the general rule. */
const QUEUES = { count: ECMDQ_MAX_QUEUES, stride: 0x100 } as const;

/** Enhanced Command queue address and size (6.3.107). LOG2SIZE is capped by IDR1.CMDQS. */
export const ECMDQ_BASE = register(
  'ECMDQ_BASE',
  {
    offset: 0x0,
    width: 64,
    access: 'RW',
    section: '6.3.107',
    page: 'ecmdq',
    when: 'IDR1.ECMDQ',
    repeat: QUEUES,
    text: 'enhanced Command queue address and size',
  },
  {
    RES0_63: { bits: [63, 63], reserved: 'RES0' },
    RA: { bits: [62, 62], text: 'read-allocate hint' },
    RES0_61_56: { bits: [61, 56], reserved: 'RES0' },
    ADDR: { bits: [55, 5], address: 5 },
    LOG2SIZE: { bits: [4, 0], text: 'log2 of the number of entries' },
  },
);

/** Enhanced Command queue write index, enable and error acknowledge (6.3.108). */
export const ECMDQ_PROD = register(
  'ECMDQ_PROD',
  {
    offset: 0x8,
    width: 32,
    access: 'RW',
    section: '6.3.108',
    page: 'ecmdq',
    when: 'IDR1.ECMDQ',
    repeat: QUEUES,
    text: 'enhanced Command queue write index',
  },
  {
    EN: { bits: [31, 31], text: 'enable' },
    RES0_30_24: { bits: [30, 24], reserved: 'RES0' },
    ERRACK: { bits: [23, 23], text: 'error acknowledged' },
    RES0_22_20: { bits: [22, 20], reserved: 'RES0' },
    WR: { bits: [19, 0], text: 'write index and wrap bit' },
  },
);

/** Enhanced Command queue read index, enable in force and error (6.3.109). */
export const ECMDQ_CONS = register(
  'ECMDQ_CONS',
  {
    offset: 0xc,
    width: 32,
    access: 'RW',
    section: '6.3.109',
    page: 'ecmdq',
    when: 'IDR1.ECMDQ',
    repeat: QUEUES,
    text: 'enhanced Command queue read index',
  },
  {
    ENACK: { bits: [31, 31], text: 'enable in force' },
    RES0_30_27: { bits: [30, 27], reserved: 'RES0' },
    ERR_REASON: {
      bits: [26, 24],
      values: { CERROR_NONE: 0, CERROR_ILL: 1, CERROR_ABT: 2, CERROR_ATC_INV_SYNC: 3 },
      text: 'why consumption stopped',
    },
    ERR: { bits: [23, 23], text: 'error; active while it differs from ERRACK' },
    RES0_22_20: { bits: [22, 20], reserved: 'RES0' },
    RD: { bits: [19, 0], text: 'read index and wrap bit' },
  },
);
