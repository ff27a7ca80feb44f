import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { POLICIES } from '../../src/testing/lab.ts';
import { buildPackage, PACKAGE } from '../cli/package.ts';

const PAGE = readFileSync(new URL('../../docs/campaigns.md', import.meta.url), 'utf8');

interface Snippet {
  readonly language: string;
  readonly code: string;
  readonly at: number;
}

const snippets: readonly Snippet[] = [...PAGE.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(
  ([, language = '', code = ''], at) => ({ language, code, at }),
);
const inLanguage = (...languages: readonly string[]): readonly Snippet[] =>
  snippets.filter(({ language }) => languages.includes(language));

/** What the workflow knows of its matrix. */
const expression = (what: 'index' | 'total'): string => `\${{ strategy.job-${what} }}`;

/** All values under a key, wherever it stands. */
function under(key: string, value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, one]) => [...(name === key ? [one] : []), ...under(key, one)]);
}

interface Manifest {
  readonly kind?: string;
  readonly metadata?: { readonly name: string };
  readonly spec?: Readonly<Record<string, unknown>>;
  readonly jobs?: Readonly<Record<string, { readonly steps: readonly { readonly run?: string }[] }>>;
}

const manifests: readonly Manifest[] = inLanguage('yaml').flatMap(({ code }) =>
  parseAllDocuments(code).map((document) => {
    expect(document.errors).toEqual([]);
    return document.toJS() as Manifest;
  }),
);
const job = (name: string): Manifest => {
  const found = manifests.find(({ kind, metadata }) => kind === 'Job' && metadata?.name === name);
  if (found === undefined) throw new Error(`no Job ${name}`);
  return found;
};
/** What a container of a Job runs. */
const argsOf = (manifest: Manifest): string => String((under('args', manifest)[0] as string[])[0]);
const envOf = (manifest: Manifest): Readonly<Record<string, string>> =>
  Object.fromEntries(
    (under('env', manifest)[0] as { name: string; value: string }[]).map((one) => [one.name, one.value]),
  );

const runs = manifests.flatMap(({ jobs = {} }) =>
  Object.values(jobs).flatMap(({ steps }) => steps.flatMap((step) => (step.run === undefined ? [] : [step.run]))),
);

