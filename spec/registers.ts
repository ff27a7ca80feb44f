/** The Non-secure register map: every register, and where the pages lie (IHI 0070 6.1, 6.2). */
import { AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IDR6, IIDR } from './id-registers.ts';
import type { Register } from './layout.ts';
import * as atos from './registers/atos.ts';
import * as componentId from './registers/component-id.ts';
import * as control from './registers/control.ts';
import * as ecmdq from './registers/ecmdq.ts';
import * as interrupts from './registers/interrupts.ts';
import * as mpamDpt from './registers/mpam-dpt.ts';
import * as queues from './registers/queues.ts';

export * from './id-registers.ts';
export * from './registers/atos.ts';
export * from './registers/component-id.ts';
export * from './registers/control.ts';
export * from './registers/ecmdq.ts';
export * from './registers/interrupts.ts';
export * from './registers/mpam-dpt.ts';
export * from './registers/queues.ts';

/** Bytes of each register page: page 0, page 1, the VATOS page, a command queue control page (6.1). */
export const PAGE_BYTES = 0x10000;

/** Byte offset of page 1 from SMMU_BASE (6.1). */
export const PAGE1 = 0x10000;

/** Bytes that every SMMU decodes: pages 0 and 1 (6.1). */
export const MIN_FOOTPRINT = 0x20000;

/** First byte after the two fixed pages; optional pages count from here in 64 KB units (6.1). */
export const OPTIONAL_PAGES = 0x20000;

/** Byte offset of the VATOS page from SMMU_BASE. `baVatos` is IDR2.BA_VATOS (6.3.3). */
export const vatosPage = (baVatos: number): number => OPTIONAL_PAGES + baVatos * PAGE_BYTES;

/** Where the Secure half of page 0 begins; it reads as zero and ignores writes from the Non-secure side (6.2). */
export const SECURE_HALF = 0x8000;

/** Implementation defined ranges, [first byte, last byte], by page (6.2). */
export const IMPDEF_RANGES = {
  page0: [
    [0xe00, 0xeff],
    [0x1000, 0x3fff],
  ],
  vatos: [[0xe00, 0xeff]],
} as const;

/**
 * Offsets on page 0 of registers that live on page 1: an implementation aliases them there or reads zero (6.2.1).
 */
export const PAGE0_ALIASES = [
  queues.EVENTQ_PROD.offset,
  queues.EVENTQ_CONS.offset,
  queues.PRIQ_PROD.offset,
  queues.PRIQ_CONS.offset,
] as const;

/** Every Non-secure register in the order of the specification's map; each says its own page. */
export const REGISTERS: readonly Register[] = [
  IDR0,
  IDR1,
  IDR2,
  IDR3,
  IDR4,
  IDR5,
  IIDR,
  AIDR,
  control.CR0,
  control.CR0ACK,
  control.CR1,
  control.CR2,
  control.S2PII,
  control.STATUSR,
  control.GBPA,
  control.AGBPA,
  interrupts.IRQ_CTRL,
  interrupts.IRQ_CTRLACK,
  interrupts.GERROR,
  interrupts.GERRORN,
  interrupts.GERROR_IRQ_CFG0,
  interrupts.GERROR_IRQ_CFG1,
  interrupts.GERROR_IRQ_CFG2,
  queues.STRTAB_BASE,
  queues.STRTAB_BASE_CFG,
  queues.CMDQ_BASE,
  queues.CMDQ_PROD,
  queues.CMDQ_CONS,
  queues.EVENTQ_BASE,
  queues.EVENTQ_PROD,
  queues.EVENTQ_CONS,
  interrupts.EVENTQ_IRQ_CFG0,
  interrupts.EVENTQ_IRQ_CFG1,
  interrupts.EVENTQ_IRQ_CFG2,
  queues.PRIQ_BASE,
  queues.PRIQ_PROD,
  queues.PRIQ_CONS,
  interrupts.PRIQ_IRQ_CFG0,
  interrupts.PRIQ_IRQ_CFG1,
  interrupts.PRIQ_IRQ_CFG2,
  atos.GATOS_CTRL,
  atos.GATOS_SID,
  atos.GATOS_ADDR,
  atos.GATOS_PAR,
  mpamDpt.MPAMIDR,
  mpamDpt.GMPAM,
  mpamDpt.GBPMPAM,
  atos.VATOS_SEL,
  IDR6,
  mpamDpt.DPT_BASE,
  mpamDpt.DPT_BASE_CFG,
  mpamDpt.DPT_CFG_FAR,
  componentId.PIDR4,
  componentId.PIDR5,
  componentId.PIDR6,
  componentId.PIDR7,
  componentId.PIDR0,
  componentId.PIDR1,
  componentId.PIDR2,
  componentId.PIDR3,
  componentId.CIDR0,
  componentId.CIDR1,
  componentId.CIDR2,
  componentId.CIDR3,
  ecmdq.CMDQ_CONTROL_PAGE_BASE,
  ecmdq.CMDQ_CONTROL_PAGE_CFG,
  ecmdq.CMDQ_CONTROL_PAGE_STATUS,
  atos.VATOS_CTRL,
  atos.VATOS_SID,
  atos.VATOS_ADDR,
  atos.VATOS_PAR,
  ecmdq.ECMDQ_BASE,
  ecmdq.ECMDQ_PROD,
  ecmdq.ECMDQ_CONS,
];
