/** Enhanced Command queues and their control pages (IHI 0070 3.5.6, 6.2.5, 6.3.49 to 6.3.51, 6.3.107 to 6.3.109). */
import { COMMAND_BYTES } from '../../spec/commands.ts';
import { IDR6 } from '../../spec/id-registers.ts';
import type { Words } from '../../spec/layout.ts';
import {
  CERROR,
  CMDQ_CONTROL_PAGE_BASE,
  CMDQ_CONTROL_PAGE_CFG,
  CMDQ_CONTROL_PAGE_STATUS,
  ECMDQ_BASE,
  ECMDQ_CONS,
  ECMDQ_PAGE_BYTES,
  ECMDQ_PROD,
  ecmdqStride,
  GERROR,
} from '../../spec/registers.ts';
import { fetchEntry } from './command-queue.ts';
import type { CommandStream, CommandTarget } from './commands/context.ts';
import { execute, isSync } from './commands/index.ts';
import { signalSync } from './commands/sync.ts';
import type { GlobalErrors } from './gerror.ts';
import type { Memory } from './memory.ts';
import type { Watch } from './observer.ts';
import type { Cell, RegisterFile } from './registers.ts';
import { Ring } from './ring.ts';
import type { Agent, Schedule } from './schedule.ts';

const EN = ECMDQ_PROD.bit('EN');
const ERRACK = ECMDQ_PROD.bit('ERRACK');
const ENACK = ECMDQ_CONS.bit('ENACK');
const ERR = ECMDQ_CONS.bit('ERR');
const REASON = ECMDQ_CONS.slot('ERR_REASON');
const RD = ECMDQ_CONS.slot('RD');
const CMDQP_ERR = GERROR.bit('CMDQP_ERR');
const ALL = 0xffffffff;

/** What the queues act on. */
export interface EcmdqPorts {
  readonly memory: Memory;
  readonly errors: GlobalErrors;
  readonly target: CommandTarget;
  readonly schedule: Schedule;
  readonly watch: Watch;
}

/** One queue. It consumes on its own; CMDQ_ERR and CR0.CMDQEN are not its business (3.5.6). */
class Ecmdq implements CommandStream {
  readonly name: string;
  readonly ring: Ring;
  atcTimeout = false;
  readonly pending: Words[] = [];
  readonly #prod: Cell;
  readonly #cons: Cell;

