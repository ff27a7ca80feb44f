/** Random configurations over random memory: every access ends, and caches change nothing but the work. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { CD } from '../../spec/cd.ts';
import { fromQwords } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { Memory } from '../../src/hw/memory.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { MAX_STEPS, Outcome, Transaction } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import { address, labCaps, labRegs } from './translation-lab.ts';

const BASE = 0x4000_0000n;
const SIZE = 0x4_0000;
const PAGES = SIZE / 0x1000;

/** A number that is mostly an address of the region, sometimes anything. */
const word = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.nat(PAGES - 1), fc.nat(0xfff)).map(([page, low]) => BASE + BigInt(page * 0x1000 + low)),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(PAGES - 1), fc.constantFrom(0x403n, 0x7c3n, 0x743n, 3n, 0x401n, 0x6fdn))
      .map(([page, low]) => BASE + BigInt(page * 0x1000) + low),
  },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) },
);

/** A page that is a level 1 stage 2 table: the gibibyte of the region, mapped to itself. */
const FLAT = PAGES - 1;

const oneOf = (...values: number[]) => fc.constantFrom(...values);

const ste = fc.record({
  V: fc.constant(1),
  Config: oneOf(4, 5, 6, 7, 7, 7),
  S1Fmt: oneOf(0, 0, 1, 2),
  S1CDMax: oneOf(0, 0, 4, 12),
  S1DSS: oneOf(0, 1, 2),
  S1ContextPtr: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.integer({ min: 1, max: Math.floor(PAGES / 3) - 1 }).map((n) => (BASE + BigInt(n * 0x3000)) >> 6n),
    },
    { weight: 1, arbitrary: fc.nat(SIZE / 64 - 1).map((n) => (BASE >> 6n) + BigInt(n)) },
  ),
  SHCFG: fc.constant(1),
  EATS: oneOf(0, 1, 2),
  STRW: oneOf(0, 0, 2),
  S2VMID: oneOf(0, 1, 2),
  S2T0SZ: oneOf(16, 24, 25, 25, 25, 30, 32, 40),
  S2SL0: oneOf(0, 1, 1, 1, 2, 3),
  S2TG: oneOf(0, 0, 0, 1, 2),
  S2PS: oneOf(0, 4, 5),
  S2AA64: fc.constant(1),
  S2AFFD: oneOf(0, 1),
  S2PTW: oneOf(0, 1),
  S2R: oneOf(0, 1),
  S2FWB: oneOf(0, 1),
  S2ENDI: oneOf(0, 0, 0, 1),
  S2HA: oneOf(0, 0, 1),
  S2HD: oneOf(0, 0, 1),
  S2TTB: fc.oneof(fc.constant(FLAT), fc.nat(PAGES - 1)).map((page) => (BASE + BigInt(page * 0x1000)) >> 4n),
});

const cd = fc.record({
  V: fc.constant(1),
  AA64: fc.constant(1),
  A: oneOf(0, 1),
  R: oneOf(0, 1),
  T0SZ: oneOf(16, 25, 32, 34, 39),
  TG0: oneOf(0, 0, 1, 2),
  EPD0: oneOf(0, 0, 0, 1),
  EPD1: oneOf(0, 1),
  T1SZ: oneOf(16, 25, 32),
  TG1: oneOf(1, 2, 3),
  TBI0: oneOf(0, 1),
  IPS: oneOf(0, 2, 5),
  AFFD: oneOf(0, 1),
  WXN: oneOf(0, 1),
  PAN: oneOf(0, 1),
  HA: oneOf(0, 0, 1),
  HD: oneOf(0, 0, 1),
  ENDI: oneOf(0, 0, 0, 1),
  ASID: oneOf(1, 2),
  TTB0: fc.nat(PAGES - 1).map((page) => (BASE + BigInt(page * 0x1000)) >> 4n),
  TTB1: fc.nat(PAGES - 1).map((page) => (BASE + BigInt(page * 0x1000)) >> 4n),
});

const access = fc.record({
  StreamID: fc.nat(7),
  SSV: fc.boolean(),
  SubstreamID: oneOf(0, 1, 5, 100),
  addrHi: oneOf(0, 0, 0, 1, 0x40, 0xffff, -1, 0x7f00_0000),
  addrLo: fc.oneof(
    fc.nat(SIZE - 1).map((n) => 0x4000_0000 + n),
    fc.integer(),
  ),
  isWrite: fc.boolean(),
  InD: fc.boolean(),
  PnU: fc.boolean(),
  access: oneOf(0, 0, 0, 1, 2),
  isSpeculative: fc.boolean(),
  noWrite: fc.boolean(),
});

interface Case {
  readonly words: readonly bigint[];
  readonly stes: readonly object[];
  readonly cds: readonly object[];
  readonly accesses: readonly Partial<Transaction>[];
}

const cases: fc.Arbitrary<Case> = fc.record({
  words: fc.array(word, { minLength: 64, maxLength: 256 }),
  stes: fc.array(ste, { minLength: 8, maxLength: 8 }),
  cds: fc.array(cd, { minLength: 4, maxLength: 4 }),
  accesses: fc.array(access, { minLength: 4, maxLength: 24 }),
}) as fc.Arbitrary<Case>;

