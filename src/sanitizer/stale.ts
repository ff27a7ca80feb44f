/**
 * Translations that were taken away and may still be in the TLB: by tag, until an invalidation that covers them has
 * completed (rules TLB-*, VMID-6, VMID-8).
 */
import type { StreamWorld } from '../../spec/index.ts';
import type { Context } from './context.ts';
import { type Flush, reachesVmid } from './flush.ts';
import type { EntryKind } from './shape.ts';

/** A tag under which entries of a table are cached. */
export interface Tag {
  readonly smmu: string;
  readonly stage: 1 | 2;
  readonly world: StreamWorld;
  readonly VMID: number;
  /** -1 for stage 2. */
  readonly ASID: number;
}

/** A tag under which input pages [first, end) were invalidated. */
interface Cleared {
  readonly tag: Tag;
  readonly first: number;
  readonly end: number;
}

/** One change of a table that took something away. Shared by all tags under which the table is used. */
export interface Removal {
  readonly kind: Exclude<EntryKind, 'invalid'> | 'permission';
  readonly level: number;
  /** log2 of the granule of the table. */
  readonly granule: number;
  readonly born: number;
  /** Unit of the descriptor. */
  readonly unit: number;
  readonly global: boolean;
  /** Pages of 4 KiB of the tables below a cleared Table descriptor. */
  readonly tables: ReadonlySet<number>;
  /** Tags that let go of it, and for which input pages. */
  readonly cleared: Cleared[];
}

/** What is left of a removal under one tag. */
interface Stale {
  readonly removal: Removal;
  /** When it became stale; later ones joined to it count. */
  born: number;
  /** No entry was made after this: an invalidation that was consumed later removes what there is. */
  made: number;
  /** Input pages [first, end), and the first output page of a leaf. */
  first: number;
  end: number;
  out: number;
  /** Input pages of one entry. */
  readonly entry: number;
  /** When the stage 2 part was gone; 0: not yet. Entries that combine both stages remain. */
  ipaStrict: number;
  ipaLenient: number;
  /** One that covers it was consumed: it counts for what was taken away before it, and for nothing that joins later. */
  covered: boolean;
  /** Invalidations that met it and were not enough. */
  leafOnly: boolean;
  asidOnly: boolean;
  wrongShape: boolean;
  wrongTag: boolean;
  otherVmid: boolean;
  stage1Early: boolean;
}

/** Stale entries kept for one tag. */
const MOST = 8192;

/** Why something was not invalidated, as a rule. */
export interface Blame {
  readonly rule: string;
  readonly why: string;
}

/** A removal found outstanding. */
export interface Outstanding {
  readonly tag: Tag;
  readonly removal: Removal;
  readonly first: number;
  readonly out: number;
  readonly blame: Blame;
}

/** What an operation took away: between two moments, of input pages [first, end). */
export interface Since {
  readonly since: number;
  readonly before: number;
  readonly first: number;
  readonly end: number;
}

/** Entries of one tag. */
export class TagStale {
  readonly tag: Tag;
  readonly #context: Context;
  #entries: Stale[] = [];
  /** Streams of the VMID have or had stage 1 as well: entries that combine both stages exist. */
  readonly #combined: () => boolean;

  constructor(context: Context, tag: Tag, combined: () => boolean) {
    this.#context = context;
    this.tag = tag;
    this.#combined = combined;
  }

  get empty(): boolean {
    return this.#entries.length === 0;
  }

  /**
   * Something was taken away: `pages` input pages from `first`, that led to `out`.
   * made: when an entry may have been made last
   */
  add(removal: Removal, first: number, pages: number, entry: number, out: number, made: number): void {
    const last = this.#entries.at(-1);
    if (last !== undefined && joins(last, removal, first, entry, out)) {
      last.end += pages;
      last.born = removal.born;
      last.made = Math.max(last.made, made);
      return;
    }
    if (this.#entries.length >= MOST) {
      this.#entries.shift();
      this.#context.capped(`stale translations of ${showTag(this.tag)}`);
    }
    this.#entries.push(fresh(removal, first, first + pages, entry, out, made));
  }

