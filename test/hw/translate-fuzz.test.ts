/** Random configurations over random memory: every access ends, and caches change nothing but the work. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { fromQwords } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { Memory } from '../../src/hw/memory.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { MAX_STEPS, Outcome, Transaction } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import { access, BASE, cases, fill, SIZE, word } from './translation-cases.ts';
import { address, labCaps, labRegs } from './translation-lab.ts';

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
