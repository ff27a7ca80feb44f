import { describe, expect, test } from 'vitest';
import type { Caps } from '../../../spec/caps.ts';
import { CD, CD_D128 } from '../../../spec/cd.ts';
import { L1CD } from '../../../spec/l1cd.ts';
import { L1STD } from '../../../spec/l1std.ts';
import type { Encoding, Words } from '../../../spec/layout.ts';
import { CD_RULES, type CdContext, cdContext, cdProblems, firstCdProblem } from '../../../spec/legality/cd.ts';
import { firstL1cdProblem, l1cdProblems } from '../../../spec/legality/l1cd.ts';
import { l1stdProblems } from '../../../spec/legality/l1std.ts';
import { STE } from '../../../spec/ste.ts';
import { sampleCaps } from '../caps-samples.ts';

type Cd = Encoding<typeof CD.fields>;

/** TTB0 alone, 4 KB, 48 bits, as Linux writes it. */
const BASE: Cd = { V: 1, AA64: 1, A: 1, R: 1, T0SZ: 16, EPD1: 1, IPS: 5, TTB0: 0x1000 };
const EL1: CdContext = { streamWorld: 'NS-EL1', S1STALLD: false, S1PIE: false, s2Enabled: false, s2AA64: true };
const EL2: CdContext = { ...EL1, streamWorld: 'NS-EL2' };
const PI_CAPS = sampleCaps({ IDR3: { S1PI: 1 } });
const D128_CAPS = sampleCaps({ IDR3: { S1PI: 1, S2PI: 1, S2PO: 1, AIE: 1, MTEPERM: 1 }, IDR5: { D128: 1 } });

interface Example {
  readonly rule: string;
  readonly caps: Caps;
  readonly legal: Cd;
  readonly illegal: Cd;
  readonly context?: CdContext;
  /** The context of the illegal one, if another. */
  readonly other?: CdContext;
}