  /** A TLBI was consumed: it is remembered where it fits, and where it is not what is needed. */
  consumed(flush: Flush, VMW: number): void {
    if (this.#entries.length === 0) return;
    for (const stale of this.#entries) {
      if (this.tag.stage === 1) this.#noteStage1(stale, flush, VMW);
      else this.#noteStage2(stale, flush, VMW);
    }
  }

  #noteStage1(stale: Stale, flush: Flush, VMW: number): void {
    const fits = this.#stage1(stale, flush, VMW);
    if (fits === 'yes') stale.covered = true;
    else if (fits === 'leaf-only') stale.leafOnly = true;
    else if (fits === 'asid-only') stale.asidOnly = true;
    else if (fits === 'shape') stale.wrongShape = true;
    else if (fits === 'tag') stale.wrongTag = true;
  }

  #noteStage2(stale: Stale, flush: Flush, VMW: number): void {
    const fits = this.#stage2(stale, flush, VMW);
    if (fits === 'yes') stale.covered = true;
    else if (fits === 'leaf-only') stale.leafOnly = true;
    else if (fits === 'shape') stale.wrongShape = true;
    else if (fits === 'tag') stale.otherVmid = true;
    else if (flush.scope === 'nh-all' && reachesVmid(flush, this.tag.VMID, VMW) && stale.ipaStrict === 0)
      stale.stage1Early = true;
  }

  /** A TLBI that was consumed at `consumed` has completed. */
  flushed(flush: Flush, VMW: number, consumed: number): void {
    if (this.#entries.length === 0) return;
    const kept: Stale[] = [];
    for (const stale of this.#entries) {
      if (consumed < stale.made) kept.push(stale);
      else if (this.tag.stage === 1) this.#flushStage1(stale, flush, VMW, kept);
      else this.#flushStage2(stale, flush, VMW, consumed, kept);
    }
    this.#entries = kept;
  }

  #flushStage1(stale: Stale, flush: Flush, VMW: number, kept: Stale[]): void {
    if (this.#stage1(stale, flush, VMW) === 'yes') this.#cut(stale, flush, kept, (piece) => this.#gone(piece));
    else kept.push(stale);
  }

  #flushStage2(stale: Stale, flush: Flush, VMW: number, consumed: number, kept: Stale[]): void {
    if (flush.scope === 's12-vmall' || flush.scope === 'nsnh-all') {
      if (this.#stage2(stale, flush, VMW) === 'yes') this.#gone(stale);
      else kept.push(stale);
      return;
    }
    if (stale.ipaStrict > 0) {
      const strict = this.#context.ordering('TLB-6') === 'strict';
      const after = consumed >= (strict ? stale.ipaStrict : stale.ipaLenient);
      if (flush.scope === 'nh-all' && reachesVmid(flush, this.tag.VMID, VMW)) {
        if (after) this.#gone(stale);
        else {
          stale.stage1Early = true;
          kept.push(stale);
        }
        return;
      }
      kept.push(stale);
      return;
    }
    if (this.#stage2(stale, flush, VMW) !== 'yes') {
      kept.push(stale);
      return;
    }
    if (this.#combined() && stale.removal.kind !== 'table')
      this.#cut(stale, flush, kept, (piece) => {
        kept.push({ ...piece, ipaStrict: this.#context.clock.now, ipaLenient: consumed });
      });
    else this.#cut(stale, flush, kept, (piece) => this.#gone(piece));
  }

  /** Takes what a flush covers out of a stale range; `hit` hears of the covered part, the rest goes to `kept`. */
  #cut(stale: Stale, flush: Flush, kept: Stale[], hit: (piece: Stale) => void): void {
    const unit = stale.entry;
    const from = Math.max(stale.first, Math.floor(flush.first / unit) * unit);
    const to = Math.min(stale.end, Math.ceil(flush.end / unit) * unit);
    if (stale.removal.kind === 'table' || (from <= stale.first && to >= stale.end)) {
      hit(stale);
      return;
    }
    if (from > stale.first) kept.push({ ...stale, end: from });
    if (to < stale.end) kept.push({ ...stale, first: to, out: stale.out < 0 ? -1 : stale.out + (to - stale.first) });
    hit({ ...stale, first: from, end: to, out: stale.out < 0 ? -1 : stale.out + (from - stale.first) });
  }

  #gone({ removal, first, end }: Stale): void {
    removal.cleared.push({ tag: this.tag, first, end });
  }

  /** Whether an invalidation removes a stage 1 translation under this tag. */
  #stage1(stale: Stale, flush: Flush, VMW: number): Fit {
    const { tag } = this;
    if (flush.void) return 'no';
    const el2 = flush.scope.startsWith('el2');
    if (flush.scope === 's2-ipa') return 'no';
    if (el2 !== (tag.world !== 'NS-EL1')) return inRange(stale, flush) ? 'tag' : 'no';
    if (!el2 && !reachesVmid(flush, tag.VMID, VMW))
      return flush.ASID === tag.ASID && inRange(stale, flush) ? 'tag' : 'no';
    switch (flush.scope) {
      case 'nh-asid':
      case 'el2-asid':
        if (flush.ASID !== tag.ASID) return 'no';
        return stale.removal.global && stale.removal.kind !== 'table' ? 'asid-only' : 'yes';
      case 'nh-va':
      case 'el2-va':
        if (flush.ASID !== tag.ASID && !stale.removal.global && tag.ASID >= 0) return 'no';
        return byAddress(stale, flush);
      case 'nh-vaa':
      case 'el2-vaa':
        return byAddress(stale, flush);
      default:
        return 'yes';
    }
  }

  /** Whether an invalidation removes the stage 2 part of a translation under this tag. */
  #stage2(stale: Stale, flush: Flush, VMW: number): Fit {
    if (flush.void || flush.scope.startsWith('el2')) return 'no';
    if (flush.scope === 'nsnh-all') return 'yes';
    const reached = reachesVmid(flush, this.tag.VMID, VMW);
    if (flush.scope === 's12-vmall') return reached ? 'yes' : 'no';
    if (flush.scope !== 's2-ipa') return 'no';
    if (!reached) return inRange(stale, flush) ? 'tag' : 'no';
    return byAddress(stale, flush);
  }

  /** Whether input pages [first, end) may still be held. */
  holds(first: number, end: number): boolean {
    return this.#entries.some((stale) => stale.first < end && stale.end > first);
  }

  /** Stale entries that lead to output pages [first, end), or through tables in it; taken out of the list. */
  take(first: number, end: number, pending: (tag: Tag) => Blame | null): Outstanding[] {
    const out: Outstanding[] = [];
    const kept: Stale[] = [];
    for (const stale of this.#entries) {
      const hit =
        stale.removal.kind === 'table'
          ? overlapsAny(stale.removal.tables, first, end)
          : stale.out < end && stale.out + (stale.end - stale.first) > first;
      if (hit) out.push(this.#outstanding(stale, pending));
      else kept.push(stale);
    }
    this.#entries = kept;
    return out;
  }

  /** Stale leaves and permissions of a range; taken out of the list. Tables wait for their page. */
  takeSince({ since, before, first, end }: Since, pending: (tag: Tag) => Blame | null): Outstanding[] {
    if (this.#entries.length === 0) return [];
    const out: Outstanding[] = [];
    const kept: Stale[] = [];
    for (const stale of this.#entries)
      if (
        stale.removal.kind === 'table' ||
        stale.born < since ||
        stale.born > before ||
        stale.first >= end ||
        stale.end <= first
      )
        kept.push(stale);
      else out.push(this.#outstanding(stale, pending));
    this.#entries = kept;
    return out;
  }

  #outstanding(stale: Stale, pending: (tag: Tag) => Blame | null): Outstanding {
    const blame = this.#blame(stale, pending(this.tag));
    return { tag: this.tag, removal: stale.removal, first: stale.first, out: stale.out, blame };
  }

  #blame(stale: Stale, pending: Blame | null): Blame {
    const { removal } = stale;
    if (pending !== null) return pending;
    if (stale.ipaStrict > 0)
      return stale.stage1Early
        ? { rule: 'TLB-6', why: 'the stage 1 invalidation was consumed before TLBI_S2_IPA had completed' }
        : { rule: 'TLB-5', why: 'only TLBI_S2_IPA was sent; entries that combine both stages stay' };
    if (stale.leafOnly) return { rule: 'TLB-2', why: 'only last-level entries were invalidated' };
    if (stale.asidOnly) return { rule: 'TLB-9', why: 'it is global, and only its ASID was invalidated' };
    if (stale.wrongShape) return { rule: 'TLB-10', why: 'granule or level of the invalidation do not match the table' };
    const elsewhere = removal.cleared
      .filter(({ tag, first, end }) => tag !== this.tag && first < stale.end && end > stale.first)
      .map(({ tag }) => tag);
    const same = elsewhere.filter(({ smmu }) => smmu === this.tag.smmu);
    if (same.length > 0) return { rule: 'VMID-6', why: `only ${same.map(showTag).join(', ')} was invalidated` };
    if (elsewhere.length > 0)
      return { rule: 'TLB-15', why: `only ${elsewhere.map(showTag).join(', ')} was invalidated` };
    if (stale.otherVmid) return { rule: 'VMID-8', why: 'the invalidation names another VMID' };
    if (stale.wrongTag) return { rule: 'TLB-8', why: 'the invalidation is for another StreamWorld or VMID' };
    if (removal.kind === 'permission') return { rule: 'TLB-12', why: 'no TLBI that covers it has completed' };
    return { rule: removal.kind === 'table' ? 'TLB-3' : 'TLB-1', why: 'no TLBI that covers it has completed' };
  }
}

/** How an invalidation fits: it removes the entry; not; or not for a reason that is worth telling. */
type Fit = 'yes' | 'no' | 'leaf-only' | 'asid-only' | 'shape' | 'tag';

const inRange = (stale: Stale, flush: Flush): boolean => flush.first < stale.end && flush.end > stale.first;

function byAddress(stale: Stale, flush: Flush): Fit {
  const { removal } = stale;
  const unit = stale.entry;
  const from = Math.floor(flush.first / unit) * unit;
  const to = Math.ceil(flush.end / unit) * unit;
  if (from >= stale.end || to <= stale.first) return 'no';
  if (flush.granule !== 0 && flush.granule !== removal.granule) return 'shape';
  if (removal.kind === 'table') {
    if (flush.leaf) return 'leaf-only';
    return flush.level !== 0 && removal.level >= flush.level ? 'leaf-only' : 'yes';
  }
  return flush.level !== 0 && flush.level !== removal.level ? 'shape' : 'yes';
}

/** Whether a removal continues a stretch of leaves: in input, output, size, and in what happened to them. */
const joins = (last: Stale, removal: Removal, first: number, entry: number, out: number): boolean =>
  removal.kind === 'leaf' &&
  last.removal.kind === 'leaf' &&
  last.end === first &&
  last.entry === entry &&
  last.out + (last.end - last.first) === out &&
  last.removal.global === removal.global &&
  last.removal.level === removal.level &&
  !touched(last);

const fresh = (removal: Removal, first: number, end: number, entry: number, out: number, made: number): Stale => ({
  removal,
  born: removal.born,
  made,
  first,
  end,
  entry,
  out,
  ipaStrict: 0,
  ipaLenient: 0,
  covered: false,
  leafOnly: false,
  asidOnly: false,
  wrongShape: false,
  wrongTag: false,
  otherVmid: false,
  stage1Early: false,
});

const touched = (stale: Stale): boolean =>
  stale.ipaStrict > 0 ||
  stale.covered ||
  stale.leafOnly ||
  stale.asidOnly ||
  stale.wrongShape ||
  stale.wrongTag ||
  stale.otherVmid ||
  stale.stage1Early;

function overlapsAny(pages: ReadonlySet<number>, first: number, end: number): boolean {
  if (end - first < pages.size) {
    for (let page = first; page < end; page++) if (pages.has(page)) return true;
    return false;
  }
  for (const page of pages) if (page >= first && page < end) return true;
  return false;
}

/** A tag in words. */
export const showTag = ({ smmu, stage, world, VMID, ASID }: Tag): string =>
  stage === 2
    ? `${smmu} VMID ${VMID}`
    : `${smmu} ASID ${ASID}${VMID > 0 ? ` VMID ${VMID}` : ''}${world === 'NS-EL1' ? '' : ` (${world})`}`;
