/** Stage 1 of a translation: virtual addresses to intermediate (or, alone, physical) ones (IHI 0070 3.3, 5.4). */
import { pack } from './attributes.ts';
import * as bits from './descriptor-bits.ts';
import { swap32 } from './endian.ts';
import { F_ACCESS, F_ADDR_SIZE, F_PERMISSION, F_TRANSLATION, F_WALK_EABT, fetchFault, stageFault } from './faults.ts';
import { Exchange, type Memory } from './memory.ts';
import type { Stage1Rules } from './permissions.ts';
import * as permissions from './permissions.ts';
import type { Stage2Config, Stage2Walker } from './stage2-walker.ts';
import type { TagSpace } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import type { TlbEntry } from './tlb-array.ts';
import { FaultClass, Step, type Transaction } from './transaction.ts';
import { levelShift, type WalkConfig } from './walk-config.ts';

// Local constants: an import is looked up anew at every use, and a walk uses these dozens of times.
const {
  AF_LO,
  AP_READ_ONLY_LO,
  ATTR_INDEX_3_HI,
  ATTR_INDEX_MASK,
  ATTR_INDEX_SHIFT,
  CONTIGUOUS_HI,
  HIERARCHICAL_HI,
  NG_LO,
  NT_LO,
  SH_MASK,
  SH_SHIFT,
  TABLE_OR_PAGE_LO,
  VALID_LO,
} = bits;
const { CLEAN, R, stage1Permissions, W } = permissions;
const STEP_S1 = Step.S1;
const { TT } = FaultClass;

/** One TTB of a CD. */
export interface Stage1Half {
  readonly walk: WalkConfig;
  /** EPDx, where it counts: no walks through this TTB. */
  readonly disabled: boolean;
  /** TBIx: bits 63:56 of the address are no part of it. */
  readonly TBI: boolean;
  /** Unprivileged accesses fault. */
  readonly E0PD: boolean;
  /** HADx: Table descriptors take nothing away. */
  readonly HAD: boolean;
}

/** Stage 1 of a CD, as far as walks need it. */
export interface Stage1Config {
  readonly rules: Stage1Rules;
  /** Packed attributes of MAIR by AttrIndx (16), without shareability. */
  readonly mair: Uint16Array;
  readonly AIE: boolean;
  /** Tag of Table descriptors. */
  readonly tables: TagSpace;
}

const MAX_UPDATES = 8;

/** See the module comment. Results of the last successful {@link walk} stand in its fields. */
export class Stage1Walker {
  outHi = 0;
  outLo = 0;
  sizeLog2 = 0;
  permissions = 0;
  /** Packed memory attributes (attributes.ts). */
  attributes = 0;
  level = 0;
  /** nG = 0. */
  global = false;
  /** The leaf may be cached: its Access flag is set or does not count, and it is no block with nT. */
  cacheable = false;

  readonly #memory: Memory;
  readonly #tlb: Tlb;
  readonly #stage2: Stage2Walker;
  #fetchHi = 0;
  #fetchLo = 0;

  constructor(memory: Memory, tlb: Tlb, stage2: Stage2Walker) {
    this.#memory = memory;
    this.#tlb = tlb;
    this.#stage2 = stage2;
  }

