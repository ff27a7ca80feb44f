/** Everything the sanitizer knows of one SMMU, and what each thing observed does to it. */
import { CD, CMD_SYNC, CR0, opcodeOf, slotValue, type Words } from '../../spec/index.ts';
import type { Announcement, CommandAct } from '../hw/observer.ts';
import type { Smmu } from '../hw/smmu.ts';
import type { Transaction } from '../hw/transaction.ts';
import { Asids } from './asids.ts';
import { Boot } from './boot.ts';
import { CdFacts } from './cd-facts.ts';
import { Cds } from './cds.ts';
import { type Maintenance, maintenanceOf } from './commands.ts';
import { type Context, hex } from './context.ts';
import type { Flush } from './flush.ts';
import { type Pending, Queues } from './queues.ts';
import { PAGE_LOG2, type Shape, shapeOfSte, shapesOfCd } from './shape.ts';
import type { Tag } from './stale.ts';
import { SteFacts, type Use } from './ste-facts.ts';
import { type Stream, Streams } from './streams.ts';
import type { Tables } from './tables.ts';
import { Vmids } from './vmids.ts';

const ASID_SLOT = CD.slot('ASID');
const SMMUEN = CR0.bit('SMMUEN');

/** What the SMMUs of a machine share, and have to ask of each other. */
export interface Neighbours {
  readonly tables: Tables;
  /** Another SMMU on which a VMID was flushed lately: its name, or ''. */
  flushedElsewhere(smmu: string, vmid: number): string;
}

/** A table and the tag under which it is walked. */
interface TableUse {
  readonly shape: Shape;
  readonly tag: Tag;
}

/** See the module comment. */
export class SmmuState {
  readonly name: string;
  readonly smmu: Smmu;
  readonly streams: Streams;
  readonly cds: Cds;
  readonly vmids: Vmids;
  readonly asids: Asids;
  readonly boot: Boot;
  readonly queues: Queues;
  readonly #context: Context;
  readonly #tables: Tables;
  /** VMIDs and when S12_VMALL of each was consumed last. */
  readonly #vmalls = new Map<number, number>();
  /** Streams whose next transaction is a retry of a stalled one: nobody relies on anything by it. */
  readonly #retried = new Set<number>();

  constructor(context: Context, smmu: Smmu, neighbours: Neighbours) {
    this.#context = context;
    this.#tables = neighbours.tables;
    this.name = smmu.name;
    this.smmu = smmu;
    const view = { name: smmu.name, caps: smmu.caps, regs: smmu.regs };
    this.queues = new Queues((pending) => this.#completed(pending));
    this.vmids = new Vmids(context, smmu.name, smmu.caps.vmidBits, {
      pending: (vmid) => this.#pendingVmid(vmid),
      vintf: () => '',
      flushedElsewhere: (vmid) => neighbours.flushedElsewhere(smmu.name, vmid),
    });
    this.asids = new Asids(context, smmu.name, () => '');
    this.cds = new Cds(context, view, new CdFacts(smmu.caps), this.asids);
    this.streams = new Streams(context, view, new SteFacts(smmu.caps), (stream, before, after, consumed) =>
      this.#usesChanged(stream, before, after, consumed),
    );
    this.boot = new Boot(context, view);
    this.cds.onWalks = (stream, index, images, use) => this.#walks(stream, index, images, use);
    if (smmu.regs.SMMUEN) this.streams.open();
  }

  #usesChanged(stream: Stream, before: readonly Use[], after: readonly Use[], consumed: number): void {
    this.vmids.update(stream, before, after, consumed);
    this.#tables.use(`${this.name} ${stream.sid}`, this.#stage2(after));
    this.cds.update(stream, after, consumed);
  }

