/** Interrupt and global error registers (IHI 0070 6.3.16, 6.3.18 to 6.3.23, 6.3.30 to 6.3.36). */
import { MEMATTR, SHAREABILITY } from '../encodings.ts';
import { register } from '../layout.ts';

const IRQ_CTRL_FIELDS = {
  RES0_31_3: { bits: [31, 3], reserved: 'RES0' },
  EVENTQ_IRQEN: { bits: [2, 2], text: 'Event queue not empty' },
  PRIQ_IRQEN: { bits: [1, 1], when: 'IDR0.PRI', text: 'PRI queue, condition as PRIQ_IRQ_CFG2.LO' },
  GERROR_IRQEN: { bits: [0, 0], text: 'a global error became active' },
} as const;

/** Interrupt enables (6.3.16). */
export const IRQ_CTRL = register(
  'IRQ_CTRL',
  { offset: 0x50, width: 32, access: 'RW', section: '6.3.16', text: 'interrupt enables' },
  IRQ_CTRL_FIELDS,
);

/** Interrupt enables in force (6.3.18). */
export const IRQ_CTRLACK = register(
  'IRQ_CTRLACK',
  { offset: 0x54, width: 32, access: 'RO', section: '6.3.18', text: 'interrupt enables in force' },
  IRQ_CTRL_FIELDS,
);

const GERROR_FIELDS = {
  RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
  DPT_ERR: { bits: [10, 10], when: 'IDR3.DPT', text: 'DPT lookup fault, see DPT_CFG_FAR' },
  CMDQP_ERR: { bits: [9, 9], when: 'IDR1.ECMDQ', text: 'error on an ECMDQ' },
  SFM_ERR: { bits: [8, 8], text: 'Service Failure Mode' },
  MSI_GERROR_ABT_ERR: { bits: [7, 7], when: 'IDR0.MSI', text: 'GERROR MSI write aborted' },
  MSI_PRIQ_ABT_ERR: { bits: [6, 6], when: ['IDR0.MSI', 'IDR0.PRI'], text: 'PRI queue MSI write aborted' },
  MSI_EVENTQ_ABT_ERR: { bits: [5, 5], when: 'IDR0.MSI', text: 'Event queue MSI write aborted' },
  MSI_CMDQ_ABT_ERR: { bits: [4, 4], when: 'IDR0.MSI', text: 'CMD_SYNC MSI write aborted' },
  PRIQ_ABT_ERR: { bits: [3, 3], when: 'IDR0.PRI', text: 'PRI queue access aborted' },
  EVENTQ_ABT_ERR: { bits: [2, 2], text: 'Event queue access aborted' },
  RES0_1: { bits: [1, 1], reserved: 'RES0' },
  CMDQ_ERR: { bits: [0, 0], text: 'Command queue error, code in CMDQ_CONS.ERR' },
} as const;

/** Global errors (6.3.19). An error is active while its bit differs from GERRORN. */
export const GERROR = register(
  'GERROR',
  { offset: 0x60, width: 32, access: 'RO', section: '6.3.19', text: 'global errors' },
  GERROR_FIELDS,
);

/** Acknowledged global errors (6.3.20). */
export const GERRORN = register(
  'GERRORN',
  { offset: 0x64, width: 32, access: 'RW', section: '6.3.20', text: 'global errors acknowledged' },
  GERROR_FIELDS,
);

const CFG0_FIELDS = {
  RES0_63_56: { bits: [63, 56], reserved: 'RES0' },
  ADDR: { bits: [55, 2], address: 2, text: 'where the MSI is written; 0: none is sent' },
  RES0_1_0: { bits: [1, 0], reserved: 'RES0' },
} as const;

const CFG1_FIELDS = { DATA: { bits: [31, 0], text: 'what the MSI writes' } } as const;

const CFG2_FIELDS = {
  RES0_31_6: { bits: [31, 6], reserved: 'RES0' },
  SH: { bits: [5, 4], values: SHAREABILITY },
  MemAttr: { bits: [3, 0], values: MEMATTR },
} as const;

