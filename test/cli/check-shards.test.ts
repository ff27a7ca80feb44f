import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage, PACKAGE, type Ran } from './package.ts';

/** Properties that are asked on the same cases, and one that has its own. */
const ASKED = ['s2vmid-owned', 'vmid-free', 'rules-kept', 'isolation'];
/** A bug that is asked for as a module: a VMID that is given up keeps its TLB entries. */
const NO_FLUSH = `export default {
  name: 'no-flush',
  story: 'A VMID that is given up keeps its TLB entries.',
  policies: ['at-attach', 'viommu-only'],
  apply({ driver }) {
    driver.invalidation = { ...driver.invalidation, flushTag: () => true };
  },
};
`;
/** A driver whose unmaps invalidate nothing, now and then. */
const FORGETFUL = `import make from './my-driver.mjs';
export default (kernel, firmware) => {
  const ops = make(kernel, firmware);
  const { domainAllocPagingFlags } = ops;
  ops.domainAllocPagingFlags = (dev, flags, data) => {
    const domain = domainAllocPagingFlags(dev, flags, data);
    domain.ops = { ...domain.ops, iotlbSync: () => {}, flushIotlbAll: () => {} };
    return domain;
  };
  return ops;
};
`;

let smmulab: (args: readonly string[]) => Ran;
/** A directory that a command line can name from the package's own. */
let scratch: () => string;

beforeAll(() => {
  smmulab = buildPackage(['examples/my-driver.mjs']);
  mkdirSync(join(PACKAGE, 'examples'), { recursive: true });
  writeFileSync(join(PACKAGE, 'examples/no-flush.mjs'), NO_FLUSH);
  writeFileSync(join(PACKAGE, 'examples/forgetful.mjs'), FORGETFUL);
  const base = mkdtempSync(join(tmpdir(), 'smmulab-shards-'));
  let made = 0;
  scratch = () => {
    const directory = join(base, String(made++));
    mkdirSync(directory);
    return directory;
  };
}, 240_000);

interface Entry {
  readonly name: string;
  readonly ok: boolean;
  readonly runs: number;
  readonly ops: number;
  readonly findings: readonly { readonly run: number; readonly file: string }[];
}

