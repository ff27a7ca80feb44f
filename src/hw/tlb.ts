/**
 * The TLB of one SMMU: leaves by virtual address (stage 1 alone, or both stages combined), leaves by intermediate
 * address, and walk caches of both stages (IHI 0070 3.17). What a command must drop is in {@link Tlb.invalidate}.
 */
import * as commands from '../../spec/commands.ts';
import { type TagGroup, TagGroups, TagKind } from './tag-space.ts';
import { type CacheShape, TlbArray, type TlbEntry } from './tlb-array.ts';
import { StreamWorld, type TlbInvalidation, type TranslationRegs } from './transaction.ts';

/** Shapes of the four caches. */
export interface TlbOptions {
  /** Leaves by virtual address. */
  readonly va: CacheShape;
  /** Leaves by intermediate address. */
  readonly ipa: CacheShape;
  /** Stage 1 Table descriptors. */
  readonly s1Tables: CacheShape;
  /** Stage 2 Table descriptors. */
  readonly s2Tables: CacheShape;
  /** NH_ASID also drops global entries of its VMID, as QEMU does. Over-invalidation, hence legal (4.4). Default: no. */
  readonly asidDropsGlobals?: boolean | undefined;
}

const shape = (entries: number): CacheShape => ({ entries, ways: 4, replacement: 'round-robin' });

/** 2048 and 1024 leaves, 256 table descriptors of each stage, 4 ways, round-robin. */
export const DEFAULT_TLB: TlbOptions = {
  va: shape(2048),
  ipa: shape(1024),
  s1Tables: shape(256),
  s2Tables: shape(256),
};

/** Nothing is cached. */
export const NO_TLB: TlbOptions = { va: shape(0), ipa: shape(0), s1Tables: shape(0), s2Tables: shape(0) };

/** What the TLB has to know of an SMMU. */
export interface TlbCaps {
  readonly S2P: boolean;
  readonly DS: boolean;
}

/** A cached translation as inspection shows it. Addresses unsigned. */
export interface TlbHolding {
  readonly cache: keyof TlbOptions;
  readonly world: StreamWorld;
  readonly VMID: number;
  /** -1: global, or the kind has none. */
  readonly ASID: number;
  readonly address: bigint;
  readonly output: bigint;
  readonly sizeLog2: number;
  readonly level: number;
  readonly combined: boolean;
}

const pair = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

const CACHES = ['va', 'ipa', 's1Tables', 's2Tables'] as const;

/** log2 of the granule by TLBI TG; 0: any. */
const TG_SHIFT = [0, 12, 14, 16] as const;
const TG_16KB = commands.CMD_TLBI_NH_VA.fields.TG.values['16KB'];
const TTL_1 = commands.CMD_TLBI_NH_VA.fields.TTL.values.LEVEL_1;
/** Last page number of a 64-bit address space, in units of 4 KiB. */
const LAST_PAGE = 2 ** 52 - 1;

const NH_ALL = commands.CMD_TLBI_NH_ALL.opcode;
const NH_ASID = commands.CMD_TLBI_NH_ASID.opcode;
const NH_VA = commands.CMD_TLBI_NH_VA.opcode;
const NH_VAA = commands.CMD_TLBI_NH_VAA.opcode;
const S2_IPA = commands.CMD_TLBI_S2_IPA.opcode;
const S12_VMALL = commands.CMD_TLBI_S12_VMALL.opcode;
const NSNH_ALL = commands.CMD_TLBI_NSNH_ALL.opcode;
const EL2_ALL = commands.CMD_TLBI_EL2_ALL.opcode;
const EL2_ASID = commands.CMD_TLBI_EL2_ASID.opcode;
const EL2_VA = commands.CMD_TLBI_EL2_VA.opcode;
const EL2_VAA = commands.CMD_TLBI_EL2_VAA.opcode;

/** Which entries an invalidation by address is about. One object, reused. */
class Target {
  first = 0;
  last = 0;
  /** 0: any level. */
  level = 0;
  /** log2 of the granule; 0: any. */
  granule = 0;
  /** -1: any ASID. */
  ASID = -1;
  /** Private (ASET=1) entries stay. */
  sharedOnly = false;

