/**
 * The long campaign: `npm run campaign -- [--ops N] [--seed S] [--policy P] [--schedule M] [--workers N]
 * [--results FILE] [--table FILE] [--out DIR]`.
 *
 * For each policy and each schedule, runs until so many operations (default one million) have been asked about by all
 * properties and the sanitizer; isolation, whose cases are its own, makes the same number of runs beside them. Prints
 * what each gave. `--results` keeps what was measured in a JSON file and adds to it, so that policies can be run one at a
 * time, on several machines; `--table` writes all that is kept between the markers of a page of docs. The exit code is 1
 * if anything was found.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { campaign } from '../src/cli/check/campaign.ts';
import { withPool } from '../src/cli/check/pool.ts';
import type { CampaignReport } from '../src/cli/check/report.ts';
import { teller } from '../src/cli/check/tell.ts';
import { packageVersion } from '../src/cli/version.ts';
import { COVERAGE_KINDS } from '../src/testing/coverage.ts';
import { POLICIES } from '../src/testing/lab.ts';
import { PROPERTIES } from '../src/testing/properties/index.ts';
import { commit } from './commit.ts';
import { processorTime } from './stack.ts';

const SCHEDULES = ['eager', 'seeded'] as const;
/** More runs than so many operations can need. */
const RUNS = 100_000_000;
/** Runs between two lines of progress. */
const PROGRESS_EVERY = 500;
const BEGIN = '<!-- campaigns: written by npm run campaign -- --table, held by test/docs/campaigns.test.ts -->';
const END = '<!-- end of campaigns -->';

/** One campaign. */
interface Measured {
  readonly policy: string;
  readonly schedule: string;
  readonly seed: number;
  readonly commit: string;
  readonly runs: number;
  /** Operations that all properties but isolation were asked about. */
  readonly ops: number;
  /** Operations of isolation, both runs of each case. */
  readonly isolation: number;
  /** Operations of both, per second of processor time. */
  readonly perSecond: number;
  readonly findings: readonly { readonly property: string; readonly run: number; readonly file: string }[];
  /** What could be covered and was not, by kind. */
  readonly missed: Readonly<Record<string, readonly string[]>>;
}

const { values } = parseArgs({
  options: {
    ops: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    policy: { type: 'string' },
    schedule: { type: 'string' },
    workers: { type: 'string', default: '1' },
    results: { type: 'string' },
    table: { type: 'string' },
    out: { type: 'string', default: 'campaign-findings' },
  },
});

function whole(name: 'ops' | 'seed' | 'workers', least: number): number {
  const value = Number(values[name]);
  if (!Number.isSafeInteger(value) || value < least) throw new Error(`--${name}: expected a number from ${least} on`);
  return value;
}

function among<T extends string>(name: 'policy' | 'schedule', legal: readonly T[]): readonly T[] {
  const given = values[name];
  const found = legal.filter((one) => given === undefined || one === given);
  if (found.length === 0) throw new Error(`--${name}: expected one of ${legal.join(', ')}`);
  return found;
}

const missedOf = ({ coverage }: CampaignReport): Measured['missed'] =>
  Object.fromEntries(
    COVERAGE_KINDS.map((kind) => {
      const names = Object.entries(coverage[kind]).filter(([, count]) => count === 0);
      return [kind, names.map(([name]) => name)] as const;
    }).filter(([, names]) => names.length > 0),
  );

async function measure(policy: (typeof POLICIES)[number], schedule: (typeof SCHEDULES)[number]): Promise<Measured> {
  const [ops, seed, workers] = [whole('ops', 1), whole('seed', 0), whole('workers', 1)];
  const properties = PROPERTIES.map(({ name }) => name);
  const task = { seed, runs: RUNS, shard: null, fixed: { policy, schedule }, properties };
  const before = processorTime();
  const progress = (k: number): void => {
    if ((k + 1) % PROGRESS_EVERY === 0) process.stderr.write(`${policy}, ${schedule}: ${k + 1} runs\n`);
  };
  mkdirSync(values.out, { recursive: true });
  const tell = teller(seed, values.out, {});
  const report = await withPool(task, workers, (pool) => campaign(task, pool, tell, packageVersion(), progress, ops));
  const seconds = (processorTime() - before) / 1e9;
  const asked = report.properties.filter(({ name }) => name !== 'isolation');
  const isolation = report.properties.find(({ name }) => name === 'isolation')?.ops ?? 0;
  const most = Math.max(...asked.map((one) => one.ops));
  for (const { findings } of report.properties) for (const { told } of findings) console.log(`${told.join('\n')}\n`);
  return {
    policy,
    schedule,
    seed,
    commit: commit(),
    runs: Math.max(...report.properties.map(({ runs }) => runs)),
    ops: most,
    isolation,
    perSecond: Math.round((most + isolation) / seconds),
    findings: report.properties.flatMap(({ name, findings }) =>
      findings.map(({ run, file }) => ({ property: name, run, file })),
    ),
    missed: missedOf(report),
  };
}

