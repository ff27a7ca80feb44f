/** What software says of the streams of an SMMU: operations that begin and end, and to whom a stream belongs. */
import { GBPA, STE } from '../../spec/index.ts';
import type { Smmu } from '../hw/smmu.ts';
import type { Atcs } from './atc.ts';
import type { CmdqvRules } from './cmdqv.ts';
import { type Context, hex } from './context.ts';
import { ForGuest } from './for-guest.ts';
import { OWN_QUEUE, type Stalled } from './stalls.ts';
import { isBypass } from './ste-facts.ts';
import type { Stream, Streams } from './streams.ts';
import type { Vmids } from './vmids.ts';

const GBPA_ABORT = GBPA.bit('ABORT');

/** What of the SMMU's state is asked when software says something. */
export interface AnnouncedView {
  readonly name: string;
  readonly streams: Streams;
  readonly vmids: Vmids;
  readonly atcs: Atcs;
  readonly stalls: Stalled;
  readonly cmdqv: CmdqvRules | null;
  /** Software relies on a stream's configuration (ssid -1: on all its CDs). */
  relies(sid: number, ssid: number, why: string, rule?: string): void;
}

/** An operation under way. */
interface Begun {
  readonly what: string;
  readonly since: number;
}

/** The rule that an STE without its CFGI breaks when an operation is reported done. */
const ruleOf = (what: string): string => (what.startsWith('detach') ? 'DET-6' : 'CFG-1');

/** VMID of a stream whose STE is nested in memory and in every cache; -1: it is not. */
const nestedVmid = (stream: Stream | undefined): number =>
  stream !== undefined && stream.uses.length > 0 && stream.uses.every(({ s1, s2 }) => s1 && s2)
    ? stream.memoryVmid
    : -1;

/** See the module comment. */
export class Announced {
  readonly forGuest: ForGuest;
  readonly #context: Context;
  readonly #smmu: Smmu;
  readonly #view: AnnouncedView;
  /** Streams of others than the host, and whose they are. */
  readonly #owners = new Map<number, string>();
  readonly #underway = new Map<number, Begun[]>();
  /** Somebody says when operations begin. */
  #begins = false;
  /** When each stream was last reported attached. */
  readonly #attached = new Map<number, number>();
  /** Streams that a VINTF should map. */
  readonly #mapped = new Set<number>();

  constructor(context: Context, smmu: Smmu, view: AnnouncedView) {
    this.#context = context;
    this.#smmu = smmu;
    this.#view = view;
    this.forGuest = new ForGuest(
      context,
      smmu.name,
      (sid) => nestedVmid(view.streams.find(sid)),
      () => smmu.commandQueue.ring.used,
    );
  }

