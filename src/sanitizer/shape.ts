/** The shape of a translation table: what a descriptor at each level is and says, for stage 1 and stage 2. */
import {
  blockAllowed,
  type Caps,
  CD,
  effectivePS,
  GEOMETRY,
  type Granule,
  MAX_CONCATENATION_LOG2,
  perCaps,
  RecordMemo,
  type Slot,
  STE,
  s2StartLevel,
  slotValue,
  stage1StartLevel,
  TG0_GRANULE,
  TG1_GRANULE,
  tableAlignLog2,
  WALK_CACHEABILITY,
  type Words,
} from '../../spec/index.ts';
import {
  type AddressFormat,
  AF_LO,
  AP_READ_ONLY_LO,
  AP_UNPRIVILEGED_LO,
  ATTR_INDEX_MASK,
  ATTR_INDEX_SHIFT,
  FORMAT_48,
  FORMAT_64K_52,
  FORMAT_DS,
  NG_LO,
  NT_LO,
  PXN_HI,
  S2_MEMATTR_MASK,
  S2_MEMATTR_SHIFT,
  S2_XN_MASK,
  S2_XN_SHIFT,
  S2AP_READ_LO,
  S2AP_WRITE_LO,
  TABLE_OR_PAGE_LO,
  UXN_HI,
  VALID_LO,
} from '../hw/descriptor-bits.ts';
import { swap32 } from '../hw/endian.ts';
import { inPlace } from '../hw/in-place.ts';
import { unitOf } from './units.ts';

/** Pages of 4 KiB are what input and output addresses are counted in here. */
export const PAGE_LOG2 = 12;

/** What a descriptor is. */
export type EntryKind = 'invalid' | 'table' | 'leaf';

/** See the module comment. */
export interface Shape {
  /** Equal for tables that are walked in the same way. */
  readonly key: string;
  readonly stage: 1 | 2;
  /** First unit of the start table. */
  readonly root: number;
  /** log2 of the granule. */
  readonly granule: number;
  readonly stride: number;
  readonly startLevel: number;
  /** Entries of the start table. */
  readonly startEntries: number;
  /** First input page that the table maps: not 0 for TTB1. */
  readonly base: number;
  readonly format: AddressFormat;
  readonly bigEndian: boolean;
  /** Bit level + 1: a block may stand there. */
  readonly blocks: number;
  /** Leaves whose Access flag is clear are used, and cached. */
  readonly affd: boolean;
  /** Hardware updates descriptors although walks are not write-back cacheable. */
  readonly uncachedUpdates: boolean;
  /** Where a table lies whose address is an intermediate one, in units; -1: nowhere. Absent: where it says. */
  readonly place?: (unit: number) => number;
}

const on = (words: Words, slot: Slot): boolean => slotValue(words, slot) !== 0;

interface Parameters {
  readonly stage: 1 | 2;
  readonly granule: Granule;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  readonly ttbHi: number;
  readonly ttbLo: number;
  readonly base: number;
  readonly ds: boolean;
  readonly bigEndian: boolean;
  readonly affd: boolean;
  readonly updates: boolean;
  readonly inner: number;
  readonly outer: number;
}

const uncached = (encoding: number): boolean =>
  encoding === WALK_CACHEABILITY.NC || encoding === WALK_CACHEABILITY.WT_RA;

/** Undefined if the start table would have more entries than any legal one: 16 tables side by side. */
function shapeOf(p: Parameters, caps: Caps): Shape | undefined {
  const { shift, stride, levels } = GEOMETRY[p.granule];
  if (p.inputBits > shift + (4 - p.startLevel) * stride + MAX_CONCATENATION_LOG2) return undefined;
  const align = 2 ** (tableAlignLog2(p.granule, p.startLevel, p.inputBits, p.outputBits) - 3);
  const unit = unitOf(p.ttbHi, p.ttbLo);
  const root = unit - (unit % align);
  const startEntries = 2 ** Math.max(0, p.inputBits - (shift + (3 - p.startLevel) * stride));
  let blocks = 0;
  for (const { level } of levels)
    if (blockAllowed(p.granule, level, { ds: p.ds, pa52: caps.OAS >= 52 })) blocks |= 1 << (level + 1);
  const format = p.granule === '64k' ? (p.outputBits >= 52 ? FORMAT_64K_52 : FORMAT_48) : p.ds ? FORMAT_DS : FORMAT_48;
  return {
    key: `${p.stage} ${root} ${p.granule} ${p.startLevel} ${startEntries} ${+p.ds} ${+p.bigEndian} ${p.base} ${p.outputBits}`,
    stage: p.stage,
    root,
    granule: shift,
    stride,
    startLevel: p.startLevel,
    startEntries,
    base: p.base,
    format,
    bigEndian: p.bigEndian,
    blocks,
    affd: p.affd,
    uncachedUpdates: p.updates && (uncached(p.inner) || uncached(p.outer)),
  };
}

