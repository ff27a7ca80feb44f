/**
 * CR0 to CR2, GBPA, the Stream table registers and those of MPAM (IHI 0070 6.3.9 to 6.3.14, 6.3.24, 6.3.25, 6.3.42,
 * 6.3.43): the state that translation reads, in force.
 */
import type { Register } from '../../spec/layout.ts';
import { CR0, CR0ACK, CR1, CR2, GBPA, GBPMPAM, GMPAM, STRTAB_BASE, STRTAB_BASE_CFG } from '../../spec/registers.ts';
import { Handshake } from './handshake.ts';
import type { Watch } from './observer.ts';
import type { Cell, RegisterFile } from './registers.ts';
import type { Agent } from './schedule.ts';
import type { TranslationRegs } from './transaction.ts';

const SMMUEN = CR0.bit('SMMUEN');
const ATSCHK = CR0.bit('ATSCHK');
const TABLE_BITS = CR1.bit('TABLE_SH', 'TABLE_OC', 'TABLE_IC');
const QUEUE_BITS = CR1.bit('QUEUE_SH', 'QUEUE_OC', 'QUEUE_IC');
const E2H = CR2.bit('E2H');
const RECINVSID = CR2.bit('RECINVSID');
const REC_CFG_ATS = CR2.bit('REC_CFG_ATS');
const PTM = CR2.bit('PTM');
const STRTAB_ADDR = STRTAB_BASE.mask(['ADDR']);
const TWO_LEVEL = STRTAB_BASE_CFG.field('FMT').values?.TWO_LEVEL ?? 1;
/** SPLIT values that are defined; others behave as the first (6.3.25). */
const SPLITS = Object.values(STRTAB_BASE_CFG.field('SPLIT').values ?? {});
/** Reserved VMW encodings act as EXACT (6.3.9). */
const VMW_MAX = CR0.field('VMW').values?.IGNORE_4 ?? 4;
const ALL = 0xffffffff;

/** Whether the architecture version lets a closed guard be ignored by hardware (6.3.21 to 6.3.29: until v3.1). */
export const guardsMayLeak = (file: RegisterFile): boolean =>
  file.caps.minor < 2 && file.options.guardedWrites === 'taken';

/** See the module comment. */
export class ControlRegisters implements TranslationRegs {
  readonly cr0: Handshake;
  readonly gbpa: UpdateRegister;
  /** MPAM ids of the SMMU's own accesses. */
  readonly gmpam: UpdateRegister;
  readonly gbpmpam: UpdateRegister;
  readonly #cr1: Cell;
  readonly #cr2: Cell;
  readonly #strtabBase: Cell;
  readonly #strtabCfg: Cell;

