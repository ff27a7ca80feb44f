/**
 * Permissions and dirty state over every combination of the bits that decide them, against the rules written down once
 * more, as plain as they stand in DDI 0487 D8.4 and IHI 0070 3.13, 5.4, 13.4.
 */
import { describe, expect, test } from 'vitest';
import { pte1, pte2 } from '../../spec/descriptors.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Outcome } from '../../src/hw/transaction.ts';
import { Lab, labCaps } from './translation-lab.ts';

const VA = 0x1000n;
const DATA = 0x6000_0000n;
const ACCESSES = ['R', 'W', 'X'] as const;
const COLD = { tlb: NO_TLB, configCache: NO_CONFIG_CACHE };

/** The numbers 0 to 2^n - 1 as lists of bits. */
function* bitsOf(n: number): Generator<number[]> {
  for (let value = 0; value < 2 ** n; value++) yield Array.from({ length: n }, (_, i) => (value >> i) & 1);
}

interface Stage1Bits {
  readonly AP1: number;
  readonly AP2: number;
  readonly UXN: number;
  readonly PXN: number;
  readonly APTable0: number;
  readonly APTable1: number;
  readonly UXNTable: number;
  readonly PXNTable: number;
  readonly WXN: number;
  readonly PAN: number;
  readonly EPAN: number;
  readonly HAD: number;
  readonly DBM: number;
  readonly HD: number;
}
const NAMES: readonly (keyof Stage1Bits)[] = [
  'AP1',
  'AP2',
  'UXN',
  'PXN',
  'APTable0',
  'APTable1',
  'UXNTable',
  'PXNTable',
  'WXN',
  'PAN',
  'EPAN',
  'HAD',
  'DBM',
  'HD',
];

/** EL1 and EL2 with E2H: two levels of privilege (2.5). */
function twoLevels(b: Stage1Bits, access: string, privileged: boolean): boolean {
  const table = b.HAD === 0;
  const clean = b.DBM === 1 && b.HD === 1;
  const written = (b.AP2 === 0 || clean) && !(table && b.APTable1 === 1);
  const unprivileged = b.AP1 === 1 && !(table && b.APTable0 === 1);
  const uxn = b.UXN === 1 || (table && b.UXNTable === 1);
  const pxn = b.PXN === 1 || (table && b.PXNTable === 1);
  const mayWrite = privileged ? written : unprivileged && written;
  if (access === 'X') {
    if (b.WXN === 1 && mayWrite) return false;
    return privileged ? !pxn && !(unprivileged && written) : !uxn;
  }
  if (privileged && b.PAN === 1 && (unprivileged || (b.EPAN === 1 && !uxn))) return false;
  return access === 'W' ? mayWrite : privileged || unprivileged;
}

/** EL2: one level of privilege (13.4.1). */
function oneLevel(b: Stage1Bits, access: string): boolean {
  const table = b.HAD === 0;
  const written = (b.AP2 === 0 || (b.DBM === 1 && b.HD === 1)) && !(table && b.APTable1 === 1);
  if (access === 'W') return written;
  if (access === 'R') return true;
  return !(b.UXN === 1 || (table && b.UXNTable === 1)) && !(b.WXN === 1 && written);
}

describe('stage 1', () => {
  const worlds = [
    ['NS-EL1', 0, false],
    ['NS-EL2-E2H', 2, true],
    ['NS-EL2', 2, false],
  ] as const;
  test.each(worlds)(
    '%s: all combinations of leaf, table and CD bits [2.5, 5.4, 13.4.1, 3.13.8]',
    (world, STRW, E2H) => {
      const lab = new Lab(labCaps(), COLD);
      lab.regs.E2H = E2H;
      const root = lab.pages();
      const leafAt = lab.map(1, root, VA, DATA);
      const cdAt = lab.pages();
      const one = world === 'NS-EL2';
      lab.ste(5, { Config: 'S1_TRANS', STRW, S1ContextPtr: cdAt >> 6n });
      const page = pte1('4k', 3, 'page');
      const table = pte1('4k', 0, 'table');
      const rootEntry = lab.memory.read64(root);
      const wrong: string[] = [];
      let seen = 0;
      for (const bits of bitsOf(NAMES.length)) {
        const b = Object.fromEntries(NAMES.map((name, i) => [name, bits[i]])) as unknown as Stage1Bits;
        // PAN of a regime with one level, and EPAN without PAN, decide nothing: once is enough.
        if ((one && b.PAN + b.EPAN + b.PXNTable > 0) || (b.EPAN === 1 && b.PAN === 0)) continue;
        // The E2H regime differs in nothing that these two bits decide.
        if (E2H && b.HAD + b.DBM > 0) continue;
        lab.cd({ TTB0: root >> 4n, WXN: b.WXN, PAN: b.PAN, EPAN: b.EPAN, HAD0: b.HAD, HA: b.HD, HD: b.HD }, cdAt);
        const leaf = page.encode({
          Valid: 1,
          Type: 1,
          AF: 1,
          nG: 1,
          AP: b.AP1 | (b.AP2 << 1),
          UXN: b.UXN,
          PXN: b.PXN,
          DBM: b.DBM,
          OutputAddress: DATA >> 12n,
        });
        const above = table.encode({
          APTable: b.APTable0 | (b.APTable1 << 1),
          UXNTable: b.UXNTable,
          PXNTable: b.PXNTable,
        });
        lab.memory.write64(root, rootEntry | (BigInt(above[1] ?? 0) << 32n));
        for (const access of ACCESSES)
          for (const PnU of [false, true]) {
            lab.write(leafAt, leaf);
            lab.go(5, VA, { isWrite: access === 'W', InD: access === 'X', PnU });
            const allowed = one ? oneLevel(b, access) : twoLevels(b, access, PnU);
            const dirtied = allowed && access === 'W' && b.AP2 === 1;
            const after = lab.memory.read64(leafAt);
            const before = (BigInt(leaf[1] ?? 0) << 32n) | BigInt(leaf[0] ?? 0);
            const expected = dirtied ? before & ~(1n << 7n) : before;
            seen++;
            const right = allowed ? lab.t.outcome === Outcome.Ok : lab.t.event === 0x13 && !lab.t.S2;
            if (!right || after !== expected) wrong.push(`${access} PnU=${PnU} ${JSON.stringify(b)}`);
          }
      }
      expect(wrong.slice(0, 5)).toEqual([]);
      expect(seen).toBeGreaterThan(4000);
    },
  );
});

