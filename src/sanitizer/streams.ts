/** The STEs of one SMMU: where they lie, what caches may hold of them, who uses which tag (rules CFG-1 to CFG-6). */
import { type Caps, L1STD, STE, slotValue, type Words } from '../../spec/index.ts';
import { inPlace } from '../hw/in-place.ts';
import type { TranslationRegs } from '../hw/transaction.ts';
import { Candidates } from './candidates.ts';
import type { CfgiSte } from './commands.ts';
import { type Context, hex } from './context.ts';
import type { Sink } from './pages.ts';
import { configName, type SteFacts, type Use } from './ste-facts.ts';
import { unitOf } from './units.ts';
import { judgeUpdate, type RecordFacts, unsettled, type Verdict } from './update.ts';
import type { VmidUser } from './vmids.ts';

/** 64-bit units of an STE. */
const STE_UNITS = STE.bytes / 8;
const STE_LOG2 = Math.log2(STE.bytes);
const V = STE.slot('V');
const CONT_SLOT = STE.slot('CONT');
const CONT_MASK = STE.mask(['CONT']);
const SPAN = L1STD.slot('Span');
const L2PTR = inPlace(L1STD, 'L2Ptr');

/** What the parts about one SMMU have to know of it. */
export interface SmmuView {
  readonly name: string;
  readonly caps: Caps;
  readonly regs: TranslationRegs;
}

/** A StreamID and its STE. */
export class Stream implements VmidUser {
  readonly sid: number;
  readonly unit: number;
  readonly units: readonly [number, number];
  readonly candidates: Candidates;
  uses: readonly Use[] = [];
  memoryVmid = -1;
  /** Last change that was looked at for torn images, and for reliance. */
  judged = -1;
  relied = -1;
  /** Last change after which its CONT block was looked at. */
  block = -1;

  constructor(sid: number, unit: number, words: Words) {
    this.sid = sid;
    this.unit = unit;
    this.units = [unit, unit + STE_UNITS];
    this.candidates = new Candidates(words);
  }
}

/** Hears that a stream translates in other ways than before. */
export type UsesChanged = (stream: Stream, before: readonly Use[], after: readonly Use[], consumed: number) => void;

/** A level 2 table, or the whole of a linear one. */
class SteRegion implements Sink {
  readonly first: number;
  readonly firstSid: number;
  readonly count: number;
  readonly #streams: Streams;

  constructor(streams: Streams, first: number, firstSid: number, count: number) {
    this.#streams = streams;
    this.first = first;
    this.firstSid = firstSid;
    this.count = count;
  }

  stored(unit: number, oldHi: number, oldLo: number, newHi: number, newLo: number): void {
    const at = unit - this.first;
    const sid = this.firstSid + Math.floor(at / STE_UNITS);
    this.#streams.steStored(sid, unit - (at % STE_UNITS), at % STE_UNITS, oldHi, oldLo, newHi, newLo);
  }

  get units(): number {
    return this.count * STE_UNITS;
  }
}

/** A level 2 table that an L1STD no longer names but caches may. */
interface Abandoned {
  readonly region: SteRegion;
  readonly since: number;
  /** A CFGI that keeps L1STDs was sent for the span meanwhile. */
  leafOnly: boolean;
}

/** See the module comment. */
export class Streams implements Sink {
  readonly facts: SteFacts;
  readonly #context: Context;
  readonly #smmu: SmmuView;
  readonly #changed: UsesChanged;
  readonly #streams = new Map<number, Stream>();
  /** Streams whose STE has more than one candidate. */
  readonly #open = new Set<Stream>();
  readonly #regions = new Map<number, SteRegion>();
  readonly #abandoned = new Map<number, Abandoned>();
  /** L1STDs that became active while caches may know that they were not, and since when. */
  readonly #fresh = new Map<number, number>();
  /** When a CFGI_STE of a stream was consumed last. */
  readonly #cfgis = new Map<number, number>();
  readonly #scratch = STE.zero();
  readonly #l1std = L1STD.zero();
  readonly #record: RecordFacts;
  /** Called when an STE changed while SMMUEN was 0. */
  onStoreWhileOff: (() => void) | null = null;
  #l1 = -1;
  #l1Units = 0;
  #split = 0;