/** Memory full of the case's words, over and over; STEs in page 0, CDs at the start of each page above. */
function fill(c: Case): Memory {
  const memory = new Memory();
  memory.addRegion(BASE, BigInt(SIZE));
  const image = new BigUint64Array(SIZE / 8);
  for (let i = 0; i < image.length; i++) image[i] = c.words[(i * 7 + (i >> 9)) % c.words.length] ?? 0n;
  memory.writeBytes(BASE, new Uint8Array(image.buffer));
  const put = (at: bigint, words: Uint32Array): void => memory.writeBytes(at, new Uint8Array(words.buffer));
  for (const [i, fields] of c.stes.entries()) put(BASE + BigInt(i * 64), STE.encode(fields));
  for (let page = 1; page < PAGES; page++) {
    const fields = c.cds[page % c.cds.length];
    if (fields !== undefined && page % 3 === 0) put(BASE + BigInt(page * 0x1000), CD.encode(fields));
  }
  memory.write64(BASE + BigInt(FLAT * 0x1000 + 8), BASE | 0x7fdn);
  return memory;
}

const caps = labCaps({ HTTU: 2, STALL_MODEL: 0 });

/** Everything a transaction shows afterwards. */
const shown = (t: Transaction): string =>
  [
    t.outcome,
    t.outcome === Outcome.Ok ? hexes(t.paHi, t.paLo) : '',
    t.event,
    t.record,
    t.S2,
    t.CLASS,
    hexes(t.ipaHi, t.ipaLo),
    hexes(t.fetchHi, t.fetchLo),
    t.grantRead,
    t.grantWrite,
    t.grantExec,
    t.memAttr,
    t.SH,
    t.alloc,
  ].join(' ');
const hexes = (hi: number, lo: number): string => address(hi, lo).toString(16);

const run = (smmu: Translator, asked: object): Transaction => {
  const t = Object.assign(new Transaction(), asked);
  smmu.translate(t);
  return t;
};

test('any memory, any configuration: every access ends in data, abort, stall or an ATS answer, in bounded steps', () => {
  fc.assert(
    fc.property(cases, fc.array(word, { maxLength: 16 }), (c, more) => {
      const memory = fill(c);
      const regs = { ...labRegs(), LOG2SIZE: 3, ATSCHK: true };
      const smmu = new Translator(memory, caps, regs);
      c.accesses.forEach((one, i) => {
        const t = run(smmu, one);
        expect(Object.values(Outcome)).toContain(t.outcome);
        expect(t.stepCount).toBeLessThan(MAX_STEPS);
        if (t.outcome === Outcome.Ok && t.access === 0) expect(address(t.paHi, t.paLo) >> 48n).toBe(0n);
        const scribble = more[i];
        if (scribble !== undefined) memory.write64(BASE + ((scribble >> 3n) % BigInt(SIZE / 8)) * 8n, scribble);
        regs.E2H = (i & 2) !== 0;
      });
    }),
    { numRuns: 300 },
  );
});

test('caches that are empty before each access answer as no caches at all [3.17: an entry may be absent at any time]', () => {
  fc.assert(
    fc.property(cases, (c) => {
      // Hardware updates during one walk may be seen or not by what the same walk cached before: leave them out.
      const still = {
        ...c,
        stes: c.stes.map((s) => ({ ...s, S2HA: 0, S2HD: 0 })),
        cds: c.cds.map((d) => ({ ...d, HA: 0, HD: 0 })),
      };
      // A run that is no run gives other addresses from its entry than from its descriptors (DDI 0487 D8.6).
      const choices = { contiguous: false };
      const memory = fill(still);
      const regs = { ...labRegs(), LOG2SIZE: 3, ATSCHK: true };
      const warm = new Translator(memory, labCaps({ HTTU: 0 }), regs, { choices });
      const cold = new Translator(memory, labCaps({ HTTU: 0 }), regs, {
        tlb: NO_TLB,
        configCache: NO_CONFIG_CACHE,
        choices,
      });
      for (const one of still.accesses) {
        warm.tlb.clear();
        warm.configCache.invalidateAll();
        const first = shown(run(warm, one));
        expect(first).toBe(shown(run(cold, one)));
        // Nothing changed in memory: what is cached now gives the same answer.
        expect(shown(run(warm, one))).toBe(first);
      }
    }),
    { numRuns: 300 },
  );
});

test('a full random STE or CD is legal or not, and never more than that', () => {
  const qword = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
  fc.assert(
    fc.property(
      fc.array(qword, { minLength: 8, maxLength: 8 }),
      fc.array(qword, { minLength: 8, maxLength: 8 }),
      access,
      (s, d, one) => {
        const memory = new Memory();
        memory.addRegion(BASE, BigInt(SIZE));
        const words = fromQwords(s);
        STE.set(words, 'V', 1);
        STE.set(words, 'S1ContextPtr', (BASE + 0x1000n) >> 6n);
        memory.writeBytes(BASE, new Uint8Array(words.buffer));
        memory.writeBytes(BASE + 0x1000n, new Uint8Array(fromQwords(d).buffer));
        const t = run(new Translator(memory, caps, { ...labRegs(), LOG2SIZE: 0 }), { ...one, StreamID: 0 });
        expect(Object.values(Outcome)).toContain(t.outcome);
      },
    ),
    { numRuns: 500 },
  );
});

test('the cases above reach translations, and most kinds of event', () => {
  const outcomes = new Map<number, number>();
  const events = new Set<number>();
  for (const c of fc.sample(cases, { seed: 1, numRuns: 300 })) {
    const regs = { ...labRegs(), LOG2SIZE: 3, ATSCHK: true, REC_CFG_ATS: true };
    const smmu = new Translator(fill(c), caps, regs);
    for (const one of c.accesses) {
      const t = run(smmu, one);
      outcomes.set(t.outcome, (outcomes.get(t.outcome) ?? 0) + 1);
      events.add(t.event);
    }
  }
  expect(outcomes.get(Outcome.Ok)).toBeGreaterThan(50);
  expect(outcomes.get(Outcome.RazWi)).toBeGreaterThan(5);
  for (const event of [0x04, 0x05, 0x06, 0x07, 0x08, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13])
    expect(events).toContain(event);
});
