import { describe, expect, test } from 'vitest';
import { CD } from '../../spec/cd.ts';
import { type Encoding, fromQwords, toQwords, type Words } from '../../spec/layout.ts';
import { linuxCdUsed, linuxSteSafe, linuxSteUsed } from '../../spec/linux-used.ts';
import { STE } from '../../spec/ste.ts';
import { cdFieldIgnored, cdUsed, steFieldIgnored, steUsed } from '../../spec/used.ts';
import { sampleCaps } from './caps-samples.ts';

type Ste = Encoding<typeof STE.fields>;

const used = (fields: Ste, caps = sampleCaps()): string[] => {
  const ste = STE.encode(fields);
  return STE.names.filter((name) => !steFieldIgnored(name, ste, caps));
};

describe('STE fields used, by Config [table of 5.2, 5.2.1, 13.5]', () => {
  const BYPASS = ['V', 'Config', 'CONT', 'MEV', 'MTCFG', 'ALLOCCFG', 'SHCFG', 'PRIVCFG', 'INSTCFG'];
  const same = (actual: string[], expected: string[]): void => {
    expect(actual.toSorted()).toEqual(expected.toSorted());
  };
  const S2 = ['S2T0SZ', 'S2SL0', 'S2IR0', 'S2OR0', 'S2SH0', 'S2TG', 'S2PS', 'S2AA64', 'S2ENDI', 'S2AFFD', 'S2HD'];
  const S2_MORE = ['S2HA', 'S2S', 'S2R', 'S2FWB', 'S2TTB', 'S2VMID', 'EATS', 'DRE', 'DCP'];
  const S1 = ['S1ContextPtr', 'S1CDMax', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD'];
  const without = (names: string[], ...gone: string[]): string[] => names.filter((name) => !gone.includes(name));

  test('V=0 and abort', () => {
    expect(used({ Config: 7, S1CDMax: 3 })).toEqual(['V']);
    for (const Config of [0, 1, 2, 3]) expect(used({ V: 1, Config, S2VMID: 1 })).toEqual(['V', 'Config']);
  });
  test('bypass', () => {
    same(used({ V: 1, Config: 4 }), BYPASS);
    same(used({ V: 1, Config: 4, MTCFG: 1 }), [...BYPASS, 'MemAttr']);
  });
  test('stage 1', () => {
    const expected = [...without(BYPASS, 'SHCFG'), ...S1, 'S2VMID', 'STRW', 'EATS', 'DRE', 'DCP'];
    same(used({ V: 1, Config: 5 }), expected);
    same(used({ V: 1, Config: 5, STRW: 2 }), without(expected, 'S2VMID'));
    same(used({ V: 1, Config: 5, S1CDMax: 2 }), [...expected, 'S1Fmt', 'S1DSS']);
    same(used({ V: 1, Config: 5, S1CDMax: 2, S1DSS: 1 }), [...expected, 'S1Fmt', 'S1DSS', 'SHCFG']);
    same(used({ V: 1, Config: 5, S1DSS: 1 }), expected);
  });
  test('stage 2', () => {
    same(used({ V: 1, Config: 6, S2AA64: 1 }), [...BYPASS, ...S2, ...S2_MORE]);
    same(used({ V: 1, Config: 6, S2AA64: 1, S2HA: 1 }), without([...BYPASS, ...S2, ...S2_MORE], 'S2AFFD'));
  });
  test('both', () => {
    same(used({ V: 1, Config: 7, S2AA64: 1, STRW: 2 }), [
      ...without(BYPASS, 'SHCFG'),
      ...S1,
      ...S2,
      ...S2_MORE,
      'S2PTW',
    ]);
  });
  test('features', () => {
    expect(used({ V: 1, Config: 5 }, sampleCaps({ IDR0: { S2P: 0, Hyp: 0 } }))).not.toContain('S2VMID');
    expect(used({ V: 1, Config: 5 }, sampleCaps({ IDR0: { ATS: 0 } }))).not.toContain('EATS');
    expect(used({ V: 1, Config: 5, S1CDMax: 2 }, sampleCaps({ IDR1: { SSIDSIZE: 0 } }))).not.toContain('S1Fmt');
    expect(used({ V: 1, Config: 4 }, sampleCaps({ IDR1: { ATTR_TYPES_OVR: 0 } }))).not.toContain('SHCFG');
    const mpam = sampleCaps({ IDR3: { MPAM: 1 }, MPAMIDR: 7 });
    expect(used({ V: 1, Config: 7, S1MPAM: 1 }, mpam)).toContain('VMSPtr');
    expect(used({ V: 1, Config: 7, S1MPAM: 0 }, mpam)).not.toContain('VMSPtr');
    expect(used({ V: 1, Config: 7, S1MPAM: 1 }, sampleCaps({ IDR3: { MPAM: 1 } }))).not.toContain('VMSPtr');
  });
  test('the mask is the union of the fields', () => {
    const ste = STE.encode({ V: 1, Config: 4 });
    expect(toQwords(steUsed(ste, sampleCaps())).slice(0, 3)).toEqual([0xfn, 0x000f_31f0_0009_e000n, 0n]);
  });
});

describe('CD fields used [5.4]', () => {
  const caps = sampleCaps();
  test('V=0: V alone', () => {
    expect(toQwords(cdUsed(CD.encode({ AA64: 1 }), caps))).toEqual([0x8000_0000n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
  });
  test('a disabled half', () => {
    const cd = CD.encode({ V: 1, AA64: 1, EPD0: 1 });
    for (const name of ['T0SZ', 'TG0', 'IR0', 'OR0', 'SH0', 'TTB0'])
      expect(cdFieldIgnored(name, cd, caps), name).toBe(true);
    for (const name of ['T1SZ', 'TTB1', 'ENDI', 'ASID', 'MAIR0'])
      expect(cdFieldIgnored(name, cd, caps), name).toBe(false);
    CD.set(cd, 'EPD1', 1);
    expect(cdFieldIgnored('ENDI', cd, caps)).toBe(true);
  });
  test('EL2 has TTB0 alone, whatever EPD0 says, and no ASID', () => {
    const cd = CD.encode({ V: 1, AA64: 1, EPD0: 1 });
    const ignored = (name: string): boolean => cdFieldIgnored(name, cd, caps, { streamWorld: 'NS-EL2' });
    expect(['TTB0', 'T0SZ', 'ENDI'].map(ignored)).toEqual([false, false, false]);
    expect(['TTB1', 'T1SZ', 'EPD0', 'EPD1', 'ASID', 'PAN', 'TBI1'].map(ignored)).toEqual(Array(7).fill(true));
  });
  test('AFFD counts only without HA', () => {
    expect(cdFieldIgnored('AFFD', CD.encode({ V: 1, AA64: 1 }), caps)).toBe(false);
    expect(cdFieldIgnored('AFFD', CD.encode({ V: 1, AA64: 1, HA: 1 }), caps)).toBe(true);
  });
});

describe('bits Linux 7.2 takes as used [arm_smmu_get_ste_used, arm_smmu_get_cd_used]', () => {
  const q = (words: Words): bigint[] => toQwords(words);
  const ste = (fields: Ste): bigint[] => q(linuxSteUsed(STE.encode(fields))).slice(0, 4);
  // Masks written out from the kernel's GENMASK_ULL definitions.
  const S1_Q0 = 0xf80f_ffff_ffff_fff1n | 0xen;
  const S1_Q1 = 0x0000_0000_f808_00ffn;
  test('by Config', () => {
    expect(ste({ Config: 7 })).toEqual([1n, 0n, 0n, 0n]);
    expect(ste({ V: 1, Config: 0 })).toEqual([0xfn, 0n, 0n, 0n]);
    expect(ste({ V: 1, Config: 4 })).toEqual([0xfn, 0x0000_3000_0000_0000n, 0n, 0n]);
    expect(ste({ V: 1, Config: 5 })).toEqual([S1_Q0, S1_Q1, 0xffffn, 0n]);
    expect(ste({ V: 1, Config: 5, S1DSS: 1 })).toEqual([S1_Q0, S1_Q1 | 0x0000_3000_0000_0000n, 0xffffn, 0n]);
    expect(ste({ V: 1, Config: 6 })).toEqual([
      0xfn,
      0x0000_3000_3208_0000n,
      0x065f_ffff_0000_ffffn,
      0x000f_ffff_ffff_fff0n,
    ]);
  });
  test('a CD loses the fields of TTB0 with EPD0', () => {
    expect(q(linuxCdUsed(CD.encode({})))[0]).toBe(0x8000_0000n);
    const all = 0xffff_ffff_ffff_ffffn;
    expect(q(linuxCdUsed(CD.encode({ V: 1 })))).toEqual(Array(8).fill(all));
    expect(q(linuxCdUsed(CD.encode({ V: 1, EPD0: 1 }))).slice(0, 3)).toEqual([
      0xffff_ffff_ffff_c000n,
      0xfff0_0000_0000_000fn,
      all,
    ]);
  });
  test('safe bits', () => {
    const plain = fromQwords([1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
    expect(q(linuxSteSafe(plain, plain))[1]).toBe(0x1008_0000n);
    expect(q(linuxSteSafe(plain, STE.encode({ S2S: 1 })))[1]).toBe(0x0008_0000n);
    expect(q(linuxSteSafe(STE.encode({ EATS: 2 }), plain))[1]).toBe(0x0008_0000n);
    expect(q(linuxSteSafe(STE.encode({ EATS: 1 }), plain))[1]).toBe(0x1008_0000n);
  });
});
