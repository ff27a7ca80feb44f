/** The host's CDs on one SMMU: where they lie, through which streams, what caches may hold of them. */
import { CD, L1CD, slotValue, type Words } from '../../spec/index.ts';
import { inPlace } from '../hw/in-place.ts';
import type { Asids, AsidTag, AsidUser } from './asids.ts';
import { Candidates } from './candidates.ts';
import type { CdFacts, CdView } from './cd-facts.ts';
import type { CfgiCd, CfgiSte } from './commands.ts';
import { type Context, hex } from './context.ts';
import type { Sink } from './pages.ts';
import type { CdRoot, Use } from './ste-facts.ts';
import { type SmmuView, type Stream, tornRule } from './streams.ts';
import { unitOf } from './units.ts';
import { judgeUpdate, unsettled } from './update.ts';

const CD_UNITS = CD.bytes / 8;
const V = CD.slot('V');
const L1_V = L1CD.slot('V');
const L2PTR = inPlace(L1CD, 'L2Ptr');

/** A CD as one stream sees it. */
interface Seat extends AsidUser {
  readonly stream: Stream;
  /** What was replaced at this time or before is in no cache under this stream. */
  since: number;
  tags: AsidTag[];
  memoryAsid: number;
  judged: number;
  relied: number;
  /** When a CFGI_CD for this stream was consumed last. */
  cfgi: number;
}

/** A CD and the streams that reach it. */
class CdRecord {
  readonly index: number;
  readonly unit: number;
  readonly candidates: Candidates;
  readonly seats = new Map<Stream, Seat>();

  constructor(index: number, unit: number, words: Words) {
    this.index = index;
    this.unit = unit;
    this.candidates = new Candidates(words);
  }
}

/** Contiguous CDs. */
class CdRegion implements Sink {
  readonly first: number;
  readonly firstIndex: number;
  readonly count: number;
  readonly #table: CdTable;

  constructor(table: CdTable, first: number, firstIndex: number, count: number) {
    this.#table = table;
    this.first = first;
    this.firstIndex = firstIndex;
    this.count = count;
  }

  stored(unit: number, oldHi: number, oldLo: number, newHi: number, newLo: number): void {
    const at = unit - this.first;
    const index = this.firstIndex + Math.floor(at / CD_UNITS);
    this.#table.cds.cdStored(this.#table, index, unit - (at % CD_UNITS), at % CD_UNITS, oldHi, oldLo, newHi, newLo);
  }
}

/** A CD table, shared by all streams whose STEs name it. */
class CdTable implements Sink {
  readonly root: CdRoot;
  readonly cds: Cds;
  readonly records = new Map<number, CdRecord>();
  readonly streams = new Map<Stream, Use>();
  /** When each stream began to reach the table. */
  readonly reachedAt = new Map<Stream, number>();
  /** CDs with more than one candidate. */
  readonly open = new Set<CdRecord>();
  readonly leaves = new Map<number, CdRegion>();
  /** Leaf tables that an L1CD no longer names but caches may, with the time of the change. */
  readonly abandoned = new Map<number, { readonly region: CdRegion; readonly since: number; leafOnly: boolean }>();

  constructor(root: CdRoot, cds: Cds) {
    this.root = root;
    this.cds = cds;
  }

  /** An L1CD changed. */
  stored(unit: number, _oldHi: number, _oldLo: number, newHi: number, newLo: number): void {
    this.cds.l1Stored(this, unit - this.root.unit, newHi, newLo);
  }

  get l1Units(): number {
    return 2 ** Math.max(0, this.root.max - this.root.leafLog2);
  }
}

const keyOf = ({ unit, leafLog2, max }: CdRoot): string => `${unit}/${leafLog2}/${max}`;

/** See the module comment. */
export class Cds {
  readonly #context: Context;
  readonly #smmu: SmmuView;
  readonly #facts: CdFacts;
  readonly #asids: Asids;
  readonly #tables = new Map<string, CdTable>();
  readonly #views = new Map<Use, CdView>();
  /** Streams and the tables they reach. */
  readonly #reached = new Map<Stream, Set<CdTable>>();
  readonly #scratch = CD.zero();
  /** Called when a CD changed while SMMUEN was 0. */
  onStoreWhileOff: (() => void) | null = null;
  /** Called when the valid image of a CD that a stream may walk changed. */
  onWalks: ((stream: Stream, index: number, images: readonly Words[], use: Use | null) => void) | null = null;

