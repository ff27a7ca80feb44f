/** MPAM ids of client traffic: from GBPMPAM, STE or CD, and through a Virtual Machine Structure (IHI 0070 5.6, 6.3.43). */
import type { Caps } from '../../spec/caps.ts';
import { slotValue, type Words } from '../../spec/layout.ts';
import { GBPMPAM } from '../../spec/registers.ts';
import { VMS } from '../../spec/vms.ts';
import type { ConfigCache } from './config-cache.ts';
import type { CdEntry } from './context-descriptor.ts';
import { F_VMS_FETCH, fetchFault } from './faults.ts';
import type { Memory } from './memory.ts';
import { mpamId, readWords, type SteEntry } from './stream-table.ts';
import { Step, type Transaction, type TranslationRegs } from './transaction.ts';

const GBP_PARTID = GBPMPAM.slot('GBP_PARTID');
const GBP_PMG = GBPMPAM.slot('GBP_PMG');
/** PARTID_MAP of every virtual PARTID. */
const PARTID_MAP = (Object.keys(VMS.fields) as (keyof typeof VMS.fields)[])
  .filter((name) => name.startsWith('PARTID_MAP'))
  .map((name) => VMS.slot(name));
/** Bytes from the start of a VMS that its map takes. */
const MAP_BYTES = 4 * PARTID_MAP.reduce((words, { word }) => Math.max(words, word + 1), 0);

/** See the module comment. Ids above MPAMIDR's maximum count as 0. */
export class Mpam {
  readonly #memory: Memory;
  readonly #caps: Caps;
  readonly #regs: TranslationRegs;
  readonly #cache: ConfigCache;
  /** The map that was read last, for an SMMU that caches none. */
  #map: Words = new Uint32Array(MAP_BYTES / 4);

  constructor(memory: Memory, caps: Caps, regs: TranslationRegs, cache: ConfigCache) {
    this.#memory = memory;
    this.#caps = caps;
    this.#regs = regs;
    this.#cache = cache;
  }

  /** Traffic that no STE is looked at for: SMMUEN = 0, or Translated with ATSCHK = 0. */
  bypass(t: Transaction): void {
    const value = this.#regs.GBPMPAM;
    t.PARTID = mpamId((value >>> GBP_PARTID.shift) & GBP_PARTID.mask, this.#caps.PARTID_MAX);
    t.PMG = mpamId((value >>> GBP_PMG.shift) & GBP_PMG.mask, this.#caps.PMG_MAX);
  }

  /** Fetches the stream's PARTID map if it has one and it is not cached. False: F_VMS_FETCH stands in `t`. */
  fetch(t: Transaction, ste: SteEntry): boolean {
    if (!ste.vms || this.#cache.vms(ste.VMID) !== null) return true;
    return this.#read(t, ste) || fetchFault(t, F_VMS_FETCH, ste.vmsHi, ste.vmsLo);
  }

  #read(t: Transaction, ste: SteEntry): boolean {
    const words = readWords(t, this.#memory, Step.VMS, ste.vmsHi, ste.vmsLo, MAP_BYTES);
    if (words === null) return false;
    this.#map = words;
    this.#cache.keepVms(ste.VMID, words);
    return true;
  }

  /** Ids of a transaction of a stream; cd: null where stage 1 takes no part. After {@link fetch}. */
  assign(t: Transaction, ste: SteEntry, cd: CdEntry | null): void {
    t.PARTID = ste.PARTID;
    t.PMG = ste.PMG;
    if (cd === null || !ste.S1MPAM) return;
    t.PARTID = mpamId(ste.vms ? this.#physical(ste, cd.PARTID) : cd.PARTID, this.#caps.PARTID_MAX);
    t.PMG = mpamId(cd.PMG, this.#caps.PMG_MAX);
  }

  /** The low bits of a virtual PARTID count; the others are RES0 (5.4 PARTID). */
  #physical(ste: SteEntry, PARTID: number): number {
    const map = this.#cache.vms(ste.VMID) ?? this.#map;
    const slot = PARTID_MAP[PARTID & (PARTID_MAP.length - 1)];
    return slot === undefined ? 0 : slotValue(map, slot);
  }
}
