/**
 * NVIDIA Tegra241 CMDQV: command queues beside those of one SMMU, some of them given to virtual machines. There is no
 * public manual; what Linux and QEMU do not tell is an option (config.ts).
 */
import {
  CMDQV_CMDQ_ALLOC,
  CMDQV_CMDQ_ERR_MAP,
  CMDQV_CONFIG,
  CMDQV_PARAM,
  CMDQV_STATUS,
  CMDQV_VINTF_ERR_MAP,
  CMDQV_VINTF_INT_MASK,
  cmdqvFootprint,
  VCMDQ_GERROR,
} from '../../../spec/tegra241.ts';
import type { MmioDevice } from '../address-map.ts';
import type { CommandStream, CommandTarget } from '../commands/context.ts';
import type { Memory } from '../memory.ts';
import type { Watch } from '../observer.ts';
import { writableBits } from '../registers.ts';
import type { Agent } from '../schedule.ts';
import type { VmidHolder } from '../vmid.ts';
import { commandsNaming } from '../vmid-holders.ts';
import { Allocation } from './allocation.ts';
import { type CmdqvConfig, type CmdqvCounts, type CmdqvOptions, cmdqvCounts, DEFAULT_CMDQV_OPTIONS } from './config.ts';
import { type CmdqvContext, copyAt, type Ignored } from './context.ts';
import { Vcmdq, type VcmdqHost } from './vcmdq.ts';
import { Vintf, type VintfHost } from './vintf.ts';
import { type RegisterBlock, Windows } from './windows.ts';

const EN = CMDQV_CONFIG.bit('CMDQV_EN');
const CONS_DRAM_EN = CMDQV_CONFIG.bit('CONS_DRAM_EN');
const CMDQ_ERR = VCMDQ_GERROR.bit('CMDQ_ERR');

/** What a CMDQV is connected to. */
export interface CmdqvPorts {
  readonly memory: Memory;
  readonly watch: Watch;
  /** What commands act on: the SMMU. */
  readonly target: CommandTarget;
  /** The SMMU's own Command queue: a CMD_SYNC there clears ATC time-outs that stopped VCMDQs still hold. */
  readonly commandQueue: CommandStream;
  /** An edge on the interrupt line. */
  edge(): void;
  /** A choice of the schedule among `n`. */
  choose(agent: string, kind: string, n: number): number;
}

/** See the module comment. Offsets are bytes from the CMDQV's base. */
export class Cmdqv implements MmioDevice, RegisterBlock, VcmdqHost, VintfHost {
  readonly smmu: string;
  readonly counts: CmdqvCounts;
  readonly options: CmdqvOptions;
  readonly vcmdqs: readonly Vcmdq[];
  readonly vintfs: readonly Vintf[];
  readonly agents: readonly Agent[];
  readonly #context: CmdqvContext;
  readonly #ports: CmdqvPorts;
  readonly #param: number;
  readonly #configMask: number;
  readonly #allocation: Allocation;
  readonly #windows: Windows;
  #config = 0;
  #enabled = false;
  readonly #intMask = new Uint32Array(CMDQV_VINTF_INT_MASK.info.repeat?.count ?? 0);
  /** Queues in error when the last error was raised; what QEMU's maps show. */
  #atLastError: ReadonlySet<Vcmdq> = new Set();
  /** Enabled queues, by number. */
  #running: Vcmdq[] = [];
  /** The queue that consumed last. */
  #last = -1;
  #move: (() => void) | null = null;

