/** From a StreamID to its STE: the Stream table in memory and what an STE means (IHI 0070 3.3.1, 5.1, 5.2). */
import type { Caps } from '../../spec/caps.ts';
import { L1STD } from '../../spec/l1std.ts';
import { slotValue, type Words } from '../../spec/layout.ts';
import { firstSteProblem, steProblems } from '../../spec/legality/ste.ts';
import { effectivePS, s2StartLevel, TG0_GRANULE } from '../../spec/sizes.ts';
import { STE } from '../../spec/ste.ts';
import { streamWorld, vmidUsed, vmsSupported } from '../../spec/stream-world.ts';
import type { CachedStream, ConfigCache } from './config-cache.ts';
import { C_BAD_STREAMID, configFault, F_STE_FETCH, fetchFault } from './faults.ts';
import { addressHi, addressLo, inPlace } from './in-place.ts';
import type { Memory } from './memory.ts';
import { type Stage2Config, typesOf } from './stage2-walker.ts';
import type { TagGroup } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import { Step, StreamWorld, type Transaction, type TranslationRegs } from './transaction.ts';
import type { TranslationChoices } from './translation-options.ts';
import { WalkConfig } from './walk-config.ts';

const V = STE.slot('V');
const CONFIG = STE.slot('Config');
const CONFIGS = STE.fields.Config.values;
const S1FMT = STE.slot('S1Fmt');
const FORMATS = STE.fields.S1Fmt.values;
const S1CDMAX = STE.slot('S1CDMax');
const S1DSS = STE.slot('S1DSS');
const DEFAULTS = STE.fields.S1DSS.values;
const EATS = STE.slot('EATS');
const MEV = STE.slot('MEV');
const PRIVCFG = STE.slot('PRIVCFG');
const INSTCFG = STE.slot('INSTCFG');
const MTCFG = STE.slot('MTCFG');
const MEMATTR = STE.slot('MemAttr');
const ALLOCCFG = STE.slot('ALLOCCFG');
const SHCFG = STE.slot('SHCFG');
const SHCFG_INCOMING = STE.fields.SHCFG.values.INCOMING;
const S2VMID = STE.slot('S2VMID');
const S2R = STE.slot('S2R');
const S2S = STE.slot('S2S');
const S2T0SZ = STE.slot('S2T0SZ');
const S2TG = STE.slot('S2TG');
const S2SL0 = STE.slot('S2SL0');
const S2SL0_2 = STE.slot('S2SL0_2');
const S2DS = STE.slot('S2DS');
const S2PS = STE.slot('S2PS');
const S2SH0 = STE.slot('S2SH0');
const S2IR0 = STE.slot('S2IR0');
const S2OR0 = STE.slot('S2OR0');
const S2ENDI = STE.slot('S2ENDI');
const S2AFFD = STE.slot('S2AFFD');
const S2HA = STE.slot('S2HA');
const S2HD = STE.slot('S2HD');
const S2HAFT = STE.slot('S2HAFT');
const S2PTW = STE.slot('S2PTW');
const S2FWB = STE.slot('S2FWB');
const CONTEXT_PTR = inPlace(STE, 'S1ContextPtr');
const S2TTB = inPlace(STE, 'S2TTB');
const S1MPAM = STE.slot('S1MPAM');
const PARTID = STE.slot('PARTID');
const PMG = STE.slot('PMG');
const VMSPTR = inPlace(STE, 'VMSPtr');
const SPAN = L1STD.slot('Span');
const L2PTR = inPlace(L1STD, 'L2Ptr');

/** log2 of the bytes of an STE and of an L1STD. */
const STE_LOG2 = Math.log2(STE.bytes);
const L1STD_LOG2 = Math.log2(L1STD.bytes);
const MAX_SPAN_ABOVE_SPLIT = 1;

const on = (words: Words, slot: typeof V): boolean => slotValue(words, slot) !== 0;

