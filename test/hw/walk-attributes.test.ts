/** Memory attributes of the output: stage 1, stage 2, both, and none. */
import { describe, expect, test } from 'vitest';
import { MEMATTR, SHAREABILITY } from '../../spec/encodings.ts';
import { GBPA } from '../../spec/registers.ts';
import { mairAttribute } from '../../src/hw/attributes.ts';
import type { Transaction } from '../../src/hw/transaction.ts';
import { Lab, labCaps, RAM } from './translation-lab.ts';

const { NSH, OSH, ISH } = SHAREABILITY;
const { DEVICE_nGnRnE, DEVICE_nGnRE, DEVICE_nGRE, DEVICE_GRE, ONC_INC, OWT_IWT, OWB_IWB, ONC_IWB } = MEMATTR;
const DEVICE = [DEVICE_nGnRnE, DEVICE_nGnRE, DEVICE_nGRE, DEVICE_GRE] as const;
type Ste = Parameters<Lab['ste']>[1];

const seen = (t: Transaction): [number, number, number] => [t.memAttr, t.SH, t.alloc];

/** MAIR byte and shareability of a stage 1 leaf, MemAttr and shareability of a stage 2 leaf: -1 leaves the stage out. */
function through(
  s1: readonly [mair: number, sh: number] | null,
  s2: readonly [memAttr: number, sh: number] | null,
  ste: Ste = {},
  input: Partial<Transaction> = {},
  caps = labCaps(),
): [number, number, number] {
  const lab = new Lab(caps);
  const [root1, root2] = [lab.pages(), lab.pages()];
  if (s1 !== null) lab.map(1, root1, 0x1000n, RAM + 0x1000n, { AttrIndx: 0, SH: s1[1] });
  // Tables and CD, mapped to themselves as Normal memory; the page that counts as the test asks.
  for (let at = RAM; at < RAM + 0x200_0000n; at += 0x1000n) lab.map(2, root2, at, at, { MemAttr: 7 });
  if (s2 !== null) lab.map(2, root2, RAM + 0x1000n, RAM + 0x1000n, { MemAttr: s2[0], SH: s2[1] });
  const cd = lab.cd({ TTB0: root1 >> 4n, MAIR0: s1?.[0] ?? 0 });
  const config = s1 === null ? (s2 === null ? 'BYPASS' : 'S2_TRANS') : s2 === null ? 'S1_TRANS' : 'NESTED';
  lab.ste(3, { Config: config, S1ContextPtr: cd >> 6n, ...lab.s2(root2, 1), ...ste });
  const va = s1 === null ? RAM + 0x1000n : 0x1000n;
  const answer = lab.go(3, va, input);
  expect(answer).toBe(`0x${(RAM + 0x1000n).toString(16)}`);
  const first = seen(lab.t);
  lab.go(3, va, input);
  expect(seen(lab.t)).toEqual(first);
  return first;
}

