import { describe, expect, test } from 'vitest';
import {
  EVENTS,
  eventOf,
  fromQwords,
  isStopMarker,
  knownBits,
  PRI_ENTRY,
  stallable,
  toQwords,
  unknownFields,
  VEVENT_ARM_SMMUV3_EVENTS,
} from '../../spec/index.ts';

describe('event tables', () => {
  for (const layout of Object.values(EVENTS))
    test(`${layout.name} owns each of its 256 bits once`, () => {
      expect(layout.bytes).toBe(32);
      expect(layout.coverage()).toEqual([]);
    });

  test('numbers are those of 7.3', () => {
    expect(Object.entries(EVENTS).map(([name, { number }]) => [number, name])).toEqual([
      [0x01, 'F_UUT'],
      [0x02, 'C_BAD_STREAMID'],
      [0x03, 'F_STE_FETCH'],
      [0x04, 'C_BAD_STE'],
      [0x05, 'F_BAD_ATS_TREQ'],
      [0x06, 'F_STREAM_DISABLED'],
      [0x07, 'F_TRANSL_FORBIDDEN'],
      [0x08, 'C_BAD_SUBSTREAMID'],
      [0x09, 'F_CD_FETCH'],
      [0x0a, 'C_BAD_CD'],
      [0x0b, 'F_WALK_EABT'],
      [0x10, 'F_TRANSLATION'],
      [0x11, 'F_ADDR_SIZE'],
      [0x12, 'F_ACCESS'],
      [0x13, 'F_PERMISSION'],
      [0x20, 'F_TLB_CONFLICT'],
      [0x21, 'F_CFG_CONFLICT'],
      [0x24, 'E_PAGE_REQUEST'],
      [0x25, 'F_VMS_FETCH'],
    ]);
    expect(Object.entries(EVENTS).every(([key, { name }]) => key === name)).toBe(true);
  });

  test('only 0x10 to 0x13 can stall [7.3.21]', () => {
    const able = (Object.keys(EVENTS) as (keyof typeof EVENTS)[]).filter(stallable);
    expect(able).toEqual(['F_TRANSLATION', 'F_ADDR_SIZE', 'F_ACCESS', 'F_PERMISSION']);
  });

  test('the vEVENTQ list names known events', () => {
    expect(VEVENT_ARM_SMMUV3_EVENTS.map((name) => EVENTS[name].number)).toEqual([
      0x04, 0x06, 0x08, 0x0a, 0x10, 0x11, 0x12, 0x13,
    ]);
  });

  test('a reserved or implementation defined number is no event', () => {
    expect(eventOf(fromQwords([0x14n, 0n, 0n, 0n]))).toBeUndefined();
    expect(eventOf(fromQwords([0xe0n, 0n, 0n, 0n]))).toBeUndefined();
  });
});

/** Fields with a value, by name. */
type Fields = Readonly<Record<string, bigint>>;

const ENCODED: readonly [string, Fields, readonly bigint[]][] = [
  ['C_BAD_STE', { StreamID: 0x108n }, [0x0000010800000004n, 0n, 0n, 0n]],
  [
    'F_TRANSLATION',
    {
      StreamID: 0x108n,
      SSV: 1n,
      SubstreamID: 5n,
      CLASS: 2n,
      RnW: 1n,
      Stall: 1n,
      STAG: 7n,
      InputAddr: 0x400012345000n,
    },
    [0x0000010800005810n, 0x0000020880000007n, 0x0000400012345000n, 0n],
  ],
  [
    'F_TRANSLATION',
    { StreamID: 0x108n, S2: 1n, CLASS: 1n, InputAddr: 0x400012345000n, IPA: 0x87654n },
    [0x0000010800000010n, 0x0000018000000000n, 0x0000400012345000n, 0x0000000087654000n],
  ],
  [
    'F_PERMISSION',
    { StreamID: 0x108n, S2: 1n, CLASS: 2n, PnU: 1n, InputAddr: 0x400012345000n, IPA: 0x87654n },
    [0x0000010800000013n, 0x0000028200000000n, 0x0000400012345000n, 0x0000000087654000n],
  ],
  [
    'F_WALK_EABT',
    { StreamID: 0x108n, CLASS: 1n, RnW: 1n, InputAddr: 0x400012345000n, FetchAddr: 0x87654008n >> 3n },
    [0x000001080000000bn, 0x0000010800000000n, 0x0000400012345000n, 0x0000000087654008n],
  ],
  [
    'F_STE_FETCH',
    { StreamID: 0x108n, FetchAddr: 0x90000040n >> 3n },
    [0x0000010800000003n, 0n, 0n, 0x0000000090000040n],
  ],
];