  #stage2(uses: readonly Use[]): TableUse[] {
    const out: TableUse[] = [];
    for (const { s2, words, VMID, world } of uses) {
      const shape = s2 ? shapeOfSte(words, this.smmu.caps) : undefined;
      if (shape !== undefined) out.push({ shape, tag: { smmu: this.name, stage: 2, world, VMID, ASID: -1 } });
    }
    return out;
  }

  /** What a CD leads to through a stream. */
  #walks(stream: Stream, index: number, images: readonly Words[], use: Use | null): void {
    const out: TableUse[] = [];
    if (use !== null) {
      const oneTtb = use.world === 'NS-EL2';
      for (const image of images)
        for (const shape of shapesOfCd(image, this.smmu.caps, oneTtb)) {
          const ASID = oneTtb ? -1 : slotValue(image, ASID_SLOT);
          out.push({ shape, tag: { smmu: this.name, stage: 1, world: use.world, VMID: use.VMID, ASID } });
        }
    }
    this.#tables.use(`${this.name} ${stream.sid}/${index}`, out);
  }

  /** Whether TLB entries of a tag may exist. */
  dirty(tag: Tag): boolean {
    return tag.stage === 2 ? this.vmids.dirty(tag.VMID) : this.asids.dirty(tag);
  }

  /** Why an invalidation of a tag has not completed, or ''. */
  pendingTag(tag: Tag): string {
    for (const [queue, { what }] of this.queues.all()) {
      if (what.kind !== 'tlbi') continue;
      const { scope, VMID, ASID, name } = what.flush;
      const stage1 = scope.startsWith('nh-') || scope.startsWith('el2');
      if (scope !== 'nsnh-all' && scope !== 's12-vmall' && stage1 !== (tag.stage === 1)) continue;
      const named = scope === 'nsnh-all' || scope.startsWith('el2') || VMID === Math.max(tag.VMID, 0);
      const byAsid = scope === 'nh-va' || scope === 'nh-asid' || scope === 'el2-va' || scope === 'el2-asid';
      if (named && (!byAsid || ASID === tag.ASID)) return `${name} on ${queue} has not been completed by a CMD_SYNC`;
    }
    return '';
  }

  /** Whether S12_VMALL of a VMID was consumed here at all. */
  flushedVmid(vmid: number): boolean {
    return this.#vmalls.has(vmid);
  }

  /** Something that this SMMU announced. */
  observe(act: Announcement): void {
    switch (act.kind) {
      case 'command':
      case 'command-error':
        this.#command(act);
        break;
      case 'register-write':
        this.#context.history.register(this.name, act.offset, act.hi, act.lo);
        this.boot.written(act.offset, act.lo, act.ignored);
        break;
      case 'update':
        if (act.register === 'CR0') this.#cr0(act.before, act.after);
        break;
      case 'retried':
        this.#retried.add(act.StreamID);
        break;
      case 'translation':
        this.#transaction(act.transaction);
        break;
    }
  }

  #cr0(before: number, after: number): void {
    this.boot.updated(before, after);
    if (((before ^ after) & SMMUEN) === 0) return;
    if ((after & SMMUEN) !== 0) this.streams.open();
    else this.vmids.switchedOff();
  }

  #command({ queue, words, error }: CommandAct): void {
    this.#context.history.command(this.name, queue, words, error);
    if (error !== 0) return;
    if (opcodeOf(words) === CMD_SYNC.opcode) {
      this.queues.sync(queue);
      return;
    }
    const what = maintenanceOf(words, this.smmu.caps, -1);
    if (what === undefined) return;
    this.#consumed(what);
    this.queues.add(queue, what, this.#context.clock.now);
  }

  #consumed(what: Maintenance): void {
    if (what.kind === 'ste') {
      this.streams.consumed(what);
      this.cds.steConsumed(this.#streamsOf(what.first, what.last));
    } else if (what.kind === 'cd') this.cds.consumed(what, this.streams.find(what.sid));
    else if (what.kind === 'tlbi') {
      const { flush } = what;
      if (flush.scope === 's12-vmall') this.#vmalls.set(flush.VMID, this.#context.clock.now);
      this.vmids.consumed(flush, this.smmu.regs.VMW);
      this.asids.consumed(flush, this.smmu.regs.VMW);
      this.#tables.consumed(this.name, flush);
      if (flush.misaligned && !this.#ofGuest(flush)) this.#misaligned(flush);
    }
  }

  /** A stage 1 invalidation under a VMID of nested streams comes from the VM. */
  #ofGuest({ scope, VMID }: Flush): boolean {
    if (!scope.startsWith('nh-')) return false;
    for (const [, { s1, s2 }] of this.vmids.uses(VMID)) if (s1 && s2) return true;
    return false;
  }

  #misaligned({ name, VMID, ASID, first, level }: Flush): void {
    const at = hex(BigInt(first) << BigInt(PAGE_LOG2));
    this.#context.report(
      'TLB-10',
      `${this.name}: ${name} of a range at ${at}, which is not aligned to an entry${level === 0 ? '' : ` of level ${level}`}: which addresses it reaches is UNPREDICTABLE`,
      { smmu: this.name, VMID, ASID },
    );
  }

  #completed({ what, consumed }: Pending): void {
    if (what.kind === 'ste') {
      if (what.all) this.boot.cfgiAll(consumed);
      // CDs first: a stream that leaves its table takes them with it.
      this.cds.steCompleted(what, this.#streamsOf(what.first, what.last), consumed);
      this.streams.completed(what, consumed);
      for (const stream of this.#streamsOf(what.first, what.last))
        for (const { VMID } of stream.uses) this.vmids.settled(VMID, consumed);
    } else if (what.kind === 'cd') this.cds.completed(what, this.streams.find(what.sid), consumed);
    else if (what.kind === 'tlbi') {
      this.boot.flushed(what.flush, consumed);
      this.vmids.flushed(what.flush, this.smmu.regs.VMW, consumed);
      this.asids.flushed(what.flush, this.smmu.regs.VMW, consumed);
      this.#tables.flushed(this.name, what.flush, consumed);
    }
  }

  #streamsOf(first: number, last: number): Stream[] {
    if (first === last) {
      const stream = this.streams.find(first);
      return stream === undefined ? [] : [stream];
    }
    return [...this.streams.all()].filter(({ sid }) => sid >= first && sid <= last);
  }

  #transaction(t: Transaction): void {
    this.#context.history.dma(this.name, t.StreamID, t.isWrite, t.addrHi, t.addrLo);
    if (this.#retried.delete(t.StreamID) || t.isSpeculative || this.#context.noted('operation')) return;
    this.relies(t.StreamID, t.SSV ? t.SubstreamID : 0, `a transaction of StreamID ${hex(t.StreamID)} arrives`);
  }

  /** Software relies on a stream's configuration (ssid -1: on all its CDs). */
  relies(sid: number, ssid: number, why: string, rule = 'CFG-1'): void {
    if (!this.smmu.regs.SMMUEN) return;
    this.streams.relies(sid, why, rule);
    const stream = this.streams.find(sid);
    if (stream === undefined) return;
    this.cds.relies(stream, ssid, why);
    for (const { VMID } of stream.uses) this.vmids.relies(stream, VMID, why);
  }

  /** An operation was reported done: everything, or one stream. */
  done(sid: number, what: string): void {
    const rule = what.startsWith('detach') ? 'DET-6' : 'CFG-1';
    const why = `"${what}" was reported done`;
    if (sid >= 0) this.relies(sid, -1, why, rule);
    else for (const open of this.streams.openSids()) this.relies(open, -1, why, rule);
  }

  /** Memory was given back: units [first, end). */
  pageFreed(first: number, end: number): void {
    this.streams.freed(first, end);
    this.cds.freed(first, end);
  }

  /** Why a queue holds a TLBI of this VMID that has not completed, or ''. */
  #pendingVmid(vmid: number): string {
    for (const [queue, { what }] of this.queues.all())
      if (what.kind === 'tlbi' && what.flush.VMID === vmid && isByVmid(what.flush.scope))
        return `${what.flush.name} of it on ${queue} has not been completed by a CMD_SYNC`;
    const ring = this.smmu.commandQueue.ring;
    const words: Words = new Uint32Array(4);
    for (let index = ring.cons; ring.consistent && index !== ring.prod; index = ring.next(index)) {
      ring.locate(index);
      if (!this.#context.peek.words((ring.paHi >>> 0) * 2 ** 29 + (ring.paLo >>> 3), words)) break;
      const what = maintenanceOf(words, this.smmu.caps, -1);
      if (what?.kind === 'tlbi' && what.flush.VMID === vmid && isByVmid(what.flush.scope))
        return `${what.flush.name} of it has not been consumed from cmdq`;
    }
    return '';
  }
}

const isByVmid = (scope: string): boolean =>
  scope.startsWith('nh-') || scope.startsWith('s2-') || scope.startsWith('s12-');
