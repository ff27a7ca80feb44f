/**
 * The address part of a translation, once it is known which STE and CD are in charge: TLB, stage 1, stage 2 (IHI 0070
 * 3.3, 3.17). Ordinary transactions, Translation Requests and Translated transactions all come here.
 */
import type { Caps } from '../../spec/caps.ts';
import * as attributes from './attributes.ts';
import type { CdEntry } from './context-descriptor.ts';
import { F_ADDR_SIZE, F_PERMISSION, F_TLB_CONFLICT, F_TRANSLATION, stageFault } from './faults.ts';
import * as permissions from './permissions.ts';
import type { Stage1Half, Stage1Walker } from './stage1-walker.ts';
import type { Stage2Walker } from './stage2-walker.ts';
import { beyond, highMask, type SteEntry } from './stream-table.ts';
import type { SplitBlock } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import type { TlbEntry } from './tlb-array.ts';
import { FaultClass, Step, type Transaction } from './transaction.ts';
import * as walks from './walk-config.ts';

// Local constants: an import is looked up anew at every use, and a walk uses these dozens of times.
const { ALL_RIGHTS, CLEAN, stage1Need, stage2Need } = permissions;
const { pack, throughStage2 } = attributes;
const { inputInRange } = walks;
const STEP_TLB = Step.TLB;
const { IN } = FaultClass;

/** VA[55] in the high half: which TTB. */
const BIT_55 = 1 << (55 - 32);
/** Left and right by this: bit 55 is copied to bits 63:56. */
const TAG_BITS = 8;
/** IDR3.BBML: sizes may change without break-before-make. */
const ANY_SIZE_BBML = 2;
/** Size of a translation that no table limits. */
const WHOLE = 64;

/** See the module comment. Results of the last success stand in its fields; permissions are valid after F_PERMISSION, too. */
export class Stages {
  paHi = 0;
  paLo = 0;
  /** What stage 1 made of the input. Without stage 1: the input. */
  ipaHi = 0;
  ipaLo = 0;
  sizeLog2 = 0;
  /** Stage 1 permissions; {@link ALL_RIGHTS} without stage 1. */
  perm1 = 0;
  perm2 = 0;
  /** Packed memory attributes, before hints are combined with those of the client. */
  attributes = 0;
  /** It came out of the TLB. */
  hit = false;

  readonly #caps: Caps;
  readonly #tlb: Tlb;
  readonly #stage1: Stage1Walker;
  readonly #stage2: Stage2Walker;
  readonly #oasMask: number;
  readonly #detectConflicts: boolean;

  constructor(caps: Caps, tlb: Tlb, stage1: Stage1Walker, stage2: Stage2Walker, detectConflicts: boolean) {
    this.#caps = caps;
    this.#tlb = tlb;
    this.#stage1 = stage1;
    this.#stage2 = stage2;
    this.#oasMask = highMask(caps.OAS);
    this.#detectConflicts = detectConflicts;
  }

  /** Incoming attributes after the overrides of the STE (13.5). */
  incoming(t: Transaction, ste: SteEntry): number {
    return pack(
      ste.memAttr < 0 ? t.inMemAttr : ste.memAttr,
      ste.SH < 0 ? t.inSH : ste.SH,
      ste.alloc < 0 ? t.inAlloc : ste.alloc,
    );
  }

