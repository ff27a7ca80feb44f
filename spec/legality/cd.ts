/**
 * When a CD is ILLEGAL, as C_BAD_CD reports it (IHI 0070 5.4.2 CdIllegal and the field texts of 5.4), for Non-secure
 * streams. V is no concern here: hardware looks at it first.
 *
 * A CD may be legal through one STE and not through another: {@link CdContext} is what counts of the STE. What is not
 * given is not known, and only what then holds for every STE is reported. Where the architecture leaves a choice, the
 * values of SMMUv3.1 and later hold: a TxSZ out of range is ILLEGAL and not clamped. TTB1 of an EL2 regime is not
 * checked, as the regime has none. Bits 55:52 of TTBx, RES0 without VMSAv9-128, count as address bits.
 */
import { ADDRESS_BITS, type Caps } from '../caps.ts';
import { CD, CD_D128 } from '../cd.ts';
import type { Granule } from '../descriptors.ts';
import { IDR0 } from '../id-registers.ts';
import { type Slot, slotValue, type Words } from '../layout.ts';
import {
  effectivePS,
  granuleSupported,
  maxTxSZ,
  minTxSZ,
  startLevelV128,
  type TableFormat,
  TG0_GRANULE,
  TG1_GRANULE,
  tableFormat,
  V32_OUTPUT_BITS,
} from '../sizes.ts';
import { STE } from '../ste.ts';
import { type StreamWorld, s2Enabled, streamWorld } from '../stream-world.ts';
import { addressBeyond, firstProblemOf, type Problem, problemsOf, type Rule, shows } from './rule.ts';

/** What of an STE decides whether a CD is legal. Undefined: not known. */
export interface CdContext {
  streamWorld?: StreamWorld | undefined;
  /** STE.S1STALLD. */
  S1STALLD?: boolean | undefined;
  /** STE.S1PIE. */
  S1PIE?: boolean | undefined;
  /** STE.S1MPAM; decides whether PARTID and PMG are used, not whether they are legal. */
  S1MPAM?: boolean | undefined;
  /** Stage 2 is on: STE.Config=111. */
  s2Enabled?: boolean | undefined;
  /** STE.S2AA64. */
  s2AA64?: boolean | undefined;
}

const STE_S1STALLD = STE.slot('S1STALLD');
const STE_S1PIE = STE.slot('S1PIE');
const STE_S1MPAM = STE.slot('S1MPAM');
const STE_S2AA64 = STE.slot('S2AA64');

/** The context of the CDs of a Non-secure STE. e2h: CR2.E2H. into: filled and returned, for paths that must not allocate. */
export function cdContext(ste: Words, caps: Pick<Caps, 'S1P' | 'Hyp'>, e2h: boolean, into: CdContext = {}): CdContext {
  into.streamWorld = streamWorld(ste, caps, e2h);
  into.S1STALLD = slotValue(ste, STE_S1STALLD) !== 0;
  into.S1PIE = slotValue(ste, STE_S1PIE) !== 0;
  into.S1MPAM = slotValue(ste, STE_S1MPAM) !== 0;
  into.s2Enabled = s2Enabled(ste);
  into.s2AA64 = slotValue(ste, STE_S2AA64) !== 0;
  return into;
}

const AA64 = CD.slot('AA64');
const S = CD.slot('S');
const A = CD.slot('A');
const ENDI = CD.slot('ENDI');
const EPD0 = CD.slot('EPD0');
const EPD1 = CD.slot('EPD1');
const HA = CD.slot('HA');
const HD = CD.slot('HD');
const HAFT = CD.slot('HAFT');
const ASID = CD.slot('ASID');
const IPS = CD.slot('IPS');
const DS = CD.slot('DS');
const PIE = CD.slot('PIE');
const INDEXES = Array.from({ length: 16 }, (_, p) => p);
const PIIU_NAMES = INDEXES.map((p) => `PIIU${p}` as keyof typeof CD.fields);
const PIIP_NAMES = INDEXES.map((p) => `PIIP${p}` as keyof typeof CD.fields);
const PIIU = PIIU_NAMES.map((name) => CD.parts(name));
const PIIP = PIIP_NAMES.map((name) => CD.parts(name));

/** One of the two halves of a CD. */
interface Half {
  readonly index: 0 | 1;
  readonly size: Slot;
  readonly granule: Slot;
  readonly granules: readonly (Granule | undefined)[];
  readonly skip: Slot;
  readonly beyond: (words: Words, bits: number) => boolean;
}

const HALF0: Half = {
  index: 0,
  size: CD.slot('T0SZ'),
  granule: CD.slot('TG0'),
  granules: TG0_GRANULE,
  skip: CD_D128.slot('SKL0'),
  beyond: addressBeyond(CD, 'TTB0'),
};

