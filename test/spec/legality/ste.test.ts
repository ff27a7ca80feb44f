import { describe, expect, test } from 'vitest';
import type { Caps } from '../../../spec/caps.ts';
import type { Encoding } from '../../../spec/layout.ts';
import { firstSteProblem, STE_RULES, steProblems } from '../../../spec/legality/ste.ts';
import { STE } from '../../../spec/ste.ts';
import { sampleCaps } from '../caps-samples.ts';

type Ste = Encoding<typeof STE.fields>;

const S1: Ste = { V: 1, Config: 'S1_TRANS', S1ContextPtr: 0x1000 };
const S2: Ste = { V: 1, Config: 'S2_TRANS', S2AA64: 1, S2T0SZ: 20, S2SL0: 2, S2PS: 5, S2TTB: 0x1000 };
const NESTED: Ste = { ...S2, Config: 'NESTED', S1ContextPtr: 0x1000 };

const POI_CAPS = sampleCaps({ IDR3: { S2PI: 1, S2PO: 1, FWB: 1, PBHA: 1, HAD: 1 } });
const MPAM_CAPS = sampleCaps({ IDR3: { MPAM: 1 }, MPAMIDR: 7 });
const V32_CAPS = sampleCaps({ IDR0: { TTF: 3 }, IDR3: { S2PI: 1, FWB: 1 } });
const DPT_CAPS = sampleCaps({ IDR3: { DPT: 1 } });
const V32: Ste = { V: 1, Config: 'S2_TRANS', S2AA64: 0, S2T0SZ: 0, S2SL0: 1 };

interface Example {
  readonly rule: string;
  readonly caps: Caps;
  readonly legal: Ste;
  readonly illegal: Ste;
}