  /** Without stage 1: the input is an intermediate address (3.4). Its size is checked by the caller's rule first. */
  withoutStage1(t: Transaction, ste: SteEntry, need: number, update: number): boolean {
    const hi = t.addrHi | 0;
    const lo = t.addrLo | 0;
    // Only Config = 100 compares with OAS; where stage 1 is skipped, IAS counts (3.4).
    if (ste.checksInput && beyond(hi, ste.s1 || ste.s2 ? this.#caps.IAS : this.#caps.OAS))
      return stageFault(t, F_ADDR_SIZE, false, FaultClass.IN, 0, 0);
    this.hit = false;
    this.ipaHi = hi;
    this.ipaLo = lo;
    this.perm1 = ALL_RIGHTS;
    this.attributes = this.incoming(t, ste);
    if (ste.stage2 === null) {
      this.paHi = hi & this.#oasMask;
      this.paLo = lo;
      this.perm2 = ALL_RIGHTS;
      this.sizeLog2 = WHOLE;
      return true;
    }
    const s2 = this.#stage2;
    const done = s2.translate(t, ste.stage2, hi, lo, stage2Need(need, t.eventPnU), update, IN);
    this.perm2 = s2.permissions;
    if (!done) return false;
    this.hit = s2.hit;
    this.paHi = s2.paHi;
    this.paLo = s2.paLo;
    this.sizeLog2 = s2.sizeLog2;
    this.attributes = throughStage2(this.attributes, ste.stage2.types, s2.memAttr, s2.SH);
    return true;
  }

  /**
   * Stage 1 with a CD, and stage 2 if it is on. need: R, W, X that must be there, or 0; update: W if writable-clean
   * leaves are to be made dirty. A Translation Request for an address that stage 1 gives no right to (`wanted`, R, W, X
   * of any use to it) does not walk stage 2; {@link perm2} is 0 then.
   */
  withStage1(t: Transaction, ste: SteEntry, cd: CdEntry, need: number, update: number, wanted: number): boolean {
    const hi = t.addrHi | 0;
    const lo = t.addrLo | 0;
    const half = cd.oneTtb || (hi & BIT_55) === 0 ? cd.half0 : cd.half1;
    const vaHi = half.TBI ? (cd.oneTtb ? (hi << TAG_BITS) >>> TAG_BITS : (hi << TAG_BITS) >> TAG_BITS) : hi;
    const sign = cd.oneTtb ? 0 : (hi << TAG_BITS) >> 31;
    this.hit = false;
    if (half.disabled || !inputInRange(half.walk, vaHi, lo, sign) || (half.E0PD && !t.eventPnU))
      return stageFault(t, F_TRANSLATION, false, FaultClass.IN, 0, 0);
    const need1 = stage1Need(need, t.eventPnU);
    const need2 = stage2Need(need, t.eventPnU);
    if (this.#tlb.va.on) {
      const entry = this.#tlb.va.lookup(vaHi, lo, cd.group.salt, cd.leaves.id, cd.globals.id);
      if (entry !== null) {
        if (this.#detectConflicts && this.#conflict(cd, vaHi, lo))
          return stageFault(t, F_TLB_CONFLICT, false, FaultClass.IN, 0, 0);
        if (update === 0 || ((entry.perm1 | entry.perm2) & CLEAN) === 0)
          return this.#found(t, entry, vaHi, lo, need1, need2);
      }
    }
    if (!this.#stage1.walk(t, cd, half, ste.stage2, vaHi, lo, need1, update)) {
      this.perm1 = this.#stage1.permissions;
      this.perm2 = ALL_RIGHTS;
      return false;
    }
    return this.#combine(t, ste, cd, half, vaHi, lo, need2, update, stage1Need(wanted, t.eventPnU));
  }

  /** More than one entry matches. From BBML 2 on, a difference in size is no conflict (3.21.1.3). */
  #conflict(cd: CdEntry, hi: number, lo: number): boolean {
    const { va } = this.#tlb;
    const own = va.matches(hi, lo, cd.group.salt, cd.leaves.id);
    const global = va.matches(hi, lo, cd.group.salt, cd.globals.id);
    return this.#caps.BBML === ANY_SIZE_BBML ? own > 0 && global > 0 : own + global > 1;
  }

  /** The translation stands in the TLB, with the permissions it had when it was made. */
  #found(t: Transaction, entry: TlbEntry, vaHi: number, lo: number, need1: number, need2: number): boolean {
    const size = entry.sizeLog2;
    const lowLo = size < 32 ? lo & ~(-1 << size) : lo;
    const lowHi = size < 32 ? 0 : vaHi & ~(-1 << (size - 32));
    this.hit = true;
    this.paHi = entry.outHi | lowHi;
    this.paLo = entry.outLo | lowLo;
    this.ipaHi = entry.ipaHi | lowHi;
    this.ipaLo = entry.ipaLo | lowLo;
    this.sizeLog2 = size;
    this.perm1 = entry.perm1;
    this.perm2 = entry.perm2;
    this.attributes = entry.attributes;
    t.step(STEP_TLB, entry.level, 1, vaHi, lo, this.paHi, this.paLo);
    if ((need1 & ~entry.perm1) !== 0) return stageFault(t, F_PERMISSION, false, FaultClass.IN, 0, 0);
    if ((need2 & ~entry.perm2) !== 0) return stageFault(t, F_PERMISSION, true, FaultClass.IN, this.ipaHi, this.ipaLo);
    return true;
  }

  /** After stage 1: stage 2 of its output, and an entry for the TLB. */
  #combine(
    t: Transaction,
    ste: SteEntry,
    cd: CdEntry,
    half: Stage1Half,
    vaHi: number,
    lo: number,
    need2: number,
    update: number,
    wanted1: number,
  ): boolean {
    const s1 = this.#stage1;
    this.perm1 = s1.permissions;
    this.ipaHi = s1.outHi;
    this.ipaLo = s1.outLo;
    this.attributes = s1.attributes;
    this.sizeLog2 = s1.sizeLog2;
    if (ste.stage2 === null) {
      // Without stage 2 an intermediate address is the physical one, cut to OAS (3.4).
      this.paHi = s1.outHi & this.#oasMask;
      this.paLo = s1.outLo;
      this.perm2 = ALL_RIGHTS;
      if (this.#tlb.va.on && s1.cacheable) this.#keep(cd, half, vaHi, lo, false);
      return true;
    }
    if ((wanted1 & s1.permissions) === 0) {
      this.perm2 = 0;
      return true;
    }
    const s2 = this.#stage2;
    const done = s2.translate(t, ste.stage2, s1.outHi, s1.outLo, need2, update, IN);
    this.perm2 = s2.permissions;
    if (!done) return false;
    this.paHi = s2.paHi;
    this.paLo = s2.paLo;
    this.sizeLog2 = Math.min(s1.sizeLog2, s2.sizeLog2);
    this.attributes = throughStage2(s1.attributes, ste.stage2.types, s2.memAttr, s2.SH);
    if (this.#tlb.va.on && s1.cacheable && s2.cacheable) this.#keep(cd, half, vaHi, lo, true);
    return true;
  }

  /** Caches what stands in the fields. */
  #keep(cd: CdEntry, half: Stage1Half, vaHi: number, lo: number, combined: boolean): void {
    const s1 = this.#stage1;
    const size = this.sizeLog2;
    const space = s1.global && !cd.oneTtb ? cd.globals : cd.leaves;
    const entry = this.#tlb.va.insert(vaHi, lo, size, space, this.#tlb.groups.live(space));
    entry.level = s1.level;
    entry.granule = half.walk.granule;
    entry.perm1 = this.perm1;
    entry.perm2 = this.perm2;
    entry.attributes = this.attributes;
    entry.combined = combined;
    if (size < 32) {
      entry.outHi = this.paHi;
      entry.outLo = this.paLo & (-1 << size);
      entry.ipaHi = this.ipaHi;
      entry.ipaLo = this.ipaLo & (-1 << size);
    } else {
      entry.outHi = this.paHi & (-1 << (size - 32));
      entry.outLo = 0;
      entry.ipaHi = this.ipaHi & (-1 << (size - 32));
      entry.ipaLo = 0;
    }
    if (size < s1.sizeLog2) entry.block = this.#block(cd, half, vaHi, lo);
  }

  /** Stage 2 pages split a stage 1 block: all pieces hang on the block, so that one invalidation reaches them. */
  #block(cd: CdEntry, half: Stage1Half, vaHi: number, lo: number): SplitBlock {
    const { sizeLog2, level } = this.#stage1;
    const page = (vaHi >>> 0) * 2 ** 20 + (lo >>> 12);
    const number = Math.floor(page / 2 ** (sizeLog2 - 12));
    return cd.group.block(sizeLog2, number, level, half.walk.granule, this.#tlb.va.places);
  }
}
