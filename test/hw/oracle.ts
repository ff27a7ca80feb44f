/**
 * A second opinion: the walks of DDI 0487 D8 written as plainly as possible, on bigints, fields read through the
 * tables. It knows no TLB, no hardware updates and no attributes; address, event, stage, class and IPA must agree.
 */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import {
  blockAllowed,
  type DescriptorFormat,
  type DescriptorKind,
  GEOMETRY,
  type Granule,
  type Level,
  pte1,
  pte2,
} from '../../spec/descriptors.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { fromQwords, type Layout, type Words } from '../../spec/layout.ts';
import { firstCdProblem } from '../../spec/legality/cd.ts';
import { firstSteProblem } from '../../spec/legality/ste.ts';
import { TG0_GRANULE, TG1_GRANULE } from '../../spec/sizes.ts';
import { STE } from '../../spec/ste.ts';
import type { Memory } from '../../src/hw/memory.ts';
import { Outcome, type Transaction } from '../../src/hw/transaction.ts';
import { address, labCaps } from './translation-lab.ts';

/** An SMMU with 48-bit addresses. Neither has hardware updates, which the oracle does not know. */
export const caps48 = labCaps({ HTTU: 0 });
/** One with 52-bit addresses and LPA2. */
export const caps52 = labCaps({ HTTU: 0 }, {}, {}, { OAS: 6, DS: 1, VAX: 1 });

/** How a translation ends early: event, and for stage 2 the class and the address. */
class Fault extends Error {
  readonly what: string;
  constructor(event: number, S2 = false, CLASS = 2, ipa = 0n) {
    super();
    this.what = `0x${event.toString(16)} S2=${S2}${S2 ? ` class=${CLASS} ipa=${ipa.toString(16)}` : ''}`;
  }
}

const qwordsAt = (memory: Memory, pa: bigint, bytes: number, event: number): Words => {
  if (!memory.covers(pa, bytes)) throw new Fault(event);
  return fromQwords(Array.from({ length: bytes / 8 }, (_, i) => memory.read64(pa + BigInt(i * 8))));
};

interface Tables {
  readonly pte: (granule: Granule, level: Level, kind: DescriptorKind, format: DescriptorFormat) => Layout;
  readonly format: DescriptorFormat;
  readonly granule: Granule;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly start: number;
  readonly root: bigint;
  readonly bigEndian: boolean;
  readonly affd: boolean;
}

interface Leaf {
  readonly out: bigint;
  readonly layout: Layout;
  readonly words: Words;
  /** Fields of the tables above: what they take away. */
  readonly taken: readonly Words[];
  readonly tableLayouts: readonly Layout[];
}

/** One stage. `read` gives the descriptor at an address of the stage's tables; `fault` throws. */
function walk(t: Tables, input: bigint, read: (at: bigint) => bigint, fault: (event: number) => never): Leaf {
  const { levels, shift: page } = GEOMETRY[t.granule];
  const taken: Words[] = [];
  const tableLayouts: Layout[] = [];
  let table = t.root;
  for (let level = t.start; ; level++) {
    const shift = levels.find((one) => one.level === level)?.shift ?? 0;
    const top = level === t.start ? t.inputBits : shift + page - 3;
    const entries = 1n << BigInt(Math.max(0, top - shift));
    // A table base is aligned to its table, and to 64 bytes where addresses have 52 bits.
    const least = t.outputBits === 52 ? 64n : 16n;
    if (level === t.start) table -= table % (entries * 8n > least ? entries * 8n : least);
    const index = (input >> BigInt(shift)) % entries;
    let value = read(table + index * 8n);
    if (t.bigEndian)
      value = BigInt(`0x${Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse().toString('hex')}`);
    const type = Number(value & 3n);
    const leaf = level === 3 ? type === 3 : type === 1 && blockAllowed(t.granule, level as Level, t.format);
    const isTable = level < 3 && type === 3;
    if (!leaf && !isTable) fault(0x10);
    const layout = t.pte(t.granule, level as Level, isTable ? 'table' : level === 3 ? 'page' : 'block', t.format);
    const words = fromQwords([value]);
    const out = layout.address(words, isTable ? 'NextLevelTableAddress' : 'OutputAddress');
    if (out >> BigInt(t.outputBits) !== 0n) fault(0x11);
    if (leaf) {
      if (layout.get(words, 'AF') === 0n && !t.affd) fault(0x12);
      return { out: out + (input & ((1n << BigInt(shift)) - 1n)), layout, words, taken, tableLayouts };
    }
    taken.push(words);
    tableLayouts.push(layout);
    table = out;
  }
}

