/** One SMMUv3: its Non-secure programming interface put together (IHI 0070 chapters 3, 6, 7). */
import { type Caps, capsOf } from '../../spec/caps.ts';
import { EVENT_BYTES } from '../../spec/events.ts';
import { IDR2 } from '../../spec/id-registers.ts';
import type { Words } from '../../spec/layout.ts';
import { GERROR, OPTIONAL_PAGES, PAGE_BYTES, vatosPage } from '../../spec/registers.ts';
import { AddressTranslation } from './atos.ts';
import { CommandQueue } from './command-queue.ts';
import type { CommandStream, CommandTarget, EndpointPort } from './commands/context.ts';
import { perform } from './commands/index.ts';
import { PendingInvalidations } from './commands/pending.ts';
import { DEFAULT_OPTIONS, ID_REGISTERS, type IdRegisters, type SmmuConfig, type SmmuOptions } from './config.ts';
import { checkedIds } from './config-check.ts';
import { ControlRegisters } from './control-registers.ts';
import { EnhancedQueues } from './ecmdq.ts';
import { mayMerge } from './event-merge.ts';
import { EventQueue } from './event-queue.ts';
import { fillEvent } from './event-record.ts';
import { C_BAD_STREAMID } from './faults.ts';
import { GlobalErrors } from './gerror.ts';
import { type InterruptPort, Interrupts } from './interrupts.ts';
import type { Memory } from './memory.ts';
import type { Watch } from './observer.ts';
import { type PageRequest, PriQueue } from './pri-queue.ts';
import { RegisterFile } from './registers.ts';
import type { Agent, Schedule } from './schedule.ts';
import { type StallClient, Stalls } from './stall.ts';
import { Outcome, Transaction } from './transaction.ts';
import type { TranslationContext, TranslationUnit } from './translation-unit.ts';
import type { VmidHolder } from './vmid.ts';
import { commandsNaming, stesNaming } from './vmid-holders.ts';

const MSI_GERROR_ABT_ERR = GERROR.bit('MSI_GERROR_ABT_ERR');

/** What an SMMU is connected to. */
export interface SmmuPorts {
  readonly memory: Memory;
  readonly interrupts: InterruptPort;
  readonly endpoints: EndpointPort;
  readonly watch: Watch;
  readonly schedule: Schedule;
}

/** See the module comment. Offsets are bytes from SMMU_BASE. */
export class Smmu implements CommandTarget {
  readonly name: string;
  readonly ids: IdRegisters;
  readonly caps: Caps;
  readonly options: SmmuOptions;
  readonly file: RegisterFile;
  readonly regs: ControlRegisters;
  readonly errors: GlobalErrors;
  readonly signals: Interrupts;
  readonly eventQueue: EventQueue;
  readonly commandQueue: CommandQueue;
  readonly enhancedQueues: EnhancedQueues;
  readonly invalidations: PendingInvalidations;
  /** Bytes of register space from SMMU_BASE on. */
  readonly bytes: number;
  readonly stalls: Stalls;
  readonly priQueue: PriQueue;
  readonly caches: TranslationUnit;
  readonly endpoints: EndpointPort;
  /** Blocks beside the SMMU that may name VMIDs (VINTFs) add themselves here. */
  readonly holders: ((VMID: number) => VmidHolder[])[] = [];
  /** They are told here of each CMD_SYNC, with the queue that it came from. */
  readonly syncs: ((stream: CommandStream) => void)[] = [];
  readonly #memory: Memory;
  readonly #watch: Watch;
  readonly #atos: AddressTranslation[] = [];
  readonly #scratch = new Transaction();
  readonly #record: Words = new Uint32Array(EVENT_BYTES / 4);

