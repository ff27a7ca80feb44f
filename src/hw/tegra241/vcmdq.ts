/** A virtual command queue: its registers in both pages, and the execution of its commands. */
import { CMD_SYNC, COMMAND_BYTES, opcodeOf, SYNC_CS } from '../../../spec/commands.ts';
import { slotValue, type Words } from '../../../spec/layout.ts';
import {
  VCMDQ_BASE,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_CONS_INDX_BASE,
  VCMDQ_ERR,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
} from '../../../spec/tegra241.ts';
import { fetchEntry } from '../command-queue.ts';
import type { CommandStream } from '../commands/context.ts';
import { execute, illegal } from '../commands/index.ts';
import { Cell, writableBits } from '../registers.ts';
import { Ring } from '../ring.ts';
import { type CmdqvContext, type Ignored, violation } from './context.ts';
import { confine, notPermitted, permitted, SKIP } from './guest-command.ts';
import type { Vintf } from './vintf.ts';

const EN = VCMDQ_CONFIG.bit('CMDQ_EN');
const CMDQ_ERR = VCMDQ_GERROR.bit('CMDQ_ERR');
const CONS_DRAM_WR_ABT_ERR = VCMDQ_GERROR.bit('CONS_DRAM_WR_ABT_ERR');
const CMDQ_INIT_ERR = VCMDQ_GERROR.bit('CMDQ_INIT_ERR');
const ERR = VCMDQ_CONS.slot('ERR');
const LOG2SIZE = VCMDQ_BASE.slot('LOG2SIZE');
const CS = CMD_SYNC.slot('CS');
/** RD and WR have 20 bits: 19 of index, one of wrap. */
const MAX_LOG2SIZE = VCMDQ_PROD.width('WR') - 1;

/** What a VCMDQ needs of its CMDQV. */
export interface VcmdqHost {
  /** EN, or something it depends on, was written. */
  changed(): void;
  /** Bits of GERROR became active. */
  raised(queue: Vcmdq, bits: number): void;
  /** CMDQV_CONFIG.CONS_DRAM_EN. */
  readonly consDramEn: boolean;
}

const cell = (register: typeof VCMDQ_BASE | typeof VCMDQ_PROD | typeof VCMDQ_CONS, context: CmdqvContext): Cell =>
  new Cell(register, ...writableBits(register, context.target.caps));

/** See the module comment. Consumes one command per {@link act}. */
export class Vcmdq implements CommandStream {
  readonly q: number;
  readonly #context: CmdqvContext;
  readonly #host: VcmdqHost;
  readonly ring: Ring;
  atcTimeout = false;
  readonly pending: Words[] = [];
  /** The VINTF it is mapped to, and as which LVCMDQ. */
  owner: Vintf | null = null;
  lvcmdq = 0;
  /** CONFIG.EN as written. */
  #en = false;
  #armed = false;
  /** BASE was refused; EN has to be written anew. */
  #refused = false;
  /** STATUS.ENABLED: commands are consumed. */
  enabled = false;
  #gerror = 0;
  #gerrorn = 0;
  readonly #consDram: Cell;
  readonly #fetched: Words = new Uint32Array(COMMAND_BYTES / 4);
  readonly #words: Words = new Uint32Array(COMMAND_BYTES / 4);
  #rule = '';
  /** Mappings so far, and in which of them an ATC time-out was latched: one VINTF may serve one VM after another. */
  #mappings = 0;
  #timeoutMapping = 0;

  constructor(q: number, context: CmdqvContext, host: VcmdqHost) {
    this.q = q;
    this.#context = context;
    this.#host = host;
    const base = cell(VCMDQ_BASE, context);
    const max = Math.min(context.target.caps.CMDQS, MAX_LOG2SIZE);
    this.ring = new Ring(base, cell(VCMDQ_PROD, context), cell(VCMDQ_CONS, context), COMMAND_BYTES, max);
    this.#consDram = new Cell(VCMDQ_CONS_INDX_BASE, ...writableBits(VCMDQ_CONS_INDX_BASE, context.target.caps));
  }

