/**
 * The stage 1 of VMs on one SMMU: CDs and tables at intermediate addresses, the VMs' own invalidations. What is broken
 * here hurts the VM alone (IHI 0070 3.20.1); findings say that they are the VM's. A VM announces nothing: it relies on its
 * structures with each transaction of its streams.
 */
import { CD, STE, slotValue, type Words } from '../../spec/index.ts';
import { Asids } from './asids.ts';
import { CdFacts } from './cd-facts.ts';
import { Cds } from './cds.ts';
import type { Maintenance } from './commands.ts';
import { type Context, hex } from './context.ts';
import { Entry, entryPages, type Shape, shapesOfCd } from './shape.ts';
import type { Tag } from './stale.ts';
import type { SteFacts, Use } from './ste-facts.ts';
import type { SmmuView, Stream } from './streams.ts';
import { Tables } from './tables.ts';
import { PAGE_UNITS } from './units.ts';

const ASID = CD.slot('ASID');
/** log2 of the CDs of a page: larger CD tables of VMs, and those of two levels, are not followed. */
const PAGE_CDS_LOG2 = Math.log2((PAGE_UNITS * 8) / CD.bytes);
/** log2 of a page of 4 KiB: tables of other granules may lie in several pages of the host. */
const PAGE_LOG2 = 12;

const entry = new Entry();

/** Where an intermediate address lies, in 64-bit units; -1: nowhere. */
function resolve(context: Context, stage2: Shape, unit: number): number {
  const page = Math.floor(unit / PAGE_UNITS);
  let table = stage2.root;
  for (let level = stage2.startLevel, base = stage2.base; level <= 3; level++) {
    const size = entryPages(stage2, level);
    const index = Math.floor((page - base) / size);
    if (index < 0 || !context.peek.load(table + index)) return -1;
    const { kind, target } = entry.read(stage2, level, context.peek.hi, context.peek.lo);
    base += index * size;
    if (kind === 'leaf') return (target + (page - base)) * PAGE_UNITS + (unit % PAGE_UNITS);
    if (kind === 'invalid') return -1;
    table = target;
  }
  return -1;
}

/** See the module comment. */
export class GuestState {
  readonly #context: Context;
  readonly #view: SmmuView;
  readonly #facts: SteFacts;
  readonly #asids: Asids;
  readonly #cds: Cds;
  readonly #tables: Tables;
  /** How each nested stream translates, by its STE in memory. */
  readonly #uses = new Map<Stream, Use>();

  /** @param context the host's: findings are marked on their way */
  constructor(context: Context, view: SmmuView, facts: SteFacts) {
    const own: Context = {
      ...context,
      // The commands of one call share a CMD_SYNC.
      ordering: () => 'lenient',
      report: (rule, message, subject, units) => context.report(rule, message, { ...subject, by: 'guest' }, units),
    };
    this.#context = own;
    this.#view = view;
    this.#facts = facts;
    this.#asids = new Asids(own, view.name, () => '');
    this.#cds = new Cds(own, view, CdFacts.of(view.caps), this.#asids);
    this.#cds.onWalks = (stream, index, images, use) => this.#walks(stream, index, images, use);
    this.#tables = new Tables(own, {
      VMW: () => view.regs.VMW,
      on: () => view.regs.SMMUEN,
      BBML: () => view.caps.BBML,
      combined: () => false,
      dirty: (tag) => this.#asids.dirty(tag),
      pending: () => null,
      removed: () => {},
      global: (tag) => this.#asids.global(tag),
    });
  }

  /** A stream translates in other ways, or its STE is in no cache as it was. */
  update(stream: Stream, consumed: number): void {
    const use = this.#guestUse(stream);
    const known = this.#uses.get(stream);
    if (known?.key === use?.key) return;
    if (use === undefined) this.#uses.delete(stream);
    else this.#uses.set(stream, use);
    this.#cds.update(stream, use === undefined ? [] : [use], consumed);
  }

  /** How a stream translates now, its CDs where they lie; undefined: it has no stage 1 of a VM's, or none that is mapped. */
  #guestUse(stream: Stream): Use | undefined {
    const use = this.#facts.use(stream.candidates.newest(STE.zero()), this.#view.regs.E2H);
    if (use === undefined || !use.s1 || use.table === undefined) return undefined;
    const { unit, leafLog2, max } = this.#facts.cdRoot(use.words);
    if (leafLog2 !== 0 || max > PAGE_CDS_LOG2) {
      this.#context.capped('CD tables of VMs of more than a page');
      return undefined;
    }
    const at = resolve(this.#context, use.table, unit);
    if (at < 0) return undefined;
    return { ...use, key: `${use.key} ${at}/${max}`, cds: { unit: at, leafLog2, max } };
  }

  #walks(stream: Stream, index: number, images: readonly Words[], use: Use | null): void {
    const out: { shape: Shape; tag: Tag }[] = [];
    const stage2 = use?.table;
    if (use !== null && stage2 !== undefined) {
      const { name: smmu, caps } = this.#view;
      for (const image of images)
        for (const shape of shapesOfCd(image, caps, false)) {
          const tag: Tag = { smmu, stage: 1, world: use.world, VMID: use.VMID, ASID: slotValue(image, ASID) };
          const placed = this.#placed(shape, stage2, use.VMID);
          if (placed !== undefined) out.push({ shape: placed, tag });
        }
    }
    const ssid = index === 0 ? -1 : index;
    this.#tables.use({ key: this.#key(stream, index), smmu: this.#view.name, sid: stream.sid, ssid }, out);
  }

  readonly #key = (stream: Stream, index: number): string => `${stream.sid}/${index}`;

  /** A stage 1 table where it lies; undefined: nowhere, or in pages that need not be side by side. */
  #placed(shape: Shape, stage2: Shape, VMID: number): Shape | undefined {
    if (shape.granule !== PAGE_LOG2 || shape.startEntries > PAGE_UNITS) {
      this.#context.capped('tables of VMs of more than a page');
      return undefined;
    }
    const place = (unit: number): number => resolve(this.#context, stage2, unit);
    const root = place(shape.root);
    return root < 0 ? undefined : { ...shape, root, key: `${shape.key} ${VMID} ${root}`, place };
  }

  /** A command was consumed. */
  consumed(what: Maintenance, streams: readonly Stream[]): void {
    if (what.kind === 'ste') this.#cds.steConsumed(streams);
    else if (what.kind === 'cd') this.#cds.consumed(what, streams[0]);
    else if (what.kind === 'tlbi') {
      this.#asids.consumed(what.flush, this.#view.regs.VMW);
      this.#tables.consumed(this.#view.name, what.flush);
    }
  }

  /** A command that was consumed at `consumed` has completed. */
  completed(what: Maintenance, streams: readonly Stream[], consumed: number): void {
    if (what.kind === 'ste') {
      this.#cds.steCompleted(what, streams, consumed);
      for (const stream of streams) this.update(stream, consumed);
    } else if (what.kind === 'cd') this.#cds.completed(what, streams[0], consumed);
    else if (what.kind === 'tlbi') {
      this.#asids.flushed(what.flush, this.#view.regs.VMW, consumed);
      this.#tables.flushed(this.#view.name, what.flush, consumed);
    }
  }

  /** A transaction of a stream arrives at an input page: its VM relies on the CD, and on what the tables say of the page. */
  relies(stream: Stream, ssid: number, page: number): void {
    if (!this.#uses.has(stream)) return;
    this.#cds.relies(stream, ssid, `a transaction of StreamID ${hex(stream.sid)} arrives`);
    this.#tables.relies(this.#key(stream, ssid), page);
  }
}
