import {
  CERROR,
  CMD_SYNC,
  CMDQ_CONS,
  COMMAND_BYTES,
  commandOf,
  opcodeOf,
  toQwords,
  type Words,
} from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';

const RD = CMDQ_CONS.slot('RD');

/** How a CMD_SYNC signals: nothing (a Tegra VCMDQ), an event, or a write of zero over its own slot (MSIPOLL). */
export type SyncSignal = 'SIG_NONE' | 'SIG_SEV' | 'SIG_IRQ';

/** Where commands go: the SMMU's own queue or a companion's (`struct arm_smmu_cmdq`). */
export interface CommandSink {
  readonly name: string;
  /** Whether the queue takes this command (`arm_smmu_cmdq_supports_cmd`). */
  supports(command: Words): boolean;
  /**
   * Inserts a list, and a CMD_SYNC after it if asked, as one piece and in order. With the CMD_SYNC, waits for it.
   * False: timed out (ETIMEDOUT in the kernel); the commands stay queued, or wait to be sent before the next list.
   */
  issue(commands: readonly Words[], sync: boolean): boolean;
  /** No CMD_SYNC was lost since the last one that completed: what was issued before it is done. */
  readonly quiet: boolean;
  /** CMD_ATC_INV time-outs seen so far (CERROR_ATC_INV_SYNC). */
  readonly atcTimeouts: number;
}

/** What a queue is made of. */
export interface CommandQueueSetup {
  readonly name: string;
  /** Physical address of the ring. */
  readonly base: Pa;
  /** log2 of the number of entries. */
  readonly log2size: number;
  /** Physical addresses of PROD and CONS. */
  readonly prodReg: Pa;
  readonly consReg: Pa;
  readonly signal: SyncSignal;
  /** Commands the queue does not take; default: it takes all. */
  readonly supports?: (command: Words) => boolean;
  /** Called when a CMD_SYNC completed. */
  readonly onQuiet?: () => void;
}

/** Lowest address bit in MSIAddress, and the piece of the field that begins with it. */
const MSI_SHIFT = CMD_SYNC.field('MSIAddress').address ?? 0;
const [MSI_LOW = CMD_SYNC.slot('Opcode')] = CMD_SYNC.parts('MSIAddress');

const ERROR_TEXT: Readonly<Record<number, string>> = {
  [CERROR.CERROR_NONE]: 'No error',
  [CERROR.CERROR_ILL]: 'Illegal command',
  [CERROR.CERROR_ABT]: 'Abort on command fetch',
  [CERROR.CERROR_ATC_INV_SYNC]: 'ATC invalidate timeout',
};

/** Outer and inner shareability and attributes of a CMD_SYNC's MSI: normal, write-back (kernel: MSH=ISH, OIWB). */
const SYNC_ATTRIBUTES = { MSH: 'ISH', MSIAttr: 'OWB_IWB' } as const;

/** No index: the queue stayed full. */
const TIMED_OUT = -1;

/**
 * A ring of commands (`struct arm_smmu_cmdq`, `arm_smmu_cmdq_issue_cmdlist`). One CPU here, so lists never interleave.
 */
export class CommandQueue implements CommandSink {
  readonly name: string;
  readonly #kernel: Kernel;
  readonly #setup: CommandQueueSetup;
  readonly #entries: number;
  /** Index and wrap bit. */
  readonly #mask: number;
  readonly #baseHi: number;
  readonly #baseLo: number;
  readonly #sync: Words;
  /** A CMD_SYNC that writes over slot 0. */
  readonly #msiSync: Words;
  #prod = 0;
  /** The last CONS read: polled again only when the ring looks full. */
  #cons = 0;
  /** What did not fit before a time-out: it goes first, so that a later CMD_SYNC covers it. */
  #backlog: Words[] = [];
  #lostSync = false;
  /** Commands are dropped: the SMMU is suspended, and will be invalidated as a whole before it goes on. */
  #stopped = false;
  /** What was dropped or lost is not made good yet. */
  #owing = false;
  #atcTimeouts = 0;