  /** 'vcmdq1.0' for LVCMDQ 0 of VINTF 1; 'vcmdq5' while it is not mapped. */
  get name(): string {
    return this.owner === null ? `vcmdq${this.q}` : `vcmdq${this.owner.index}.${this.lvcmdq}`;
  }

  /** Back to the reset values. */
  reset(): void {
    this.owner = null;
    this.lvcmdq = 0;
    this.enabled = false;
    this.atcTimeout = false;
    this.pending.length = 0;
    for (const one of [this.ring.base, this.#consDram]) {
      one.lo = 0;
      one.hi = 0;
    }
    this.clearPage0();
  }

  /** Control registers back to the reset values. */
  clearPage0(): void {
    this.ring.prodCell.lo = 0;
    this.ring.consCell.lo = 0;
    this.#en = false;
    this.#armed = false;
    this.#refused = false;
    this.#gerror = 0;
    this.#gerrorn = 0;
  }

  /** Active errors: the bits in which GERROR and GERRORN differ. */
  get errors(): number {
    const toggled = (this.#gerror ^ this.#gerrorn) >>> 0;
    return this.#level ? ((toggled & ~CMDQ_INIT_ERR) | (this.#gerror & CMDQ_INIT_ERR)) >>> 0 : toggled;
  }

  /** CMDQ_INIT_ERR is a level: GERRORN does not acknowledge it. */
  get #level(): boolean {
    return this.#context.options.initError === 'level';
  }

  /** The VINTF is enabled and stays so; the CMDQV with it. */
  get #ownerOn(): boolean {
    return this.owner?.enabled === true && this.owner.wanted;
  }

  /** EN as written, and everything above it enabled: STATUS follows. */
  get wanted(): boolean {
    return this.#en && this.#armed && !this.#refused && this.#ownerOn;
  }

  /** A command can be consumed. */
  get ready(): boolean {
    return this.enabled && (this.errors & CMDQ_ERR) === 0 && !this.ring.empty && this.ring.consistent;
  }

  /** Becomes LVCMDQ `lvcmdq` of a VINTF. */
  map(owner: Vintf, lvcmdq: number): void {
    this.owner = owner;
    this.lvcmdq = lvcmdq;
    this.#mappings++;
    this.announce('mapped');
  }

  /** Starts, if BASE is good. */
  start(): void {
    const problem = this.#baseProblem();
    const held = this.#level && (this.errors & CMDQ_INIT_ERR) !== 0;
    if (problem === '' && !held) {
      this.#started();
      return;
    }
    this.#refused = true;
    if (problem !== '') this.#raise(CMDQ_INIT_ERR);
  }

