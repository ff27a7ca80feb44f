import { describe, expect, test } from 'vitest';
import { catalog } from '../../spec/catalog.ts';
import { CliError } from '../../src/cli/error.ts';
import { runSpec } from '../../src/cli/spec.ts';

/** Lines printed for a name; without one, for all. */
function linesOf(name?: string): string[] {
  const lines: string[] = [];
  const code = runSpec({ ...(name === undefined ? {} : { name }), json: false }, (line) => lines.push(line));
  expect(code).toBe(0);
  return lines;
}

/** What --json prints, parsed. */
function jsonOf(name?: string): unknown {
  const text: string[] = [];
  runSpec({ ...(name === undefined ? {} : { name }), json: true }, (line) => text.push(line));
  return JSON.parse(text.join('\n'));
}

/** The message of the error that a name gives. */
function errorOf(name: string): string {
  try {
    linesOf(name);
  } catch (error) {
    expect(error).toBeInstanceOf(CliError);
    return (error as CliError).message;
  }
  throw new Error(`${name} was accepted`);
}

describe('smmulab spec NAME', () => {
  test('prints one aligned table: bits, name, meaning, feature, section', () => {
    expect(linesOf('IRQ_CTRL')).toEqual([
      'IRQ_CTRL: interrupt enables; 4 bytes; page0 + 0x50; RW',
      '',
      'bits  name          meaning                                   feature   section',
      '0:0   GERROR_IRQEN  a global error became active                        6.3.16',
      '1:1   PRIQ_IRQEN    PRI queue, condition as PRIQ_IRQ_CFG2.LO  IDR0.PRI  6.3.16',
      '2:2   EVENTQ_IRQEN  Event queue not empty                               6.3.16',
      '31:3  RES0_31_3     RES0                                                6.3.16',
    ]);
  });

  test.each(catalog().map(({ name }) => name))('%s: every field is named, no line exceeds 100 columns', (name) => {
    const lines = linesOf(name);
    expect(lines.filter((line) => line.length > 100 || line !== line.trimEnd())).toEqual([]);
    const entry = catalog().find((one) => one.name === name);
    const fields = entry?.kind === 'uapi' ? entry.struct.names : (entry?.layout.names ?? []);
    const text = lines.join('\n');
    expect(fields.filter((field) => !text.includes(field))).toEqual([]);
  });

  test('says opcode, event number and ioctl', () => {
    expect(linesOf('CMD_ATC_INV')[0]).toContain('opcode 0x40; needs IDR0.ATS');
    expect(linesOf('F_TRANSLATION')[0]).toContain('event 0x10; may stall');
    expect(linesOf('iommu_viommu_alloc').join(' ')).toContain('IOMMU_VIOMMU_ALLOC = 0x3b90, at least 24 bytes');
  });
});

describe('smmulab spec', () => {
  test('lists every name under its kind', () => {
    const lines = linesOf();
    expect(lines.filter((line) => line.endsWith(':'))).toEqual(
      ['register', 'structure', 'command', 'event', 'descriptor', 'tegra241', 'uapi'].map((kind) => `${kind}:`),
    );
    const words = new Set(lines.flatMap((line) => line.trim().split(' ')));
    expect(catalog().filter(({ name }) => !words.has(name))).toEqual([]);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
  });
});

describe('smmulab spec --json', () => {
  test('gives one layout as data', () => {
    expect(jsonOf('CMDQ_PROD')).toEqual({
      name: 'CMDQ_PROD',
      kind: 'register',
      section: '6.3.27',
      bytes: 4,
      page: 'page0',
      offset: 0x98,
      access: 'RW',
      text: 'Command queue write index',
      fields: [
        { name: 'RES0_31_20', bits: '31:20', reserved: 'RES0' },
        { name: 'WR', bits: '19:0', text: 'write index and wrap bit' },
      ],
    });
  });

  test('gives values, features and address shifts', () => {
    expect(jsonOf('CMD_SYNC')).toMatchObject({
      kind: 'command',
      opcode: 0x46,
      nonSecure: true,
      fields: expect.arrayContaining([
        expect.objectContaining({ name: 'CS', bits: '13:12', values: { SIG_NONE: 0, SIG_IRQ: 1, SIG_SEV: 2 } }),
        expect.objectContaining({ name: 'MSIAddress', bits: '119:66', address: 2 }),
      ]),
    });
    expect(jsonOf('GERROR')).toMatchObject({
      fields: expect.arrayContaining([
        expect.objectContaining({ name: 'MSI_PRIQ_ABT_ERR', bits: '6:6', when: ['IDR0.MSI', 'IDR0.PRI'] }),
      ]),
    });
  });

  test('gives a struct with its ioctl', () => {
    expect(jsonOf('IOMMU_HWPT_ALLOC')).toMatchObject({
      name: 'iommu_hwpt_alloc',
      kind: 'uapi',
      bytes: 48,
      ioctl: { name: 'IOMMU_HWPT_ALLOC', nr: 0x89, request: 0x3b89, minBytes: 24 },
      fields: expect.arrayContaining([expect.objectContaining({ name: 'data_uptr', offset: 32, width: 8 })]),
    });
  });

  test('without a name gives the list of all', () => {
    const all = jsonOf() as { name: string }[];
    expect(all.map(({ name }) => name)).toEqual(catalog().map(({ name }) => name));
  });
});

describe('an unknown name', () => {
  test('is an error that names similar ones', () => {
    expect(errorOf('CR00')).toBe('no layout is called "CR00"; did you mean CR0?');
    expect(errorOf('tlbi_nh')).toContain('did you mean CMD_TLBI_NH_ALL, CMD_TLBI_NH_ASID');
    expect(errorOf('STRTAB_BSAE')).toContain('STRTAB_BASE');
  });

  test('stays one bounded line whatever was typed', () => {
    for (const name of ['', ' ', 'a\nb', 'x'.repeat(100_000), '__proto__', 'constructor']) {
      const message = errorOf(name);
      expect(message).not.toContain('\n');
      expect(message.length).toBeLessThan(250);
    }
  });
});