/** One legal and one illegal CD a rule: IHI 0070 5.4 and 5.4.2, as tabled in C2 to C16. */
const EXAMPLES: readonly Example[] = [
  {
    rule: 'CD-C2',
    caps: sampleCaps(),
    legal: { ...BASE, S: 1 },
    illegal: { ...BASE, S: 1 },
    other: { ...EL1, S1STALLD: true },
  },
  { rule: 'CD-C3', caps: sampleCaps({ IDR0: { TERM_MODEL: 1 } }), legal: BASE, illegal: { ...BASE, A: 0 } },
  { rule: 'CD-C4', caps: sampleCaps({ IDR0: { STALL_MODEL: 1 } }), legal: BASE, illegal: { ...BASE, S: 1 } },
  { rule: 'CD-C5', caps: sampleCaps({ IDR0: { STALL_MODEL: 2 } }), legal: { ...BASE, S: 1 }, illegal: BASE },
  {
    rule: 'CD-C6',
    caps: sampleCaps({ IDR0: { TTENDIAN: 2 } }),
    legal: { ...BASE, EPD0: 1, ENDI: 1 },
    illegal: { ...BASE, ENDI: 1 },
  },
  { rule: 'CD-C6', caps: sampleCaps({ IDR0: { TTENDIAN: 3 } }), legal: { ...BASE, ENDI: 1 }, illegal: BASE },
  { rule: 'CD-C7', caps: sampleCaps(), legal: BASE, illegal: { ...BASE, AA64: 0, T0SZ: 0 } },
  {
    rule: 'CD-C7',
    caps: sampleCaps({ IDR0: { TTF: 3 } }),
    legal: { ...BASE, AA64: 0 },
    illegal: { ...BASE, AA64: 0 },
    other: { ...EL1, streamWorld: 'NS-EL2-E2H' },
  },
  { rule: 'CD-C8', caps: sampleCaps({ IDR0: { TTF: 1 } }), legal: { ...BASE, AA64: 0 }, illegal: BASE },
  {
    rule: 'CD-C8',
    caps: sampleCaps({ IDR0: { TTF: 3 } }),
    legal: BASE,
    illegal: BASE,
    other: { ...EL1, s2Enabled: true, s2AA64: false },
  },
  { rule: 'CD-C9', caps: sampleCaps({ IDR0: { HTTU: 0 } }), legal: BASE, illegal: { ...BASE, HA: 1 } },
  {
    rule: 'CD-C9',
    caps: sampleCaps({ IDR0: { HTTU: 1 } }),
    legal: { ...BASE, HA: 1 },
    illegal: { ...BASE, HA: 1, HD: 1 },
  },
  {
    rule: 'CD-C9',
    caps: sampleCaps({ IDR0: { HTTU: 3 } }),
    legal: { ...BASE, HA: 1, HAFT: 1 },
    illegal: { ...BASE, HAFT: 1 },
  },
  {
    rule: 'CD-C10',
    caps: sampleCaps({ IDR0: { ASID16: 0 } }),
    legal: { ...BASE, ASID: 255 },
    illegal: { ...BASE, ASID: 256 },
  },
  {
    rule: 'CD-C10',
    caps: sampleCaps({ IDR0: { ASID16: 0 } }),
    legal: { ...BASE, ASID: 256 },
    context: EL2,
    illegal: { ...BASE, ASID: 256 },
    other: { ...EL1, streamWorld: 'NS-EL2-E2H' },
  },
  { rule: 'CD-C11', caps: sampleCaps(), legal: { ...BASE, T0SZ: 39 }, illegal: { ...BASE, T0SZ: 40 } },
  {
    rule: 'CD-C11',
    caps: sampleCaps({ IDR3: { STT: 1 } }),
    legal: { ...BASE, T0SZ: 48 },
    illegal: { ...BASE, T0SZ: 49 },
  },
  {
    rule: 'CD-C11',
    caps: sampleCaps(),
    legal: { ...BASE, EPD0: 1, T0SZ: 0 },
    illegal: { ...BASE, EPD0: 1, T0SZ: 0 },
    other: EL2,
  },
  {
    rule: 'CD-C11',
    caps: sampleCaps({ IDR5: { VAX: 1 } }),
    legal: { ...BASE, TG0: '64KB', T0SZ: 12 },
    illegal: { ...BASE, TG0: '4KB', T0SZ: 12 },
  },
  {
    rule: 'CD-C11',
    caps: sampleCaps({ IDR5: { VAX: 1, DS: 1 } }),
    legal: { ...BASE, DS: 1, T0SZ: 12 },
    illegal: { ...BASE, DS: 1, T0SZ: 11 },
  },
  {
    rule: 'CD-C12',
    caps: sampleCaps(),
    legal: { ...BASE, EPD1: 0, TG1: '4KB', T1SZ: 16 },
    illegal: { ...BASE, EPD1: 0, TG1: '4KB', T1SZ: 15 },
  },
  { rule: 'CD-C13', caps: sampleCaps(), legal: BASE, illegal: { ...BASE, TG0: 3 } },
  {
    rule: 'CD-C13',
    caps: sampleCaps({ IDR5: { GRAN16K: 0 } }),
    legal: { ...BASE, TG0: '64KB' },
    illegal: { ...BASE, TG0: '16KB' },
  },
  {
    rule: 'CD-C13',
    caps: sampleCaps(),
    legal: { ...BASE, IPS: 2, TTB0: (1n << 40n) / 16n - 1n },
    illegal: { ...BASE, IPS: 2, TTB0: (1n << 40n) / 16n },
  },
  { rule: 'CD-C14', caps: sampleCaps(), legal: { ...BASE, EPD1: 1, TG1: 0 }, illegal: { ...BASE, EPD1: 0, TG1: 0 } },
  {
    rule: 'CD-C14',
    caps: sampleCaps(),
    legal: { ...BASE, EPD1: 0, TG1: 0, T1SZ: 0 },
    context: EL2,
    illegal: { ...BASE, EPD1: 0, TG1: '4KB', T1SZ: 16, TTB1: (1n << 48n) / 16n },
  },
  {
    rule: 'CD-C15',
    caps: D128_CAPS,
    legal: { ...BASE, AA64: 0 },
    context: { ...EL1, S1PIE: true },
    illegal: { ...BASE, AA64: 0 },
  },
  {
    rule: 'CD-C16',
    caps: PI_CAPS,
    legal: { ...BASE, PIE: 1, PIIP3: 4 },
    illegal: { ...BASE, PIE: 1, PIIP3: 4 },
    other: { ...EL1, S1PIE: true },
  },
  {
    rule: 'CD-C16',
    caps: PI_CAPS,
    legal: { ...BASE, PIE: 1, PIIP10: 3, PIIU10: 3 },
    context: { ...EL1, S1PIE: true },
    illegal: { ...BASE, PIE: 1, PIIP10: 3, PIIU10: 5 },
    other: { ...EL1, S1PIE: true },
  },
  {
    rule: 'CD-C16',
    caps: PI_CAPS,
    legal: { ...BASE, PIE: 1, PIIU5: 6 },
    context: { ...EL2, S1PIE: true },
    illegal: { ...BASE, PIE: 1, PIIU5: 6 },
    other: { ...EL1, S1PIE: true },
  },
];

