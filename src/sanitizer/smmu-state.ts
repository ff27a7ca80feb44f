/** Everything the sanitizer knows of one SMMU, and what each thing observed does to it. */
import { CD, CERROR, CMD_SYNC, CMDQ_PROD, CR0, opcodeOf, STE, slotValue, type Words } from '../../spec/index.ts';
import type { Machine } from '../hw/machine.ts';
import type { Announcement, CommandAct, VcmdqAct } from '../hw/observer.ts';
import type { Smmu } from '../hw/smmu.ts';
import type { TlbInvalidation, Transaction } from '../hw/transaction.ts';
import { Announced } from './announced.ts';
import { Asids } from './asids.ts';
import { Atcs } from './atc.ts';
import { Boot } from './boot.ts';
import { CdFacts } from './cd-facts.ts';
import { Cds } from './cds.ts';
import { CmdqvRules } from './cmdqv.ts';
import { type Maintenance, maintenanceOf } from './commands.ts';
import { type Context, hex } from './context.ts';
import { type Flush, flushOfBroadcast } from './flush.ts';
import { GuestState } from './guest-state.ts';
import { type Pending, Queues } from './queues.ts';
import { PAGE_LOG2, type Shape, shapesOfCd } from './shape.ts';
import type { Blame, Removal, Tag } from './stale.ts';
import { OWN_QUEUE, Stalled } from './stalls.ts';
import { SteFacts, type Use } from './ste-facts.ts';
import { type Stream, Streams } from './streams.ts';
import type { Tables, Walker } from './tables.ts';
import { PAGE_UNITS, unitOf } from './units.ts';
import { Vmids } from './vmids.ts';

/** Name of a VCMDQ in announcements. */
const vcmdqName = ({ vcmdq, vintf, lvcmdq }: VcmdqAct): string =>
  vintf < 0 ? `vcmdq${vcmdq}` : `vcmdq${vintf}.${lvcmdq}`;
const VMW_BITS = CR0.bit('VMW');
const S2S = STE.slot('S2S');
const STRW = STE.slot('STRW');
const MTCFG = STE.slot('MTCFG');
const ASID_SLOT = CD.slot('ASID');
const SMMUEN = CR0.bit('SMMUEN');
const CMDQEN = CR0.bit('CMDQEN');

/** What the SMMUs of a machine share, and have to ask of each other. */
export interface Neighbours {
  readonly tables: Tables;
  /** VMs are judged as well. */
  readonly guests: boolean;
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
  readonly atcs: Atcs;
  readonly stalls: Stalled;
  readonly cmdqv: CmdqvRules | null;
  readonly #context: Context;
  readonly #tables: Tables;
  /** VMIDs and when S12_VMALL of each was consumed last. */
  readonly #vmalls = new Map<number, number>();
  /** Streams whose next transaction is a retry of a stalled one: nobody relies on anything by it. */
  readonly #retried = new Set<number>();

  /** CR0 as software wrote it last. */
  #cr0Written = 0;
  /** Streams of devices that cannot be stalled. */
  readonly #mustNotStall: ReadonlySet<number>;
  /** What software says of streams. */
  readonly announced: Announced;
  /** The stage 1 of VMs; null: it is not judged. */
  readonly #guest: GuestState | null;