/** VTCR_EL2.SL0 of VMSAv8-64. */
const S2_START: Readonly<Record<Granule, readonly number[]>> = {
  '4k': [2, 1, 0, 3],
  '16k': [3, 2, 1, 0],
  '64k': [3, 2, 1],
};

/** IPS and S2PS; a reserved encoding is the largest. */
const SIZES = [32, 36, 40, 42, 44, 48, 52, 52];

class Oracle {
  readonly #memory: Memory;
  readonly #caps: Caps;
  readonly #ste: Words;
  readonly #write: boolean;
  readonly #fetch: boolean;
  readonly #privileged: boolean;

  constructor(memory: Memory, caps: Caps, ste: Words, t: Transaction) {
    this.#memory = memory;
    this.#caps = caps;
    this.#ste = ste;
    this.#write = t.isWrite;
    const [INSTCFG, PRIVCFG] = [STE.num(ste, 'INSTCFG'), STE.num(ste, 'PRIVCFG')];
    this.#fetch = (INSTCFG > 1 ? INSTCFG === 3 : t.InD) && !t.isWrite;
    this.#privileged = PRIVCFG > 1 ? PRIVCFG === 3 : t.PnU;
  }

  #s2(name: keyof typeof STE.fields): number {
    return STE.num(this.#ste, name);
  }