  constructor(kernel: Kernel, setup: CommandQueueSetup) {
    this.#kernel = kernel;
    this.#setup = setup;
    this.name = setup.name;
    this.#entries = 2 ** setup.log2size;
    this.#mask = 2 * this.#entries - 1;
    this.#baseHi = Number(setup.base >> 32n);
    this.#baseLo = Number(setup.base & 0xffff_ffffn);
    this.#sync = CMD_SYNC.encode({ CS: setup.signal === 'SIG_NONE' ? 'SIG_NONE' : 'SIG_SEV', ...SYNC_ATTRIBUTES });
    const MSIAddress = setup.base >> BigInt(MSI_SHIFT);
    this.#msiSync = CMD_SYNC.encode({ CS: 'SIG_IRQ', ...SYNC_ATTRIBUTES, MSIAddress });
  }

  get base(): Pa {
    return this.#setup.base;
  }

  get log2size(): number {
    return this.#setup.log2size;
  }

  get quiet(): boolean {
    return !this.#lostSync && !this.#owing;
  }

  get atcTimeouts(): number {
    return this.#atcTimeouts;
  }

  /** PROD as written last, wrap bit included. */
  get prod(): number {
    return this.#prod;
  }

  supports(command: Words): boolean {
    return this.#setup.supports?.(command) ?? true;
  }

  /**
   * Both indexes back to 0: the queue's registers were rewritten. Commands that it still held are gone with them, so no
   * CMD_SYNC makes good what was lost, before {@link settled}.
   */
  restart(): void {
    this.#prod = 0;
    this.#cons = 0;
    this.#backlog = [];
    this.#stopped = false;
    this.#owing = true;
  }

  /**
   * Nothing is sent any more: the SMMU is about to be switched off. Lists count as done, because whatever they
   * invalidate is invalidated before the SMMU is on again; what was given up waits until then ({@link quiet}).
   */
  stop(): void {
    this.#stopped = true;
    this.#owing = true;
  }

  /**
   * Since {@link restart} everything that the SMMU caches was invalidated, or told to be.
   * @param done its CMD_SYNCs have completed; otherwise the next one of this queue makes it good
   */
  settled(done: boolean): void {
    this.#owing = false;
    if (!done) return;
    this.#lostSync = false;
    this.#setup.onQuiet?.();
  }

