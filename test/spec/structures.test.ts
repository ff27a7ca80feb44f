import { describe, expect, test } from 'vitest';
import { capsOf, featureMet } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import {
  descriptorKind,
  GEOMETRY,
  type Granule,
  type Level,
  pte1,
  pte2,
  stage1StartLevel,
} from '../../spec/descriptors.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../../spec/id-registers.ts';
import { fromQwords, LayoutError, toQwords } from '../../spec/layout.ts';
import { effectivePS } from '../../spec/sizes.ts';
import { STE } from '../../spec/ste.ts';
import { streamWorld, vmidUsed } from '../../spec/stream-world.ts';
import { sampleCaps } from './caps-samples.ts';

describe('records written by Linux 7.2', () => {
  test('a stage 1 STE: word 0 0x44a1700b, word 1 0xd6 (recorded)', () => {
    const ste = fromQwords([0x44a1700bn, 0xd6n, 0n, 0n, 0n, 0n, 0n, 0n]);
    const { V, Config, S1Fmt, S1CDMax, S1DSS, S1CIR, S1COR, S1CSH, EATS } = STE.decode(ste);
    expect({ V, Config, S1Fmt, S1CDMax }).toEqual({ V: 1n, Config: 5n, S1Fmt: 0n, S1CDMax: 0n });
    expect({ S1DSS, S1CIR, S1COR, S1CSH, EATS }).toEqual({ S1DSS: 2n, S1CIR: 1n, S1COR: 1n, S1CSH: 3n, EATS: 0n });
    expect(STE.address(ste, 'S1ContextPtr')).toBe(0x44a17000n);
    expect(STE.valueName('Config', Config)).toBe('S1_TRANS');
  });

  test('a stage 2 STE: word 2 0x044C3594_0000vvvv, OAS 44 (recorded)', () => {
    const word2 = toQwords(
      STE.encode({
        S2VMID: 0x1234,
        S2T0SZ: 20,
        S2SL0: 2,
        S2IR0: 'WB_RA_WA',
        S2OR0: 'WB_RA_WA',
        S2SH0: 'ISH',
        S2TG: '4KB',
        S2PS: 'BITS_44',
        S2AA64: 1,
        S2PTW: 1,
        S2R: 1,
      }),
    )[2];
    expect(word2).toBe(0x044c3594_00001234n);
  });

  test('a CD: word 0 0xaaaa_E204_C000_3510, 16 KB granule 3590 (recorded)', () => {
    const fields = {
      T0SZ: 16,
      IR0: 1,
      OR0: 1,
      SH0: 3,
      EPD1: 1,
      V: 1,
      IPS: 4,
      AA64: 1,
      R: 1,
      A: 1,
      ASET: 1,
      ASID: 0x1,
    } as const;
    expect(toQwords(CD.encode(fields))[0]).toBe(0x0001_e204_c000_3510n);
    expect(toQwords(CD.encode({ ...fields, TG0: '16KB' }))[0]).toBe(0x0001_e204_c000_3590n);
  });

  test('values that do not fit, unknown names and unknown encodings are refused', () => {
    expect(() => STE.encode({ S2VMID: 0x10000 })).toThrow(LayoutError);
    expect(() => STE.set(STE.zero(), 'Config', 'NESTD')).toThrow(LayoutError);
    expect(() => STE.field('S2VMD' as 'S2VMID')).toThrow(LayoutError);
  });
});