  /** Stage 2 of an address. CLASS 2: the client's access; else a read. */
  stage2(ipa: bigint, CLASS: number): bigint {
    const fault = (event: number): never => {
      throw new Fault(event, true, CLASS, ipa);
    };
    const inputBits = 64 - this.#s2('S2T0SZ');
    if (ipa >> BigInt(inputBits) !== 0n) fault(0x10);
    const granule = TG0_GRANULE[this.#s2('S2TG')] ?? '4k';
    const ds = this.#caps.DS && this.#s2('S2DS') === 1 && granule !== '64k';
    const outputBits = Math.min(SIZES[this.#s2('S2PS')] ?? 0, this.#caps.OAS);
    const below0 = ds && granule === '4k' && this.#s2('S2SL0_2') === 1;
    const tables: Tables = {
      format: { ds, pa52: outputBits === 52 },
      pte: pte2,
      granule,
      inputBits,
      outputBits,
      start: below0 ? -1 : (S2_START[granule][this.#s2('S2SL0')] ?? 0),
      root: STE.address(this.#ste, 'S2TTB'),
      bigEndian: this.#s2('S2ENDI') === 1,
      affd: this.#s2('S2AFFD') === 1,
    };
    const read = (at: bigint): bigint => (this.#memory.covers(at, 8) ? this.#memory.read64(at) : fault(0x0b));
    const { out, layout, words } = walk(tables, ipa, read, fault);
    const [s2ap, xn] = [layout.num(words, 'S2AP'), layout.num(words, 'XN')];
    const executable = this.#privileged ? xn === 0 || xn === 3 : xn < 2;
    const write = CLASS === 2 && this.#write;
    const allowed = CLASS === 2 && this.#fetch ? executable : (s2ap & (write ? 2 : 1)) !== 0;
    if (!allowed) fault(0x13);
    const device =
      this.#s2('S2FWB') === 1 ? (layout.num(words, 'MemAttr') & 4) === 0 : layout.num(words, 'MemAttr') < 4;
    const reserved =
      this.#s2('S2FWB') === 1
        ? (layout.num(words, 'MemAttr') & 7) === 4
        : [4, 8, 12].includes(layout.num(words, 'MemAttr'));
    if (CLASS !== 2 && this.#s2('S2PTW') === 1 && this.#s2('Config') === 7 && (device || reserved)) fault(0x13);
    return out;
  }

  /** Stage 1 of an address of the CD. */
  stage1(cd: Words, va: bigint, nested: boolean, oneTtb: boolean): bigint {
    const fault = (event: number): never => {
      throw new Fault(event);
    };
    const bit = (name: keyof typeof CD.fields): boolean => CD.num(cd, name) === 1;
    const high = (va >> 55n) & 1n;
    const half = oneTtb ? 0 : Number(high);
    if (!oneTtb && bit(half === 1 ? 'EPD1' : 'EPD0')) fault(0x10);
    if (!oneTtb && bit(half === 1 ? 'E0PD1' : 'E0PD0') && !this.#privileged) fault(0x10);
    const granule = (half === 1 ? TG1_GRANULE[CD.num(cd, 'TG1')] : TG0_GRANULE[CD.num(cd, 'TG0')]) ?? '4k';
    const inputBits = 64 - CD.num(cd, half === 1 ? 'T1SZ' : 'T0SZ');
    const top = bit(half === 1 ? 'TBI1' : 'TBI0') ? 56n : 64n;
    const above = (va & ((1n << top) - 1n)) >> BigInt(inputBits);
    const ones = (1n << (top - BigInt(inputBits))) - 1n;
    if (above !== (!oneTtb && high === 1n ? ones : 0n)) fault(0x10);
    const { shift, stride } = GEOMETRY[granule];
    const outputBits = Math.min(SIZES[CD.num(cd, 'IPS')] ?? 0, this.#caps.OAS);
    const tables: Tables = {
      format: { ds: this.#caps.DS && bit('DS') && granule !== '64k', pa52: outputBits === 52 },
      pte: pte1,
      granule,
      inputBits,
      outputBits,
      start: 4 - Math.ceil((inputBits - shift) / stride),
      root: CD.address(cd, half === 1 ? 'TTB1' : 'TTB0'),
      bigEndian: bit('ENDI'),
      affd: bit('AFFD'),
    };
    const read = (at: bigint): bigint => {
      const pa = nested ? this.stage2(at, 1) : at;
      return this.#memory.covers(pa, 8) ? this.#memory.read64(pa) : fault(0x0b);
    };
    const leaf = walk(tables, va & ((1n << BigInt(inputBits)) - 1n), read, fault);
    const had = bit(half === 1 ? 'HAD1' : 'HAD0');
    if (!this.#stage1Allows(cd, had ? { ...leaf, taken: [] } : leaf, oneTtb)) fault(0x13);
    return leaf.out;
  }

  #stage1Allows(cd: Words, { layout, words, taken, tableLayouts }: Leaf, one: boolean): boolean {
    const get = (name: string): number => layout.num(words, name);
    const above = (name: string): number => taken.reduce((sum, w, i) => sum | (tableLayouts[i]?.num(w, name) ?? 0), 0);
    const apTable = above('APTable');
    const readOnly = (get('AP') & 2) !== 0 || (apTable & 2) !== 0;
    const unprivileged = one || ((get('AP') & 1) !== 0 && (apTable & 1) === 0);
    const privileged = one || this.#privileged;
    const wxn = CD.num(cd, 'WXN') === 1;
    if (this.#fetch) {
      const xn = get('UXN') | above('UXNTable');
      if (one) return xn === 0 && !(wxn && !readOnly);
      if (!privileged) return xn === 0 && !(wxn && !readOnly && unprivileged);
      const pxn = get('PXN') | above('PXNTable');
      return pxn === 0 && !(unprivileged && !readOnly) && !(wxn && !readOnly);
    }
    const epan = CD.num(cd, 'EPAN') === 1 && (get('UXN') | above('UXNTable')) === 0;
    if (!one && privileged && CD.num(cd, 'PAN') === 1 && (unprivileged || epan)) return false;
    if (!privileged && !unprivileged) return false;
    return !(this.#write && readOnly);
  }
}

/** Where the CD of an index stands: in a linear table, or in a leaf that an L1CD points to (5.2 S1Fmt, 5.3). */
function cdAddress(memory: Memory, OAS: number, ste: Words, index: number, seenAt: (ipa: bigint) => bigint): bigint {
  const size = STE.num(ste, 'S1CDMax');
  const format = size === 0 ? 0 : STE.num(ste, 'S1Fmt');
  const leaf = format === 1 ? 6 : format === 2 ? 10 : 0;
  const tableBytes = leaf === 0 ? 64n << BigInt(size) : 8n << BigInt(Math.max(0, size - leaf));
  const at = STE.address(ste, 'S1ContextPtr');
  // The pointer has bits from 6 on; a table smaller than that is aligned all the same.
  const table = at - (at % tableBytes);
  if (leaf === 0) return table + BigInt(index * 64);
  const l1cd = qwordsAt(memory, seenAt(table + BigInt((index >> leaf) * 8)), 8, 0x09);
  const next = L1CD.address(l1cd, 'L2Ptr');
  if (L1CD.num(l1cd, 'V') === 0 || next >> BigInt(OAS) !== 0n) throw new Fault(0x08);
  return next - (next % (64n << BigInt(leaf))) + BigInt((index % 2 ** leaf) * 64);
}

/**
 * What an ordinary transaction gets: an address or an event.
 * @param strtab a linear Stream table
 */
export function opinion(memory: Memory, caps: Caps, strtab: bigint, t: Transaction): string {
  try {
    const ste = qwordsAt(memory, strtab + BigInt(t.StreamID * 64), 64, 0x03);
    if (STE.num(ste, 'V') === 0 || firstSteProblem(ste, caps) !== undefined) throw new Fault(0x04);
    const config = STE.num(ste, 'Config');
    if (config < 4) throw new Fault(0);
    const oracle = new Oracle(memory, caps, ste, t);
    const va = address(t.addrHi, t.addrLo);
    const [s1, s2] = [(config & 1) === 1, (config & 2) === 2];
    let ipa = va;
    const dss = STE.num(ste, 'S1DSS');
    const size = STE.num(ste, 'S1CDMax');
    if (t.SSV && (!s1 || size === 0 || t.SubstreamID >> size !== 0)) throw new Fault(0x08);
    if (s1 && size > 0 && (t.SSV ? t.SubstreamID === 0 && dss === 2 : dss === 0 || dss === 3)) throw new Fault(0x06);
    const plain = !s1 || (!t.SSV && size > 0 && dss === 1);
    if (plain) {
      if (va >> BigInt(caps.OAS) !== 0n) throw new Fault(0x11);
    } else {
      const index = t.SSV ? t.SubstreamID : 0;
      const seenAt = (ipa: bigint): bigint => (s2 ? oracle.stage2(ipa, 0) : ipa);
      const cd = qwordsAt(memory, seenAt(cdAddress(memory, caps.OAS, ste, index, seenAt)), 64, 0x09);
      const oneTtb = !s2 && STE.num(ste, 'STRW') === 2;
      const context = {
        streamWorld: oneTtb ? ('NS-EL2' as const) : ('NS-EL1' as const),
        S1STALLD: STE.num(ste, 'S1STALLD') === 1,
        s2Enabled: s2,
        s2AA64: true,
      };
      if (CD.num(cd, 'V') === 0 || firstCdProblem(cd, caps, context) !== undefined) throw new Fault(0x0a);
      ipa = oracle.stage1(cd, va, s2, oneTtb);
    }
    return (s2 ? oracle.stage2(ipa, 2) : ipa).toString(16);
  } catch (error) {
    if (error instanceof Fault) return error.what;
    throw error;
  }
}

/** The same of what a translator left. */
export const seen = (t: Transaction): string => {
  if (t.outcome === Outcome.Ok) return address(t.paHi, t.paLo).toString(16);
  const ipa = t.S2 ? ` class=${t.CLASS} ipa=${address(t.ipaHi, t.ipaLo).toString(16)}` : '';
  return `0x${t.event.toString(16)} S2=${t.S2}${ipa}`;
};
