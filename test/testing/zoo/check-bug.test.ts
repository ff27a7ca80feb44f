import { mkdtempSync } from 'node:fs';
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
});