  #started(): void {
    if (this.atcTimeout && this.#timeoutMapping !== this.#mappings)
      violation(this.#context, 'CMDQV-10', `${this.name} enabled with an ATC time-out of its last owner`);
    this.enabled = true;
    this.announce('enabled');
  }

  /** Stops between two commands. CONS stays; nothing that was consumed is still under way when STATUS says so. */
  stop(): void {
    this.#context.target.settle(this);
    this.enabled = false;
    this.announce('disabled');
  }

  announce(act: 'mapped' | 'unmapped' | 'enabled' | 'disabled'): void {
    const { smmu, watch } = this.#context;
    const vintf = this.owner?.index ?? -1;
    watch.observer?.({ kind: 'vcmdq', smmu, vcmdq: this.q, vintf, lvcmdq: this.lvcmdq, act });
  }

  /** Why BASE cannot be used, or ''. */
  #baseProblem(): string {
    const { base } = this.ring;
    const log2 = slotValue(Uint32Array.of(base.lo, base.hi), LOG2SIZE);
    if (log2 === 0) return 'LOG2SIZE is 0';
    if (log2 > Math.min(this.#context.target.caps.CMDQS, MAX_LOG2SIZE)) return `LOG2SIZE ${log2} is too large`;
    const address = (BigInt(base.hi >>> 0) << 32n) | BigInt((base.lo & ~LOG2SIZE.mask) >>> 0);
    const bytes = BigInt(COMMAND_BYTES) << BigInt(log2);
    return address % bytes === 0n ? '' : 'ADDR is not aligned to the size';
  }

  #raise(bits: number): void {
    const fresh = (bits & ~this.errors) >>> 0;
    if (fresh === 0) return;
    this.#gerror = (this.#gerror ^ fresh) >>> 0;
    this.#host.raised(this, fresh);
  }

  /** Reads a page 0 register; undefined: there is none. */
  read0(offset: number): number | undefined {
    switch (offset) {
      case VCMDQ_CONS.offset:
        return this.ring.consCell.lo;
      case VCMDQ_PROD.offset:
        return this.ring.prodCell.lo;
      case VCMDQ_CONFIG.offset:
        return this.#en ? EN : 0;
      case VCMDQ_STATUS.offset:
        return VCMDQ_STATUS.value({ ENABLED: this.enabled ? 1 : 0 });
      case VCMDQ_GERROR.offset:
        return this.#gerror;
      case VCMDQ_GERRORN.offset:
        return this.#gerrorn;
      default:
        return undefined;
    }
  }

  /** Writes a page 0 register. logical: through the window of its VINTF, which a VM may have. */
  write0(offset: number, value: number, logical: boolean): Ignored {
    switch (offset) {
      case VCMDQ_CONS.offset:
        return this.#writeCons(value, logical && this.owner?.hypOwn === false);
      case VCMDQ_PROD.offset:
        this.ring.prodCell.lo = (value & this.ring.prodCell.writableLo) >>> 0;
        return '';
      case VCMDQ_CONFIG.offset:
        this.#writeConfig((value & EN) !== 0);
        return '';
      case VCMDQ_GERRORN.offset:
        this.#acknowledge(value);
        return '';
      default:
        return this.read0(offset) === undefined ? 'undefined offset' : 'read-only';
    }
  }

  #writeCons(value: number, maybeVm: boolean): Ignored {
    const { consCell } = this.ring;
    if (this.enabled) {
      violation(this.#context, 'CMDQV-CONS', `${this.name}: CONS written while enabled`, maybeVm);
      if (this.#context.options.consWhileEnabled === 'ignored') return 'enabled';
    }
    consCell.lo = (value & consCell.writableLo) >>> 0;
    return '';
  }

  #writeConfig(en: boolean): void {
    if (en && !this.#en) this.#armed = this.#ownerOn || this.#context.options.earlyEnable === 'follows';
    this.#en = en;
    if (!en) this.#refused = false;
    this.#host.changed();
  }

  /** Execution goes on at CONS when the command error is acknowledged; CONS.ERR is 0 again. */
  #acknowledge(value: number): void {
    const before = this.errors;
    this.#gerrorn = (value & VCMDQ_GERRORN.bit('CMDQ_ERR', 'CONS_DRAM_WR_ABT_ERR', 'CMDQ_INIT_ERR')) >>> 0;
    if ((before & ~this.errors & CMDQ_ERR) !== 0) this.#setErr(VCMDQ_ERR.CERROR_NONE);
  }

  #setErr(code: number): void {
    const { consCell } = this.ring;
    consCell.lo = ((consCell.lo & ~(ERR.mask << ERR.shift)) | (code << ERR.shift)) >>> 0;
  }

