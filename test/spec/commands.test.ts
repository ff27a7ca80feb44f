import { describe, expect, test } from 'vitest';
import {
  CMD_TLBI_NH_VA,
  COMMANDS,
  capsOf,
  commandOf,
  commandProblems,
  encodeCommand,
  firstCommandProblem,
  fromQwords,
  LayoutError,
  reservedFieldsSet,
  toQwords,
} from '../../spec/index.ts';

type Values = Record<string, bigint | number | string>;

/** Address fields as the specification's examples give them: with their low bits. */
const page = (address: bigint) => address >> 12n;

/** Commands as encoded by hand from 4.2 to 4.7, and checked against Linux and QEMU encoders. */
const ENCODED: readonly [name: string, values: Values, dword0: bigint, dword1: bigint][] = [
  ['CMD_PREFETCH_CONFIG', { StreamID: 0x108, SubstreamID: 5, SSV: 1 }, 0x0000010800005801n, 0x0n],
  ['CMD_CFGI_STE', { StreamID: 0x108, Leaf: 1 }, 0x0000010800000003n, 0x1n],
  ['CMD_CFGI_STE_RANGE', { StreamID: 0x100, Range: 7 }, 0x0000010000000004n, 0x7n],
  ['CMD_CFGI_ALL', { Range: 31 }, 0x0000000000000004n, 0x1fn],
  ['CMD_CFGI_CD', { StreamID: 0x108, SubstreamID: 5, Leaf: 1 }, 0x0000010800005005n, 0x1n],
  ['CMD_TLBI_NH_ALL', { VMID: 0x12 }, 0x0000001200000010n, 0x0n],
  ['CMD_TLBI_NH_ASID', { VMID: 0x12, ASID: 0x34 }, 0x0034001200000011n, 0x0n],
  [
    'CMD_TLBI_NH_VA',
    { VMID: 0x12, ASID: 0x34, Address: page(0x400012345000n), Leaf: 1 },
    0x0034001200000012n,
    0x0000400012345001n,
  ],
  [
    'CMD_TLBI_NH_VA',
    { VMID: 0x12, ASID: 0x34, Address: page(0x400012345000n), Leaf: 1, TG: 1, TTL: 3, SCALE: 4 },
    0x0034001200400012n,
    0x0000400012345701n,
  ],
  ['CMD_TLBI_S12_VMALL', { VMID: 0x12 }, 0x0000001200000028n, 0x0n],
  ['CMD_TLBI_S2_IPA', { VMID: 0x12, Address: page(0x87654000n) }, 0x000000120000002an, 0x0000000087654000n],
  ['CMD_TLBI_NSNH_ALL', {}, 0x0000000000000030n, 0x0n],
  ['CMD_ATC_INV', { StreamID: 0x108, Size: 52 }, 0x0000010800000040n, 0x34n],
  [
    'CMD_ATC_INV',
    { StreamID: 0x108, SubstreamID: 5, SSV: 1, Address: page(0x400012345000n) },
    0x0000010800005840n,
    0x0000400012345000n,
  ],
  ['CMD_PRI_RESP', { StreamID: 0x108, PRGIndex: 9, Resp: 2 }, 0x0000010800000041n, 0x2009n],
  ['CMD_RESUME', { StreamID: 0x108, STAG: 7, Ac: 1 }, 0x0000010800001044n, 0x7n],
  ['CMD_RESUME', { StreamID: 0x108, STAG: 7, Ab: 1 }, 0x0000010800002044n, 0x7n],
  ['CMD_STALL_TERM', { StreamID: 0x108 }, 0x0000010800000045n, 0x0n],
  ['CMD_SYNC', { CS: 2, MSH: 3, MSIAttr: 15 }, 0x000000000fc02046n, 0x0n],
  ['CMD_SYNC', { CS: 1, MSH: 3, MSIAttr: 15, MSIAddress: 0x80001000n >> 2n }, 0x000000000fc01046n, 0x0000000080001000n],
];

describe('encoded examples [4.2 to 4.7]', () => {
  for (const [name, values, dword0, dword1] of ENCODED) {
    const hex = `${dword0.toString(16).padStart(16, '0')} ${dword1.toString(16)}`;
    test(`${name} encodes to ${hex}`, () => {
      expect(toQwords(encodeCommand(name, values))).toEqual([dword0, dword1]);
    });
    test(`${hex} decodes to ${name}`, () => {
      const words = fromQwords([dword0, dword1]);
      const command = commandOf(words);
      expect(command?.name).toBe(name);
      const set = Object.entries(command?.layout.decode(words) ?? {}).filter(([, value]) => value !== 0n);
      const wanted = Object.entries(values).map(([field, value]) => [field, BigInt(value)]);
      expect(Object.fromEntries(set)).toEqual({ ...Object.fromEntries(wanted), Opcode: dword0 & 0xffn });
    });
  }
});

