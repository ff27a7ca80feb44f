/** Address translation operations: GATOS and VATOS (IHI 0070 chapter 9, 6.3.37 to 6.3.40, 6.3.44, 6.3.99 to 6.3.102). */
import type { Caps } from '../../spec/caps.ts';
import type { Register } from '../../spec/layout.ts';
import {
  ATOS_FAULTCODE,
  ATOS_PAR_FAULT,
  CR0,
  GATOS_ADDR,
  GATOS_CTRL,
  GATOS_PAR,
  GATOS_SID,
  VATOS_ADDR,
  VATOS_CTRL,
  VATOS_PAR,
  VATOS_SEL,
  VATOS_SID,
} from '../../spec/registers.ts';
import { type AtosAnswer, AtosTranslation } from './atos-translation.ts';
import type { ControlRegisters } from './control-registers.ts';
import type { Memory } from './memory.ts';
import type { Cell, RegisterFile } from './registers.ts';
import type { Agent } from './schedule.ts';
import { Transaction } from './transaction.ts';

const SMMUEN = CR0.bit('SMMUEN');
const RUN = GATOS_CTRL.bit('RUN');
const TYPE = GATOS_ADDR.fields.TYPE.values;
const ALL = 0xffffffff;
/** log2 of the size that PAR tells without Size. */
const PAGE_LOG2 = 12;

interface AtosRegisters {
  readonly ctrl: Register;
  readonly sid: Register;
  readonly addr: Register;
  readonly par: Register;
}

const GLOBAL: AtosRegisters = { ctrl: GATOS_CTRL, sid: GATOS_SID, addr: GATOS_ADDR, par: GATOS_PAR };
const VIRTUAL: AtosRegisters = { ctrl: VATOS_CTRL, sid: VATOS_SID, addr: VATOS_ADDR, par: VATOS_PAR };

/** One set of registers. See the module comment. */
export class AddressTranslation implements Agent {
  readonly name: string;
  readonly #caps: Caps;
  readonly #control: ControlRegisters;
  readonly #translation: AtosTranslation;
  readonly #ctrl: Cell;
  readonly #sid: Cell;
  readonly #addr: Cell;
  readonly #par: Cell;
  /** VATOS_SEL; null for GATOS. */
  readonly #sel: Cell | null;
  readonly #transaction = new Transaction();

  /** @param vatos offset of the VATOS page, or -1 for the global registers */
  constructor(smmu: string, file: RegisterFile, control: ControlRegisters, memory: Memory, vatos: number) {
    this.name = `${smmu}.${vatos < 0 ? 'gatos' : 'vatos'}`;
    this.#caps = file.caps;
    this.#control = control;
    this.#translation = new AtosTranslation(memory, file.caps, control, file.options);
    const { ctrl, sid, addr, par } = vatos < 0 ? GLOBAL : VIRTUAL;
    const place = (register: Register): Cell => (vatos < 0 ? file.cell(register) : file.add(register, vatos));
    const open = (): number => (this.ready ? 0 : ALL);
    this.#ctrl = place(ctrl);
    this.#ctrl.lo = 0;
    this.#ctrl.behaviour = { write: (value) => this.#start(value) };
    this.#sid = place(sid);
    this.#sid.behaviour = { open };
    this.#addr = place(addr);
    this.#addr.behaviour = { open };
    this.#par = place(par);
    this.#sel = vatos < 0 ? null : file.attach(VATOS_SEL, { open });
  }

  /** RUN is taken only with translation on and staying on (6.3.37). */
  #start(value: number): string {
    if ((value & RUN) === 0) return 'RUN not set';
    if (this.ready) return 'running';
    if ((this.#control.cr0.request & this.#control.cr0.ack & SMMUEN) === 0) return 'SMMUEN is 0';
    this.#ctrl.lo = RUN;
    return '';
  }

  get ready(): boolean {
    return (this.#ctrl.lo & RUN) !== 0;
  }

  /** Translates and leaves the result in PAR. */
  act(): void {
    this.#finish(this.#translate());
  }

  /** SMMUEN went to 0 while it ran (6.3.9.6). */
  cancel(): void {
    if (this.ready) this.#finish({ code: ATOS_FAULTCODE.INTERNAL_ERR });
  }

  #finish(answer: AtosAnswer): void {
    const words = 'code' in answer ? this.#fault(answer) : this.#success(answer);
    this.#par.lo = words[0] ?? 0;
    this.#par.hi = words[1] ?? 0;
    this.#ctrl.lo = 0;
  }

  #fault({ code, reason = 'NONE', address = 0n }: Extract<AtosAnswer, { code: number }>): Uint32Array {
    const FADDR = this.#sel === null ? (address >> BigInt(PAGE_LOG2)) & 0xfffffffffffn : 0n;
    return ATOS_PAR_FAULT.encode({ FAULT: 1, FAULTCODE: code, REASON: reason, FADDR });
  }

  #success({ attributes, SH, address, sizeLog2 }: Extract<AtosAnswer, { sizeLog2: number }>): Uint32Array {
    const large = sizeLog2 > PAGE_LOG2;
    const base = (address >> BigInt(large ? sizeLog2 : PAGE_LOG2)) << BigInt(large ? sizeLog2 : PAGE_LOG2);
    // The lowest set bit of ADDR tells the size: bit N for 2^(N+1) bytes (6.3.40).
    const marked = large ? base | (1n << BigInt(sizeLog2 - 1)) : base;
    const ADDR = (marked >> BigInt(PAGE_LOG2)) & 0xfffffffffffn;
    return GATOS_PAR.encode({ ATTR: attributes, SH, Size: Number(large), ADDR });
  }

  #translate(): AtosAnswer {
    const sid = Uint32Array.of(this.#sid.lo, this.#sid.hi);
    const addr = Uint32Array.of(this.#addr.lo, this.#addr.hi);
    const type = GATOS_ADDR.num(addr, 'TYPE');
    const t = this.#transaction;
    t.StreamID = GATOS_SID.num(sid, 'STREAMID');
    t.SSV = GATOS_SID.num(sid, 'SSID_VALID') === 1;
    t.SubstreamID = GATOS_SID.num(sid, 'SUBSTREAMID');
    const input = GATOS_ADDR.address(addr, 'ADDR');
    t.addrHi = Number(input >> 32n);
    t.addrLo = Number(input & 0xffffffffn);
    t.isWrite = GATOS_ADDR.num(addr, 'RnW') === 0;
    t.PnU = GATOS_ADDR.num(addr, 'PnU') === 1;
    t.InD = GATOS_ADDR.num(addr, 'InD') === 1;
    if (this.#invalid(type, t.SSV)) return { code: ATOS_FAULTCODE.INV_REQ };
    const vmid = this.#sel === null ? -1 : VATOS_SEL.of(this.#sel.lo, 'VMID');
    return this.#translation.translate(t, type, vmid, GATOS_ADDR.num(addr, 'HTTUI') === 1);
  }

  /** What no stream could answer (9.1.2). */
  #invalid(type: number, SSV: boolean): boolean {
    const { S1P, S2P } = this.#caps;
    const virtual = this.#sel !== null;
    if (type === TYPE.STAGE1) return !S1P;
    if (type === TYPE.STAGE2) return !S2P || virtual || SSV;
    return type !== TYPE.BOTH || virtual || !S1P || !S2P;
  }
}
