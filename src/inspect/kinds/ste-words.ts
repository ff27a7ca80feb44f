/** An STE's fields, and the whole entry, in words (IHI 0070 5.2). */
import { GEOMETRY } from '../../../spec/descriptors.ts';
import {
  s2ConcatenationLog2,
  s2StartLevel,
  s2StartLevelV32,
  s2T0SZv32,
  TG0_GRANULE,
  tableFormat,
} from '../../../spec/sizes.ts';
import { STE } from '../../../spec/ste.ts';
import { s1Enabled, s2Enabled } from '../../../spec/stream-world.ts';
import { CACHEABILITY, hex, type Meanings, named, outputSize, SHAREABILITIES, type View } from '../record.ts';

const CONFIG: Readonly<Record<string, string>> = {
  ABORT: 'every access is aborted, without an event',
  ABORT_1: 'behaves as ABORT',
  ABORT_2: 'behaves as ABORT',
  ABORT_3: 'behaves as ABORT',
  BYPASS: 'no translation',
  S1_TRANS: 'stage 1 translates',
  S2_TRANS: 'stage 2 translates',
  NESTED: 'stage 1, then stage 2',
};

const fetch = named(CACHEABILITY, 'reserved');
const sharing = named(SHAREABILITIES, 'reserved, behaves as NSH');
const incoming = (words: Readonly<Record<string, string>>) =>
  named({ INCOMING: 'as the transaction says', ...words }, 'reserved, behaves as INCOMING');

/** Whether stage 2 uses the 32-bit table format; without a known SMMU, AArch32 is taken for S2AA64=0. */
const s2Format = (view: View) => tableFormat(view.num('S2AA64') === 1, view.caps ?? { D128: false });

function s2Input(view: View): number {
  const field = view.num('S2T0SZ');
  return s2Format(view) === 'v32' ? 32 - s2T0SZv32(field) : 64 - field;
}

function startLevel(view: View): string {
  const format = s2Format(view);
  const low = view.num('S2SL0');
  if (format === 'v128') return 'not used by VMSAv9-128';
  if (format === 'v32') {
    const level = s2StartLevelV32(low);
    return level === undefined ? 'reserved' : `starts at level ${level}`;
  }
  const granule = TG0_GRANULE[view.num('S2TG')];
  if (granule === undefined) return 'depends on the granule, which is reserved';
  const ds = view.num('S2DS') === 1;
  const sl = low + (ds && granule === '4k' && view.num('S2SL0_2') === 1 ? 4 : 0);
  const level = s2StartLevel(granule, sl, ds, view.caps ?? { OAS: 56, STT: true });
  if (level === undefined) return 'reserved for this granule';
  const tables = 2 ** s2ConcatenationLog2(granule, level, s2Input(view));
  const side = tables > 1 && tables <= 16 ? `, ${tables} tables side by side` : '';
  return `starts at level ${level}${side} (${GEOMETRY[granule].shift}-bit granule)`;
}

function streamWorldText(view: View): string {
  const name = view.named('STRW');
  if (view.num('Config') !== STE.fields.Config.values.S1_TRANS)
    return `${name}: not used, StreamWorld NS-EL1 where a stage translates`;
  if (name === 'EL1') return 'EL1: StreamWorld NS-EL1';
  if (name === 'EL2') return 'EL2: StreamWorld NS-EL2, or NS-EL2-E2H with CR2.E2H; no VMID';
  return `${name}: ILLEGAL in a Non-secure STE`;
}

const EATS: Readonly<Record<string, string>> = {
  OFF: 'ATS requests are refused',
  FULL: 'ATS, answers are physical addresses',
  SPLIT: 'split-stage ATS, answers are IPAs; needs CR0.ATSCHK',
  FULL_DPT: 'ATS with Device Permission Table check',
};