  /** The page 1 register at an offset, and which half; undefined: there is none. */
  #page1(offset: number): { readonly cell: Cell; readonly high: boolean } | undefined {
    const half = VCMDQ_BASE.bytes / 2;
    for (const one of [this.ring.base, this.#consDram])
      if (offset === one.register.offset || offset === one.register.offset + half)
        return { cell: one, high: offset !== one.register.offset };
    return undefined;
  }

  /** Reads half of a page 1 register; undefined: there is none. */
  read1(offset: number): number | undefined {
    const place = this.#page1(offset);
    if (place === undefined) return undefined;
    return place.high ? place.cell.hi : place.cell.lo;
  }

  /** Writes half of a page 1 register. */
  write1(offset: number, value: number): Ignored {
    const place = this.#page1(offset);
    if (place === undefined) return 'undefined offset';
    if (this.enabled) {
      violation(this.#context, 'CMDQV-BASE', `${this.name}: ${place.cell.register.name} written while enabled`);
      if (this.#context.options.baseWhileEnabled === 'ignored') return 'enabled';
    }
    if (place.high) place.cell.hi = (value & place.cell.writableHi) >>> 0;
    else place.cell.lo = (value & place.cell.writableLo) >>> 0;
    this.#levelInitError(place.cell);
    return '';
  }

  /** With initError 'level', a good BASE ends the error, and a queue that waits for it starts. */
  #levelInitError(written: Cell): void {
    if (!this.#level || written !== this.ring.base) return;
    if ((this.errors & CMDQ_INIT_ERR) === 0 || this.#baseProblem() !== '') return;
    this.#gerror = (this.#gerror ^ CMDQ_INIT_ERR) >>> 0;
    this.#refused = false;
    this.#host.changed();
  }

  /** Consumes one command, or stops at it. */
  act(): void {
    const { ring } = this;
    const index = ring.cons;
    if (!fetchEntry(this.#context.memory, ring, index, this.#fetched)) {
      this.#fetched.fill(0);
      this.#words.fill(0);
      this.#fail(index, VCMDQ_ERR.CERROR_ABT);
      return;
    }
    this.#words.set(this.#fetched);
    const error = this.#run();
    if (error !== VCMDQ_ERR.CERROR_NONE) {
      this.#fail(index, error);
      return;
    }
    ring.cons = ring.next(index);
    this.#writeBack();
    this.#announceCommand('command', index, 0);
  }

  /** Executes {@link #words} as the owner may: confined, unless it is the hypervisor's own. */
  #run(): number {
    const words = this.#words;
    const { target, options } = this.#context;
    this.#rule = '';
    if (this.owner === null) return VCMDQ_ERR.CERROR_ILL;
    if (!this.owner.hypOwn) {
      if (!permitted(words)) return this.#skipped(notPermitted(words, options));
      this.#rule = illegal(words, target);
      if (this.#rule !== '') return VCMDQ_ERR.CERROR_ILL;
      const confined = confine(words, this.owner, options);
      if (confined !== VCMDQ_ERR.CERROR_NONE) return this.#skipped(confined);
    }
    if (opcodeOf(words) === CMD_SYNC.opcode && options.syncSignal === 'ill') {
      const cs = slotValue(words, CS);
      if (cs === SYNC_CS.SIG_IRQ || cs === SYNC_CS.SIG_SEV) return VCMDQ_ERR.CERROR_ILL;
    }
    const { error, rule } = execute(words, target, this);
    this.#rule = rule;
    if (this.atcTimeout) this.#timeoutMapping = this.#mappings;
    return error;
  }

  #skipped = (verdict: number): number => (verdict === SKIP ? VCMDQ_ERR.CERROR_NONE : verdict);

  /** CONS stays on the command; ERR is there before GERROR shows the error. */
  #fail(index: number, error: number): void {
    this.#setErr(error);
    this.#writeBack();
    this.#announceCommand('command-error', index, error);
    this.#raise(CMDQ_ERR);
  }

  /** CONS goes to memory too, if that is on and the queue has an address for it. */
  #writeBack(): void {
    const { lo, hi } = this.#consDram;
    if (!this.#host.consDramEn || (lo === 0 && hi === 0)) return;
    if (!this.#context.memory.store32(hi, lo, this.ring.consCell.lo)) this.#raise(CONS_DRAM_WR_ABT_ERR);
  }

  #announceCommand(kind: 'command' | 'command-error', index: number, error: number): void {
    const { smmu, watch } = this.#context;
    watch.observer?.({
      kind,
      smmu,
      queue: this.name,
      index,
      words: this.#words,
      fetched: this.#fetched,
      error,
      rule: this.#rule,
    });
  }
}