  constructor(
    name: string,
    config: SmmuConfig,
    ports: SmmuPorts,
    translation: (context: TranslationContext) => TranslationUnit,
  ) {
    this.name = name;
    this.ids = checkedIds(config);
    this.caps = capsOf(this.ids);
    this.options = { ...DEFAULT_OPTIONS, ...config.options };
    this.endpoints = ports.endpoints;
    this.#watch = ports.watch;
    this.#memory = ports.memory;
    const { memory, watch, schedule } = ports;
    const { caps } = this;
    const file = new RegisterFile(name, caps, this.options, watch);
    this.file = file;
    for (const [id, register] of Object.entries(ID_REGISTERS))
      file.cell(register).lo = this.ids[id as keyof IdRegisters];
    this.regs = new ControlRegisters(
      name,
      file,
      watch,
      (field, _, after) => this.#updated(field, after),
      () => this.enhancedQueues.off,
    );
    this.signals = new Interrupts(name, file, watch, ports.interrupts);
    this.errors = new GlobalErrors(name, file, watch, (bits) => {
      // The one error that gives no interrupt of its own: its MSI just failed (6.3.19).
      if ((bits & ~MSI_GERROR_ABT_ERR) !== 0) this.signals.trigger('gerror');
    });
    this.signals.raise = (bits) => this.errors.raise(bits);
    this.caches = translation({ name, caps, options: this.options, regs: this.regs, memory, watch, schedule });
    this.eventQueue = new EventQueue(name, file, this.regs, this.errors, memory, watch, schedule, () =>
      this.signals.trigger('eventq'),
    );
    const limit = Math.min(caps.STALL_MAX === 0 ? Number.POSITIVE_INFINITY : caps.STALL_MAX, this.options.stags);
    this.stalls = new Stalls(name, this.eventQueue, limit, watch);
    this.priQueue = new PriQueue(name, file, this.regs, this.errors, {
      memory,
      watch,
      interrupt: () => this.signals.trigger('priq'),
      respond: (sid, ssid, index, code) => this.endpoints.pageResponse(sid, ssid, index, code),
      ppar: (sid) => this.#ppar(sid),
    });
    this.invalidations = new PendingInvalidations(name, schedule, (words, stream) => perform(words, this, stream));
    this.commandQueue = new CommandQueue(name, file, this.regs, this.errors, memory, this, watch);
    const { errors } = this;
    const vatos = vatosPage(IDR2.of(this.ids.IDR2, 'BA_VATOS'));
    if (caps.ATOS) this.#atos.push(new AddressTranslation(name, file, this.regs, memory, -1));
    if (caps.VATOS) this.#atos.push(new AddressTranslation(name, file, this.regs, memory, vatos));
    const queuePages = caps.VATOS ? vatos + PAGE_BYTES : OPTIONAL_PAGES;
    this.enhancedQueues = new EnhancedQueues(name, file, queuePages, {
      memory,
      errors,
      target: this,
      schedule,
      watch,
    });
    this.bytes = queuePages + this.enhancedQueues.bytes;
    file.poweredOn();
  }

