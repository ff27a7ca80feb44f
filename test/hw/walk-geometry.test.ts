/** Where walks start, what they index, and what blocks they accept: every granule, both stages. */
import { describe, expect, test } from 'vitest';
import type { Granule, Level } from '../../spec/descriptors.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Lab, labCaps } from './translation-lab.ts';

const TG0 = { '4k': 0, '16k': 2, '64k': 1 } as const;
const TG1 = { '4k': 2, '16k': 1, '64k': 3 } as const;
const hex = (n: bigint): string => `0x${n.toString(16)}`;
const F_TRANSLATION = 'Abort event=0x10 S2=0';

/** Granule, TxSZ, level the walk starts at (DDI 0487 D8.2), bytes of the largest start table. */
const STAGE1: readonly [Granule, number, Level][] = [
  ['4k', 16, 0],
  ['4k', 24, 0],
  ['4k', 25, 1],
  ['4k', 33, 1],
  ['4k', 34, 2],
  ['4k', 42, 2],
  ['4k', 43, 3],
  ['4k', 48, 3],
  ['16k', 16, 0],
  ['16k', 17, 1],
  ['16k', 27, 1],
  ['16k', 28, 2],
  ['16k', 38, 2],
  ['16k', 39, 3],
  ['16k', 48, 3],
  ['64k', 16, 1],
  ['64k', 21, 1],
  ['64k', 22, 2],
  ['64k', 34, 2],
  ['64k', 35, 3],
  ['64k', 47, 3],
];

describe('stage 1 start level and range by TxSZ [DDI 0487 D8.2, IHI 0070 3.4.1]', () => {
  for (const [granule, size, start] of STAGE1)
    test(`${granule}, T0SZ and T1SZ ${size}: level ${start}`, () => {
      const lab = new Lab(labCaps(), { tlb: NO_TLB });
      const bits = 64 - size;
      const top = (1n << BigInt(bits)) - 1n;
      const ttb0 = lab.pages(0x1_0000);
      const ttb1 = lab.pages(0x1_0000);
      const cd = lab.cd({
        T0SZ: size,
        TG0: TG0[granule],
        TTB0: ttb0 >> 4n,
        EPD1: 0,
        T1SZ: size,
        TG1: TG1[granule],
        TTB1: ttb1 >> 4n,
      });
      lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n });
      const page = lab.pages(0x1_0000);
      const how = { granule, start, inputBits: bits };
      lab.map(1, ttb0, top & ~0xffffn, page, {}, how);
      const low = top & ~0xffffn;
      lab.map(1, ttb1, low, page, {}, how);
      expect(lab.go(3, low + 0x10n)).toBe(hex(page + 0x10n));
      expect(lab.go(3, ~top | low | 0x20n)).toBe(hex(page + 0x20n));
      // One bit further is out of range on either side.
      expect(lab.go(3, 1n << BigInt(bits))).toBe(F_TRANSLATION);
      expect(lab.go(3, ~top ^ (1n << BigInt(bits)))).toBe(F_TRANSLATION);
    });
});

/** Granule, S2SL0, S2T0SZ, start level, concatenated tables (structures 7.2: VTCR_EL2 tables of DDI 0487). */
const STAGE2: readonly [Granule, number, number, Level, number][] = [
  ['4k', 2, 16, 0, 1],
  ['4k', 2, 24, 0, 1],
  ['4k', 1, 21, 1, 16],
  ['4k', 1, 22, 1, 8],
  ['4k', 1, 24, 1, 2],
  ['4k', 1, 25, 1, 1],
  ['4k', 1, 33, 1, 1],
  ['4k', 0, 30, 2, 16],
  ['4k', 0, 34, 2, 1],
  ['4k', 0, 42, 2, 1],
  ['4k', 3, 39, 3, 16],
  ['4k', 3, 48, 3, 1],
  ['16k', 2, 16, 1, 2],
  ['16k', 2, 27, 1, 1],
  ['16k', 1, 24, 2, 16],
  ['16k', 1, 38, 2, 1],
  ['16k', 0, 35, 3, 16],
  ['16k', 0, 48, 3, 1],
  ['64k', 2, 16, 1, 1],
  ['64k', 2, 21, 1, 1],
  ['64k', 1, 18, 2, 16],
  ['64k', 1, 34, 2, 1],
  ['64k', 0, 31, 3, 16],
  ['64k', 0, 47, 3, 1],
];

