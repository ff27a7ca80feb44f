/**
 * What guests' own stage 1 may give, as sets: a plain model of their CDs and tables with what caches may still hold of
 * earlier ones. Nothing is shared with driver or hardware.
 *
 * A set has guest pages (IPA) and {@link FAULT}. Caches may hold anything that was true since the last invalidation by the
 * guest that covers it: CDs by device, pointers between tables and whole translations by owner of the VMID and ASID.
 */
import {
  FIRST_DATA_PAGE,
  GUEST_CDS,
  GUEST_PAGES,
  GUEST_SPACES,
  type GuestCd,
  type VsteMode,
  type VsteOptions,
} from './guest.ts';
import type { GuestCommand } from './operations/guest-command.ts';

/** No translation: the access is aborted, or stalls. */
export const FAULT = -1;

/** Guest pages that a page may be translated to, or {@link FAULT}. */
export type Translations = Set<number>;

interface CdValue {
  readonly space: number | null;
  readonly asid: number;
  readonly outside: boolean;
  readonly stall: boolean;
}

type Pointer = number | null | 'outside' | 'beyond';

/** A guest's memory as it is now. */
class Tables {
  readonly cds: CdValue[] = Array.from({ length: GUEST_CDS }, (_, i) =>
    i < GUEST_SPACES
      ? { space: i, asid: i + 1, outside: false, stall: false }
      : { space: null, asid: 0, outside: false, stall: false },
  );
  /** By space: where its table of level 1 or 2 leads; by level. */
  readonly pointers: Pointer[][] = Array.from({ length: GUEST_SPACES }, (_, i) => [i, i, i]);
  /** By space, by page. */
  readonly leaves: (number | null)[][] = Array.from({ length: GUEST_SPACES }, (_, space) =>
    Array.from({ length: GUEST_PAGES }, (_, page) => (space === 0 ? page : GUEST_PAGES - 1 + FIRST_DATA_PAGE - page)),
  );
}

/** How a device is attached to a guest's stage 1. */
export interface Stage1 {
  readonly vm: number;
  /** Who owns the VMID there, and on which SMMU: what shares TLB entries. */
  readonly scope: string;
  readonly vste: VsteMode;
  readonly options: VsteOptions;
}

/** What caches may hold under one VMID. */
interface Scope {
  /** Guest pages, by ASID and page. */
  readonly translations: Map<number, Map<number, Set<number>>>;
  /** Old pointers, by ASID, then space and level. */
  readonly pointers: Map<number, Map<string, Set<Pointer>>>;
}

interface Device {
  readonly at: Stage1;
  /** Old CDs that may be cached, by index. */
  readonly cds: Map<number, CdValue[]>;
  /** Pages that its ATC may hold, by SubstreamID (-1: none) and page. */
  readonly atc: Map<number, Map<number, Set<number>>>;
}

const sameCd = (a: CdValue, b: CdValue): boolean =>
  a.space === b.space && a.asid === b.asid && a.outside === b.outside && a.stall === b.stall;

function bucket<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}

const DATA_PAGES = Array.from({ length: GUEST_PAGES - FIRST_DATA_PAGE }, (_, i) => FIRST_DATA_PAGE + i);

/** See the module comment. */
export class GuestStage1 {
  readonly #tables: Tables[];
  readonly #scopes = new Map<string, Scope>();
  readonly #devices = new Map<string, Device>();

  /** SMMUs stall or terminate, as CDs say (IDR0.STALL_MODEL 0b00); false: they never stall. */
  readonly #stalls: boolean;

  constructor(vms: number, stalls = true) {
    this.#stalls = stalls;
    this.#tables = Array.from({ length: vms }, () => new Tables());
  }

  /** How a device is attached; undefined: not to a guest's stage 1. */
  stage1Of(dev: string): Stage1 | undefined {
    return this.#devices.get(dev)?.at;
  }

  /** A device is attached, in another way than before, or (undefined) not to a guest's stage 1. Its own caches are clean. */
  attach(dev: string, at: Stage1 | undefined): void {
    this.#remember();
    if (at === undefined) this.#devices.delete(dev);
    else this.#devices.set(dev, { at, cds: new Map(), atc: new Map() });
  }

  /** A guest has changed a leaf descriptor. */
  setLeaf(vm: number, space: number, page: number, to: number | null): void {
    this.#remember(page);
    const leaves = this.#tables[vm]?.leaves[space];
    if (leaves !== undefined) leaves[page] = to;
  }

