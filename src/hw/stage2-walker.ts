/** Stage 2 of a translation: intermediate to physical addresses (IHI 0070 3.3, 5.2; DDI 0487 D8). */
import type { Caps } from '../../spec/caps.ts';
import { isDevice, stage2Types } from './attributes.ts';
import * as bits from './descriptor-bits.ts';
import { swap32 } from './endian.ts';
import { F_ACCESS, F_ADDR_SIZE, F_PERMISSION, F_TRANSLATION, F_WALK_EABT, fetchFault, stageFault } from './faults.ts';
import { Exchange, type Memory } from './memory.ts';
import * as permissions from './permissions.ts';
import type { TagGroup } from './tag-space.ts';
import type { Tlb } from './tlb.ts';
import { FaultClass, Step, type Transaction } from './transaction.ts';
import { levelShift, type WalkConfig } from './walk-config.ts';

// Local constants: an import is looked up anew at every use, and a walk uses these dozens of times.
const {
  AF_LO,
  CONTIGUOUS_HI,
  NT_LO,
  S2_MEMATTR_MASK,
  S2_MEMATTR_SHIFT,
  S2AP_WRITE_LO,
  SH_MASK,
  SH_SHIFT,
  TABLE_OR_PAGE_LO,
  VALID_LO,
} = bits;
const { CLEAN, stage2Permissions, W } = permissions;
const STEP_S2 = Step.S2;
const STEP_TLB = Step.TLB;

/** Stage 2 of an STE. */
export interface Stage2Config {
  readonly walk: WalkConfig;
  readonly group: TagGroup;
  /** STE.S2PTW, where it counts. */
  readonly S2PTW: boolean;
  /** How MemAttr acts ({@link stage2Types}). */
  readonly types: Uint8Array;
}

/** A walk that meets descriptors changing under it gives up after this many attempts to update one. */
const MAX_UPDATES = 8;
/** Memory type a walk's own access has before stage 2: Normal write-back. */
const WALK_TYPE = 15;

/** See the module comment. Results of the last successful {@link translate} stand in its fields. */
export class Stage2Walker {
  paHi = 0;
  paLo = 0;
  /** log2 of the bytes the leaf (or contiguous run) covers. */
  sizeLog2 = 0;
  permissions = 0;
  memAttr = 0;
  SH = 0;
  level = 0;
  /** The leaf may be cached. */
  cacheable = false;
  /** The last translation came out of the TLB. */
  hit = false;

  readonly #memory: Memory;
  readonly #tlb: Tlb;
  readonly #xnx: boolean;

  constructor(memory: Memory, tlb: Tlb, caps: Pick<Caps, 'XNX'>) {
    this.#memory = memory;
    this.#tlb = tlb;
    this.#xnx = caps.XNX;
  }

  /**
   * Translates an intermediate address. need: permissions that must be there ({@link stage2Need}); update: W if a
   * writable-clean leaf is to be made dirty. False: the fault stands in `t`.
   */
  translate(
    t: Transaction,
    config: Stage2Config,
    hi: number,
    lo: number,
    need: number,
    update: number,
    CLASS: FaultClass,
  ): boolean {
    const { inputBits } = config.walk;
    this.hit = false;
    const above = inputBits >= 32 ? (inputBits === 32 ? hi : hi >>> (inputBits - 32)) : hi | (lo >>> inputBits);
    if (above !== 0) return stageFault(t, F_TRANSLATION, true, CLASS, hi, lo);
    if (!this.#lookup(t, config, hi, lo, update) && !this.#walk(t, config, hi, lo, need, update, CLASS)) return false;
    if ((need & ~this.permissions) !== 0) return this.#permission(t, need, CLASS, hi, lo);
    if (config.S2PTW && CLASS !== FaultClass.IN && isDevice(config.types[(WALK_TYPE << 4) | this.memAttr] ?? 0))
      return this.#permission(t, need, CLASS, hi, lo);
    return true;
  }

  #permission(t: Transaction, need: number, CLASS: FaultClass, hi: number, lo: number): false {
    t.TTRnW = (need & W) === 0;
    return stageFault(t, F_PERMISSION, true, CLASS, hi, lo);
  }