  /** @throws RangeError for parameters that the registers cannot hold */
  constructor(smmu: string, config: CmdqvConfig, ports: CmdqvPorts) {
    this.smmu = smmu;
    this.counts = cmdqvCounts(config.param);
    this.options = { ...DEFAULT_CMDQV_OPTIONS, ...config.options };
    this.#ports = ports;
    this.#param = CMDQV_PARAM.value({ ...config.param });
    const { memory, watch, target } = ports;
    this.#context = { smmu, options: this.options, counts: this.counts, memory, watch, target };
    this.#configMask = writableBits(CMDQV_CONFIG, target.caps)[0] & ~(this.options.consDram ? 0 : CONS_DRAM_EN);
    this.vcmdqs = Array.from({ length: this.counts.vcmdqs }, (_, q) => new Vcmdq(q, this.#context, this));
    this.vintfs = Array.from({ length: this.counts.vintfs }, (_, v) => new Vintf(v, this.#context, this));
    this.#allocation = new Allocation(this.#context, this.vcmdqs, this.vintfs);
    this.#windows = new Windows(this.#context, this.vcmdqs, this.vintfs, this);
    this.agents = [this.#control(), this.#consumer()];
    this.reset();
  }

  /** Bytes of register space that are decoded. */
  get footprint(): number {
    return cmdqvFootprint(this.counts.vintfs);
  }

  /** Power-on reset: every register to its reset value; latched time-outs are gone too. */
  reset(): void {
    for (const queue of this.vcmdqs) queue.reset();
    for (const vintf of this.vintfs) vintf.reset();
    this.#allocation.reset();
    this.#intMask.fill(0);
    this.#atLastError = new Set();
    this.#running = [];
    this.#last = -1;
    this.#config = (this.options.resetConfig & this.#configMask) >>> 0;
    this.#enabled = (this.#config & EN) !== 0;
    this.#move = null;
  }

  /** As {@link reset}, in operation: whoever listens is told what ends. */
  powerLoss(): void {
    for (const queue of this.vcmdqs) {
      if (queue.enabled) queue.announce('disabled');
      if (queue.owner !== null) queue.announce('unmapped');
    }
    for (const vintf of this.vintfs) if (vintf.enabled) vintf.enable(false);
    this.reset();
  }

  // What its parts ask.

  get on(): boolean {
    return this.#enabled && (this.#config & EN) !== 0;
  }

  get consDramEn(): boolean {
    return (this.#config & CONS_DRAM_EN) !== 0;
  }

  inError(queue: Vcmdq): boolean {
    if (this.options.errorMaps === 'at-last-error') return this.#atLastError.has(queue);
    return this.#counts(queue.errors);
  }

  #counts(errors: number): boolean {
    return (this.options.mapBits === 'all' ? errors : errors & CMDQ_ERR) !== 0;
  }

  raised(queue: Vcmdq, bits: number): void {
    if (!this.#counts(bits)) return;
    this.#atLastError = new Set(this.vcmdqs.filter((one) => this.#counts(one.errors)));
    if (queue.owner !== null) this.#interrupt(queue.owner);
  }

  /** Every error is an edge, whether or not one is pending; unless the VINTF is masked. */
  #interrupt(vintf: Vintf): void {
    const masked = ((this.#intMask[vintf.index >>> 5] ?? 0) >>> (vintf.index & 31)) & 1;
    if (masked === 1) return;
    const { smmu } = this;
    this.#ports.watch.observer?.({
      kind: 'interrupt',
      smmu,
      source: 'cmdqv',
      how: 'wired',
      addrHi: 0,
      addrLo: 0,
      data: 0,
      aborted: false,
    });
    this.#ports.edge();
  }

  /** A CMD_SYNC is executed on some queue of the SMMU. */
  synced(stream: CommandStream): void {
    if (stream !== this.#ports.commandQueue) return;
    for (const queue of this.vcmdqs) if (!queue.enabled) queue.atcTimeout = false;
  }

  /** VINTFs and queued commands that name a VMID. A VINTF of the hypervisor's own does not use its VMID. */
  holders(VMID: number): VmidHolder[] {
    const vintfs = this.vintfs.filter((vintf) => vintf.inUse && !vintf.hypOwn && vintf.VMID === VMID);
    const own = this.#running.filter((queue) => queue.owner?.hypOwn === true);
    return [
      ...vintfs.map(({ index }) => ({ kind: 'vintf', what: String(index) }) as const),
      ...own.flatMap((queue) => commandsNaming(VMID, this.#ports.memory, queue)),
    ];
  }

  // What moves by itself.

  /** STATUS bits follow EN bits, one by one: down from the queues, up from the CMDQV. */
  #control(): Agent {
    const cmdqv = this;
    return {
      name: `${this.smmu}.cmdqv`,
      get ready() {
        return cmdqv.#move !== null;
      },
      act() {
        cmdqv.#move?.();
        cmdqv.changed();
      },
    };
  }

  /** Commands of all queues, one at a time, round robin; the schedule may choose another queue. */
  #consumer(): Agent {
    const cmdqv = this;
    const name = `${this.smmu}.vcmdq`;
    return {
      name,
      get ready() {
        // Asked at every moment: no function made for it.
        for (const queue of cmdqv.#running) if (queue.ready) return true;
        return false;
      },
      act() {
        const ready = cmdqv.#running.filter((queue) => queue.ready);
        // -1 if none comes after: then the first.
        const first = Math.max(
          0,
          ready.findIndex((queue) => queue.q > cmdqv.#last),
        );
        const pick = cmdqv.#ports.choose(name, 'queue', ready.length);
        const queue = ready[(first + pick) % ready.length];
        if (queue === undefined) return;
        cmdqv.#last = queue.q;
        queue.act();
      },
    };
  }

  changed(): void {
    this.#running = this.vcmdqs.filter((queue) => queue.enabled);
    this.#move = this.#nextMove();
  }

  #nextMove(): (() => void) | null {
    const stopping = this.#running.find((queue) => !queue.wanted);
    if (stopping !== undefined) return () => this.#stop(stopping);
    const closing = this.vintfs.find((vintf) => vintf.enabled && !vintf.wanted);
    if (closing !== undefined) return () => this.#close(closing);
    const en = (this.#config & EN) !== 0;
    if (en !== this.#enabled)
      return () => {
        this.#enabled = en;
      };
    const opening = this.vintfs.find((vintf) => !vintf.enabled && vintf.wanted);
    if (opening !== undefined) return () => opening.enable(true);
    const starting = this.vcmdqs.find((queue) => !queue.enabled && queue.wanted);
    return starting === undefined ? null : () => starting.start();
  }

  #stop(queue: Vcmdq): void {
    queue.stop();
    // It was unmapped and left running: now nobody owns it.
    if (queue.owner?.slots.get(queue.lvcmdq) !== queue) queue.owner = null;
  }

  #close(vintf: Vintf): void {
    vintf.enable(false);
    if (this.options.vintfDisable === 'reset-queues') for (const queue of vintf.slots.values()) queue.clearPage0();
  }

  // Registers.

  mmioRead32(offset: number): number {
    return this.#windows.read32(offset);
  }

  mmioRead64(offset: number): bigint {
    return this.#windows.read64(offset);
  }

  mmioWrite32(offset: number, value: number): void {
    this.#windows.write32(offset, value);
  }

  mmioWrite64(offset: number, value: bigint): void {
    this.#windows.write64(offset, value);
  }

  readGlobal(offset: number): number | undefined {
    if (offset === CMDQV_CONFIG.offset) return this.#config;
    if (offset === CMDQV_PARAM.offset) return this.#param;
    if (offset === CMDQV_STATUS.offset) return CMDQV_STATUS.value({ CMDQV_ENABLED: this.#enabled ? 1 : 0 });
    const error = copyAt(offset, CMDQV_VINTF_ERR_MAP);
    if (error >= 0)
      return mapOf(
        this.vintfs.map((vintf) => vintf.inError),
        error,
      );
    const mask = copyAt(offset, CMDQV_VINTF_INT_MASK);
    if (mask >= 0) return this.#intMask[mask];
    const queues = copyAt(offset, CMDQV_CMDQ_ERR_MAP);
    if (queues >= 0)
      return mapOf(
        this.vcmdqs.map((queue) => this.inError(queue)),
        queues,
      );
    const q = copyAt(offset, CMDQV_CMDQ_ALLOC, this.counts.vcmdqs);
    return q >= 0 ? this.#allocation.read(q) : undefined;
  }

  writeGlobal(offset: number, value: number): Ignored {
    if (offset === CMDQV_CONFIG.offset) {
      this.#config = (value & this.#configMask) >>> 0;
      this.changed();
      return '';
    }
    const mask = copyAt(offset, CMDQV_VINTF_INT_MASK);
    if (mask >= 0) return this.#writeMask(mask, value >>> 0);
    const q = copyAt(offset, CMDQV_CMDQ_ALLOC, this.counts.vcmdqs);
    if (q >= 0) {
      const ignored = this.#allocation.write(q, value);
      this.changed();
      return ignored;
    }
    return this.readGlobal(offset) === undefined ? 'undefined offset' : 'read-only';
  }

  /** Only bits of VINTFs that exist can be set. */
  #writeMask(word: number, value: number): Ignored {
    const before = this.#intMask[word] ?? 0;
    const exists = mapOf(
      this.vintfs.map(() => true),
      word,
    );
    this.#intMask[word] = (value & exists) >>> 0;
    if (this.options.unmaskInterrupt === 'pulse')
      for (const vintf of this.vintfs)
        if (vintf.index >>> 5 === word && (before >>> (vintf.index & 31)) & 1 && vintf.inError) this.#interrupt(vintf);
    return '';
  }
}

/** Word `word` of a bit map. */
function mapOf(bits: readonly boolean[], word: number): number {
  let map = 0;
  for (let bit = 0; bit < 32; bit++) if (bits[32 * word + bit] === true) map |= 1 << bit;
  return map >>> 0;
}
