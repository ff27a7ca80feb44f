/** Address sizes, granules and start levels that STE and CD name by small encodings. Source: IHI 0070 3.4, 5.2, 5.4. */
import { ADDRESS_BITS, type Caps } from './caps.ts';
import { GEOMETRY, type Granule, type Level, MAX_CONCATENATION_LOG2 } from './descriptors.ts';
import { GRANULE_TG0, GRANULE_TG1 } from './encodings.ts';

/** Table format of a stage: VMSAv8-32 LPAE, VMSAv8-64, or VMSAv9-128. */
export type TableFormat = 'v32' | 'v64' | 'v128';

/** The format that CD.AA64 or STE.S2AA64 selects (IHI 0070 5.2 S2AA64, 5.4 AA64). */
export function tableFormat(aa64: boolean, caps: Pick<Caps, 'D128'>): TableFormat {
  if (aa64) return 'v64';
  return caps.D128 ? 'v128' : 'v32';
}

const byEncoding = (encodings: Readonly<Record<'4KB' | '16KB' | '64KB', number>>): readonly (Granule | undefined)[] => {
  const out: (Granule | undefined)[] = [undefined, undefined, undefined, undefined];
  out[encodings['4KB']] = '4k';
  out[encodings['16KB']] = '16k';
  out[encodings['64KB']] = '64k';
  return out;
};

/** Granule by the encoding of CD.TG0 and STE.S2TG; undefined where reserved. */
export const TG0_GRANULE = byEncoding(GRANULE_TG0);

/** Granule by the encoding of CD.TG1; undefined where reserved. */
export const TG1_GRANULE = byEncoding(GRANULE_TG1);

/** Whether IDR5 offers a granule. */
export function granuleSupported(granule: Granule, caps: Pick<Caps, 'GRAN4K' | 'GRAN16K' | 'GRAN64K'>): boolean {
  return granule === '4k' ? caps.GRAN4K : granule === '16k' ? caps.GRAN16K : caps.GRAN64K;
}

/** Address bits that STE.S2PS or CD.IPS stands for, before the limit of OAS: 32 to 56 (IHI 0070 5.2 S2PS). */
export function addressBits(encoding: number, minor: number): number {
  const widest = minor === 0 ? 48 : minor < 4 ? 52 : 56;
  return Math.min(ADDRESS_BITS[encoding & 7] ?? 56, widest);
}

/** Output size of a VMSAv8-64 or VMSAv9-128 stage in bits: the smaller of S2PS or IPS and OAS (IHI 0070 3.4). */
export function effectivePS(encoding: number, caps: Pick<Caps, 'OAS' | 'minor'>): number {
  return Math.min(addressBits(encoding, caps.minor), caps.OAS);
}

/** Output size of a VMSAv8-32 stage in bits, whatever S2PS or IPS says (IHI 0070 3.4). */
export const V32_OUTPUT_BITS = 40;

/** Lowest and highest legal value of a size field, both included. */
export interface SizeLimits {
  readonly min: number;
  readonly max: number;
}

/** Highest legal T0SZ, T1SZ or S2T0SZ (IHI 0070 5.2, 5.4; for VMSAv9-128 the pseudocode's rows are followed). */
export function maxTxSZ(granule: Granule, stt: boolean): number {
  if (!stt) return 39;
  return granule === '64k' ? 47 : 48;
}

/** Lowest legal S2T0SZ (IHI 0070 5.2 S2T0SZ). ds: effective S2DS. */
export function minS2T0SZ(
  granule: Granule,
  format: TableFormat,
  ds: boolean,
  caps: Pick<Caps, 'IAS' | 'minor'>,
): number {
  const byIas = 64 - caps.IAS;
  if (format === 'v128') return Math.max(8, byIas);
  if (caps.minor === 0) return byIas;
  return Math.max(ds || granule === '64k' ? 12 : 16, byIas);
}

/** Lowest legal T0SZ or T1SZ of a CD (IHI 0070 5.4 T0SZ). ds: effective CD.DS. */
export function minTxSZ(granule: Granule, format: TableFormat, ds: boolean, VAX: number): number {
  if (format === 'v128') return VAX === 0 ? 16 : VAX === 1 ? 12 : 9;
  return VAX !== 0 && (granule === '64k' || ds) ? 12 : 16;
}

