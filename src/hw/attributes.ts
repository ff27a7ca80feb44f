/**
 * Memory attributes (IHI 0070 13.1, 13.5). A packed attribute is the memory type in bits 3:0 (encoding of STE.MemAttr:
 * 0 to 3 Device, else outer << 2 | inner with 1 NC, 2 WT, 3 WB), shareability in 5:4 (0 NSH, 2 OSH, 3 ISH) and the
 * hints read-allocate, write-allocate, transient in 8, 7, 6.
 */
import { MEMATTR, SHAREABILITY } from '../../spec/encodings.ts';

export const TYPE_MASK = 0xf;
export const SH_SHIFT = 4;
export const SH_MASK = 3;
export const ALLOC_SHIFT = 6;
export const ALLOC_MASK = 7;
/** Hints: read-allocate, write-allocate, transient. */
export const RA = 4;
export const WA = 2;
export const TRANSIENT = 1;

const DEVICE_nGnRnE = MEMATTR.DEVICE_nGnRnE;
const NC = MEMATTR.ONC_INC;
const WB = MEMATTR.OWB_IWB;
const { OSH, ISH, NSH } = SHAREABILITY;

export const isDevice = (type: number): boolean => type < 4;

const INNER = 3;
const OUTER_SHIFT = 2;

/** Any cacheable level: hints mean something. */
const cacheable = (type: number): boolean => !isDevice(type) && ((type & INNER) > 1 || type >>> OUTER_SHIFT > 1);

/** Reserved encodings behave as Device-nGnRnE (5.2 MemAttr). */
const substitute = (type: number): number => (type > 3 && (type & INNER) === 0 ? DEVICE_nGnRnE : type);

/** The stronger of two memory types; inner and outer each for itself (13.1.5). */
function combineTypes(a: number, b: number): number {
  const x = substitute(a);
  const y = substitute(b);
  if (isDevice(x) || isDevice(y)) return isDevice(x) && isDevice(y) ? Math.min(x, y) : isDevice(x) ? x : y;
  return (Math.min(x >>> OUTER_SHIFT, y >>> OUTER_SHIFT) << OUTER_SHIFT) | Math.min(x & INNER, y & INNER);
}

/** Stage 2 with S2FWB=1 (5.2 S2FWB): 0 to 3 force a Device type, 5 NC, 6 WB, 7 leaves stage 1's. 4: reserved. */
function forceTypes(s1: number, s2: number, mtePerm: boolean): number {
  const low = s2 & 7;
  // Bit 3 is RES0 without MTEPERM; with it, 14 and 15 are 6 and 7 and the other set values are reserved (3.23.1).
  if (mtePerm && s2 > 7 && low < 6) return DEVICE_nGnRnE;
  if (low < 4) return low;
  if (low === 5) return isDevice(substitute(s1)) ? substitute(s1) : NC;
  if (low === 6) return WB;
  return low === 7 ? substitute(s1) : DEVICE_nGnRnE;
}

const COMBINE = Uint8Array.from({ length: 256 }, (_, i) => combineTypes(i >>> 4, i & 15));
const FORCE = Uint8Array.from({ length: 256 }, (_, i) => forceTypes(i >>> 4, i & 15, false));
const FORCE_MTE = Uint8Array.from({ length: 256 }, (_, i) => forceTypes(i >>> 4, i & 15, true));
const COMBINE_MTE = Uint8Array.from({ length: 256 }, (_, i) => combineTypes(i >>> 4, (i & 15) === 4 ? WB : i & 15));

/** How a stage 2 leaf's MemAttr acts on what comes in: first index the type coming in, second MemAttr. */
export function stage2Types(fwb: boolean, mtePerm: boolean): Uint8Array {
  if (fwb) return mtePerm ? FORCE_MTE : FORCE;
  return mtePerm ? COMBINE_MTE : COMBINE;
}

/** The stronger shareability: NSH, ISH, OSH. Encoding 1 is reserved and counts as NSH. */
export function combineSh(a: number, b: number): number {
  if (a === OSH || b === OSH) return OSH;
  return a === ISH || b === ISH ? ISH : NSH;
}

/** Packs, and makes the parts consistent (13.1.7): Device and NC are OSH and have no hints. */
export function pack(type: number, sh: number, alloc: number): number {
  const real = substitute(type);
  const own = isDevice(real) || real === NC ? OSH : sh === 1 ? NSH : sh;
  let hints = cacheable(real) ? alloc & ALLOC_MASK : 0;
  if ((hints & (RA | WA)) === 0) hints = 0;
  return real | (own << SH_SHIFT) | (hints << ALLOC_SHIFT);
}

export const typeOf = (packed: number): number => packed & TYPE_MASK;
export const shOf = (packed: number): number => (packed >>> SH_SHIFT) & SH_MASK;
export const allocOf = (packed: number): number => (packed >>> ALLOC_SHIFT) & ALLOC_MASK;

/** Hints of two sources: no-allocate and transient win (13.1.5). */
export function combineAlloc(a: number, b: number): number {
  return (a & b & (RA | WA)) | ((a | b) & TRANSIENT);
}

/** A stage 2 leaf on top of what comes in. types: {@link stage2Types}. */
export function throughStage2(incoming: number, types: Uint8Array, memAttr: number, sh: number): number {
  const type = types[(typeOf(incoming) << 4) | memAttr] ?? DEVICE_nGnRnE;
  return pack(type, combineSh(shOf(incoming), sh), cacheable(typeOf(incoming)) ? allocOf(incoming) : RA | WA);
}

/** One nibble of a MAIR byte as cacheability 1 to 3 with its hints in bits 6:4. */
function cacheability(nibble: number): { level: number; hints: number } {
  const hints = ((nibble & 2) !== 0 ? RA : 0) | ((nibble & 1) !== 0 ? WA : 0);
  if (nibble === 4) return { level: 1, hints: RA | WA };
  if (nibble < 4) return { level: 2, hints: hints | TRANSIENT };
  if (nibble < 8) return { level: 3, hints: hints | TRANSIENT };
  return { level: nibble < 12 ? 2 : 3, hints };
}

/** The Device types of MAIR bits 3:2. */
const DEVICE_TYPES = [MEMATTR.DEVICE_nGnRnE, MEMATTR.DEVICE_nGnRE, MEMATTR.DEVICE_nGRE, MEMATTR.DEVICE_GRE] as const;

/** An inner nibble of 0 beside an outer one that is not 0 is reserved: write-through, transient, RW = 11 (5.4 MAIR0). */
const RESERVED_INNER = 3;

/**
 * Type and hints of a MAIR byte (5.4 MAIR0, DDI 0487 MAIR_EL1), shareability left 0. Encodings that are UNPREDICTABLE on
 * a CPU, and those of later features (tagged memory, XS), behave as 5.4 says of reserved ones.
 */
export function mairAttribute(byte: number): number {
  const outer = byte >>> 4;
  if (outer === 0) return DEVICE_TYPES[(byte & 15) >>> 2] ?? DEVICE_nGnRnE;
  const o = cacheability(outer);
  const i = cacheability((byte & 15) === 0 ? RESERVED_INNER : byte & 15);
  return (o.level << OUTER_SHIFT) | i.level | (combineAlloc(o.hints, i.hints) << ALLOC_SHIFT);
}