describe('stage 2 start level and concatenation by S2SL0 and S2T0SZ [5.2 S2SL0]', () => {
  for (const [granule, sl0, size, start, tables] of STAGE2)
    test(`${granule}, S2SL0 ${sl0}, S2T0SZ ${size}: level ${start}, ${tables} tables`, () => {
      const lab = new Lab(labCaps(), { tlb: NO_TLB });
      const bits = 64 - size;
      const root = lab.pages(0x10_0000);
      const last = ((1n << BigInt(bits)) - 1n) & ~0xffffn;
      const page = lab.pages(0x1_0000);
      lab.map(2, root, last, page, {}, { granule, start, inputBits: bits });
      lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(root, 1), S2T0SZ: size, S2SL0: sl0, S2TG: TG0[granule] });
      expect(lab.go(3, last + 0x123n)).toBe(hex(page + 0x123n));
      const beyond = 1n << BigInt(bits);
      const answer = bits === 48 ? 'Abort event=0x11 S2=0' : `Abort event=0x10 S2=1 ipa=${hex(beyond)} class=2`;
      expect(lab.go(3, beyond)).toBe(answer);
    });
});

/** Granule, level, log2 of the block, log2 of a contiguous run there. */
const BLOCKS: readonly [Granule, Level, number, number][] = [
  ['4k', 1, 30, 34],
  ['4k', 2, 21, 25],
  ['4k', 3, 12, 16],
  ['16k', 2, 25, 30],
  ['16k', 3, 14, 21],
  ['64k', 2, 29, 34],
  ['64k', 3, 16, 21],
];

describe('blocks and contiguous runs [DDI 0487 D8.3, IHI 0070 3.17]', () => {
  for (const stage of [1, 2] as const)
    for (const [granule, level, size, run] of BLOCKS)
      test(`stage ${stage}, ${granule}, level ${level}: ${2 ** (size - 10)} KiB, run of 2^${run - size}`, () => {
        const lab = new Lab();
        const root = lab.pages(0x1_0000);
        const va = 3n << BigInt(run);
        const pa = 5n << BigInt(run);
        const start: Level = granule === '64k' ? 1 : granule === '16k' ? 1 : 0;
        const how = { granule, level, start, inputBits: 47 };
        const one = 1n << BigInt(size);
        lab.map(stage, root, va, pa, { Contiguous: 1 }, how);
        lab.map(stage, root, va + one, pa + one, { Contiguous: 1 }, how);
        lab.map(stage, root, va + (1n << BigInt(run)), pa, {}, how);
        const size1 = { T0SZ: 17, TG0: TG0[granule], TTB0: root >> 4n };
        if (stage === 1) lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd(size1) >> 6n });
        else {
          const sl = granule === '4k' ? 2 : 2;
          lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(root, 1), S2T0SZ: 17, S2SL0: sl, S2TG: TG0[granule] });
        }
        expect(lab.go(3, va + one - 1n)).toBe(hex(pa + one - 1n));
        expect(lab.t.sizeLog2).toBe(run);
        // The neighbour comes out of the same entry.
        expect(lab.go(3, va + one)).toBe(hex(pa + one));
        expect(lab.t.tlbHit).toBe(true);
        expect(lab.go(3, va + (1n << BigInt(run)))).toBe(hex(pa));
        expect([lab.t.tlbHit, lab.t.sizeLog2]).toEqual([false, size]);
      });

  for (const [granule, level] of [
    ['4k', 0],
    ['16k', 1],
    ['64k', 1],
  ] as const)
    test(`${granule} has no block at level ${level} with 48 bits: F_TRANSLATION`, () => {
      const lab = new Lab();
      const root = lab.pages(0x1_0000);
      lab.memory.write64(root, 0x4000_0701n);
      lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ T0SZ: 17, TG0: TG0[granule], TTB0: root >> 4n }) >> 6n });
      expect(lab.go(3, 0x1000n)).toBe(F_TRANSLATION);
    });

  test('at level 3 the block encoding is reserved: F_TRANSLATION [DDI 0487 D8.3]', () => {
    const lab = new Lab();
    const root = lab.pages();
    const at = lab.map(1, root, 0x1000n, 0x4000_0000n);
    lab.memory.write64(at, lab.memory.read64(at) & ~2n);
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    expect(lab.go(3, 0x1000n)).toBe(F_TRANSLATION);
  });
});

