/** The sanitizer: attaches to a machine, listens, and reports broken software rules. See docs/sanitizer.md. */
import type { OwnershipNote } from '../driver/kernel.ts';
import type { Machine } from '../hw/machine.ts';
import type { Announcement, AtsAct, Observer } from '../hw/observer.ts';
import { Clock } from './clock.ts';
import type { Context } from './context.ts';
import type { Finding, Subject } from './finding.ts';
import { History } from './history.ts';
import { Pages, watchStores } from './pages.ts';
import { type NoteKind, neverDecided, type Ordering, type RuleInfo } from './rule.ts';
import { RULES, ruleNamed } from './rules/index.ts';
import { SmmuState } from './smmu-state.ts';
import { Tables } from './tables.ts';
import { Peek, pageOf, unitOf, unitOfPa } from './units.ts';
import type { VmidState } from './vmids.ts';

/** How strict a {@link Sanitizer} is. */
export interface SanitizerOptions {
  /** For rules that have two forms. Default strict. */
  readonly ordering?: Ordering;
  /** The same for single rules, by id. */
  readonly orderings?: Readonly<Record<string, Ordering>>;
  /** Rules that are not reported, by id. */
  readonly ignore?: readonly string[];
  /** VMs are judged as well, by what they do with their own stage 1. Default false. */
  readonly guests?: boolean;
  /** Findings kept; further ones are counted. Default 1000. */
  readonly maxFindings?: number;
}

/** A rule that was not judged, and why. */
export interface Undecided {
  readonly rule: string;
  readonly why: string;
}

/** What {@link Sanitizer.report} gives. */
export interface SanitizerReport {
  readonly findings: readonly Finding[];
  /** Findings beyond the limit. */
  readonly more: number;
  readonly undecided: readonly Undecided[];
  /** What was too large to be judged, and how often. */
  readonly capped: Readonly<Record<string, number>>;
}

const DEFAULT_MAX = 1000;
/** Bytes of a page when an announcement does not say. */
const PAGE_BYTES = 4096;
const PAGE = BigInt(PAGE_BYTES);
const UNIT_BYTES = 8;

/** See the module comment. Must be made before the SMMU's tables are in use for the history to be complete. */
export class Sanitizer {
  readonly #machine: Machine;
  readonly #options: SanitizerOptions;
  readonly #clock = new Clock();
  readonly #history: History;
  readonly #pages: Pages;
  readonly #tables: Tables;
  readonly #smmus = new Map<string, SmmuState>();
  readonly #findings: Finding[] = [];
  readonly #capped = new Map<string, number>();
  readonly #noted = new Set<NoteKind>();
  readonly #ignored: ReadonlySet<string>;
  /** Bytes of the pages announced, by address. */
  readonly #pageBytes = new Map<bigint, number>();
  readonly #stop: () => void;
  /** When the last store to a unit was made that may still be on its way to memory. */
  readonly #issued = new Map<number, number>();
  /** Pages [first, end) of memory whose stores are not announced. */
  readonly #backed: readonly (readonly [first: number, end: number])[];
  /** Unmaps that have begun. */
  readonly #unmaps: { readonly note: OwnershipNote; readonly since: number }[] = [];
  #more = 0;
  /** Called with each finding as it is made. */
  onFinding: ((finding: Finding) => void) | null = null;

  /** Attaches. @throws RangeError for an unknown rule in the options */
  constructor(machine: Machine, options: SanitizerOptions = {}) {
    this.#machine = machine;
    this.#options = options;
    for (const id of [...(options.ignore ?? []), ...Object.keys(options.orderings ?? {})]) ruleNamed(id);
    this.#ignored = new Set(options.ignore);
    this.#history = new History(this.#clock);
    this.#backed = machine.memory.regions
      .filter(({ backed }) => backed)
      .map(({ base, size }) => [pageOf(unitOfPa(base)), pageOf(unitOfPa(base + size))]);
    const peek = new Peek(machine.memory);
    this.#pages = new Pages(peek);
    this.#pages.onStore = (unit, hi, lo) => {
      this.#clock.tick();
      this.#history.store(unit, hi, lo);
    };
    this.#pages.afterStore = (unit) => this.#issued.delete(unit);
    const context: Context = {
      clock: this.#clock,
      history: this.#history,
      pages: this.#pages,
      peek,
      issued: (unit) => this.#issued.get(unit),
      overtakes: (unit, units) =>
        machine.watch.overtakes?.(Math.floor(unit / 2 ** 29), (unit % 2 ** 29) * 8, units * 8) === true,
      ordering: (rule) => options.orderings?.[rule] ?? options.ordering ?? 'strict',
      noted: (kind) => this.#noted.has(kind),
      report: (rule, message, subject, units) => this.#report(rule, message, subject, units ?? []),
      capped: (what) => this.#capped.set(what, (this.#capped.get(what) ?? 0) + 1),
    };
    const tables = new Tables(context, {
      VMW: (name) => this.#smmu(name).smmu.regs.VMW,
      on: (name) => this.#smmu(name).smmu.regs.SMMUEN,
      BBML: (name) => this.#smmu(name).smmu.caps.BBML,
      combined: ({ smmu, VMID }) => this.#smmu(smmu).vmids.dirtyVa(VMID),
      dirty: (tag) => this.#smmu(tag.smmu).dirty(tag),
      pending: (tag) => this.#smmu(tag.smmu).pendingTag(tag),
      removed: ({ smmu, sid, ssid }, tag, removal, first, end, out) =>
        this.#smmu(smmu).removed(sid, ssid, tag, removal, first, end, out),
      global: (tag) => this.#smmu(tag.smmu).asids.global(tag),
    });
    this.#tables = tables;
    const neighbours = {
      tables,
      guests: options.guests === true,
      flushedElsewhere: (name: string, vmid: number): string =>
        [...this.#smmus.values()].find((other) => other.name !== name && other.flushedVmid(vmid))?.name ?? '',
    };
    for (const smmu of machine.smmus) this.#smmus.set(smmu.name, new SmmuState(context, smmu, machine, neighbours));
    this.#stop = this.#attach();
  }

