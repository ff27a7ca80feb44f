/** A translator with memory around it, and builders for the structures in that memory. */
import { type Caps, capsOf } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import { type DescriptorFormat, GEOMETRY, type Granule, type Level, pte1, pte2 } from '../../spec/descriptors.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../../spec/id-registers.ts';
import type { Encoding, Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { Memory } from '../../src/hw/memory.ts';
import { Outcome, type TlbInvalidation, Transaction, type TranslationRegs } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import type { TranslatorOptions } from '../../src/hw/translation-options.ts';

export const RAM = 0x4000_0000n;
export const RAM_SIZE = 0x4000_0000n;
export const STRTAB = RAM;

/** An SMMU with everything that translation offers, 48-bit addresses unless `idr5` says more. */
export function labCaps(
  idr0: Encoding<typeof IDR0.fields> = {},
  idr1: Encoding<typeof IDR1.fields> = {},
  idr3: Encoding<typeof IDR3.fields> = {},
  idr5: Encoding<typeof IDR5.fields> = {},
): Caps {
  return capsOf({
    IDR0: IDR0.value({
      S1P: 1,
      S2P: 1,
      TTF: 2,
      COHACC: 1,
      HTTU: 2,
      Hyp: 1,
      ATS: 1,
      ASID16: 1,
      VMID16: 1,
      VMW: 1,
      CD2L: 1,
      ST_LEVEL: 1,
      ...idr0,
    }),
    IDR1: IDR1.value({ SIDSIZE: 16, SSIDSIZE: 20, ATTR_PERMS_OVR: 1, ATTR_TYPES_OVR: 1, ...idr1 }),
    IDR3: IDR3.value({ HAD: 1, XNX: 1, FWB: 1, RIL: 1, BBML: 2, E0PD: 1, EPAN: 1, STT: 1, PTWNNC: 1, ...idr3 }),
    IDR5: IDR5.value({ GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, OAS: 5, ...idr5 }),
    AIDR: 2,
  });
}

export type MutableRegs = { -readonly [K in keyof TranslationRegs]: TranslationRegs[K] };

export const labRegs = (): MutableRegs => ({
  SMMUEN: true,
  ATSCHK: false,
  VMW: 0,
  E2H: false,
  RECINVSID: false,
  REC_CFG_ATS: false,
  PTM: false,
  GBPA: 0,
  CR1: 0,
  GBPMPAM: 0,
  strtabHi: Number(STRTAB >> 32n),
  strtabLo: Number(STRTAB & 0xffff_ffffn) | 0,
  twoLevel: false,
  SPLIT: 8,
  LOG2SIZE: 8,
});

/** Addresses of transactions and results as bigints. */
export const address = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** A transaction's answer, in words. */
export function answer(t: Transaction): string {
  if (t.outcome === Outcome.Ok) return `0x${address(t.paHi, t.paLo).toString(16)}`;
  const name = Object.keys(Outcome)[Object.values(Outcome).indexOf(t.outcome)];
  const ipa = t.S2 ? ` ipa=0x${address(t.ipaHi, t.ipaLo).toString(16)} class=${t.CLASS}` : '';
  return `${name} event=0x${t.event.toString(16)}${t.record ? '' : ' unrecorded'} S2=${t.S2 ? 1 : 0}${ipa}`;
}

type Fields = Readonly<Record<string, number | bigint>>;

export class Lab {
  readonly memory = new Memory();
  readonly caps: Caps;
  readonly regs: MutableRegs = labRegs();
  readonly smmu: Translator;
  readonly t = new Transaction();
  #next = RAM + 0x100_0000n;

  constructor(caps: Caps = labCaps(), options: TranslatorOptions = {}) {
    this.caps = caps;
    this.memory.addRegion(RAM, RAM_SIZE);
    this.smmu = new Translator(this.memory, caps, this.regs, options);
  }

  /** Fresh zeroed memory, aligned to its size. */
  pages(bytes = 0x1000): bigint {
    const size = BigInt(bytes);
    this.#next = ((this.#next + size - 1n) / size) * size;
    const at = this.#next;
    this.#next += size;
    return at;
  }

  write(pa: bigint, words: Words): void {
    for (let i = 0; i < words.length; i += 2)
      this.memory.write64(pa + BigInt(i * 4), (BigInt(words[i + 1] ?? 0) << 32n) | BigInt(words[i] ?? 0));
  }

  ste(sid: number, fields: Encoding<typeof STE.fields>): void {
    this.write(STRTAB + BigInt(sid) * 64n, STE.encode({ V: 1, SHCFG: 'INCOMING', ...fields }));
  }

  /** A CD at a fresh page (or `pa`) that is legal as it stands: 4K, 48 bits, TTB1 off. */
  cd(fields: Encoding<typeof CD.fields>, pa = this.pages()): bigint {
    const base = { V: 1, AA64: 1, A: 1, R: 1, T0SZ: 16, TG0: 0, EPD1: 1, IPS: 5, ASID: 1, MAIR0: 0xff } as const;
    this.write(pa, CD.encode({ ...base, ...fields }));
    return pa;
  }

  /** Stage 2 fields of an STE whose tables start at `ttb`: 4K, level 0, 48 bits. */
  s2(ttb: bigint, vmid: number): Encoding<typeof STE.fields> {
    return { S2VMID: vmid, S2T0SZ: 16, S2SL0: 2, S2TG: 0, S2PS: 5, S2AA64: 1, S2R: 1, S2TTB: ttb >> 4n, S2AFFD: 0 };
  }

  /**
   * Maps va to pa in tables that start at `root`, making tables on the way. Tables come from `alloc` and are addressed
   * as `at` says (an intermediate address may differ from where the table stands).
   */
  map(
    stage: 1 | 2,
    root: bigint,
    va: bigint,
    pa: bigint,
    leaf: Fields = {},
    how: {
      granule?: Granule;
      start?: Level;
      level?: Level;
      format?: DescriptorFormat;
      inputBits?: number;
      ipaOf?: (pa: bigint) => bigint;
      table?: Fields;
    } = {},
  ): bigint {
    const granule = how.granule ?? '4k';
    const geometry = GEOMETRY[granule];
    const format = how.format ?? {};
    const pte = stage === 1 ? pte1 : pte2;
    const defaults: Fields = stage === 1 ? { AF: 1, AP: 1, nG: 1 } : { AF: 1, S2AP: 3, MemAttr: 15 };
    const inputBits = BigInt(how.inputBits ?? 48);
    let table = root;
    const last = how.level ?? 3;
    for (let level: number = how.start ?? 0; ; level++) {
      const shift = BigInt(geometry.shift + (3 - level) * geometry.stride);
      const top = level === (how.start ?? 0) ? inputBits : shift + BigInt(geometry.stride);
      const index = (va & ((1n << top) - 1n)) >> shift;
      const at = table + index * 8n;
      if (level === last) {
        const kind = level === 3 ? 'page' : 'block';
        const layout = pte(granule, level as Level, kind, format);
        const words = layout.encode({ Valid: 1, Type: level === 3 ? 1 : 0, ...defaults, ...leaf });
        layout.set(words, 'OutputAddress', pa >> BigInt(layout.field('OutputAddress').address ?? 0));
        this.write(at, words);
        return at;
      }
      const layout = pte(granule, level as Level, 'table', format);
      const old = this.memory.read64(at);
      const words = Uint32Array.of(Number(old & 0xffff_ffffn), Number(old >> 32n));
      if ((old & 1n) === 0n) {
        const next = this.pages(2 ** geometry.shift);
        const seen = how.ipaOf?.(next) ?? next;
        const fresh = layout.encode({ Valid: 1, Type: 1, ...how.table });
        layout.set(fresh, 'NextLevelTableAddress', seen >> BigInt(layout.field('NextLevelTableAddress').address ?? 0));
        this.write(at, fresh);
        table = next;
      } else table = this.#tableOf(layout.address(words, 'NextLevelTableAddress'), how.ipaOf);
    }
  }

  /** Intermediate addresses of tables are their own plus a constant, or themselves. */
  #tableOf(seen: bigint, ipaOf: ((pa: bigint) => bigint) | undefined): bigint {
    return ipaOf === undefined ? seen : seen - (ipaOf(0n) - 0n);
  }

  /** Runs one transaction. */
  go(sid: number, va: bigint, how: Partial<Transaction> = {}): string {
    const t = this.t;
    Object.assign(t, { access: 0, SSV: false, SubstreamID: 0, isWrite: false, InD: false, PnU: false });
    Object.assign(t, { isAtomic: false, isSpeculative: false, noWrite: false, inMemAttr: 15, inSH: 0, inAlloc: 6 });
    t.StreamID = sid;
    t.addrHi = Number((va >> 32n) & 0xffff_ffffn) | 0;
    t.addrLo = Number(va & 0xffff_ffffn) | 0;
    Object.assign(t, how);
    this.smmu.translate(t);
    return answer(t);
  }

  /** A TLB invalidation with defaults of zero. */
  tlbi(opcode: number, fields: Partial<TlbInvalidation> & { address?: bigint } = {}): void {
    const { address: at = 0n, ...rest } = fields;
    this.smmu.tlb.invalidate(
      {
        opcode,
        VMID: 0,
        ASID: 0,
        addrHi: Number((at >> 32n) & 0xffff_ffffn) | 0,
        addrLo: Number(at & 0xffff_ffffn) | 0,
        Leaf: false,
        TTL: 0,
        TG: 0,
        NUM: 0,
        SCALE: 0,
        broadcast: false,
        ...rest,
      },
      this.regs,
    );
  }
}

/** A nested stream 5 with VMID 7 and ASID 1: IPAs of RAM stand 1 TiB higher, data page 0x1000 maps to `data`. */
export const IPA_BASE = 1n << 40n;
export const ipaOf = (pa: bigint): bigint => pa + IPA_BASE;