describe('stage 1: MAIR and the leaf [5.4 MAIR0, 13.1.7]', () => {
  const cases: readonly [string, number, number, [number, number, number]][] = [
    ['Normal WB, RA WA, inner shareable', 0xff, ISH, [OWB_IWB, ISH, 6]],
    ['Normal WB, no WA', 0xee, NSH, [OWB_IWB, NSH, 4]],
    ['Normal WB transient', 0x77, NSH, [OWB_IWB, NSH, 7]],
    ['Normal WT', 0xbb, OSH, [OWT_IWT, OSH, 6]],
    ['Normal NC is outer shareable and has no hints', 0x44, NSH, [ONC_INC, OSH, 0]],
    ['Outer NC, inner WB', 0x4f, NSH, [ONC_IWB, NSH, 6]],
    ['Device-nGnRnE is outer shareable', 0x00, ISH, [DEVICE_nGnRnE, OSH, 0]],
    ['Device-nGnRE', 0x04, NSH, [DEVICE_nGnRE, OSH, 0]],
    ['Device-nGRE', 0x08, NSH, [DEVICE_nGRE, OSH, 0]],
    ['Device-GRE', 0x0c, NSH, [DEVICE_GRE, OSH, 0]],
    ['reserved 0x0d behaves as Device-GRE', 0x0d, NSH, [DEVICE_GRE, OSH, 0]],
    ['reserved 0xf0 behaves as inner WT transient', 0xf0, NSH, [MEMATTR.OWB_IWT, NSH, 7]],
    ['shareability 1 is reserved and behaves as NSH', 0xff, 1, [OWB_IWB, NSH, 6]],
  ];
  for (const [name, mair, sh, expected] of cases) test(name, () => expect(through([mair, sh], null)).toEqual(expected));

  test('hints combine with those of the client, or of ALLOCCFG [13.5]', () => {
    expect(through([0xff, ISH], null, {}, { inAlloc: 0 })).toEqual([OWB_IWB, ISH, 0]);
    expect(through([0xff, ISH], null, {}, { inAlloc: 5 })).toEqual([OWB_IWB, ISH, 5]);
    expect(through([0xff, ISH], null, { ALLOCCFG: 0b1010 })).toEqual([OWB_IWB, ISH, 2]);
    expect(through([0xff, ISH], null, { MTCFG: 1, MemAttr: DEVICE_GRE, SHCFG: 'OSH' })).toEqual([OWB_IWB, ISH, 6]);
  });

  test('every byte gives a defined type', () => {
    for (let byte = 0; byte < 256; byte++) {
      const type = mairAttribute(byte) & 15;
      expect([4, 8, 12]).not.toContain(type);
      expect(type < 4).toBe(byte < 16);
    }
  });

  test('AIE: bit 59 is bit 3 of the index, and indices 8 to 15 are Attr7 [5.4 MAIR0]', () => {
    for (const AIE of [0, 1] as const) {
      const lab = new Lab(labCaps({}, {}, { AIE: 1 }));
      const root = lab.pages();
      lab.map(1, root, 0x1000n, RAM, { AttrIndx: 1, PBHA: 1 });
      const cd = lab.cd({ TTB0: root >> 4n, MAIR0: 0x4444_44ff, MAIR1: 0xbb00_0000, AIE });
      lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n });
      lab.go(3, 0x1000n);
      expect(lab.t.memAttr).toBe(AIE === 1 ? OWT_IWT : ONC_INC);
    }
  });
});