  #attach(): () => void {
    const { memory, watch } = this.#machine;
    const unwatch = watchStores(memory, (hi, lo, bytes) => this.#pages.stored(hi, lo, bytes));
    const before = watch.observer;
    const own = (act: Announcement): void => this.#observe(act);
    const both: Observer =
      before === null
        ? own
        : (act) => {
            before(act);
            own(act);
          };
    watch.observer = both;
    const issuedBefore = watch.issued ?? null;
    const issued = (hi: number, lo: number): void => {
      issuedBefore?.(hi, lo);
      const unit = unitOf(hi, lo);
      if (this.#pages.watches(unit)) this.#issued.set(unit, this.#clock.tick());
    };
    watch.issued = issued;
    return () => {
      unwatch();
      if (watch.issued === issued) watch.issued = issuedBefore;
      if (watch.observer === both) watch.observer = before;
    };
  }

  /** Stops listening. Findings stay. */
  detach(): void {
    this.#stop();
  }

  #observe(act: Announcement): void {
    this.#clock.tick();
    if ('smmu' in act) {
      if (this.#backed.length > 0 && isMmio(act)) this.#pollBacked();
      this.#smmus.get(act.smmu)?.observe(act);
    } else if (act.kind === 'ats') this.#ats(act);
  }

  #ats({ endpoint, message }: AtsAct): void {
    if (message !== 'enabled' && message !== 'disabled') return;
    for (const { atcs } of this.#smmus.values()) atcs.switched(endpoint, message === 'enabled');
  }

  /** Memory whose stores are not announced is compared with what it was. */
  #pollBacked(): void {
    this.#pages.poll((page) => this.#backed.some(([first, end]) => page >= first && page < end));
  }

  /** An ownership announcement: connect it to `LocalKernel.onNote`, or call it from a shim. See docs/sanitizer.md. */
  readonly announce = (note: OwnershipNote): void => {
    if (note.what === 'driver') {
      this.takeover();
      return;
    }
    this.#clock.tick();
    this.#noted.add(note.what);
    if (note.what === 'vmid') this.#vmid(note);
    else if (note.what === 'asid') this.#asid(note);
    else if (note.what === 'page') this.#page(note);
    else if (note.what === 'stream')
      this.#smmu(note.where).announced.given(Number(note.id), note.act === 'free' ? '' : note.owner);
    else this.#operation(note);
  };

