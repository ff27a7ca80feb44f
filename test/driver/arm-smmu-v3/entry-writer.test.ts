import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CD, linuxCdUsed, linuxSteSafe, linuxSteUsed, STE, toQwords, type Words } from '../../../spec/index.ts';
import { type EntryPlan, planEntryUpdate } from '../../../src/driver/arm-smmu-v3/index.ts';

const plan = (from: Words, to: Words): EntryPlan => planEntryUpdate(from, to, linuxSteUsed, linuxSteSafe);

const abort = STE.encode({ V: 1, Config: 'ABORT' });
const bypass = STE.encode({ V: 1, Config: 'BYPASS' });
/** The STEs of the recorded hardware (linux-driver 8, 13). */
const s1 = STE.encode({
  V: 1,
  Config: 'S1_TRANS',
  S1ContextPtr: 0x40f1f000n >> 6n,
  S1DSS: 'SSID0',
  S1CIR: 'WB_RA',
  S1COR: 'WB_RA',
  S1CSH: 'ISH',
});
const s2 = (vmid: number, table = 0x41c2a000n): Words =>
  STE.encode({
    V: 1,
    Config: 'S2_TRANS',
    S2VMID: vmid,
    S2T0SZ: 20,
    S2SL0: 2,
    S2IR0: 'WB_RA_WA',
    S2OR0: 'WB_RA_WA',
    S2SH0: 'ISH',
    S2PS: 'BITS_44',
    S2AA64: 'AARCH64',
    S2PTW: 1,
    S2R: 1,
    S2TTB: table >> 4n,
  });
const nested = (vmid: number, cd = 0x80001000n, table?: bigint): Words => {
  const ste = s2(vmid, table);
  STE.set(ste, 'Config', 'NESTED');
  STE.set(ste, 'S1ContextPtr', cd >> 6n);
  STE.set(ste, 'MEV', 1);
  for (const [name, value] of [
    ['S1DSS', 'SSID0'],
    ['S1CIR', 'WB_RA'],
    ['S1COR', 'WB_RA'],
    ['S1CSH', 'ISH'],
  ] as const)
    STE.set(ste, name, value);
  return ste;
};
const bare = (ste: Words, word1: bigint): Words => {
  const out = ste.slice();
  out[2] = Number(word1 & 0xffffffffn);
  out[3] = Number(word1 >> 32n);
  return out;
};

describe('writes of an STE by kind (linux-driver 13, "STE writes")', () => {
  const a = s2(1);
  const b = s2(2, 0x50000000n);
  const states = { abort, bypass, s1, a, b, nested: nested(1) } as const;
  const table: readonly [keyof typeof states, keyof typeof states, number, boolean][] = [
    ['abort', 'abort', 0, true],
    ['abort', 'bypass', 1, true],
    ['abort', 's1', 2, true],
    ['abort', 'a', 2, true],
    ['abort', 'nested', 2, true],
    ['bypass', 'abort', 1, true],
    ['bypass', 'bypass', 0, true],
    ['bypass', 's1', 2, true],
    ['bypass', 'a', 2, true],
    ['bypass', 'nested', 2, true],
    ['s1', 'abort', 2, true],
    ['s1', 'bypass', 2, true],
    ['s1', 's1', 0, true],
    ['s1', 'a', 3, false],
    ['s1', 'nested', 3, false],
    ['a', 'abort', 2, true],
    ['a', 'bypass', 2, true],
    ['a', 's1', 3, false],
    ['a', 'a', 0, true],
    ['a', 'b', 3, false],
    ['a', 'nested', 2, true],
    ['nested', 'abort', 2, true],
    ['nested', 'bypass', 2, true],
    ['nested', 's1', 3, false],
    ['nested', 'a', 3, true],
    ['nested', 'b', 3, false],
  ];
  test.each(table)('%s to %s: %i syncs, hitless %s', (from, to, syncs, hitless) => {
    const got = plan(states[from], states[to]);
    expect(got.steps).toHaveLength(syncs);
    expect(got.hitless).toBe(hitless);
  });

  test('nested to nested: 0 if equal, 1 for one word, 3 disruptive for both', () => {
    const one = nested(1);
    expect(plan(one, nested(1)).steps).toHaveLength(0);
    expect(plan(one, nested(1, 0x80002000n)).steps).toHaveLength(1);
    expect(plan(one, bare(one, 0x800d5n)).steps).toHaveLength(1);
    const both = plan(one, bare(nested(1, 0x80002000n), 0x800d5n));
    expect(both).toMatchObject({ hitless: false });
    expect(both.steps).toHaveLength(3);
  });

  test('nested to its parent: 2 syncs if the vSTE had a zero word 1', () => {
    expect(plan(bare(nested(1), 0x80000n), s2(1)).steps).toHaveLength(2);
  });

  test('S1 cdtable with S1DSS or EATS alone changed: 1', () => {
    const dss = s1.slice();
    STE.set(dss, 'S1DSS', 'TERMINATE');
    expect(plan(s1, dss).steps).toHaveLength(1);
    const ats = s1.slice();
    STE.set(ats, 'EATS', 'FULL');
    expect(plan(s1, ats)).toMatchObject({ hitless: true, steps: [{ writes: [{ qword: 1, value: 0x100000d6n }] }] });
  });

  test('V goes 0 to 1 with everything else in place first, and that is not hitless', () => {
    const got = plan(STE.zero(), s1);
    expect(got.hitless).toBe(false);
    expect(got.steps.map((step) => step.writes.map((write) => write.qword))).toEqual([[1], [0]]);
  });
});