describe('command tables', () => {
  for (const layout of Object.values(COMMANDS))
    test(`${layout.name} owns each of its 128 bits once`, () => {
      expect(layout.bytes).toBe(16);
      expect(layout.coverage()).toEqual([]);
    });

  test('opcodes are those of 4.1.1', () => {
    const opcodes = Object.values(COMMANDS).map(({ name, opcode, nonSecure }) => [opcode, name, nonSecure]);
    expect(opcodes).toEqual([
      [0x01, 'CMD_PREFETCH_CONFIG', true],
      [0x02, 'CMD_PREFETCH_ADDR', true],
      [0x03, 'CMD_CFGI_STE', true],
      [0x04, 'CMD_CFGI_STE_RANGE', true],
      [0x05, 'CMD_CFGI_CD', true],
      [0x06, 'CMD_CFGI_CD_ALL', true],
      [0x07, 'CMD_CFGI_VMS_PIDM', true],
      [0x10, 'CMD_TLBI_NH_ALL', true],
      [0x11, 'CMD_TLBI_NH_ASID', true],
      [0x12, 'CMD_TLBI_NH_VA', true],
      [0x13, 'CMD_TLBI_NH_VAA', true],
      [0x20, 'CMD_TLBI_EL2_ALL', true],
      [0x21, 'CMD_TLBI_EL2_ASID', true],
      [0x22, 'CMD_TLBI_EL2_VA', true],
      [0x23, 'CMD_TLBI_EL2_VAA', true],
      [0x28, 'CMD_TLBI_S12_VMALL', true],
      [0x2a, 'CMD_TLBI_S2_IPA', true],
      [0x30, 'CMD_TLBI_NSNH_ALL', true],
      [0x40, 'CMD_ATC_INV', true],
      [0x41, 'CMD_PRI_RESP', true],
      [0x44, 'CMD_RESUME', true],
      [0x45, 'CMD_STALL_TERM', true],
      [0x46, 'CMD_SYNC', true],
      [0x70, 'CMD_DPTI_ALL', true],
      [0x73, 'CMD_DPTI_PA', true],
      [0x18, 'CMD_TLBI_EL3_ALL', false],
      [0x1a, 'CMD_TLBI_EL3_VA', false],
      [0x50, 'CMD_TLBI_S_EL2_ALL', false],
      [0x51, 'CMD_TLBI_S_EL2_ASID', false],
      [0x52, 'CMD_TLBI_S_EL2_VA', false],
      [0x53, 'CMD_TLBI_S_EL2_VAA', false],
      [0x58, 'CMD_TLBI_S_S12_VMALL', false],
      [0x5a, 'CMD_TLBI_S_S2_IPA', false],
      [0x60, 'CMD_TLBI_SNH_ALL', false],
    ]);
    expect(Object.entries(COMMANDS).every(([key, { name }]) => key === name)).toBe(true);
  });

  test('CFGI_STE_RANGE with Range 31, and no other, is CFGI_ALL [4.3.6]', () => {
    expect(commandOf(fromQwords([0x10800000004n, 0x1fn]))?.name).toBe('CMD_CFGI_ALL');
    expect(commandOf(fromQwords([0x10800000004n, 0x1en]))?.name).toBe('CMD_CFGI_STE_RANGE');
    expect(toQwords(encodeCommand('CMD_CFGI_ALL'))).toEqual([0x4n, 0x1fn]);
  });

  test('a reserved or implementation defined opcode is no command', () => {
    expect(commandOf(fromQwords([0x0n, 0n]))).toBeUndefined();
    expect(commandOf(fromQwords([0x80n, 0n]))).toBeUndefined();
  });

  test('an unknown name, field or value that does not fit is refused', () => {
    expect(() => encodeCommand('CMD_TLBI')).toThrow(LayoutError);
    expect(() => encodeCommand('toString')).toThrow(LayoutError);
    expect(() => encodeCommand('CMD_TLBI_NH_ALL', { ASID: 1 })).toThrow(LayoutError);
    expect(() => encodeCommand('CMD_TLBI_NH_ALL', { VMID: 0x10000 })).toThrow(LayoutError);
    expect(() => CMD_TLBI_NH_VA.encode({ TG: 4 })).toThrow(LayoutError);
  });
});

