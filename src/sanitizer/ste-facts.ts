/** What an STE image says about tags and tables, and when two images are the same to hardware. */
import {
  type Caps,
  firstSteProblem,
  type Problem,
  perCaps,
  RecordMemo,
  STE,
  type StreamWorld,
  s1Enabled,
  s2Enabled,
  slotValue,
  steUsed,
  streamWorld,
  vmidUsed,
  type Words,
} from '../../spec/index.ts';
import { inPlace } from '../hw/in-place.ts';
import { type Shape, shapeOfSte } from './shape.ts';
import { unitOf } from './units.ts';

const V = STE.slot('V');
const CONFIG = STE.slot('Config');
const CONFIGS = STE.fields.Config.values;
const S2VMID = STE.slot('S2VMID');
const S1FMT = STE.slot('S1Fmt');
const S1CDMAX = STE.slot('S1CDMax');
const EATS = STE.slot('EATS');
const S2S = STE.slot('S2S');
const CONTEXT = inPlace(STE, 'S1ContextPtr');

/** Fields that decide which fields are used: images that agree in these have the same used bits. */
const CONTROL = STE.mask([
  'V',
  'Config',
  'S1CDMax',
  'S1DSS',
  'S1MPAM',
  'EATS',
  'STRW',
  'MTCFG',
  'S2TG',
  'S2AA64',
  'S2HA',
  'S2PIE',
  'S2POE',
  'S2DS',
]);

/** Stage 2 fields that TLB entries may hold (5.2.1), without the tag itself and S2PTW, which only nested streams use. */
const S2_CACHED = STE.mask([
  'S2TTB',
  'S2T0SZ',
  'S2IR0',
  'S2OR0',
  'S2SH0',
  'S2SL0',
  'S2SL0_2',
  'S2DS',
  'S2TG',
  'S2PS',
  'S2AFFD',
  'S2HA',
  'S2HD',
  'S2ENDI',
  'S2AA64',
  'S2FWB',
  'TL0',
  'TL1',
  'AssuredOnly',
  'S2PIE',
  'S2POE',
  'S2SKL',
  'S2HAFT',
  ...(STE.names.filter((name) => name.startsWith('S2POI')) as 'S2POI0'[]),
]);
const S2_CACHED_WORDS = [...S2_CACHED.keys()].filter((i) => S2_CACHED[i] !== 0);
const S2PTW = STE.slot('S2PTW');

/** Fields of a nested STE that are the VM's (Linux: arm_smmu_validate_vste). What is wrong in them is its affair. */
const GUEST_FIELDS: ReadonlySet<string> = new Set([
  'S1Fmt',
  'S1ContextPtr',
  'S1CDMax',
  'S1DSS',
  'S1CIR',
  'S1COR',
  'S1CSH',
  'S1STALLD',
  'EATS',
]);

const MEV = STE.mask(['MEV']);
const EATS_LOW = ((): Words => {
  const mask = STE.mask(['EATS']);
  const split = STE.encode({ EATS: 'SPLIT' });
  return mask.map((word, i) => word & ~(split[i] ?? 0));
})();

/** Where a CD table lies and how it is laid out. */
export interface CdRoot {
  readonly unit: number;
  /** log2 of the CDs of a leaf, 0: linear. */
  readonly leafLog2: number;
  /** log2 of the number of CDs. */
  readonly max: number;
}

/** One way in which a stream translates, by one image of its STE. */
export interface Use {
  readonly key: string;
  /** -1: its entries carry none. */
  readonly VMID: number;
  readonly world: StreamWorld;
  readonly s1: boolean;
  readonly s2: boolean;
  /** What TLB entries may hold of the stage 2 configuration; '' without stage 2. */
  readonly s2key: string;
  /** The stage 2 table; undefined without stage 2, and for formats that are not followed. */
  readonly table: Shape | undefined;
  /** S2PTW of a nested image, else -1. */
  readonly ptw: number;
  /** The host's CD table: stage 1 alone. Null: none, or the VM's. */
  readonly cds: CdRoot | null;
  readonly EATS: number;
  /** The image. */
  readonly words: Words;
}

const LEAF_LOG2 = [0, 6, 10, 0] as const;
/** log2 of the bytes of a CD and of an L1CD. */
const CD_LOG2 = 6;
const L1CD_LOG2 = 3;

/** Judges the STEs of SMMUs that can do the same. */
export class SteFacts {
  /** Those of an SMMU. */
  static readonly of = perCaps((caps) => new SteFacts(caps));
  readonly caps: Caps;
  readonly #used: RecordMemo<Words>;
  readonly #uses: RecordMemo<Use | undefined>;
  readonly #usesE2h: RecordMemo<Use | undefined>;
  readonly #control = STE.zero();