  /**
   * @param updated called when a field of CR0 has taken effect
   * @param queuesOff whether every queue besides those of CR0 (ECMDQs) is disabled, which CR1.QUEUE_* waits for
   */
  constructor(
    smmu: string,
    file: RegisterFile,
    watch: Watch,
    updated: (field: string, before: number, after: number) => void,
    queuesOff: () => boolean,
  ) {
    const leaky = guardsMayLeak(file);
    this.cr0 = new Handshake(smmu, file, CR0, CR0ACK, watch, updated);
    this.gbpa = new UpdateRegister(smmu, file, watch, GBPA, leaky);
    this.gmpam = new UpdateRegister(smmu, file, watch, GMPAM, false);
    this.gbpmpam = new UpdateRegister(smmu, file, watch, GBPMPAM, false);
    const whenOff = (bit: number) => () => (leaky || this.cr0.off(bit) ? ALL : 0);
    const queues = CR0.bit('CMDQEN', 'EVENTQEN', 'PRIQEN');
    this.#cr1 = file.attach(CR1, {
      open: () =>
        (leaky || this.cr0.off(SMMUEN) ? TABLE_BITS : 0) |
        (leaky || (this.cr0.off(queues) && queuesOff()) ? QUEUE_BITS : 0),
    });
    this.#cr2 = file.attach(CR2, { open: whenOff(SMMUEN) });
    this.#strtabBase = file.attach(STRTAB_BASE, { open: whenOff(SMMUEN) });
    this.#strtabCfg = file.attach(STRTAB_BASE_CFG, { open: whenOff(SMMUEN) });
  }

  /** The register file is back at its reset values. */
  reset(): void {
    this.cr0.reset();
    for (const register of [this.gbpa, this.gmpam, this.gbpmpam]) register.reset();
  }

  /** Whether a field of CR0 is in force. */
  enabled(bit: number): boolean {
    return (this.cr0.ack & bit) !== 0;
  }

  get SMMUEN(): boolean {
    return (this.cr0.ack & SMMUEN) !== 0;
  }

  get ATSCHK(): boolean {
    return (this.cr0.ack & ATSCHK) !== 0;
  }

  get VMW(): number {
    const bits = CR0.of(this.cr0.ack, 'VMW');
    return bits > VMW_MAX ? 0 : bits;
  }

  get E2H(): boolean {
    return (this.#cr2.lo & E2H) !== 0;
  }

  get RECINVSID(): boolean {
    return (this.#cr2.lo & RECINVSID) !== 0;
  }

  get REC_CFG_ATS(): boolean {
    return (this.#cr2.lo & REC_CFG_ATS) !== 0;
  }

  get PTM(): boolean {
    return (this.#cr2.lo & PTM) !== 0;
  }

  get GBPA(): number {
    return this.gbpa.inForce;
  }

  get GBPMPAM(): number {
    return this.gbpmpam.inForce;
  }

  get CR1(): number {
    return this.#cr1.lo;
  }

  get strtabHi(): number {
    return this.#strtabBase.hi & (STRTAB_ADDR[1] ?? 0);
  }

  get strtabLo(): number {
    return this.#strtabBase.lo & (STRTAB_ADDR[0] ?? 0);
  }

  get twoLevel(): boolean {
    return cfg(this.#strtabCfg, 'FMT') === TWO_LEVEL;
  }

  get SPLIT(): number {
    const split = cfg(this.#strtabCfg, 'SPLIT');
    return SPLITS.includes(split) ? split : (SPLITS[0] ?? 0);
  }

  get LOG2SIZE(): number {
    return cfg(this.#strtabCfg, 'LOG2SIZE');
  }
}

/** Translation asks for these with every transaction. */
const CFG = {
  FMT: STRTAB_BASE_CFG.slot('FMT'),
  SPLIT: STRTAB_BASE_CFG.slot('SPLIT'),
  LOG2SIZE: STRTAB_BASE_CFG.slot('LOG2SIZE'),
} as const;

const cfg = (cell: Cell, field: keyof typeof CFG): number => (cell.lo >>> CFG[field].shift) & CFG[field].mask;

/** GBPA, GMPAM or GBPMPAM with the Update handshake (6.3.14.1, 6.3.42, 6.3.43). */
class UpdateRegister implements Agent {
  readonly name: string;
  /** What traffic meets, without Update. */
  inForce: number;
  readonly #cell: Cell;
  readonly #register: 'GBPA' | 'GMPAM' | 'GBPMPAM';
  readonly #update: number;
  readonly #smmu: string;
  readonly #watch: Watch;
  readonly #leaky: boolean;

  /** @param leaky a write that does not set Update is taken all the same */
  constructor(
    smmu: string,
    file: RegisterFile,
    watch: Watch,
    register: typeof GBPA | typeof GMPAM | typeof GBPMPAM,
    leaky: boolean,
  ) {
    this.#register = register.name as 'GBPA' | 'GMPAM' | 'GBPMPAM';
    this.name = `${smmu}.${register.name.toLowerCase()}`;
    this.#smmu = smmu;
    this.#watch = watch;
    this.#leaky = leaky;
    this.#update = (register as Register).bit('Update');
    this.#cell = file.attach(register as Register, { write: (value) => this.#write(value) });
    this.#cell.lo = (this.#cell.lo & ~this.#update) >>> 0;
    this.inForce = this.#cell.lo;
  }

  /** The cell holds its reset value: that is in force. */
  reset(): void {
    this.inForce = this.#cell.lo;
  }

  #write(value: number): string {
    if ((this.#cell.lo & this.#update) !== 0) return 'update in progress';
    if ((value & this.#update) === 0 && !this.#leaky) return 'Update not set';
    this.#cell.lo = (value | this.#update) >>> 0;
    return '';
  }

  get ready(): boolean {
    return (this.#cell.lo & this.#update) !== 0;
  }

  act(): void {
    const before = this.inForce;
    this.#cell.lo = (this.#cell.lo & ~this.#update) >>> 0;
    this.inForce = this.#cell.lo;
    const register = this.#register;
    this.#watch.observer?.({ kind: 'update', smmu: this.#smmu, register, before, after: this.inForce });
  }
}