/** QEMU's nested model: no ATS, PRI, Hyp, MPAM, DPT, stalls; RIL without DS. */
const qemu = capsOf({ IDR0: 0x0d44101b, IDR1: 0x02730010, IDR3: 0x1414, IDR5: 0x74, AIDR: 1 });
/** The same, and ATS, PRI, Hyp, stalls (STALL_MODEL 0), DS, v3.2. */
const rich = capsOf({ IDR0: 0x0c45161b, IDR1: 0x02730510, IDR3: 0x1514, IDR5: 0x001004f5, AIDR: 2 });
const stage1Only = capsOf({ IDR0: 0x0d44101a, IDR1: 0x02730010, IDR3: 0x1404, IDR5: 0x74 });
const stage2Only = capsOf({ IDR0: 0x0d441019, IDR1: 0x02730010, IDR3: 0x1414, IDR5: 0x74 });

const rulesOf = (dword0: bigint, dword1: bigint, caps?: typeof qemu): string[] =>
  commandProblems(fromQwords([dword0, dword1]), caps).map(({ rule }) => rule);

describe('CERROR_ILL [4.1.3]', () => {
  for (const [name, values, dword0, dword1] of ENCODED)
    test(`${name} ${JSON.stringify(values, (_, v) => (typeof v === 'bigint' ? `${v}` : v))} is legal with all features`, () =>
      expect(rulesOf(dword0, dword1, rich)).toEqual([]));

  test.each([
    0x00, 0x08, 0x0b, 0x0f, 0x14, 0x19, 0x1b, 0x24, 0x29, 0x2b, 0x31, 0x42, 0x47, 0x54, 0x71, 0x74, 0x90, 0xff,
  ])('opcode %i is reserved [4.1.1]', (opcode) => {
    expect(rulesOf(BigInt(opcode), 0n)).toEqual(['CMD-OPCODE']);
    expect(rulesOf(BigInt(opcode), 0n, rich)).toEqual(['CMD-OPCODE']);
  });

  test.each([0x18, 0x1a, 0x50, 0x51, 0x52, 0x53, 0x58, 0x5a, 0x60])('opcode %i is Secure only [4.1.1]', (opcode) => {
    expect(rulesOf(BigInt(opcode), 0n)).toEqual(['CMD-OPCODE']);
  });

  test('an implementation defined opcode may exist somewhere, but not on a described SMMU [4.1.1]', () => {
    expect(rulesOf(0x80n, 0n)).toEqual([]);
    expect(rulesOf(0x8fn, 0n, rich)).toEqual(['CMD-OPCODE']);
  });

  test.each<[string, bigint]>([
    ['ATS', 0x40n],
    ['PRI', 0x41n],
    ['a stall model', 0x44n],
    ['a stall model', 0x45n],
    ['Hyp', 0x20n],
    ['Hyp', 0x21n],
    ['Hyp', 0x22n],
    ['Hyp', 0x23n],
    ['MPAM', 0x07n],
    ['DPT', 0x70n],
    ['DPT', 0x73n],
  ])('without %s, opcode %s is ILL', (_, opcode) => {
    expect(rulesOf(opcode, 0n, qemu)).toEqual(['CMD-FEATURE']);
    expect(rulesOf(opcode, 0n)).toEqual([]);
  });

  test('stage 1 commands need stage 1, stage 2 commands stage 2, NSNH_ALL neither [4.4]', () => {
    const stage1 = [0x05n, 0x06n, 0x10n, 0x11n, 0x12n, 0x13n];
    const stage2 = [0x28n, 0x2an];
    for (const opcode of stage1) {
      expect(rulesOf(opcode, 0n, stage2Only)).toEqual(['CMD-FEATURE']);
      expect(rulesOf(opcode, 0n, stage1Only)).toEqual([]);
    }
    for (const opcode of stage2) {
      expect(rulesOf(opcode, 0n, stage1Only)).toEqual(['CMD-FEATURE']);
      expect(rulesOf(opcode, 0n, stage2Only)).toEqual([]);
    }
    expect(rulesOf(0x30n, 0n, stage1Only)).toEqual([]);
    expect(rulesOf(0x30n, 0n, stage2Only)).toEqual([]);
  });

  test.each([0x01n, 0x02n, 0x03n, 0x04n, 0x05n, 0x06n, 0x44n, 0x45n])(
    'SSec = 1 is ILL in opcode %s [4.1.6]',
    (opcode) => {
      expect(rulesOf(opcode | (1n << 10n), 0n)).toEqual(['CMD-SSEC']);
      expect(rulesOf(opcode | (1n << 10n), 0n, rich)).toEqual(['CMD-SSEC']);
    },
  );

  test('CS = 3 and Resp = 3 are ILL [4.7.3, 4.5.2]', () => {
    expect(rulesOf(0x3046n, 0n, qemu)).toEqual(['CMD-SYNC-CS']);
    expect(rulesOf(0x41n, 0x3000n, rich)).toEqual(['CMD-PRI-RESP']);
  });

  describe.each([0x12n, 0x13n, 0x22n, 0x23n, 0x2an])('ranges of opcode %s [4.4.1.1]', (opcode) => {
    test('TG with NUM, SCALE and TTL all 0 is ILL', () => {
      for (const tg of [1n, 2n, 3n]) expect(rulesOf(opcode, tg << 10n, rich)).toEqual(['CMD-RANGE']);
    });
    test('but an SMMU without RIL may ignore the fields, so a word alone is not', () => {
      expect(rulesOf(opcode, 1n << 10n)).toEqual([]);
    });
    test('any of the three makes it legal, and so does TG 0', () => {
      expect(rulesOf(opcode | (1n << 12n), 1n << 10n, rich)).toEqual([]);
      expect(rulesOf(opcode | (1n << 20n), 1n << 10n, rich)).toEqual([]);
      expect(rulesOf(opcode, (1n << 10n) | (2n << 8n), rich)).toEqual([]);
      expect(rulesOf(opcode, 0n, rich)).toEqual([]);
    });
  });

  test('TTL 1 of the 16 KB granule counts as 0 without IDR5.DS [4.4.1.1]', () => {
    const dword1 = (2n << 10n) | (1n << 8n);
    expect(rulesOf(0x12n, dword1, qemu)).toEqual(['CMD-RANGE']);
    expect(rulesOf(0x12n, dword1, rich)).toEqual([]);
    expect(rulesOf(0x12n, dword1)).toEqual([]);
  });

  test('bit 25 is no part of SCALE without IDR5.DS [4.4.1.1]', () => {
    expect(rulesOf(0x12n | (1n << 25n), 1n << 10n, qemu)).toEqual(['CMD-RANGE']);
    expect(rulesOf(0x12n | (1n << 25n), 1n << 10n, rich)).toEqual([]);
  });

  test('without IDR3.RIL the range fields are RES0 and make nothing ILL [4.4.1.1]', () => {
    const noRil = capsOf({ IDR0: 0x0d44101b, IDR1: 0x02730010, IDR3: 0x1014, IDR5: 0x74 });
    expect(rulesOf(0x12n, 1n << 10n, noRil)).toEqual([]);
    expect(reservedFieldsSet(fromQwords([0x12n, 1n << 10n]), noRil)).toEqual(['TG']);
  });

  test('the message names what is missing', () => {
    expect(firstCommandProblem(fromQwords([0x40n, 0n]), qemu)?.message).toBe('CMD_ATC_INV needs IDR0.ATS [4.5.1]');
    expect(firstCommandProblem(fromQwords([0x3046n, 0n]), qemu)?.message).toBe('CS (bits 13:12) = 3, legal 0..2');
  });
});