  readonly leaf = (entry: TlbEntry): boolean =>
    (this.level === 0 || entry.level === this.level) &&
    (this.granule === 0 || entry.granule === this.granule) &&
    this.#belongs(entry);

  readonly table = (entry: TlbEntry): boolean =>
    (this.level === 0 || entry.level < this.level) &&
    (this.granule === 0 || entry.granule === this.granule) &&
    this.#belongs(entry);

  #belongs(entry: TlbEntry): boolean {
    const space = entry.space;
    if (space === null) return false;
    if (this.sharedOnly && space.ASET === 1) return false;
    return this.ASID < 0 || space.ASID < 0 || space.ASID === this.ASID;
  }
}

/** See the module comment. */
export class Tlb {
  readonly groups = new TagGroups();
  readonly va: TlbArray;
  readonly ipa: TlbArray;
  readonly s1Tables: TlbArray;
  readonly s2Tables: TlbArray;
  readonly #caps: TlbCaps;
  readonly #asidDropsGlobals: boolean;
  readonly #target = new Target();
  readonly #arrays: readonly TlbArray[];
  /** Number of places for entries in all caches: what {@link evict} takes. */
  readonly places: number;

  /** @throws RangeError as {@link TlbArray} */
  constructor(options: TlbOptions, caps: TlbCaps) {
    this.va = new TlbArray(options.va);
    this.ipa = new TlbArray(options.ipa);
    this.s1Tables = new TlbArray(options.s1Tables);
    this.s2Tables = new TlbArray(options.s2Tables);
    this.#arrays = CACHES.map((cache) => this[cache]);
    this.places = this.#arrays.reduce((sum, { places }) => sum + places, 0);
    this.#caps = caps;
    this.#asidDropsGlobals = options.asidDropsGlobals ?? false;
  }

  /**
   * Drops what the command (or broadcast) must drop (IHI 0070 4.4) and no more, with three exceptions, all legal
   * over-invalidation: where stage 2 pages split a stage 1 block into smaller combined entries, an invalidation by any
   * address of the block drops the pieces of every ASID; and {@link TlbInvalidation.VMID} without stage 2 is not looked
   * at; and {@link TlbOptions.asidDropsGlobals}. Entries that combine both stages survive S2_IPA, as 4.4.3.1 allows.
   */
  invalidate(inv: TlbInvalidation, regs: Pick<TranslationRegs, 'VMW' | 'E2H'>): void {
    const el1 = StreamWorld.NsEl1;
    const el2 = regs.E2H ? StreamWorld.NsEl2E2h : StreamWorld.NsEl2;
    switch (inv.opcode) {
      case NSNH_ALL:
        this.groups.dropWorld(el1);
        break;
      case EL2_ALL:
        this.groups.dropWorld(StreamWorld.NsEl2);
        this.groups.dropWorld(StreamWorld.NsEl2E2h);
        break;
      case EL2_ASID:
        this.groups.find(StreamWorld.NsEl2E2h, -1)?.dropAsid(inv.ASID, inv.broadcast);
        break;
      case EL2_VA:
        this.#byAddress(this.groups.find(el2, -1), inv, el2 === StreamWorld.NsEl2E2h ? inv.ASID : -1);
        break;
      case EL2_VAA:
        this.#byAddress(this.groups.find(el2, -1), inv, -1);
        break;
      default:
        this.#byVmid(inv, regs.VMW);
    }
  }

