/** The hardware model on memory images: pages are handed to it as it asks for them. */
import type { Caps } from '../../spec/caps.ts';
import type { Register } from '../../spec/layout.ts';
import { CR0, CR1, CR2, GBPA } from '../../spec/registers/control.ts';
import { GBPMPAM } from '../../spec/registers/mpam-dpt.ts';
import { STRTAB_BASE } from '../../spec/registers/queues.ts';
import { NO_CONFIG_CACHE } from '../hw/config-cache.ts';
import { Memory } from '../hw/memory.ts';
import { NO_TLB } from '../hw/tlb.ts';
import type { Transaction, TranslationRegs } from '../hw/transaction.ts';
import { Translator } from '../hw/translate.ts';
import type { ImageMemory } from './memory.ts';
import { type Registers, registerWords, streamTableOf } from './stream-table.ts';

/** Memory of the model comes in units of this many bytes. */
const PAGE = 0x1000n;

const high = (value: bigint): number => Number(value >> 32n) | 0;
const low = (value: bigint): number => Number(value & 0xffffffffn) | 0;

/** Halves as the model keeps them, as an address. */
export const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** Register state that translation reads, from register values. Without CR0, translation counts as on. */
function regsOf(registers: Registers, caps: Caps): TranslationRegs {
  const words = (register: Register) => registerWords(register, registers.get(register.name) ?? 0n);
  const table = streamTableOf(registers, caps);
  const bit = (register: Register, name: string): boolean => register.num(words(register), name) === 1;
  const base = STRTAB_BASE.address(words(STRTAB_BASE), 'ADDR');
  const VMW = CR0.num(words(CR0), 'VMW');
  return {
    SMMUEN: registers.has(CR0.name) ? bit(CR0, 'SMMUEN') : true,
    ATSCHK: bit(CR0, 'ATSCHK'),
    VMW: VMW > 4 ? 0 : VMW,
    E2H: bit(CR2, 'E2H'),
    RECINVSID: bit(CR2, 'RECINVSID'),
    REC_CFG_ATS: bit(CR2, 'REC_CFG_ATS'),
    PTM: bit(CR2, 'PTM'),
    GBPA: words(GBPA)[0] ?? 0,
    CR1: words(CR1)[0] ?? 0,
    GBPMPAM: words(GBPMPAM)[0] ?? 0,
    strtabHi: high(base),
    strtabLo: low(base),
    twoLevel: table.split !== undefined,
    SPLIT: table.split ?? 0,
    LOG2SIZE: table.log2size,
  };
}

/** How the model is used. */
export interface ModelOptions {
  /** Structures are read once and kept; their reads then do not show among the steps. For many translations. */
  readonly cached: boolean;
}

/** An SMMU whose memory are images. */
export class ImageModel {
  readonly caps: Caps;
  readonly #images: ImageMemory;
  readonly #memory = new Memory();
  readonly #translator: Translator;
  readonly #loaded = new Set<bigint>();

  constructor(images: ImageMemory, registers: Registers, caps: Caps, options: ModelOptions = { cached: false }) {
    this.caps = caps;
    this.#images = images;
    const caches = options.cached ? { tlb: NO_TLB } : { tlb: NO_TLB, configCache: NO_CONFIG_CACHE };
    this.#translator = new Translator(this.#memory, caps, regsOf(registers, caps), caches);
  }

  /**
   * Translates. Memory that no image has answers with an external abort: the address it asked for is returned, and the
   * event in `t` is one that the real machine need not have seen.
   */
  translate(t: Transaction): bigint | undefined {
    for (;;) {
      this.#translator.translate(t);
      if (t.fetchHi === 0 && t.fetchLo === 0) return undefined;
      const wanted = addressOf(t.fetchHi, t.fetchLo);
      if (!this.#load(wanted & ~(PAGE - 1n))) return wanted;
    }
  }

  /** Hands a page to the model. False if it is there already, or no image has a byte of it. */
  #load(page: bigint): boolean {
    if (this.#loaded.has(page)) return false;
    const parts = [...this.#images.parts(page, PAGE)].filter(({ present }) => present);
    if (parts.length === 0) return false;
    this.#loaded.add(page);
    this.#memory.addRegion(page, PAGE);
    for (const { pa, length } of parts) {
      const bytes = this.#images.read(pa, Number(length));
      if (bytes !== undefined) this.#memory.writeBytes(pa, bytes);
    }
    return true;
  }

  /** Whether the images hold these bytes; a page of the model may hold less than a page. */
  has(pa: bigint, bytes: number): boolean {
    return this.#images.read(pa, bytes) !== undefined;
  }
}