/** Whether an address has bits above `bits` (32 to 63); hi: its high half. */
export const beyond = (hi: number, bits: number): boolean => (bits === 32 ? hi : hi >>> (bits - 32)) !== 0;

/** High half of the largest address of `bits` (32 to 63) bits. */
export const highMask = (bits: number): number => (bits === 32 ? 0 : (1 << (bits - 32)) - 1);

/** High half of an address with its low `n` bits cleared. */
const alignHi = (hi: number, n: number): number => (n <= 32 ? hi : n >= 64 ? 0 : hi & (-1 << (n - 32)));
const alignLo = (lo: number, n: number): number => (n >= 32 ? 0 : n <= 0 ? lo : lo & (-1 << n));

/** An STE as translation uses it: decoded once. */
export class SteEntry {
  readonly words: Words;
  /** Why it is not usable: 'V' or the id of a legality rule; '' if it is (C_BAD_STE otherwise). */
  readonly rule: string;
  readonly config: number;
  readonly abort: boolean;
  readonly s1: boolean;
  readonly s2: boolean;
  /** log2 of the CDs of a leaf table, or 0 for a linear table. */
  readonly leafLog2: number;
  readonly contextHi: number;
  readonly contextLo: number;
  /** 0 without substreams. */
  readonly S1CDMax: number;
  readonly S1DSS: number;
  /** The CD of a transaction without a SubstreamID: 0, {@link NO_STAGE1} or {@link REFUSED}. */
  readonly plain: number;
  /** 0 where it is IGNORED. */
  readonly EATS: number;
  readonly PRIVCFG: number;
  readonly INSTCFG: number;
  /** Type that replaces the incoming one, or -1. */
  readonly memAttr: number;
  /** Shareability that replaces the incoming one, or -1. */
  readonly SH: number;
  /** Hints that replace the incoming ones, or -1. */
  readonly alloc: number;
  /** STE.MEV. */
  readonly MEV: boolean;
  /** MPAM ids of traffic that stage 1 does not translate; of all unless S1MPAM. */
  readonly PARTID: number;
  readonly PMG: number;
  /** Stage 1 traffic has the ids of its CD. */
  readonly S1MPAM: boolean;
  /** The PARTIDs of CDs are virtual and go through the VMS at (vmsHi, vmsLo) (5.6.1). */
  readonly vms: boolean;
  readonly vmsHi: number;
  readonly vmsLo: number;
  readonly S2R: boolean;
  readonly S2S: boolean;
  readonly world: StreamWorld;
  /** -1: the STE's translations have no VMID. */
  readonly VMID: number;
  /** Null where no stage translates. */
  readonly group: TagGroup | null;
  readonly stage2: Stage2Config | null;
  /** An input beyond IAS or OAS is an address size fault; else stage 2 finds it out. Matters without stage 1. */
  readonly checksInput: boolean;
  /** Generation of the tags it holds. */
  readonly generation: number;