describe('ID registers of QEMU, both stages (recorded)', () => {
  const caps = capsOf({ IDR0: 0x0d44101b, IDR1: 0x02730010, IDR3: 0x1414, IDR5: 0x74, AIDR: 1 });
  test('decoded', () => {
    expect(caps).toMatchObject({ S1P: true, S2P: true, TTF: 2, COHACC: true, ASID16: true, VMID16: true, HTTU: 0 });
    expect(caps).toMatchObject({ STALL_MODEL: 1, TERM_MODEL: true, TTENDIAN: 2, ST_LEVEL: 1, CD2L: false, ATS: false });
    expect(caps).toMatchObject({ CMDQS: 19, EVENTQS: 19, SIDSIZE: 16, SSIDSIZE: 0, BBML: 2, RIL: true, HAD: true });
    expect(caps).toMatchObject({ GRAN4K: true, GRAN16K: true, GRAN64K: true, OAS: 44, IAS: 44, minor: 1, vaBits: 48 });
    expect(caps).toMatchObject({ asidBits: 16, vmidBits: 16, XNX: true, FWB: false, STT: false });
  });
  test('the same values from fields', () => {
    expect(
      IDR0.value({
        S1P: 1,
        S2P: 1,
        TTF: 'AARCH64',
        COHACC: 1,
        ASID16: 1,
        VMID16: 1,
        TTENDIAN: 'LITTLE',
        STALL_MODEL: 'NO_STALL',
        TERM_MODEL: 1,
        ST_LEVEL: 'TWO_LEVEL',
      }),
    ).toBe(0x0d44101b);
    expect(IDR1.value({ CMDQS: 19, EVENTQS: 19, SIDSIZE: 16 })).toBe(0x02730010);
    expect(IDR3.value({ BBML: 2, RIL: 1, HAD: 1, XNX: 1 })).toBe(0x1414);
    expect(IDR5.value({ GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, OAS: 'BITS_44' })).toBe(0x74);
  });
  test('features', () => {
    expect(featureMet(undefined, caps)).toBe(true);
    expect(featureMet('IDR3.RIL', caps)).toBe(true);
    expect(featureMet('!IDR3.RIL', caps)).toBe(false);
    expect(featureMet('IDR0.TTF=2', caps)).toBe(true);
    expect(featureMet('IDR0.TTF=3', caps)).toBe(false);
    expect(featureMet('AIDR.ArchMinorRev>=1', caps)).toBe(true);
    expect(featureMet('AIDR.ArchMinorRev>=2', caps)).toBe(false);
    expect(featureMet(['IDR0.S1P', 'IDR3.FWB'], caps)).toBe(false);
    expect(featureMet('S_IDR1.SEL2', caps)).toBe(false);
    expect(() => featureMet('IDR0.S1P & IDR0.S2P', caps)).toThrow(LayoutError);
    expect(() => featureMet('IDR0.S3P', caps)).toThrow(LayoutError);
  });
});

test('IAS is 40 bits at least with VMSAv8-32 [3.4]', () => {
  expect(sampleCaps({ IDR0: { TTF: 3 }, IDR5: { OAS: 1 } })).toMatchObject({ OAS: 36, IAS: 40 });
  expect(sampleCaps({ IDR0: { TTF: 2 }, IDR5: { OAS: 1 } })).toMatchObject({ OAS: 36, IAS: 36 });
});

test('effective output size by encoding and version [5.2 S2PS]', () => {
  const at = (minor: number): number[] => [0, 1, 2, 3, 4, 5, 6, 7].map((ps) => effectivePS(ps, { OAS: 56, minor }));
  expect(at(0)).toEqual([32, 36, 40, 42, 44, 48, 48, 48]);
  expect(at(3)).toEqual([32, 36, 40, 42, 44, 48, 52, 52]);
  expect(at(4)).toEqual([32, 36, 40, 42, 44, 48, 52, 56]);
  expect(effectivePS(6, { OAS: 44, minor: 4 })).toBe(44);
});

describe('StreamWorld and VMIDs of Non-secure STEs [5.2 STRW, S2VMID]', () => {
  const world = (fields: Parameters<typeof STE.encode>[0], caps = sampleCaps(), e2h = false): unknown[] => {
    const ste = STE.encode({ V: 1, ...fields });
    return [streamWorld(ste, caps, e2h), vmidUsed(ste, caps)];
  };
  test('as tabled', () => {
    expect(world({ Config: 'NESTED', STRW: 2 })).toEqual(['NS-EL1', true]);
    expect(world({ Config: 'S2_TRANS' })).toEqual(['NS-EL1', true]);
    expect(world({ Config: 'S1_TRANS' })).toEqual(['NS-EL1', true]);
    expect(world({ Config: 'S1_TRANS', STRW: 2 })).toEqual(['NS-EL2', false]);
    expect(world({ Config: 'S1_TRANS', STRW: 2 }, sampleCaps(), true)).toEqual(['NS-EL2-E2H', false]);
    expect(world({ Config: 'S1_TRANS', STRW: 2 }, sampleCaps({ IDR0: { Hyp: 0 } }))).toEqual(['NS-EL1', true]);
    expect(world({ Config: 'S1_TRANS' }, sampleCaps({ IDR0: { S2P: 0, Hyp: 0 } }))).toEqual(['NS-EL1', false]);
    expect(world({ Config: 'BYPASS' })).toEqual([undefined, false]);
    expect(world({ Config: 'ABORT' })).toEqual([undefined, false]);
  });
});

