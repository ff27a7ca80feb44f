/** Random configurations over random memory: STEs, CDs and tables that point at each other more often than chance would. */
import * as fc from 'fast-check';
import { CD } from '../../spec/cd.ts';
import { STE } from '../../spec/ste.ts';
import { Memory } from '../../src/hw/memory.ts';
import type { Transaction } from '../../src/hw/transaction.ts';

export const BASE = 0x4000_0000n;
export const SIZE = 0x4_0000;
const PAGES = SIZE / 0x1000;

/** A number that is mostly an address of the region, sometimes anything. */
export const word = fc.oneof(
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

export const access = fc.record({
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

export interface Case {
  readonly words: readonly bigint[];
  readonly stes: readonly object[];
  readonly cds: readonly object[];
  readonly accesses: readonly Partial<Transaction>[];
}

export const cases: fc.Arbitrary<Case> = fc.record({
  words: fc.array(word, { minLength: 64, maxLength: 256 }),
  stes: fc.array(ste, { minLength: 8, maxLength: 8 }),
  cds: fc.array(cd, { minLength: 4, maxLength: 4 }),
  accesses: fc.array(access, { minLength: 4, maxLength: 24 }),
}) as fc.Arbitrary<Case>;

/** Memory full of the case's words, over and over; STEs in page 0, CDs at the start of each page above. */
export function fill(c: Case): Memory {
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
