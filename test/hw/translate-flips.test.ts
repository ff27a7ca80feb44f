/**
 * Well-formed structures of every kind with a few bits flipped, against a second opinion: what one wrong bit in an STE,
 * CD, L1CD or descriptor does to address, event, stage, class and IPA.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CD } from '../../spec/cd.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { STE } from '../../spec/ste.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Outcome, Transaction } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import { caps48, caps52, opinion, seen } from './oracle.ts';
import { Lab, labRegs, STRTAB } from './translation-lab.ts';

const GRANULES = ['4k', '16k', '64k'] as const;
const TG0 = { '4k': 0, '16k': 2, '64k': 1 } as const;
/** How walks begin with 48-bit addresses, and with 52-bit ones (DS for 4 KB and 16 KB). */
const NARROW = {
  start: { '4k': 0, '16k': 1, '64k': 1 },
  inputBits: { '4k': 48, '16k': 47, '64k': 48 },
  S2SL0: { '4k': 2, '16k': 2, '64k': 2 },
  S2SL0_2: { '4k': 0, '16k': 0, '64k': 0 },
} as const;
const WIDE = {
  start: { '4k': -1, '16k': 0, '64k': 1 },
  inputBits: { '4k': 52, '16k': 52, '64k': 52 },
  S2SL0: { '4k': 0, '16k': 3, '64k': 2 },
  S2SL0_2: { '4k': 1, '16k': 0, '64k': 0 },
} as const;
const PAGE = { '4k': 0x1000n, '16k': 0x4000n, '64k': 0x1_0000n } as const;

interface Shape {
  /** 52-bit addresses. */
  readonly wide: boolean;
  readonly Config: 4 | 5 | 6 | 7;
  readonly granule1: (typeof GRANULES)[number];
  readonly granule2: (typeof GRANULES)[number];
  readonly S1Fmt: number;
  readonly S1CDMax: number;
  readonly S1DSS: number;
  readonly SubstreamID: number;
  readonly SSV: boolean;
  readonly isWrite: boolean;
  readonly InD: boolean;
  readonly PnU: boolean;
  /** Which structure, and which bit of it. */
  readonly flips: readonly (readonly [structure: number, bit: number])[];
}

const shape: fc.Arbitrary<Shape> = fc.record({
  wide: fc.boolean(),
  Config: fc.constantFrom(4, 5, 6, 7, 7, 7),
  granule1: fc.constantFrom(...GRANULES),
  granule2: fc.constantFrom(...GRANULES),
  S1Fmt: fc.nat(3),
  S1CDMax: fc.constantFrom(0, 0, 1, 2, 3, 6, 7, 8, 10, 11),
  S1DSS: fc.constantFrom(0, 1, 2, 2),
  SubstreamID: fc.oneof(fc.nat(3), fc.nat(2100)),
  SSV: fc.boolean(),
  isWrite: fc.boolean(),
  InD: fc.boolean(),
  PnU: fc.boolean(),
  flips: fc.array(fc.tuple(fc.nat(7), fc.nat(511)), { maxLength: 3 }),
});

const LOW_VA = 0x1234_5000n;
const HIGH_VA = 0xd_8000_1234_5000n;