describe('reserved fields [4.1.5]', () => {
  const set = (dword0: bigint, dword1: bigint, caps?: typeof qemu) =>
    reservedFieldsSet(fromQwords([dword0, dword1]), caps);

  for (const [name, , dword0, dword1] of ENCODED)
    test(`${name} ${dword1.toString(16)} sets none`, () => expect(set(dword0, dword1, rich)).toEqual([]));

  test('bits without a field', () => {
    expect(set(0x103n, 0n)).toEqual(['RES0_9_8']);
    expect(set(0x46n, 1n << 63n)).toEqual(['MSI_NS']);
  });

  test('range fields without TG, TTL128 without TTL [4.4.1.1]', () => {
    expect(set(0x12n | (1n << 12n) | (1n << 20n), (1n << 8n) | (1n << 7n))).toEqual(['NUM', 'SCALE', 'TTL128', 'TTL']);
    expect(set(0x12n | (1n << 12n), (1n << 10n) | (1n << 7n))).toEqual(['TTL128']);
  });

  test('bits above what the SMMU has [4.1.6, 4.4]', () => {
    const narrow = capsOf({ IDR0: 0x0d40001b, IDR1: 0x02730010, IDR3: 0x1414, IDR5: 0x74, AIDR: 1 });
    expect(set(0x0100_0100_0000_0011n, 0n, narrow)).toEqual(['VMID', 'ASID']);
    expect(set(0x0100_0100_0000_0011n, 0n, qemu)).toEqual([]);
    expect(set(0x2an, 1n << 52n, qemu)).toEqual(['Address']);
    expect(set(0x2an, 1n << 51n, qemu)).toEqual([]);
    expect(set(0x12n, 1n << 63n, qemu)).toEqual([]);
  });
});