describe('CD updates (linux-driver 13, PASID and CD n)', () => {
  const nothing = (): Words => CD.zero();
  const cd = (asid: number, ttb: bigint): Words =>
    CD.encode({
      T0SZ: 16,
      V: 1,
      EPD1: 1,
      AA64: 1,
      R: 1,
      A: 1,
      ASET: 1,
      ASID: asid,
      TTB0: ttb >> 4n,
      MAIR0: 0xf404ff44,
      MAIR1: 0xffffffff,
    });
  const count = (from: Words, to: Words): number => planEntryUpdate(from, to, linuxCdUsed, nothing).steps.length;

  test('new: 2; cleared: 2, word 0 first; another domain: 3 with V=0', () => {
    expect(count(CD.zero(), cd(1, 0x1000n))).toBe(2);
    const cleared = planEntryUpdate(cd(1, 0x1000n), CD.zero(), linuxCdUsed, nothing);
    expect(cleared.steps.map((step) => step.writes.map((write) => write.qword))).toEqual([[0], [1, 3]]);
    expect(count(cd(1, 0x1000n), cd(2, 0x2000n))).toBe(3);
  });
});

/** Any STE of the kinds that drivers write, with arbitrary fields. */
const anySte = fc
  .record({
    kind: fc.constantFrom('ABORT', 'BYPASS', 'S1_TRANS', 'S2_TRANS', 'NESTED', 'INVALID'),
    vmid: fc.integer({ min: 0, max: 3 }),
    cd: fc.bigInt({ min: 0n, max: 3n }),
    dss: fc.constantFrom('TERMINATE', 'BYPASS', 'SSID0'),
    eats: fc.constantFrom('OFF', 'FULL', 'SPLIT'),
    mev: fc.integer({ min: 0, max: 1 }),
    s2s: fc.integer({ min: 0, max: 1 }),
    ttb: fc.bigInt({ min: 0n, max: 3n }),
    junk: fc.boolean(),
  })
  .map(({ kind, vmid, cd, dss, eats, mev, s2s, ttb, junk }) => {
    const full = STE.encode({
      V: kind === 'INVALID' ? 0 : 1,
      Config: kind === 'INVALID' ? 'NESTED' : (kind as 'ABORT'),
      S1ContextPtr: cd,
      S1DSS: dss,
      EATS: eats,
      MEV: mev,
      S2VMID: vmid,
      S2S: s2s,
      S2TTB: ttb,
    });
    if (junk) return full;
    const used = linuxSteUsed(full);
    return full.map((word, i) => word & (used[i] ?? 0));
  });

const masked = (words: Words, mask: Words): string => words.map((word, i) => (word & (mask[i] ?? 0)) >>> 0).join();

/**
 * What hardware makes of an entry: the bits it uses. Those whose order of change does not matter are left out.
 */