/** Builds the structures, flips, and gives both answers. */
function answers(s: Shape): { expected: string; got: string[]; t: Transaction } {
  const caps = s.wide ? caps52 : caps48;
  const how = s.wide ? WIDE : NARROW;
  const format = { ds: s.wide, pa52: s.wide };
  const VA = s.wide ? HIGH_VA : LOW_VA;
  const lab = new Lab(caps);
  const data = lab.pages(0x1_0000);
  const [g1, g2] = [s.granule1, s.granule2];
  const va = VA & ~(PAGE[g1] - 1n);
  const root1 = lab.pages(Number(PAGE[g1]));
  const leaf1 = lab.map(
    1,
    root1,
    va,
    data,
    {},
    {
      granule: g1,
      start: how.start[g1],
      inputBits: how.inputBits[g1],
      format,
    },
  );
  const at = [STRTAB + 5n * 64n, leaf1, root1];
  const TTB0 = root1 >> 4n;
  const sizes = s.wide ? { DS: 1, IPS: 6 } : {};
  const cdFields = { TTB0, TG0: TG0[g1], T0SZ: 64 - how.inputBits[g1], ...sizes };
  const index = s.SSV ? s.SubstreamID : 0;
  const leafLog2 = s.S1CDMax === 0 ? 0 : s.S1Fmt === 1 ? 6 : s.S1Fmt === 2 ? 10 : 0;
  let table: bigint;
  if (leafLog2 === 0) {
    table = lab.pages(Math.max(0x1000, 64 << s.S1CDMax));
    const place = table + BigInt((index % 2 ** s.S1CDMax) * 64);
    lab.cd(cdFields, place);
    at.push(place);
  } else {
    // A small table, at a place that is aligned no more than it has to be.
    table = lab.pages() + 0xc0n;
    const l1 = index >> leafLog2;
    if (s.S1CDMax - leafLog2 > 3) table = lab.pages();
    const leaf = lab.pages(64 << leafLog2);
    lab.write(table + BigInt(l1 * 8), L1CD.encode({ V: 1, L2Ptr: leaf >> 12n }));
    lab.cd(cdFields, leaf + BigInt((index % 2 ** leafLog2) * 64));
    at.push(leaf + BigInt((index % 2 ** leafLog2) * 64), table + BigInt(l1 * 8));
  }
  const root2 = lab.pages(Number(PAGE[g2]));
  const block = { '4k': 1, '16k': 2, '64k': 2 } as const;
  const blockBytes = { '4k': 30n, '16k': 25n, '64k': 29n } as const;
  const how2 = { granule: g2, start: how.start[g2], inputBits: how.inputBits[g2], format };
  // Stage 2 is the identity around everything that was built, and on the address itself.
  const end = lab.pages();
  for (let pa = STRTAB; pa <= end + 0x20_0000n; pa += 1n << blockBytes[g2])
    lab.map(2, root2, pa, pa, {}, { ...how2, level: block[g2] });
  at.push(lab.map(2, root2, VA & ~(PAGE[g2] - 1n), data, {}, how2), root2);
  lab.ste(5, {
    Config: s.Config,
    S1Fmt: s.S1Fmt,
    S1CDMax: s.S1CDMax,
    S1DSS: s.S1DSS,
    S1ContextPtr: table >> 6n,
    ...lab.s2(root2, 7),
    S2TG: TG0[g2],
    S2SL0: how.S2SL0[g2],
    S2SL0_2: how.S2SL0_2[g2],
    S2T0SZ: 64 - how.inputBits[g2],
    ...(s.wide ? { S2DS: 1, S2PS: 6 } : {}),
  });
  for (const [structure, bit] of s.flips) {
    const start = at[structure % at.length] ?? STRTAB;
    const size = structure % at.length === 0 ? STE.bytes : structure % at.length === 3 ? CD.bytes : 8;
    const pa = start + BigInt(Math.floor((bit % (size * 8)) / 64) * 8);
    lab.memory.write64(pa, lab.memory.read64(pa) ^ (1n << BigInt(bit % 64)));
  }
  const { SSV, SubstreamID, isWrite, InD, PnU } = s;
  const t = Object.assign(new Transaction(), { StreamID: 5, SSV, SubstreamID, isWrite, InD, PnU });
  t.addrHi = Number(VA >> 32n);
  t.addrLo = Number(VA & 0xffff_ffffn);
  const expected = opinion(lab.memory, caps, STRTAB, t);
  const regs = labRegs();
  const smmus = [
    new Translator(lab.memory, caps, regs, { tlb: NO_TLB, configCache: NO_CONFIG_CACHE }),
    new Translator(lab.memory, caps, regs, { choices: { contiguous: false } }),
  ];
  const got = smmus.map((smmu) => {
    smmu.translate(t);
    return seen(t);
  });
  return { expected, got, t };
}

describe('structures of every shape with up to three bits flipped [5.2 to 5.4, 7.3.22, DDI 0487 D8]', () => {
  test('end as a plain reading of the tables says', () => {
    fc.assert(
      fc.property(shape, (s) => {
        const { expected, got } = answers(s);
        expect(got).toEqual([expected, expected]);
      }),
      { numRuns: 600 },
    );
  });

  test('and meet most kinds of event', () => {
    const events = new Map<number, number>();
    let ok = 0;
    for (const s of fc.sample(shape, { seed: 7, numRuns: 600 })) {
      const { t } = answers(s);
      if (t.outcome === Outcome.Ok) ok++;
      events.set(t.event, (events.get(t.event) ?? 0) + 1);
    }
    expect(ok).toBeGreaterThan(60);
    for (const event of [0x04, 0x06, 0x08, 0x0a, 0x0b, 0x10, 0x13]) expect(events.has(event)).toBe(true);
  });
});