  /** A guest has changed where a table leads. */
  setPointer(vm: number, space: number, level: number, to: Pointer): void {
    this.#remember();
    const pointers = this.#tables[vm]?.pointers[space];
    const old = pointers?.[level];
    if (pointers === undefined) return;
    pointers[level] = to;
    // A descriptor that is not valid is not cached; one that leads outside the VM's memory is a valid one.
    if (old === null || old === undefined) return;
    for (const { at, cds } of this.#devices.values()) {
      if (at.vm !== vm) continue;
      const asids = new Set([...(this.#tables[vm]?.cds ?? []), ...[...cds.values()].flat()].map(({ asid }) => asid));
      const scope = this.#scope(at.scope);
      for (const asid of asids)
        bucket(
          bucket(scope.pointers, asid, () => new Map<string, Set<Pointer>>()),
          `${space} ${level}`,
          () => new Set<Pointer>(),
        ).add(old);
    }
  }

  /** A guest has written a CD. */
  setCd(vm: number, index: number, cd: GuestCd): void {
    this.#remember();
    const tables = this.#tables[vm];
    const old = tables?.cds[index];
    if (tables === undefined || old === undefined) return;
    for (const { at, cds } of this.#devices.values()) {
      if (at.vm !== vm) continue;
      const cached = bucket(cds, index, () => [] as CdValue[]);
      if (!cached.some((one) => sameCd(one, old))) cached.push(old);
    }
    const { space, asid, outside = false, stall = false } = cd;
    tables.cds[index] = { space, asid: asid ?? (space ?? -1) + 1, outside, stall };
  }

  /**
   * A guest's commands have completed. Nothing orders those of one call: caches of CDs may be the last to go.
   * scope: whose VMID they carry; devOf: the device of a vSID; range: whether the SMMU invalidates by range
   */
  invalidated(
    scope: string,
    commands: readonly GuestCommand[],
    devOf: (vsid: number) => string | undefined,
    range: boolean,
  ): void {
    // Table descriptors may be the last to go, too: until then pages that are not covered themselves are made of them.
    const tables = commands.filter((command) => dropsTables(command, range));
    for (const command of commands) if (!tables.includes(command)) this.#flush(this.#scope(scope), command, range);
    for (const command of tables) {
      this.#remember();
      this.#flush(this.#scope(scope), command, range);
    }
    if (commands.some(({ command }) => command === 'CFGI_CD' || command === 'CFGI_CD_ALL')) this.#remember();
    for (const command of commands) {
      const device = this.#devices.get(devOf(command.vsid ?? 0) ?? '');
      if (device === undefined) continue;
      if (command.command === 'CFGI_CD_ALL') device.cds.clear();
      else if (command.command === 'CFGI_CD') device.cds.delete(baseOf(device.at.options) + (command.ssid ?? 0));
    }
    for (const command of commands) {
      const device = command.command === 'ATC_INV' ? this.#devices.get(devOf(command.vsid ?? 0) ?? '') : undefined;
      if (device !== undefined) atcInvalidated(device, command);
    }
  }

  #flush({ translations, pointers }: Scope, one: GuestCommand, range: boolean): void {
    const { command, asid = 0, page, pages = 1 } = one;
    if (command === 'NSNH_ALL' || command === 'NH_ALL') {
      translations.clear();
      pointers.clear();
    } else if (command === 'NH_ASID') {
      translations.delete(asid);
      pointers.delete(asid);
    } else if (command === 'NH_VA' || command === 'NH_VAA') {
      for (const [key, byPage] of translations)
        if (command === 'NH_VAA' || key === asid)
          for (let i = 0; i < (range ? pages : 1); i++) byPage.delete((page ?? 0) + i);
      if (!dropsTables(one, range)) return;
      if (command === 'NH_VAA') pointers.clear();
      else pointers.delete(asid);
    }
  }

  /** A device has asked for a translation: its ATC may keep what it got. */
  asked(dev: string, ssid: number | undefined, page: number): void {
    const device = this.#devices.get(dev);
    if (device === undefined) return;
    const kept = bucket(
      bucket(device.atc, ssid ?? -1, () => new Map<number, Set<number>>()),
      page,
      () => new Set<number>(),
    );
    for (const to of this.answers(dev, ssid, page, false) ?? []) if (to !== FAULT) kept.add(to);
  }

  /** Where an access may be translated to; undefined: the device is not attached to a guest's stage 1. */
  answers(dev: string, ssid: number | undefined, page: number, ats: boolean): Translations | undefined {
    const device = this.#devices.get(dev);
    if (device === undefined) return undefined;
    const out: Translations = new Set();
    const index = this.#illegalSte(device.at) ? 'fault' : indexOf(device.at, ssid);
    if (index === 'fault') out.add(FAULT);
    else if (index === 'bypass') out.add(page);
    else this.#indexed(device, index, page, out);
    if (ats) for (const to of device.atc.get(ssid ?? -1)?.get(page) ?? []) out.add(to);
    return out;
  }

  #indexed(device: Device, index: number, page: number, out: Translations): void {
    const scope = this.#scope(device.at.scope);
    for (const cd of this.#cdsOf(device, index)) {
      this.#walk(device.at, cd, page, out);
      if (cd.space !== null && !this.#illegalCd(device.at, cd))
        for (const to of scope.translations.get(cd.asid)?.get(page) ?? []) out.add(to);
    }
  }

  /** CDs that a device may use at an index: the one in memory, and those it may have cached. */
  #cdsOf({ at, cds }: Device, index: number): readonly CdValue[] {
    const now = this.#tables[at.vm]?.cds[index];
    return [...(now === undefined ? [] : [now]), ...(cds.get(index) ?? [])];
  }

  /** A vSTE with S1STALLD on an SMMU that never stalls (5.2 S1STALLD). */
  #illegalSte({ vste, options }: Stage1): boolean {
    return vste === 'translate' && options.stalld === true && !this.#stalls;
  }