describe('what docs/campaigns.md shows is valid', () => {
  test.each([
    ...inLanguage('sh', 'bash').map(({ at, code }) => [`snippet ${at}`, code] as const),
    ...runs.map((code, i) => [`run ${i} of the workflow`, code] as const),
    ...['campaign', 'campaign-merge'].map((name) => [`args of ${name}`, argsOf(job(name))] as const),
  ])('%s is a shell script', (_, code) => {
    const { status, stderr } = spawnSync('bash', ['-n'], { input: code, encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
    // A shell sees no expression of the workflow: they come as environment.
    expect(code).not.toContain('${{');
  });

  test('the workflow: shards of a matrix, then one merge of what they uploaded', () => {
    const workflow = manifests.find(({ jobs }) => jobs !== undefined);
    expect(Object.keys(workflow?.jobs ?? {})).toEqual(['shard', 'merge']);
    expect(under('SHARD', workflow)).toEqual([`${expression('index')}/${expression('total')}`]);
    expect(under('needs', workflow)).toEqual(['shard']);
    expect(under('pattern', workflow)).toEqual(['shard-*']);
    expect(under('name', under('with', workflow))).toEqual([`shard-${expression('index')}`, 'found']);
  });

  test('the indexed Job: as many shards as completions', () => {
    const { spec } = job('campaign');
    expect(spec).toMatchObject({ completionMode: 'Indexed', completions: Number(envOf(job('campaign')).SHARDS) });
    expect(argsOf(job('campaign'))).toContain('--shard "$JOB_COMPLETION_INDEX/$SHARDS"');
  });

  test('the Slurm array: as many shards as tasks', () => {
    const script = inLanguage('bash').find(({ code }) => code.includes('--array='))?.code ?? '';
    const [, last = ''] = /^#SBATCH --array=0-(\d+)$/m.exec(script) ?? [];
    expect(/^SHARDS=(\d+)$/m.exec(script)?.[1]).toBe(String(Number(last) + 1));
  });
});

describe('what docs/campaigns.md shows works', () => {
  let directory: string;
  beforeAll(() => {
    buildPackage([]);
  }, 240_000);

  /** Runs a script where the package is, with reports of its own. */
  function script(code: string, env: Readonly<Record<string, string>>): { status: number | null; out: string } {
    const { status, stdout, stderr } = spawnSync('bash', ['-c', code], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    return { status, out: `${stdout}${stderr}` };
  }

  /** A directory that looks like the checkout. */
  function checkout(): void {
    directory = mkdtempSync(join(tmpdir(), 'smmulab-campaign-'));
    symlinkSync(join(PACKAGE, 'dist'), join(directory, 'dist'));
    mkdirSync(join(directory, 'reports'));
  }

  const small = (code: string): string => code.replace(/^SHARDS=.*$/m, 'SHARDS=2').replace(/^RUNS=.*$/m, 'RUNS=4');

  test('the Slurm scripts: two tasks and a merge', () => {
    checkout();
    const [shard = '', merge = ''] = inLanguage('bash').map(({ code }) => code);
    for (const task of ['0', '1']) {
      const env = { SLURM_SUBMIT_DIR: directory, SLURM_ARRAY_TASK_ID: task, SLURM_CPUS_PER_TASK: '1' };
      expect(script(small(shard), env)).toEqual({ status: 0, out: '' });
    }
    expect(readdirSync(join(directory, 'reports')).sort()).toEqual(['shard-0.json', 'shard-1.json']);
    const merged = script(merge, { SLURM_SUBMIT_DIR: directory });
    expect(merged.status).toBe(0);
    expect(merged.out).toMatch(/^s2vmid-owned +4 +\d+ +holds$/m);
  });

  test('the args of the Jobs: two pods and a merge; options that cannot be are an error', () => {
    checkout();
    const env = { ...envOf(job('campaign')), REPORTS: join(directory, 'reports'), SHARDS: '2', RUNS: '4' };
    for (const JOB_COMPLETION_INDEX of ['0', '1'])
      expect(script(argsOf(job('campaign')), { ...env, JOB_COMPLETION_INDEX })).toEqual({ status: 0, out: '' });
    const merged = script(argsOf(job('campaign-merge')), env);
    expect(merged.status).toBe(0);
    expect(merged.out).toMatch(/^s2vmid-owned +4 +\d+ +holds$/m);
    const wrong = script(argsOf(job('campaign')), { ...env, JOB_COMPLETION_INDEX: '2' });
    expect(wrong.status).not.toBe(0);
    expect(wrong.out).toContain("--shard: '2/2' is not I/N");
  });

  test('the steps of the workflow: a shard and a merge', () => {
    checkout();
    const shard = runs.find((code) => code.includes('--shard')) ?? '';
    const merge = runs.find((code) => code.includes('--merge')) ?? '';
    const env = { RUNS: '2', SEED: '5', SHARD: '0/1', REPORT: 'shard-0.json' };
    expect(script(shard, env)).toEqual({ status: 0, out: '' });
    expect(script(merge, {}).status).toBe(0);
  });
});

test('the table of long campaigns: each with its policy, schedule, seed and commit, a million operations, no finding', () => {
  const [begin, end] = [PAGE.indexOf('<!-- campaigns:'), PAGE.indexOf('<!-- end of campaigns -->')];
  expect(begin).toBeGreaterThan(0);
  expect(end).toBeGreaterThan(begin);
  const rows = PAGE.slice(begin, end)
    .split('\n')
    .filter((line) => /^\| [a-z]/.test(line) && !line.startsWith('| policy'));
  for (const row of rows) {
    const [policy = '', schedule, seed, commit, , ops = '', , , findings] = row
      .split(' | ')
      .map((cell) => cell.replace(/^\| | \|$/g, ''));
    expect(POLICIES).toContain(policy);
    expect(['eager', 'seeded']).toContain(schedule);
    expect(seed).toMatch(/^\d+$/);
    expect(commit).toMatch(/^[0-9a-f]{7,}$/);
    expect(Number(ops.replaceAll(',', ''))).toBeGreaterThanOrEqual(1_000_000);
    expect(findings).toBe('none');
  }
});