/** Meanings of STE fields. */
export const STE_MEANINGS: Meanings = {
  V: (view) => (view.num('V') === 1 ? 'valid' : 'invalid: C_BAD_STE, the rest is ignored'),
  Config: named(CONFIG, 'reserved'),
  S1Fmt: named(
    {
      LINEAR: 'one table of CDs',
      TWO_LEVEL_4KB: 'L1CD table, leaves of 64 CDs',
      TWO_LEVEL_64KB: 'L1CD table, leaves of 1024 CDs',
    },
    'reserved, behaves as LINEAR',
  ),
  S1CDMax: (view) => {
    const log2 = view.num('S1CDMax');
    return log2 === 0 ? 'one CD, no substreams' : `${2 ** log2} CDs: SubstreamID 0 to ${hex(2 ** log2 - 1)}`;
  },
  S1DSS: named(
    {
      TERMINATE: 'without a SubstreamID: F_STREAM_DISABLED',
      BYPASS: 'without a SubstreamID: stage 1 is bypassed',
      SSID0: 'without a SubstreamID: CD 0',
    },
    'reserved, behaves as TERMINATE',
  ),
  S1CIR: fetch,
  S1COR: fetch,
  S1CSH: sharing,
  CONT: (view) => (view.num('CONT') === 0 ? 'no run of equal STEs' : `one of ${2 ** view.num('CONT')} equal STEs`),
  S1STALLD: (view) => (view.num('S1STALLD') === 1 ? 'CD.S=1 is forbidden' : 'CDs may stall'),
  EATS: named(EATS, 'reserved'),
  STRW: streamWorldText,
  MemAttr: (view) => view.named('MemAttr', 'reserved, behaves as DEVICE_nGnRnE'),
  ALLOCCFG: (view) => {
    const value = view.num('ALLOCCFG');
    const hint = (bit: number, name: string): string => `${(value & bit) === 0 ? 'no ' : ''}${name}`;
    return value < 8
      ? 'incoming hints'
      : [hint(4, 'read-allocate'), hint(2, 'write-allocate'), hint(1, 'transient')].join(', ');
  },
  SHCFG: named({ ...SHAREABILITIES, INCOMING: 'as the transaction says' }, 'reserved'),
  NSCFG: incoming({}),
  PRIVCFG: incoming({}),
  INSTCFG: incoming({}),
  S2VMID: (view) => `VMID ${view.num('S2VMID')}`,
  S2T0SZ: (view) => `${s2Input(view)}-bit input`,
  S2SL0: startLevel,
  S2IR0: fetch,
  S2OR0: fetch,
  S2SH0: sharing,
  S2PS: (view) => outputSize(view.num('S2PS'), view.caps),
  S2AA64: (view) => {
    const formats = { v32: 'VMSAv8-32', v64: 'VMSAv8-64', v128: 'VMSAv9-128' } as const;
    return view.caps === undefined && view.num('S2AA64') === 0
      ? 'VMSAv8-32, or VMSAv9-128 with IDR5.D128'
      : formats[s2Format(view)];
  },
  S2AFFD: (view) => (view.num('S2AFFD') === 1 ? 'a clear Access flag does not fault' : 'a clear Access flag faults'),
  S2S: (view) => (view.num('S2S') === 1 ? 'stage 2 faults stall' : 'stage 2 faults abort'),
  S2R: (view) => (view.num('S2R') === 1 ? 'stage 2 faults are recorded' : 'stage 2 faults leave no event'),
};

/** An STE in a sentence. */
export function steSummary(view: View): string {
  if (view.num('V') === 0) return 'invalid';
  const config = view.named('Config');
  const parts: string[] = [config];
  const [s1, s2] = [s1Enabled(view.words), s2Enabled(view.words)];
  if (s1) {
    const log2 = view.num('S1CDMax');
    parts.push(
      log2 === 0 ? `CD at ${view.address('S1ContextPtr')}` : `${2 ** log2} CDs at ${view.address('S1ContextPtr')}`,
    );
  }
  if (s2) parts.push(`VMID ${view.num('S2VMID')}`, `stage 2 table at ${view.address('S2TTB')}`);
  if ((s1 || s2) && view.num('EATS') !== 0) parts.push(`ATS ${view.named('EATS')}`);
  return parts.join(', ');
}