/** One legal and one illegal STE a rule: IHI 0070 5.2 and 5.2.2, as tabled in S2 to S32. */
const EXAMPLES: readonly Example[] = [
  { rule: 'STE-S2', caps: sampleCaps({ IDR0: { S1P: 0, Hyp: 0 } }), legal: S2, illegal: S1 },
  { rule: 'STE-S3', caps: sampleCaps({ IDR0: { S2P: 0, Hyp: 0 } }), legal: S1, illegal: S2 },
  { rule: 'STE-S6', caps: sampleCaps(), legal: { ...NESTED, EATS: 2 }, illegal: { ...S1, EATS: 2 } },
  { rule: 'STE-S6', caps: sampleCaps(), legal: { ...NESTED, EATS: 2 }, illegal: { ...NESTED, EATS: 2, S2S: 1 } },
  {
    rule: 'STE-S6',
    caps: sampleCaps({ IDR0: { NS1ATS: 1 } }),
    legal: { ...NESTED, EATS: 1 },
    illegal: { ...NESTED, EATS: 2 },
  },
  { rule: 'STE-S7', caps: sampleCaps(), legal: { ...S1, EATS: 1, S2S: 1 }, illegal: { ...S2, EATS: 1, S2S: 1 } },
  { rule: 'STE-S8', caps: DPT_CAPS, legal: { ...S1, EATS: 3 }, illegal: { ...S1, EATS: 3, STRW: 2 } },
  { rule: 'STE-S10', caps: DPT_CAPS, legal: { ...S2, EATS: 3 }, illegal: { ...S2, EATS: 3, S2S: 1 } },
  { rule: 'STE-S11', caps: sampleCaps(), legal: { ...S1, STRW: 2 }, illegal: { ...S1, STRW: 1 } },
  { rule: 'STE-S11', caps: sampleCaps(), legal: { ...NESTED, STRW: 3 }, illegal: { ...S1, STRW: 3 } },
  {
    rule: 'STE-S13',
    caps: sampleCaps({ IDR0: { STALL_MODEL: 1 } }),
    legal: { ...S2, S1STALLD: 1 },
    illegal: { ...S1, S1STALLD: 1 },
  },
  { rule: 'STE-S14', caps: sampleCaps(), legal: { ...S1, S1CDMax: 16 }, illegal: { ...S1, S1CDMax: 17 } },
  {
    rule: 'STE-S15',
    caps: sampleCaps({ IDR0: { CD2L: 0 } }),
    legal: { ...S1, S1CDMax: 4, S1Fmt: 3 },
    illegal: { ...S1, S1CDMax: 4, S1Fmt: 2 },
  },
  {
    rule: 'STE-S16',
    caps: sampleCaps(),
    legal: { ...S1, S1ContextPtr: (1n << 48n) / 64n - 1n },
    illegal: { ...S1, S1ContextPtr: (1n << 48n) / 64n },
  },
  {
    rule: 'STE-S17',
    caps: V32_CAPS,
    legal: { ...S2, S2FWB: 1 },
    illegal: { ...V32, S2FWB: 1 },
  },
  { rule: 'STE-S18', caps: sampleCaps({ IDR0: { STALL_MODEL: 1 } }), legal: S2, illegal: { ...S2, S2S: 1 } },
  { rule: 'STE-S19', caps: sampleCaps({ IDR0: { STALL_MODEL: 2 } }), legal: { ...S2, S2S: 1 }, illegal: S2 },
  { rule: 'STE-S20', caps: sampleCaps(), legal: S2, illegal: V32 },
  { rule: 'STE-S20', caps: sampleCaps({ IDR0: { TTF: 1 } }), legal: V32, illegal: { ...S2, S2T0SZ: 24 } },
  { rule: 'STE-S21', caps: sampleCaps({ IDR0: { HTTU: 0 } }), legal: S2, illegal: { ...S2, S2HA: 1 } },
  {
    rule: 'STE-S21',
    caps: sampleCaps({ IDR0: { HTTU: 1 } }),
    legal: { ...S2, S2HA: 1 },
    illegal: { ...S2, S2HA: 1, S2HD: 1 },
  },
  { rule: 'STE-S21', caps: V32_CAPS, legal: { ...S2, S2HA: 1 }, illegal: { ...V32, S2HA: 1 } },
  {
    rule: 'STE-S22',
    caps: sampleCaps({ IDR0: { HTTU: 3 } }),
    legal: { ...S2, S2HAFT: 1, S2HA: 1 },
    illegal: { ...S2, S2HAFT: 1 },
  },
  { rule: 'STE-S23', caps: sampleCaps(), legal: S2, illegal: { ...S2, S2TG: 3 } },
  {
    rule: 'STE-S23',
    caps: sampleCaps({ IDR5: { GRAN64K: 0 } }),
    legal: { ...S2, S2TG: '16KB', S2SL0: 2 },
    illegal: { ...S2, S2TG: '64KB', S2SL0: 2 },
  },
  {
    rule: 'STE-S24',
    caps: sampleCaps(),
    legal: { ...S2, S2PS: 4, S2TTB: (1n << 44n) / 16n - 1n },
    illegal: { ...S2, S2PS: 4, S2TTB: (1n << 44n) / 16n },
  },
  {
    rule: 'STE-S24',
    caps: sampleCaps({ IDR5: { OAS: 6 } }),
    legal: { ...S2, S2TG: '64KB', S2PS: 6, S2TTB: (1n << 48n) / 16n },
    illegal: { ...S2, S2TG: '4KB', S2PS: 6, S2TTB: (1n << 48n) / 16n },
  },
  {
    rule: 'STE-S24',
    caps: V32_CAPS,
    legal: { ...V32, S2TTB: (1n << 40n) / 16n - 1n },
    illegal: { ...V32, S2TTB: (1n << 40n) / 16n },
  },
  { rule: 'STE-S25', caps: sampleCaps(), legal: { ...S2, S2T0SZ: 16 }, illegal: { ...S2, S2T0SZ: 15 } },
  { rule: 'STE-S26', caps: sampleCaps(), legal: { ...S2, S2T0SZ: 24 }, illegal: { ...S2, S2T0SZ: 25 } },
  { rule: 'STE-S26', caps: V32_CAPS, legal: { ...V32, S2T0SZ: 8 }, illegal: { ...V32, S2T0SZ: 2 } },
  { rule: 'STE-S26', caps: V32_CAPS, legal: { ...V32, S2SL0: 0 }, illegal: { ...V32, S2SL0: 2 } },
  { rule: 'STE-S28', caps: sampleCaps({ IDR0: { TTENDIAN: 2 } }), legal: S2, illegal: { ...S2, S2ENDI: 1 } },
  { rule: 'STE-S28', caps: sampleCaps({ IDR0: { TTENDIAN: 3 } }), legal: { ...S2, S2ENDI: 1 }, illegal: S2 },
  { rule: 'STE-S29', caps: V32_CAPS, legal: { ...S2, S2PIE: 1 }, illegal: { ...V32, S2PIE: 1 } },
  { rule: 'STE-S30', caps: POI_CAPS, legal: { ...S2, S2PIE: 1, S2POE: 1 }, illegal: { ...S2, S2POE: 1 } },
  {
    rule: 'STE-S30',
    caps: POI_CAPS,
    legal: { ...S2, S2PIE: 1, S2POE: 1, S2POI9: 4 },
    illegal: { ...S2, S2PIE: 1, S2POE: 1, S2POI9: 5 },
  },
  {
    rule: 'STE-S30',
    caps: POI_CAPS,
    legal: { ...S2, S2PIE: 1, S2HWU60: 1 },
    illegal: { ...S2, S2PIE: 1, S2POE: 1, S2HWU60: 1 },
  },
  {
    rule: 'STE-S31',
    caps: sampleCaps({ IDR0: { VMID16: 0 } }),
    legal: { ...S1, STRW: 2, S2VMID: 256 },
    illegal: { ...S1, S2VMID: 256 },
  },
  {
    rule: 'STE-S31',
    caps: sampleCaps({ IDR0: { VMID16: 0 } }),
    legal: { ...S2, S2VMID: 255 },
    illegal: { ...S2, S2VMID: 256 },
  },
  {
    rule: 'STE-S32',
    caps: MPAM_CAPS,
    legal: { ...NESTED, VMSPtr: (1n << 48n) / 4096n },
    illegal: { ...NESTED, S1MPAM: 1, VMSPtr: (1n << 48n) / 4096n },
  },
];

