/** From a stream and SubstreamID to its CD: CD tables in memory and what a CD means (IHI 0070 5.2, 5.3, 5.4). */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import { stage1StartLevel } from '../../spec/descriptors.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { slotValue, type Words } from '../../spec/layout.ts';
import { type CdContext, cdContext, firstCdProblem } from '../../spec/legality/cd.ts';
import { effectivePS, TG0_GRANULE, TG1_GRANULE } from '../../spec/sizes.ts';
import { mairAttribute } from './attributes.ts';
import type { CachedStream, ConfigCache } from './config-cache.ts';
import { C_BAD_CD, C_BAD_SUBSTREAMID, configFault, F_CD_FETCH, fetchFault } from './faults.ts';
import { addressHi, addressLo, inPlace } from './in-place.ts';
import type { Memory } from './memory.ts';
import { R, type Stage1Rules } from './permissions.ts';
import type { Stage1Config, Stage1Half } from './stage1-walker.ts';
import type { Stage2Walker } from './stage2-walker.ts';
import { beyond, HTTU_TABLES, readWords, type SteEntry } from './stream-table.ts';
import { type TagGroup, TagKind, type TagSpace } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import { FaultClass, Step, StreamWorld, type Transaction } from './transaction.ts';
import type { TranslationChoices } from './translation-options.ts';
import { WalkConfig } from './walk-config.ts';

const V = CD.slot('V');
const A = CD.slot('A');
const CD_R = CD.slot('R');
const S = CD.slot('S');
const ASID = CD.slot('ASID');
const ASET = CD.slot('ASET');
const IPS = CD.slot('IPS');
const AFFD = CD.slot('AFFD');
const WXN = CD.slot('WXN');
const PAN = CD.slot('PAN');
const EPAN = CD.slot('EPAN');
const HA = CD.slot('HA');
const HD = CD.slot('HD');
const HAFT = CD.slot('HAFT');
const ENDI = CD.slot('ENDI');
const AIE = CD.slot('AIE');
const DS = CD.slot('DS');
const PARTID = CD.slot('PARTID');
const PMG = CD.slot('PMG');
const MAIR0 = CD.slot('MAIR0');
const MAIR1 = CD.slot('MAIR1');
const HALVES = [
  {
    size: CD.slot('T0SZ'),
    granule: CD.slot('TG0'),
    granules: TG0_GRANULE,
    ttb: inPlace(CD, 'TTB0'),
    EPD: CD.slot('EPD0'),
    TBI: CD.slot('TBI0'),
    E0PD: CD.slot('E0PD0'),
    HAD: CD.slot('HAD0'),
    SH: CD.slot('SH0'),
    IR: CD.slot('IR0'),
    OR: CD.slot('OR0'),
  },
  {
    size: CD.slot('T1SZ'),
    granule: CD.slot('TG1'),
    granules: TG1_GRANULE,
    ttb: inPlace(CD, 'TTB1'),
    EPD: CD.slot('EPD1'),
    TBI: CD.slot('TBI1'),
    E0PD: CD.slot('E0PD1'),
    HAD: CD.slot('HAD1'),
    SH: CD.slot('SH1'),
    IR: CD.slot('IR1'),
    OR: CD.slot('OR1'),
  },
] as const;

const L1_V = L1CD.slot('V');
const L2PTR = inPlace(L1CD, 'L2Ptr');
const CD_LOG2 = Math.log2(CD.bytes);
const L1CD_LOG2 = Math.log2(L1CD.bytes);
/** MAIR bytes that one register half holds. */
const BYTES = 4;

const on = (words: Words, slot: typeof V): boolean => slotValue(words, slot) !== 0;

/** A CD as translation uses it: decoded once, in the context of the STE it was fetched through. */
export class CdEntry implements Stage1Config {
  readonly words: Words;
  /** Why it is not usable: 'V' or the id of a legality rule; '' if it is (C_BAD_CD otherwise). */
  readonly rule: string;
  readonly A: boolean;
  readonly R: boolean;
  readonly S: boolean;
  /** -1 where the StreamWorld has none. */
  readonly ASID: number;
  readonly ASET: number;
  /** Only TTB0 exists: NS-EL2. */
  readonly oneTtb: boolean;
  readonly half0: Stage1Half;
  readonly half1: Stage1Half;
  readonly rules: Stage1Rules;
  readonly mair: Uint16Array;
  readonly AIE: boolean;
  /** MPAM ids as written; virtual where the STE has a VMS. Used with STE.S1MPAM. */
  readonly PARTID: number;
  readonly PMG: number;
  readonly group: TagGroup;
  readonly tables: TagSpace;
  /** Tag of non-global leaves. */
  readonly leaves: TagSpace;
  /** Tag of global leaves. */
  readonly globals: TagSpace;