  constructor(words: Words, caps: Caps, E2H: boolean, tlb: Tlb, choices: TranslationChoices) {
    this.words = words;
    this.config = slotValue(words, CONFIG);
    this.rule = on(words, V) ? steRule(words, caps, choices) : 'V';
    const usable = this.rule === '';
    this.abort = usable && this.config < CONFIGS.BYPASS;
    const translating = usable && this.config >= CONFIGS.BYPASS;
    this.s1 = translating && (this.config & CONFIGS.S1_TRANS) === CONFIGS.S1_TRANS;
    this.s2 = translating && (this.config & CONFIGS.S2_TRANS) === CONFIGS.S2_TRANS;
    this.S1CDMax = caps.SSIDSIZE === 0 ? 0 : slotValue(words, S1CDMAX);
    this.leafLog2 = this.S1CDMax === 0 ? 0 : leafLog2(slotValue(words, S1FMT));
    const tableLog2 = this.leafLog2 === 0 ? this.S1CDMax + STE_LOG2 : this.S1CDMax - this.leafLog2 + L1STD_LOG2;
    // Bits that the table's size makes RES0 are taken as zero (5.2 S1Fmt).
    this.contextHi = addressHi(words, CONTEXT_PTR);
    this.contextLo = alignLo(addressLo(words, CONTEXT_PTR), tableLog2);
    this.S1DSS = slotValue(words, S1DSS);
    this.plain = !this.s1 ? NO_STAGE1 : this.S1CDMax === 0 ? 0 : plainIndex(this.S1DSS);
    this.EATS = caps.ATS && this.config > CONFIGS.BYPASS ? slotValue(words, EATS) : 0;
    this.PRIVCFG = caps.ATTR_PERMS_OVR ? slotValue(words, PRIVCFG) : 0;
    this.INSTCFG = caps.ATTR_PERMS_OVR ? slotValue(words, INSTCFG) : 0;
    const types = caps.ATTR_TYPES_OVR;
    this.memAttr = types && on(words, MTCFG) ? slotValue(words, MEMATTR) : -1;
    const sh = slotValue(words, SHCFG);
    this.SH = types && sh !== SHCFG_INCOMING ? sh : -1;
    const counts = types && (choices.alloccfgWithoutMtcfg || on(words, MTCFG));
    this.alloc = counts ? allocOverride(slotValue(words, ALLOCCFG)) : -1;
    this.MEV = on(words, MEV);
    this.PARTID = mpamId(slotValue(words, PARTID), caps.PARTID_MAX);
    this.PMG = mpamId(slotValue(words, PMG), caps.PMG_MAX);
    this.S1MPAM = caps.MPAM && this.s1 && on(words, S1MPAM);
    this.vms = this.S1MPAM && this.s2 && vmsSupported(caps);
    this.vmsHi = addressHi(words, VMSPTR);
    this.vmsLo = addressLo(words, VMSPTR);
    this.S2R = on(words, S2R);
    this.S2S = on(words, S2S);
    const world = usable ? streamWorld(words, caps, E2H) : undefined;
    this.world = world === undefined ? StreamWorld.None : WORLDS[world];
    this.VMID = usable && vmidUsed(words, caps) ? slotValue(words, S2VMID) : -1;
    this.generation = tlb.groups.generation;
    this.group = world === undefined ? null : tlb.groups.group(this.world, this.VMID);
    this.checksInput = !this.s2 || this.s1 || choices.stage2InputBeyondIas === 'address-size';
    this.stage2 = this.s2 && this.group !== null ? stage2Of(words, caps, this.group, this.s1, choices) : null;
  }
}

/** An MPAM id in force: one above the largest counts as 0, which is a choice (6.3.42, 5.6). */
export const mpamId = (id: number, max: number): number => (id > max ? 0 : id);

/** Rules that a choice of the implementation takes out or puts in. */
const CONTEXT_PTR_RULE = 'STE-S16';
const CDMAX_RULE = 'S1CDMax';

/** The rule that makes an STE ILLEGAL, or ''. */
function steRule(words: Words, caps: Caps, choices: TranslationChoices): string {
  const s1 = (slotValue(words, CONFIG) & CONFIGS.S1_TRANS) === CONFIGS.S1_TRANS;
  if (choices.s1CdMaxWithoutSubstreams === 'ill' && s1 && caps.SSIDSIZE === 0 && on(words, S1CDMAX)) return CDMAX_RULE;
  const first = firstSteProblem(words, caps)?.rule ?? '';
  const nested = slotValue(words, CONFIG) === CONFIGS.NESTED;
  if (first !== CONTEXT_PTR_RULE || !nested || choices.s1ContextPtrBeyondIas === 'ill') return first;
  return steProblems(words, caps).find(({ rule }) => rule !== CONTEXT_PTR_RULE)?.rule ?? '';
}

/** {@link SteEntry.plain}: stage 1 does not take part. */
export const NO_STAGE1 = -1;
/** {@link SteEntry.plain}: F_STREAM_DISABLED. */
export const REFUSED = -2;