const HALF1: Half = {
  index: 1,
  size: CD.slot('T1SZ'),
  granule: CD.slot('TG1'),
  granules: TG1_GRANULE,
  skip: CD_D128.slot('SKL1'),
  beyond: addressBeyond(CD, 'TTB1'),
};

const HTTU = IDR0.fields.HTTU.values;
const STALL = IDR0.fields.STALL_MODEL.values;
const ENDIAN = IDR0.fields.TTENDIAN.values;

const on = (words: Words, slot: Slot): boolean => slotValue(words, slot) !== 0;
const show = (words: Words, name: string): string => shows(CD, words, name);

/** The StreamWorld, if it is given or if the SMMU has but one. */
const worldOf = (caps: Caps | undefined, context: CdContext | undefined): StreamWorld | undefined =>
  context?.streamWorld ?? (caps?.Hyp === false ? 'NS-EL1' : undefined);

/** Whether a half is disabled, or may be through an STE that is not known. */
function mayBeOff(words: Words, half: Half, caps: Caps | undefined, context: CdContext | undefined): boolean {
  const world = worldOf(caps, context);
  if (half.index === 0) return on(words, EPD0) && world !== 'NS-EL2';
  return on(words, EPD1) || world === undefined || world === 'NS-EL2';
}

/** Table format of stage 1; undefined: VMSAv8-32 or VMSAv9-128, the SMMU is not known. */
const formatOf = (words: Words, caps: Caps | undefined): TableFormat | undefined =>
  on(words, AA64) ? 'v64' : caps === undefined ? undefined : tableFormat(false, caps);

const granuleOf = (words: Words, half: Half): Granule | undefined => half.granules[slotValue(words, half.granule)];

/** CD.DS where it counts. An unknown SMMU is taken to have it. */
const dsOf = (words: Words, caps: Caps | undefined): boolean => on(words, DS) && on(words, AA64) && caps?.DS !== false;

const stalls = (caps: Caps): string => `IDR0.STALL_MODEL=${caps.STALL_MODEL}`;

function sizeRule(half: Half): Rule<CdContext>['broken'] {
  const name = `T${half.index}SZ`;
  return (words, caps, context) => {
    const format = formatOf(words, caps);
    const granule = granuleOf(words, half);
    if (format === undefined || format === 'v32' || granule === undefined || mayBeOff(words, half, caps, context))
      return undefined;
    const ds = dsOf(words, caps);
    const min = minTxSZ(granule, format, ds, caps?.VAX ?? 2);
    const max = maxTxSZ(granule, caps?.STT !== false);
    const size = slotValue(words, half.size);
    if (size >= min && size <= max) return undefined;
    if (caps === undefined) return `${show(words, name)}, legal ${min}..${max} at most (${granule} granule)`;
    const stt = caps.STT ? 'STT' : 'no STT';
    return `${show(words, name)}, legal ${min}..${max} (VAX ${caps.vaBits} bits, ${stt}, ${granule} granule${ds ? ', DS=1' : ''})`;
  };
}

function outputBits(words: Words, format: TableFormat | undefined, caps: Caps | undefined): number {
  if (format === 'v32') return V32_OUTPUT_BITS;
  const ips = slotValue(words, IPS);
  const byIps = caps === undefined ? (ADDRESS_BITS[ips] ?? 56) : effectivePS(ips, caps);
  return format === undefined ? Math.max(byIps, V32_OUTPUT_BITS) : byIps;
}

function tableRule(half: Half): Rule<CdContext>['broken'] {
  const tg = `TG${half.index}`;
  const ttb = `TTB${half.index}`;
  const reserved = half.granules.indexOf(undefined);
  return (words, caps, context) => {
    if (mayBeOff(words, half, caps, context)) return undefined;
    const format = formatOf(words, caps);
    const granule = granuleOf(words, half);
    if (format === 'v64' || format === 'v128') {
      if (granule === undefined) return `${show(words, tg)} is reserved, legal all but ${reserved}`;
      if (caps !== undefined && !granuleSupported(granule, caps))
        return `${show(words, tg)}, the ${granule} granule, is not supported (IDR5.GRAN4K=${+caps.GRAN4K}, GRAN16K=${+caps.GRAN16K}, GRAN64K=${+caps.GRAN64K})`;
    }
    const bits = outputBits(words, format, caps);
    if (half.beyond(words, bits))
      return `${show(words, ttb)}, legal below 2^${bits} (${show(words, 'IPS')}${caps === undefined ? '' : `, OAS ${caps.OAS}`})`;
    if (format !== 'v64' || granule === '64k' || dsOf(words, caps) || !half.beyond(words, 48)) return undefined;
    return `${show(words, ttb)}, legal below 2^48 (${granule} granule without effective DS)`;
  };
}