  constructor(context: Context, smmu: SmmuView, facts: SteFacts, changed: UsesChanged) {
    this.#context = context;
    this.#smmu = smmu;
    this.facts = facts;
    this.#changed = changed;
    this.#record = {
      valid: (words) => slotValue(words, V) !== 0,
      used: (words) => facts.used(words),
      safe: (from, to) => facts.safe(from, to),
      problem: (words) => facts.problem(words),
    };
  }

  /** A stream by its StreamID, if anything is known of it. */
  find(sid: number): Stream | undefined {
    return this.#streams.get(sid);
  }

  /** Every stream of which something is known. */
  all(): Iterable<Stream> {
    return this.#streams.values();
  }

  /** The table begins to be read: SMMUEN is 1. What was known of another table is forgotten. */
  open(): void {
    this.close();
    const { regs, caps } = this.#smmu;
    const size = Math.min(regs.LOG2SIZE, caps.SIDSIZE);
    if (regs.twoLevel && caps.ST_LEVEL !== 0) this.#openTwoLevel(size);
    else {
      const base = unitOf(regs.strtabHi, regs.strtabLo);
      const align = 2 ** (regs.LOG2SIZE + STE_LOG2 - 3);
      this.#addRegion(0, base - (base % align), 0, 2 ** size);
    }
  }

  #openTwoLevel(size: number): void {
    const { regs } = this.#smmu;
    this.#split = regs.SPLIT;
    const base = unitOf(regs.strtabHi, regs.strtabLo);
    const align = 2 ** Math.max(STE_LOG2 - 3, regs.LOG2SIZE - regs.SPLIT);
    this.#l1 = base - (base % align);
    this.#l1Units = 2 ** Math.max(0, size - regs.SPLIT);
    this.#context.pages.add(this.#l1, this.#l1Units, this);
    for (let index = 0; index < this.#l1Units; index++)
      if (this.#context.peek.load(this.#l1 + index))
        this.#activate(index, this.#context.peek.hi, this.#context.peek.lo);
  }

  /** Forgets the table. */
  close(): void {
    if (this.#l1 >= 0) this.#context.pages.remove(this.#l1, this.#l1Units, this);
    this.#l1 = -1;
    for (const { region } of this.#abandoned.values()) this.#context.pages.remove(region.first, region.units, region);
    for (const region of this.#regions.values()) this.#context.pages.remove(region.first, region.units, region);
    this.#regions.clear();
    this.#abandoned.clear();
    this.#fresh.clear();
    for (const stream of [...this.#streams.values()]) this.#setUses(stream, [], this.#context.clock.now);
    this.#streams.clear();
    this.#open.clear();
  }

  #activate(index: number, hi: number, lo: number): void {
    this.#l1std[0] = lo;
    this.#l1std[1] = hi;
    const span = slotValue(this.#l1std, SPAN);
    if (span === 0 || span > this.#split + 1) return;
    const count = 2 ** (span - 1);
    const unit = unitOf(hi & L2PTR.hiMask, lo & L2PTR.loMask);
    this.#addRegion(index, unit - (unit % (count * STE_UNITS)), index * 2 ** this.#split, count);
  }

  #addRegion(index: number, first: number, firstSid: number, count: number): void {
    const region = new SteRegion(this, first, firstSid, count);
    this.#regions.set(index, region);
    this.#context.pages.add(first, region.units, region);
    const { peek } = this.#context;
    for (let i = 0; i < count; i++) {
      const unit = first + i * STE_UNITS;
      if (!peek.load(unit) || (peek.lo & V.mask) === 0 || !peek.words(unit, this.#scratch)) continue;
      if (this.facts.use(this.#scratch, this.#smmu.regs.E2H) !== undefined)
        this.#recompute(this.#add(firstSid + i, unit, this.#scratch), this.#context.clock.now);
    }
  }

  #add(sid: number, unit: number, words: Words): Stream {
    const stream = new Stream(sid, unit, words);
    this.#streams.set(sid, stream);
    return stream;
  }

  /** An L1STD changed. */
  stored(unit: number, oldHi: number, oldLo: number, newHi: number, newLo: number): void {
    const index = unit - this.#l1;
    const region = this.#regions.get(index);
    if (region !== undefined && (oldHi !== newHi || oldLo !== newLo)) {
      const before = this.#abandoned.get(index);
      if (before !== undefined) this.#context.pages.remove(before.region.first, before.region.units, before.region);
      this.#abandoned.set(index, { region, since: this.#context.clock.now, leafOnly: false });
      this.#regions.delete(index);
    }
    this.#activate(index, newHi, newLo);
    const now = this.#regions.get(index);
    if (now === undefined || now === region) return;
    if (region === undefined) this.#fresh.set(index, this.#context.clock.now);
    if (!this.#context.overtakes(now.first, now.units)) return;
    this.#context.report(
      'CFG-9',
      `${this.#smmu.name}: the L1STD of StreamID ${hex(now.firstSid)} became visible before STEs that it leads to`,
      { smmu: this.#smmu.name, StreamID: now.firstSid, address: BigInt(unit) * 8n },
      [[unit, unit + 1]],
    );
  }

  /** A 64-bit word of an STE changed. */
  steStored(sid: number, unit: number, qword: number, oldHi: number, oldLo: number, hi: number, lo: number): void {
    let stream = this.#streams.get(sid);
    if (stream === undefined || stream.unit !== unit) {
      if (!this.#context.peek.words(unit, this.#scratch)) return;
      this.#scratch[2 * qword] = oldLo;
      this.#scratch[2 * qword + 1] = oldHi;
      stream = this.#add(sid, unit, this.#scratch);
    }
    const issued = this.#context.issued(unit + qword);
    if (issued !== undefined && (this.#cfgis.get(sid) ?? -1) > issued)
      this.#report('CFG-9', stream, 'was stored before a CMD_CFGI_STE of it was consumed, and became visible after it');
    stream.candidates.store(qword, hi, lo, this.#context.clock.now);
    if (!this.#smmu.regs.SMMUEN) {
      // Hardware fetches nothing (6.3.9.6): it will see what stands there in the end.
      stream.candidates.prune(this.#context.clock.now);
      this.onStoreWhileOff?.();
      return;
    }
    this.#open.add(stream);
    this.#recompute(stream, this.#context.clock.now);
  }

  #recompute(stream: Stream, consumed: number): void {
    const uses: Use[] = [];
    const e2h = this.#smmu.regs.E2H;
    const add = (image: Words): void => {
      const use = this.facts.use(image, e2h);
      if (use === undefined) return;
      const at = uses.findIndex(({ key }) => key === use.key);
      uses[at < 0 ? uses.length : at] = use;
    };
    if (!stream.candidates.images(0, this.#scratch, add)) {
      this.#context.capped(`images of STE ${hex(stream.sid)}`);
      add(stream.candidates.newest(this.#scratch));
    }
    stream.memoryVmid = this.facts.use(stream.candidates.newest(this.#scratch), e2h)?.VMID ?? -1;
    this.#setUses(stream, uses, consumed);
  }

  #setUses(stream: Stream, uses: readonly Use[], consumed: number): void {
    const before = stream.uses;
    if (before.length === uses.length && before.every(({ key }, i) => key === uses[i]?.key)) return;
    stream.uses = uses;
    this.#changed(stream, before, uses, consumed);
  }

  /** A CFGI was consumed: what it invalidates is judged as one update. */
  consumed(cfgi: CfgiSte): void {
    for (const stream of this.#inRange(cfgi)) this.judge(stream);
    if (cfgi.first === cfgi.last) this.#cfgis.set(cfgi.first, this.#context.clock.now);
    if (!cfgi.leaf) return;
    for (const abandoned of this.#abandoned.values()) if (overlaps(cfgi, abandoned.region)) abandoned.leafOnly = true;
  }

  /** A CFGI that was consumed at `consumed` has completed. */
  completed(cfgi: CfgiSte, consumed: number): void {
    for (const stream of this.#inRange(cfgi)) {
      stream.candidates.prune(consumed);
      if (stream.candidates.open(0) === 0) this.#open.delete(stream);
      this.#recompute(stream, consumed);
    }
    if (cfgi.leaf) return;
    for (const [index, since] of [...this.#fresh]) {
      const region = this.#regions.get(index);
      if (region === undefined || (since <= consumed && overlaps(cfgi, region))) this.#fresh.delete(index);
    }
    for (const [index, { region, since }] of [...this.#abandoned])
      if (since <= consumed && overlaps(cfgi, region)) {
        this.#abandoned.delete(index);
        this.#dropRegion(region);
      }
  }

  #dropRegion(region: SteRegion): void {
    this.#context.pages.remove(region.first, region.units, region);
    for (const stream of [...this.#streams.values()])
      if (stream.unit >= region.first && stream.unit < region.first + region.units) {
        this.#setUses(stream, [], this.#context.clock.now);
        this.#streams.delete(stream.sid);
        this.#open.delete(stream);
      }
  }

  #inRange({ first, last }: CfgiSte): Stream[] {
    if (first === last) {
      const stream = this.#streams.get(first);
      return stream !== undefined && this.#open.has(stream) ? [stream] : [];
    }
    return [...this.#open].filter(({ sid }) => sid >= first && sid <= last);
  }

  /** Looks for images that are neither the old nor the new STE. */
  judge(stream: Stream): void {
    if (stream.judged === stream.candidates.changed) return;
    stream.judged = stream.candidates.changed;
    const verdict = judgeUpdate(stream.candidates, 0, this.#record, STE.bytes);
    if (verdict?.capped === true) this.#context.capped(`images of STE ${hex(stream.sid)}`);
    const found = verdict === null ? undefined : tornRule(verdict);
    if (verdict !== null && found !== undefined) this.#reportTorn(stream, verdict, found);
    const now = stream.candidates.newest(STE.zero());
    const problem = slotValue(now, V) === 0 ? undefined : this.facts.problem(now);
    if (problem === undefined) return;
    const rule = problem.fields[0] === 'S2VMID' ? 'VMID-9' : 'CFG-5';
    this.#report(rule, stream, `is ILLEGAL: ${problem.message} [${problem.rule}]`);
  }

  #reportTorn(stream: Stream, verdict: Verdict, rule: string): void {
    if (rule === 'CFG-5') {
      const { illegal } = verdict;
      this.#report(rule, stream, `passes through an ILLEGAL state: ${illegal?.message} [${illegal?.rule}]`);
    } else if (verdict.torn !== null)
      this.#report(rule, stream, `${HOW[rule]}: hardware may see ${describe(verdict.torn)}, neither old nor new`);
  }

  /**
   * Software relies on a stream being what memory says.
   * @param why for example "a transaction arrives"
   */
  relies(sid: number, why: string, rule = 'CFG-1'): void {
    const stream = this.#streams.get(sid);
    this.#judgeAbandoned(sid, why);
    this.#judgeFresh(sid, why);
    if (stream !== undefined) this.#judgeBlock(stream, why);
    if (stream === undefined || !this.#open.has(stream)) return;
    this.judge(stream);
    if (stream.relied === stream.candidates.changed) return;
    if (!unsettled(stream.candidates, 0, this.#record, STE.bytes)) return;
    stream.relied = stream.candidates.changed;
    this.#report(rule, stream, `was changed and no CMD_CFGI_STE of it has completed when ${why}`);
  }

  /** CFG-17: the STEs of a CONT block are equal but for CONT. */
  #judgeBlock(stream: Stream, why: string): void {
    const ste = stream.candidates.newest(STE.zero());
    const CONT = slotValue(ste, CONT_SLOT);
    if (CONT === 0 || slotValue(ste, V) === 0 || stream.block === stream.candidates.changed) return;
    stream.block = stream.candidates.changed;
    const first = stream.sid - (stream.sid % 2 ** CONT);
    const other = STE.zero();
    for (let sid = first; sid < first + 2 ** CONT; sid++) {
      const unit = stream.unit + (sid - stream.sid) * STE_UNITS;
      if (sid === stream.sid || !this.#context.peek.words(unit, other)) continue;
      if (other.every((word, i) => ((word ^ (ste[i] ?? 0)) & ~(CONT_MASK[i] ?? 0)) === 0)) continue;
      this.#report('CFG-17', stream, `has CONT=${CONT} and differs from STE ${hex(sid)} of its block when ${why}`);
      return;
    }
  }

  /** Open streams, for a reliance on all. */
  openSids(): number[] {
    return [...this.#open].map(({ sid }) => sid);
  }

  #judgeAbandoned(sid: number, why: string): void {
    if (this.#abandoned.size === 0) return;
    for (const [index, { region, leafOnly }] of [...this.#abandoned]) {
      if (sid < region.firstSid || sid >= region.firstSid + region.count) continue;
      const how = leafOnly ? 'only with Leaf=1 (L1STDs stay)' : 'not at all';
      const at = this.#l1 + index;
      this.#context.report(
        'CFG-6',
        `${this.#smmu.name}: the L1STD of StreamID ${hex(sid)} changed and was invalidated ${how} when ${why}`,
        { smmu: this.#smmu.name, StreamID: sid, address: BigInt(at) * 8n },
        [[at, at + 1]],
      );
      this.#abandoned.delete(index);
      this.#dropRegion(region);
    }
  }

  /** A Span of 0 may be cached: the table behind it is then not found (5.1.1). */
  #judgeFresh(sid: number, why: string): void {
    if (this.#fresh.size === 0) return;
    const index = Math.floor(sid / 2 ** this.#split);
    if (!this.#fresh.delete(index)) return;
    const at = this.#l1 + index;
    this.#context.report(
      'CFG-6',
      `${this.#smmu.name}: the L1STD of StreamID ${hex(sid)} became active, and no CMD_CFGI_STE with Leaf=0 has completed when ${why}`,
      { smmu: this.#smmu.name, StreamID: sid, address: BigInt(at) * 8n },
      [[at, at + 1]],
    );
  }

  /** A page was given back: no level 2 table that caches may know may lie in it. */
  freed(first: number, end: number): void {
    for (const { region } of [...this.#abandoned.values()])
      if (region.first < end && region.first + region.units > first)
        this.#judgeAbandoned(region.firstSid, 'its level 2 table was given back');
  }

  #report(rule: string, stream: Stream, what: string): void {
    this.#context.report(
      rule,
      `${this.#smmu.name}: STE ${hex(stream.sid)} ${what}`,
      { smmu: this.#smmu.name, StreamID: stream.sid, address: BigInt(stream.unit) * 8n },
      [stream.units],
    );
  }
}

const overlaps = (cfgi: CfgiSte, region: SteRegion): boolean =>
  cfgi.first < region.firstSid + region.count && cfgi.last >= region.firstSid;

const HOW: Readonly<Record<string, string>> = {
  'CFG-2': 'changed in more than one word between two invalidations',
  'CFG-3': 'became valid before an invalidation of what was filled in while V=0',
  'CFG-4': 'changed in two or more used words while V=1',
};

/** Which rule an update broke; undefined: none. */
export function tornRule(verdict: Verdict): 'CFG-2' | 'CFG-3' | 'CFG-4' | 'CFG-5' | undefined {
  if (verdict.torn === null) return verdict.illegal === null ? undefined : 'CFG-5';
  if (!verdict.wasValid && verdict.isValid) return 'CFG-3';
  return verdict.wasValid && verdict.isValid && !verdict.passedInvalid ? 'CFG-4' : 'CFG-2';
}

function describe(words: Words): string {
  const parts = [`Config=${configName(words)}`];
  for (const name of ['S1ContextPtr', 'S2VMID', 'S2TTB'] as const) {
    const value = STE.field(name).address === undefined ? STE.get(words, name) : STE.address(words, name);
    if (value !== 0n) parts.push(`${name}=${hex(value)}`);
  }
  return parts.join(' ');
}
