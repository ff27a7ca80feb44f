/**
 * A second opinion: the walks of DDI 0487 D8 written as plainly as possible, on bigints, fields read through the
 * tables. It knows no TLB, no hardware updates and no attributes; address, event, stage, class and IPA must agree.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { CD } from '../../spec/cd.ts';
import {
  blockAllowed,
  type DescriptorKind,
  GEOMETRY,
  type Granule,
  type Level,
  pte1,
  pte2,
} from '../../spec/descriptors.ts';
import { fromQwords, type Layout, type Words } from '../../spec/layout.ts';
import { firstCdProblem } from '../../spec/legality/cd.ts';
import { firstSteProblem } from '../../spec/legality/ste.ts';
import { TG0_GRANULE, TG1_GRANULE } from '../../spec/sizes.ts';
import { STE } from '../../spec/ste.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import type { Memory } from '../../src/hw/memory.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Outcome, Transaction } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import { BASE, type Case, cases, fill } from './translation-cases.ts';
import { address, labCaps, labRegs } from './translation-lab.ts';

const caps = labCaps({ HTTU: 0 });
const OAS = 48;

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
  readonly pte: (granule: Granule, level: Level, kind: DescriptorKind) => Layout;
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
    if (level === t.start) table -= table % (entries * 8n > 16n ? entries * 8n : 16n);
    const index = (input >> BigInt(shift)) % entries;
    let value = read(table + index * 8n);
    if (t.bigEndian)
      value = BigInt(`0x${Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse().toString('hex')}`);
    const type = Number(value & 3n);
    const leaf = level === 3 ? type === 3 : type === 1 && blockAllowed(t.granule, level as Level);
    const isTable = level < 3 && type === 3;
    if (!leaf && !isTable) fault(0x10);
    const layout = t.pte(t.granule, level as Level, isTable ? 'table' : level === 3 ? 'page' : 'block');
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

/** VTCR_EL2.SL0 of VMSAv8-64 without DS. */
const S2_START: Readonly<Record<Granule, readonly number[]>> = {
  '4k': [2, 1, 0, 3],
  '16k': [3, 2, 1],
  '64k': [3, 2, 1],
};

class Oracle {
  readonly #memory: Memory;
  readonly #ste: Words;
  readonly #write: boolean;
  readonly #fetch: boolean;
  readonly #privileged: boolean;

