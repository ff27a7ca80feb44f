import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/hw/config-check.ts';
import { parseSmmuConfig } from '../../src/hw/config-schema.ts';
import {
  configFromIds,
  idRegistersOf,
  linuxNesting,
  minimal,
  PRESETS,
  qemuVirt,
  smallVmid,
} from '../../src/hw/index.ts';
import { machineWith } from './harness.ts';

const problemsOf = (act: () => unknown): readonly string[] => {
  try {
    act();
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
};

describe('presets', () => {
  test('have the identification values of the references', () => {
    const { IDR0, IDR1, IDR3, IDR5, AIDR } = idRegistersOf(qemuVirt);
    expect([IDR0, IDR1, IDR3, IDR5, AIDR]).toEqual([0x0d44101b, 0x02730010, 0x1414, 0x74, 1]);
    const nesting = idRegistersOf(linuxNesting);
    expect(nesting.AIDR).toBe(2);
    expect(idRegistersOf(smallVmid).IDR0).toBe(nesting.IDR0 & ~(1 << 18));
  });

  test.each(Object.keys(PRESETS) as (keyof typeof PRESETS)[])('%s can be built', (name) => {
    expect(machineWith(PRESETS[name]).smmus.length).toBe(1);
  });
});

test('ID registers and configuration are the same thing both ways', () => {
  for (const preset of Object.values(PRESETS))
    expect(idRegistersOf(configFromIds(idRegistersOf(preset)))).toEqual(idRegistersOf(preset));
});

describe('what no SMMU has, or this one does not implement, is refused with a reason', () => {
  test('K1: PRI without ATS', () => {
    const config = { ...qemuVirt, IDR0: { ...qemuVirt.IDR0, PRI: 1 } };
    expect(problemsOf(() => machineWith(config)).join()).toContain('PRI');
  });

  test('K17: no stage at all', () => {
    const config = { ...minimal, IDR0: { ...minimal.IDR0, S1P: 0 }, IDR3: {} };
    expect(problemsOf(() => machineWith(config)).length).toBeGreaterThan(0);
  });

  test.each([
    ['VMSAv8-32', { IDR0: { ...linuxNesting.IDR0, TTF: 'AARCH32_AARCH64' } }],
    ['dormancy', { IDR0: { ...linuxNesting.IDR0, DORMHINT: 1 } }],
    ['preset tables', { IDR1: { ...linuxNesting.IDR1, TABLES_PRESET: 1 } }],
    ['Device Permission Table', { IDR3: { ...linuxNesting.IDR3, DPT: 1 } }],
    ['Attribute Index', { IDR3: { ...linuxNesting.IDR3, AIE: 1 } }],
  ] as const)('%s is not implemented', (what, change) => {
    expect(problemsOf(() => machineWith({ ...linuxNesting, ...change })).join()).toContain(what);
  });

  test('a value that does not fit its field', () => {
    expect(problemsOf(() => machineWith({ ...linuxNesting, IDR1: { CMDQS: 32 } }))).toEqual([
      'IDR1.CMDQS has 5 bits; 32 does not fit',
    ]);
  });
});

describe('parseSmmuConfig: the edge', () => {
  test('takes a preset, whole registers, and fields by number or name', () => {
    const config = parseSmmuConfig({
      preset: 'linuxNesting',
      registers: { IDR5: 0x00100075 },
      IDR0: { VMID16: 'BITS_8' },
      options: { prefetch: 'ignored' },
    });
    expect(idRegistersOf(config)).toEqual({ ...idRegistersOf(smallVmid), IDR5: 0x00100075 });
    expect(config.options?.prefetch).toBe('ignored');
    expect(idRegistersOf(parseSmmuConfig({ registers: idRegistersOf(minimal) }))).toEqual(idRegistersOf(minimal));
  });

  test.each([
    ['an unknown field', { preset: 'minimal', IDR0: { S3P: 1 } }, 'IDR0'],
    ['an unknown name of a value', { preset: 'minimal', IDR0: { TTF: 'AARCH65' } }, 'IDR0.TTF'],
    ['a number too wide', { preset: 'minimal', IDR1: { SIDSIZE: 64 } }, 'IDR1.SIDSIZE'],
    ['an unknown preset', { preset: 'nothing' }, 'preset'],
    ['an unknown option', { preset: 'minimal', options: { speed: 9 } }, 'options'],
    ['no object', 7, 'configuration'],
    ['an inconsistent whole', { preset: 'minimal', IDR0: { VATOS: 1 } }, 'VATOS'],
  ])('refuses %s and says where', (_, input, where) => {
    const problems = problemsOf(() => parseSmmuConfig(input));
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.join()).toContain(where);
  });
});