/** The value of a field that may lie across two 32-bit halves. */
function partsValue(words: Words, parts: (typeof PIIU)[number] | undefined): number {
  let value = 0;
  if (parts !== undefined)
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i];
      if (part !== undefined) value |= slotValue(words, part) << part.at;
    }
  return value;
}

/** 100 and 110 are the reserved stage 1 permissions: bit 2 set, bit 0 clear. */
const reservedPermission = (value: number): boolean => (value & 5) === 4;

function indirectionBroken(words: Words, unprivileged: boolean): string | undefined {
  for (let p = 0; p < 16; p++) {
    const privileged = partsValue(words, PIIP[p]);
    if (reservedPermission(privileged)) return `${show(words, PIIP_NAMES[p] ?? '')} is reserved, legal 0..3, 5 and 7`;
    if (!unprivileged) continue;
    const user = partsValue(words, PIIU[p]);
    if (reservedPermission(user)) return `${show(words, PIIU_NAMES[p] ?? '')} is reserved, legal 0..3, 5 and 7`;
    if ((privileged & 2) !== 0 && (user & 4) !== 0)
      return `${show(words, PIIP_NAMES[p] ?? '')} is executable, not legal where ${show(words, PIIU_NAMES[p] ?? '')} is writable`;
  }
  return undefined;
}

