/** Translation tables in use: every table page under every tag, and what is taken away in them (rules TLB-*). */
import type { Context } from './context.ts';
import { hex } from './context.ts';
import { empties, type Flush } from './flush.ts';
import type { Sink } from './pages.ts';
import { Entry, entriesAt, entryPages, PAGE_LOG2, reduced, type Shape, typeBits } from './shape.ts';
import { type Blame, type Outstanding, type Removal, type Since, showTag, type Tag, TagStale } from './stale.ts';
import { PAGE_UNITS, pageOf } from './units.ts';

/** Table pages followed at most; more are not looked into. */
const MOST_TABLES = 0x10000;
/** Leaves below a cleared Table descriptor that are noted one by one at most. */
const MOST_LEAVES = 0x4000;

/** What of a machine the tables have to ask. */
export interface TablesView {
  /** CR0.VMW of an SMMU. */
  VMW(smmu: string): number;
  /** Whether an SMMU translates: nothing of what it has cached is used while it does not, and CFG-19 holds before it does. */
  on(smmu: string): boolean;
  /** IDR3.BBML of an SMMU. */
  BBML(smmu: string): number;
  /** Stage 1 entries, combined ones included, of a VMID may exist. */
  combined(tag: Tag): boolean;
  /** The tag's entries may exist although no stream uses it any more. */
  dirty(tag: Tag): boolean;
  /** An invalidation of a tag that is under way and not complete, as the rule that counts on it breaks. */
  pending(tag: Tag): Blame | null;
  /** A translation was taken away under a tag that a stream uses: its endpoint may hold it. */
  removed(walker: Walker, tag: Tag, removal: Removal, first: number, end: number, out: number): void;
  /** A global leaf is reachable under a tag. */
  global(tag: Tag): void;
}

/** Who walks a table: a stream's stage 2, or one of its CDs. */
export interface Walker {
  readonly key: string;
  readonly smmu: string;
  readonly sid: number;
  /** SubstreamID of the CD; -1: none, or transactions without one. */
  readonly ssid: number;
}

const keyOf = ({ smmu, stage, world, VMID, ASID }: Tag): string => `${smmu} ${stage} ${world} ${VMID} ${ASID}`;

/** One table page inside a table. */
class Table implements Sink {
  readonly root: Root;
  readonly unit: number;
  readonly level: number;
  /** First input page that it maps. */
  readonly base: number;
  readonly units: number;
  readonly children = new Map<number, Table>();
  readonly #tables: Tables;

  constructor(tables: Tables, root: Root, unit: number, level: number, base: number) {
    this.#tables = tables;
    this.root = root;
    this.unit = unit;
    this.level = level;
    this.base = base;
    this.units = entriesAt(root.shape, level);
  }

  stored(unit: number, oldHi: number, oldLo: number, newHi: number, newLo: number, bytes: number): void {
    this.#tables.changed(this, unit - this.unit, oldHi, oldLo, newHi, newLo, bytes);
  }
}

/** A tag under which a table is used. */
interface TagUse {
  readonly tag: Tag;
  readonly users: Map<string, Walker>;
  /** When the last user left: no entry was made since. */
  idle: number;
}

/** A start table and all below it, walked in one way. */
class Root {
  readonly shape: Shape;
  /** Tags under which it is used, with the users of each. One without users may still have entries. */
  readonly tags = new Map<string, TagUse>();
  table: Table | null = null;
  /** A global leaf was seen in it. */
  global = false;

  constructor(shape: Shape) {
    this.shape = shape;
  }
}

/** See the module comment. */
export class Tables {
  readonly #context: Context;
  readonly #view: TablesView;
  readonly #roots = new Map<string, Root>();
  readonly #stale = new Map<string, TagStale>();
  /** What each user, a stream or a CD, uses now. */
  readonly #users = new Map<string, { readonly shape: Shape; readonly tag: Tag }[]>();
  /** Tables by the 4 KiB pages they lie in. */
  readonly #pages = new Map<number, Set<Table>>();
  readonly #entry = new Entry();
  readonly #old = new Entry();
  #count = 0;

