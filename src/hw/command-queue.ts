/** The Command queue: fetching, consuming, errors and restart (IHI 0070 4.1, 7.1). */
import { COMMAND_BYTES } from '../../spec/commands.ts';
import type { Words } from '../../spec/layout.ts';
import { CERROR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, GERROR } from '../../spec/registers.ts';
import type { CommandStream, CommandTarget } from './commands/context.ts';
import { execute, isSync } from './commands/index.ts';
import { signalSync } from './commands/sync.ts';
import type { ControlRegisters } from './control-registers.ts';
import type { GlobalErrors } from './gerror.ts';
import type { Memory } from './memory.ts';
import type { Watch } from './observer.ts';
import { attachQueue } from './queue-registers.ts';
import type { RegisterFile } from './registers.ts';
import type { Ring } from './ring.ts';
import type { Agent } from './schedule.ts';

const CMDQEN = CR0.bit('CMDQEN');
const CMDQ_ERR = GERROR.bit('CMDQ_ERR');
const ERR = CMDQ_CONS.slot('ERR');

/** Reads the entry at an index of a ring into `words`. False: external abort. */
export function fetchEntry(memory: Memory, ring: Ring, index: number, words: Words): boolean {
  ring.locate(index);
  for (let i = 0; i < words.length; i += 2) {
    if (!memory.load64(ring.paHi, ring.paLo + 4 * i)) return false;
    words[i] = memory.lo;
    words[i + 1] = memory.hi;
  }
  return true;
}

/** See the module comment. Consumes one command per act. */
export class CommandQueue implements Agent, CommandStream {
  readonly name: string;
  readonly ring: Ring;
  atcTimeout = false;
  readonly pending: Words[] = [];
  readonly #smmu: string;
  readonly #control: ControlRegisters;
  readonly #errors: GlobalErrors;
  readonly #memory: Memory;
  readonly #target: CommandTarget;
  readonly #watch: Watch;
  readonly #words: Words = new Uint32Array(COMMAND_BYTES / 4);

  constructor(
    smmu: string,
    file: RegisterFile,
    control: ControlRegisters,
    errors: GlobalErrors,
    memory: Memory,
    target: CommandTarget,
    watch: Watch,
  ) {
    this.name = `${smmu}.cmdq`;
    this.#smmu = smmu;
    this.#control = control;
    this.#errors = errors;
    this.#memory = memory;
    this.#target = target;
    this.#watch = watch;
    this.ring = attachQueue(file, control, {
      base: CMDQ_BASE,
      prod: CMDQ_PROD,
      cons: CMDQ_CONS,
      entryBytes: COMMAND_BYTES,
      max: file.caps.CMDQS,
      enable: CMDQEN,
      owned: 'cons',
    });
  }

  /** A command can be consumed: enabled, not empty, no error active. Inconsistent indices: no progress (3.5.1). */
  get ready(): boolean {
    const { used, size } = this.ring;
    return used !== 0 && used <= size && this.#control.enabled(CMDQEN) && (this.#errors.active & CMDQ_ERR) === 0;
  }

  act(): void {
    const { ring } = this;
    const words = this.#words;
    const index = ring.cons;
    if (!fetchEntry(this.#memory, ring, index, words)) {
      this.#fail(index, CERROR.CERROR_ABT, '');
      return;
    }
    const { error, rule } = execute(words, this.#target, this);
    if (error !== CERROR.CERROR_NONE) {
      this.#fail(index, error, rule);
      return;
    }
    const wasFull = ring.full;
    ring.cons = ring.next(index);
    this.#announce('command', index, 0, '');
    if (isSync(words)) signalSync(words, this.#target);
    if (wasFull) this.#target.signals.wakeUp();
  }

  /** Invalidations that were consumed and not done are lost with everything else. */
  reset(): void {
    this.pending.length = 0;
    this.atcTimeout = false;
  }

  /** CONS stays on the command; ERR is there before GERROR shows the error (7.1). */
  #fail(index: number, error: number, rule: string): void {
    const { consCell } = this.ring;
    consCell.lo = ((consCell.lo & ~(ERR.mask << ERR.shift)) | (error << ERR.shift)) >>> 0;
    this.#announce('command-error', index, error, rule);
    this.#errors.raise(CMDQ_ERR);
  }

  #announce(kind: 'command' | 'command-error', index: number, error: number, rule: string): void {
    this.#watch.observer?.({ kind, smmu: this.#smmu, queue: 'cmdq', index, words: this.#words, error, rule });
  }
}