describe('STE legality rules [IHI 0070 5.2.2]: legal and illegal examples', () => {
  for (const [i, { rule, caps, legal, illegal }] of EXAMPLES.entries())
    test(`${rule}, example ${i}`, () => {
      expect(steProblems(STE.encode(legal), caps)).toEqual([]);
      expect(firstSteProblem(STE.encode(legal), caps)).toBeUndefined();
      expect(steProblems(STE.encode(illegal), caps).map((p) => p.rule)).toEqual([rule]);
      expect(firstSteProblem(STE.encode(illegal), caps)?.rule).toBe(rule);
    });
  test('every rule has an example', () => {
    expect([...new Set(EXAMPLES.map(({ rule }) => rule))]).toEqual(STE_RULES.map(({ id }) => id));
  });
});

test('Config 0xx stops every check [5.2.2]', () => {
  for (const Config of [0, 1, 2, 3]) {
    const ones = STE.zero().fill(0xffffffff);
    STE.set(ones, 'Config', Config);
    expect(steProblems(ones, sampleCaps({ IDR0: { S1P: 0, VMID16: 0 } }))).toEqual([]);
    expect(steProblems(ones)).toEqual([]);
  }
});

test('what is not C_BAD_STE: reserved encodings with a defined behaviour [5.2, end of 2.1]', () => {
  const reserved: Ste = { S1DSS: 3, S1Fmt: 3, SHCFG: 1, NSCFG: 1, PRIVCFG: 1, INSTCFG: 1, MemAttr: 4, S2SH0: 1 };
  expect(steProblems(STE.encode({ ...NESTED, ...reserved, S1CDMax: 3, S2PS: 7, S2HD: 1 }), sampleCaps())).toEqual([]);
  const noSubstreams = sampleCaps({ IDR1: { SSIDSIZE: 0 } });
  expect(steProblems(STE.encode({ ...S1, S1CDMax: 31, S1Fmt: 2 }), noSubstreams)).toEqual([]);
  expect(steProblems(STE.encode({ ...S2, EATS: 3, S2S: 1 }), sampleCaps())).toEqual([]);
});

test('a message names field, absolute bits, value, legal values, and what made them so', () => {
  const ste = STE.encode({ ...S2, S2T0SZ: 12 });
  expect(firstSteProblem(ste, sampleCaps())?.message).toBe(
    'S2T0SZ (bits 165:160) = 12, legal 16..39 (OAS 48, no STT, 4k granule)',
  );
});

describe('without caps only what no SMMU accepts is reported', () => {
  const cases: readonly (readonly [string, Ste, readonly string[]])[] = [
    ['an STE for a large SMMU', { ...NESTED, S2VMID: 0xffff, S1CDMax: 20, S2HA: 1, S2HD: 1, S2S: 1 }, []],
    ['VMSAv8-32 or VMSAv9-128', { ...V32, S2TG: 3, S2PIE: 1, S2FWB: 1 }, []],
    ['a reserved granule', { ...S2, S2TG: 3 }, ['STE-S23']],
    ['a size out of every range', { ...S2, S2T0SZ: 49, S2SL0: 3 }, ['STE-S25']],
    ['size and start level', { ...S2, S2T0SZ: 30, S2SL0: 2 }, ['STE-S26']],
    ['S2POE without S2PIE, RES0 without S2PO', { ...S2, S2POE: 1 }, []],
    ['a reserved overlay', { ...S2, S2POE: 1, S2PIE: 1, S2POI0: 1 }, []],
    ['STRW=01, RES0 without Hyp', { ...S1, STRW: 1 }, []],
    ['S2HAFT without S2HA, RES0 without HTTU', { ...S2, S2HAFT: 1 }, []],
    ['S2TTB beyond S2PS', { ...S2, S2PS: 0, S2TTB: (1n << 32n) / 16n }, ['STE-S24']],
    ['S2DS set on an SMMU that may lack it', { ...S2, S2DS: 1, S2SL0_2: 1 }, []],
  ];
  for (const [name, ste, rules] of cases)
    test(name, () => {
      expect(steProblems(STE.encode(ste)).map((p) => p.rule)).toEqual(rules);
    });
});

