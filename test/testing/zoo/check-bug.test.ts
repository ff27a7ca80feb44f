import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { run, runJson } from '../../cli/run.ts';

const MINE = join(import.meta.dirname, 'no-flush.mjs');
const scratch = (): string => mkdtempSync(join(tmpdir(), 'smmulab-bug-'));

interface Output {
  readonly seed: number;
  readonly bugs: readonly {
    readonly name: string;
    readonly found: boolean;
    readonly by: string | null;
    readonly runs: number;
    readonly ops: number;
    readonly file: string;
  }[];
}

describe('smmulab check --bug', () => {
  test('a bug of the zoo: exit 1, and its shrunk case replays with --bug and holds without', async () => {
    const { code, value } = await runJson(['check', '--bug', 'viommu-vmid-leaks', '--json', '--out', scratch()]);
    const [bug] = (value as Output).bugs;
    expect([code, bug?.name, bug?.found, bug?.by]).toEqual([1, 'viommu-vmid-leaks', true, 'nothing-left']);
    expect(bug?.ops).toBe(2);
    const file = bug?.file ?? '';
    expect((await run(['check', '--replay', file, '--bug', 'viommu-vmid-leaks'])).code).toBe(1);
    expect((await run(['check', '--replay', file])).code).toBe(0);
  });

  test('a bug of a module outside src/', async () => {
    const { code, out } = await run(['check', 'vmid-free', '--bug', MINE, '--runs', '60', '--out', scratch()]);
    expect(code).toBe(1);
    expect(out).toContain('no-flush: A counter');
    expect(out).toMatch(/vmid-free broken at step \d+/);
  });

  test.each([
    [['--bug', 'no-such-bug'], "--bug: 'no-such-bug' is not a bug"],
    [['--bug', 'viommu-vmid-leaks', '--policy', 'at-domain-alloc'], 'does not exist with policy at-domain-alloc'],
    [['--bug', MINE, '--policy', 'viommu-only'], 'no-flush does not exist with policy viommu-only'],
    [['--bug', 'all', '--driver', MINE], '--bug and --driver'],
    [['--bug', './no-such-file.mjs'], '--bug: ./no-such-file.mjs'],
  ])('%j: exit 2', async (args, message) => {
    const { code, err } = await run(['check', ...args]);
    expect(code).toBe(2);
    expect(err).toContain(message);
  });

  test.each([
    ['undefined', 'default export: expected object, received undefined'],
    ["{ name: 'A B', story: 's', apply() {} }", 'default export: name: expected lower-case words with dashes'],
    ["{ name: 'a', story: 's' }", 'default export: apply: expected a function'],
    ["{ name: 'a', story: 's', polices: ['external'], apply() {} }", 'default export: Unrecognized key: "polices"'],
    ["{ name: 'a', story: 's', lab: { smus: 1 }, apply() {} }", 'default export: lab: Unrecognized key: "smus"'],
    ["{ name: 'a', story: 's', lab: { smmus: 9 }, apply() {} }", 'lab.smmus: expected an integer, 1 to 8'],
    ["{ name: 'a', story: 's', async apply() { throw new Error('x'); } }", 'a cannot be applied: apply gave a promise'],
    ["{ name: 'a', story: 's', apply() { throw new Error('why'); } }", 'a cannot be applied: why'],
    [
      "{ name: 'a', story: 's', apply({ driver }) { driver.invalidtion = {}; } }",
      'a cannot be applied: there is no driver.invalidtion; driver has kernel, ',
    ],
    [
      "{ name: 'a', story: 's', apply({ core }) { core.attachDevice = null; } }",
      'a cannot be applied: core.attachDevice is null, expected function',
    ],
    [
      "{ name: 'a', story: 's', apply({ driver }) { driver.invalidation = { ...driver.invalidation, flushTags() {} }; } }",
      'a cannot be applied: there is no driver.invalidation.flushTags',
    ],
    [
      "{ name: 'a', story: 's', apply({ driver }) { driver.invalidation = { flushTag() {} }; } }",
      'is not a function any more',
    ],
  ])('a module that exports %s: exit 2 and one line that says what was expected', async (text, message) => {
    const file = join(scratch(), 'bug.mjs');
    writeFileSync(file, `export default ${text};\n`);
    const { code, out, err } = await run(['check', 'vmid-free', '--bug', file, '--runs', '2']);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });
});