  /**
   * Walks the tables for a virtual address that lies in range. s2: stage 2 of the descriptors' addresses, or null;
   * need: permissions that must be there ({@link stage1Need}); update: W if a writable-clean leaf is to be made dirty.
   * False: the fault stands in `t`.
   */
  walk(
    t: Transaction,
    config: Stage1Config,
    half: Stage1Half,
    s2: Stage2Config | null,
    hi: number,
    lo: number,
    need: number,
    update: number,
  ): boolean {
    const memory = this.#memory;
    const walk = half.walk;
    let level = walk.startLevel;
    let shift = walk.startShift;
    let mask = walk.startMask;
    let tableHi = walk.ttbHi;
    let tableLo = walk.ttbLo;
    let taken = 0;
    const caching = this.#tlb.s1Tables.on;
    if (caching) {
      const known = this.#deepest(config.tables, walk, hi, lo);
      if (known !== null) {
        level = known.level + 1;
        shift = levelShift(walk, level);
        mask = walk.mask;
        tableHi = known.outHi;
        tableLo = known.outLo;
        taken = known.perm1;
      }
    }
    let updates = 0;
    for (;;) {
      const index = (shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : hi >>> (shift - 32)) & mask;
      const entryLo = tableLo | (index << 3);
      let fetchHi = tableHi;
      let fetchLo = entryLo;
      if (s2 !== null) {
        if (!this.#stage2.translate(t, s2, tableHi, entryLo, R, 0, TT)) return false;
        fetchHi = this.#stage2.paHi;
        fetchLo = this.#stage2.paLo;
      }
      if (!memory.load64(fetchHi, fetchLo)) return this.#abort(t, fetchHi, fetchLo);
      let dHi = memory.hi;
      let dLo = memory.lo;
      if (walk.bigEndian) {
        const first = dLo;
        dLo = swap32(dHi);
        dHi = swap32(first);
      }
      t.step(STEP_S1, level, 1, fetchHi, fetchLo, dHi, dLo);
      if ((dLo & VALID_LO) === 0) return stageFault(t, F_TRANSLATION, false, FaultClass.IN, 0, 0);
      const outHi = (dHi & walk.hiMask) | ((dLo & walk.foldMask) << walk.foldShift);
      const table = (dLo & TABLE_OR_PAGE_LO) !== 0 && level !== 3;
      if (!table && (level === 3 ? (dLo & TABLE_OR_PAGE_LO) === 0 : ((walk.blocks >> (level + 1)) & 1) === 0))
        return stageFault(t, F_TRANSLATION, false, FaultClass.IN, 0, 0);
      if ((outHi & walk.beyondHi) !== 0) return stageFault(t, F_ADDR_SIZE, false, FaultClass.IN, 0, 0);
      if (!table && (dLo & AF_LO) === 0 && !walk.ha && !walk.affd)
        return stageFault(t, F_ACCESS, false, FaultClass.IN, 0, 0);
      const change = walk.ha ? this.#change(config.rules, walk, dHi, dLo, taken, table, update, need) : dLo;
      if (change !== dLo) {
        this.#fetchHi = fetchHi;
        this.#fetchLo = fetchLo;
        if (walk.updatesAbort) return this.#abort(t, fetchHi, fetchLo);
        const result = this.#exchange(t, s2, walk.bigEndian, tableHi, entryLo, dHi, dLo, change);
        if (result === STAGE2_FAULT) return false;
        if (result === Exchange.Abort || (result === Exchange.Different && ++updates === MAX_UPDATES))
          return this.#abort(t, this.#fetchHi, this.#fetchLo);
        if (result === Exchange.Different) continue;
        dLo = change;
      }
      if (!table) {
        this.#leaf(config, walk, hi, lo, dHi, dLo, outHi, level, shift, taken);
        if ((need & ~this.permissions) !== 0) return stageFault(t, F_PERMISSION, false, FaultClass.IN, 0, 0);
        return true;
      }
      if (!half.HAD) taken |= dHi & HIERARCHICAL_HI;
      tableHi = outHi;
      tableLo = dLo & (-1 << walk.granule);
      if (caching) this.#keepTable(config.tables, walk, hi, lo, level, shift, tableHi, tableLo, taken);
      level++;
      shift -= walk.stride;
      mask = walk.mask;
    }
  }

  #abort(t: Transaction, hi: number, lo: number): false {
    stageFault(t, F_WALK_EABT, false, FaultClass.TT, 0, 0);
    return fetchFault(t, F_WALK_EABT, hi, lo);
  }