  constructor(context: Context, view: TablesView) {
    this.#context = context;
    this.#view = view;
  }

  /** A stream or CD (`user`) walks these tables under these tags from now on, and no others. */
  use(user: Walker, uses: readonly { readonly shape: Shape; readonly tag: Tag }[]): void {
    const before = this.#users.get(user.key) ?? [];
    if (uses.length > 0) this.#users.set(user.key, [...uses]);
    else this.#users.delete(user.key);
    for (const { shape, tag } of uses) this.#join(shape, tag, user);
    for (const { shape, tag } of before)
      if (!uses.some((one) => one.shape.key === shape.key && keyOf(one.tag) === keyOf(tag)))
        this.#leave(shape, tag, user);
  }

  #join(shape: Shape, tag: Tag, user: Walker): void {
    let root = this.#roots.get(shape.key);
    if (root === undefined) {
      root = new Root(shape);
      this.#roots.set(shape.key, root);
    }
    const known = root.tags.get(keyOf(tag));
    if (known === undefined) root.tags.set(keyOf(tag), { tag, users: new Map([[user.key, user]]), idle: 0 });
    else known.users.set(user.key, user);
    root.table ??= this.#follow(root, shape.root, shape.startLevel, shape.base);
    if (shape.uncachedUpdates && known === undefined)
      this.#context.report(
        'TLB-14',
        `${showTag(tag)}: hardware updates the descriptors of the table at ${hex(BigInt(shape.root) * 8n)}, whose walks are not write-back cacheable`,
        subjectOf(tag, shape.root),
      );
  }

  #leave(shape: Shape, tag: Tag, user: Walker): void {
    const root = this.#roots.get(shape.key);
    const known = root?.tags.get(keyOf(tag));
    if (root === undefined || known === undefined) return;
    known.users.delete(user.key);
    if (known.users.size === 0) known.idle = this.#context.clock.now;
    if (known.users.size === 0 && !this.#view.dirty(tag)) this.#forget(root, tag);
  }

  #forget(root: Root, tag: Tag): void {
    root.tags.delete(keyOf(tag));
    if (root.tags.size > 0) return;
    if (root.table !== null) this.#drop(root.table);
    this.#roots.delete(root.shape.key);
  }

  /** A tag has no entries any more, as the life of VMIDs and ASIDs says: tables without users are forgotten. */
  clean(): void {
    for (const root of [...this.#roots.values()])
      for (const { tag, users } of [...root.tags.values()])
        if (users.size === 0 && !this.#view.dirty(tag)) this.#forget(root, tag);
  }

  #follow(root: Root, unit: number, level: number, base: number): Table | null {
    if (this.#count >= MOST_TABLES) {
      this.#context.capped('table pages');
      return null;
    }
    const table = new Table(this, root, unit, level, base);
    this.#count++;
    this.#context.pages.add(unit, table.units, table);
    for (let page = pageOf(unit); page <= pageOf(unit + table.units - 1); page++) {
      const here = this.#pages.get(page);
      if (here === undefined) this.#pages.set(page, new Set([table]));
      else here.add(table);
    }
    this.#scan(table);
    return table;
  }

  #scan(table: Table): void {
    const { shape } = table.root;
    for (let i = 0; i < table.units; i++) {
      const unit = table.unit + i;
      // The watch has just read the page.
      const page = this.#context.pages.shadow(unit);
      const first = unit % PAGE_UNITS;
      const end = Math.min(PAGE_UNITS, first + table.units - i);
      for (let at = first; page !== null && at < end; at++) {
        const lo = page[2 * at] ?? 0;
        const hi = page[2 * at + 1] ?? 0;
        if (lo === 0 && hi === 0) continue;
        const entry = this.#entry.read(shape, table.level, hi, lo);
        if (entry.kind === 'table') this.#addChild(table, i + at - first, entry.target);
        else if (entry.kind === 'leaf' && entry.global) this.#global(table.root);
      }
      i += end - first - 1;
    }
  }

  #addChild(table: Table, i: number, unit: number): void {
    const { root, level, base } = table;
    const at = root.shape.place === undefined ? unit : root.shape.place(unit);
    if (at < 0) return;
    const child = this.#follow(root, at, level + 1, base + i * entryPages(root.shape, level));
    if (child !== null) table.children.set(i, child);
  }

  #global(root: Root): void {
    root.global = true;
    for (const { tag } of root.tags.values()) this.#view.global(tag);
  }

  #drop(table: Table): void {
    for (const child of table.children.values()) this.#drop(child);
    this.#context.pages.remove(table.unit, table.units, table);
    this.#count--;
    for (let page = pageOf(table.unit); page <= pageOf(table.unit + table.units - 1); page++) {
      const here = this.#pages.get(page);
      here?.delete(table);
      if (here?.size === 0) this.#pages.delete(page);
    }
  }

  /** A descriptor changed. */
  changed(table: Table, i: number, oldHi: number, oldLo: number, newHi: number, newLo: number, bytes: number): void {
    const { root, level } = table;
    const { shape } = root;
    const old = this.#old.read(shape, level, oldHi, oldLo);
    const oldKind = old.kind;
    const now = this.#entry.read(shape, level, newHi, newLo);
    const first = table.base + i * entryPages(shape, level);
    if (bytes < 8 && (oldKind !== 'invalid' || now.kind !== 'invalid'))
      this.#report(
        'TLB-13',
        root,
        table.unit + i,
        `the descriptor of input ${showInput(first)} was written ${bytes} bytes at a time`,
      );
    if (oldKind !== 'invalid') this.#judgeBreak(table, i, old, now, first);
    const child = table.children.get(i);
    const target = now.kind === 'table' && shape.place !== undefined ? shape.place(now.target) : now.target;
    if (child !== undefined && !(now.kind === 'table' && target === child.unit)) {
      table.children.delete(i);
      this.#removeTable(table, i, child, first);
      this.#drop(child);
    }
    if (oldKind === 'leaf') this.#removeLeaf(table, i, old, now, first);
    const next = this.#entry.read(shape, level, newHi, newLo);
    if (next.kind === 'table' && !table.children.has(i)) {
      this.#addChild(table, i, next.target);
      const added = table.children.get(i);
      if (added !== undefined && this.#context.overtakes(added.unit, added.units))
        this.#report('CFG-9', root, table.unit + i, 'a Table descriptor became visible before the table it leads to');
    }
    if (next.kind === 'leaf' && next.global) this.#global(root);
  }

  /** TLB-4: what must not be replaced without break-before-make. */
  #judgeBreak(table: Table, i: number, old: Entry, now: Entry, first: number): void {
    if (now.kind === 'invalid') return;
    const { root } = table;
    const tag = root.tags.values().next().value?.tag;
    const BBML = tag === undefined ? 0 : this.#view.BBML(tag.smmu);
    let what = '';
    if (old.kind !== now.kind) {
      if (BBML === 0 || (BBML === 1 && !(old.kind === 'leaf' ? old : now).nT)) what = 'size';
    } else if (old.kind === 'leaf') {
      if (old.target !== now.target) what = 'output address';
      else if (typeBits(root.shape, old) !== typeBits(root.shape, now)) what = 'memory type';
      else if (!old.global && now.global) what = 'nG';
    } else if (old.target !== now.target) what = 'next table';
    if (what !== '')
      this.#report(
        'TLB-4',
        root,
        table.unit + i,
        `the ${what} of a valid descriptor (input ${showInput(first)}) was changed without break-before-make`,
      );
  }

  #removeLeaf(table: Table, i: number, old: Entry, now: Entry, first: number): void {
    const { root, level } = table;
    const { shape } = root;
    if (!old.accessed && !shape.affd) return;
    const same = now.kind === 'leaf' && now.target === old.target;
    if (same && !reduced(shape, old, now)) return;
    const pages = entryPages(shape, level);
    const removal = this.#removal(same ? 'permission' : 'leaf', root, level, table.unit + i, old.global, new Set());
    this.#spread(root, removal, first, pages, pages, old.target);
  }

  #removeTable(table: Table, i: number, child: Table, first: number): void {
    const { root, level } = table;
    const pages = new Set<number>();
    this.#collect(child, pages, { left: MOST_LEAVES });
    const removal = this.#removal('table', root, level, table.unit + i, false, pages);
    const size = entryPages(root.shape, level);
    this.#spread(root, removal, first, size, size, -1);
  }

  /** Table pages below a cleared descriptor, and the leaves in them, which are out of reach as well. */
  #collect(table: Table, pages: Set<number>, budget: { left: number }): void {
    const { root, level } = table;
    const { shape } = root;
    for (let page = pageOf(table.unit); page <= pageOf(table.unit + table.units - 1); page++) pages.add(page);
    for (const child of table.children.values()) this.#collect(child, pages, budget);
    const { peek } = this.#context;
    const size = entryPages(shape, level);
    for (let i = 0; i < table.units; i++) {
      if (!peek.load(table.unit + i) || (peek.lo === 0 && peek.hi === 0)) continue;
      const entry = this.#entry.read(shape, level, peek.hi, peek.lo);
      if (entry.kind !== 'leaf' || (!entry.accessed && !shape.affd)) continue;
      if (budget.left-- <= 0) {
        this.#context.capped('leaves below a cleared table');
        return;
      }
      const removal = this.#removal('leaf', root, level, table.unit + i, entry.global, new Set());
      this.#spread(root, removal, table.base + i * size, size, size, entry.target);
    }
  }

  #removal(
    kind: Removal['kind'],
    root: Root,
    level: number,
    unit: number,
    global: boolean,
    tables: ReadonlySet<number>,
  ): Removal {
    return {
      kind,
      level,
      granule: root.shape.granule,
      born: this.#context.clock.now,
      unit,
      global,
      tables,
      cleared: [],
    };
  }

  #spread(root: Root, removal: Removal, first: number, pages: number, entry: number, out: number): void {
    for (const [key, { tag, users, idle }] of root.tags) {
      if (removal.kind === 'leaf')
        for (const walker of users.values()) this.#view.removed(walker, tag, removal, first, first + pages, out);
      let stale = this.#stale.get(key);
      if (stale === undefined) {
        stale = new TagStale(this.#context, tag, () => this.#view.combined(tag));
        this.#stale.set(key, stale);
      }
      stale.add(removal, first, pages, entry, out, users.size === 0 ? idle : removal.born);
    }
  }

  /** A TLBI was consumed on an SMMU. */
  consumed(smmu: string, flush: Flush): void {
    const VMW = this.#view.VMW(smmu);
    for (const stale of this.#stale.values()) if (stale.tag.smmu === smmu) stale.consumed(flush, VMW);
  }

  /** A TLBI that was consumed at `consumed` has completed. */
  flushed(smmu: string, flush: Flush, consumed: number): void {
    const VMW = this.#view.VMW(smmu);
    for (const [key, stale] of [...this.#stale]) {
      if (stale.tag.smmu !== smmu) continue;
      stale.flushed(flush, VMW, consumed);
      if (stale.empty) this.#stale.delete(key);
    }
    if (flush.scope === 's2-ipa' || flush.scope === 'nh-va' || flush.scope === 'el2-va') return;
    this.#emptied(smmu, flush, VMW, consumed);
    this.clean();
  }

  /** A tag may be in use, and be done with a table: a CD that is valid and has EPD0 names an ASID and no table. */
  #emptied(smmu: string, flush: Flush, VMW: number, consumed: number): void {
    for (const root of [...this.#roots.values()])
      for (const { tag, users, idle } of [...root.tags.values()]) {
        if (tag.smmu !== smmu || users.size > 0 || idle > consumed) continue;
        const { stage, world, VMID, ASID } = tag;
        if (empties(flush, { stage, el2: world !== 'NS-EL1', VMID, ASID }, VMW, root.global)) this.#forget(root, tag);
      }
  }

  /** Whether the TLB may still hold what was taken away under a tag for input pages [first, end). */
  holds(tag: Tag, first: number, end: number): boolean {
    return this.#stale.get(keyOf(tag))?.holds(first, end) ?? false;
  }

  /** Memory was given back: 64-bit units [first, end). */
  freed(first: number, end: number): void {
    const from = pageOf(first);
    const to = pageOf(end - 1) + 1;
    const pending = (tag: Tag): Blame | null => this.#view.pending(tag);
    for (const stale of this.#stale.values()) {
      if (!this.#view.on(stale.tag.smmu)) continue;
      for (const outstanding of stale.take(from, to, pending)) this.#reportStale(outstanding, 'was given back');
    }
    for (let page = from; page < to; page++)
      for (const table of [...(this.#pages.get(page) ?? [])]) this.#reportTable(table);
  }

  #reportTable(table: Table): void {
    const [held] = table.root.tags.values();
    if (held === undefined) return;
    const how = held.users.size > 0 ? 'a stream still walks it' : 'the TLB may hold entries made from it';
    this.#report(
      'TLB-3',
      table.root,
      table.unit,
      `the table page at ${hex(BigInt(table.unit) * 8n)} was given back while ${how}`,
    );
    // Once is enough: what is written there from now on is somebody else's.
    this.#drop(table);
    if (table.root.table === table) table.root.table = null;
    else this.#unlink(table.root.table, table);
  }

  #unlink(from: Table | null, gone: Table): void {
    for (const [i, child] of from?.children ?? [])
      if (child === gone) from?.children.delete(i);
      else this.#unlink(child, gone);
  }

  /** An unmap was reported done: nothing that was taken away may be left. */
  unmapped(what: string, range: Since): void {
    const pending = (tag: Tag): Blame | null => this.#view.pending(tag);
    for (const stale of this.#stale.values()) {
      if (!this.#view.on(stale.tag.smmu)) continue;
      const [outstanding] = stale.takeSince(range, pending);
      if (outstanding !== undefined) this.#reportStale(outstanding, `was unmapped ("${what}" reported done)`);
    }
  }

  /** A transaction of a user arrives at an input page: what was taken away there may still be used. */
  relies(user: string, page: number): void {
    for (const { tag } of this.#users.get(user) ?? []) {
      const stale = this.#stale.get(keyOf(tag));
      const pending = (of: Tag): Blame | null => this.#view.pending(of);
      for (const one of stale?.takeSince(
        { since: 0, before: Number.POSITIVE_INFINITY, first: page, end: page + 1 },
        pending,
      ) ?? [])
        this.#reportStale(one, 'was taken away, and a transaction arrives there');
    }
  }

  #reportStale({ tag, removal, first, out, blame }: Outstanding, how: string): void {
    const what =
      removal.kind === 'table'
        ? `a table below input ${showInput(first)}`
        : `page ${showInput(out)}${removal.kind === 'permission' ? ' with its old permissions' : ''}, input ${showInput(first)},`;
    this.#context.report(
      blame.rule,
      `${showTag(tag)}: ${what} ${how} while the TLB may still lead to it: ${blame.why}`,
      subjectOf(tag, removal.unit),
      [[removal.unit, removal.unit + 1]],
    );
  }

  #report(rule: string, root: Root, unit: number, what: string): void {
    const [held] = root.tags.values();
    if (held === undefined) return;
    this.#context.report(rule, `${showTag(held.tag)}: ${what}`, subjectOf(held.tag, unit), [[unit, unit + 1]]);
  }
}

const subjectOf = (tag: Tag, unit: number) => ({
  smmu: tag.smmu,
  ...(tag.VMID < 0 ? {} : { VMID: tag.VMID }),
  ...(tag.ASID < 0 ? {} : { ASID: tag.ASID }),
  address: BigInt(unit) * 8n,
});

const showInput = (page: number): string => hex(BigInt(page) << BigInt(PAGE_LOG2));
