/** One stage's translation tables as a walk needs them: decoded once when an STE or CD is fetched. */
import type { Caps } from '../../spec/caps.ts';
import { blockAllowed, GEOMETRY, type Granule, type Level } from '../../spec/descriptors.ts';
import { WALK_CACHEABILITY } from '../../spec/encodings.ts';
import { tableAlignLog2 } from '../../spec/sizes.ts';
import { type AddressFormat, FORMAT_48, FORMAT_64K_52, FORMAT_DS } from './descriptor-bits.ts';
import type { TranslationChoices } from './translation-options.ts';

/** Levels -1 to 3. */
const LEVELS = 5;

/** What a stage's configuration says about its tables. */
export interface WalkParameters {
  readonly granule: Granule;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  readonly ttbHi: number;
  readonly ttbLo: number;
  /** CD.DS or STE.S2DS, effective. */
  readonly ds: boolean;
  /** Shareability of leaves with DS=1. */
  readonly sh: number;
  readonly bigEndian: boolean;
  readonly affd: boolean;
  readonly ha: boolean;
  readonly hd: boolean;
  readonly haft: boolean;
  /** Inner and outer cacheability of the walk, as {@link WALK_CACHEABILITY} encodes it. */
  readonly cacheability: readonly [inner: number, outer: number];
}

/** See the module comment. Addresses are halves. */
export class WalkConfig {
  /** log2 of the granule. */
  readonly granule: number;
  readonly stride: number;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  /** Lowest input bit of the index at the start level. */
  readonly startShift: number;
  /** Index mask at the start level; wider than below where tables are concatenated. */
  readonly startMask: number;
  readonly mask: number;
  readonly ttbHi: number;
  readonly ttbLo: number;
  /** Bits of an output address's high half that lie beyond the output size. */
  readonly beyondHi: number;
  readonly hiMask: number;
  readonly foldMask: number;
  readonly foldShift: number;
  /** Bit level + 1: a block may stand there. */
  readonly blocks: number;
  /** log2 of the run length of the Contiguous bit, by level + 1. */
  readonly runs = new Uint8Array(LEVELS);
  readonly ds: boolean;
  readonly sh: number;
  readonly bigEndian: boolean;
  /** A clear Access flag does not fault. IGNORED where hardware sets it. */
  readonly affd: boolean;
  /** Hardware sets Access flags. */
  readonly ha: boolean;
  /** Hardware keeps the dirty state, too. HD without HA is reserved and acts as neither (3.13). */
  readonly dirtyState: boolean;
  readonly haft: boolean;
  /** Hardware updates of descriptors end in F_WALK_EABT: the walk's attributes do not allow them here. */
  readonly updatesAbort: boolean;

  constructor(p: WalkParameters, caps: Pick<Caps, 'OAS'>, choices: TranslationChoices) {
    const { shift, stride, levels } = GEOMETRY[p.granule];
    this.granule = shift;
    this.stride = stride;
    this.inputBits = p.inputBits;
    this.outputBits = p.outputBits;
    this.startLevel = p.startLevel;
    this.startShift = shift + (3 - p.startLevel) * stride;
    this.startMask = 2 ** Math.max(0, p.inputBits - this.startShift) - 1;
    this.mask = 2 ** stride - 1;
    const align = tableAlignLog2(p.granule, p.startLevel, p.inputBits, p.outputBits);
    this.ttbHi = p.ttbHi;
    this.ttbLo = p.ttbLo & (-1 << align);
    this.beyondHi = p.outputBits >= 64 ? 0 : p.outputBits === 32 ? -1 : -1 << (p.outputBits - 32);
    const format = formatOf(p);
    this.hiMask = format.hiMask;
    this.foldMask = format.foldMask;
    this.foldShift = format.foldShift;
    let blocks = 0;
    for (const { level, contiguous } of levels) {
      if (blockAllowed(p.granule, level as Level, { ds: p.ds, pa52: caps.OAS >= 52 })) blocks |= 1 << (level + 1);
      this.runs[level + 1] = contiguous === 0 || !choices.contiguous ? 0 : Math.log2(contiguous);
    }
    this.blocks = blocks;
    this.ds = p.ds && p.granule !== '64k';
    this.sh = p.sh;
    this.bigEndian = p.bigEndian;
    this.affd = p.affd && !p.ha;
    this.ha = p.ha;
    this.dirtyState = p.ha && p.hd;
    this.haft = p.ha && p.haft;
    this.updatesAbort = choices.httuUncached === 'abort' && p.cacheability.some(uncached);
  }
}

/** Non-cacheable or Write-through: atomic updates need not work (3.15). */
const uncached = (encoding: number): boolean =>
  encoding === WALK_CACHEABILITY.NC || encoding === WALK_CACHEABILITY.WT_RA;

/** With the 64 KB granule, [15:12] carry an address only if the output has 52 bits; else they are RES0. */
function formatOf({ granule, ds, outputBits }: WalkParameters): AddressFormat {
  if (granule === '64k') return outputBits >= 52 ? FORMAT_64K_52 : FORMAT_48;
  return ds ? FORMAT_DS : FORMAT_48;
}

/** log2 of the bytes that a descriptor at a level covers. */
export const levelShift = (config: WalkConfig, level: number): number => config.granule + (3 - level) * config.stride;

/** Whether all address bits above the input size equal `sign` (0 or -1) (IHI 0070 3.4.1). */
export function inputInRange({ inputBits }: WalkConfig, hi: number, lo: number, sign: number): boolean {
  if (inputBits >= 32) return hi >> (inputBits - 32) === sign;
  return hi === sign && lo >> inputBits === sign;
}
