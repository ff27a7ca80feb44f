/** ATS: which endpoints may hold translations, and which of those were taken away (rules ATS-*). */
import { type Caps, CR0, STE, slotValue, type Words } from '../../spec/index.ts';
import type { AtcInv } from './commands.ts';
import { type Context, hex } from './context.ts';
import { type Blame, type Since, showTag, type Tag } from './stale.ts';
import type { Use } from './ste-facts.ts';
import type { Stream } from './streams.ts';

const ATSCHK = CR0.bit('ATSCHK');
const EATS = STE.fields.EATS.values;
const V = STE.slot('V');
const CONFIG = STE.slot('Config');
const CONFIGS = STE.fields.Config.values;
const EATS_SLOT = STE.slot('EATS');

/** A translation that was taken away and that an endpoint may still hold. */
interface AtcStale {
  readonly sid: number;
  /** -1: without a PASID. */
  readonly ssid: number;
  readonly tag: Tag;
  readonly first: number;
  readonly end: number;
  readonly out: number;
  readonly unit: number;
  readonly born: number;
  /** Addresses of the endpoint's cache are not those of the table: everything has to go. */
  readonly all: boolean;
  /** When the CMD_ATC_INV that covers it was consumed, in good order; 0: none. */
  covered: number;
  early: boolean;
  ranged: boolean;
  pasid: boolean;
}

/** Entries kept for one stream; more become one that stands for everything. */
const MOST = 4096;

/** What the ATS rules have to ask of the rest. */
export interface AtcView {
  /** Whether entries of a tag for input pages [first, end) may still be in the TLB; with what is not yet complete. */
  inTlb(tag: Tag, first: number, end: number): boolean;
  /** An invalidation of the tag was consumed and is not complete. */
  pending(tag: Tag): boolean;
  stream(sid: number): Stream | undefined;
  readonly SMMUEN: boolean;
  readonly ATSCHK: boolean;
}

/** See the module comment. One for each SMMU. */
export class Atcs {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #caps: Caps;
  readonly #view: AtcView;
  /** Streams of endpoints with ATS, and the endpoint's name. */
  readonly #endpoints = new Map<number, string>();
  readonly #on = new Set<number>();
  /** Streams whose endpoint may hold translations. */
  readonly #holding = new Set<number>();
  /** Streams with a CMD_ATC_INV that timed out. */
  readonly #broken = new Set<number>();
  #stale: AtcStale[] = [];
  /** Streams that let go of a removal, by its descriptor and time: for devices with several. */
  readonly #cleared = new Map<string, Set<number>>();

  constructor(context: Context, smmu: string, caps: Caps, view: AtcView) {
    this.#context = context;
    this.#smmu = smmu;
    this.#caps = caps;
    this.#view = view;
  }

  /** An endpoint with ATS is behind this SMMU. */
  add(name: string, sids: readonly number[], on: boolean): void {
    for (const sid of sids) {
      this.#endpoints.set(sid, name);
      if (on) this.#on.add(sid);
    }
  }

  /** Whether an endpoint may hold translations of a stream. */
  holds(sid: number): boolean {
    return this.#holding.has(sid);
  }

  /** Software turned ATS of an endpoint on or off. */
  switched(name: string, on: boolean): void {
    for (const [sid, endpoint] of this.#endpoints) {
      if (endpoint !== name) continue;
      this.#context.history.text(this.#smmu, `ATS of ${name} turned ${on ? 'on' : 'off'}`, { StreamID: sid });
      if (on) {
        this.#on.add(sid);
        this.#judgeEnable(sid, name);
        this.#hold(sid);
      } else this.#on.delete(sid);
    }
  }