describe('stage 2', () => {
  test.each([
    ['IDR3.XNX = 1', 1],
    ['IDR3.XNX = 0', 0],
  ] as const)('%s: all combinations of S2AP, XN, DBM, S2HD [DDI 0487 D8.4.2, 3.13]', (_, XNX) => {
    const lab = new Lab(labCaps({}, {}, { XNX }), COLD);
    const root = lab.pages();
    const leafAt = lab.map(2, root, VA, DATA);
    const page = pte2('4k', 3, 'page');
    const wrong: string[] = [];
    for (const [r = 0, w = 0, xn0 = 0, xn1 = 0, DBM = 0, HD = 0] of bitsOf(6)) {
      lab.ste(5, { Config: 'S2_TRANS', ...lab.s2(root, 7), S2HA: HD, S2HD: HD });
      const XN = xn0 | (xn1 << 1);
      const leaf = page.encode({ Valid: 1, Type: 1, AF: 1, S2AP: r | (w << 1), XN, MemAttr: 15, DBM });
      page.set(leaf, 'OutputAddress', DATA >> 12n);
      for (const access of ACCESSES)
        for (const PnU of [false, true]) {
          lab.write(leafAt, leaf);
          lab.go(5, VA, { isWrite: access === 'W', InD: access === 'X', PnU });
          const executable = XNX === 0 ? xn1 === 0 : PnU ? XN === 0 || XN === 3 : XN === 0 || XN === 1;
          const clean = DBM === 1 && HD === 1;
          const allowed = access === 'X' ? executable : access === 'R' ? r === 1 : w === 1 || clean;
          const before = (BigInt(leaf[1] ?? 0) << 32n) | BigInt(leaf[0] ?? 0);
          const expected = allowed && access === 'W' ? before | (1n << 7n) : before;
          const right = allowed ? lab.t.outcome === Outcome.Ok : lab.t.event === 0x13 && lab.t.S2 && lab.t.CLASS === 2;
          if (!right || lab.memory.read64(leafAt) !== expected)
            wrong.push(`${access} PnU=${PnU} S2AP=${r | (w << 1)} XN=${XN} DBM=${DBM} HD=${HD}`);
        }
    }
    expect(wrong).toEqual([]);
  });
});

describe('the Access flag at both stages', () => {
  test('every combination of AF, AFFD and HA of both stages [3.13.1, 3.13.2]', () => {
    const wrong: string[] = [];
    for (const [AF1 = 0, AFFD1 = 0, HA1 = 0, AF2 = 0, AFFD2 = 0, HA2 = 0] of bitsOf(6)) {
      const lab = new Lab(labCaps(), COLD);
      const [root1, root2] = [lab.pages(), lab.pages()];
      const leaf1 = lab.map(1, root1, VA, VA, { AF: AF1 });
      const leaf2 = lab.map(2, root2, VA, DATA, { AF: AF2 });
      lab.map(2, root2, 0x4000_0000n, 0x4000_0000n, {}, { level: 1 });
      const cd = lab.cd({ TTB0: root1 >> 4n, AFFD: AFFD1, HA: HA1 });
      lab.ste(5, { Config: 'NESTED', S1ContextPtr: cd >> 6n, ...lab.s2(root2, 7), S2AFFD: AFFD2, S2HA: HA2 });
      const got = lab.go(5, VA);
      const fault1 = AF1 === 0 && HA1 === 0 && AFFD1 === 0;
      const fault2 = AF2 === 0 && HA2 === 0 && AFFD2 === 0;
      const expected = fault1
        ? 'Abort event=0x12 S2=0'
        : fault2
          ? `Abort event=0x12 S2=1 ipa=0x${VA.toString(16)} class=2`
          : `0x${DATA.toString(16)}`;
      const flag = (at: bigint): number => Number((lab.memory.read64(at) >> 10n) & 1n);
      const expected1 = AF1 | (fault1 ? 0 : HA1);
      const expected2 = AF2 | (fault1 || fault2 ? 0 : HA2);
      // After a fault of stage 2 it is UNKNOWN whether stage 1 set its flag.
      const flags = (fault2 && HA1 === 1) || flag(leaf1) === expected1;
      if (got !== expected || !flags || flag(leaf2) !== expected2)
        wrong.push(`${[AF1, AFFD1, HA1, AF2, AFFD2, HA2]}: ${got} ${flag(leaf1)}${flag(leaf2)}`);
    }
    expect(wrong).toEqual([]);
  });
});