/** 52-bit addresses: an SMMU with OAS 52 and DS. */
const caps52 = labCaps({}, {}, {}, { OAS: 6, VAX: 1, DS: 1 });
const HIGH = 0xf_4000_0000_0000n;

function lab52(): Lab {
  const lab = new Lab(caps52);
  lab.memory.addRegion(HIGH, 0x100_0000n);
  return lab;
}

describe('52-bit addresses [3.4, 5.2 S2DS, 5.4 DS]', () => {
  test('64 KB granule: output bits 51:48 stand in [15:12] when IPS is 52; a level 1 block covers 4 TB', () => {
    const lab = lab52();
    const root = HIGH;
    lab.map(
      1,
      root,
      0xf_0000_0001_0000n,
      HIGH + 0x5_0000n,
      {},
      {
        granule: '64k',
        start: 1,
        inputBits: 52,
        format: { pa52: true },
      },
    );
    lab.map(
      1,
      root,
      0x400_0000_0000n,
      0xc_0000_0000_0000n,
      {},
      {
        granule: '64k',
        start: 1,
        level: 1,
        inputBits: 52,
        format: { pa52: true },
      },
    );
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ T0SZ: 12, TG0: 1, TTB0: root >> 4n, IPS: 6 }) >> 6n });
    expect(lab.go(3, 0xf_0000_0001_2345n)).toBe(hex(HIGH + 0x5_2345n));
    expect(lab.go(3, 0x412_3456_789an)).toBe(hex(0xc_0012_3456_789an));
    expect(lab.t.sizeLog2).toBe(42);
  });

  test('64 KB granule: with a smaller IPS, [15:12] are RES0 and are not read', () => {
    const lab = lab52();
    const root = lab.pages(0x1_0000);
    const page = lab.pages(0x1_0000);
    const at = lab.map(1, root, 0x1_0000n, page, {}, { granule: '64k', start: 1 });
    lab.memory.write64(at, lab.memory.read64(at) | 0xf000n);
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TG0: 1, TTB0: root >> 4n, IPS: 5 }) >> 6n });
    expect(lab.go(3, 0x1_0042n)).toBe(hex(page + 0x42n));
  });

  for (const [granule, start] of [
    ['4k', -1],
    ['16k', 0],
  ] as const)
    test(`${granule} with DS: level ${start}, output bits 51:50 in [9:8], shareability from the CD`, () => {
      const lab = lab52();
      const root = lab.pages(0x1_0000);
      const va = 0xf_1234_5678_8000n & ~0x3fffn;
      const pa = HIGH + 0x4000n;
      lab.map(1, root, va, pa, {}, { granule, start, inputBits: 52, format: { ds: true } });
      const cd = { T0SZ: 12, TG0: TG0[granule], TTB0: root >> 4n, IPS: 6, DS: 1, SH0: 3 } as const;
      lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd(cd) >> 6n });
      expect(lab.go(3, va + 0x77n)).toBe(hex(pa + 0x77n));
      expect(lab.t.SH).toBe(3);
      expect(lab.go(3, 1n << 52n)).toBe(F_TRANSLATION);
    });

  for (const [granule, sl0, sl2, start, size, level, block] of [
    ['4k', 0, 1, -1, 12, 0, 39],
    ['16k', 3, 0, 0, 12, 1, 36],
  ] as const)
    test(`${granule} stage 2 with S2DS: start level ${start}, a block of 2^${block} bytes at level ${level}`, () => {
      const lab = lab52();
      const root = lab.pages(0x1_0000);
      const format = { ds: true };
      const ipa = 0xe_0000_0000_0000n;
      lab.map(2, root, ipa, 0x8_0000_0000_0000n, {}, { granule, start, level, inputBits: 52, format });
      lab.map(2, root, 0x4000n, HIGH, {}, { granule, start, inputBits: 52, format });
      lab.ste(3, {
        Config: 'S2_TRANS',
        ...lab.s2(root, 1),
        S2T0SZ: size,
        S2SL0: sl0,
        S2SL0_2: sl2,
        S2DS: 1,
        S2TG: TG0[granule],
        S2PS: 6,
      });
      expect(lab.go(3, ipa + 0x1_2345n)).toBe('0x8000000012345');
      expect(lab.t.sizeLog2).toBe(block);
      expect(lab.go(3, 0x4010n)).toBe(hex(HIGH + 0x10n));
    });
});

