/**
 * When a Non-secure STE is ILLEGAL, as C_BAD_STE reports it (IHI 0070 5.2.2 SteIllegal and the field texts of 5.2).
 *
 * V is no concern here: hardware looks at it first. Config=0xx stops all checks. Rules about Secure and Realm STEs (S4,
 * S5, S9, S12, S27) have no place in the Non-secure interface. Where the architecture leaves a choice:
 * - the values of SMMUv3.1 and later hold for v3.0 too: an S2T0SZ out of range is ILLEGAL and not clamped, a
 *   S1ContextPtr beyond OAS is ILLEGAL and not truncated, and EATS=01 with S2S=1 is ILLEGAL only with stage 2 on;
 * - a S1ContextPtr beyond IAS, with stage 2 on, is ILLEGAL rather than a stage 2 fault of the CD fetch;
 * - bits 55:52 of S2TTB, RES0 without VMSAv9-128, count as address bits: set, they make the STE ILLEGAL;
 * - split-stage ATS is checked whether or not CR0.ATSCHK lets it take effect.
 */
import { ADDRESS_BITS, type Caps, perCaps } from '../caps.ts';
import type { Granule, Level } from '../descriptors.ts';
import { IDR0 } from '../id-registers.ts';
import { slotValue, type Words } from '../layout.ts';
import { RecordMemo } from '../record-memo.ts';
import {
  effectivePS,
  granuleSupported,
  maxTxSZ,
  minS2T0SZ,
  s2MaxInputBits,
  s2MinInputBits,
  s2StartLevel,
  s2StartLevelV32,
  s2T0SZv32,
  startLevelV128,
  type TableFormat,
  TG0_GRANULE,
  tableFormat,
  V32_OUTPUT_BITS,
} from '../sizes.ts';
import { STE } from '../ste.ts';
import { s1Enabled, s2Enabled, strwUsed, vmidUsed, vmsSupported } from '../stream-world.ts';
import { addressBeyond, firstProblemOf, type Problem, problemsOf, type Rule, shows } from './rule.ts';

const CONFIG = STE.slot('Config');
const EATS = STE.slot('EATS');
const STRW = STE.slot('STRW');
const S1STALLD = STE.slot('S1STALLD');
const S1CDMAX = STE.slot('S1CDMax');
const S1FMT = STE.slot('S1Fmt');
const S1MPAM = STE.slot('S1MPAM');
const S2S = STE.slot('S2S');
const S2FWB = STE.slot('S2FWB');
const S2AA64 = STE.slot('S2AA64');
const S2HA = STE.slot('S2HA');
const S2HD = STE.slot('S2HD');
const S2HAFT = STE.slot('S2HAFT');
const S2TG = STE.slot('S2TG');
const S2PS = STE.slot('S2PS');
const S2DS = STE.slot('S2DS');
const S2T0SZ = STE.slot('S2T0SZ');
const S2SL0 = STE.slot('S2SL0');
const S2SL0_2 = STE.slot('S2SL0_2');
const S2SKL = STE.slot('S2SKL');
const S2ENDI = STE.slot('S2ENDI');
const S2PIE = STE.slot('S2PIE');
const S2POE = STE.slot('S2POE');
const S2VMID = STE.slot('S2VMID');
const S2HWU = (['S2HWU59', 'S2HWU60', 'S2HWU61', 'S2HWU62'] as const).map((name) => STE.slot(name));
const S2POI_NAMES = STE.names.filter((name) => name.startsWith('S2POI')) as (keyof typeof STE.fields &
  `S2POI${number}`)[];
const S2POI = S2POI_NAMES.map((name) => STE.slot(name));

const CONFIGS = STE.fields.Config.values;
const ATS = STE.fields.EATS.values;
const FORMATS = STE.fields.S1Fmt.values;
const HTTU = IDR0.fields.HTTU.values;
const STALL = IDR0.fields.STALL_MODEL.values;
const ENDIAN = IDR0.fields.TTENDIAN.values;

const contextPtrBeyond = addressBeyond(STE, 'S1ContextPtr');
const ttbBeyond = addressBeyond(STE, 'S2TTB');
const vmsBeyond = addressBeyond(STE, 'VMSPtr');

const on = (words: Words, slot: ReturnType<typeof STE.slot>): boolean => slotValue(words, slot) !== 0;
const show = (words: Words, name: string): string => shows(STE, words, name);
const configIs = (words: Words): string => `Config=${slotValue(words, CONFIG)}`;