/** Rows of the printed table: granule, {S2SL0_2, S2SL0}, S2T0SZ without and with DS, and what the row needs. */
interface Row {
  readonly tg: '4KB' | '16KB' | '64KB';
  readonly sl2: 0 | 1;
  readonly sl0: number;
  readonly plain?: readonly [number, number];
  readonly ds?: readonly [number, number];
  readonly oas?: number;
  readonly stt?: true;
}

const PRINTED: readonly Row[] = [
  { tg: '4KB', sl2: 0, sl0: 0, plain: [30, 42], ds: [30, 42] },
  { tg: '4KB', sl2: 0, sl0: 1, plain: [21, 33], ds: [21, 33] },
  { tg: '4KB', sl2: 0, sl0: 2, plain: [16, 24], ds: [12, 24], oas: 44 },
  { tg: '4KB', sl2: 0, sl0: 3, plain: [39, 48], ds: [39, 48], stt: true },
  { tg: '4KB', sl2: 1, sl0: 0, ds: [12, 15] },
  { tg: '16KB', sl2: 0, sl0: 0, plain: [35, 48], ds: [35, 48] },
  { tg: '16KB', sl2: 0, sl0: 1, plain: [24, 38], ds: [24, 38] },
  { tg: '16KB', sl2: 0, sl0: 2, plain: [16, 27], ds: [13, 27], oas: 42 },
  { tg: '16KB', sl2: 0, sl0: 3, ds: [12, 16] },
  { tg: '64KB', sl2: 0, sl0: 0, plain: [31, 47], ds: [31, 47] },
  { tg: '64KB', sl2: 0, sl0: 1, plain: [18, 34], ds: [18, 34] },
  { tg: '64KB', sl2: 0, sl0: 2, plain: [12, 21], ds: [12, 21], oas: 44 },
];

const OAS_ENCODING = { 32: 0, 36: 1, 40: 2, 42: 3, 44: 4, 48: 5, 52: 6 } as const;

/** S2T0SZ limits as printed for SMMUv3.1 and later, VMSAv8-64. */
function printedLimits(tg: Row['tg'], stt: boolean, ds: boolean, oas: number): readonly [number, number] {
  const max = stt ? { '4KB': 48, '16KB': 48, '64KB': 47 }[tg] : 39;
  return [Math.max(tg === '64KB' || ds ? 12 : 16, 64 - oas), max];
}

describe('S2T0SZ x S2SL0 x S2TG against the printed table [DDI 0487 VTCR_EL2; IHI 0070 5.2]', () => {
  for (const [oas, encoding] of Object.entries(OAS_ENCODING))
    for (const STT of [0, 1])
      for (const DS of [0, 1])
        test(`OAS ${oas}, STT ${STT}, IDR5.DS ${DS}`, () => {
          const caps = sampleCaps({ IDR3: { STT, FWB: 1 }, IDR5: { OAS: encoding, DS, VAX: 1 } });
          let legal = 0;
          for (const tg of ['4KB', '16KB', '64KB'] as const)
            for (const S2DS of [0, 1])
              for (const S2SL0_2 of [0, 1] as const)
                for (const S2SL0 of [0, 1, 2, 3])
                  for (let S2T0SZ = 0; S2T0SZ < 64; S2T0SZ++) {
                    const ds = S2DS === 1 && DS === 1 && tg !== '64KB';
                    const sl2 = ds && tg === '4KB' ? S2SL0_2 : 0;
                    const row = PRINTED.find((r) => r.tg === tg && r.sl2 === sl2 && r.sl0 === S2SL0);
                    const range = ds ? row?.ds : row?.plain;
                    const [min, max] = printedLimits(tg, STT === 1, ds, Number(oas));
                    const expected =
                      range !== undefined &&
                      S2T0SZ >= Math.max(min, range[0]) &&
                      S2T0SZ <= Math.min(max, range[1]) &&
                      Number(oas) >= (row?.oas ?? 0) &&
                      (row?.stt !== true || STT === 1);
                    const ste = STE.encode({ V: 1, Config: 6, S2AA64: 1, S2TG: tg, S2DS, S2SL0_2, S2SL0, S2T0SZ });
                    expect(
                      firstSteProblem(ste, caps) === undefined,
                      JSON.stringify([tg, S2DS, S2SL0_2, S2SL0, S2T0SZ]),
                    ).toBe(expected);
                    if (expected) legal++;
                  }
          expect(legal).toBeGreaterThan(0);
        });
});