/** The rules of a Non-secure CD, in the order of IHI 0070 5.4.2. */
export const CD_RULES: readonly Rule<CdContext>[] = [
  {
    id: 'CD-C2',
    section: '5.4 S',
    fields: ['S'],
    broken: (words, _caps, context) =>
      context?.S1STALLD === true && on(words, S) ? `${show(words, 'S')}, legal 0 (STE.S1STALLD=1)` : undefined,
  },
  {
    id: 'CD-C3',
    section: '5.4 A',
    fields: ['A'],
    broken: (words, caps) =>
      caps?.TERM_MODEL === true && !on(words, A) ? `${show(words, 'A')}, legal 1 (IDR0.TERM_MODEL=1)` : undefined,
  },
  {
    id: 'CD-C4',
    section: '5.4 S',
    fields: ['S'],
    broken: (words, caps) =>
      caps?.STALL_MODEL === STALL.NO_STALL && on(words, S)
        ? `${show(words, 'S')}, legal 0 (${stalls(caps)}: no stall)`
        : undefined,
  },
  {
    id: 'CD-C5',
    section: '5.4 S',
    fields: ['S'],
    broken: (words, caps) =>
      caps?.STALL_MODEL === STALL.STALL_FORCED && !on(words, S)
        ? `${show(words, 'S')}, legal 1 (${stalls(caps)}: stall is forced)`
        : undefined,
  },
  {
    id: 'CD-C6',
    section: '5.4 ENDI',
    fields: ['ENDI', 'EPD0', 'EPD1'],
    broken: (words, caps, context) => {
      if (caps === undefined) return undefined;
      if (mayBeOff(words, HALF0, caps, context) && mayBeOff(words, HALF1, caps, context)) return undefined;
      const big = on(words, ENDI);
      if (caps.TTENDIAN === ENDIAN.LITTLE && big) return `${show(words, 'ENDI')}, legal 0 (IDR0.TTENDIAN=2)`;
      return caps.TTENDIAN === ENDIAN.BIG && !big ? `${show(words, 'ENDI')}, legal 1 (IDR0.TTENDIAN=3)` : undefined;
    },
  },
  {
    id: 'CD-C7',
    section: '5.4 AA64',
    fields: ['AA64'],
    broken: (words, caps, context) => {
      if (caps === undefined || formatOf(words, caps) !== 'v32') return undefined;
      if (!caps.aarch32) return `${show(words, 'AA64')}, legal 1 (IDR0.TTF=${caps.TTF})`;
      return worldOf(caps, context) === 'NS-EL2-E2H'
        ? `${show(words, 'AA64')}, legal 1 (StreamWorld NS-EL2-E2H has no VMSAv8-32)`
        : undefined;
    },
  },
  {
    id: 'CD-C8',
    section: '5.4 AA64',
    fields: ['AA64'],
    broken: (words, caps, context) => {
      if (caps === undefined || !on(words, AA64)) return undefined;
      if (!caps.aarch64) return `${show(words, 'AA64')}, legal 0 (IDR0.TTF=${caps.TTF})`;
      return context?.s2Enabled === true && context.s2AA64 === false && !caps.D128
        ? `${show(words, 'AA64')}, legal 0 (stage 2 of the STE is VMSAv8-32)`
        : undefined;
    },
  },
  {
    id: 'CD-C9',
    section: '5.4 HA, HD, HAFT',
    fields: ['HA', 'HD', 'HAFT'],
    broken: (words, caps) => {
      const format = formatOf(words, caps);
      if (format !== 'v64' && format !== 'v128') return undefined;
      if (caps !== undefined && caps.HTTU === HTTU.NONE && (on(words, HA) || on(words, HD)))
        return `${show(words, 'HA')}, ${show(words, 'HD')}, legal 0 and 0 (IDR0.HTTU=0)`;
      if (caps?.HTTU === HTTU.ACCESS && on(words, HD)) return `${show(words, 'HD')}, legal 0 (IDR0.HTTU=1)`;
      return caps?.HTTU === HTTU.ACCESS_DIRTY_TABLE && on(words, HAFT) && !on(words, HA)
        ? `${show(words, 'HAFT')} needs HA=1, not ${show(words, 'HA')} (IDR0.HTTU=3)`
        : undefined;
    },
  },
  {
    id: 'CD-C10',
    section: '5.4 ASID',
    fields: ['ASID'],
    broken: (words, caps, context) => {
      if (caps === undefined || caps.ASID16 || slotValue(words, ASID) <= 0xff) return undefined;
      const world = worldOf(caps, context);
      return world === undefined || world === 'NS-EL2'
        ? undefined
        : `${show(words, 'ASID')}, legal 0..255 (IDR0.ASID16=0, StreamWorld ${world})`;
    },
  },
  { id: 'CD-C11', section: '5.4 T0SZ', fields: ['T0SZ', 'TG0', 'EPD0', 'DS'], broken: sizeRule(HALF0) },
  { id: 'CD-C12', section: '5.4 T1SZ', fields: ['T1SZ', 'TG1', 'EPD1', 'DS'], broken: sizeRule(HALF1) },
  { id: 'CD-C13', section: '5.4 TTB0', fields: ['TTB0', 'TG0', 'IPS', 'EPD0', 'DS'], broken: tableRule(HALF0) },
  { id: 'CD-C14', section: '5.4 TTB1', fields: ['TTB1', 'TG1', 'IPS', 'EPD1', 'DS'], broken: tableRule(HALF1) },
  {
    id: 'CD-C15',
    section: '5.4.2',
    fields: ['AA64', 'T0SZ', 'T1SZ', 'SKL0', 'SKL1'],
    broken: (words, caps, context) => {
      if (caps === undefined || formatOf(words, caps) !== 'v128') return undefined;
      if (context?.S1PIE === false) return `${show(words, 'AA64')}: VMSAv9-128 needs STE.S1PIE=1`;
      if (worldOf(caps, context) === 'NS-EL2') return `${show(words, 'AA64')}: StreamWorld NS-EL2 has no VMSAv9-128`;
      return skipMessage(words, HALF0, caps, context) ?? skipMessage(words, HALF1, caps, context);
    },
  },
  {
    id: 'CD-C16',
    section: '5.4 PIIP, PIIU',
    fields: [...PIIP_NAMES, ...PIIU_NAMES, 'PIE'],
    broken: (words, caps, context) => {
      const format = formatOf(words, caps);
      const chosen = format === 'v64' && on(words, PIE) && caps?.S1PI === true && context?.S1PIE !== false;
      if (format !== 'v128' && !chosen) return undefined;
      const world = worldOf(caps, context);
      return indirectionBroken(words, world !== undefined && world !== 'NS-EL2');
    },
  },
];

function skipMessage(words: Words, half: Half, caps: Caps, context: CdContext | undefined): string | undefined {
  const granule = granuleOf(words, half);
  if (granule === undefined || mayBeOff(words, half, caps, context)) return undefined;
  const start = startLevelV128(granule, 64 - slotValue(words, half.size), slotValue(words, half.skip));
  return start > 3
    ? `${shows(CD_D128, words, `SKL${half.index}`)}: start level ${start}, legal up to 3 (${granule} granule)`
    : undefined;
}

/**
 * Every rule that a CD breaks. caps undefined: what no SMMUv3.x can accept; context undefined: what no STE can make
 * legal. V is not looked at.
 */
export function cdProblems(words: Words, caps?: Caps, context?: CdContext): Problem[] {
  return problemsOf(CD_RULES, words, caps, context);
}

/** The first rule that a CD breaks: the SMMU's own question. Allocates nothing for a legal CD. V is not looked at. */
export function firstCdProblem(words: Words, caps?: Caps, context?: CdContext): Problem | undefined {
  return firstProblemOf(CD_RULES, words, caps, context);
}