  constructor(
    words: Words,
    ste: SteEntry,
    group: TagGroup,
    context: CdContext,
    caps: Caps,
    tlb: Tlb,
    choices: TranslationChoices,
  ) {
    this.words = words;
    this.rule = on(words, V) ? (firstCdProblem(words, caps, context)?.rule ?? '') : 'V';
    this.A = on(words, A);
    this.R = on(words, CD_R);
    this.S = on(words, S);
    this.oneTtb = ste.world === StreamWorld.NsEl2;
    this.ASID = this.oneTtb ? -1 : slotValue(words, ASID);
    this.ASET = this.oneTtb ? 0 : slotValue(words, ASET);
    this.rules = {
      twoLevels: !this.oneTtb,
      WXN: on(words, WXN),
      PAN: !this.oneTtb && on(words, PAN),
      EPAN: caps.EPAN && on(words, EPAN),
      dirtyState: on(words, HA) && on(words, HD),
    };
    this.AIE = caps.AIE && on(words, AIE);
    this.PARTID = slotValue(words, PARTID);
    this.PMG = slotValue(words, PMG);
    this.mair = mairOf(words);
    this.group = group;
    const asid = Math.max(this.ASID, 0);
    this.tables = tlb.groups.asid(group, TagKind.S1Table, asid, this.ASET);
    this.leaves = tlb.groups.asid(group, TagKind.VA, asid, this.ASET);
    this.globals = group.globals[this.ASET === 0 ? 0 : 1];
    this.half0 = halfOf(words, HALVES[0], this.oneTtb, caps, choices, this.rule === '');
    this.half1 = this.oneTtb ? this.half0 : halfOf(words, HALVES[1], false, caps, choices, this.rule === '');
  }
}

/** Attributes by AttrIndx; with AIE, indices 8 to 15 are that of the last byte (5.4 MAIR0). */
function mairOf(words: Words): Uint16Array {
  const out = new Uint16Array(4 * BYTES);
  for (let i = 0; i < out.length; i++) {
    const byte = Math.min(i, 2 * BYTES - 1);
    const half = slotValue(words, byte < BYTES ? MAIR0 : MAIR1);
    out[i] = mairAttribute((half >>> ((byte % BYTES) * 8)) & 0xff);
  }
  return out;
}

function halfOf(
  words: Words,
  half: (typeof HALVES)[0 | 1],
  oneTtb: boolean,
  caps: Caps,
  choices: TranslationChoices,
  legal: boolean,
): Stage1Half {
  const disabled = !oneTtb && on(words, half.EPD);
  const known = legal && !disabled;
  const granule = (known ? half.granules[slotValue(words, half.granule)] : undefined) ?? '4k';
  const inputBits = known ? 64 - slotValue(words, half.size) : 48;
  const walk = new WalkConfig(
    {
      granule,
      inputBits,
      outputBits: effectivePS(slotValue(words, IPS), caps),
      startLevel: stage1StartLevel(granule, inputBits),
      ttbHi: addressHi(words, half.ttb),
      ttbLo: addressLo(words, half.ttb),
      ds: caps.DS && on(words, DS) && granule !== '64k',
      sh: slotValue(words, half.SH),
      bigEndian: on(words, ENDI),
      affd: on(words, AFFD),
      ha: on(words, HA),
      hd: on(words, HD),
      haft: caps.HTTU === HTTU_TABLES && on(words, HAFT),
      cacheability: [slotValue(words, half.IR), slotValue(words, half.OR)],
    },
    caps,
    choices,
  );
  return {
    walk,
    disabled,
    TBI: on(words, half.TBI),
    E0PD: !oneTtb && caps.E0PD && on(words, half.E0PD),
    HAD: caps.HAD && on(words, half.HAD),
  };
}

