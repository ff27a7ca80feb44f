/**
 * Translation of one client transaction, from StreamID and address to a physical address or a fault (IHI 0070 3.3, 3.4,
 * 3.9.1, 5.5, 7.3.22). There is one implementation: traces and explanations read what it leaves in the transaction.
 */
import type { Caps } from '../../spec/caps.ts';
import { STE } from '../../spec/ste.ts';
import { allocOf, combineAlloc, pack, shOf, throughStage2, typeOf } from './attributes.ts';
import { type CachedStream, ConfigCache, type ConfigCacheOptions, DEFAULT_CONFIG_CACHE } from './config-cache.ts';
import { type CdEntry, ContextDescriptors } from './context-descriptor.ts';
import {
  C_BAD_STE,
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  configFault,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
  isTranslationFault,
  stageFault,
} from './faults.ts';
import { GlobalBypass } from './global-bypass.ts';
import type { Memory } from './memory.ts';
import { CLEAN, R, S2_UX, stage1Need, stage2Need, UNPRIVILEGED_SHIFT, W, X } from './permissions.ts';
import { type Stage1Half, Stage1Walker } from './stage1-walker.ts';
import { Stage2Walker } from './stage2-walker.ts';
import { beyond, type SteEntry, StreamTable } from './stream-table.ts';
import type { SplitBlock } from './tag-space.ts';
import { DEFAULT_TLB, Tlb, type TlbOptions } from './tlb.ts';
import type { TlbEntry } from './tlb-array.ts';
import { FaultClass, Outcome, Step, type Transaction, type TranslationRegs } from './transaction.ts';

/** Choices of translation; each is listed in docs/impdef.md. */
export interface TranslatorOptions {
  readonly tlb?: TlbOptions;
  readonly configCache?: ConfigCacheOptions;
}

const S1DSS = STE.fields.S1DSS.values;
const PRIVCFG = STE.fields.PRIVCFG.values;
const INSTCFG = STE.fields.INSTCFG.values;

/** VA[55] in the high half: which TTB. */
const BIT_55 = 1 << (55 - 32);
/** Left and right by this: bit 55 is copied to bits 63:56. */
const TAG_BITS = 8;

/** See the module comment. */
export class Translator {
  readonly memory: Memory;
  readonly caps: Caps;
  readonly regs: TranslationRegs;
  readonly tlb: Tlb;
  readonly configCache: ConfigCache;
  readonly #streams: StreamTable;
  readonly #cds: ContextDescriptors;
  readonly #stage1: Stage1Walker;
  readonly #stage2: Stage2Walker;
  readonly #bypass: GlobalBypass;

  constructor(memory: Memory, caps: Caps, regs: TranslationRegs, options: TranslatorOptions = {}) {
    this.memory = memory;
    this.caps = caps;
    this.regs = regs;
    this.tlb = new Tlb(options.tlb ?? DEFAULT_TLB, caps);
    this.configCache = new ConfigCache(options.configCache ?? DEFAULT_CONFIG_CACHE);
    this.#stage2 = new Stage2Walker(memory, this.tlb, caps);
    this.#stage1 = new Stage1Walker(memory, this.tlb, this.#stage2);
    this.#streams = new StreamTable(memory, caps, regs, this.configCache, this.tlb);
    this.#cds = new ContextDescriptors(memory, caps, this.configCache, this.#stage2, this.tlb);
    this.#bypass = new GlobalBypass(caps, regs);
  }

  /** Translates what the client asked; everything found out stands in `t` afterwards. Never throws. */
  translate(t: Transaction): void {
    t.reset();
    if (!this.regs.SMMUEN) {
      this.#bypass.apply(t);
      return;
    }
    const stream = this.#streams.find(t);
    if (stream === null) {
      this.#configEnd(t);
      return;
    }
    const ste = stream.ste;
    if (ste.rule !== '') {
      configFault(t, C_BAD_STE, ste.rule);
      this.#configEnd(t);
      return;
    }
    if (ste.abort) return; // Config = 0xx: no event (5.2 Config)
    this.#effective(t, ste);
    const index = this.#substream(t, ste);
    if (index === REFUSED) {
      this.#configEnd(t);
      return;
    }
    t.streamWorld = ste.world;
    t.VMID = ste.VMID;
    if (index === NO_STAGE1) this.#withoutStage1(t, ste);
    else this.#withStage1(t, stream, index);
  }