  #lookup(t: Transaction, config: Stage2Config, hi: number, lo: number, update: number): boolean {
    const space = config.group.ipa;
    if (space.id === 0) return false;
    const entry = this.#tlb.ipa.lookup(hi, lo, config.group.salt, space.id, 0);
    if (entry === null || (update !== 0 && (entry.perm2 & CLEAN) !== 0)) return false;
    const size = entry.sizeLog2;
    if (size < 32) {
      this.paHi = entry.outHi;
      this.paLo = entry.outLo | (lo & ~(-1 << size));
    } else {
      this.paHi = entry.outHi | (hi & ~(-1 << (size - 32)));
      this.paLo = lo | 0;
    }
    this.sizeLog2 = size;
    this.permissions = entry.perm2;
    this.memAttr = entry.attributes & S2_MEMATTR_MASK;
    this.SH = entry.attributes >>> 4;
    this.level = entry.level;
    this.cacheable = true;
    this.hit = true;
    t.step(STEP_TLB, entry.level, 2, hi, lo, this.paHi, this.paLo);
    return true;
  }

  #walk(
    t: Transaction,
    config: Stage2Config,
    hi: number,
    lo: number,
    need: number,
    update: number,
    CLASS: FaultClass,
  ): boolean {
    const memory = this.#memory;
    const walk = config.walk;
    let level = walk.startLevel;
    let shift = walk.startShift;
    let mask = walk.startMask;
    let tableHi = walk.ttbHi;
    let tableLo = walk.ttbLo;
    const caching = this.#tlb.s2Tables.on;
    if (caching) {
      const known = this.#deepest(config, hi, lo);
      if (known !== null) {
        level = known.level + 1;
        shift = levelShift(walk, level);
        mask = walk.mask;
        tableHi = known.outHi;
        tableLo = known.outLo;
      }
    }
    let updates = 0;
    for (;;) {
      const index = (shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : hi >>> (shift - 32)) & mask;
      const entryLo = tableLo | (index << 3);
      if (!memory.load64(tableHi, entryLo)) return this.#abort(t, CLASS, tableHi, entryLo, hi, lo);
      let dHi = memory.hi;
      let dLo = memory.lo;
      if (walk.bigEndian) {
        const first = dLo;
        dLo = swap32(dHi);
        dHi = swap32(first);
      }
      t.step(STEP_S2, level, 2, tableHi, entryLo, dHi, dLo);
      if ((dLo & VALID_LO) === 0) return stageFault(t, F_TRANSLATION, true, CLASS, hi, lo);
      const outHi = (dHi & walk.hiMask) | ((dLo & walk.foldMask) << walk.foldShift);
      const table = (dLo & TABLE_OR_PAGE_LO) !== 0 && level !== 3;
      if (!table && (level === 3 ? (dLo & TABLE_OR_PAGE_LO) === 0 : ((walk.blocks >> (level + 1)) & 1) === 0))
        return stageFault(t, F_TRANSLATION, true, CLASS, hi, lo);
      if ((outHi & walk.beyondHi) !== 0) return stageFault(t, F_ADDR_SIZE, true, CLASS, hi, lo);
      const clean = this.#flags(walk, dHi, dLo, table, update, need);
      if (clean < 0) return stageFault(t, F_ACCESS, true, CLASS, hi, lo);
      if (clean !== 0) {
        if (walk.updatesAbort) return this.#abort(t, CLASS, tableHi, entryLo, hi, lo);
        const result = this.#exchange(walk.bigEndian, tableHi, entryLo, dHi, dLo, dLo | clean);
        if (result === Exchange.Abort || (result === Exchange.Different && ++updates === MAX_UPDATES))
          return this.#abort(t, CLASS, tableHi, entryLo, hi, lo);
        if (result === Exchange.Different) continue;
        dLo |= clean;
      }
      if (!table) {
        this.#leaf(config, hi, lo, dHi, dLo, outHi, level, shift);
        return true;
      }
      tableHi = outHi;
      tableLo = dLo & (-1 << walk.granule);
      if (caching) this.#keepTable(config, hi, lo, level, shift, tableHi, tableLo);
      level++;
      shift -= walk.stride;
      mask = walk.mask;
    }
  }

  /**
   * Bits that hardware has to set in a descriptor before it is used; 0: none; -1: Access flag fault. A leaf that does
   * not give what is needed is left alone.
   */
  #flags(walk: WalkConfig, dHi: number, dLo: number, table: boolean, update: number, need: number): number {
    if (table) return walk.haft ? AF_LO & ~dLo : 0;
    if ((dLo & AF_LO) === 0 && !walk.ha) return walk.affd ? 0 : -1;
    if (!walk.ha) return 0;
    const permissions = stage2Permissions(dHi, dLo, this.#xnx, walk.dirtyState);
    if ((need & ~permissions) !== 0) return 0;
    return (AF_LO & ~dLo) | (update !== 0 && (permissions & CLEAN) !== 0 ? S2AP_WRITE_LO : 0);
  }

  #exchange(bigEndian: boolean, hi: number, lo: number, dHi: number, dLo: number, newLo: number): Exchange {
    if (bigEndian) return this.#memory.compareExchange64(hi, lo, swap32(dLo), swap32(dHi), swap32(newLo), swap32(dHi));
    return this.#memory.compareExchange64(hi, lo, dHi, dLo, dHi, newLo);
  }

  #abort(t: Transaction, CLASS: FaultClass, hi: number, lo: number, ipaHi: number, ipaLo: number): false {
    stageFault(t, F_WALK_EABT, true, CLASS, ipaHi, ipaLo);
    return fetchFault(t, F_WALK_EABT, hi, lo);
  }

  #leaf(
    config: Stage2Config,
    hi: number,
    lo: number,
    dHi: number,
    dLo: number,
    outHi: number,
    level: number,
    shift: number,
  ): void {
    const walk = config.walk;
    if (shift < 32) {
      const low = -1 << shift;
      this.paHi = outHi;
      this.paLo = (dLo & low) | (lo & ~low);
    } else {
      const low = -1 << (shift - 32);
      this.paHi = (outHi & low) | (hi & ~low);
      this.paLo = lo | 0;
    }
    this.level = level;
    this.permissions = stage2Permissions(dHi, dLo, this.#xnx, walk.dirtyState);
    this.memAttr = (dLo >>> S2_MEMATTR_SHIFT) & S2_MEMATTR_MASK;
    this.SH = walk.ds ? walk.sh : (dLo >>> SH_SHIFT) & SH_MASK;
    const run = (dHi & CONTIGUOUS_HI) !== 0 ? shift + (walk.runs[level + 1] ?? 0) : shift;
    this.sizeLog2 = run <= walk.inputBits ? run : shift;
    // Not cached: a leaf whose Access flag is clear, unless the flag does not count (3.13.1); a block with nT (3.21.1.1).
    this.cacheable = ((dLo & AF_LO) !== 0 || walk.affd) && (level === 3 || (dLo & NT_LO) === 0);
    if (this.#tlb.ipa.on && this.cacheable) this.#keep(config, hi, lo);
  }

  #keep(config: Stage2Config, hi: number, lo: number): void {
    const space = config.group.ipa;
    const size = this.sizeLog2;
    const entry = this.#tlb.ipa.insert(hi, lo, size, space, this.#tlb.groups.live(space));
    entry.outHi = size < 32 ? this.paHi : this.paHi & (-1 << (size - 32));
    entry.outLo = size < 32 ? this.paLo & (-1 << size) : 0;
    entry.level = this.level;
    entry.granule = config.walk.granule;
    entry.perm2 = this.permissions;
    entry.attributes = this.memAttr | (this.SH << 4);
  }

  #deepest(config: Stage2Config, hi: number, lo: number) {
    const space = config.group.s2Tables;
    if (space.id === 0) return null;
    for (let level = 2; level >= config.walk.startLevel; level--) {
      const size = levelShift(config.walk, level);
      const entry = this.#tlb.s2Tables.lookupSize(hi, lo, size, config.group.salt, space.id, 0);
      if (entry !== null && entry.level === level) return entry;
    }
    return null;
  }

  #keepTable(
    config: Stage2Config,
    hi: number,
    lo: number,
    level: number,
    shift: number,
    tableHi: number,
    tableLo: number,
  ): void {
    const space = config.group.s2Tables;
    const entry = this.#tlb.s2Tables.insert(hi, lo, shift, space, this.#tlb.groups.live(space));
    entry.outHi = tableHi;
    entry.outLo = tableLo;
    entry.level = level;
    entry.granule = config.walk.granule;
  }
}

/** Stage 2 attribute tables of an STE. */
export const typesOf = (S2FWB: boolean, caps: Pick<Caps, 'MTEPERM'>): Uint8Array => stage2Types(S2FWB, caps.MTEPERM);