const S2TTB = inPlace(STE, 'S2TTB');
const S2 = {
  T0SZ: STE.slot('S2T0SZ'),
  TG: STE.slot('S2TG'),
  SL0: STE.slot('S2SL0'),
  SL0_2: STE.slot('S2SL0_2'),
  DS: STE.slot('S2DS'),
  PS: STE.slot('S2PS'),
  ENDI: STE.slot('S2ENDI'),
  AA64: STE.slot('S2AA64'),
  AFFD: STE.slot('S2AFFD'),
  HA: STE.slot('S2HA'),
  IR0: STE.slot('S2IR0'),
  OR0: STE.slot('S2OR0'),
};

/** The stage 2 table of an STE; undefined for formats other than VMSAv8-64, and reserved encodings. */
export function shapeOfSte(ste: Words, caps: Caps): Shape | undefined {
  const granule = TG0_GRANULE[slotValue(ste, S2.TG)];
  if (granule === undefined || !on(ste, S2.AA64)) return undefined;
  const ds = caps.DS && on(ste, S2.DS) && granule !== '64k';
  const sl = slotValue(ste, S2.SL0) + (ds && granule === '4k' && on(ste, S2.SL0_2) ? 4 : 0);
  const startLevel = s2StartLevel(granule, sl, ds, caps);
  if (startLevel === undefined) return undefined;
  return shapeOf(
    {
      stage: 2,
      granule,
      inputBits: 64 - slotValue(ste, S2.T0SZ),
      outputBits: effectivePS(slotValue(ste, S2.PS), caps),
      startLevel,
      ttbHi: (ste[S2TTB.word + 1] ?? 0) & S2TTB.hiMask,
      ttbLo: (ste[S2TTB.word] ?? 0) & S2TTB.loMask,
      base: 0,
      ds,
      bigEndian: on(ste, S2.ENDI),
      affd: on(ste, S2.AFFD),
      updates: on(ste, S2.HA),
      inner: slotValue(ste, S2.IR0),
      outer: slotValue(ste, S2.OR0),
    },
    caps,
  );
}

const AA64 = CD.slot('AA64');
const IPS = CD.slot('IPS');
const DS = CD.slot('DS');
const ENDI = CD.slot('ENDI');
const AFFD = CD.slot('AFFD');
const HA = CD.slot('HA');
const HALVES = [
  {
    EPD: CD.slot('EPD0'),
    TSZ: CD.slot('T0SZ'),
    TG: CD.slot('TG0'),
    IR: CD.slot('IR0'),
    OR: CD.slot('OR0'),
    TTB: inPlace(CD, 'TTB0'),
    granules: TG0_GRANULE,
  },
  {
    EPD: CD.slot('EPD1'),
    TSZ: CD.slot('T1SZ'),
    TG: CD.slot('TG1'),
    IR: CD.slot('IR1'),
    OR: CD.slot('OR1'),
    TTB: inPlace(CD, 'TTB1'),
    granules: TG1_GRANULE,
  },
] as const;
/** Pages of 4 KiB in a 64-bit input address space. */
const INPUT_PAGES = 2 ** 52;

/** The stage 1 tables of a CD. `oneTtb`: the StreamWorld has TTB0 only. */
export const shapesOfCd = (cd: Words, caps: Caps, oneTtb: boolean): readonly Shape[] =>
  (oneTtb ? oneTable : twoTables)(caps).of(cd);

const oneTable = perCaps((caps) => new RecordMemo(CD.bytes / 4, (cd) => decodeCd(cd, caps, true)));
const twoTables = perCaps((caps) => new RecordMemo(CD.bytes / 4, (cd) => decodeCd(cd, caps, false)));