  constructor(context: Context, smmu: SmmuView, facts: CdFacts, asids: Asids) {
    this.#context = context;
    this.#smmu = smmu;
    this.#facts = facts;
    this.#asids = asids;
  }

  /** A stream translates in other ways than before. */
  update(stream: Stream, uses: readonly Use[], consumed: number): void {
    const before = this.#reached.get(stream) ?? new Set<CdTable>();
    const after = new Set<CdTable>();
    for (const use of uses) {
      if (use.cds === null) continue;
      const table = this.#table(use.cds);
      after.add(table);
      const known = table.streams.get(stream);
      table.streams.set(stream, use);
      this.#judgeWorlds(table, stream, use);
      if (known === undefined) table.reachedAt.set(stream, this.#context.clock.now);
      if (known?.key !== use.key) this.#views.set(use, this.#facts.through(use.words, this.#smmu.regs.E2H));
      if (known !== undefined && known.key !== use.key) this.#views.delete(known);
      for (const record of table.records.values()) this.#seat(table, record, stream, consumed);
    }
    for (const table of before) if (!after.has(table)) this.#leave(table, stream, consumed);
    if (after.size > 0) this.#reached.set(stream, after);
    else this.#reached.delete(stream);
  }

  /** CFG-13: a CD means one thing in one StreamWorld. */
  #judgeWorlds(table: CdTable, stream: Stream, use: Use): void {
    for (const [other, its] of table.streams)
      if (other !== stream && its.world !== use.world) {
        this.#context.report(
          'CFG-13',
          `${this.#smmu.name}: STEs ${hex(other.sid)} (${its.world}) and ${hex(stream.sid)} (${use.world}) reach one CD table`,
          { smmu: this.#smmu.name, StreamID: stream.sid, address: BigInt(table.root.unit) * 8n },
          [stream.units, other.units],
        );
        return;
      }
  }