  private constructor(caps: Caps) {
    this.caps = caps;
    const words = STE.bytes / 4;
    this.#used = new RecordMemo(words, (ste) => steUsed(ste, caps));
    this.#uses = new RecordMemo(words, (ste) => this.#use(ste, false));
    this.#usesE2h = new RecordMemo(words, (ste) => this.#use(ste, true));
  }

  /** Ones in the bits that hardware uses of an image. */
  used(words: Words): Words {
    const control = this.#control;
    for (let i = 0; i < control.length; i++) control[i] = (words[i] ?? 0) & (CONTROL[i] ?? 0);
    return this.#used.of(control);
  }

  /** Bits whose order of change does not matter between two images: MEV, EATS[0] while nothing splits or stalls. */
  safe(from: Words, to: Words): Words {
    const bound = [from, to].some(
      (ste) => (slotValue(ste, EATS) & STE.fields.EATS.values.SPLIT) !== 0 || slotValue(ste, S2S) !== 0,
    );
    return bound ? MEV : MEV.map((word, i) => word | (EATS_LOW[i] ?? 0));
  }

  /** Why an image is ILLEGAL, unless it is the VM's doing. */
  problem(words: Words): Problem | undefined {
    const problem = firstSteProblem(words, this.caps);
    if (problem === undefined || slotValue(words, CONFIG) !== CONFIGS.NESTED) return problem;
    return GUEST_FIELDS.has(problem.fields[0] ?? '') ? undefined : problem;
  }

  /** How a stream translates by an image; undefined if it does not. */
  use(words: Words, e2h: boolean): Use | undefined {
    return (e2h ? this.#usesE2h : this.#uses).of(words);
  }

  #use(words: Words, e2h: boolean): Use | undefined {
    if (slotValue(words, V) === 0) return undefined;
    const world = streamWorld(words, this.caps, e2h);
    // Nothing is ever translated by an ILLEGAL STE.
    if (world === undefined || firstSteProblem(words, this.caps) !== undefined) return undefined;
    const s1 = s1Enabled(words);
    const s2 = s2Enabled(words);
    const VMID = vmidUsed(words, this.caps) ? slotValue(words, S2VMID) : -1;
    const s2key = s2 ? this.#s2key(words) : '';
    const table = s2 ? shapeOfSte(words, this.caps) : undefined;
    const ptw = s1 && s2 ? slotValue(words, S2PTW) : -1;
    const cds = s1 && !s2 ? this.cdRoot(words) : null;
    const eats = this.caps.ATS ? slotValue(words, EATS) : 0;
    const root = cds === null ? '' : `${cds.unit}/${cds.leafLog2}/${cds.max}`;
    const key = `${world} ${VMID} ${+s1}${+s2} ${s2key} ${ptw} ${root} ${eats}`;
    return { key, VMID, world, s1, s2, s2key, table, ptw, cds, EATS: eats, words: words.slice() };
  }

  #s2key(words: Words): string {
    const used = this.used(words);
    let key = '';
    for (const i of S2_CACHED_WORDS)
      key += `${(((words[i] ?? 0) & (S2_CACHED[i] ?? 0) & (used[i] ?? 0)) >>> 0).toString(16)}.`;
    return key;
  }

  /** Where an STE's CD table lies: for a nested stream, at an intermediate address. */
  cdRoot(words: Words): CdRoot {
    const max = this.caps.SSIDSIZE === 0 ? 0 : Math.min(slotValue(words, S1CDMAX), this.caps.SSIDSIZE);
    const leafLog2 = max === 0 || !this.caps.CD2L ? 0 : (LEAF_LOG2[slotValue(words, S1FMT)] ?? 0);
    const bytesLog2 = leafLog2 === 0 ? max + CD_LOG2 : Math.max(0, max - leafLog2) + L1CD_LOG2;
    const lo = (words[CONTEXT.word] ?? 0) & CONTEXT.loMask;
    const hi = (words[CONTEXT.word + 1] ?? 0) & CONTEXT.hiMask;
    const unit = unitOf(hi, lo);
    const align = 2 ** Math.max(0, bytesLog2 - 3);
    return { unit: unit - (unit % align), leafLog2, max };
  }
}

/** Config by its name. */
export const configName = (words: Words): string =>
  slotValue(words, V) === 0
    ? 'V=0'
    : (STE.valueName('Config', BigInt(slotValue(words, CONFIG))) ?? `Config ${slotValue(words, CONFIG)}`);

/** Whether an STE passes transactions untranslated. */
export const isBypass = (words: Words): boolean =>
  slotValue(words, V) !== 0 && slotValue(words, CONFIG) === CONFIGS.BYPASS;