  /** VMW makes a command reach every VMID that differs only in its low bits (3.17.6). */
  #byVmid(inv: TlbInvalidation, VMW: number): void {
    if (!this.#caps.S2P) {
      this.#inGroup(this.groups.find(StreamWorld.NsEl1, -1), inv);
      return;
    }
    const first = (inv.VMID >>> VMW) << VMW;
    for (let VMID = first; VMID < first + (1 << VMW); VMID++)
      this.#inGroup(this.groups.find(StreamWorld.NsEl1, VMID), inv);
  }

  #inGroup(group: TagGroup | undefined, inv: TlbInvalidation): void {
    if (group === undefined) return;
    switch (inv.opcode) {
      case NH_ALL:
        group.dropStage1();
        break;
      case NH_ASID:
        group.dropAsid(inv.ASID, inv.broadcast);
        if (this.#asidDropsGlobals) group.dropGlobals();
        break;
      case NH_VA:
        this.#byAddress(group, inv, inv.ASID);
        break;
      case NH_VAA:
        this.#byAddress(group, inv, -1);
        break;
      case S12_VMALL:
        group.dropStage1();
        group.dropStage2();
        break;
      case S2_IPA:
        this.#byIpa(group, inv);
        break;
      default:
        throw new RangeError(`opcode 0x${inv.opcode.toString(16)} is no Non-secure TLB invalidation`);
    }
  }

  #aim(inv: TlbInvalidation, hi: number, ASID: number): void {
    const target = this.#target;
    target.first = (hi >>> 0) * 2 ** 20 + (inv.addrLo >>> 12);
    target.granule = TG_SHIFT[inv.TG & 3] ?? 0;
    // TG = 0: one address, and TTL is not looked at (4.4.1). Level 1 has no 16 KiB leaf without DS.
    const ignored = inv.TG === 0 || (inv.TTL === TTL_1 && inv.TG === TG_16KB && !this.#caps.DS);
    target.level = ignored ? 0 : inv.TTL;
    const pages = inv.TG === 0 ? 1 : (inv.NUM + 1) * 2 ** (inv.SCALE + target.granule - 12);
    target.last = Math.min(target.first + pages - 1, LAST_PAGE);
    target.ASID = ASID;
    target.sharedOnly = false;
  }

  #byAddress(group: TagGroup | undefined, inv: TlbInvalidation, ASID: number): void {
    if (group === undefined) return;
    const target = this.#target;
    // Bits 63:56 take no part: with TBI they are a tag, without it they equal bit 55.
    this.#aim(inv, (inv.addrHi << 8) >> 8, ASID);
    target.sharedOnly = inv.broadcast;
    group.dropBlocks(target.first, target.last, target.level, target.granule);
    this.va.dropRange(group, target.first, target.last, target.leaf);
    if (!inv.Leaf) this.s1Tables.dropRange(group, target.first, target.last, target.table);
  }

  #byIpa(group: TagGroup, inv: TlbInvalidation): void {
    const target = this.#target;
    this.#aim(inv, inv.addrHi, -1);
    this.ipa.dropRange(group, target.first, target.last, target.leaf);
    if (!inv.Leaf) this.s2Tables.dropRange(group, target.first, target.last, target.table);
  }

  /** Drops everything, as a reset may. */
  clear(): void {
    for (const world of Object.values(StreamWorld)) this.groups.dropWorld(world);
  }

  /** Drops what stands at a place of any cache, as hardware may at any time. False: nothing was there. */
  evict(place: number): boolean {
    let left = place;
    for (const array of this.#arrays) {
      if (left < array.places) return array.evict(left);
      left -= array.places;
    }
    return false;
  }

  /** As {@link evict}, for the first place in use of `tries` from `first` on; after the last place comes place 0. */
  evictFrom(first: number, tries: number): boolean {
    if (this.#arrays.every(({ untouched }) => untouched)) return false;
    for (let i = 0; i < tries; i++) if (this.evict((first + i) % this.places)) return true;
    return false;
  }

  /** Every live entry, or every one that carries a VMID. For inspection. */
  *holdings(VMID?: number): Generator<TlbHolding> {
    for (const cache of CACHES)
      for (const entry of this[cache].live()) {
        const space = entry.space;
        if (space === null || (VMID !== undefined && space.group.VMID !== VMID)) continue;
        yield {
          cache,
          world: space.group.world,
          VMID: space.group.VMID,
          ASID: space.kind === TagKind.Global ? -1 : space.ASID,
          address: pair(entry.addrHi, entry.addrLo),
          output: pair(entry.outHi, entry.outLo),
          sizeLog2: entry.sizeLog2,
          level: entry.level,
          combined: entry.combined,
        };
      }
  }

  /** Live entries that carry a VMID: what still names it here. For inspection. */
  holdersOf(VMID: number): TlbHolding[] {
    return [...this.holdings(VMID)];
  }
}