/** ATS is on for the STE: EATS is looked at by these rules. */
const atsChecked = (words: Words, caps: Caps | undefined): caps is Caps => {
  const config = slotValue(words, CONFIG);
  return caps?.ATS === true && config > CONFIGS.BYPASS;
};

/** Table format of stage 2; undefined: VMSAv8-32 or VMSAv9-128, the SMMU is not known. */
const s2Format = (words: Words, caps: Caps | undefined): TableFormat | undefined =>
  on(words, S2AA64) ? 'v64' : caps === undefined ? undefined : tableFormat(false, caps);

/** Granule of stage 2 where it counts; undefined where reserved. */
const s2Granule = (words: Words): Granule | undefined => TG0_GRANULE[slotValue(words, S2TG)];

/** S2DS where it counts: VMSAv8-64, 4 or 16 KB granule. An unknown SMMU is taken to have it. */
const s2ds = (words: Words, caps: Caps | undefined, granule: Granule | undefined): boolean =>
  on(words, S2DS) && on(words, S2AA64) && granule !== '64k' && caps?.DS !== false;

/** The most permissive SMMU, for start levels. */
const ANY = { OAS: 56, STT: true } as const;

/** The most permissive SMMU, for sizes. */
const WIDEST = { IAS: 56, minor: 1 } as const;

/** Start level of a VMSAv8-64 stage 2; undefined if reserved. ds: effective S2DS. */
function startLevel(words: Words, granule: Granule, ds: boolean, caps: Caps | undefined): Level | undefined {
  const sl = slotValue(words, S2SL0) + (ds && granule === '4k' && on(words, S2SL0_2) ? 4 : 0);
  return s2StartLevel(granule, sl, ds, caps ?? ANY);
}

function levelMessage(words: Words, granule: Granule, ds: boolean, caps: Caps | undefined): string | undefined {
  const level = startLevel(words, granule, ds, caps);
  const extra = ds ? `, ${show(words, 'S2SL0_2')}, S2DS=1` : '';
  const where = `${granule} granule${caps === undefined ? '' : `, OAS ${caps.OAS}, ${caps.STT ? 'STT' : 'no STT'}`}`;
  if (level === undefined) {
    const legal = [0, 1, 2, 3].filter((sl) => s2StartLevel(granule, sl, ds, caps ?? ANY) !== undefined);
    return `${show(words, 'S2SL0')}${extra} is reserved, legal ${legal.join(', ')} (${where})`;
  }
  const input = 64 - slotValue(words, S2T0SZ);
  const [min, max] = [s2MinInputBits(granule, level), s2MaxInputBits(granule, level)];
  if (input >= min && input <= max) return undefined;
  return `${show(words, 'S2T0SZ')} does not fit ${show(words, 'S2SL0')}${extra}: start level ${level} takes ${64 - max}..${64 - min} (${where})`;
}

/** Whether size and start level go together; allocates nothing, for the fetch path. */
function levelFits(words: Words, granule: Granule, ds: boolean, caps: Caps | undefined): boolean {
  const level = startLevel(words, granule, ds, caps);
  const input = 64 - slotValue(words, S2T0SZ);
  return level !== undefined && input >= s2MinInputBits(granule, level) && input <= s2MaxInputBits(granule, level);
}

function levelsV32(words: Words): string | undefined {
  const level = s2StartLevelV32(slotValue(words, S2SL0));
  if (level === undefined) return `${show(words, 'S2SL0')} is reserved, legal 0..1 (VMSAv8-32)`;
  const size = s2T0SZv32(slotValue(words, S2T0SZ));
  const input = 32 - size;
  const min = s2MinInputBits('4k', level);
  const max = s2MaxInputBits('4k', level);
  if (input >= min && input <= max) return undefined;
  return `S2T0SZ (bits 163:160, signed) = ${size} does not fit ${show(words, 'S2SL0')}: start level ${level} takes ${Math.max(-8, 32 - max)}..${Math.min(7, 32 - min)} (VMSAv8-32)`;
}