  /** A CD whose faults stall where the SMMU, or its STE, lets none (5.4 S). */
  #illegalCd({ options }: Stage1, { stall }: CdValue): boolean {
    return stall && (!this.#stalls || options.stalld === true);
  }

  #walk(at: Stage1, cd: CdValue, page: number, out: Translations): void {
    const { vm, scope: name } = at;
    const { space, asid, outside } = cd;
    const tables = this.#tables[vm];
    if (tables === undefined || space === null || outside || this.#illegalSte(at) || this.#illegalCd(at, cd)) {
      out.add(FAULT);
      return;
    }
    const old = this.#scope(name).pointers.get(asid);
    const next = (from: number, level: number): readonly Pointer[] => [
      tables.pointers[from]?.[level] ?? null,
      ...(old?.get(`${from} ${level}`) ?? []),
    ];
    for (const second of next(space, 1))
      for (const third of typeof second === 'number' ? next(second, 2) : [null])
        out.add((typeof third === 'number' ? tables.leaves[third]?.[page] : null) ?? FAULT);
  }

  #scope(name: string): Scope {
    return bucket(this.#scopes, name, () => ({ translations: new Map(), pointers: new Map() }));
  }

  /** Caches may take up everything that can be translated now. page: of this page only */
  #remember(page?: number): void {
    const pages = page === undefined ? DATA_PAGES : [page];
    for (const device of this.#devices.values()) {
      const { translations } = this.#scope(device.at.scope);
      for (const index of indicesOf(device.at))
        for (const cd of this.#cdsOf(device, index)) {
          if (cd.space === null) continue;
          const byPage = bucket(translations, cd.asid, () => new Map<number, Set<number>>());
          for (const one of pages) {
            const found: Translations = new Set();
            this.#walk(device.at, cd, one, found);
            found.delete(FAULT);
            if (found.size === 0) continue;
            const kept = bucket(byPage, one, () => new Set<number>());
            for (const to of found) kept.add(to);
          }
        }
    }
  }
}

/** Whether a TLBI by address drops descriptors of tables. All data pages are below one of each level. */
const dropsTables = ({ command, page = 0, pages = 1, leaf = false }: GuestCommand, range: boolean): boolean =>
  (command === 'NH_VA' || command === 'NH_VAA') && !leaf && page + (range ? pages : 1) > FIRST_DATA_PAGE;

/** Index of the first CD of a table: it is aligned to its size. */
const baseOf = ({ cd = 0, ssids = 0 }: VsteOptions): number => Math.floor(cd / 2 ** ssids) * 2 ** ssids;

/** CDs that a vSTE reaches. */
function indicesOf({ vste, options }: Stage1): number[] {
  if (vste !== 'translate') return [];
  const base = baseOf(options);
  return Array.from({ length: Math.min(2 ** (options.ssids ?? 0), GUEST_CDS) }, (_, i) => base + i);
}

/** Which CD an access uses. */
function indexOf({ vste, options }: Stage1, ssid: number | undefined): number | 'fault' | 'bypass' {
  if (vste === 'abort') return 'fault';
  if (vste === 'bypass') return ssid === undefined ? 'bypass' : 'fault';
  const { ssids = 0, dss = 'TERMINATE' } = options;
  const base = baseOf(options);
  if (ssid === undefined) {
    if (ssids === 0 || dss === 'SSID0') return base;
    return dss === 'BYPASS' ? 'bypass' : 'fault';
  }
  if (ssids === 0 || ssid >= 2 ** ssids || (ssid === 0 && dss === 'SSID0')) return 'fault';
  return base + ssid;
}

/** Without a SubstreamID it reaches entries with and without one. */
function atcInvalidated({ atc }: Device, { ssid, page, pages = 1 }: GuestCommand): void {
  for (const [key, byPage] of atc) {
    if (ssid !== undefined && key !== ssid) continue;
    if (page === undefined) byPage.clear();
    else for (let i = 0; i < pages; i++) byPage.delete(page + i);
  }
}