describe('encoded examples [7.3]', () => {
  for (const [name, fields, dwords] of ENCODED) {
    const layout = eventOf(fromQwords(dwords));
    test(`${name} ${dwords.map((dword) => dword.toString(16)).join(' ')}`, () => {
      expect(layout?.name).toBe(name);
      expect(toQwords(layout?.encode(fields) ?? new Uint32Array())).toEqual(dwords);
      const set = Object.entries(layout?.decode(fromQwords(dwords)) ?? {}).filter(([, value]) => value !== 0n);
      expect(Object.fromEntries(set)).toEqual({
        ...fields,
        EventNumber: dwords[0] === undefined ? 0n : dwords[0] & 0xffn,
      });
    });
  }

  test('addresses come with the bits their fields leave out', () => {
    const eabt = fromQwords([0x0bn, 0n, 0n, 0x00ff_ffff_ffff_fff8n]);
    expect(EVENTS.F_WALK_EABT.address(eabt, 'FetchAddr')).toBe(0x00ff_ffff_ffff_fff8n);
    const fault = fromQwords([0x10n, 0n, 0n, 0x00ff_ffff_ffff_f000n]);
    expect(EVENTS.F_TRANSLATION.address(fault, 'IPA')).toBe(0x00ff_ffff_ffff_f000n);
  });
});

describe('fields that mean nothing [7.3]', () => {
  const unknown = (dword0: bigint, dword1: bigint) => unknownFields(fromQwords([dword0, dword1, 0n, 0n]));
  const STALL = 1n << 31n;
  const S2 = 1n << 39n;
  const [TT, IN] = [1n << 40n, 2n << 40n];

  test('SubstreamID without SSV, IPA at stage 1, STAG without a stall', () => {
    expect(unknown(0x10n, IN)).toEqual(['SubstreamID', 'STAG', 'IMPDEF_127_112', 'IPA']);
    expect(unknown(0x10n, IN | S2)).toEqual(['SubstreamID', 'STAG', 'IMPDEF_127_112']);
    expect(unknown(0x810n, IN | S2 | STALL)).toEqual(['IMPDEF_127_112']);
  });

  test('TTRnW of F_PERMISSION unless CLASS is TT [7.3.16]', () => {
    expect(unknown(0x813n, IN | S2 | STALL)).toEqual(['TTRnW', 'IMPDEF_127_112']);
    expect(unknown(0x813n, TT | S2 | STALL)).toEqual(['IMPDEF_127_112']);
  });

  test('Reason is implementation defined; SubstreamID of C_BAD_SUBSTREAMID is always valid [7.3.9]', () => {
    expect(unknown(0x03n, 0n)).toEqual(['SubstreamID', 'Reason']);
    expect(unknown(0x08n, 0n)).toEqual([]);
    expect(unknown(0x20n, 0n)).toEqual(['SubstreamID', 'Reason', 'IPA']);
  });

  test('knownBits masks exactly these', () => {
    const known = toQwords(knownBits(fromQwords([0x10n, IN, 0n, 0n])));
    expect(known).toEqual([
      0xffff_ffff_0000_0fffn,
      0x0000_ffff_ffff_0000n,
      0xffff_ffff_ffff_ffffn,
      0xff00_0000_0000_0fffn,
    ]);
    expect(toQwords(knownBits(fromQwords([0x14n])))).toEqual([0xffff_ffff_ffff_ffffn]);
  });
});

describe('PRI queue entries [8]', () => {
  test('own each bit once', () => expect(PRI_ENTRY.coverage()).toEqual([]));

  test('fields lie where Linux reads them', () => {
    const words = fromQwords([0xd000_0005_0000_0108n, 0x0000_4000_1234_5009n]);
    const { StreamID, SubstreamID, R, W, X, Priv, Last, SSV, PRGIndex } = PRI_ENTRY.decode(words);
    expect([StreamID, SubstreamID, R, W, X, Priv, Last, SSV, PRGIndex]).toEqual([
      0x108n,
      5n,
      1n,
      0n,
      0n,
      0n,
      1n,
      1n,
      9n,
    ]);
    expect(PRI_ENTRY.address(words, 'PageAddress')).toBe(0x400012345000n);
  });

  test('a Stop Marker has SSV and Last but neither R nor W', () => {
    expect(isStopMarker(fromQwords([0xc000_0005_0000_0108n, 0n]))).toBe(true);
    expect(isStopMarker(fromQwords([0x4000_0000_0000_0108n, 0n]))).toBe(false);
    expect(isStopMarker(fromQwords([0xd000_0005_0000_0108n, 0n]))).toBe(false);
    expect(isStopMarker(fromQwords([0x8000_0005_0000_0108n, 0n]))).toBe(false);
  });
});