  constructor(context: Context, smmu: Smmu, machine: Machine, neighbours: Neighbours) {
    this.#context = context;
    this.#tables = neighbours.tables;
    this.name = smmu.name;
    this.smmu = smmu;
    const view = { name: smmu.name, caps: smmu.caps, regs: smmu.regs };
    this.queues = new Queues((pending) => this.#completed(pending));
    const devices = machine.firmware.devices.filter((device) => device.smmu === smmu.name);
    this.#mustNotStall = new Set(devices.filter(({ canStall }) => !canStall).flatMap(({ streamIds }) => streamIds));
    this.atcs = new Atcs(context, smmu.name, smmu.caps, {
      inTlb: (tag, first, end) => this.#tables.holds(tag, first, end),
      pending: (tag) => this.pendingTag(tag) !== null,
      stream: (sid) => this.streams.find(sid),
      get SMMUEN() {
        return smmu.regs.SMMUEN;
      },
      get ATSCHK() {
        return smmu.regs.ATSCHK;
      },
    });
    for (const { name, streamIds } of devices) {
      const ats = machine.endpoint(name).ats;
      if (ats !== null) this.atcs.add(name, streamIds, ats.enabled);
    }
    this.stalls = new Stalled(context, smmu.name);
    const cmdqv = machine.cmdqvs.get(smmu.name);
    this.cmdqv =
      cmdqv === undefined
        ? null
        : new CmdqvRules(context, smmu.name, cmdqv, {
            owner: (vmid) => this.vmids.owner(vmid),
            memoryVmid: (sid) => this.streams.find(sid)?.memoryVmid ?? -1,
            nested: (sid) => this.#nested(sid),
            told: () => this.announced.told,
          });
    this.vmids = new Vmids(context, smmu.name, smmu.caps.vmidBits, {
      pending: (vmid) => this.#pendingVmid(vmid),
      get VMW() {
        return smmu.regs.VMW;
      },
      vintf: (vmid) => this.cmdqv?.carrier(vmid) ?? '',
      flushedElsewhere: (vmid) => neighbours.flushedElsewhere(smmu.name, vmid),
    });
    this.asids = new Asids(context, smmu.name, () => '');
    this.cds = new Cds(context, view, CdFacts.of(smmu.caps), this.asids);
    this.streams = new Streams(context, view, SteFacts.of(smmu.caps), (stream, before, after, consumed) =>
      this.#usesChanged(stream, before, after, consumed),
    );
    this.boot = new Boot(context, view);
    this.streams.onStoreWhileOff = () => this.boot.changedWhileOff();
    this.cds.onStoreWhileOff = () => this.boot.changedWhileOff();
    this.cds.onWalks = (stream, index, images, use) => this.#walks(stream, index, images, use);
    this.announced = new Announced(context, smmu, this);
    this.#guest = neighbours.guests ? new GuestState(context, view, SteFacts.of(smmu.caps)) : null;
    if (smmu.regs.SMMUEN) this.streams.open();
  }

  #usesChanged(stream: Stream, before: readonly Use[], after: readonly Use[], consumed: number): void {
    this.vmids.update(stream, before, after, consumed);
    this.#tables.use(this.#walker(stream.sid, -1, ''), this.#stage2(after));
    this.cds.update(stream, after, consumed);
    this.#guest?.update(stream, consumed);
    this.atcs.update(stream, after);
    for (const use of after) if (!before.some(({ key }) => key === use.key)) this.#judgeUse(stream, use);
  }

