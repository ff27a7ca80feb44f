/** Translation table descriptors in words (DDI 0487 D8.3; IHI 0070 3.13 for Access flag and dirty state). */
import { hex, type Meanings, named, SHAREABILITIES, type View } from '../record.ts';

const shared: Meanings = {
  Valid: (view) => (view.num('Valid') === 1 ? 'valid' : 'invalid: F_TRANSLATION'),
  Type: (view) => / (table|block|page)$/.exec(view.layout.name)?.[1] ?? undefined,
  SH: named(SHAREABILITIES, 'reserved'),
  AF: (view) => {
    if (view.num('AF') === 1) return 'accessed';
    return view.has('OutputAddress') ? 'not accessed: F_ACCESS unless hardware updates it' : 'not accessed';
  },
  Contiguous: (view) => (view.num('Contiguous') === 1 ? 'one of a run of equal descriptors' : 'stands alone'),
};

const AP: Readonly<Record<string, string>> = {
  PRIV_RW: 'privileged read and write, unprivileged nothing',
  RW: 'read and write',
  PRIV_RO: 'privileged read, unprivileged nothing',
  RO: 'read',
};

/** Meanings of stage 1 descriptor fields. */
export const PTE1_MEANINGS: Meanings = {
  ...shared,
  AttrIndx: (view) => `attribute ${view.num('AttrIndx')} of CD.MAIR`,
  AP: (view) => {
    const clean =
      view.num('DBM') === 1 && (view.num('AP') & 2) !== 0
        ? '; clean, writable if hardware updates the dirty state'
        : '';
    return `${named(AP, 'reserved')(view, 'AP')}${clean}`;
  },
  nG: (view) => (view.num('nG') === 1 ? 'not global: one ASID' : 'global: every ASID'),
  APTable: named(
    {
      NONE: 'nothing is taken away below',
      NO_UNPRIV: 'no unprivileged access below',
      NO_WRITE: 'no writes below',
      NO_WRITE_NO_UNPRIV: 'no writes, no unprivileged access below',
    },
    'reserved',
  ),
};

const DEVICE = ['Device-nGnRnE', 'Device-nGnRE', 'Device-nGRE', 'Device-GRE'] as const;
const CACHE = ['reserved', 'NC', 'WT', 'WB'] as const;

const FORCED: Readonly<Record<number, string>> = { 5: 'Normal NC', 6: 'Normal WB', 7: 'as stage 1 says' };

/** Stage 2 MemAttr without S2FWB, and with it: the STE decides (DDI 0487 D8.6; IHI 0070 13.1.5). */
function memAttr(view: View): string {
  const value = view.num('MemAttr');
  const [outer, inner] = [value >>> 2, value & 3];
  const device = DEVICE[inner] ?? '';
  const plain = outer === 0 ? device : inner === 0 ? 'reserved' : `Normal outer ${CACHE[outer]}, inner ${CACHE[inner]}`;
  return `${plain}; with S2FWB ${outer === 0 ? device : (FORCED[value] ?? 'reserved')}`;
}

const XN: Readonly<Record<string, string>> = {
  X: 'executable',
  UX: 'unprivileged execution only',
  XN: 'not executable',
  PX: 'privileged execution only',
};

/** Meanings of stage 2 descriptor fields. */
export const PTE2_MEANINGS: Meanings = {
  ...shared,
  MemAttr: memAttr,
  S2AP: (view) => {
    const clean =
      view.num('DBM') === 1 && (view.num('S2AP') & 2) === 0
        ? '; clean, writable if hardware updates the dirty state'
        : '';
    return `${named({ NONE: 'no access', RO: 'read', WO: 'write', RW: 'read and write' }, 'reserved')(view, 'S2AP')}${clean}`;
  },
  XN: named(XN, 'reserved'),
};

/** A descriptor in a sentence. */
export function descriptorSummary(view: View): string {
  if (view.has('NextLevelTableAddress')) return `table at ${view.address('NextLevelTableAddress')}`;
  if (!view.has('OutputAddress')) return 'invalid';
  const size = view.layout.field('OutputAddress').address ?? 0;
  const first = view.layout.address(view.words, 'OutputAddress');
  const access = view.has('AP') ? view.named('AP') : view.named('S2AP');
  return `${hex(first)} to ${hex(first + (1n << BigInt(size)) - 1n)}, ${access}${view.num('AF') === 1 ? '' : ', not accessed'}`;
}