/** What S1DSS says (5.2 S1DSS). */
function plainIndex(s1dss: number): number {
  if (s1dss === DEFAULTS.SSID0) return 0;
  return s1dss === DEFAULTS.BYPASS ? NO_STAGE1 : REFUSED;
}

const WORLDS = {
  'NS-EL1': StreamWorld.NsEl1,
  'NS-EL2': StreamWorld.NsEl2,
  'NS-EL2-E2H': StreamWorld.NsEl2E2h,
} as const;

const LEAF_4KB_LOG2 = 6;
const LEAF_64KB_LOG2 = 10;

/** log2 of the CDs in a leaf table; S1Fmt=11 behaves as linear (5.2 S1Fmt). */
function leafLog2(format: number): number {
  if (format === FORMATS.TWO_LEVEL_4KB) return LEAF_4KB_LOG2;
  return format === FORMATS.TWO_LEVEL_64KB ? LEAF_64KB_LOG2 : 0;
}

/** ALLOCCFG: 0xxx incoming; 1rwt (5.2 ALLOCCFG). */
export const allocOverride = (field: number): number => (field < 8 ? -1 : field & 7);

function stage2Of(
  words: Words,
  caps: Caps,
  group: TagGroup,
  nested: boolean,
  choices: TranslationChoices,
): Stage2Config {
  const granule = TG0_GRANULE[slotValue(words, S2TG)] ?? '4k';
  const ds = caps.DS && on(words, S2DS) && granule !== '64k';
  const sl = slotValue(words, S2SL0) + (ds && granule === '4k' && on(words, S2SL0_2) ? 4 : 0);
  const walk = new WalkConfig(
    {
      granule,
      inputBits: 64 - slotValue(words, S2T0SZ),
      outputBits: effectivePS(slotValue(words, S2PS), caps),
      startLevel: s2StartLevel(granule, sl, ds, caps) ?? 0,
      ttbHi: addressHi(words, S2TTB),
      ttbLo: addressLo(words, S2TTB),
      ds,
      sh: slotValue(words, S2SH0),
      bigEndian: on(words, S2ENDI),
      affd: on(words, S2AFFD),
      ha: on(words, S2HA),
      hd: on(words, S2HD),
      haft: caps.HTTU === HTTU_TABLES && on(words, S2HAFT),
      cacheability: [slotValue(words, S2IR0), slotValue(words, S2OR0)],
    },
    caps,
    choices,
  );
  return { walk, group, S2PTW: nested && on(words, S2PTW), types: typesOf(caps.FWB && on(words, S2FWB), caps) };
}

/** IDR0.HTTU: Access flags of Table descriptors, too. */
export const HTTU_TABLES = 3;

/** See the module comment. */
export class StreamTable {
  readonly #memory: Memory;
  readonly #caps: Caps;
  readonly #regs: TranslationRegs;
  readonly #cache: ConfigCache;
  readonly #tlb: Tlb;
  readonly #choices: TranslationChoices;

  constructor(
    memory: Memory,
    caps: Caps,
    regs: TranslationRegs,
    cache: ConfigCache,
    tlb: Tlb,
    choices: TranslationChoices,
  ) {
    this.#memory = memory;
    this.#caps = caps;
    this.#regs = regs;
    this.#cache = cache;
    this.#tlb = tlb;
    this.#choices = choices;
  }

