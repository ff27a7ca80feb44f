/**
 * Bits of VMSAv8-64 descriptors as constants for the walker, taken from the tables of spec/descriptors.ts when the
 * module loads. `..._LO` masks lie in the low half of a descriptor, `..._HI` masks in the high half.
 */
import { DESCRIPTOR_TYPE, pte1, pte2 } from '../../spec/descriptors.ts';
import type { Layout } from '../../spec/layout.ts';

const TYPE = DESCRIPTOR_TYPE;
const PAGE1 = pte1('4k', 3, 'page');
const PAGE2 = pte2('4k', 3, 'page');
const TABLE1 = pte1('4k', 2, 'table');
const TABLE2 = pte2('4k', 2, 'table');

const lo = (layout: Layout, name: string): number => (layout.mask([name])[0] ?? 0) | 0;
const hi = (layout: Layout, name: string): number => (layout.mask([name])[1] ?? 0) | 0;
const shift = (layout: Layout, name: string): number => layout.slot(name).shift;

export const VALID_LO = lo(TYPE, 'Valid');
/** Table above level 3, page at level 3. */
export const TABLE_OR_PAGE_LO = lo(TYPE, 'Type');

/** Access flag of leaves; the same bit serves Table descriptors with HAFT. */
export const AF_LO = lo(PAGE1, 'AF');
export const NG_LO = lo(PAGE1, 'nG');
/** Blocks only: the entry is not to be cached (3.21.1.1). */
export const NT_LO = lo(pte1('4k', 2, 'block'), 'nT');
export const DBM_HI = hi(PAGE1, 'DBM');
export const CONTIGUOUS_HI = hi(PAGE1, 'Contiguous');
export const SH_SHIFT = shift(PAGE1, 'SH');
export const SH_MASK = PAGE1.slot('SH').mask;

export const ATTR_INDEX_SHIFT = shift(PAGE1, 'AttrIndx');
export const ATTR_INDEX_MASK = PAGE1.slot('AttrIndx').mask;
/** With CD.AIE, bit 3 of the index is the lowest PBHA bit. */
export const ATTR_INDEX_3_HI = 1 << shift(PAGE1, 'PBHA');
/** AP[1]: unprivileged code may access. */
export const AP_UNPRIVILEGED_LO = 1 << shift(PAGE1, 'AP');
/** AP[2]: read-only. */
export const AP_READ_ONLY_LO = 2 << shift(PAGE1, 'AP');
export const PXN_HI = hi(PAGE1, 'PXN');
export const UXN_HI = hi(PAGE1, 'UXN');

const AP_TABLE_SHIFT = shift(TABLE1, 'APTable');
/** APTable[0] of a Table descriptor's high half: no unprivileged access below. */
export const APTABLE_NO_UNPRIVILEGED_HI = 1 << AP_TABLE_SHIFT;
/** APTable[1]: no write below. */
export const APTABLE_NO_WRITE_HI = 2 << AP_TABLE_SHIFT;
export const PXNTABLE_HI = hi(TABLE1, 'PXNTable');
export const UXNTABLE_HI = hi(TABLE1, 'UXNTable');
/** All that a stage 1 Table descriptor can take away. */
export const HIERARCHICAL_HI = hi(TABLE1, 'APTable') | PXNTABLE_HI | UXNTABLE_HI;

export const S2_MEMATTR_SHIFT = shift(PAGE2, 'MemAttr');
export const S2_MEMATTR_MASK = PAGE2.slot('MemAttr').mask;
export const S2AP_READ_LO = 1 << shift(PAGE2, 'S2AP');
export const S2AP_WRITE_LO = 2 << shift(PAGE2, 'S2AP');
export const S2_XN_SHIFT = shift(PAGE2, 'XN');
export const S2_XN_MASK = PAGE2.slot('XN').mask;

/** Where the address bits above 47 (or 49) stand in a descriptor's low half, and how far left they go in the high. */
export interface AddressFormat {
  /** Address bits in place in the high half. */
  readonly hiMask: number;
  /** Address bits folded into the low half; 0: none. */
  readonly foldMask: number;
  readonly foldShift: number;
}

function formatOf(layout: Layout): AddressFormat {
  const hiMask = hi(layout, 'NextLevelTableAddress');
  const parts = layout.parts('NextLevelTableAddress');
  const low = layout.field('NextLevelTableAddress').address ?? 0;
  const top = parts.at(-1);
  // A folded part comes last in value order, yet stands in the low word.
  if (top === undefined || top.word !== 0 || parts.length < 2) return { hiMask, foldMask: 0, foldShift: 0 };
  return { hiMask, foldMask: (top.mask << top.shift) | 0, foldShift: top.at + low - 32 - top.shift };
}

/** [47:n]: no address bits elsewhere. */
export const FORMAT_48 = formatOf(TABLE2);
/** 64 KB granule with 52-bit output: OA[51:48] in [15:12]. */
export const FORMAT_64K_52 = formatOf(pte2('64k', 2, 'table', { pa52: true }));
/** DS=1: OA[51:50] in [9:8]. */
export const FORMAT_DS = formatOf(pte2('4k', 2, 'table', { ds: true }));