const meaning = (entry: Words, safe: Words): string =>
  masked(
    entry,
    linuxSteUsed(entry).map((word, i) => word & ~(safe[i] ?? 0)),
  );

describe('entry writer, any pair of STEs', () => {
  test('each interleaving of the stores of a step is the old entry, the new one, or invalid (IHI 0070 3.21.3)', () => {
    fc.assert(
      fc.property(
        anySte,
        anySte,
        fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 3, maxLength: 3 }),
        (from, to, picks) => {
          const got = plan(from, to);
          const safe = linuxSteSafe(from, to);
          const allowed = new Set([meaning(from, safe), meaning(to, safe)]);
          const entry = from.slice();
          for (const [i, step] of got.steps.entries()) {
            // Hardware may fetch when any subset of the step's stores is visible.
            const torn = entry.slice();
            for (const [bit, { qword, value }] of step.writes.entries()) {
              const half = new Uint32Array([Number(value & 0xffffffffn), Number(value >> 32n)]);
              if ((((picks[i] ?? 0) >>> bit) & 1) === 1) torn.set(half, 2 * qword);
              entry.set(half, 2 * qword);
            }
            for (const seen of [torn, entry]) {
              if (STE.num(seen, 'V') === 0) {
                if (STE.num(from, 'V') === 1 && STE.num(to, 'V') === 1) expect(got.hitless).toBe(false);
              } else expect(allowed).toContain(meaning(seen, safe));
            }
          }
          expect(toQwords(entry)).toEqual(toQwords(to));
          expect(got.steps.length).toBeLessThanOrEqual(3);
          for (const step of got.steps) {
            const order = step.writes.map(({ qword }) => qword);
            expect(order).toEqual([...order].sort((a, b) => a - b));
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

/** Any CD whose bits are few enough that pairs often agree in whole words. */
const anyCd = fc
  .record({
    V: fc.integer({ min: 0, max: 1 }),
    EPD0: fc.integer({ min: 0, max: 1 }),
    T0SZ: fc.constantFrom(16, 25),
    ASID: fc.integer({ min: 0, max: 2 }),
    TTB0: fc.bigInt({ min: 0n, max: 2n }),
    MAIR0: fc.constantFrom(0, 0xf404ff44),
  })
  .map((fields) => CD.encode(fields));

describe('hitless exactly when at most one 64-bit word that both entries use differs (linux-driver 8)', () => {
  const check = (
    from: Words,
    to: Words,
    used: (entry: Words) => Words,
    safe: (from: Words, to: Words) => Words,
    validOf: (entry: Words) => boolean,
  ): void => {
    const [usedFrom, usedTo, free] = [used(from), used(to), safe(from, to)];
    const bits = from.map((word, i) => (word ^ (to[i] ?? 0)) & (usedFrom[i] ?? 0) & (usedTo[i] ?? 0) & ~(free[i] ?? 0));
    const critical = toQwords(bits).filter((word) => word !== 0n).length;
    const got = planEntryUpdate(from, to, used, safe);
    const same = toQwords(from).every((word, i) => word === toQwords(to)[i]);
    expect(got.hitless).toBe(same || (critical <= 1 && validOf(from) && validOf(to)));
    if (critical > 1) {
      expect(got.steps).toHaveLength(3);
      expect(got.steps[0]?.writes).toEqual([{ qword: 0, value: 0n }]);
    } else if (critical === 0) expect(got.steps.length).toBe(same ? 0 : 1);
    for (const { writes } of got.steps) expect(writes.length).toBeGreaterThan(0);
  };

  test('STEs', () => {
    fc.assert(
      fc.property(anySte, anySte, (from, to) =>
        check(from, to, linuxSteUsed, linuxSteSafe, (ste) => STE.num(ste, 'V') === 1),
      ),
      { numRuns: 2000 },
    );
  });

  test('CDs', () => {
    fc.assert(
      fc.property(anyCd, anyCd, (from, to) =>
        check(
          from,
          to,
          linuxCdUsed,
          () => CD.zero(),
          (cd) => CD.num(cd, 'V') === 1,
        ),
      ),
      { numRuns: 1000 },
    );
  });
});