  #leave(table: CdTable, stream: Stream, consumed: number): void {
    const use = table.streams.get(stream);
    if (use !== undefined) this.#views.delete(use);
    table.streams.delete(stream);
    table.reachedAt.delete(stream);
    for (const record of table.records.values()) {
      const seat = record.seats.get(stream);
      if (seat === undefined) continue;
      for (const tag of seat.tags) this.#asids.leave(tag, seat, consumed);
      record.seats.delete(stream);
      this.onWalks?.(stream, record.index, [], null);
    }
    if (table.streams.size > 0) return;
    this.#tables.delete(keyOf(table.root));
    if (table.root.leafLog2 !== 0) this.#context.pages.remove(table.root.unit, table.l1Units, table);
    for (const region of [...table.leaves.values(), ...[...table.abandoned.values()].map(({ region }) => region)])
      this.#context.pages.remove(region.first, region.count * CD_UNITS, region);
  }

  #table(root: CdRoot): CdTable {
    const known = this.#tables.get(keyOf(root));
    if (known !== undefined) return known;
    const table = new CdTable(root, this);
    this.#tables.set(keyOf(root), table);
    if (root.leafLog2 === 0) this.#addLeaf(table, 0, root.unit, 0, 2 ** root.max);
    else {
      this.#context.pages.add(root.unit, table.l1Units, table);
      for (let i = 0; i < table.l1Units; i++)
        if (this.#context.peek.load(root.unit + i))
          this.#activate(table, i, this.#context.peek.hi, this.#context.peek.lo);
    }
    return table;
  }

  #activate(table: CdTable, i: number, hi: number, lo: number): void {
    if (slotValue(Uint32Array.of(lo, hi), L1_V) === 0) return;
    const count = 2 ** Math.min(table.root.leafLog2, table.root.max);
    const unit = unitOf(hi & L2PTR.hiMask, lo & L2PTR.loMask);
    this.#addLeaf(table, i, unit - (unit % (2 ** table.root.leafLog2 * CD_UNITS)), i * 2 ** table.root.leafLog2, count);
  }

  #addLeaf(table: CdTable, i: number, first: number, firstIndex: number, count: number): void {
    const region = new CdRegion(table, first, firstIndex, count);
    table.leaves.set(i, region);
    this.#context.pages.add(first, count * CD_UNITS, region);
    const { peek } = this.#context;
    for (let n = 0; n < count; n++) {
      const unit = first + n * CD_UNITS;
      if (!peek.load(unit) || slotValue(Uint32Array.of(peek.lo, peek.hi), V) === 0) continue;
      if (peek.words(unit, this.#scratch)) this.#add(table, firstIndex + n, unit, this.#scratch);
    }
  }

  #add(table: CdTable, index: number, unit: number, words: Words): CdRecord {
    const record = new CdRecord(index, unit, words);
    table.records.set(index, record);
    for (const stream of table.streams.keys()) this.#seat(table, record, stream, this.#context.clock.now);
    return record;
  }

  /** An L1CD changed: a leaf table that it named may stay in caches. */
  l1Stored(table: CdTable, i: number, hi: number, lo: number): void {
    const leaf = table.leaves.get(i);
    if (leaf !== undefined) {
      table.leaves.delete(i);
      table.abandoned.set(i, { region: leaf, since: this.#context.clock.now, leafOnly: false });
    }
    this.#activate(table, i, hi, lo);
    const now = table.leaves.get(i);
    if (now === undefined || now === leaf || !this.#context.overtakes(now.first, now.count * CD_UNITS)) return;
    const at = table.root.unit + i;
    this.#context.report(
      'CFG-9',
      `${this.#smmu.name}: the L1CD of SubstreamID ${now.firstIndex} became visible before CDs that it leads to`,
      { smmu: this.#smmu.name, SubstreamID: now.firstIndex, address: BigInt(at) * 8n },
      [[at, at + 1]],
    );
  }

  /** A 64-bit word of a CD changed. */
  cdStored(
    table: CdTable,
    index: number,
    unit: number,
    qword: number,
    oldHi: number,
    oldLo: number,
    hi: number,
    lo: number,
  ): void {
    let record = table.records.get(index);
    if (record === undefined || record.unit !== unit) {
      if (!this.#context.peek.words(unit, this.#scratch)) return;
      this.#scratch[2 * qword] = oldLo;
      this.#scratch[2 * qword + 1] = oldHi;
      record = this.#add(table, index, unit, this.#scratch);
    }
    const issued = this.#context.issued(unit + qword);
    if (issued !== undefined)
      for (const seat of record.seats.values())
        if (seat.cfgi > issued)
          this.#report(
            'CFG-9',
            seat,
            'was stored before a CMD_CFGI_CD of it was consumed, and became visible after it',
          );
    record.candidates.store(qword, hi, lo, this.#context.clock.now);
    if (!this.#smmu.regs.SMMUEN) {
      record.candidates.prune(this.#context.clock.now);
      this.onStoreWhileOff?.();
      return;
    }
    table.open.add(record);
    for (const stream of table.streams.keys()) this.#seat(table, record, stream, this.#context.clock.now);
  }

  /** Brings what a stream may see of a CD up to date. */
  #seat(table: CdTable, record: CdRecord, stream: Stream, consumed: number): void {
    const use = table.streams.get(stream);
    if (use === undefined) return;
    let seat = record.seats.get(stream);
    if (seat === undefined) {
      // Before the stream reached the table nothing of it could be cached under the stream.
      const since = table.reachedAt.get(stream) ?? 0;
      const units: readonly [number, number] = [record.unit, record.unit + CD_UNITS];
      seat = {
        stream,
        sid: stream.sid,
        ssid: record.index,
        units,
        since,
        tags: [],
        memoryAsid: -1,
        judged: -1,
        relied: -1,
        cfgi: -1,
      };
      record.seats.set(stream, seat);
    }
    const view = this.#view(use);
    const images: Words[] = [];
    const tags = new Map<string, { readonly tag: AsidTag; readonly key: string }>();
    const see = (image: Words): void => {
      if (!view.valid(image)) return;
      images.push(image.slice());
      const tag = { world: use.world, VMID: use.VMID, ASID: view.asid(image) };
      tags.set(`${tag.VMID} ${tag.ASID}`, { tag, key: view.cachedKey(image) });
    };
    if (!record.candidates.images(seat.since, this.#scratch, see)) {
      this.#context.capped(`images of CD ${hex(stream.sid)}/${record.index}`);
      see(record.candidates.newest(this.#scratch));
    }
    const memory = record.candidates.newest(this.#scratch);
    seat.memoryAsid = view.valid(memory) ? view.asid(memory) : -1;
    const after = [...tags.values()].map(({ tag }) => tag);
    for (const tag of seat.tags) if (!after.some((one) => sameTag(one, tag))) this.#asids.leave(tag, seat, consumed);
    for (const { tag, key } of tags.values()) this.#asids.install(tag, seat, key);
    seat.tags = after;
    this.onWalks?.(stream, record.index, images, use);
  }

  #view(use: Use): CdView {
    let view = this.#views.get(use);
    if (view === undefined) {
      view = this.#facts.through(use.words, this.#smmu.regs.E2H);
      this.#views.set(use, view);
    }
    return view;
  }

  #records(stream: Stream | undefined, ssid: number): [CdTable, CdRecord][] {
    const out: [CdTable, CdRecord][] = [];
    if (stream === undefined) return out;
    for (const table of this.#reached.get(stream) ?? [])
      if (ssid < 0) for (const record of table.open) out.push([table, record]);
      else {
        const record = table.records.get(ssid);
        if (record !== undefined) out.push([table, record]);
      }
    return out;
  }

  /** A CFGI_CD was consumed. */
  consumed(cfgi: CfgiCd, stream: Stream | undefined): void {
    for (const [table, record] of this.#records(stream, cfgi.ssid)) {
      if (stream === undefined) break;
      this.#judge(table, record, stream);
      const seat = record.seats.get(stream);
      if (seat !== undefined) seat.cfgi = this.#context.clock.now;
    }
    if (stream === undefined || !cfgi.leaf) return;
    for (const table of this.#reached.get(stream) ?? [])
      for (const abandoned of table.abandoned.values()) abandoned.leafOnly = true;
  }

  /** A CFGI_CD that was consumed at `consumed` has completed. */
  completed(cfgi: CfgiCd, stream: Stream | undefined, consumed: number): void {
    if (stream === undefined) return;
    for (const [table, record] of this.#records(stream, cfgi.ssid)) this.#settle(table, record, stream, consumed);
    if (!cfgi.leaf) this.#dropAbandoned(stream, cfgi.ssid, consumed);
  }

  /** A CFGI_STE drops the CDs of its streams as well (4.3.1). */
  steConsumed(streams: Iterable<Stream>): void {
    for (const stream of streams)
      for (const [table, record] of this.#records(stream, -1)) this.#judge(table, record, stream);
  }

  /** As {@link completed}, for a CFGI_STE. */
  steCompleted(_: CfgiSte, streams: Iterable<Stream>, consumed: number): void {
    for (const stream of streams) {
      for (const [table, record] of this.#records(stream, -1)) this.#settle(table, record, stream, consumed);
      this.#dropAbandoned(stream, -1, consumed);
    }
  }

  #settle(table: CdTable, record: CdRecord, stream: Stream, consumed: number): void {
    const seat = record.seats.get(stream);
    if (seat === undefined || record.candidates.changed === 0) return;
    if (record.candidates.open(seat.since) === 0) return;
    seat.since = Math.max(seat.since, consumed);
    let oldest = Number.POSITIVE_INFINITY;
    for (const { since } of record.seats.values()) oldest = Math.min(oldest, since);
    record.candidates.prune(oldest);
    if (record.candidates.open(oldest) === 0) table.open.delete(record);
    this.#seat(table, record, stream, consumed);
    for (const tag of seat.tags) this.#asids.settled(tag, consumed);
  }

  #dropAbandoned(stream: Stream, ssid: number, consumed: number): void {
    for (const table of this.#reached.get(stream) ?? [])
      for (const [i, { region, since }] of [...table.abandoned]) {
        const inside = ssid < 0 || (ssid >= region.firstIndex && ssid < region.firstIndex + region.count);
        if (!inside || since > consumed) continue;
        table.abandoned.delete(i);
        this.#context.pages.remove(region.first, region.count * CD_UNITS, region);
      }
  }

  #judge(table: CdTable, record: CdRecord, stream: Stream): void {
    const seat = record.seats.get(stream);
    const use = table.streams.get(stream);
    if (seat === undefined || use === undefined || seat.judged === record.candidates.changed) return;
    seat.judged = record.candidates.changed;
    const view = this.#view(use);
    const verdict = judgeUpdate(record.candidates, seat.since, view, CD.bytes);
    if (verdict?.capped === true) this.#context.capped(`images of CD ${hex(stream.sid)}/${record.index}`);
    const rule = verdict === null ? undefined : tornRule(verdict);
    if (rule === 'CFG-5') this.#report(rule, seat, `passes through an ILLEGAL state: ${verdict?.illegal?.message}`);
    else if (rule !== undefined) this.#report(rule, seat, HOW[rule] ?? '');
    const now = record.candidates.newest(CD.zero());
    const problem = view.valid(now) ? view.problem(now) : undefined;
    if (problem === undefined) return;
    this.#report(
      problem.fields[0] === 'ASID' ? 'ASID-7' : 'CFG-5',
      seat,
      `is ILLEGAL: ${problem.message} [${problem.rule}]`,
    );
  }

  /** Software relies on a stream's CD (-1: all of them). */
  relies(stream: Stream | undefined, ssid: number, why: string): void {
    if (stream === undefined) return;
    this.#judgeAbandoned(stream, ssid, why);
    for (const [table, record] of this.#records(stream, ssid)) {
      this.#judge(table, record, stream);
      this.#reliesOn(table, record, stream, why);
    }
    for (const table of this.#reached.get(stream) ?? [])
      for (const record of ssid < 0 ? table.records.values() : [table.records.get(ssid)])
        for (const tag of record?.seats.get(stream)?.tags ?? []) this.#asids.relies(tag, why);
  }

  #reliesOn(table: CdTable, record: CdRecord, stream: Stream, why: string): void {
    const changed = record.candidates.changed;
    for (const [other, seat] of record.seats) {
      const use = table.streams.get(other);
      if (use === undefined || seat.relied === changed || record.candidates.open(seat.since) === 0) continue;
      if (!unsettled(record.candidates, seat.since, this.#view(use), CD.bytes)) continue;
      seat.relied = changed;
      // Another stream that reaches the CD was forgotten, where its own is settled.
      const settled =
        other !== stream || [...record.seats.values()].some((one) => record.candidates.open(one.since) === 0);
      this.#report(
        settled ? 'CFG-8' : 'CFG-1',
        seat,
        `was changed and no CMD_CFGI_CD for this stream has completed when ${why}`,
      );
    }
  }

  #judgeAbandoned(stream: Stream, ssid: number, why: string): void {
    for (const table of this.#reached.get(stream) ?? [])
      for (const [i, { region, leafOnly }] of [...table.abandoned]) {
        if (ssid >= 0 && (ssid < region.firstIndex || ssid >= region.firstIndex + region.count)) continue;
        const unit = table.root.unit + i;
        this.#context.report(
          'CFG-6',
          `${this.#smmu.name}: the L1CD of ${hex(stream.sid)}/${region.firstIndex} changed and was invalidated ${leafOnly ? 'only with Leaf=1' : 'not at all'} when ${why}`,
          { smmu: this.#smmu.name, StreamID: stream.sid, SubstreamID: region.firstIndex, address: BigInt(unit) * 8n },
          [[unit, unit + 1]],
        );
        table.abandoned.delete(i);
      }
  }

  /** A page was given back: no STE that a cache may hold may lead to CDs in it (CFG-7). */
  freed(first: number, end: number): void {
    for (const table of this.#tables.values()) {
      const parts = [...table.leaves.values(), ...[...table.abandoned.values()].map(({ region }) => region)];
      const hit =
        (table.root.leafLog2 !== 0 && table.root.unit < end && table.root.unit + table.l1Units > first) ||
        parts.some((region) => region.first < end && region.first + region.count * CD_UNITS > first);
      const [stream] = table.streams.keys();
      if (!hit || stream === undefined) continue;
      this.#context.report(
        'CFG-7',
        `${this.#smmu.name}: memory of the CD table at ${hex(BigInt(table.root.unit) * 8n)} was given back while STE ${hex(stream.sid)} may lead to it`,
        { smmu: this.#smmu.name, StreamID: stream.sid, address: BigInt(table.root.unit) * 8n },
        [stream.units],
      );
    }
  }

  #report(rule: string, seat: Seat, what: string): void {
    const address = BigInt(seat.units[0]) * 8n;
    this.#context.report(
      rule,
      `${this.#smmu.name}: CD ${seat.ssid} of StreamID ${hex(seat.sid)} ${what}`,
      { smmu: this.#smmu.name, StreamID: seat.sid, SubstreamID: seat.ssid, address },
      [seat.units],
    );
  }
}

const HOW: Readonly<Record<string, string>> = {
  'CFG-2': 'changed in more than one word between two invalidations: hardware may see a mixture',
  'CFG-3': 'became valid before an invalidation of what was filled in while V=0',
  'CFG-4': 'changed in two or more used words while V=1: hardware may see a mixture',
};

const sameTag = (a: AsidTag, b: AsidTag): boolean => a.world === b.world && a.VMID === b.VMID && a.ASID === b.ASID;