describe('CD legality rules [IHI 0070 5.4.2]: legal and illegal examples', () => {
  for (const [i, { rule, caps, legal, illegal, context = EL1, other = EL1 }] of EXAMPLES.entries())
    test(`${rule}, example ${i}`, () => {
      expect(cdProblems(CD.encode(legal), caps, context)).toEqual([]);
      expect(firstCdProblem(CD.encode(legal), caps, context)).toBeUndefined();
      expect(cdProblems(CD.encode(illegal), caps, other).map((p) => p.rule)).toEqual([rule]);
      expect(firstCdProblem(CD.encode(illegal), caps, other)?.rule).toBe(rule);
    });
  test('every rule has an example', () => {
    expect([...new Set(EXAMPLES.map(({ rule }) => rule))]).toEqual(CD_RULES.map(({ id }) => id));
  });
  test('CD-C15: SKL0 takes a VMSAv9-128 walk past level 3', () => {
    const at = (SKL0: number): Words => CD_D128.encode({ V: 1, A: 1, T0SZ: 39, EPD1: 1, SKL0 });
    const context = { ...EL1, S1PIE: true };
    // 25 bits, 4 KB: level 3 - (24 - 12) / 8 = 2, and 2 + SKL may be 3 at most.
    expect(cdProblems(at(1), D128_CAPS, context)).toEqual([]);
    expect(cdProblems(at(2), D128_CAPS, context).map((p) => p.rule)).toEqual(['CD-C15']);
  });
});

describe('without context only what holds for every STE is reported', () => {
  const t1: Cd = { ...BASE, EPD1: 0, TG1: 0, T1SZ: 0 };
  test('an SMMU with EL2 contexts may use TTB0 alone', () => {
    expect(cdProblems(CD.encode(t1), sampleCaps())).toEqual([]);
    expect(cdProblems(CD.encode({ ...BASE, ASID: 256 }), sampleCaps({ IDR0: { ASID16: 0 } }))).toEqual([]);
  });
  test('an SMMU without has but NS-EL1', () => {
    const caps = sampleCaps({ IDR0: { Hyp: 0, ASID16: 0 } });
    expect(cdProblems(CD.encode(t1), caps).map((p) => p.rule)).toEqual(['CD-C14']);
    expect(cdProblems(CD.encode({ ...BASE, ASID: 256 }), caps).map((p) => p.rule)).toEqual(['CD-C10']);
  });
  test('and without caps, what no SMMU accepts', () => {
    expect(cdProblems(CD.encode({ ...BASE, ASID: 0xffff, HA: 1, HD: 1, S: 1, ENDI: 1 }))).toEqual([]);
    expect(cdProblems(CD.encode({ ...BASE, TG0: 3 })).map((p) => p.rule)).toEqual(['CD-C13']);
    expect(cdProblems(CD.encode({ ...BASE, T0SZ: 11 })).map((p) => p.rule)).toEqual(['CD-C11']);
    expect(cdProblems(CD.encode({ ...BASE, PIE: 1, PIIP0: 6 }))).toEqual([]);
  });
});

test('the context of an STE [5.2 STRW]', () => {
  const caps = sampleCaps();
  const ste = STE.encode({ V: 1, Config: 5, STRW: 'EL2', S1STALLD: 1, S1PIE: 1 });
  expect(cdContext(ste, caps, false).streamWorld).toBe('NS-EL2');
  expect(cdContext(ste, caps, true)).toEqual({
    streamWorld: 'NS-EL2-E2H',
    S1STALLD: true,
    S1PIE: true,
    S1MPAM: false,
    s2Enabled: false,
    s2AA64: false,
  });
  STE.set(ste, 'Config', 'NESTED');
  expect(cdContext(ste, caps, true).streamWorld).toBe('NS-EL1');
});

test('L1STD [5.1]: Span 0..11, at most SPLIT + 1; L2Ptr below OAS', () => {
  const spans = (context?: { SPLIT: number }): number[] =>
    Array.from({ length: 32 }, (_, Span) => Span).filter(
      (Span) => l1stdProblems(L1STD.encode({ Span }), sampleCaps(), context).length === 0,
    );
  expect(spans()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  expect(spans({ SPLIT: 8 })).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const far = L1STD.encode({ Span: 9, L2Ptr: (1n << 48n) / 64n });
  expect(l1stdProblems(far, sampleCaps()).map((p) => p.rule)).toEqual(['L1STD-L2PTR']);
  expect(l1stdProblems(far, sampleCaps({ IDR5: { OAS: 6 } }))).toEqual([]);
});

test('L1CD [3.4.3]: L2Ptr below OAS, or IAS with stage 2 on', () => {
  const caps = sampleCaps({ IDR0: { TTF: 3 }, IDR5: { OAS: 1 } });
  const l1cd = L1CD.encode({ V: 1, L2Ptr: (1n << 36n) / 4096n });
  expect(l1cdProblems(l1cd, caps, { s2Enabled: false }).map((p) => p.rule)).toEqual(['L1CD-L2PTR']);
  expect(firstL1cdProblem(l1cd, caps, { s2Enabled: true })).toBeUndefined();
  expect(l1cdProblems(l1cd, caps)).toEqual([]);
});