  /** Another driver runs: what this one said of streams and of its work counts no more. */
  takeover(): void {
    for (const known of [this.#owners, this.#underway, this.#attached, this.#mapped]) known.clear();
  }

  /**
   * Whether software relies on a stream at this moment, as far as it tells: it does at all times but those at which it
   * is at work on it. One that tells of the end of its work alone relies on it there.
   */
  restsOn(sid: number): boolean {
    return this.#begins ? !this.#underway.has(sid) : !this.#context.noted('operation');
  }

  /** Software says when it is at work on streams: then it says of each, too, that it is attached through a vIOMMU. */
  get told(): boolean {
    return this.#begins;
  }

  /** An operation on a stream begins. */
  begins(sid: number, what: string): void {
    if (what.startsWith('invalidate')) {
      this.forGuest.begins(sid, what);
      return;
    }
    this.#begins = true;
    const begun = { what, since: this.#context.clock.now };
    const known = this.#underway.get(sid);
    if (known === undefined) this.#underway.set(sid, [begun]);
    else known.push(begun);
  }

  /** Takes an operation off those under way. Returns when it began: the present if nobody said. */
  #ends(sid: number, what: string): number {
    const begun = this.#underway.get(sid);
    const at = begun?.findIndex((one) => one.what === what) ?? -1;
    if (begun === undefined || at < 0) return this.#context.clock.now;
    const since = begun[at]?.since ?? 0;
    begun.splice(at, 1);
    if (begun.length === 0) this.#underway.delete(sid);
    return since;
  }

  /** An operation on a stream failed: VMID-16. */
  failed(sid: number, what: string): void {
    const since = this.#ends(sid, what);
    const VMID = this.#view.vmids.brokenFree(since);
    if (VMID < 0) return;
    this.#context.report(
      'VMID-16',
      `${this.#view.name}: "${what}" of StreamID ${hex(sid)} failed, and VMID ${VMID} was given back in it while an STE or the TLB may still hold it`,
      { smmu: this.#view.name, StreamID: sid, VMID },
    );
  }

  /** An operation was reported done: on everything (-1), or on one stream. */
  done(sid: number, what: string): void {
    if (what.startsWith('invalidate')) this.forGuest.done(sid);
    // Nobody relies on configuration while translation is off; before it goes on, CFG-19 asks for CFGI_ALL.
    else if (!this.#smmu.regs.SMMUEN) this.#ends(sid, what);
    else if (sid < 0) this.#allDone(what);
    else this.#streamDone(sid, what);
  }

  #allDone(what: string): void {
    this.#judgeBypass(-1);
    for (const open of this.#view.streams.openSids()) this.#view.relies(open, -1, reported(what), ruleOf(what));
  }

  #streamDone(sid: number, what: string): void {
    const since = this.#ends(sid, what);
    this.#context.history.text(this.#view.name, `${what} done`, { StreamID: sid });
    // What a lost CMD_SYNC left in doubt is judged when the last operation on the stream is certain.
    if (this.#underway.has(sid)) return;
    if (what.startsWith('detach')) {
      this.#view.stalls.leaves(sid, 'was detached', since);
      this.#judgeLeft(sid, what);
    } else if (what.startsWith('attach')) {
      this.#view.stalls.leaves(sid, 'was attached to another domain', since);
      this.#attached.set(sid, this.#context.clock.now);
      this.#judgeMapped(sid, what);
    } else if (what.startsWith('vIOMMU')) this.#view.cmdqv?.settled(sid);
    else if (what.startsWith('vDEVICE')) this.#vdevice(sid, what);
    this.#judgeBypass(sid);
    this.#view.relies(sid, -1, reported(what), ruleOf(what));
  }

  /** DET-6: what is detached does not translate as it did when it was attached. */
  #judgeLeft(sid: number, what: string): void {
    const stream = this.#view.streams.find(sid);
    const attached = this.#attached.get(sid);
    this.#attached.delete(sid);
    if (stream === undefined || attached === undefined || !this.#smmu.regs.SMMUEN) return;
    if (stream.uses.length === 0 || stream.candidates.changed > attached) return;
    this.#report('DET-6', stream, `STE ${hex(sid)} is what it was while attached when ${reported(what)}`);
  }

  #vdevice(sid: number, what: string): void {
    if (what.endsWith('VINTF made')) this.#mapped.add(sid);
    else this.#mapped.delete(sid);
    if (what.endsWith('destroyed')) this.#view.cmdqv?.unmapped(sid);
  }

  /** CMDQV-7: a stream whose ATS a VM invalidates through a VINTF has a StreamID there. */
  #judgeMapped(sid: number, what: string): void {
    const { cmdqv, streams } = this.#view;
    if (!this.#mapped.has(sid) || cmdqv === null || cmdqv.maps(sid)) return;
    const stream = streams.find(sid);
    if (stream === undefined || !stream.uses.some(({ s1, s2, EATS }) => s1 && s2 && EATS !== 0)) return;
    const how = 'is nested with ATS, its vDEVICE is on a VINTF, and no SID_MATCH maps it';
    this.#report('CMDQV-7', stream, `STE ${hex(sid)} ${how} when ${reported(what)}`);
  }

  /** A stream was given to an owner, '' for the host. */
  given(sid: number, owner: string): void {
    const to = owner === '' ? 'the host' : owner;
    this.#context.history.text(this.#view.name, `StreamID ${hex(sid)} given to ${to}`, { StreamID: sid });
    if (owner === '') this.#owners.delete(sid);
    else this.#owners.set(sid, owner);
    // After a lost CMD_SYNC the news comes late: then the next operation has begun.
    if (this.#underway.has(sid)) return;
    const { stalls, atcs, cmdqv } = this.#view;
    stalls.given(sid, `was given to ${to}`, [
      [OWN_QUEUE, this.#smmu.commandQueue.ring.used],
      ...(cmdqv?.waiting() ?? []),
    ]);
    atcs.given(sid, to);
    cmdqv?.given(sid, to);
    this.#judgeGiven(sid, to);
  }

  /** DET-9: who gets a stream does not get the STE of the owner before. */
  #judgeGiven(sid: number, to: string): void {
    const stream = this.#view.streams.find(sid);
    if (stream === undefined || !this.#smmu.regs.SMMUEN) return;
    // Who does not tell of attachments may have made the next one already: then only what a cache may keep is old.
    if (!this.#begins) {
      this.#view.relies(sid, -1, `StreamID ${hex(sid)} was given to ${to}`, 'DET-9');
      return;
    }
    if (stream.uses.length === 0) return;
    const how = 'while its STE, in memory or in a cache, still translates for the owner before';
    this.#report('DET-9', stream, `StreamID ${hex(sid)} was given to ${to} ${how}`);
  }

  /** CFG-21: streams of somebody else are not in bypass. */
  #judgeBypass(only: number): void {
    for (const [sid, owner] of this.#owners) {
      if (only >= 0 && sid !== only) continue;
      const stream = this.#view.streams.find(sid);
      const { SMMUEN, GBPA: gbpa } = this.#smmu.regs;
      const open = !SMMUEN && (gbpa & GBPA_ABORT) === 0;
      if (!open && (stream === undefined || !isBypass(stream.candidates.newest(STE.zero())))) continue;
      const why = open ? 'SMMUEN=0 lets everything pass' : 'its STE is bypass';
      this.#report('CFG-21', { sid }, `StreamID ${hex(sid)} belongs to ${owner} and ${why}`);
    }
  }

  #report(rule: string, { sid, units }: Pick<Stream, 'sid'> & Partial<Pick<Stream, 'units'>>, what: string): void {
    const { name } = this.#view;
    const address = units === undefined ? {} : { address: BigInt(units[0]) * 8n };
    this.#context.report(rule, `${name}: ${what}`, { smmu: name, StreamID: sid, ...address }, units && [units]);
  }
}

const reported = (what: string): string => `"${what}" was reported done`;