describe('VMSAv8-64 descriptors [DDI 0487 D8.3]', () => {
  const bits = (granule: Granule, level: Level, kind: 'table' | 'block' | 'page', format = {}): string =>
    pte1(granule, level, kind, format).bits(kind === 'table' ? 'NextLevelTableAddress' : 'OutputAddress');
  test('output addresses as tabled', () => {
    expect(bits('4k', 3, 'page')).toBe('47:12');
    expect(bits('4k', 2, 'block')).toBe('47:21');
    expect(bits('4k', 1, 'block')).toBe('47:30');
    expect(bits('4k', 0, 'block', { ds: true })).toBe('9:8,49:39');
    expect(bits('16k', 3, 'page')).toBe('47:14');
    expect(bits('16k', 2, 'block')).toBe('47:25');
    expect(bits('16k', 1, 'block', { ds: true })).toBe('9:8,49:36');
    expect(bits('64k', 3, 'page')).toBe('47:16');
    expect(bits('64k', 3, 'page', { pa52: true })).toBe('15:12,47:16');
    expect(bits('64k', 2, 'table', { pa52: true })).toBe('15:12,47:16');
    expect(bits('64k', 1, 'block', { pa52: true })).toBe('15:12,47:42');
  });
  test('an address above 48 bits is put together', () => {
    const page = pte2('64k', 3, 'page', { pa52: true });
    expect(page.address(fromQwords([0x0000_1234_5678_f003n]), 'OutputAddress')).toBe(0xf_1234_5678_0000n & ~0xffffn);
    const small = pte2('4k', 3, 'page', { ds: true });
    expect(small.address(fromQwords([0x0003_0000_0000_1303n]), 'OutputAddress')).toBe(0xf_0000_0000_1000n);
  });
  test('kinds by type bits and level', () => {
    const kind = (type: bigint, granule: Granule, level: Level, format = {}): string =>
      descriptorKind(fromQwords([type]), granule, level, format);
    expect([0n, 1n, 2n, 3n].map((t) => kind(t, '4k', 3))).toEqual(['invalid', 'invalid', 'invalid', 'page']);
    expect([0n, 1n, 2n, 3n].map((t) => kind(t, '4k', 2))).toEqual(['invalid', 'block', 'invalid', 'table']);
    expect([kind(1n, '4k', 0), kind(1n, '4k', 0, { ds: true })]).toEqual(['invalid', 'block']);
    expect([kind(1n, '16k', 1), kind(1n, '16k', 1, { ds: true })]).toEqual(['invalid', 'block']);
    expect([kind(1n, '64k', 1), kind(1n, '64k', 1, { pa52: true })]).toEqual(['invalid', 'block']);
    expect(kind(1n, '4k', -1, { ds: true })).toBe('invalid');
  });
  test('a layout that does not exist is refused', () => {
    expect(() => pte1('4k', 3, 'block')).toThrow(LayoutError);
    expect(() => pte1('4k', 0, 'block')).toThrow(LayoutError);
    expect(() => pte2('64k', 0, 'table')).toThrow(LayoutError);
    expect(() => pte1('4k', -1, 'table')).toThrow(LayoutError);
  });
  test('level shifts: 3 + (4 - level) * stride', () => {
    const shifts = (g: Granule): number[] => GEOMETRY[g].levels.map(({ shift }) => shift);
    expect(shifts('4k')).toEqual([48, 39, 30, 21, 12]);
    expect(shifts('16k')).toEqual([47, 36, 25, 14]);
    expect(shifts('64k')).toEqual([42, 29, 16]);
  });
  test('stage 1 start levels', () => {
    expect([48, 39, 25, 52].map((n) => stage1StartLevel('4k', n))).toEqual([0, 1, 2, -1]);
    expect([48, 47, 36].map((n) => stage1StartLevel('16k', n))).toEqual([0, 1, 2]);
    expect([52, 48, 42, 29].map((n) => stage1StartLevel('64k', n))).toEqual([1, 1, 2, 3]);
  });
});