  /** InD and PnU after the STE's overrides (13.1.2, 5.2). */
  #effective(t: Transaction, ste: SteEntry): void {
    t.eventPnU = ste.PRIVCFG < PRIVCFG.UNPRIVILEGED ? t.PnU : ste.PRIVCFG === PRIVCFG.PRIVILEGED;
    if (t.isWrite || t.isAtomic) t.eventInD = false;
    else t.eventInD = ste.INSTCFG < INSTCFG.DATA ? t.InD : ste.INSTCFG === INSTCFG.INSTRUCTION;
  }

  /** Which CD the transaction uses (7.3.7, 7.3.9); {@link NO_STAGE1}; or {@link REFUSED}, with the fault in `t`. */
  #substream(t: Transaction, ste: SteEntry): number {
    if (t.SSV) {
      const ssid = t.SubstreamID >>> 0;
      if (!ste.s1 || ste.S1CDMax === 0 || ssid >= 2 ** ste.S1CDMax) {
        configFault(t, C_BAD_SUBSTREAMID);
        return REFUSED;
      }
      if (ssid !== 0 || ste.S1DSS !== S1DSS.SSID0) return ssid;
      configFault(t, F_STREAM_DISABLED);
      return REFUSED;
    }
    if (!ste.s1) return NO_STAGE1;
    if (ste.S1CDMax === 0 || ste.S1DSS === S1DSS.SSID0) return 0;
    if (ste.S1DSS === S1DSS.BYPASS) return NO_STAGE1;
    configFault(t, F_STREAM_DISABLED);
    return REFUSED;
  }

  /** What stage 1 or 2 has to give: read, write or execute. */
  #need(t: Transaction): number {
    if (t.isAtomic) return R | W;
    if (t.isWrite) return W;
    return t.eventInD ? X : R;
  }

  /** Config = 100, 110, or S1DSS = 01: the input is an intermediate or physical address (3.4). */
  #withoutStage1(t: Transaction, ste: SteEntry): void {
    const hi = t.addrHi | 0;
    const lo = t.addrLo | 0;
    // Only Config = 100 compares with OAS; where stage 1 is skipped, IAS counts (3.4).
    const bits = ste.s1 || ste.s2 ? this.caps.IAS : this.caps.OAS;
    if (beyond(hi, bits)) {
      stageFault(t, F_ADDR_SIZE, false, FaultClass.IN, 0, 0);
      this.#configEnd(t);
      return;
    }
    const incoming = this.#incoming(t, ste);
    if (ste.stage2 === null) {
      this.#done(t, hi & oasMask(this.caps.OAS), lo, 64, incoming, ALL_RIGHTS, ALL_RIGHTS);
      return;
    }
    const need = this.#need(t);
    const s2 = this.#stage2;
    if (!s2.translate(t, ste.stage2, hi, lo, stage2Need(need, t.eventPnU), need & W, FaultClass.IN)) {
      this.#stageEnd(t, ste, null);
      return;
    }
    t.tlbHit = s2.hit;
    const attributes = throughStage2(incoming, ste.stage2.types, s2.memAttr, s2.SH);
    this.#done(t, s2.paHi, s2.paLo, s2.sizeLog2, attributes, ALL_RIGHTS, s2.permissions);
  }

  #withStage1(t: Transaction, stream: CachedStream, index: number): void {
    const ste = stream.ste;
    const cd = this.#cds.find(t, stream, index);
    if (cd === null) {
      this.#stageEnd(t, ste, null);
      return;
    }
    t.ASID = cd.ASID;
    const hi = t.addrHi | 0;
    const lo = t.addrLo | 0;
    const half = cd.oneTtb || (hi & BIT_55) === 0 ? cd.half0 : cd.half1;
    const vaHi = half.TBI ? (cd.oneTtb ? (hi << TAG_BITS) >>> TAG_BITS : (hi << TAG_BITS) >> TAG_BITS) : hi;
    const sign = cd.oneTtb ? 0 : (hi << TAG_BITS) >> 31;
    if (half.disabled || !inRange(half, vaHi, lo, sign) || (half.E0PD && !t.eventPnU)) {
      stageFault(t, F_TRANSLATION, false, FaultClass.IN, 0, 0);
      this.#stageEnd(t, ste, cd);
      return;
    }
    const need = this.#need(t);
    const need1 = stage1Need(need, t.eventPnU);
    const need2 = stage2Need(need, t.eventPnU);
    if (this.tlb.va.on) {
      const entry = this.tlb.va.lookup(vaHi, lo, cd.group.salt, cd.leaves.id, cd.globals.id);
      if (entry !== null && ((need & W) === 0 || ((entry.perm1 | entry.perm2) & CLEAN) === 0)) {
        this.#hit(t, ste, cd, entry, vaHi, lo, need1, need2);
        return;
      }
    }
    this.#walk(t, ste, cd, half, vaHi, lo, need, need1, need2);
  }

  /** The translation stands in the TLB, with the permissions it had when it was made. */
  #hit(
    t: Transaction,
    ste: SteEntry,
    cd: CdEntry,
    entry: TlbEntry,
    vaHi: number,
    lo: number,
    need1: number,
    need2: number,
  ): void {
    const size = entry.sizeLog2;
    const lowLo = size < 32 ? lo & ~(-1 << size) : lo;
    const lowHi = size < 32 ? 0 : vaHi & ~(-1 << (size - 32));
    t.tlbHit = true;
    t.step(Step.TLB, entry.level, 1, vaHi, lo, entry.outHi | lowHi, entry.outLo | lowLo);
    if ((need1 & ~entry.perm1) !== 0) {
      this.#grants(t, entry.perm1, entry.perm2);
      stageFault(t, F_PERMISSION, false, FaultClass.IN, 0, 0);
      this.#stageEnd(t, ste, cd);
      return;
    }
    if ((need2 & ~entry.perm2) !== 0) {
      this.#grants(t, entry.perm1, entry.perm2);
      stageFault(t, F_PERMISSION, true, FaultClass.IN, entry.ipaHi | lowHi, entry.ipaLo | lowLo);
      this.#stageEnd(t, ste, cd);
      return;
    }
    const attributes = this.#hinted(t, ste, entry.attributes);
    this.#done(t, entry.outHi | lowHi, entry.outLo | lowLo, size, attributes, entry.perm1, entry.perm2);
  }

  #walk(
    t: Transaction,
    ste: SteEntry,
    cd: CdEntry,
    half: Stage1Half,
    vaHi: number,
    lo: number,
    need: number,
    need1: number,
    need2: number,
  ): void {
    const s1 = this.#stage1;
    const s2 = this.#stage2;
    if (!s1.walk(t, cd, half, ste.stage2, vaHi, lo, need1, need & W)) {
      if (t.event === F_PERMISSION && !t.S2) this.#grants(t, s1.permissions, ALL_RIGHTS);
      this.#stageEnd(t, ste, cd);
      return;
    }
    if (ste.stage2 === null) {
      // Without stage 2 an intermediate address is the physical one, cut to OAS (3.4).
      const paHi = s1.outHi & oasMask(this.caps.OAS);
      if (this.tlb.va.on && s1.cacheable) this.#keep(cd, vaHi, lo, s1.sizeLog2, paHi, s1.outLo, half, null);
      this.#done(t, paHi, s1.outLo, s1.sizeLog2, this.#hinted(t, ste, s1.attributes), s1.permissions, ALL_RIGHTS);
      return;
    }
    if (!s2.translate(t, ste.stage2, s1.outHi, s1.outLo, need2, need & W, FaultClass.IN)) {
      if (t.event === F_PERMISSION) this.#grants(t, s1.permissions, s2.permissions);
      this.#stageEnd(t, ste, cd);
      return;
    }
    const size = Math.min(s1.sizeLog2, s2.sizeLog2);
    if (this.tlb.va.on && s1.cacheable) this.#keep(cd, vaHi, lo, size, s2.paHi, s2.paLo, half, ste);
    const attributes = throughStage2(s1.attributes, ste.stage2.types, s2.memAttr, s2.SH);
    this.#done(t, s2.paHi, s2.paLo, size, this.#hinted(t, ste, attributes), s1.permissions, s2.permissions);
  }

  /** Caches what the walkers found; ste: not null for an entry that combines both stages. */
  #keep(
    cd: CdEntry,
    vaHi: number,
    lo: number,
    size: number,
    paHi: number,
    paLo: number,
    half: Stage1Half,
    ste: SteEntry | null,
  ): void {
    const s1 = this.#stage1;
    const space = s1.global && !cd.oneTtb ? cd.globals : cd.leaves;
    const entry = this.tlb.va.insert(vaHi, lo, size, space, this.tlb.groups.live(space));
    entry.outHi = size < 32 ? paHi : paHi & (-1 << (size - 32));
    entry.outLo = size < 32 ? paLo & (-1 << size) : 0;
    entry.level = s1.level;
    entry.granule = half.walk.granule;
    entry.perm1 = s1.permissions;
    entry.perm2 = ALL_RIGHTS;
    entry.attributes = s1.attributes;
    if (ste === null || ste.stage2 === null) return;
    const s2 = this.#stage2;
    entry.combined = true;
    entry.perm2 = s2.permissions;
    entry.attributes = throughStage2(s1.attributes, ste.stage2.types, s2.memAttr, s2.SH);
    entry.ipaHi = size < 32 ? s1.outHi : s1.outHi & (-1 << (size - 32));
    entry.ipaLo = size < 32 ? s1.outLo & (-1 << size) : 0;
    if (size < s1.sizeLog2) entry.block = this.#block(cd, vaHi, lo, half);
  }

  /** Stage 2 pages split a stage 1 block: all pieces hang on the block, so that one invalidation reaches them. */
  #block(cd: CdEntry, vaHi: number, lo: number, half: Stage1Half): SplitBlock {
    const { sizeLog2, level } = this.#stage1;
    const page = (vaHi >>> 0) * 2 ** 20 + (lo >>> 12);
    const number = Math.floor(page / 2 ** (sizeLog2 - 12));
    return cd.group.block(sizeLog2, number, level, half.walk.granule, this.tlb.va.places);
  }

  /** What comes in, after the overrides of the STE (13.5). */
  #incoming(t: Transaction, ste: SteEntry): number {
    return pack(
      ste.memAttr < 0 ? t.inMemAttr : ste.memAttr,
      ste.SH < 0 ? t.inSH : ste.SH,
      ste.alloc < 0 ? t.inAlloc : ste.alloc,
    );
  }

  /** Hints of a stage 1 translation combine with those of the client or the STE (13.5). */
  #hinted(t: Transaction, ste: SteEntry, attributes: number): number {
    const alloc = ste.alloc < 0 ? t.inAlloc : ste.alloc;
    return pack(typeOf(attributes), shOf(attributes), combineAlloc(allocOf(attributes), alloc));
  }

  #grants(t: Transaction, perm1: number, perm2: number): void {
    const one = t.eventPnU ? perm1 : perm1 >> UNPRIVILEGED_SHIFT;
    const both = one & perm2;
    t.grantRead = (both & R) !== 0;
    t.grantWrite = (both & W) !== 0;
    t.grantExec = (one & X) !== 0 && (perm2 & (t.eventPnU ? X : S2_UX)) !== 0;
  }

  #done(
    t: Transaction,
    paHi: number,
    paLo: number,
    size: number,
    attributes: number,
    perm1: number,
    perm2: number,
  ): void {
    t.outcome = Outcome.Ok;
    t.paHi = paHi;
    t.paLo = paLo;
    t.sizeLog2 = size;
    this.#grants(t, perm1, perm2);
    t.memAttr = typeOf(attributes);
    t.SH = shOf(attributes);
    t.alloc = allocOf(attributes);
  }

  /** Ends with a fault that A, R and S have no say in: abort, recorded (5.5). */
  #configEnd(t: Transaction): void {
    t.outcome = Outcome.Abort;
    t.record = !t.isSpeculative && (t.event !== C_BAD_STREAMID || this.regs.RECINVSID);
  }

  /** Ends with a fault of a stage, by that stage's own rules (5.5). */
  #stageEnd(t: Transaction, ste: SteEntry, cd: CdEntry | null): void {
    if (!isTranslationFault(t.event) || t.isSpeculative) {
      this.#configEnd(t);
      return;
    }
    const stall = t.S2 ? ste.S2S : cd?.S === true;
    const abort = t.S2 || cd?.A === true;
    t.record = stall || (t.S2 ? ste.S2R : cd?.R === true);
    t.outcome = stall ? Outcome.Stall : abort ? Outcome.Abort : Outcome.RazWi;
  }
}

/** {@link Translator.#substream}: stage 1 does not take part. */
const NO_STAGE1 = -1;
/** {@link Translator.#substream}: the transaction is over. */
const REFUSED = -2;
/** Permissions of a stage that is not there. */
const ALL_RIGHTS =
  R | W | X | S2_UX | (R << UNPRIVILEGED_SHIFT) | (W << UNPRIVILEGED_SHIFT) | (X << UNPRIVILEGED_SHIFT);

/** High half of the largest physical address. */
const oasMask = (OAS: number): number => (OAS === 32 ? 0 : (1 << (OAS - 32)) - 1);

/** Whether all address bits above the TTB's size equal `sign` (0 or -1) (3.4.1). */
function inRange(half: Stage1Half, hi: number, lo: number, sign: number): boolean {
  const { inputBits } = half.walk;
  if (inputBits >= 32) return hi >> (inputBits - 32) === sign;
  return hi === sign && lo >> inputBits === sign;
}