const kept: Measured[] =
  values.results !== undefined && existsSync(values.results) ? JSON.parse(readFileSync(values.results, 'utf8')) : [];

function remember(one: Measured): void {
  const same = kept.findIndex(
    ({ policy, schedule, seed }) => policy === one.policy && schedule === one.schedule && seed === one.seed,
  );
  if (same < 0) kept.push(one);
  else kept[same] = one;
  if (values.results !== undefined) writeFileSync(values.results, `${JSON.stringify(kept, null, 1)}\n`);
}

const number = (n: number): string => n.toLocaleString('en-US');

const foundText = ({ findings }: Measured): string =>
  findings.length === 0 ? 'none' : findings.map(({ property, run }) => `${property} (run ${run})`).join(', ');

/** What was not exercised, a line for each kind. */
const missedLines = ({ missed }: Measured): string[] =>
  Object.entries(missed).map(([kind, names]) => `  not exercised, ${kind}: ${names.join(', ')}`);

/** What is in every one of some lists, by kind. */
function everywhere(all: readonly Measured[]): Measured['missed'] {
  const [first, ...rest] = all;
  if (first === undefined) return {};
  const lists = Object.entries(first.missed).map(
    ([kind, names]) =>
      [kind, names.filter((name) => rest.every(({ missed }) => missed[kind]?.includes(name)))] as const,
  );
  return Object.fromEntries(lists.filter(([, names]) => names.length > 0));
}

/** All that is kept, as Markdown. */
function table(): string {
  const rows = kept.map((one) => {
    const cells = [one.policy, one.schedule, one.seed, one.commit, number(one.runs), number(one.ops)];
    return `| ${[...cells, number(one.isolation), number(one.perSecond), foundText(one)].join(' | ')} |`;
  });
  const never = everywhere(kept);
  const left = Object.entries(never).map(([kind, names]) => `- ${kind}: ${names.join(', ')}`);
  return [
    '| policy | schedule | seed | commit | runs | operations | of isolation | per second and core | findings |',
    '|---|---|---|---|---|---|---|---|---|',
    ...rows,
    '',
    left.length === 0
      ? 'Nothing that could be exercised was left out by all of them.'
      : 'Not exercised by any of them:',
    ...(left.length === 0 ? [] : ['', ...left]),
  ].join('\n');
}

/** Writes the table between the markers of a page. */
function write(file: string): void {
  const page = readFileSync(file, 'utf8');
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${file} has no ${BEGIN} with ${END} after it`);
  writeFileSync(file, `${page.slice(0, begin + BEGIN.length)}\n\n${table()}\n\n${page.slice(end)}`);
}

const measured: Measured[] = [];
for (const policy of among('policy', POLICIES))
  for (const schedule of among('schedule', SCHEDULES)) {
    const one = await measure(policy, schedule);
    measured.push(one);
    remember(one);
    const ops = `${number(one.ops)} operations, ${number(one.isolation)} of isolation`;
    console.log(`${policy.padEnd(16)} ${schedule.padEnd(7)} seed ${one.seed}  ${number(one.runs)} runs, ${ops}`);
    console.log(`  ${number(one.perSecond)} a second and core; findings: ${foundText(one)}`);
    for (const line of missedLines(one)) console.log(line);
  }
if (values.table !== undefined) write(values.table);
process.exitCode = measured.every(({ findings }) => findings.length === 0) ? 0 : 1;
