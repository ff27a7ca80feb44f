/**
 * A transaction on its way through the SMMU: what the client asked, and all that translation found out. One object is
 * reused for every transaction of an SMMU; nothing is allocated on the way. Event records, traces and explanations are
 * made from what stands here afterwards.
 *
 * Halves of addresses that translation leaves here are signed 32-bit integers (`| 0`); it takes signed and unsigned
 * ones alike.
 */

/** What the client sent (3.9). */
export const Access = { Untranslated: 0, TranslationRequest: 1, Translated: 2 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/**
 * How it ended. RazWi: completed, reads zero, writes ignored (CD.A = 0). The last three answer a Translation Request;
 * `Ok` answers one with Success (permissions granted in `read`, `write` ...; none of them: Success with R = W = 0).
 */
export const Outcome = { Ok: 0, Abort: 1, RazWi: 2, Stall: 3, AtsUr: 4, AtsCa: 5 } as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** Event.CLASS: what stage 2 was translating when it faulted (7.3.12). */
export const FaultClass = { CD: 0, TT: 1, IN: 2 } as const;
export type FaultClass = (typeof FaultClass)[keyof typeof FaultClass];

/** What a step of {@link Transaction.steps} read. */
export const Step = { L1STD: 0, STE: 1, L1CD: 2, CD: 3, S1: 4, S2: 5, TLB: 6, VMS: 7 } as const;
export type Step = (typeof Step)[keyof typeof Step];

/** 32-bit numbers a step takes in {@link Transaction.steps}. */
export const STEP_SIZE = 8;
/** Steps kept of one transaction; a nested walk with CD and stream table fetches needs at most 5 * 6 + 20. */
export const MAX_STEPS = 128;

/** StreamWorld of a translation (3.3.3, 5.2 STRW). */
export const StreamWorld = { None: 0, NsEl1: 1, NsEl2: 2, NsEl2E2h: 3 } as const;
export type StreamWorld = (typeof StreamWorld)[keyof typeof StreamWorld];

export class Transaction {
  // What the client asked.
  access: Access = Access.Untranslated;
  StreamID = 0;
  /** A SubstreamID is present. */
  SSV = false;
  SubstreamID = 0;
  /** Input address, halves. */
  addrHi = 0;
  addrLo = 0;
  /** RnW = 0. */
  isWrite = false;
  /** Incoming InD: 1 instruction. */
  InD = false;
  /** Incoming PnU: 1 privileged. */
  PnU = false;
  /** The access is an atomic one: needs read and write permission. */
  isAtomic = false;
  /** Speculative read: no event, abort on any fault (3.14). */
  isSpeculative = false;
  /** Translation Request with No Write. */
  noWrite = false;
  /** Incoming memory type: 4-bit encoding of STE.MemAttr (15 = Normal iWB-oWB), shareability, RA/WA/TR hints. */
  inMemAttr = 15;
  inSH = 0;
  inAlloc = 6;

  // How it ended.
  outcome: Outcome = Outcome.Abort;
  /** Output address, halves (Ok). For a split-stage Translation Request: the IPA. */
  paHi = 0;
  paLo = 0;
  /** log2 of the size of the translation used: the smaller of the stages. 64 for bypass. */
  sizeLog2 = 12;
  /** Effective permissions for this privilege (Translation Request completion; also set for Ok). */
  grantRead = false;
  grantWrite = false;
  grantExec = false;
  /** Output attributes: memory type (inner/outer as STE.MemAttr), shareability, RA/WA/TR. */
  memAttr = 15;
  SH = 0;
  alloc = 6;
  /** MPAM ids of the access (Ok): PARTID and PMG; 0 without MPAM. */
  PARTID = 0;
  PMG = 0;

  // The event record, if `event` is not 0 (7.3).
  /** Event number; 0: no event was found. */
  event = 0;
  /** The record goes to the Event queue (false: R = 0, S2R = 0, RECINVSID = 0 and the like). */
  record = false;
  S2 = false;
  CLASS: FaultClass = FaultClass.IN;
  /** InD and PnU after the STE's overrides, as records report them. */
  eventInD = false;
  eventPnU = false;
  /** F_PERMISSION with CLASS = TT: the descriptor was being read (true) or written (hardware update). */
  TTRnW = false;
  ipaHi = 0;
  ipaLo = 0;
  fetchHi = 0;
  fetchLo = 0;
  /** STE.MEV of the stream: its events may be merged. */
  MEV = false;
  /** Id of the legality rule that made the STE or CD ILLEGAL, for explanations. */
  rule = '';

  // What was used on the way.
  streamWorld: StreamWorld = StreamWorld.None;
  /** VMID tag (NS-EL1 with stage 2 implemented), else -1. */
  VMID = -1;
  /** ASID of the CD, else -1. */
  ASID = -1;
  tlbHit = false;

  // Every structure and descriptor read, in order: kind, level (two's complement) | stage << 8, address, value.
  // The level of STE and CD steps is the number of the 64-bit word; a TLB step shows input and output address.
  readonly steps = new Int32Array(MAX_STEPS * STEP_SIZE);
  stepCount = 0;

  /** Notes one read: what it was, level (-1 to 3) and stage (0: none), its physical address and the value. */
  step(kind: Step, level: number, stage: number, hi: number, lo: number, valueHi: number, valueLo: number): void {
    const count = this.stepCount;
    if (count >= MAX_STEPS) return;
    this.stepCount = count + 1;
    const at = count * STEP_SIZE;
    const steps = this.steps;
    steps[at] = kind;
    steps[at + 1] = (level & 0xff) | (stage << 8);
    steps[at + 2] = hi;
    steps[at + 3] = lo;
    steps[at + 4] = valueHi;
    steps[at + 5] = valueLo;
  }

  /** Forgets the last transaction's outcome; what the client asked stays. */
  reset(): void {
    this.outcome = Outcome.Abort;
    this.paHi = this.paLo = 0;
    this.sizeLog2 = 64;
    this.grantRead = this.grantWrite = this.grantExec = false;
    this.PARTID = this.PMG = 0;
    this.event = 0;
    this.record = false;
    this.S2 = false;
    this.CLASS = FaultClass.IN;
    this.eventInD = this.eventPnU = false;
    this.TTRnW = false;
    this.ipaHi = this.ipaLo = this.fetchHi = this.fetchLo = 0;
    this.MEV = false;
    this.rule = '';
    this.streamWorld = StreamWorld.None;
    this.VMID = this.ASID = -1;
    this.tlbHit = false;
    this.stepCount = 0;
  }
}

/**
 * Register state that translation reads; values in effect (after their Update completed). The register file keeps it
 * up to date, translation only reads it.
 */
export interface TranslationRegs {
  readonly SMMUEN: boolean;
  readonly ATSCHK: boolean;
  /** CR0.VMW as the number of VMID bits that invalidation ignores (0 to 4). */
  readonly VMW: number;
  readonly E2H: boolean;
  readonly RECINVSID: boolean;
  readonly REC_CFG_ATS: boolean;
  readonly PTM: boolean;
  /** GBPA as read, without Update. */
  readonly GBPA: number;
  readonly CR1: number;
  /** GBPMPAM in force, without Update; 0 without MPAM. */
  readonly GBPMPAM: number;
  /** STRTAB_BASE.ADDR as written (not yet aligned), halves of the address. */
  readonly strtabHi: number;
  readonly strtabLo: number;
  readonly twoLevel: boolean;
  /** 6, 8 or 10. */
  readonly SPLIT: number;
  /** Literal STRTAB_BASE_CFG.LOG2SIZE. */
  readonly LOG2SIZE: number;
}

/** A TLB invalidation, from a command or a broadcast (4.4). One object is reused. */
export interface TlbInvalidation {
  /** Opcode of the command that does this (CMD_TLBI_NH_VA ...). */
  opcode: number;
  VMID: number;
  ASID: number;
  addrHi: number;
  addrLo: number;
  Leaf: boolean;
  /** 0: no level hint. */
  TTL: number;
  /** 0: single address; else granule of the range (1 4K, 2 16K, 3 64K). */
  TG: number;
  NUM: number;
  SCALE: number;
  /** A broadcast honours ASET; commands ignore it (3.17). */
  broadcast: boolean;
}
