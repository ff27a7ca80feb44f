/** Permissions of leaves, after everything that restricts them (IHI 0070 13.4, DDI 0487 D8.4). */
import * as bits from './descriptor-bits.ts';

// Local constants: an import is looked up anew at every use, and a walk uses these dozens of times.
const {
  AP_READ_ONLY_LO,
  AP_UNPRIVILEGED_LO,
  APTABLE_NO_UNPRIVILEGED_HI,
  APTABLE_NO_WRITE_HI,
  DBM_HI,
  PXN_HI,
  PXNTABLE_HI,
  S2_XN_MASK,
  S2_XN_SHIFT,
  S2AP_READ_LO,
  S2AP_WRITE_LO,
  UXN_HI,
  UXNTABLE_HI,
} = bits;

/** What an access needs, and what a leaf gives to one privilege. */
export const R = 1;
export const W = 2;
export const X = 4;
/** Stage 1: the unprivileged permissions stand this many bits above the privileged ones. */
export const UNPRIVILEGED_SHIFT = 3;
/** Stage 2: execution by unprivileged code; {@link X} is that by privileged code. */
export const S2_UX = 8;
/** Write permission holds only after the descriptor was made dirty (3.13). */
export const CLEAN = 64;

/** Permissions of a stage that takes no part. */
export const ALL_RIGHTS = 0x3f;

const PR = R;
const PW = W;
const PX = X;
const UR = R << UNPRIVILEGED_SHIFT;
const UW = W << UNPRIVILEGED_SHIFT;
const UX = X << UNPRIVILEGED_SHIFT;

/** What a CD says about permissions. */
export interface Stage1Rules {
  /** The regime tells privileged from unprivileged (all but NS-EL2). */
  readonly twoLevels: boolean;
  readonly WXN: boolean;
  readonly PAN: boolean;
  readonly EPAN: boolean;
  /** HA and HD: a read-only leaf with DBM counts as writable. */
  readonly dirtyState: boolean;
}

/**
 * Permissions of a stage 1 leaf. lo, hi: the descriptor; taken: hierarchical bits of the tables above it, where
 * {@link HIERARCHICAL_HI} has them.
 */
export function stage1Permissions(rules: Stage1Rules, hi: number, lo: number, taken: number): number {
  const apReadOnly = (lo & AP_READ_ONLY_LO) !== 0;
  const clean = apReadOnly && rules.dirtyState && (hi & DBM_HI) !== 0;
  const writable = (!apReadOnly || clean) && (taken & APTABLE_NO_WRITE_HI) === 0;
  const result = rules.twoLevels
    ? twoLevels(rules, hi, lo, taken, writable)
    : oneLevel(rules.WXN, (hi & UXN_HI) !== 0 || (taken & UXNTABLE_HI) !== 0, writable);
  return clean && writable ? result | CLEAN : result;
}

function oneLevel(wxn: boolean, xn: boolean, writable: boolean): number {
  const execute = !xn && !(wxn && writable);
  const one = R | (writable ? W : 0) | (execute ? X : 0);
  return one | (one << UNPRIVILEGED_SHIFT);
}

function twoLevels(rules: Stage1Rules, hi: number, lo: number, taken: number, writable: boolean): number {
  const open = (lo & AP_UNPRIVILEGED_LO) !== 0 && (taken & APTABLE_NO_UNPRIVILEGED_HI) === 0;
  let result = PR;
  if (writable) result |= PW;
  if (open) result |= writable ? UR | UW : UR;
  // Code that unprivileged software can write is never privileged code (DDI 0487: implicit PXN).
  if ((hi & PXN_HI) === 0 && (taken & PXNTABLE_HI) === 0 && !(open && writable)) result |= PX;
  if ((hi & UXN_HI) === 0 && (taken & UXNTABLE_HI) === 0) result |= UX;
  if (rules.WXN) {
    if ((result & PW) !== 0) result &= ~PX;
    if ((result & UW) !== 0) result &= ~UX;
  }
  if (rules.PAN && (open || (rules.EPAN && (result & UX) !== 0))) result &= ~(PR | PW);
  return result;
}

/** Permissions of a stage 2 leaf. xnx: IDR3.XNX; dirtyState: S2HA and S2HD. */
export function stage2Permissions(hi: number, lo: number, xnx: boolean, dirtyState: boolean): number {
  let result = (lo & S2AP_READ_LO) !== 0 ? R : 0;
  if ((lo & S2AP_WRITE_LO) !== 0) result |= W;
  else if (dirtyState && (hi & DBM_HI) !== 0) result |= W | CLEAN;
  const xn = (hi >>> S2_XN_SHIFT) & S2_XN_MASK;
  // XN[1] alone counts without XNX. With it: 0 both, 1 unprivileged, 2 none, 3 privileged.
  if (!xnx) return (xn & 2) === 0 ? result | X | S2_UX : result;
  if (xn === 0 || xn === 3) result |= X;
  if (xn === 0 || xn === 1) result |= S2_UX;
  return result;
}

/** Permissions that stage 1 must give: {@link R}, W, X of the access, at the place of its privilege. */
export function stage1Need(need: number, privileged: boolean): number {
  return privileged ? need : need << UNPRIVILEGED_SHIFT;
}

/** Permissions that stage 2 must give. */
export function stage2Need(need: number, privileged: boolean): number {
  return (need & X) !== 0 && !privileged ? (need & ~X) | S2_UX : need;
}
