import { describe, expect, test } from 'vitest';
import type { IdValues } from '../../../spec/caps.ts';
import { ID_RULES, idProblems } from '../../../spec/legality/idr.ts';
import { sampleIds } from '../caps-samples.ts';

const rules = (ids: IdValues): string[] => idProblems(ids).map((p) => p.rule);
const NO_S2 = { S2P: 0, Hyp: 0 } as const;

/** An illegal set of registers a rule; each is one step from the legal sample. IHI 0070 6.3.1 to 6.3.6. */
const ILLEGAL: readonly (readonly [string, IdValues])[] = [
  ['IDR-K0', sampleIds({ IDR0: { TTENDIAN: 1 } })],
  ['IDR-K1', sampleIds({ IDR0: { ATS: 0, PRI: 1 } })],
  ['IDR-K2', sampleIds({ IDR0: { VATOS: 1 } })],
  ['IDR-K3', sampleIds({ IDR0: { ...NO_S2, VMW: 1 }, IDR3: { XNX: 0 } })],
  ['IDR-K4', sampleIds({ IDR0: { S1P: 0, Hyp: 0 } })],
  ['IDR-K5', sampleIds({ IDR0: { TTF: 3 }, IDR5: { GRAN4K: 0 } })],
  ['IDR-K6', sampleIds({ IDR0: { MSI: 0 }, IDR1: { ECMDQ: 1 } })],
  ['IDR-K7', sampleIds({ IDR0: { ST_LEVEL: 0 }, IDR1: { SIDSIZE: 7 } })],
  ['IDR-K8', sampleIds({ IDR1: { REL: 1 } })],
  ['IDR-K9', sampleIds({ IDR3: { PPS: 1 } })],
  ['IDR-K10', sampleIds({ IDR3: { S2PO: 1 } })],
  ['IDR-K11', sampleIds({ IDR5: { VAX: 1, GRAN64K: 0 } })],
  ['IDR-K12', sampleIds({ IDR5: { DS: 1 } })],
  ['IDR-K13', sampleIds({ IDR5: { D128: 1 } })],
  ['IDR-K14', sampleIds({ IDR5: { OAS: 6, GRAN64K: 0 } })],
  ['IDR-K15', sampleIds({ IDR0: { STALL_MODEL: 1 } })],
  ['IDR-K16', sampleIds({ IDR3: { FWB: 0 } })],
  ['IDR-K17', { ...sampleIds({ IDR3: { XNX: 0, HAD: 0 } }), IDR0: 2 << 2 }],
];

describe('which ID registers go together [IHI 0070 6.3.1 to 6.3.6]', () => {
  for (const [rule, ids] of ILLEGAL)
    test(rule, () => {
      expect(rules(ids)).toContain(rule);
    });
  test('every rule has an example', () => {
    expect(ILLEGAL.map(([rule]) => rule)).toEqual(ID_RULES.map(({ id }) => id));
  });
  test('the sample is legal, and so are the registers of QEMU with both stages', () => {
    expect(rules(sampleIds({ IDR0: {} }))).toEqual([]);
    expect(rules({ IDR0: 0x0d44101b, IDR1: 0x02730010, IDR3: 0x1414, IDR5: 0x74, AIDR: 1 })).toEqual([]);
  });
  test('VAX = 10 and 56-bit output need 128-bit descriptors', () => {
    expect(rules(sampleIds({ IDR5: { VAX: 2 } }))).toEqual(['IDR-K11']);
    expect(rules(sampleIds({ IDR5: { OAS: 7 } }))).toEqual(['IDR-K14']);
  });
});