  issue(commands: readonly Words[], sync: boolean): boolean {
    if (this.#stopped) return true;
    let list = commands;
    if (this.#backlog.length > 0) {
      const backlog = this.#backlog;
      this.#backlog = [];
      if (this.#send(backlog, false) === TIMED_OUT) return this.#defer([...backlog, ...commands], sync);
    }
    // Batches hold 64 at most; a longer list is cut so that it fits a small ring.
    while (list.length > this.#entries - 1) {
      if (this.#send(list.slice(0, this.#entries - 1), false) === TIMED_OUT) return this.#defer(list, sync);
      list = list.slice(this.#entries - 1);
    }
    const end = this.#send(list, sync);
    if (end === TIMED_OUT) return this.#defer(list, sync);
    return sync ? this.#waitForSync(end) : true;
  }

  #defer(commands: readonly Words[], sync: boolean): boolean {
    this.#backlog.push(...commands);
    this.#lostSync = true;
    this.#kernel.log('err', `${this.name}: CMDQ timeout: no space for ${commands.length + (sync ? 1 : 0)} commands`);
    return false;
  }

  /** @returns PROD after the list, which others may have moved on since; or {@link TIMED_OUT} */
  #send(commands: readonly Words[], sync: boolean): number {
    const n = commands.length + (sync ? 1 : 0);
    if (n === 0) return this.#prod;
    if (!this.#room(n) && !this.#kernel.poll('cmdq:space', () => this.#readCons() && this.#room(n))) return TIMED_OUT;
    for (const command of commands) this.#put(command);
    if (sync) this.#put(this.#syncCommand());
    // Entries, and the structures they are about, before the index that makes hardware read them.
    const end = this.#prod;
    this.#kernel.dmaWmb('cmdq:entries');
    this.#kernel.write32Relaxed('cmdq:prod', this.#setup.prodReg, this.#prod);
    return end;
  }

  /** This queue's CMD_SYNC for the next slot (`arm_smmu_cmdq_build_sync_cmd`). */
  #syncCommand(): Words {
    if (this.#setup.signal !== 'SIG_IRQ') return this.#sync;
    const command = this.#msiSync.slice();
    command[MSI_LOW.word] =
      ((command[MSI_LOW.word] ?? 0) | ((this.#offset(this.#prod) >>> MSI_SHIFT) << MSI_LOW.shift)) >>> 0;
    return command;
  }

  #slot(index: number): Pa {
    return this.#setup.base + BigInt(this.#offset(index));
  }

  #offset(index: number): number {
    return (index & (this.#entries - 1)) * COMMAND_BYTES;
  }

  #put(command: Words): void {
    // The ring is aligned to its size: an entry's address is the base with other low bits.
    const at = (this.#baseLo + this.#offset(this.#prod)) >>> 0;
    const { bus } = this.#kernel;
    for (let i = 0; i < COMMAND_BYTES / 4; i += 2)
      bus.storePair(this.#baseHi, at + 4 * i, command[i + 1] ?? 0, command[i] ?? 0);
    this.#prod = (this.#prod + 1) & this.#mask;
  }

  #outstanding(): number {
    return (this.#prod - this.#cons) & this.#mask;
  }

  #room(n: number): boolean {
    return this.#entries - this.#outstanding() >= n;
  }

  /** True, so that it chains in conditions. */
  #readCons(): true {
    const cons = this.#kernel.read32('cmdq:cons', this.#setup.consReg);
    this.#cons = (cons >>> RD.shift) & RD.mask & this.#mask;
    return true;
  }

  /** Waits for the CMD_SYNC that ends at PROD index `target`. */
  #waitForSync(target: number): boolean {
    const slotLo = (this.#baseLo + this.#offset(target - 1)) >>> 0;
    const { bus } = this.#kernel;
    const msi = this.#setup.signal === 'SIG_IRQ';
    const past = (): boolean => this.#outstanding() <= ((this.#prod - target) & this.#mask);
    const cleared = (): boolean => {
      bus.loadPair(this.#baseHi, slotLo);
      return bus.pairLo === 0;
    };
    const done = this.#kernel.poll('cmdq:sync', msi ? cleared : () => this.#readCons() && past());
    if (!done) {
      this.#lostSync = true;
      this.#kernel.log('err', `${this.name}: CMD_SYNC timeout at 0x${target.toString(16)}`);
      return false;
    }
    if (msi) this.#cons = target;
    this.#lostSync = false;
    if (!this.#owing) this.#setup.onQuiet?.();
    return true;
  }

  /**
   * Deals with a queue error (`__arm_smmu_cmdq_skip_err`). An illegal command becomes a CMD_SYNC; an aborted fetch and
   * an ATC time-out are left: hardware goes on by itself once the error is acknowledged.
   */
  skipError(): void {
    const cons = this.#kernel.read32('cmdq:cons-error', this.#setup.consReg);
    const code = CMDQ_CONS.of(cons, 'ERR');
    const at = CMDQ_CONS.of(cons, 'RD') & this.#mask;
    this.#kernel.log(
      'err',
      `${this.name}: CMDQ error (cons 0x${cons.toString(16).padStart(8, '0')}): ${ERROR_TEXT[code] ?? 'Unknown'}`,
    );
    if (code === CERROR.CERROR_NONE || code === CERROR.CERROR_ABT) return;
    if (code === CERROR.CERROR_ATC_INV_SYNC) {
      this.#atcTimeouts++;
      return;
    }
    this.#replaceBySync(at);
  }

  #replaceBySync(at: number): void {
    const slot = this.#slot(at);
    const { bus } = this.#kernel;
    const bad = new Uint32Array(COMMAND_BYTES / 4).map((_, i) => bus.load32(slot + BigInt(4 * i)));
    const name = commandOf(bad)?.name ?? `opcode 0x${opcodeOf(bad).toString(16)}`;
    this.#kernel.log(
      'err',
      `${this.name}: skipping command in error state: ${name} ${toQwords(bad).map(hex).join(' ')}`,
    );
    for (const [i, qword] of toQwords(this.#sync).entries()) bus.store64(slot + BigInt(8 * i), qword);
  }
}

const hex = (qword: bigint): string => `0x${qword.toString(16).padStart(16, '0')}`;