  /** The configuration of the transaction's stream, or null: the fault stands in `t`. The STE may be unusable. */
  find(t: Transaction): CachedStream | null {
    const sid = t.StreamID >>> 0;
    const size = Math.min(this.#regs.LOG2SIZE, this.#caps.SIDSIZE);
    if (size < 32 && sid >>> size !== 0) {
      configFault(t, C_BAD_STREAMID);
      return null;
    }
    const cached = this.#cache.stream(sid);
    if (cached !== null && cached.ste.generation === this.#tlb.groups.generation) return cached;
    return this.#fetch(t, sid, cached);
  }

  #fetch(t: Transaction, sid: number, stale: CachedStream | null): CachedStream | null {
    // Tags that were given up need new ones; what the STE says stays what was cached.
    const words = stale === null ? this.#read(t, sid) : stale.ste.words;
    return words === null
      ? null
      : this.#cache.keep(sid, new SteEntry(words, this.#caps, this.#regs.E2H, this.#tlb, this.#choices));
  }

  #read(t: Transaction, sid: number): Words | null {
    const { strtabHi, strtabLo, LOG2SIZE, twoLevel } = this.#regs;
    if (twoLevel && this.#caps.ST_LEVEL !== 0) return this.#readTwoLevel(t, sid);
    const hi = this.#limit(alignHi(strtabHi, LOG2SIZE + STE_LOG2) | (sid >>> (32 - STE_LOG2)));
    return this.#words(t, hi, alignLo(strtabLo, LOG2SIZE + STE_LOG2) | (sid << STE_LOG2));
  }

  #readTwoLevel(t: Transaction, sid: number): Words | null {
    const { SPLIT } = this.#regs;
    const index = sid >>> SPLIT;
    const l1std = this.#cache.l1std(index, SPLIT) ?? this.#readL1std(t, index);
    if (l1std === null) return null;
    const span = slotValue(l1std, SPAN);
    const at = sid & (2 ** SPLIT - 1);
    if (span === 0 || span > SPLIT + MAX_SPAN_ABOVE_SPLIT || at >= 2 ** (span - 1)) {
      configFault(t, C_BAD_STREAMID, 'L1STD-SPAN');
      return null;
    }
    const lo = alignLo(addressLo(l1std, L2PTR), STE_LOG2 + span - 1);
    return this.#words(t, this.#limit(addressHi(l1std, L2PTR)), lo | (at << STE_LOG2));
  }

  /** High half of a table address: beyond OAS it is cut, or left for the fetch to fault on (3.4.3). */
  #limit(hi: number): number {
    return this.#choices.streamTableBeyondOas === 'truncate' ? hi & highMask(this.#caps.OAS) : hi;
  }

  #readL1std(t: Transaction, index: number): Words | null {
    const { strtabHi, strtabLo, LOG2SIZE, SPLIT } = this.#regs;
    const align = Math.max(STE_LOG2, LOG2SIZE - SPLIT + L1STD_LOG2);
    const hi = this.#limit(alignHi(strtabHi, align) | (index >>> (32 - L1STD_LOG2)));
    const lo = alignLo(strtabLo, align) | (index << L1STD_LOG2);
    if (beyond(hi, this.#caps.OAS) || !this.#memory.load64(hi, lo)) {
      fetchFault(t, F_STE_FETCH, hi, lo);
      return null;
    }
    t.step(Step.L1STD, 0, 0, hi, lo, this.#memory.hi, this.#memory.lo);
    const words = Uint32Array.of(this.#memory.lo, this.#memory.hi);
    this.#cache.keepL1std(index, SPLIT, words);
    return words;
  }

  /** The STE at a physical address; the level of its steps is the number of the 64-bit word. */
  #words(t: Transaction, hi: number, lo: number): Words | null {
    const words = beyond(hi, this.#caps.OAS) ? null : readWords(t, this.#memory, Step.STE, hi, lo, STE.bytes);
    if (words === null) fetchFault(t, F_STE_FETCH, hi, lo);
    return words;
  }
}

/** Reads a record in 64-bit units; null on an external abort. */
export function readWords(
  t: Transaction,
  memory: Memory,
  kind: typeof Step.STE | typeof Step.CD | typeof Step.VMS,
  hi: number,
  lo: number,
  bytes: number,
): Words | null {
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i += 2) {
    if (!memory.load64(hi, lo + i * 4)) return null;
    t.step(kind, i / 2, 0, hi, lo + i * 4, memory.hi, memory.lo);
    words[i] = memory.lo;
    words[i + 1] = memory.hi;
  }
  return words;
}
