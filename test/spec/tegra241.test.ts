import { describe, expect, test } from 'vitest';
import {
  CMDQV_CMDQ_ALLOC,
  CMDQV_CONFIG,
  CMDQV_PARAM,
  cmdqvFootprint,
  type Register,
  TEGRA241_REGISTERS,
  VCMDQ_BASE,
  VCMDQ_CONS,
  VCMDQ_GERROR,
  VCMDQ_STRIDE,
  VINTF_CONFIG,
  VINTF_SID_MATCH,
  vintfBlock,
  vintfPage0,
  vintfPage1,
} from '../../spec/index.ts';

describe('Tegra241 CMDQV register tables', () => {
  test.each(TEGRA241_REGISTERS.map((register) => [register.name, register] as const))(
    '%s owns each bit once',
    (_, register) => expect(register.coverage()).toEqual([]),
  );

  test('no two registers of one page or slot share a byte, repeats included', () => {
    const owners = new Map<string, string>();
    const shared: string[] = [];
    for (const { name, page, offset, bytes, info } of TEGRA241_REGISTERS)
      for (let i = 0; i < (info.repeat?.count ?? 1); i++)
        for (let byte = 0; byte < bytes; byte++) {
          const at = `${page}+${offset + i * (info.repeat?.stride ?? 0) + byte}`;
          if (owners.has(at)) shared.push(`${name} and ${owners.get(at)} at ${at}`);
          owners.set(at, name);
        }
    expect(shared).toEqual([]);
  });

  test.each<[string, string, number, number, string]>([
    ['CMDQV_CONFIG', 'cmdqv', 0x000, 32, 'RW'],
    ['CMDQV_PARAM', 'cmdqv', 0x004, 32, 'RO'],
    ['CMDQV_STATUS', 'cmdqv', 0x008, 32, 'RO'],
    ['CMDQV_VINTF_ERR_MAP', 'cmdqv', 0x014, 32, 'RO'],
    ['CMDQV_VINTF_INT_MASK', 'cmdqv', 0x01c, 32, 'RW'],
    ['CMDQV_CMDQ_ERR_MAP', 'cmdqv', 0x024, 32, 'RO'],
    ['CMDQV_CMDQ_ALLOC', 'cmdqv', 0x200, 32, 'RW'],
    ['VINTF_CONFIG', 'vintf', 0x00, 32, 'RW'],
    ['VINTF_STATUS', 'vintf', 0x04, 32, 'RO'],
    ['VINTF_SID_MATCH', 'vintf', 0x40, 32, 'RW'],
    ['VINTF_SID_REPLACE', 'vintf', 0x80, 32, 'RW'],
    ['VINTF_LVCMDQ_ERR_MAP', 'vintf', 0xc0, 32, 'RO'],
    ['VCMDQ_CONS', 'vcmdq0', 0x00, 32, 'RW'],
    ['VCMDQ_PROD', 'vcmdq0', 0x04, 32, 'RW'],
    ['VCMDQ_CONFIG', 'vcmdq0', 0x08, 32, 'RW'],
    ['VCMDQ_STATUS', 'vcmdq0', 0x0c, 32, 'RO'],
    ['VCMDQ_GERROR', 'vcmdq0', 0x10, 32, 'RO'],
    ['VCMDQ_GERRORN', 'vcmdq0', 0x14, 32, 'RW'],
    ['VCMDQ_BASE', 'vcmdq1', 0x00, 64, 'RW'],
    ['VCMDQ_CONS_INDX_BASE', 'vcmdq1', 0x08, 64, 'RW'],
  ])('%s is at %s + %i', (name, page, offset, width, access) => {
    const register = TEGRA241_REGISTERS.find((one) => one.name === name);
    expect([register?.page, register?.offset, register?.info.width, register?.access]).toEqual([
      page,
      offset,
      width,
      access,
    ]);
  });

  test('windows and blocks lie where Linux and QEMU look for them', () => {
    expect([vintfPage0(0), vintfPage1(0), vintfPage0(1), vintfPage1(1)]).toEqual([0x30000, 0x40000, 0x50000, 0x60000]);
    expect([vintfBlock(0), vintfBlock(63)]).toEqual([0x1000, 0x4f00]);
    expect(VCMDQ_STRIDE).toBe(0x80);
    expect(cmdqvFootprint(1)).toBe(0x50000); // QEMU's guest aperture
  });

  const seen: readonly [Register, number, Record<string, number>][] = [
    [CMDQV_PARAM, 0x4011, { VER: 1, NUM_VCMDQ_LOG2: 1, NUM_SID_PER_VM_LOG2: 4 }],
    [CMDQV_CONFIG, 0x00020083, { CMDQV_EN: 1, CMDQV_PER_CMD_OFFSET: 1, CMDQ_MAX_CLK_BATCH: 8, CMDQ_MAX_CMD_BATCH: 32 }],
    [VINTF_CONFIG, 0x2_0007, { EN: 1, VMID: 3, HYP_OWN: 1 }],
    [VINTF_SID_MATCH, 0x1f_ffff, { ENABLE: 1, VIRT_SID: 0xfffff }],
    [CMDQV_CMDQ_ALLOC, 0x1f_80ff, { ALLOCATED: 1, LVCMDQ: 127, VINTF: 63 }],
    [VCMDQ_CONS, 0x0400_0005, { ERR: 4, RD: 5 }],
    [VCMDQ_GERROR, 0x4, { CMDQ_INIT_ERR: 1 }],
  ];
  for (const [register, value, fields] of seen)
    test(`${register.name} = 0x${value.toString(16)} decodes as the sources say`, () => {
      const found = register.names.map((name) => [name, register.of(value, name)] as const).filter(([, v]) => v !== 0);
      expect(Object.fromEntries(found)).toEqual(fields);
    });

  test('BASE carries no allocation hint: Linux writes address and size only', () => {
    expect(VCMDQ_BASE.value64({ ADDR: 0x8123_0000n >> 5n, LOG2SIZE: 8 })).toBe(0x8123_0008n);
    expect(VCMDQ_BASE.names).not.toContain('RA');
  });

  test('CONS.ERR 4 is the code the SMMU does not have', () => {
    expect(VCMDQ_CONS.valueName('ERR', 4n)).toBe('CERROR_ILL_ACCESS');
    expect(VCMDQ_CONS.valueName('ERR', 3n)).toBe('CERROR_ATC_INV_SYNC');
  });
});