/** A stage 2 start level and what it needs. sl: {S2SL0_2, S2SL0}. */
interface StartLevel {
  readonly sl: number;
  readonly level: Level;
  readonly oas?: number;
  readonly stt?: true;
  readonly ds?: true;
}

/** Stage 2 start levels of VMSAv8-64 by granule (DDI 0487 VTCR_EL2.SL0 and SL2, named by IHI 0070 5.2 S2SL0). */
const START_LEVELS: Readonly<Record<Granule, readonly StartLevel[]>> = {
  '4k': [
    { sl: 0, level: 2 },
    { sl: 1, level: 1 },
    { sl: 2, level: 0, oas: 44 },
    { sl: 3, level: 3, stt: true },
    { sl: 4, level: -1, ds: true },
  ],
  '16k': [
    { sl: 0, level: 3 },
    { sl: 1, level: 2 },
    { sl: 2, level: 1, oas: 42 },
    { sl: 3, level: 0, ds: true },
  ],
  '64k': [
    { sl: 0, level: 3 },
    { sl: 1, level: 2 },
    { sl: 2, level: 1, oas: 44 },
  ],
};

/** What decides which stage 2 start levels exist. */
export interface StartLevelNeeds {
  readonly OAS: number;
  readonly STT: boolean;
}

/**
 * Start level that {S2SL0_2, S2SL0} selects, or undefined for a reserved encoding (DDI 0487 VTCR_EL2).
 * sl: S2SL0, plus 4 if S2SL0_2 counts (4 KB granule and ds) and is set. ds: effective S2DS.
 */
export function s2StartLevel(granule: Granule, sl: number, ds: boolean, needs: StartLevelNeeds): Level | undefined {
  for (const row of START_LEVELS[granule])
    if (row.sl === sl) {
      if (row.ds === true && !ds) return undefined;
      if (row.stt === true && !needs.STT) return undefined;
      return row.oas !== undefined && needs.OAS < row.oas ? undefined : row.level;
    }
  return undefined;
}

/** Input bits that one table at `level` and all below it resolve. */
const reach = (granule: Granule, level: number): number =>
  GEOMETRY[granule].shift + (4 - level) * GEOMETRY[granule].stride;

/** Fewest input bits of a stage 2 walk that starts at `level` (DDI 0487 AArch64.S2InconsistentSL). */
export function s2MinInputBits(granule: Granule, level: number): number {
  return reach(granule, level + 1) + 1;
}

/** Most input bits of a stage 2 walk that starts at `level`, with 16 concatenated tables. */
export function s2MaxInputBits(granule: Granule, level: number): number {
  return reach(granule, level) + MAX_CONCATENATION_LOG2;
}

/** log2 of the number of concatenated tables that a stage 2 walk starts with: 0 to 4. */
export function s2ConcatenationLog2(granule: Granule, level: number, inputBits: number): number {
  return Math.max(0, inputBits - reach(granule, level));
}

/** Address bits 0 to this one, excluded, that hardware takes as zero in S2TTB or TTBx: log2 of the start table's size. */
export function tableAlignLog2(granule: Granule, level: number, inputBits: number, outputBits: number): number {
  return Math.max(inputBits - reach(granule, level + 1) + 3, outputBits >= 52 ? 6 : 4);
}

/** Start level of a stage 2 VMSAv8-32 walk, or undefined for a reserved S2SL0 (IHI 0070 5.2 S2SL0). */
export function s2StartLevelV32(sl: number): 1 | 2 | undefined {
  return sl === 0 ? 2 : sl === 1 ? 1 : undefined;
}

/** Size field of VMSAv8-32 stage 2: four bits, signed, -8 to 7; bits 5:4 are ignored (IHI 0070 5.2 S2T0SZ). */
export function s2T0SZv32(field: number): number {
  const low = field & 15;
  return low < 8 ? low : low - 16;
}

/** Start level of a VMSAv9-128 walk; above 3 is inconsistent (IHI 0070 5.4.2 CDSLInvalidD128). skip: SKL. */
export function startLevelV128(granule: Granule, inputBits: number, skip: number): number {
  const { shift } = GEOMETRY[granule];
  return 3 - Math.floor((inputBits - 1 - shift) / (shift - 4)) + skip;
}
