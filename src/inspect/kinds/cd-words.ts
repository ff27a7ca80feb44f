/** A CD's fields, and the whole descriptor, in words (IHI 0070 5.4). */
import { tableFormat } from '../../../spec/sizes.ts';
import { CACHEABILITY, type Meanings, named, outputSize, SHAREABILITIES, type View } from '../record.ts';

const DEVICE = ['nGnRnE', 'nGnRE', 'nGRE', 'GRE'] as const;

function cacheText(nibble: number): string {
  if (nibble === 4) return 'NC';
  const hints = `${nibble & 2 ? ' RA' : ''}${nibble & 1 ? ' WA' : ''}`;
  const policy = (nibble & 4) !== 0 ? 'WB' : 'WT';
  return `${policy}${nibble & 8 ? '' : ' transient'}${hints}`;
}

/** A byte of MAIR in words (DDI 0487 MAIR_EL1; IHI 0070 5.4 MAIR0 for what an SMMU does not have). */
export function memoryAttribute(byte: number): string {
  const outer = byte >>> 4;
  const inner = byte & 15;
  if (outer === 0) {
    const device = DEVICE[inner >>> 2];
    return (inner & 3) === 0 && device !== undefined ? `Device-${device}` : 'reserved';
  }
  if (inner === 0) return byte === 0xf0 ? 'Tagged, not supported' : 'reserved';
  const [o, i] = [cacheText(outer), cacheText(inner)];
  return o === i ? `Normal ${o}` : `Normal outer ${o}, inner ${i}`;
}

/** MAIR bytes of a CD, attribute 0 first. */
export function mairOf(view: View): number[] {
  const both = [view.num('MAIR0'), view.num('MAIR1')];
  return both.flatMap((half) => [0, 8, 16, 24].map((shift) => (half >>> shift) & 0xff));
}

const mair = (first: number) => (view: View) =>
  mairOf(view)
    .slice(first, first + 4)
    .map((byte, i) => `${first + i}: ${memoryAttribute(byte)}`)
    .join('; ');

const cache = named(CACHEABILITY, 'reserved');
const sharing = named(SHAREABILITIES, 'reserved, behaves as NSH');
const format = (view: View) => tableFormat(view.num('AA64') === 1, view.caps ?? { D128: false });

function inputSize(view: View, name: string): string {
  const field = view.num(name);
  if (format(view) === 'v32') return `${32 - (field & 7)}-bit input`; // bits 5:3 are ignored there
  return `${64 - field}-bit input`;
}

const onOff = (on: string, off: string) => (view: View, name: string) => (view.num(name) === 1 ? on : off);

/** Meanings of CD fields. */
export const CD_MEANINGS: Meanings = {
  V: onOff('valid', 'invalid: C_BAD_CD, the rest is ignored'),
  T0SZ: inputSize,
  T1SZ: inputSize,
  TG0: (view) => view.named('TG0'),
  TG1: (view) => view.named('TG1'),
  IR0: cache,
  OR0: cache,
  IR1: cache,
  OR1: cache,
  SH0: sharing,
  SH1: sharing,
  EPD0: onOff('TTB0 is off: F_TRANSLATION', 'TTB0 is on'),
  EPD1: onOff('TTB1 is off: F_TRANSLATION', 'TTB1 is on'),
  IPS: (view) => outputSize(view.num('IPS'), view.caps),
  AFFD: onOff('a clear Access flag does not fault', 'a clear Access flag faults'),
  TBI0: onOff('the top byte is ignored', 'all bits of the address count'),
  TBI1: onOff('the top byte is ignored', 'all bits of the address count'),
  AA64: (view) => {
    const formats = { v32: 'VMSAv8-32', v64: 'VMSAv8-64', v128: 'VMSAv9-128' } as const;
    return view.caps === undefined && view.num('AA64') === 0
      ? 'VMSAv8-32, or VMSAv9-128 with IDR5.D128'
      : formats[format(view)];
  },
  HD: (view) =>
    view.num('HD') === 0
      ? 'off'
      : view.num('HA') === 1
        ? 'hardware updates the dirty state'
        : 'reserved with HA=0, behaves as off',
  S: onOff('faults stall', 'faults do not stall'),
  R: onOff('faults are recorded', 'faults leave no event'),
  A: onOff('a terminated access is aborted', 'a terminated access reads zero, writes are dropped'),
  ASET: onOff('PRIVATE: not in the set shared with CPUs', 'SHARED: in the set shared with CPUs'),
  ASID: (view) => `ASID ${view.num('ASID')}`,
  MAIR0: mair(0),
  MAIR1: mair(4),
};

/** A CD in a sentence. */
export function cdSummary(view: View): string {
  if (view.num('V') === 0) return 'invalid';
  const half = (n: 0 | 1): string =>
    view.num(`EPD${n}`) === 1
      ? `TTB${n} off`
      : `TTB${n} ${view.address(`TTB${n}`)} (${view.named(`TG${n}`)}, ${inputSize(view, `T${n}SZ`).replace('-bit input', ' bits')})`;
  return [`ASID ${view.num('ASID')}`, half(0), half(1)].join(', ');
}
