/** From StreamID and SubstreamID to STE and CD: tables, faults, and what stays cached until it is invalidated. */
import { describe, expect, test } from 'vitest';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { Access, STEP_SIZE, Step } from '../../src/hw/transaction.ts';
import { ipaOf, Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

const abort = (event: number, recorded = true): string =>
  `Abort event=0x${event.toString(16)}${recorded ? '' : ' unrecorded'} S2=0`;
const C_BAD_STREAMID = 0x02;
const F_STE_FETCH = 0x03;
const C_BAD_STE = 0x04;
const F_STREAM_DISABLED = 0x06;
const C_BAD_SUBSTREAMID = 0x08;
const F_CD_FETCH = 0x09;
const C_BAD_CD = 0x0a;
const BYPASS = { Config: 'BYPASS' } as const;
const hex = (n: bigint): string => `0x${n.toString(16)}`;

/** Kinds of what the last transaction read. */
function reads(lab: Lab): number[] {
  const out: number[] = [];
  for (let i = 0; i < lab.t.stepCount; i++) out.push(lab.t.steps[i * STEP_SIZE] ?? -1);
  return out;
}

describe('linear Stream table [6.3.25, 7.3.3]', () => {
  test('StreamIDs from 2^LOG2SIZE on are C_BAD_STREAMID, recorded with RECINVSID only', () => {
    const lab = new Lab();
    lab.ste(255, BYPASS);
    expect(lab.go(255, 0x1000n)).toBe('0x1000');
    expect(lab.go(256, 0x1000n)).toBe(abort(C_BAD_STREAMID, false));
    lab.regs.RECINVSID = true;
    expect(lab.go(256, 0x1000n)).toBe(abort(C_BAD_STREAMID));
    expect(lab.go(0xffff_ffff, 0x1000n)).toBe(abort(C_BAD_STREAMID));
  });

  test('LOG2SIZE counts up to SIDSIZE; the base is aligned by the literal value', () => {
    const lab = new Lab(labCaps({}, { SIDSIZE: 3 }));
    lab.regs.RECINVSID = true;
    lab.ste(7, BYPASS);
    expect(lab.go(7, 0x1000n)).toBe('0x1000');
    expect(lab.go(8, 0x1000n)).toBe(abort(C_BAD_STREAMID));
    lab.regs.LOG2SIZE = 40;
    expect(lab.go(8, 0x1000n)).toBe(abort(C_BAD_STREAMID));
    lab.smmu.configCache.invalidateAll();
    // 2^40 entries of 64 bytes: all of the base is below its alignment.
    expect(lab.go(7, 0x1000n)).toBe(abort(F_STE_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([0, 7 * 64]);
  });

  test('V=0 and ILLEGAL are C_BAD_STE and name the rule; Config=0xx is an abort without event', () => {
    const lab = new Lab();
    expect(lab.go(1, 0x1000n)).toBe(abort(C_BAD_STE));
    expect(lab.t.rule).toBe('V');
    lab.ste(2, { Config: 'S2_TRANS', S2AA64: 1, S2T0SZ: 5 });
    expect(lab.go(2, 0x1000n)).toBe(abort(C_BAD_STE));
    expect(lab.t.rule).toMatch(/^STE-S/);
    for (const Config of [0, 1, 2, 3]) {
      lab.ste(3 + Config, { Config });
      expect(lab.go(3 + Config, 0x1000n)).toBe(abort(0, false));
    }
  });

  test('an external abort is F_STE_FETCH with the address, and nothing is cached [3.21.3]', () => {
    const lab = new Lab();
    lab.regs.strtabLo = 0x2000_0000;
    expect(lab.go(1, 0x1000n)).toBe(abort(F_STE_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([0, 0x2000_0040]);
    lab.memory.addRegion(0x2000_0000n, 0x1000n);
    expect(lab.go(1, 0x1000n)).toBe(abort(C_BAD_STE));
  });

  test('a base beyond OAS: F_STE_FETCH, or cut, as chosen [3.4.3]', () => {
    for (const [choice, expected] of [
      ['fault', abort(F_STE_FETCH)],
      ['truncate', '0x1000'],
    ] as const) {
      const lab = new Lab(labCaps(), { choices: { streamTableBeyondOas: choice } });
      lab.ste(1, BYPASS);
      lab.regs.strtabHi = 1 << 20;
      expect(lab.go(1, 0x1000n)).toBe(expected);
    }
  });
});

describe('two-level Stream table [5.1, 7.3.3]', () => {
  function twoLevel(SPLIT = 6, LOG2SIZE = 12) {
    const lab = new Lab();
    Object.assign(lab.regs, { twoLevel: true, SPLIT, LOG2SIZE, RECINVSID: true });
    const point = (index: number, array: bigint, Span: number): void =>
      lab.write(RAM + BigInt(index) * 8n, L1STD.encode({ Span, L2Ptr: array >> 6n }));
    return { lab, point };
  }

  for (const SPLIT of [6, 8, 10])
    test(`SPLIT ${SPLIT}: every Span bounds the index, reserved ones are C_BAD_STREAMID`, () => {
      const { lab, point } = twoLevel(SPLIT);
      const array = lab.pages(0x1_0000);
      for (let i = 0; i < 2 ** SPLIT; i++) lab.memory.write64(array + BigInt(i) * 64n, 0x9n);
      for (let at = 0; at < 2 ** SPLIT; at++) lab.memory.write64(array + BigInt(at) * 64n + 8n, 0x1000_0000_0000n);
      for (let Span = 0; Span < 32; Span++) {
        point(1, array, Span);
        lab.smmu.configCache.invalidateAll();
        const count = Span === 0 || Span > SPLIT + 1 ? 0 : 2 ** (Span - 1);
        const sid = 2 ** SPLIT;
        if (count > 0) expect(lab.go(sid + count - 1, 0x1000n)).toBe('0x1000');
        if (count < 2 ** SPLIT) expect(lab.go(sid + count, 0x1000n)).toBe(abort(C_BAD_STREAMID));
      }
    });

  test('L2Ptr is aligned to the size of the array', () => {
    const { lab, point } = twoLevel();
    const array = lab.pages(0x1000);
    lab.write(array + 64n * 3n, Uint32Array.of(9, 0, 0, 0x1000));
    point(0, array + 0x40n, 7);
    expect(lab.go(3, 0x1000n)).toBe('0x1000');
    expect(reads(lab)).toEqual([Step.L1STD, ...Array<number>(8).fill(Step.STE)]);
  });

  test('an L1STD or STE that cannot be read: F_STE_FETCH with its address', () => {
    const { lab, point } = twoLevel();
    point(0, 0x1_0000_0000n, 7);
    expect(lab.go(3, 0x1000n)).toBe(abort(F_STE_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([1, 3 * 64]);
    lab.regs.strtabLo = 0x1000_0000;
    expect(lab.go(64, 0x1000n)).toBe(abort(F_STE_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([0, 0x1000_0008]);
  });

  test('a cached L1STD, Span=0 included, goes with CFGI_STE Leaf=0 and not with Leaf=1 [4.3.1]', () => {
    const { lab, point } = twoLevel();
    const array = lab.pages();
    lab.write(array + 64n * 3n, Uint32Array.of(9, 0, 0, 0x1000));
    expect(lab.go(3, 0x1000n)).toBe(abort(C_BAD_STREAMID));
    point(0, array, 7);
    lab.smmu.configCache.invalidateSte(3, true);
    expect(lab.go(3, 0x1000n)).toBe(abort(C_BAD_STREAMID));
    lab.smmu.configCache.invalidateSte(3, false);
    expect(lab.go(3, 0x1000n)).toBe('0x1000');
    point(0, array, 0);
    lab.smmu.configCache.invalidateSteRange(0, 6);
    expect(lab.go(3, 0x1000n)).toBe(abort(C_BAD_STREAMID));
  });
});

/** Stream 1 with a CD table; the CD of an index puts its number into the page it maps 0x1000 to. */
function substreams(S1Fmt: 0 | 1 | 2 | 3, S1CDMax: number, ste: Parameters<Lab['ste']>[1] = {}) {
  const lab = new Lab();
  const table = lab.pages(0x10_0000);
  const leaves = new Map<number, bigint>();
  const log2 = S1Fmt === 1 ? 6 : 10;
  const place = (index: number): bigint => {
    if (S1Fmt === 0 || S1Fmt === 3) return table + BigInt(index) * 64n;
    const l1 = index >>> log2;
    let leaf = leaves.get(l1);
    if (leaf === undefined) {
      leaf = lab.pages(2 ** (log2 + 6));
      leaves.set(l1, leaf);
      lab.write(table + BigInt(l1) * 8n, L1CD.encode({ V: 1, L2Ptr: leaf >> 12n }));
    }
    return leaf + BigInt(index & (2 ** log2 - 1)) * 64n;
  };
  const add = (index: number): void => {
    const root = lab.pages();
    lab.map(1, root, 0x1000n, RAM + BigInt(index) * 0x1000n);
    lab.cd({ TTB0: root >> 4n, ASID: index & 0xffff }, place(index));
  };
  lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: table >> 6n, S1Fmt, S1CDMax, ...ste });
  const go = (ssid: number | null): string =>
    ssid === null ? lab.go(1, 0x1000n) : lab.go(1, 0x1000n, { SSV: true, SubstreamID: ssid });
  return { lab, add, place, go, table };
}

describe('SubstreamIDs [5.2 S1CDMax, S1DSS, S1Fmt, 7.3.7, 7.3.9]', () => {
  for (const [S1Fmt, indices] of [
    [0, [0, 1, 200]],
    [3, [0, 200]],
    [1, [0, 63, 64, 200]],
    [2, [0, 63, 1023, 1024, 4095]],
  ] as const)
    test(`S1Fmt ${S1Fmt}: the CD of each index is its own`, () => {
      const { add, go } = substreams(S1Fmt, 12);
      for (const index of indices) add(index);
      for (const index of indices) expect(go(index)).toBe(hex(RAM + BigInt(index) * 0x1000n));
      expect(go(4096)).toBe(abort(C_BAD_SUBSTREAMID));
    });

  test('without a SubstreamID: S1DSS 00 and 11 F_STREAM_DISABLED, 01 bypass, 10 CD 0 and SSID 0 disabled', () => {
    for (const [S1DSS, plain, zero] of [
      [0, abort(F_STREAM_DISABLED), hex(RAM)],
      [1, '0x1000', hex(RAM)],
      [2, hex(RAM), abort(F_STREAM_DISABLED)],
      [3, abort(F_STREAM_DISABLED), hex(RAM)],
    ] as const) {
      const { add, go } = substreams(0, 4, { S1DSS });
      add(0);
      expect([go(null), go(0)]).toEqual([plain, zero]);
    }
  });

  test('S1CDMax=0: one CD, and any SubstreamID is C_BAD_SUBSTREAMID', () => {
    const { add, go } = substreams(0, 0, { S1DSS: 0 });
    add(0);
    expect([go(null), go(0)]).toEqual([hex(RAM), abort(C_BAD_SUBSTREAMID)]);
  });

  test('SSIDSIZE=0: S1CDMax, S1Fmt and S1DSS are IGNORED', () => {
    const lab = new Lab(labCaps({}, { SSIDSIZE: 0 }));
    const root = lab.pages();
    lab.map(1, root, 0x1000n, RAM);
    const cd = lab.cd({ TTB0: root >> 4n });
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, S1CDMax: 31, S1Fmt: 1, S1DSS: 0 });
    expect(lab.go(1, 0x1000n)).toBe(hex(RAM));
    expect(lab.go(1, 0x1000n, { SSV: true })).toBe(abort(C_BAD_SUBSTREAMID));
  });

  test('a SubstreamID where stage 1 is off: C_BAD_SUBSTREAMID', () => {
    const lab = new Lab();
    lab.ste(1, BYPASS);
    expect(lab.go(1, 0x1000n, { SSV: true, SubstreamID: 5 })).toBe(abort(C_BAD_SUBSTREAMID));
  });

  test('L1CD: V=0 and a pointer beyond OAS are C_BAD_SUBSTREAMID, an unreadable one F_CD_FETCH', () => {
    const { lab, go, table } = substreams(1, 12);
    expect(go(5)).toBe(abort(C_BAD_SUBSTREAMID));
    lab.write(table + 8n, L1CD.encode({ V: 1, L2Ptr: 1n << 38n }));
    expect(go(64)).toBe(abort(C_BAD_SUBSTREAMID));
    lab.write(table + 16n, L1CD.encode({ V: 1, L2Ptr: 0x1_0000_0000n >> 12n }));
    expect(go(129)).toBe(abort(F_CD_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([1, 64]);
  });

  test('CD: V=0 and ILLEGAL are C_BAD_CD and name the rule; F_CD_FETCH with the address', () => {
    const { lab, add, place, go } = substreams(0, 4);
    expect(go(1)).toBe(abort(C_BAD_CD));
    expect(lab.t.rule).toBe('V');
    add(2);
    lab.cd({ T0SZ: 3 }, place(2));
    expect(go(2)).toBe(abort(C_BAD_CD));
    expect(lab.t.rule).toMatch(/^CD-C/);
    lab.ste(2, { Config: 'S1_TRANS', S1ContextPtr: 0x1_0000_0000n >> 6n });
    expect(lab.go(2, 0x1000n)).toBe(abort(F_CD_FETCH));
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([1, 0]);
  });

  test('the last S1CDMax of 20 bits', () => {
    const { add, go } = substreams(2, 20);
    add(0xf_ffff);
    expect(go(0xf_ffff)).toBe(hex(RAM + 0xf_ffffn * 0x1000n));
    expect(go(0x10_0000)).toBe(abort(C_BAD_SUBSTREAMID));
  });
});

describe('CD tables behind stage 2 [5.5, 7.3.13]', () => {
  function nested(S1Fmt: 0 | 1) {
    const lab = new Lab();
    const s2 = lab.pages();
    for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, s2, ipaOf(at), at, {}, { level: 2 });
    const table = lab.pages();
    lab.ste(1, { Config: 'NESTED', S1ContextPtr: ipaOf(table) >> 6n, S1Fmt, S1CDMax: 8, ...lab.s2(s2, 1) });
    return { lab, s2, table };
  }

  test('a stage 2 fault on the CD or L1CD: S2=1, CLASS=CD, IPA of the structure, by S2R and S2S', () => {
    const { lab, s2, table } = nested(1);
    const lost = 1n << 43n;
    lab.write(table, L1CD.encode({ V: 1, L2Ptr: lost >> 12n }));
    expect(lab.go(1, 0x1000n, { SSV: true, SubstreamID: 3 })).toBe(
      `Abort event=0x10 S2=1 ipa=${hex(lost + 192n)} class=0`,
    );
    lab.ste(1, { Config: 'NESTED', S1ContextPtr: lost >> 6n, S1Fmt: 1, S1CDMax: 8, ...lab.s2(s2, 1), S2R: 0 });
    lab.smmu.configCache.invalidateAll();
    expect(lab.go(1, 0x1000n, { SSV: true, SubstreamID: 64 })).toBe(
      `Abort event=0x10 unrecorded S2=1 ipa=${hex(lost + 8n)} class=0`,
    );
  });

  test('L1CD.L2Ptr beyond IAS: C_BAD_SUBSTREAMID [3.4.3]', () => {
    const { lab, table } = nested(1);
    lab.write(table, L1CD.encode({ V: 1, L2Ptr: 1n << 38n }));
    expect(lab.go(1, 0x1000n, { SSV: true, SubstreamID: 3 })).toBe(abort(C_BAD_SUBSTREAMID));
  });
});

describe('what stays cached [3.21.3, 4.3]', () => {
  test('a CD, V=0 included, until CFGI_CD of its stream and index; another stream keeps its own copy', () => {
    const { lab, add, go, table } = substreams(0, 4);
    lab.ste(2, { Config: 'S1_TRANS', S1ContextPtr: table >> 6n, S1CDMax: 4 });
    const other = (): string => lab.go(2, 0x1000n, { SSV: true, SubstreamID: 3 });
    expect([go(3), other()]).toEqual([abort(C_BAD_CD), abort(C_BAD_CD)]);
    add(3);
    expect(go(3)).toBe(abort(C_BAD_CD));
    lab.smmu.configCache.invalidateCd(1, 2, true);
    expect(go(3)).toBe(abort(C_BAD_CD));
    lab.smmu.configCache.invalidateCd(1, 3, true);
    expect([go(3), other()]).toEqual([hex(RAM + 0x3000n), abort(C_BAD_CD)]);
    lab.smmu.configCache.invalidateCdAll(2);
    expect(other()).toBe(hex(RAM + 0x3000n));
  });

  test('an L1CD, V=0 included, until CFGI_CD Leaf=0, CFGI_CD_ALL or CFGI_STE', () => {
    for (const drop of [
      (lab: Lab) => lab.smmu.configCache.invalidateCd(1, 70, false),
      (lab: Lab) => lab.smmu.configCache.invalidateCdAll(1),
      (lab: Lab) => lab.smmu.configCache.invalidateSte(1, true),
    ]) {
      const { lab, add, go } = substreams(1, 12);
      expect(go(65)).toBe(abort(C_BAD_SUBSTREAMID));
      add(65);
      lab.smmu.configCache.invalidateCd(1, 65, true);
      expect(go(65)).toBe(abort(C_BAD_SUBSTREAMID));
      drop(lab);
      expect(go(65)).toBe(hex(RAM + 65n * 0x1000n));
    }
  });

  test('CFGI_STE_RANGE takes the aligned block and no more; CFGI_ALL everything', () => {
    const lab = new Lab();
    for (let sid = 0; sid < 16; sid++) lab.ste(sid, BYPASS);
    for (let sid = 0; sid < 16; sid++) lab.go(sid, 0n);
    lab.smmu.configCache.invalidateSteRange(5, 1);
    expect(lab.smmu.configCache.streams().map(({ sid }) => sid)).toEqual([0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]);
    lab.smmu.configCache.invalidateSteRange(9, 30);
    expect(lab.smmu.configCache.streams()).toEqual([]);
    lab.go(3, 0n);
    lab.smmu.configCache.invalidateAll();
    expect(lab.smmu.configCache.streams()).toEqual([]);
  });

  test('SMMUEN=0 fetches and caches nothing, and does not drop what is cached [3.11]', () => {
    const lab = new Lab();
    lab.ste(1, BYPASS);
    lab.regs.SMMUEN = false;
    lab.go(1, 0x1000n);
    expect(lab.smmu.configCache.streams()).toEqual([]);
    lab.regs.SMMUEN = true;
    lab.go(1, 0x1000n);
    lab.regs.SMMUEN = false;
    lab.ste(1, { Config: 'ABORT' });
    lab.go(1, 0x1000n);
    lab.regs.SMMUEN = true;
    expect(lab.go(1, 0x1000n)).toBe('0x1000');
  });

  test('a cached STE names its VMID; changing VMIDs in memory does not change that', () => {
    const lab = new Lab();
    lab.ste(1, { Config: 'S2_TRANS', ...lab.s2(lab.pages(), 9) });
    lab.go(1, 0x1000n);
    lab.ste(1, BYPASS);
    expect(lab.smmu.configCache.holdersOf(9)).toEqual([1]);
    lab.smmu.configCache.invalidateSte(1, true);
    expect(lab.smmu.configCache.holdersOf(9)).toEqual([]);
  });

  test('with the cache off every transaction reads anew', () => {
    const lab = new Lab(labCaps(), { configCache: NO_CONFIG_CACHE });
    lab.ste(1, BYPASS);
    expect(lab.go(1, 0x1000n)).toBe('0x1000');
    lab.ste(1, { Config: 'ABORT' });
    expect(lab.go(1, 0x1000n)).toBe(abort(0, false));
  });

  test('a full cache forgets the stream it fetched first, with its CDs', () => {
    const lab = new Lab(labCaps(), { configCache: { streams: 2, cds: 2, l1stds: 2 } });
    for (const sid of [1, 2, 3]) lab.ste(sid, BYPASS);
    for (const sid of [1, 2, 3]) lab.go(sid, 0n);
    expect(lab.smmu.configCache.streams().map(({ sid }) => sid)).toEqual([2, 3]);
  });
});

describe('A, R, S and S2R, S2S [5.5]', () => {
  const cases: readonly [number, number, number, string][] = [
    [0, 0, 0, 'RazWi event=0x10 unrecorded S2=0'],
    [0, 1, 0, 'RazWi event=0x10 S2=0'],
    [1, 0, 0, 'Abort event=0x10 unrecorded S2=0'],
    [1, 1, 0, 'Abort event=0x10 S2=0'],
    [0, 0, 1, 'Stall event=0x10 S2=0'],
    [1, 1, 1, 'Stall event=0x10 S2=0'],
  ];
  for (const [A, R, S, expected] of cases)
    test(`stage 1, A=${A} R=${R} S=${S}`, () => {
      const lab = new Lab();
      lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: lab.pages() >> 4n, A, R, S }) >> 6n });
      expect(lab.go(1, 0x1000n)).toBe(expected);
      expect(lab.go(1, 0x1000n, { isSpeculative: true })).toBe('Abort event=0x10 unrecorded S2=0');
    });

  for (const [S2R, S2S, expected] of [
    [0, 0, 'Abort event=0x10 unrecorded S2=1 ipa=0x1000 class=2'],
    [1, 0, 'Abort event=0x10 S2=1 ipa=0x1000 class=2'],
    [0, 1, 'Stall event=0x10 S2=1 ipa=0x1000 class=2'],
  ] as const)
    test(`stage 2, S2R=${S2R} S2S=${S2S}`, () => {
      const lab = new Lab();
      lab.ste(1, { Config: 'S2_TRANS', ...lab.s2(lab.pages(), 1), S2R, S2S });
      expect(lab.go(1, 0x1000n)).toBe(expected);
    });

  test('external aborts and configuration errors abort and are recorded whatever A, R and S say', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.memory.write64(root, 0x1_0000_0003n);
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, A: 0, R: 0, S: 1 }) >> 6n });
    expect(lab.go(1, 0x1000n)).toBe(abort(0x0b));
  });

  test('a stage 1 that takes no part faults by itself: always abort, always recorded [3.4]', () => {
    const lab = new Lab();
    lab.ste(1, { Config: 'S2_TRANS', ...lab.s2(lab.pages(), 1), S2R: 0, S2S: 1 });
    expect(lab.go(1, 1n << 48n)).toBe('Abort event=0x11 S2=0');
    lab.ste(2, BYPASS);
    expect(lab.go(2, 1n << 48n)).toBe('Abort event=0x11 S2=0');
    expect([lab.t.CLASS, lab.t.access]).toEqual([2, Access.Untranslated]);
  });
});

describe('small two-level CD tables [5.2 S1Fmt: S1ContextPtr is aligned to the level 1 table, 64 bytes at least]', () => {
  test.each([
    ['TWO_LEVEL_4KB', 1],
    ['TWO_LEVEL_4KB', 2],
    ['TWO_LEVEL_4KB', 6],
    ['TWO_LEVEL_64KB', 1],
    ['TWO_LEVEL_64KB', 6],
    ['TWO_LEVEL_64KB', 10],
  ] as const)('%s with S1CDMax = %i, at an address aligned to no more than 64 bytes', (S1Fmt, S1CDMax) => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, 0x1000n, 0x6000_0000n);
    const leaf = lab.pages(0x1_0000);
    lab.cd({ TTB0: root >> 4n }, leaf + 64n);
    const table = lab.pages() + 0x340n;
    lab.write(table, L1CD.encode({ V: 1, L2Ptr: leaf >> 12n }));
    lab.ste(5, { Config: 'S1_TRANS', S1Fmt, S1CDMax, S1ContextPtr: table >> 6n });
    expect(lab.go(5, 0x1000n, { SSV: true, SubstreamID: 1 })).toBe('0x60000000');
  });
});