  constructor(name: string, base: Cell, prod: Cell, cons: Cell, max: number, touched: (queue: Ecmdq) => void) {
    this.name = name;
    this.#prod = prod;
    this.#cons = cons;
    this.ring = new Ring(base, prod, cons, COMMAND_BYTES, max);
    const off = (): number => (this.#on || this.#acknowledged ? 0 : ALL);
    const written = (): void => touched(this);
    base.behaviour = { open: off };
    // PROD is read-only while an enable or disable is under way; ENACK and ERR are never software's.
    prod.behaviour = { open: () => (this.#on === this.#acknowledged ? ALL : 0), written };
    cons.behaviour = {
      open: () => off() & ~(ENACK | ERR),
      read: () => (cons.lo & ~RD.mask) | this.ring.cons,
    };
  }

  get #on(): boolean {
    return (this.#prod.lo & EN) !== 0;
  }

  get #acknowledged(): boolean {
    return (this.#cons.lo & ENACK) !== 0;
  }

  get enabled(): boolean {
    return this.#on && this.#acknowledged;
  }

  /** An error is active while ERR and ERRACK differ. */
  get #failed(): boolean {
    return ((this.#cons.lo & ERR) === 0) !== ((this.#prod.lo & ERRACK) === 0);
  }

  get ready(): boolean {
    if (this.#on !== this.#acknowledged) return true;
    return this.enabled && !this.#failed && !this.ring.empty && this.ring.consistent;
  }

  /** Follows EN; else consumes one command into `words`. Returns the error, CERROR_NONE for none. */
  act(words: Words, { memory, target }: EcmdqPorts): { error: number; rule: string } {
    if (this.#on !== this.#acknowledged) {
      this.#cons.lo = (this.#cons.lo ^ ENACK) >>> 0;
      return { error: CERROR.CERROR_NONE, rule: '' };
    }
    const index = this.ring.cons;
    if (!fetchEntry(memory, this.ring, index, words)) return this.#fail(CERROR.CERROR_ABT, '');
    const { error, rule } = execute(words, target, this);
    if (error !== CERROR.CERROR_NONE) return this.#fail(error, rule);
    const wasFull = this.ring.full;
    this.ring.cons = this.ring.next(index);
    if (isSync(words)) signalSync(words, target);
    if (wasFull) target.signals.wakeUp();
    return { error, rule };
  }

  #fail(error: number, rule: string): { error: number; rule: string } {
    const reason = ~(REASON.mask << REASON.shift);
    this.#cons.lo = (((this.#cons.lo & reason) | (error << REASON.shift)) ^ ERR) >>> 0;
    return { error, rule };
  }
}

/** All queues of an SMMU with IDR1.ECMDQ; without, there are none. See the module comment. */
export class EnhancedQueues implements Agent {
  readonly name: string;
  /** Bytes of control pages. */
  readonly bytes: number;
  readonly queues: readonly Ecmdq[];
  readonly #smmu: string;
  readonly #ports: EcmdqPorts;
  /** Queues that software touched and that may have something to do. */
  readonly #active = new Set<Ecmdq>();
  readonly #words: Words = new Uint32Array(COMMAND_BYTES / 4);

  /** @param first byte offset of the first control page from SMMU_BASE */
  constructor(smmu: string, file: RegisterFile, first: number, ports: EcmdqPorts) {
    this.#smmu = smmu;
    this.name = `${smmu}.ecmdq`;
    this.#ports = ports;
    const idr6 = file.caps.registers.IDR6 ?? 0;
    const pages = file.caps.ECMDQ ? 2 ** IDR6.of(idr6, 'CMDQ_CONTROL_PAGE_LOG2NUMP') : 0;
    this.bytes = pages * ECMDQ_PAGE_BYTES;
    const queues: Ecmdq[] = [];
    for (let page = 0; page < pages; page++) {
      const at = first + page * ECMDQ_PAGE_BYTES;
      this.#describe(file, page, at);
      const log2 = IDR6.of(idr6, 'CMDQ_CONTROL_PAGE_LOG2NUMQ');
      for (let i = 0; i < 2 ** log2; i++) queues.push(this.#queue(file, at + i * ecmdqStride(log2), queues.length));
    }
    this.queues = queues;
  }

  /** The registers that say where a control page lies. */
  #describe(file: RegisterFile, page: number, at: number): void {
    const shift = page * (CMDQ_CONTROL_PAGE_BASE.info.repeat?.stride ?? 0);
    const base = file.add(CMDQ_CONTROL_PAGE_BASE, shift);
    const units = at / 2 ** (CMDQ_CONTROL_PAGE_BASE.field('ADDR').address ?? 0);
    const words = CMDQ_CONTROL_PAGE_BASE.encode({ ADDR: units, CMDQGS: '64K', CMDQ_CONTROL_PAGE_PRESET: 1 });
    base.lo = words[0] ?? 0;
    base.hi = words[1] ?? 0;
    file.add(CMDQ_CONTROL_PAGE_CFG, shift).lo = CMDQ_CONTROL_PAGE_CFG.bit('EN');
    file.add(CMDQ_CONTROL_PAGE_STATUS, shift).lo = CMDQ_CONTROL_PAGE_STATUS.bit('ENACK');
  }

  #queue(file: RegisterFile, at: number, index: number): Ecmdq {
    const base = file.add(ECMDQ_BASE, at);
    const prod = file.add(ECMDQ_PROD, at);
    const cons = file.add(ECMDQ_CONS, at);
    // Whatever other bits read after reset, these are 0 (6.3.108, 6.3.109).
    prod.lo = (prod.lo & ~(EN | ERRACK)) >>> 0;
    cons.lo = (cons.lo & ~(ENACK | ERR)) >>> 0;
    const name = `${this.#smmu}.ecmdq${index}`;
    return new Ecmdq(name, base, prod, cons, file.caps.CMDQS, (queue) => this.#active.add(queue));
  }

  /** Every queue is off: what CR1.QUEUE_* waits for. */
  get off(): boolean {
    return this.queues.every((queue) => !queue.enabled && !queue.ready);
  }

  get ready(): boolean {
    if (this.#active.size === 0) return false;
    for (const queue of this.#active) {
      if (queue.ready) return true;
      this.#active.delete(queue);
    }
    return false;
  }

  /** The registers are back at their reset values: every queue is off, and what it had consumed and not done is lost. */
  reset(): void {
    this.#active.clear();
    for (const queue of this.queues) {
      queue.pending.length = 0;
      queue.atcTimeout = false;
    }
  }

  /** One command of one queue; between queues there is no order (3.5.6). */
  act(): void {
    const ready = [...this.#active].filter((queue) => queue.ready);
    const queue = ready[this.#ports.schedule.choose(this.name, 'queue', ready.length)];
    if (queue === undefined) return;
    const enabled = queue.enabled;
    const index = queue.ring.cons;
    const { error, rule } = queue.act(this.#words, this.#ports);
    const kind = error === CERROR.CERROR_NONE ? 'command' : 'command-error';
    if (enabled && queue.enabled)
      this.#ports.watch.observer?.({
        kind,
        smmu: this.#smmu,
        queue: queue.name,
        index,
        words: this.#words,
        error,
        rule,
      });
    if (error !== CERROR.CERROR_NONE) this.#ports.errors.raise(CMDQP_ERR);
  }
}