/** See the module comment. */
export class ContextDescriptors {
  readonly #memory: Memory;
  readonly #caps: Caps;
  readonly #cache: ConfigCache;
  readonly #stage2: Stage2Walker;
  readonly #tlb: Tlb;
  readonly #choices: TranslationChoices;
  readonly #context: CdContext = {};
  #hi = 0;
  #lo = 0;

  constructor(
    memory: Memory,
    caps: Caps,
    cache: ConfigCache,
    stage2: Stage2Walker,
    tlb: Tlb,
    choices: TranslationChoices,
  ) {
    this.#choices = choices;
    this.#memory = memory;
    this.#caps = caps;
    this.#cache = cache;
    this.#stage2 = stage2;
    this.#tlb = tlb;
  }

  /** The CD at an index of the stream's table, or null: the fault stands in `t`. It is usable. */
  find(t: Transaction, stream: CachedStream, index: number): CdEntry | null {
    const cd = stream.cd(index) ?? this.#fetch(t, stream, index);
    if (cd === null || cd.rule === '') return cd;
    configFault(t, C_BAD_CD, cd.rule);
    return null;
  }

  #fetch(t: Transaction, stream: CachedStream, index: number): CdEntry | null {
    const { ste } = stream;
    if (ste.group === null) return null;
    this.#hi = ste.contextHi;
    if (ste.leafLog2 === 0) this.#lo = ste.contextLo | (index << CD_LOG2);
    else if (!this.#leafTable(t, stream, index)) return null;
    if (!this.#physical(t, ste)) return null;
    const words = readWords(t, this.#memory, Step.CD, this.#hi, this.#lo, CD.bytes);
    if (words === null) {
      fetchFault(t, F_CD_FETCH, this.#hi, this.#lo);
      return null;
    }
    const worldIsE2h = ste.world === StreamWorld.NsEl2E2h;
    const context = cdContext(ste.words, this.#caps, worldIsE2h, this.#context);
    const cd = new CdEntry(words, ste, ste.group, context, this.#caps, this.#tlb, this.#choices);
    this.#cache.keepCd(stream, index, cd);
    return cd;
  }

  /** Leaves the address of the CD in a two-level table in (#hi, #lo). */
  #leafTable(t: Transaction, stream: CachedStream, index: number): boolean {
    const { ste } = stream;
    const l1 = index >>> ste.leafLog2;
    const l1cd = this.#cache.l1cd(stream, l1, ste.leafLog2) ?? this.#readL1cd(t, stream, l1);
    if (l1cd === null) return false;
    const hi = addressHi(l1cd, L2PTR);
    if (!on(l1cd, L1_V)) return configFault(t, C_BAD_SUBSTREAMID, 'V');
    // An intermediate address beyond IAS is C_BAD_SUBSTREAMID, too, of the two answers 3.4.3 allows.
    if (beyond(hi, ste.s2 ? this.#caps.IAS : this.#caps.OAS)) return configFault(t, C_BAD_SUBSTREAMID, 'L1CD-L2PTR');
    const leafBytesLog2 = ste.leafLog2 + CD_LOG2;
    this.#hi = hi;
    this.#lo = (addressLo(l1cd, L2PTR) & (-1 << leafBytesLog2)) | ((index & (2 ** ste.leafLog2 - 1)) << CD_LOG2);
    return true;
  }

  #readL1cd(t: Transaction, stream: CachedStream, index: number): Words | null {
    this.#lo = stream.ste.contextLo | (index << L1CD_LOG2);
    if (!this.#physical(t, stream.ste)) return null;
    if (!this.#memory.load64(this.#hi, this.#lo)) {
      fetchFault(t, F_CD_FETCH, this.#hi, this.#lo);
      return null;
    }
    t.step(Step.L1CD, 0, 0, this.#hi, this.#lo, this.#memory.hi, this.#memory.lo);
    const words = Uint32Array.of(this.#memory.lo, this.#memory.hi);
    this.#cache.keepL1cd(stream, index, stream.ste.leafLog2, words);
    return words;
  }

  /** Takes (#hi, #lo) through stage 2 where it is on: a data read with CLASS=CD. */
  #physical(t: Transaction, ste: SteEntry): boolean {
    if (ste.stage2 === null) return true;
    if (!this.#stage2.translate(t, ste.stage2, this.#hi, this.#lo, R, 0, FaultClass.CD)) return false;
    this.#hi = this.#stage2.paHi;
    this.#lo = this.#stage2.paLo;
    return true;
  }
}