  #walker(sid: number, ssid: number, what: string): Walker {
    return { key: `${this.name} ${sid}${what}`, smmu: this.name, sid, ssid };
  }

  /** DET-4, DET-10: what one image must not say. */
  #judgeUse(stream: Stream, { words, s1, s2 }: Use): void {
    const about = { smmu: this.name, StreamID: stream.sid, address: BigInt(stream.unit) * 8n };
    const ste = `${this.name}: STE ${hex(stream.sid)}`;
    if (s2 && slotValue(words, S2S) === 1 && this.smmu.caps.STALL_MODEL === 0 && this.#mustNotStall.has(stream.sid))
      this.#context.report('DET-4', `${ste} has S2S=1, and its device must not be stalled`, about, [stream.units]);
    const wrong = [
      ...(slotValue(words, STRW) !== 0 ? ['STRW'] : []),
      ...(this.smmu.caps.ATTR_TYPES_OVR && slotValue(words, MTCFG) !== 0 ? ['MTCFG'] : []),
    ];
    if (s1 && s2 && wrong.length > 0)
      this.#context.report('DET-10', `${ste} is nested and has ${wrong.join(', ')}, which no host gives a VM`, about, [
        stream.units,
      ]);
  }

  #stage2(uses: readonly Use[]): TableUse[] {
    const out: TableUse[] = [];
    for (const { table, VMID, world } of uses)
      if (table !== undefined) out.push({ shape: table, tag: { smmu: this.name, stage: 2, world, VMID, ASID: -1 } });
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
    this.#tables.use(this.#walker(stream.sid, index === 0 ? -1 : index, `/${index}`), out);
  }

  /** Whether TLB entries of a tag may exist. */
  dirty(tag: Tag): boolean {
    // Nothing is translated while it is off, and before it is on again everything is flushed (CFG-19).
    if (!this.smmu.regs.SMMUEN) return false;
    return tag.stage === 2 ? this.vmids.dirty(tag.VMID) : this.asids.dirty(tag);
  }

  /** An invalidation of a tag that has not completed, as the rule that counts on it breaks. */
  pendingTag(tag: Tag): Blame | null {
    for (const [queue, { what, consumed }] of this.queues.all()) {
      if (what.kind !== 'tlbi' || !concernsTag(what.flush, tag)) continue;
      const other = this.queues.syncedElsewhere(queue, consumed);
      const { name } = what.flush;
      return other === ''
        ? { rule: 'TLB-11', why: `${name} on ${queue} has not been completed by a CMD_SYNC` }
        : { rule: 'CMDQV-14', why: `${name} was sent on ${queue}, and the CMD_SYNC that completed was on ${other}` };
    }
    return null;
  }

  /** A stream may use both stages now. */
  #nested(sid: number): boolean {
    return this.streams.find(sid)?.uses.some(({ s1, s2 }) => s1 && s2) ?? false;
  }

  /** A translation was taken away under a tag that a stream uses. */
  removed(sid: number, ssid: number, tag: Tag, removal: Removal, first: number, end: number, out: number): void {
    // Of a stream with stage 2 alone the input address is the intermediate one, whoever shares its VMID.
    const all = tag.stage === 2 && this.vmids.dirtyVa(tag.VMID) && this.#nested(sid);
    this.atcs.removed(sid, ssid, tag, all, { first, end, out, unit: removal.unit, born: removal.born });
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
        if (act.kind === 'command') this.stalls.took(act.queue);
        break;
      case 'register-write':
        this.#context.history.register(this.name, act.offset, act.hi, act.lo);
        if (act.offset === CR0.offset) this.#cr0Written = act.lo;
        this.boot.written(act.offset, act.lo, act.ignored);
        if (
          act.offset === CMDQ_PROD.offset &&
          this.smmu.regs.enabled(CMDQEN) &&
          !this.smmu.commandQueue.ring.consistent
        )
          this.#context.report('DET-8', `${this.name}: CMDQ_PROD was moved so that it does not fit CMDQ_CONS`, {
            smmu: this.name,
          });
        break;
      case 'update':
        if (act.register === 'CR0') this.#cr0(act.before, act.after);
        break;
      case 'reset':
        // Caches may keep what they held (3.11): nothing counts as invalidated by a reset.
        this.#context.history.text(this.name, `reset, caches ${act.caches}`, {});
        this.queues.reset();
        this.boot.takeover();
        break;
      case 'retried':
        this.#retried.add(act.StreamID);
        break;
      case 'stalled':
        this.stalls.stalled(act.StreamID, act.STAG);
        break;
      case 'pri':
        if (act.result === 'written') this.stalls.requested(act.words);
        break;
      case 'tlb-invalidated':
        // A CPU's broadcast is complete with the CPU's own barrier.
        if (act.invalidation.broadcast) this.#broadcast(act.invalidation);
        break;
      case 'vintf':
        this.cmdqv?.vintf(act);
        break;
      case 'vcmdq':
        this.cmdqv?.vcmdq(act);
        // What a VCMDQ consumed is done before STATUS says that it is disabled (docs/impdef.md).
        if (act.act === 'disabled') for (const all of [this.queues, this.stalls]) all.stopped(vcmdqName(act));
        break;
      case 'cmdqv-write':
        this.cmdqv?.written(act);
        break;
      case 'cmdqv-violation':
        if (!act.maybeVm) this.#context.report(act.rule, `${this.name}: ${act.what}`, { smmu: this.name });
        break;
      case 'translation':
        this.#transaction(act.transaction);
        break;
    }
  }

  #cr0(before: number, after: number): void {
    this.boot.updated(before, after);
    const uses = [...this.streams.all()].flatMap((stream) => stream.uses);
    // A reset of the hardware is nobody's choice.
    if ((this.#cr0Written & before & ~after & SMMUEN) === 0) this.atcs.updated(before, after, SMMUEN, uses);
    if (((before ^ after) & VMW_BITS) !== 0) this.vmids.judgeGroups(this.smmu.regs.VMW);
    if (((before ^ after) & SMMUEN) === 0) return;
    if ((after & SMMUEN) !== 0) this.streams.open();
    else {
      this.vmids.switchedOff();
      // A queue that stops forgets what waits.
      this.stalls.switchedOff((after & CMDQEN) === 0 ? 0 : this.smmu.commandQueue.ring.used);
    }
  }

  #broadcast(invalidation: TlbInvalidation): void {
    const flush = flushOfBroadcast(invalidation);
    if (flush === undefined) return;
    this.#flushConsumed(flush);
    this.#flushed(flush, this.#context.clock.now);
  }

  #command({ queue, words, error }: CommandAct): void {
    this.#context.history.command(this.name, queue, words, error);
    if (error === CERROR.CERROR_ATC_INV_SYNC && opcodeOf(words) === CMD_SYNC.opcode) this.#atcTimeout(queue);
    if (error !== 0) return;
    const own = queue === OWN_QUEUE;
    if (opcodeOf(words) === CMD_SYNC.opcode) {
      if (own) this.announced.forGuest.consumed(undefined);
      this.queues.sync(queue, this.#context.clock.now);
      if (own) this.cmdqv?.synced();
      return;
    }
    const what = maintenanceOf(words, this.smmu.caps, -1);
    if (own) this.announced.forGuest.consumed(what);
    if (what === undefined) {
      this.stalls.consumed(words);
      return;
    }
    this.#consumed(what);
    this.queues.add(queue, what, this.#context.clock.now);
  }

  /** The CMD_ATC_INV that the CMD_SYNC waited for count as never sent. */
  #atcTimeout(queue: string): void {
    const sids = new Set<number>();
    for (const [of, { what }] of this.queues.all()) if (of === queue && what.kind === 'atc') sids.add(what.sid);
    this.atcs.timedOut(sids);
    this.queues.drop(queue, ({ what }) => what.kind === 'atc');
  }

  #consumed(what: Maintenance): void {
    if (what.kind === 'ste') {
      this.streams.consumed(what);
      this.cds.steConsumed(this.#streamsOf(what.first, what.last));
    } else if (what.kind === 'cd') this.cds.consumed(what, this.streams.find(what.sid));
    else if (what.kind === 'atc') this.atcs.consumed(what);
    else this.#flushConsumed(what.flush);
    this.#guest?.consumed(what, this.#concerned(what));
  }

  /** Streams whose configuration a command is about. */
  #concerned(what: Maintenance): Stream[] {
    if (what.kind === 'ste') return this.#streamsOf(what.first, what.last);
    return what.kind === 'cd' ? this.#streamsOf(what.sid, what.sid) : [];
  }

  #flushConsumed(flush: Flush): void {
    if (flush.scope === 's12-vmall') this.#vmalls.set(flush.VMID, this.#context.clock.now);
    this.vmids.consumed(flush, this.smmu.regs.VMW);
    this.asids.consumed(flush, this.smmu.regs.VMW);
    this.#tables.consumed(this.name, flush);
    if (!flush.misaligned) return;
    const guest = this.#ofGuest(flush);
    if (!guest || this.#guest !== null) this.#misaligned(flush, guest);
  }

  /** A stage 1 invalidation under a VMID of nested streams comes from the VM. */
  #ofGuest({ scope, VMID }: Flush): boolean {
    if (!scope.startsWith('nh-')) return false;
    for (const [, { s1, s2 }] of this.vmids.uses(VMID)) if (s1 && s2) return true;
    return false;
  }

  #misaligned({ name, VMID, ASID, first, level }: Flush, guest: boolean): void {
    const at = hex(BigInt(first) << BigInt(PAGE_LOG2));
    this.#context.report(
      'TLB-10',
      `${this.name}: ${name} of a range at ${at}, which is not aligned to an entry${level === 0 ? '' : ` of level ${level}`}: which addresses it reaches is UNPREDICTABLE`,
      { smmu: this.name, VMID, ASID, ...(guest ? { by: 'guest' as const } : {}) },
    );
  }

  #completed({ what, consumed }: Pending): void {
    if (what.kind === 'ste') {
      if (what.all) this.boot.cfgiAll(consumed);
      // CDs first: a stream that leaves its table takes them with it.
      this.cds.steCompleted(what, this.#streamsOf(what.first, what.last), consumed);
      this.streams.completed(what, consumed);
      for (const stream of this.#streamsOf(what.first, what.last)) {
        for (const { VMID } of stream.uses) this.vmids.settled(VMID, consumed);
        this.atcs.settled(stream);
        if (!this.announced.told) this.cmdqv?.settled(stream.sid);
      }
      // Off, and nothing cached: no stream uses anything until SMMUEN is 1 again.
      if (what.all && !this.smmu.regs.SMMUEN) this.streams.close();
    } else if (what.kind === 'cd') this.cds.completed(what, this.streams.find(what.sid), consumed);
    else if (what.kind === 'atc') this.atcs.completed(what, consumed);
    else this.#flushed(what.flush, consumed);
    this.#guest?.completed(what, this.#concerned(what), consumed);
  }

  #flushed(flush: Flush, consumed: number): void {
    const { VMW } = this.smmu.regs;
    this.boot.flushed(flush, consumed);
    this.vmids.flushed(flush, VMW, consumed);
    this.asids.flushed(flush, VMW, consumed);
    this.#tables.flushed(this.name, flush, consumed);
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
    if (this.#retried.delete(t.StreamID) || t.isSpeculative || !this.announced.restsOn(t.StreamID)) return;
    const ssid = t.SSV ? t.SubstreamID : 0;
    this.relies(t.StreamID, ssid, `a transaction of StreamID ${hex(t.StreamID)} arrives`);
    const stream = this.#guest === null ? undefined : this.streams.find(t.StreamID);
    if (stream !== undefined) this.#guest?.relies(stream, ssid, Math.floor(unitOf(t.addrHi, t.addrLo) / PAGE_UNITS));
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

  /** Memory was given back: units [first, end). */
  pageFreed(first: number, end: number): void {
    this.cmdqv?.freed(first, end);
    this.#queueFreed(first, end);
    const pages = 2 ** (PAGE_LOG2 - 3);
    this.atcs.freed(Math.floor(first / pages), Math.ceil(end / pages));
    // What is off fetches nothing, and what it has cached goes with the CFGI_ALL before it is on (CFG-19).
    if (!this.smmu.regs.SMMUEN) return;
    this.streams.freed(first, end);
    this.cds.freed(first, end);
  }

  #queueFreed(first: number, end: number): void {
    const { commandQueue, eventQueue, regs } = this.smmu;
    for (const [ring, bit, name] of [
      [commandQueue.ring, CR0.bit('CMDQEN'), 'Command queue'],
      [eventQueue.ring, CR0.bit('EVENTQEN'), 'Event queue'],
    ] as const) {
      if (!regs.enabled(bit)) continue;
      ring.locate(0);
      const unit = unitOf(ring.paHi, ring.paLo);
      const units = (ring.size * ring.entryBytes) / 8;
      if (unit < end && unit + units > first)
        this.#context.report('DET-8', `${this.name}: memory of the ${name} was given back while it is enabled`, {
          smmu: this.name,
          address: BigInt(unit) * 8n,
        });
    }
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
      if (!this.#context.peek.words(unitOf(ring.paHi, ring.paLo), words)) break;
      const what = maintenanceOf(words, this.smmu.caps, -1);
      if (what?.kind === 'tlbi' && what.flush.VMID === vmid && isByVmid(what.flush.scope))
        return `${what.flush.name} of it has not been consumed from cmdq`;
    }
    return '';
  }
}

/** Whether an invalidation is about entries of a tag at all. */
function concernsTag({ scope, VMID, ASID }: Flush, tag: Tag): boolean {
  if (scope === 'nsnh-all') return tag.world === 'NS-EL1';
  const stage1 = scope.startsWith('nh-') || scope.startsWith('el2');
  if (scope !== 's12-vmall' && stage1 !== (tag.stage === 1)) return false;
  const byAsid = scope === 'nh-va' || scope === 'nh-asid' || scope === 'el2-va' || scope === 'el2-asid';
  return (scope.startsWith('el2') || VMID === Math.max(tag.VMID, 0)) && (!byAsid || ASID === tag.ASID);
}

const isByVmid = (scope: string): boolean =>
  scope.startsWith('nh-') || scope.startsWith('s2-') || scope.startsWith('s12-');