function decodeCd(cd: Words, caps: Caps, oneTtb: boolean): readonly Shape[] {
  const out: Shape[] = [];
  if (!on(cd, AA64)) return out;
  for (const [index, half] of HALVES.entries()) {
    const granule = half.granules[slotValue(cd, half.TG)];
    if (granule === undefined || (oneTtb ? index === 1 : on(cd, half.EPD))) continue;
    const inputBits = 64 - slotValue(cd, half.TSZ);
    const shape = shapeOf(
      {
        stage: 1,
        granule,
        inputBits,
        outputBits: effectivePS(slotValue(cd, IPS), caps),
        startLevel: stage1StartLevel(granule, inputBits),
        ttbHi: (cd[half.TTB.word + 1] ?? 0) & half.TTB.hiMask,
        ttbLo: (cd[half.TTB.word] ?? 0) & half.TTB.loMask,
        base: index === 0 ? 0 : INPUT_PAGES - 2 ** (inputBits - PAGE_LOG2),
        ds: caps.DS && on(cd, DS) && granule !== '64k',
        bigEndian: on(cd, ENDI),
        affd: on(cd, AFFD),
        updates: on(cd, HA),
        inner: slotValue(cd, half.IR),
        outer: slotValue(cd, half.OR),
      },
      caps,
    );
    if (shape !== undefined) out.push(shape);
  }
  return out;
}

/** Pages of 4 KiB that an entry of a level covers. */
export const entryPages = (shape: Shape, level: number): number =>
  2 ** (shape.granule + (3 - level) * shape.stride - PAGE_LOG2);

/** Entries of a table at a level. */
export const entriesAt = (shape: Shape, level: number): number =>
  level === shape.startLevel ? shape.startEntries : 2 ** shape.stride;

/** A descriptor as a walk reads it; one object, reused. */
export class Entry {
  kind: EntryKind = 'invalid';
  /** Table: first unit of the next one. Leaf: first output page of 4 KiB. */
  target = 0;
  global = false;
  accessed = false;
  nT = false;
  hi = 0;
  lo = 0;

  /** Decodes the two halves as they stand in memory. */
  read(shape: Shape, level: number, hi: number, lo: number): this {
    this.hi = shape.bigEndian ? swap32(lo) : hi;
    this.lo = shape.bigEndian ? swap32(hi) : lo;
    const table = (this.lo & TABLE_OR_PAGE_LO) !== 0;
    const block = ((shape.blocks >> (level + 1)) & 1) !== 0;
    if ((this.lo & VALID_LO) === 0 || (level === 3 ? !table : !table && !block)) {
      this.kind = 'invalid';
      return this;
    }
    const { hiMask, foldMask, foldShift } = shape.format;
    const outHi = (this.hi & hiMask) | ((this.lo & foldMask) << foldShift);
    this.kind = table && level !== 3 ? 'table' : 'leaf';
    const size = this.kind === 'table' ? shape.granule : shape.granule + (3 - level) * shape.stride;
    const unit = unitOf(outHi, this.lo);
    const aligned = unit - (unit % 2 ** (size - 3));
    this.target = this.kind === 'table' ? aligned : aligned / 2 ** (PAGE_LOG2 - 3);
    this.global = shape.stage === 1 && (this.lo & NG_LO) === 0;
    this.accessed = (this.lo & AF_LO) !== 0;
    this.nT = level !== 3 && (this.lo & NT_LO) !== 0;
    return this;
  }
}

/** Memory type bits of a leaf. */
export const typeBits = (shape: Shape, { lo }: Entry): number =>
  shape.stage === 1 ? (lo >>> ATTR_INDEX_SHIFT) & ATTR_INDEX_MASK : (lo >>> S2_MEMATTR_SHIFT) & S2_MEMATTR_MASK;

/** Whether a leaf lost something: a permission, its dirty state, its Access flag. Both lead to the same page. */
export function reduced(shape: Shape, old: Entry, now: Entry): boolean {
  if (old.accessed && !now.accessed) return true;
  if (shape.stage === 2)
    return (
      (old.lo & ~now.lo & (S2AP_READ_LO | S2AP_WRITE_LO)) !== 0 ||
      (((now.hi & ~old.hi) >>> S2_XN_SHIFT) & S2_XN_MASK) !== 0
    );
  return (
    (now.lo & ~old.lo & AP_READ_ONLY_LO) !== 0 ||
    (old.lo & ~now.lo & AP_UNPRIVILEGED_LO) !== 0 ||
    (now.hi & ~old.hi & (PXN_HI | UXN_HI)) !== 0
  );
}