  #vmid({ act, where, id, owner }: OwnershipNote): void {
    const vmids = this.#smmu(where).vmids;
    const v = Number(id);
    if (act === 'alloc') vmids.allocated(v, owner);
    else if (act === 'give') vmids.given(v, owner);
    else vmids.freed(v, owner);
  }

  #asid({ act, where, id, owner }: OwnershipNote): void {
    for (const { name, asids, vmids, smmu } of this.#smmus.values()) {
      // One number for all SMMUs: one that is off is flushed before it goes on (CFG-19).
      if (where !== name && (where !== '' || (act === 'alloc' && !smmu.regs.SMMUEN))) continue;
      const ofHost = (vmid: number): boolean => vmid <= 0 || vmids.owner(vmid) === null;
      if (act === 'free') asids.freed(Number(id), ofHost, owner);
      else if (act === 'alloc') asids.allocated(Number(id), ofHost, owner);
    }
  }

  #page({ act, id, owner, bytes }: OwnershipNote): void {
    const size = bytes ?? this.#pageBytes.get(id) ?? PAGE_BYTES;
    if (act === 'alloc') this.#pageBytes.set(id, size);
    if (act !== 'free' && act !== 'give') return;
    // A page that goes back to its owner stays the memory that it is.
    if (act === 'free') this.#pageBytes.delete(id);
    this.#history.text('', `${owner} page 0x${id.toString(16)} (${size} bytes) given back`, { address: id });
    const first = Number(id / BigInt(UNIT_BYTES));
    for (const state of this.#smmus.values()) state.pageFreed(first, first + size / UNIT_BYTES);
    this.#tables.freed(first, first + size / UNIT_BYTES);
  }

  #operation(note: OwnershipNote): void {
    const { act, where, id, owner } = note;
    if (where !== '') {
      const state = this.#smmu(where).announced;
      if (act === 'begin') state.begins(Number(id), owner);
      else if (act === 'fail') state.failed(Number(id), owner);
      else if (act === 'done') state.done(Number(id), owner);
      return;
    }
    if (act === 'begin') this.#unmaps.push({ note, since: this.#clock.now });
    if (act !== 'done') return;
    this.#history.text(where, `${owner} done`, {});
    if (owner.startsWith('unmap') || owner.startsWith('dirty')) this.#unmapped(note);
    if (note.bytes === undefined) for (const { announced } of this.#smmus.values()) announced.done(-1, owner);
  }

  /** Nothing is left of what an unmap took away, or of what was said to be clean: since it began, in its range. */
  #unmapped({ id, bytes, owner, begun }: OwnershipNote): void {
    const at = this.#unmaps.findIndex(({ note }) =>
      begun === undefined ? note.id === id && note.bytes === bytes && note.owner === owner : note === begun,
    );
    const since = this.#unmaps.splice(at, at < 0 ? 0 : 1)[0]?.since ?? 0;
    const first = bytes === undefined ? 0 : Number(id / PAGE);
    const end = bytes === undefined ? Number.POSITIVE_INFINITY : Number((id + BigInt(bytes) + PAGE - 1n) / PAGE);
    // Another one under way, on another domain: what it takes away is its own affair.
    const later = this.#unmaps.filter((one) => one.since > since).map((one) => one.since);
    const range = { since, before: Math.min(...later, Number.POSITIVE_INFINITY), first, end };
    for (const { atcs } of this.#smmus.values()) atcs.unmapped(owner, range);
    this.#tables.unmapped(owner, range);
  }

  #smmu(name: string): SmmuState {
    const state = this.#smmus.get(name);
    if (state === undefined) throw new RangeError(`no SMMU ${name}; there are ${[...this.#smmus.keys()].join(', ')}`);
    return state;
  }

  /** Another driver takes the hardware over: owners are unknown again, hardware state is not. */
  takeover(): void {
    this.#clock.tick();
    this.#unmaps.length = 0;
    for (const { vmids, boot, announced } of this.#smmus.values()) {
      vmids.forgetOwners();
      announced.takeover();
      boot.takeover();
    }
  }

  /** State of a VMID's life on an SMMU. @throws RangeError for an unknown SMMU */
  vmidState(smmu: string, vmid: number): VmidState {
    return this.#smmu(smmu).vmids.state(vmid);
  }

  /** StreamIDs whose STE, in memory or in a cache, may tag entries with a VMID. @throws RangeError for an unknown SMMU */
  vmidUsers(smmu: string, vmid: number): number[] {
    return this.#smmu(smmu)
      .vmids.users(vmid)
      .map(({ sid }) => sid);
  }

  #report(rule: string, message: string, subject: Subject, units: readonly (readonly [number, number])[]): void {
    const info = ruleNamed(rule);
    if (this.#ignored.has(rule)) return;
    if (this.#findings.length >= (this.#options.maxFindings ?? DEFAULT_MAX)) {
      this.#more++;
      return;
    }
    const history = this.#history.lines({ subject, units });
    const by = subject.by ?? 'host';
    const finding: Finding = { rule, severity: info.severity, by, message, subject, time: this.#clock.now, history };
    this.#findings.push(finding);
    this.onFinding?.(finding);
  }

  /** Findings so far, and what could not be judged. */
  report(): SanitizerReport {
    return {
      findings: [...this.#findings],
      more: this.#more,
      undecided: RULES.map((rule) => this.#undecided(rule)).filter((one) => one !== undefined),
      capped: Object.fromEntries(this.#capped),
    };
  }

  #undecided(rule: RuleInfo): Undecided | undefined {
    if (neverDecided(rule)) return { rule: rule.id, why: rule.undecidable ?? '' };
    const missing = (rule.needs ?? []).filter((kind) => !this.#noted.has(kind));
    if (missing.length === 0) return undefined;
    return { rule: rule.id, why: `no announcements of ${missing.join(', ')}` };
  }
}

/** An access of a CPU to a device. */
const isMmio = ({ kind }: Announcement): boolean =>
  kind === 'register-read' || kind === 'register-write' || kind === 'cmdqv-read' || kind === 'cmdqv-write';