/** Address bits that S2TTB may use by S2PS and OAS, and why. An unknown SMMU is taken at its widest. */
const ttbRange = (words: Words, caps: Caps | undefined): number => {
  const format = s2Format(words, caps);
  const ps = slotValue(words, S2PS);
  if (format === 'v32') return V32_OUTPUT_BITS;
  const byPs = caps === undefined ? (ADDRESS_BITS[ps] ?? 56) : effectivePS(ps, caps);
  return format === undefined ? Math.max(byPs, V32_OUTPUT_BITS) : byPs;
};

const stalls = (caps: Caps): string => `IDR0.STALL_MODEL=${caps.STALL_MODEL}`;

/** The rules of a Non-secure STE, in the order of IHI 0070 5.2.2. */
export const STE_RULES: readonly Rule[] = [
  {
    id: 'STE-S2',
    section: '5.2.2',
    fields: ['Config'],
    broken: (words, caps) =>
      caps !== undefined && !caps.S1P && s1Enabled(words)
        ? `${show(words, 'Config')} turns on stage 1, legal 0..4 and 6 (IDR0.S1P=0)`
        : undefined,
  },
  {
    id: 'STE-S3',
    section: '5.2.2',
    fields: ['Config'],
    broken: (words, caps) =>
      caps !== undefined && !caps.S2P && s2Enabled(words)
        ? `${show(words, 'Config')} turns on stage 2, legal 0..5 (IDR0.S2P=0)`
        : undefined,
  },
  {
    id: 'STE-S6',
    section: '5.2 EATS',
    fields: ['EATS', 'Config', 'S2S'],
    broken: (words, caps) => {
      if (!atsChecked(words, caps) || slotValue(words, EATS) !== ATS.SPLIT) return undefined;
      const got = `${show(words, 'EATS')}, split-stage ATS`;
      if (caps.NS1ATS) return `${got}, is not supported, legal 0 and 1 (IDR0.NS1ATS=1)`;
      if (slotValue(words, CONFIG) !== CONFIGS.NESTED) return `${got}, needs Config=7, not ${configIs(words)}`;
      return on(words, S2S) ? `${got}, needs S2S=0, not ${show(words, 'S2S')}` : undefined;
    },
  },
  {
    id: 'STE-S7',
    section: '5.2 EATS',
    fields: ['EATS', 'S2S', 'Config'],
    broken: (words, caps) =>
      atsChecked(words, caps) && slotValue(words, EATS) === ATS.FULL && s2Enabled(words) && on(words, S2S)
        ? `${show(words, 'EATS')} with ${show(words, 'S2S')}: with stage 2 on (${configIs(words)}), ATS needs S2S=0`
        : undefined,
  },
  {
    id: 'STE-S8',
    section: '5.2 EATS',
    fields: ['EATS', 'STRW'],
    broken: (words, caps) =>
      atsChecked(words, caps) &&
      caps.DPT &&
      slotValue(words, EATS) === ATS.FULL_DPT &&
      strwUsed(words, caps) &&
      on(words, STRW)
        ? `${show(words, 'EATS')} needs an EL1 StreamWorld, STRW=0, not ${show(words, 'STRW')} (IDR3.DPT=1)`
        : undefined,
  },
  {
    id: 'STE-S10',
    section: '5.2 EATS',
    fields: ['EATS', 'S2S', 'Config'],
    broken: (words, caps) =>
      atsChecked(words, caps) &&
      caps.DPT &&
      slotValue(words, EATS) === ATS.FULL_DPT &&
      s2Enabled(words) &&
      on(words, S2S)
        ? `${show(words, 'EATS')} with ${show(words, 'S2S')}: with stage 2 on (${configIs(words)}), ATS needs S2S=0`
        : undefined,
  },
  {
    id: 'STE-S11',
    section: '5.2 STRW',
    fields: ['STRW', 'Config'],
    broken: (words, caps) => {
      // Without Hyp the field is RES0, so a word alone does not make it illegal.
      if (caps === undefined || !strwUsed(words, caps)) return undefined;
      if (slotValue(words, CONFIG) !== CONFIGS.S1_TRANS || (slotValue(words, STRW) & 1) === 0) return undefined;
      return `${show(words, 'STRW')} is reserved in a Non-secure STE with ${configIs(words)}, legal 0 and 2 (IDR0.Hyp=1)`;
    },
  },
  {
    id: 'STE-S13',
    section: '5.2 S1STALLD',
    fields: ['S1STALLD'],
    broken: (words, caps) =>
      caps !== undefined && s1Enabled(words) && on(words, S1STALLD) && caps.STALL_MODEL !== STALL.STALL_TERMINATE
        ? `${show(words, 'S1STALLD')}, legal 0 (${stalls(caps)})`
        : undefined,
  },
  {
    id: 'STE-S14',
    section: '5.2 S1CDMax',
    fields: ['S1CDMax'],
    broken: (words, caps) =>
      caps !== undefined && s1Enabled(words) && caps.SSIDSIZE !== 0 && slotValue(words, S1CDMAX) > caps.SSIDSIZE
        ? `${show(words, 'S1CDMax')}, legal 0..${caps.SSIDSIZE} (IDR1.SSIDSIZE=${caps.SSIDSIZE})`
        : undefined,
  },
  {
    id: 'STE-S15',
    section: '5.2 S1Fmt',
    fields: ['S1Fmt', 'S1CDMax'],
    broken: (words, caps) => {
      if (caps === undefined || caps.CD2L || caps.SSIDSIZE === 0 || !s1Enabled(words)) return undefined;
      const format = slotValue(words, S1FMT);
      if (!on(words, S1CDMAX) || (format !== FORMATS.TWO_LEVEL_4KB && format !== FORMATS.TWO_LEVEL_64KB))
        return undefined;
      return `${show(words, 'S1Fmt')}, a two-level CD table, legal 0 and 3 (IDR0.CD2L=0, S1CDMax ${slotValue(words, S1CDMAX)})`;
    },
  },
  {
    id: 'STE-S16',
    section: '3.4.3',
    fields: ['S1ContextPtr', 'Config'],
    broken: (words, caps) => {
      if (caps === undefined || !s1Enabled(words)) return undefined;
      const nested = s2Enabled(words);
      const bits = nested ? caps.IAS : caps.OAS;
      if (!contextPtrBeyond(words, bits)) return undefined;
      return `${show(words, 'S1ContextPtr')}, legal below 2^${bits} (${nested ? `an IPA, IAS ${bits}` : `OAS ${bits}`})`;
    },
  },
  {
    id: 'STE-S17',
    section: '5.2 S2FWB',
    fields: ['S2FWB', 'S2AA64'],
    broken: (words, caps) =>
      caps?.FWB === true && s2Enabled(words) && on(words, S2FWB) && s2Format(words, caps) === 'v32'
        ? `${show(words, 'S2FWB')}, legal 0 with VMSAv8-32 (${show(words, 'S2AA64')})`
        : undefined,
  },
  {
    id: 'STE-S18',
    section: '5.2 S2S',
    fields: ['S2S'],
    broken: (words, caps) =>
      caps?.STALL_MODEL === STALL.NO_STALL && s2Enabled(words) && on(words, S2S)
        ? `${show(words, 'S2S')}, legal 0 (${stalls(caps)}: no stall)`
        : undefined,
  },
  {
    id: 'STE-S19',
    section: '5.2 S2S',
    fields: ['S2S'],
    broken: (words, caps) =>
      caps?.STALL_MODEL === STALL.STALL_FORCED && s2Enabled(words) && !on(words, S2S)
        ? `${show(words, 'S2S')}, legal 1 (${stalls(caps)}: stall is forced)`
        : undefined,
  },
  {
    id: 'STE-S20',
    section: '5.2 S2AA64',
    fields: ['S2AA64'],
    broken: (words, caps) => {
      if (caps === undefined || !s2Enabled(words)) return undefined;
      const format = s2Format(words, caps);
      if (format === 'v32' && !caps.aarch32) return `${show(words, 'S2AA64')}, legal 1 (IDR0.TTF=${caps.TTF})`;
      if (format === 'v64' && !caps.aarch64) return `${show(words, 'S2AA64')}, legal 0 (IDR0.TTF=${caps.TTF})`;
      return undefined;
    },
  },
  {
    id: 'STE-S21',
    section: '5.2 S2HD, S2HA',
    fields: ['S2HA', 'S2HD'],
    broken: (words, caps) => {
      if (caps === undefined || !s2Enabled(words) || (!on(words, S2HA) && !on(words, S2HD))) return undefined;
      const got = `${show(words, 'S2HA')}, ${show(words, 'S2HD')}`;
      if (s2Format(words, caps) === 'v32') return `${got}, legal 0 and 0 with VMSAv8-32`;
      if (caps.HTTU === HTTU.NONE) return `${got}, legal 0 and 0 (IDR0.HTTU=0)`;
      return caps.HTTU === HTTU.ACCESS && on(words, S2HD) ? `${show(words, 'S2HD')}, legal 0 (IDR0.HTTU=1)` : undefined;
    },
  },
  {
    id: 'STE-S22',
    section: '5.2 S2HAFT',
    fields: ['S2HAFT', 'S2HA'],
    broken: (words, caps) =>
      caps?.HTTU === HTTU.ACCESS_DIRTY_TABLE && s2Enabled(words) && on(words, S2HAFT) && !on(words, S2HA)
        ? `${show(words, 'S2HAFT')} needs S2HA=1, not ${show(words, 'S2HA')} (IDR0.HTTU=3)`
        : undefined,
  },
  {
    id: 'STE-S23',
    section: '5.2 S2TG',
    fields: ['S2TG'],
    broken: (words, caps) => {
      const format = s2Format(words, caps);
      if (!s2Enabled(words) || format === undefined || format === 'v32') return undefined;
      const granule = s2Granule(words);
      if (granule === undefined) return `${show(words, 'S2TG')} is reserved, legal 0 (4k), 1 (64k), 2 (16k)`;
      if (caps === undefined || granuleSupported(granule, caps)) return undefined;
      return `${show(words, 'S2TG')}, the ${granule} granule, is not supported (IDR5.GRAN4K=${+caps.GRAN4K}, GRAN16K=${+caps.GRAN16K}, GRAN64K=${+caps.GRAN64K})`;
    },
  },
  {
    id: 'STE-S24',
    section: '5.2 S2TTB',
    fields: ['S2TTB', 'S2PS', 'S2TG', 'S2DS'],
    broken: (words, caps) => {
      if (!s2Enabled(words)) return undefined;
      const bits = ttbRange(words, caps);
      if (ttbBeyond(words, bits)) {
        const oas = caps === undefined ? '' : `, OAS ${caps.OAS}`;
        return `${show(words, 'S2TTB')}, legal below 2^${bits} (${show(words, 'S2PS')}${oas})`;
      }
      const granule = s2Granule(words);
      if (!on(words, S2AA64) || granule === '64k' || granule === undefined || s2ds(words, caps, granule))
        return undefined;
      return ttbBeyond(words, 48)
        ? `${show(words, 'S2TTB')}, legal below 2^48 (${granule} granule without effective S2DS)`
        : undefined;
    },
  },
  {
    id: 'STE-S25',
    section: '5.2 S2T0SZ',
    fields: ['S2T0SZ', 'S2TG', 'S2DS'],
    broken: (words, caps) => {
      const format = s2Format(words, caps);
      const granule = s2Granule(words);
      if (!s2Enabled(words) || format === undefined || format === 'v32' || granule === undefined) return undefined;
      const ds = s2ds(words, caps, granule);
      const min = minS2T0SZ(granule, format, ds, caps ?? WIDEST);
      const max = maxTxSZ(granule, caps?.STT !== false);
      const size = slotValue(words, S2T0SZ);
      if (size >= min && size <= max) return undefined;
      if (caps === undefined) return `${show(words, 'S2T0SZ')}, legal ${min}..${max} at most (${granule} granule)`;
      const ias = caps.IAS === caps.OAS ? `OAS ${caps.OAS}` : `IAS ${caps.IAS}`;
      return `${show(words, 'S2T0SZ')}, legal ${min}..${max} (${ias}, ${caps.STT ? 'STT' : 'no STT'}, ${granule} granule${ds ? ', S2DS=1' : ''})`;
    },
  },
  {
    id: 'STE-S26',
    section: '5.2 S2SL0',
    fields: ['S2T0SZ', 'S2SL0', 'S2SL0_2', 'S2TG', 'S2SKL'],
    broken: (words, caps) => {
      const format = s2Format(words, caps);
      if (!s2Enabled(words) || format === undefined) return undefined;
      if (format === 'v32') return levelsV32(words);
      const granule = s2Granule(words);
      if (granule === undefined) return undefined;
      if (format === 'v128') {
        const start = startLevelV128(granule, 64 - slotValue(words, S2T0SZ), slotValue(words, S2SKL));
        return start > 3
          ? `${show(words, 'S2SKL')} with ${show(words, 'S2T0SZ')}: start level ${start}, legal up to 3 (${granule} granule)`
          : undefined;
      }
      const ds = s2ds(words, caps, granule);
      if (levelFits(words, granule, ds, caps)) return undefined;
      // An SMMU without IDR5.DS takes S2DS and S2SL0_2 for zero.
      if (caps === undefined && ds && levelFits(words, granule, false, caps)) return undefined;
      return levelMessage(words, granule, ds, caps);
    },
  },
  {
    id: 'STE-S28',
    section: '5.2 S2ENDI',
    fields: ['S2ENDI'],
    broken: (words, caps) => {
      if (caps === undefined || !s2Enabled(words)) return undefined;
      const big = on(words, S2ENDI);
      if (caps.TTENDIAN === ENDIAN.LITTLE && big) return `${show(words, 'S2ENDI')}, legal 0 (IDR0.TTENDIAN=2)`;
      return caps.TTENDIAN === ENDIAN.BIG && !big ? `${show(words, 'S2ENDI')}, legal 1 (IDR0.TTENDIAN=3)` : undefined;
    },
  },
  {
    id: 'STE-S29',
    section: '5.2 S2PIE',
    fields: ['S2PIE', 'S2AA64'],
    broken: (words, caps) =>
      caps?.S2PI === true && s2Enabled(words) && on(words, S2PIE) && s2Format(words, caps) === 'v32'
        ? `${show(words, 'S2PIE')}, legal 0 with VMSAv8-32 (${show(words, 'S2AA64')})`
        : undefined,
  },
  {
    id: 'STE-S30',
    section: '5.2 S2POE',
    fields: ['S2POE', 'S2PIE', 'S2HWU59', 'S2HWU60', 'S2HWU61', 'S2HWU62', ...S2POI_NAMES],
    broken: (words, caps) => {
      if (caps?.S2PO !== true || !s2Enabled(words) || !on(words, S2POE)) return undefined;
      const format = s2Format(words, caps);
      if (format !== undefined && format !== 'v128' && !on(words, S2PIE))
        return `${show(words, 'S2POE')} needs S2PIE=1, not ${show(words, 'S2PIE')}`;
      if (caps?.PBHA === true)
        for (const slot of S2HWU)
          if (on(words, slot)) return `${show(words, 'S2POE')} needs S2HWU59 to S2HWU62 = 0 (IDR3.PBHA=1)`;
      for (let i = 0; i < S2POI.length; i++) {
        const slot = S2POI[i];
        const name = S2POI_NAMES[i];
        // 1 and 5 are the reserved permissions: bit 2 alone tells them apart.
        if (slot !== undefined && name !== undefined && (slotValue(words, slot) & 11) === 1)
          return `${show(words, name)} is reserved, legal 0, 2..4 and 6..15 (S2POE=1)`;
      }
      return undefined;
    },
  },
  {
    id: 'STE-S31',
    section: '5.2 S2VMID',
    fields: ['S2VMID'],
    broken: (words, caps) =>
      caps !== undefined && !caps.VMID16 && slotValue(words, S2VMID) > 0xff && vmidUsed(words, caps)
        ? `${show(words, 'S2VMID')}, legal 0..255 (IDR0.VMID16=0)`
        : undefined,
  },
  {
    id: 'STE-S32',
    section: '5.2 VMSPtr',
    fields: ['VMSPtr', 'S1MPAM', 'Config'],
    broken: (words, caps) =>
      caps !== undefined &&
      slotValue(words, CONFIG) === CONFIGS.NESTED &&
      on(words, S1MPAM) &&
      vmsSupported(caps) &&
      vmsBeyond(words, caps.OAS)
        ? `${show(words, 'VMSPtr')}, legal below 2^${caps.OAS} (OAS ${caps.OAS})`
        : undefined,
  },
];

/** Every rule that an STE breaks. caps undefined: what no SMMUv3.x can accept. V is not looked at. */
export function steProblems(words: Words, caps?: Caps): Problem[] {
  return problemsOf(STE_RULES, words, caps);
}

/** The first rule that an STE breaks: the SMMU's own question. Allocates nothing for a legal STE. V is not looked at. */
export function firstSteProblem(words: Words, caps?: Caps): Problem | undefined {
  return caps === undefined ? firstProblemOf(STE_RULES, words, caps) : firstProblems(caps).of(words);
}

const firstProblems = perCaps(
  (caps) => new RecordMemo<Problem | undefined>(STE.bytes / 4, (words) => firstProblemOf(STE_RULES, words, caps)),
);