describe('stage 2 on top [4.2, 13.1.5]', () => {
  test('without FWB the stronger wins, inner and outer each for itself', () => {
    expect(through([0xff, ISH], [OWB_IWB, NSH])).toEqual([OWB_IWB, ISH, 6]);
    expect(through([0xff, ISH], [ONC_INC, NSH])).toEqual([ONC_INC, OSH, 0]);
    expect(through([0xff, NSH], [ONC_IWB, ISH])).toEqual([ONC_IWB, ISH, 6]);
    expect(through([0x4f, NSH], [OWT_IWT, NSH])).toEqual([MEMATTR.ONC_IWT, NSH, 6]);
    expect(through([0xff, NSH], [DEVICE_nGnRE, NSH])).toEqual([DEVICE_nGnRE, OSH, 0]);
    expect(through([0x0c, NSH], [DEVICE_nGnRE, NSH])).toEqual([DEVICE_nGnRE, OSH, 0]);
    expect(through([0x00, NSH], [OWB_IWB, ISH])).toEqual([DEVICE_nGnRnE, OSH, 0]);
  });

  test('with S2FWB: 0 to 3 force Device, 5 NC, 6 WB, 7 leaves stage 1 alone [5.2 S2FWB]', () => {
    const fwb = { S2FWB: 1 } as const;
    for (const device of DEVICE) expect(through([0xff, ISH], [device, NSH], fwb)[0]).toBe(device);
    expect(through([0xff, ISH], [5, NSH], fwb)[0]).toBe(ONC_INC);
    expect(through([0x04, ISH], [5, NSH], fwb)[0]).toBe(DEVICE_nGnRE);
    expect(through([0x44, NSH], [6, NSH], fwb)[0]).toBe(OWB_IWB);
    expect(through([0x00, NSH], [6, NSH], fwb)[0]).toBe(OWB_IWB);
    for (const mair of [0xff, 0xbb, 0x44, 0x04])
      expect(through([mair, NSH], [7, NSH], fwb)[0]).toBe(through([mair, NSH], null)[0]);
  });

  test('with IDR3.MTEPERM: 4 is WB without FWB; with it 14 and 15 are 6 and 7 [3.23.1]', () => {
    const caps = labCaps({}, {}, { MTEPERM: 1 });
    expect(through([0xff, ISH], [4, NSH], {}, {}, caps)[0]).toBe(OWB_IWB);
    expect(through([0x44, ISH], [4, NSH], {}, {}, caps)[0]).toBe(ONC_INC);
    expect(through([0xff, ISH], [4, NSH])[0]).toBe(DEVICE_nGnRnE);
    const fwb = { S2FWB: 1 } as const;
    expect(through([0x44, NSH], [14, NSH], fwb, {}, caps)[0]).toBe(OWB_IWB);
    expect(through([0x44, NSH], [15, NSH], fwb, {}, caps)[0]).toBe(ONC_INC);
    expect(through([0x04, NSH], [15, NSH], fwb, {}, caps)[0]).toBe(DEVICE_nGnRE);
  });

  test('stage 2 alone: what comes in, or the overrides, combines with the leaf', () => {
    expect(through(null, [OWB_IWB, NSH])).toEqual([OWB_IWB, NSH, 6]);
    expect(through(null, [OWB_IWB, ISH], {}, { inMemAttr: ONC_INC })).toEqual([ONC_INC, OSH, 0]);
    expect(through(null, [OWB_IWB, NSH], { MTCFG: 1, MemAttr: OWT_IWT, SHCFG: 'ISH' })).toEqual([OWT_IWT, ISH, 6]);
    expect(through(null, [OWB_IWB, NSH], { ALLOCCFG: 0b1100 })).toEqual([OWB_IWB, NSH, 4]);
  });
});

describe('bypass [13.5, 13.2]', () => {
  test('Config=100: MTCFG, MemAttr, SHCFG, ALLOCCFG, or what comes in', () => {
    expect(through(null, null)).toEqual([OWB_IWB, NSH, 6]);
    expect(through(null, null, { MTCFG: 1, MemAttr: 4 })).toEqual([DEVICE_nGnRnE, OSH, 0]);
    expect(through(null, null, { SHCFG: 'ISH', ALLOCCFG: 0b1001 })).toEqual([OWB_IWB, ISH, 0]);
  });

  test('without ATTR_TYPES_OVR nothing is overridden', () => {
    const caps = labCaps({}, { ATTR_TYPES_OVR: 0 });
    expect(through(null, null, { MTCFG: 1, MemAttr: 1, SHCFG: 'ISH', ALLOCCFG: 8 }, {}, caps)).toEqual([
      OWB_IWB,
      NSH,
      6,
    ]);
  });

  test('SMMUEN=0: GBPA decides, and no address beyond OAS passes', () => {
    const lab = new Lab();
    lab.regs.SMMUEN = false;
    lab.regs.GBPA = GBPA.value({ SHCFG: 'ISH', MTCFG: 1, MemAttr: 'OWT_IWT', ALLOCCFG: 0b1100 });
    expect(lab.go(9, 0x1234_5678_9abcn)).toBe('0x123456789abc');
    expect(seen(lab.t)).toEqual([OWT_IWT, ISH, 4]);
    expect(lab.go(9, 1n << 48n)).toBe('Abort event=0x0 unrecorded S2=0');
    lab.regs.GBPA = GBPA.value({ ABORT: 1 });
    expect(lab.go(9, 0x1000n)).toBe('Abort event=0x0 unrecorded S2=0');
    expect([...lab.smmu.tlb.holdings(), ...lab.smmu.configCache.streams()]).toEqual([]);
  });
});