  constructor(memory: Memory, ste: Words, t: Transaction) {
    this.#memory = memory;
    this.#ste = ste;
    this.#write = t.isWrite;
    this.#fetch = t.InD && !t.isWrite;
    this.#privileged = t.PnU;
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
    const tables: Tables = {
      pte: pte2,
      granule,
      inputBits,
      outputBits: Math.min([32, 36, 40, 42, 44, 48, 52, 52][this.#s2('S2PS')] ?? 0, OAS),
      start: S2_START[granule][this.#s2('S2SL0')] ?? 0,
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
    const granule = (half === 1 ? TG1_GRANULE[CD.num(cd, 'TG1')] : TG0_GRANULE[CD.num(cd, 'TG0')]) ?? '4k';
    const inputBits = 64 - CD.num(cd, half === 1 ? 'T1SZ' : 'T0SZ');
    const top = bit(half === 1 ? 'TBI1' : 'TBI0') ? 56n : 64n;
    const above = (va & ((1n << top) - 1n)) >> BigInt(inputBits);
    const ones = (1n << (top - BigInt(inputBits))) - 1n;
    if (above !== (!oneTtb && high === 1n ? ones : 0n)) fault(0x10);
    const { shift, stride } = GEOMETRY[granule];
    const tables: Tables = {
      pte: pte1,
      granule,
      inputBits,
      outputBits: Math.min([32, 36, 40, 42, 44, 48, 52, 52][CD.num(cd, 'IPS')] ?? 0, OAS),
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
    if (!this.#stage1Allows(cd, leaf, oneTtb)) fault(0x13);
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
    if (!one && privileged && CD.num(cd, 'PAN') === 1 && unprivileged) return false;
    if (!privileged && !unprivileged) return false;
    return !(this.#write && readOnly);
  }
}

/** What an ordinary transaction without SubstreamID gets: an address, an event, or that it is none of ours. */
function opinion(memory: Memory, t: Transaction): string {
  try {
    const ste = qwordsAt(memory, BASE + BigInt(t.StreamID * 64), 64, 0x03);
    if (firstSteProblem(ste, caps) !== undefined) throw new Fault(0x04);
    const config = STE.num(ste, 'Config');
    const oracle = new Oracle(memory, ste, t);
    const va = address(t.addrHi, t.addrLo);
    const [s1, s2] = [(config & 1) === 1, (config & 2) === 2];
    let ipa = va;
    const dss = STE.num(ste, 'S1DSS');
    const plain = !s1 || (STE.num(ste, 'S1CDMax') > 0 && dss === 1);
    if (s1 && STE.num(ste, 'S1CDMax') > 0 && dss === 0) throw new Fault(0x06);
    if (plain) {
      if (va >> BigInt(OAS) !== 0n) throw new Fault(0x11);
    } else {
      const size = STE.num(ste, 'S1CDMax');
      const twoLevel = size > 0 && [1, 2].includes(STE.num(ste, 'S1Fmt'));
      if (twoLevel) return 'two-level';
      const bytes = BigInt(64 << size);
      const at = STE.address(ste, 'S1ContextPtr');
      const place = at - (at % bytes);
      const cd = qwordsAt(memory, s2 ? oracle.stage2(place, 0) : place, 64, 0x09);
      const oneTtb = !s2 && STE.num(ste, 'STRW') === 2;
      const context = {
        streamWorld: oneTtb ? ('NS-EL2' as const) : ('NS-EL1' as const),
        S1STALLD: false,
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

const seen = (t: Transaction): string => {
  if (t.outcome === Outcome.Ok) return address(t.paHi, t.paLo).toString(16);
  const ipa = t.S2 ? ` class=${t.CLASS} ipa=${address(t.ipaHi, t.ipaLo).toString(16)}` : '';
  return `0x${t.event.toString(16)} S2=${t.S2}${ipa}`;
};

/** The case without hardware updates; the oracle has none. */
const still = (c: Case): Case => ({
  ...c,
  stes: c.stes.map((one) => ({ ...one, S2HA: 0, S2HD: 0, EATS: 0 })),
  cds: c.cds.map((one) => ({ ...one, HA: 0, HD: 0 })),
});

/** Compares every access of a case; how many ended in an address, and which events were met. */
function compare(c: Case): { ok: number; events: Set<number> } {
  const memory = fill(still(c));
  const regs = { ...labRegs(), LOG2SIZE: 3 };
  const cold = new Translator(memory, caps, regs, { tlb: NO_TLB, configCache: NO_CONFIG_CACHE });
  const warm = new Translator(memory, caps, regs, { choices: { contiguous: false } });
  const events = new Set<number>();
  let ok = 0;
  for (const one of c.accesses) {
    const t = Object.assign(new Transaction(), one, { SSV: false, access: 0, isSpeculative: false });
    const expected = opinion(memory, t);
    if (expected === 'two-level') continue;
    warm.tlb.clear();
    for (const smmu of [cold, warm]) {
      smmu.translate(t);
      expect(seen(t)).toBe(expected);
    }
    events.add(t.event);
    if (t.outcome === Outcome.Ok) ok++;
  }
  return { ok, events };
}

test('address, event, stage, class and IPA are those of a plain bigint walk over any memory [DDI 0487 D8, 7.3.22]', () => {
  fc.assert(
    fc.property(cases, (c) => {
      compare(c);
    }),
    { numRuns: 400 },
  );
});

test('the comparison meets addresses and every kind of fault', () => {
  const events = new Set<number>();
  let ok = 0;
  for (const c of fc.sample(cases, { seed: 3, numRuns: 400 })) {
    const met = compare(c);
    ok += met.ok;
    for (const event of met.events) events.add(event);
  }
  expect(ok).toBeGreaterThan(100);
  for (const event of [0x04, 0x06, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13]) expect(events).toContain(event);
});