describe('output size [7.3.14, 3.4]', () => {
  test('stage 1: a table or page beyond effective IPS is F_ADDR_SIZE', () => {
    const lab = new Lab();
    const root = lab.pages();
    const at = lab.map(1, root, 0x1000n, 1n << 40n);
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, IPS: 2 }) >> 6n });
    expect(lab.go(3, 0x1000n)).toBe('Abort event=0x11 S2=0');
    lab.memory.write64(at, lab.memory.read64(at) & ~(1n << 40n));
    expect(lab.go(3, 0x1000n)).toBe('0x0');
    lab.memory.write64(root, (1n << 41n) | 3n);
    lab.smmu.tlb.clear();
    expect(lab.go(3, 0x1000n)).toBe('Abort event=0x11 S2=0');
  });

  test('stage 2: beyond effective S2PS is F_ADDR_SIZE with S2=1 and the intermediate address', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(2, root, 0x5000n, 1n << 44n);
    lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(root, 1), S2PS: 4 });
    expect(lab.go(3, 0x5678n)).toBe('Abort event=0x11 S2=1 ipa=0x5678 class=2');
  });

  test('an external abort on a table: F_WALK_EABT with the physical address [7.3.12]', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.memory.write64(root, 0x1_0000_0000n | 3n);
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    expect(lab.go(3, 0x40_0000_0000n)).toBe('Abort event=0xb S2=0');
    expect([lab.t.CLASS, lab.t.fetchHi, lab.t.fetchLo]).toEqual([1, 1, 256 * 8]);
    lab.ste(4, { Config: 'S2_TRANS', ...lab.s2(root, 1) });
    expect(lab.go(4, 0x40_0000_0000n)).toContain('event=0xb S2=1');
    expect([lab.t.CLASS, lab.t.fetchHi, lab.t.fetchLo]).toEqual([2, 1, 256 * 8]);
  });
});