  /** The descriptor's low half as hardware wants it before it is used (3.13). A leaf that faults is left alone. */
  #change(
    rules: Stage1Rules,
    walk: WalkConfig,
    dHi: number,
    dLo: number,
    taken: number,
    table: boolean,
    update: number,
    need: number,
  ): number {
    if (table) return walk.haft ? dLo | AF_LO : dLo;
    const permissions = stage1Permissions(rules, dHi, dLo, taken);
    if ((need & ~permissions) !== 0) return dLo;
    const dirty = update !== 0 && (permissions & CLEAN) !== 0;
    return dirty ? (dLo | AF_LO) & ~AP_READ_ONLY_LO : dLo | AF_LO;
  }

  /** The update is a data write at stage 2 (3.13): it needs write permission and makes the stage 2 leaf dirty. */
  #exchange(
    t: Transaction,
    s2: Stage2Config | null,
    bigEndian: boolean,
    tableHi: number,
    entryLo: number,
    dHi: number,
    dLo: number,
    newLo: number,
  ): Exchange | typeof STAGE2_FAULT {
    if (s2 !== null) {
      if (!this.#stage2.translate(t, s2, tableHi, entryLo, W, W, TT)) return STAGE2_FAULT;
      this.#fetchHi = this.#stage2.paHi;
      this.#fetchLo = this.#stage2.paLo;
    }
    const { paHi, paLo } = { paHi: this.#fetchHi, paLo: this.#fetchLo };
    if (bigEndian)
      return this.#memory.compareExchange64(paHi, paLo, swap32(dLo), swap32(dHi), swap32(newLo), swap32(dHi));
    return this.#memory.compareExchange64(paHi, paLo, dHi, dLo, dHi, newLo);
  }

  #leaf(
    config: Stage1Config,
    walk: WalkConfig,
    hi: number,
    lo: number,
    dHi: number,
    dLo: number,
    outHi: number,
    level: number,
    shift: number,
    taken: number,
  ): void {
    if (shift < 32) {
      const low = -1 << shift;
      this.outHi = outHi;
      this.outLo = (dLo & low) | (lo & ~low);
    } else {
      const low = -1 << (shift - 32);
      this.outHi = (outHi & low) | (hi & ~low);
      this.outLo = lo | 0;
    }
    this.level = level;
    this.permissions = stage1Permissions(config.rules, dHi, dLo, taken);
    const high = config.AIE && (dHi & ATTR_INDEX_3_HI) !== 0 ? 8 : 0;
    const mair = config.mair[high | ((dLo >>> ATTR_INDEX_SHIFT) & ATTR_INDEX_MASK)] ?? 0;
    const sh = walk.ds ? walk.sh : (dLo >>> SH_SHIFT) & SH_MASK;
    this.attributes = withSh(mair, sh);
    this.global = (dLo & NG_LO) === 0;
    this.cacheable = ((dLo & AF_LO) !== 0 || walk.affd) && (level === 3 || (dLo & NT_LO) === 0);
    const run = (dHi & CONTIGUOUS_HI) !== 0 ? shift + (walk.runs[level + 1] ?? 0) : shift;
    this.sizeLog2 = run <= walk.inputBits ? run : shift;
  }

  #deepest(space: TagSpace, walk: WalkConfig, hi: number, lo: number): TlbEntry | null {
    if (space.id === 0) return null;
    for (let level = 2; level >= walk.startLevel; level--) {
      const size = levelShift(walk, level);
      const entry = this.#tlb.s1Tables.lookupSize(hi, lo, size, space.group.salt, space.id, 0);
      if (entry !== null && entry.level === level) return entry;
    }
    return null;
  }

  #keepTable(
    space: TagSpace,
    walk: WalkConfig,
    hi: number,
    lo: number,
    level: number,
    shift: number,
    tableHi: number,
    tableLo: number,
    taken: number,
  ): void {
    const entry = this.#tlb.s1Tables.insert(hi, lo, shift, space, this.#tlb.groups.live(space));
    entry.outHi = tableHi;
    entry.outLo = tableLo;
    entry.level = level;
    entry.granule = walk.granule;
    entry.perm1 = taken;
  }
}

/** {@link Stage1Walker.#exchange}: the address of the descriptor faulted at stage 2. */
const STAGE2_FAULT = 2;

/** MAIR attribute and shareability of the leaf, made consistent. */
const withSh = (mair: number, sh: number): number => pack(mair & 0xf, sh, mair >>> 6);