  /** What moves by itself, in the order in which an eager machine lets it. */
  get agents(): Agent[] {
    const { regs, signals, commandQueue, enhancedQueues, invalidations, eventQueue, stalls } = this;
    const queues = [commandQueue, enhancedQueues, invalidations, eventQueue, stalls];
    const mpam = this.caps.MPAM ? [regs.gmpam, regs.gbpmpam] : [];
    return [regs.cr0, regs.gbpa, ...mpam, signals.irqCtrl, ...queues, ...this.#atos];
  }

  /** Whether one of {@link agents} is ready. Each is asked by its own name, which costs least: it is done at every moment. */
  readonly busy = (): boolean => {
    const { regs } = this;
    return (
      this.commandQueue.ready ||
      regs.cr0.ready ||
      regs.gbpa.ready ||
      this.signals.irqCtrl.ready ||
      this.enhancedQueues.ready ||
      this.invalidations.ready ||
      this.eventQueue.ready ||
      this.stalls.ready ||
      (this.caps.MPAM && (regs.gmpam.ready || regs.gbpmpam.ready)) ||
      (this.#atos.length > 0 && this.#atos.some(({ ready }) => ready))
    );
  };

  mmioRead32(offset: number): number {
    return this.file.read32(offset);
  }

  mmioRead64(offset: number): bigint {
    return this.file.read64(offset);
  }

  mmioWrite32(offset: number, value: number): void {
    this.file.write32(offset, value);
  }

  mmioWrite64(offset: number, value: bigint): void {
    this.file.write64(offset, value);
  }

  /**
   * A client transaction: translates it, records its event, and holds it if it stalls. A client that must not stall
   * (PCIe) passes null and gets an abort with an ordinary record instead (3.12).
   */
  access(t: Transaction, client: StallClient | null = null): void {
    this.caches.translate(t);
    this.caches.note(t);
    if (t.outcome === Outcome.Stall && client !== null && !this.stalls.crowded) this.stalls.stall(t, client);
    else {
      if (t.outcome === Outcome.Stall) t.outcome = Outcome.Abort;
      if (t.event !== 0 && t.record) this.#recordEvent(t);
    }
    this.#watch.observer?.({ kind: 'translation', smmu: this.name, transaction: t });
  }

  /** A page request or Stop Marker from an endpoint (chapter 8). */
  pageRequest(request: PageRequest): void {
    this.priQueue.receive(request);
  }

  /** STE.PPAR, read for an automatic response; what is wrong with the STE is recorded if CR2.REC_CFG_ATS (8.1). */
  #ppar(StreamID: number): boolean | null {
    const t = this.#scratch;
    const ppar = this.caches.ppar(StreamID, t);
    if (ppar === null && this.regs.REC_CFG_ATS && (t.event !== C_BAD_STREAMID || this.regs.RECINVSID))
      this.#recordEvent(t);
    return ppar;
  }

  #recordEvent(t: Transaction): void {
    fillEvent(this.#record, t, null);
    this.eventQueue.record(this.#record, false, mayMerge(t));
  }

  /** Who names a VMID now: STEs in memory, cached STEs, TLB and walk-cache entries, commands not yet consumed. */
  vmidHolders(VMID: number): VmidHolder[] {
    return [...stesNaming(VMID, this.#memory, this.caps, this.regs), ...this.vmidHoldersWithin(VMID)];
  }

  /** As {@link vmidHolders}, without the STEs in memory. */
  vmidHoldersWithin(VMID: number): VmidHolder[] {
    return [
      ...this.caches.vmidHolders(VMID),
      ...commandsNaming(VMID, this.#memory, this.commandQueue),
      ...this.enhancedQueues.queues
        .filter((queue) => queue.enabled)
        .flatMap((queue) => commandsNaming(VMID, this.#memory, queue)),
      ...this.holders.flatMap((holders) => holders(VMID)),
    ];
  }

  /**
   * Reset (3.11): registers to their reset values, traffic to GBPA's, what was under way ended or lost. Memory is not
   * touched. What caches hold afterwards is IMPLEMENTATION DEFINED: `kept` over a warm reset, `lost` with the power.
   */
  reset(caches: 'kept' | 'lost'): void {
    // First, so that what must stop with SMMUEN stops.
    this.regs.cr0.reset();
    this.signals.irqCtrl.reset();
    this.file.reset();
    this.regs.reset();
    this.errors.reset();
    this.commandQueue.reset();
    this.enhancedQueues.reset();
    this.eventQueue.reset();
    if (caches === 'lost') this.caches.lose();
    this.#watch.observer?.({ kind: 'reset', smmu: this.name, caches });
  }

  defer(words: Words, stream: CommandStream): boolean {
    return this.invalidations.defer(words, stream);
  }

  /** CMD_SYNC: the earlier invalidations of its queue are done, the events of earlier transactions are written. */
  settle(stream: CommandStream): void {
    this.invalidations.settle(stream);
    this.eventQueue.settle();
    for (const told of this.syncs) told(stream);
  }

  #updated(field: string, after: number): void {
    if (field === 'SMMUEN' && after === 0) {
      this.stalls.terminateAll();
      this.caches.quiesce();
      for (const atos of this.#atos) atos.cancel();
    }
  }
}