interface Whole {
  readonly properties: readonly Entry[];
  readonly coverage: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** The reports of all shards, in files. */
function shards(args: readonly string[], of: number, out: string): string[] {
  return Array.from({ length: of }, (_, i) => {
    const { out: json, err } = smmulab([...args, '--json', '--out', out, '--shard', `${i}/${of}`]);
    expect(err).toBe('');
    const file = join(out, `shard-${i}.json`);
    writeFileSync(file, json);
    return file;
  });
}

describe('workers and shards change nothing', () => {
  test('what holds: four workers and three shards give the report of one process, byte by byte', () => {
    const out = scratch();
    const args = ['check', ...ASKED, '--runs', '20', '--max-ops', '20', '--seed', '5'];
    const one = smmulab([...args, '--json', '--out', out]);
    expect([one.code, one.err]).toEqual([0, '']);
    expect(smmulab([...args, '--json', '--out', out, '--workers', '4'])).toEqual(one);
    const files = shards(args, 3, out);
    expect(smmulab(['check', '--merge', ...files, '--json', '--out', out])).toEqual(one);
    const text = smmulab([...args, '--out', out]);
    expect(smmulab(['check', '--merge', ...files.reverse(), '--out', out])).toEqual(text);
  });

  test('more shards than runs', () => {
    const out = scratch();
    const args = ['check', 'vmid-free', '--runs', '2', '--max-ops', '5'];
    const one = smmulab([...args, '--json']);
    expect(smmulab(['check', '--merge', ...shards(args, 3, out), '--json'])).toEqual(one);
  });

  test('what is broken, beside what holds: the lowest run, and counted up to it', () => {
    const out = scratch();
    const args = ['check', 'dma-contained', 'rules-kept', 'isolation', '--driver', 'examples/forgetful.mjs'];
    args.push('--runs', '12', '--max-ops', '60', '--seed', '2');
    const one = smmulab([...args, '--json', '--out', out]);
    const { properties } = JSON.parse(one.out) as Whole;
    const broken = properties.filter(({ ok }) => !ok);
    expect(one.code).toBe(1);
    expect([broken.length > 0, broken.length < properties.length]).toEqual([true, true]);
    for (const { runs, findings } of broken) expect(findings.map(({ run }) => run + 1)).toEqual([runs]);
    expect(smmulab([...args, '--json', '--out', out, '--workers', '3'])).toEqual(one);
    expect(smmulab(['check', '--merge', ...shards(args, 3, out), '--json', '--out', out])).toEqual(one);
  });

  test('everything broken: workers drop what they made beyond the last finding', () => {
    const out = scratch();
    const args = ['check', 'dma-contained', '--driver', 'examples/forgetful.mjs', '--runs', '4000', '--seed', '2'];
    const one = smmulab([...args, '--json', '--out', out]);
    const [entry] = (JSON.parse(one.out) as Whole).properties;
    expect([one.code, entry?.ok]).toEqual([1, false]);
    expect(entry?.runs).toBeLessThan(1000);
    const { coverage } = JSON.parse(one.out) as Whole;
    expect(Object.values(coverage.schedules ?? {}).reduce((sum, n) => sum + n, 0)).toBe(entry?.runs);
    expect(smmulab([...args, '--json', '--out', out, '--workers', '3'])).toEqual(one);
    const merged = smmulab(['check', '--merge', ...shards(args, 2, out), '--json', '--out', out]);
    expect(merged.code).toBe(1);
    expect((JSON.parse(merged.out) as Whole).properties).toEqual((JSON.parse(one.out) as Whole).properties);
  });

  test('a bug of a module: workers and shards, found and not found', () => {
    const out = scratch();
    // One operation never gives up a VMID that was in use.
    for (const ops of ['100', '1']) {
      const args = ['check', 'vmid-free', '--bug', 'examples/no-flush.mjs', '--seed', '3', '--runs', '12'];
      args.push('--max-ops', ops, '--out', out);
      const one = smmulab([...args, '--json']);
      const { bugs } = JSON.parse(one.out);
      expect([one.code, bugs[0].found, bugs[0].name]).toEqual([ops === '1' ? 0 : 1, ops !== '1', 'no-flush']);
      expect(smmulab([...args, '--json', '--workers', '3'])).toEqual(one);
      const merge = ['check', '--merge', ...shards(args, 2, out), '--out', out];
      expect(smmulab([...merge, '--json'])).toEqual(one);
      expect(smmulab(merge)).toEqual(smmulab(args));
    }
  });

  test('the case that a merge saves replays where it was merged', () => {
    const [out, elsewhere] = [scratch(), scratch()];
    const args = ['check', 'dma-contained', '--driver', 'examples/forgetful.mjs', '--runs', '40', '--seed', '2'];
    const files = shards(args, 2, out);
    const merged = smmulab(['check', '--merge', ...files, '--out', elsewhere]);
    const [, line = ''] = /^replay: smmulab (.*)$/m.exec(merged.out) ?? [];
    expect([merged.code, line.includes(elsewhere)]).toEqual([1, true]);
    const again = smmulab(line.split(' '));
    expect([again.code, again.err]).toEqual([1, '']);
    expect(again.out).toMatch(/^dma-contained broken/);
  });
});

describe('smmulab check --merge refuses', () => {
  let directory: string;
  const put = (name: string, change: (report: Record<string, unknown>) => unknown, from = 'a.json'): string => {
    const file = join(directory, name);
    const report = JSON.parse(readFileSync(join(directory, from), 'utf8'));
    writeFileSync(file, JSON.stringify(change(report) ?? report));
    return name;
  };
  /** Names of files in the directory, as arguments. */
  const merge = (...names: readonly string[]): Ran =>
    smmulab(['check', '--merge', ...names.map((name) => join(directory, name)), '--out', directory]);

  beforeAll(() => {
    directory = scratch();
    const args = ['check', 's2vmid-owned', '--runs', '4', '--max-ops', '5'];
    for (const [name, shard] of Object.entries({ 'a.json': '0/2', 'b.json': '1/2' }))
      writeFileSync(join(directory, name), smmulab([...args, '--json', '--shard', shard]).out);
    writeFileSync(join(directory, 'whole.json'), smmulab([...args, '--json']).out);
    writeFileSync(join(directory, 'text.json'), 'no report\n');
    writeFileSync(join(directory, 'list.json'), '[]\n');
  }, 60_000);

  test('nothing of two shards that belong together', () => {
    const { code, err } = merge('a.json', 'b.json');
    expect([code, err]).toEqual([0, '']);
  });

  test.each<[string, () => string[], RegExp]>([
    ['one that is missing', () => ['a.json'], /--merge: no report of shard 1\/2$/],
    [
      'the same shard twice',
      () => ['a.json', 'b.json', put('c.json', () => {})],
      /c\.json: shard 0\/2 again, after .*a\.json$/,
    ],
    [
      'another seed',
      () => ['a.json', put('c.json', (r) => ({ ...r, seed: 9 }), 'b.json')],
      /c\.json: seed 9, and 1 in .*a\.json$/,
    ],
    [
      'other options',
      () => ['a.json', put('c.json', (r) => ({ ...r, options: { ...(r.options as object), runs: 5 } }), 'b.json')],
      /c\.json: options .*"runs":5.*, and .*"runs":4.* in .*a\.json$/,
    ],
    [
      'another version',
      () => ['a.json', put('c.json', (r) => ({ ...r, smmulab: '0.0.1' }), 'b.json')],
      /c\.json: version "0\.0\.1"/,
    ],
    [
      'another number of shards',
      () => ['a.json', put('c.json', (r) => ({ ...r, shard: '1/3' }), 'b.json')],
      /c\.json: one of 3 shards, and of 2 in/,
    ],
    ['a whole report', () => ['whole.json'], /whole\.json: not a shard: it was made without --shard$/],
    ['what is no JSON', () => ['text.json'], /text\.json: not JSON: /],
    ['what is no report', () => ['list.json'], /list\.json: not a report of smmulab check --json$/],
    ['a field of another kind', () => ['b.json', put('c.json', (r) => ({ ...r, coverage: 7 }))], /c\.json: coverage: /],
    ['a field that is not known', () => ['b.json', put('c.json', (r) => ({ ...r, more: 7 }))], /c\.json: .*more/],
  ])('%s: exit 2 and one line', (_, files, message) => {
    const { code, out, err } = merge(...files());
    expect([code, out]).toEqual([2, '']);
    expect(err.trimEnd()).toMatch(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });
});

test('Ctrl-C ends the workers too', async () => {
  const main = join(PACKAGE, 'dist/src/cli/main.js');
  const child = spawn(
    process.execPath,
    [main, 'check', 'vmid-free', '--runs', '100000', '--max-ops', '1', '--workers', '2'],
    { cwd: PACKAGE },
  );
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on('exit', (_, signal) => resolve(signal)));
  // The first line of progress: the workers are at it.
  await new Promise((resolve) => child.stderr.once('data', resolve));
  child.kill('SIGINT');
  expect(await ended).toBe('SIGINT');
}, 240_000);