describe('table selection [3.4.1, 5.4]', () => {
  function twoHalves(fields: Parameters<Lab['cd']>[0]) {
    const lab = new Lab();
    const [low, high] = [lab.pages(), lab.pages()];
    lab.map(1, low, 0x1000n, 0x4000_1000n);
    lab.map(1, high, 0x1000n, 0x4000_2000n);
    const cd = lab.cd({ TTB0: low >> 4n, EPD1: 0, T1SZ: 16, TG1: 2, TTB1: high >> 4n, ...fields });
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n });
    return lab;
  }
  const HALF1 = 0xffff_0000_0000_1000n;

  test('bit 55 selects TTB0 or TTB1; without TBI the upper bits must agree', () => {
    const lab = twoHalves({});
    expect(lab.go(3, 0x1000n)).toBe('0x40001000');
    expect(lab.go(3, HALF1)).toBe('0x40002000');
    expect(lab.go(3, 0x1200_0000_0000_1000n)).toBe(F_TRANSLATION);
    expect(lab.go(3, 0x00ff_0000_0000_1000n)).toBe(F_TRANSLATION);
  });

  test('TBI0 and TBI1 each free the top byte of their half, and tagged aliases share an entry', () => {
    const lab = twoHalves({ TBI0: 1 });
    expect(lab.go(3, 0x5a00_0000_0000_1000n)).toBe('0x40001000');
    expect(lab.go(3, 0xa500_0000_0000_1000n)).toBe('0x40001000');
    expect(lab.t.tlbHit).toBe(true);
    expect(lab.go(3, 0x12ff_0000_0000_1000n)).toBe(F_TRANSLATION);
    expect(twoHalves({ TBI1: 1 }).go(3, 0x12ff_0000_0000_1000n)).toBe('0x40002000');
  });

  test('EPD0 and EPD1: no walk through that half; its other fields may be anything', () => {
    const lab = twoHalves({ EPD0: 1, T0SZ: 63, TG0: 3 });
    expect(lab.go(3, 0x1000n)).toBe(F_TRANSLATION);
    expect(lab.go(3, HALF1)).toBe('0x40002000');
  });

  test('E0PD: an unprivileged access through the half faults, a privileged one does not', () => {
    const lab = twoHalves({ E0PD1: 1 });
    expect(lab.go(3, HALF1)).toBe(F_TRANSLATION);
    expect(lab.go(3, HALF1, { PnU: true })).toBe('0x40002000');
    expect(lab.go(3, 0x1000n)).toBe('0x40001000');
  });

  test('NS-EL2 has TTB0 only: bit 55 and above must be 0, TBI0 frees 63:56', () => {
    const lab = twoHalves({ EPD0: 1, TBI0: 1 });
    const cd = lab.memory.read64(0x4000_0000n + 3n * 64n) & 0xff_ffff_ffff_ffc0n;
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, STRW: 'EL2' });
    expect(lab.go(3, 0x7700_0000_0000_1000n)).toBe('0x40001000');
    expect(lab.go(3, 0x7780_0000_0000_1000n)).toBe(F_TRANSLATION);
    expect(lab.go(3, HALF1)).toBe(F_TRANSLATION);
  });
});

test('big-endian tables at both stages [5.2 S2ENDI, 5.4 ENDI]', () => {
  const lab = new Lab();
  const swap = (root: bigint, va: bigint): void => {
    for (let table = root, level = 0; level < 4; level++) {
      const at = table + ((va >> BigInt(39 - 9 * level)) & 511n) * 8n;
      const value = lab.memory.read64(at);
      lab.memory.writeBytes(at, lab.memory.readBytes(at, 8).toReversed());
      table = value & 0xffff_ffff_f000n;
    }
  };
  const [s1, s2] = [lab.pages(), lab.pages()];
  lab.map(1, s1, 0x1000n, 0x4567_8000n);
  swap(s1, 0x1000n);
  lab.map(2, s2, 0x2000n, 0x4000_9000n);
  swap(s2, 0x2000n);
  lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: s1 >> 4n, ENDI: 1 }) >> 6n });
  lab.ste(4, { Config: 'S2_TRANS', ...lab.s2(s2, 1), S2ENDI: 1 });
  expect(lab.go(3, 0x1abcn)).toBe('0x45678abc');
  expect(lab.go(4, 0x2abcn)).toBe('0x40009abc');
});