/** GERROR MSI address (6.3.21). */
export const GERROR_IRQ_CFG0 = register(
  'GERROR_IRQ_CFG0',
  { offset: 0x68, width: 64, access: 'RW', section: '6.3.21', when: 'IDR0.MSI', text: 'GERROR MSI address' },
  CFG0_FIELDS,
);

/** GERROR MSI payload (6.3.22). */
export const GERROR_IRQ_CFG1 = register(
  'GERROR_IRQ_CFG1',
  { offset: 0x70, width: 32, access: 'RW', section: '6.3.22', when: 'IDR0.MSI', text: 'GERROR MSI payload' },
  CFG1_FIELDS,
);

/** GERROR MSI attributes (6.3.23). */
export const GERROR_IRQ_CFG2 = register(
  'GERROR_IRQ_CFG2',
  { offset: 0x74, width: 32, access: 'RW', section: '6.3.23', when: 'IDR0.MSI', text: 'GERROR MSI attributes' },
  CFG2_FIELDS,
);

/** Event queue MSI address (6.3.30). */
export const EVENTQ_IRQ_CFG0 = register(
  'EVENTQ_IRQ_CFG0',
  { offset: 0xb0, width: 64, access: 'RW', section: '6.3.30', when: 'IDR0.MSI', text: 'Event queue MSI address' },
  CFG0_FIELDS,
);

/** Event queue MSI payload (6.3.31). */
export const EVENTQ_IRQ_CFG1 = register(
  'EVENTQ_IRQ_CFG1',
  { offset: 0xb8, width: 32, access: 'RW', section: '6.3.31', when: 'IDR0.MSI', text: 'Event queue MSI payload' },
  CFG1_FIELDS,
);

/** Event queue MSI attributes (6.3.32). */
export const EVENTQ_IRQ_CFG2 = register(
  'EVENTQ_IRQ_CFG2',
  { offset: 0xbc, width: 32, access: 'RW', section: '6.3.32', when: 'IDR0.MSI', text: 'Event queue MSI attributes' },
  CFG2_FIELDS,
);

/** PRI queue MSI address (6.3.34). */
export const PRIQ_IRQ_CFG0 = register(
  'PRIQ_IRQ_CFG0',
  {
    offset: 0xd0,
    width: 64,
    access: 'RW',
    section: '6.3.34',
    when: ['IDR0.MSI', 'IDR0.PRI'],
    text: 'PRI queue MSI address',
  },
  CFG0_FIELDS,
);

/** PRI queue MSI payload (6.3.35). */
export const PRIQ_IRQ_CFG1 = register(
  'PRIQ_IRQ_CFG1',
  {
    offset: 0xd8,
    width: 32,
    access: 'RW',
    section: '6.3.35',
    when: ['IDR0.MSI', 'IDR0.PRI'],
    text: 'PRI queue MSI payload',
  },
  CFG1_FIELDS,
);

/**
 * PRI queue interrupt condition and MSI attributes (6.3.36). The specification disagrees with itself on LO without
 * MSI support; here LO needs PRI only, because it also governs the wired interrupt.
 */
export const PRIQ_IRQ_CFG2 = register(
  'PRIQ_IRQ_CFG2',
  {
    offset: 0xdc,
    width: 32,
    access: 'RW',
    section: '6.3.36',
    when: 'IDR0.PRI',
    text: 'PRI queue interrupt condition and MSI attributes',
  },
  {
    LO: { bits: [31, 31], values: { NOT_EMPTY: 0, LAST: 1 }, text: 'interrupt when not empty, or on a Last message' },
    RES0_30_6: { bits: [30, 6], reserved: 'RES0' },
    SH: { bits: [5, 4], when: 'IDR0.MSI', values: SHAREABILITY },
    MemAttr: { bits: [3, 0], when: 'IDR0.MSI', values: MEMATTR },
  },
);