  /** ATS-3: the STE has to be ready, in every cache. */
  #judgeEnable(sid: number, name: string): void {
    const stream = this.#view.stream(sid);
    const ste = stream?.candidates.newest(STE.zero());
    // A stream of which nothing is known aborts, as does one whose STE says so.
    if (stream === undefined || ste === undefined || !active(ste)) return;
    const ready = effective(ste, this.#caps) !== EATS.OFF && stream.uses.length > 0 && !this.#mayBeOff(stream);
    if (!ready)
      this.#report(
        'ATS-3',
        sid,
        `ATS of ${name} was turned on before STE ${hex(sid)} allows it in every cache`,
        stream,
      );
  }

  #mayBeOff(stream: Stream): boolean {
    let off = false;
    stream.candidates.images(0, STE.zero(), (image) => {
      off ||= effective(image, this.#caps) === EATS.OFF;
    });
    return off;
  }

  #hold(sid: number): void {
    const uses = this.#view.stream(sid)?.uses ?? [];
    if (this.#on.has(sid) && uses.some((use) => use.EATS !== EATS.OFF)) this.#holding.add(sid);
  }

  /** A stream translates in other ways than before. */
  update(stream: Stream, uses: readonly Use[]): void {
    if (!this.#endpoints.has(stream.sid)) return;
    this.#hold(stream.sid);
    const kinds = new Set(uses.map((use) => use.EATS));
    if (kinds.has(EATS.SPLIT) && (kinds.has(EATS.FULL) || kinds.has(EATS.FULL_DPT)))
      this.#report(
        'ATS-5',
        stream.sid,
        `EATS of STE ${hex(stream.sid)} changes between full and split-stage ATS`,
        stream,
      );
  }

  /** The CFGI of a stream completed: ATS-4. */
  settled(stream: Stream): void {
    if (!this.#on.has(stream.sid) || stream.candidates.open(0) > 0) return;
    const ste = stream.candidates.newest(STE.zero());
    if (active(ste) && effective(ste, this.#caps) === EATS.OFF)
      this.#report(
        'ATS-4',
        stream.sid,
        `STE ${hex(stream.sid)} does not allow ATS any more, and its endpoint has it on`,
        stream,
      );
  }

  /** CR0 took effect. */
  updated(before: number, after: number, SMMUEN: number, uses: Iterable<Use>): void {
    if ((before & ~after & SMMUEN) !== 0)
      for (const sid of this.#on)
        this.#report('ATS-7', sid, `SMMUEN was cleared while the endpoint of StreamID ${hex(sid)} has ATS on`);
    if (((before ^ after) & ATSCHK) === 0 || (before & after & SMMUEN) === 0) return;
    const kinds = new Set([...uses].map((use) => use.EATS));
    if ((before & ATSCHK) !== 0 && kinds.has(EATS.SPLIT))
      this.#context.report('ATS-6', `${this.#smmu}: CR0.ATSCHK was cleared while an STE has split-stage ATS`, {
        smmu: this.#smmu,
      });
    else if ((after & ATSCHK) !== 0 && [...kinds].some((kind) => kind !== EATS.OFF))
      this.#context.report('ATS-6', `${this.#smmu}: CR0.ATSCHK was set while STEs with ATS are in use`, {
        smmu: this.#smmu,
      });
  }

  /** A translation was taken away under a tag that a stream uses. */
  removed(
    sid: number,
    ssid: number,
    tag: Tag,
    all: boolean,
    removal: Omit<AtcStale, 'sid' | 'ssid' | 'tag' | 'all' | 'covered' | 'early' | 'ranged' | 'pasid'>,
  ): void {
    if (!this.#holding.has(sid)) return;
    const last = this.#stale.at(-1);
    const fresh: AtcStale = { ...removal, sid, ssid, tag, all, covered: 0, early: false, ranged: false, pasid: false };
    const joins =
      last !== undefined &&
      last.sid === sid &&
      last.ssid === ssid &&
      last.tag === tag &&
      last.end === removal.first &&
      last.out + (last.end - last.first) === removal.out &&
      last.covered === 0 &&
      !last.early &&
      !last.ranged;
    if (joins) this.#stale[this.#stale.length - 1] = { ...last, end: removal.end, born: removal.born };
    else this.#stale.push(fresh);
    if (this.#stale.length > MOST) {
      this.#stale.shift();
      this.#context.capped('translations that endpoints may hold');
    }
  }

  /** A CMD_ATC_INV was consumed: whether it counts depends on what had completed before. */
  consumed(inv: AtcInv): void {
    if (!this.#view.SMMUEN) {
      this.#report(
        'ATS-7',
        inv.sid,
        `CMD_ATC_INV of StreamID ${hex(inv.sid)} was sent while SMMUEN=0: it does nothing`,
      );
      return;
    }
    const lenient = this.#context.ordering('ATS-2') === 'lenient';
    for (const stale of this.#stale) {
      if (stale.sid !== inv.sid || (!inv.all && !stale.all && (inv.first >= stale.end || inv.end <= stale.first)))
        continue;
      if (inv.ssid !== -1 && stale.ssid < 0) stale.pasid = true;
      else if (inv.ssid >= 0 && inv.ssid !== stale.ssid) continue;
      else if (stale.all && !inv.all) stale.ranged = true;
      else if (this.#view.inTlb(stale.tag, stale.first, stale.end) && !(lenient && this.#view.pending(stale.tag)))
        stale.early = true;
      else if (inv.all || (inv.first <= stale.first && inv.end >= stale.end)) stale.covered = this.#context.clock.now;
    }
  }

  /** A CMD_ATC_INV that was consumed at `consumed` has completed. */
  completed(inv: AtcInv, consumed: number): void {
    if (inv.all && inv.ssid === -1) {
      this.#broken.delete(inv.sid);
      if (!this.#on.has(inv.sid) || !this.#mayCache(inv.sid)) this.#holding.delete(inv.sid);
    }
    if (this.#stale.length === 0) return;
    this.#stale = this.#stale.filter((stale) => {
      const gone = stale.sid === inv.sid && stale.covered === consumed;
      if (gone) this.#noteCleared(stale);
      return !gone;
    });
    if (this.#stale.length === 0) this.#cleared.clear();
  }

  #mayCache(sid: number): boolean {
    return (this.#view.stream(sid)?.uses ?? []).some((use) => use.EATS !== EATS.OFF);
  }

  /** An endpoint that did not answer has its ATS off and no STE that allows any: what it holds is refused (3.9.1.4). */
  #cutOff(sid: number): boolean {
    return this.#broken.has(sid) && !this.#on.has(sid) && this.#view.ATSCHK && !this.#mayCache(sid);
  }

  #noteCleared({ unit, born, sid }: AtcStale): void {
    const key = `${unit} ${born}`;
    const known = this.#cleared.get(key);
    if (known === undefined) this.#cleared.set(key, new Set([sid]));
    else known.add(sid);
  }

  /** CERROR_ATC_INV_SYNC: the endpoints of these streams may hold everything. */
  timedOut(sids: Iterable<number>): void {
    for (const sid of sids) if (this.#endpoints.has(sid)) this.#broken.add(sid);
  }

  /** Stale translations that lead to output pages [first, end) are found out. */
  freed(first: number, end: number): void {
    this.#take((stale) => stale.out < end && stale.out + (stale.end - stale.first) > first, 'was given back');
  }

  /** An unmap was reported done. */
  unmapped(what: string, { since, before, first, end }: Since): void {
    this.#take(
      (stale) => stale.born >= since && stale.born <= before && stale.first < end && stale.end > first,
      `was unmapped ("${what}" reported done)`,
      1,
    );
  }

  #take(which: (stale: AtcStale) => boolean, how: string, most = Number.POSITIVE_INFINITY): void {
    if (this.#stale.length === 0) return;
    const hit = this.#stale.filter(which);
    if (hit.length === 0) return;
    this.#stale = this.#stale.filter((stale) => !which(stale));
    // What the TLB still holds is found as TLB-*: once is enough.
    const told = hit
      .filter(({ tag, first, end, sid }) => !this.#cutOff(sid) && !this.#view.inTlb(tag, first, end))
      .slice(0, most);
    for (const stale of told) {
      const { rule, why } = this.#blame(stale);
      const page = hex(BigInt(stale.out) << 12n);
      this.#context.report(
        rule,
        `${this.#smmu}: page ${page} (${showTag(stale.tag)}) ${how} while the endpoint of StreamID ${hex(stale.sid)} may hold a translation to it: ${why}`,
        {
          smmu: this.#smmu,
          StreamID: stale.sid,
          address: BigInt(stale.unit) * 8n,
          ...(stale.tag.VMID < 0 ? {} : { VMID: stale.tag.VMID }),
        },
        [[stale.unit, stale.unit + 1]],
      );
    }
  }

  #blame(stale: AtcStale): Blame {
    if (this.#broken.has(stale.sid)) return { rule: 'ATS-8', why: 'its CMD_ATC_INV timed out' };
    if (stale.covered > 0) return { rule: 'ATS-1', why: 'its CMD_ATC_INV has not been completed by a CMD_SYNC' };
    if (stale.early)
      return { rule: 'ATS-2', why: 'CMD_ATC_INV was consumed before the TLB invalidation had completed' };
    if (stale.ranged) return { rule: 'ATS-10', why: 'CMD_ATC_INV had a range of intermediate addresses' };
    if (stale.pasid) return { rule: 'ATS-9', why: 'CMD_ATC_INV had a SubstreamID, the translation has none' };
    const endpoint = this.#endpoints.get(stale.sid);
    const others = [...(this.#cleared.get(`${stale.unit} ${stale.born}`) ?? [])].filter(
      (sid) => this.#endpoints.get(sid) === endpoint,
    );
    if (others.length > 0)
      return { rule: 'ATS-14', why: `only ${others.map(hex).join(', ')} of the device was invalidated` };
    return { rule: 'ATS-1', why: 'no CMD_ATC_INV that covers it has completed' };
  }

  /** A stream gets another owner. */
  given(sid: number, owner: string): void {
    if (this.#holding.has(sid) && !this.#cutOff(sid))
      this.#report(
        'ATS-12',
        sid,
        `StreamID ${hex(sid)} was given to ${owner} while its endpoint may hold translations`,
      );
  }

  #report(rule: string, sid: number, what: string, stream?: Stream): void {
    this.#context.report(
      rule,
      `${this.#smmu}: ${what}`,
      { smmu: this.#smmu, StreamID: sid },
      stream === undefined ? [] : [stream.units],
    );
  }
}

/** Neither invalid nor aborting. */
const active = (ste: Words): boolean => slotValue(ste, V) !== 0 && slotValue(ste, CONFIG) >= CONFIGS.BYPASS;

/** EATS as it counts. */
const effective = (ste: Words, caps: Caps): number =>
  caps.ATS && active(ste) && slotValue(ste, CONFIG) > CONFIGS.BYPASS ? slotValue(ste, EATS_SLOT) : EATS.OFF;
