/**
 * Joins the reports of shards into the one that a single process would have made. A property is broken by the lowest run
 * that broke it in any shard, and counted up to that run; coverage is that of all runs that were made.
 */
import { z } from 'zod';
import { ScenarioError, scenarioOf } from '../../lab/scenario.ts';
import { sumOf } from '../../testing/counts.ts';
import { COVERAGE_KINDS, Coverage, type CoverageReport } from '../../testing/coverage.ts';
import { CliError } from '../error.ts';
import { type Io, readBytes } from '../io.ts';
import type { BugEntry, CampaignReport, FindingEntry, HuntReport, PropertyEntry, Report, Trail } from './report.ts';
import { runOf, type Shard } from './task.ts';
import { baseName, save } from './tell.ts';

/** Bytes of a report at most. */
const MAX_REPORT = 1 << 28;
/** Shards of a campaign at most. */
export const MAX_SHARDS = 100_000;

const name = z.string().min(1).max(200);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const counts = z.record(name, count);
const told = z.array(z.string().max(10_000)).max(100_000);
const caseData = z.record(z.string(), z.unknown());

const finding = z.strictObject({
  rule: name,
  message: z.string().max(100_000),
  run: count,
  drawnOps: count,
  case: caseData,
  file: z.string().max(10_000),
  told,
});

const property = z.strictObject({
  name,
  ok: z.boolean(),
  runs: count,
  ops: count,
  findings: z.array(finding).max(1),
  apart: counts.optional(),
});

const bug = z.strictObject({
  name,
  found: z.boolean(),
  by: z.string().max(1000).nullable(),
  runs: count,
  ops: count.nullable(),
  run: count.optional(),
  story: z.string().max(100_000).optional(),
  case: caseData.optional(),
  file: z.string().max(10_000).optional(),
  told: told.optional(),
});

const head = {
  smmulab: name,
  seed: count,
  shard: z.string().regex(/^\d{1,6}\/\d{1,6}$/, 'expected I/N'),
  options: z.looseObject({ runs: count, properties: z.array(name), bug: name.optional(), driver: name.optional() }),
};

const trail = z.strictObject({
  properties: z.array(name).min(1).max(1000),
  ops: z.string().regex(/^(?:\d{1,9}(?: \d{1,9})*)?$/, 'expected numbers'),
  apart: z.array(z.tuple([count, name])).optional(),
});

const shape = z.union([
  z.strictObject({
    ...head,
    properties: z.array(property).min(1).max(1000),
    coverage: z.strictObject(
      Object.fromEntries(COVERAGE_KINDS.map((kind) => [kind, counts])) as Record<keyof CoverageReport, typeof counts>,
    ),
    trail: z.array(trail).max(1000),
  }),
  z.strictObject({ ...head, bugs: z.array(bug).min(1).max(100_000) }),
]);

/** A shard's report, and where it came from. */
interface Part<R extends Report = Report> {
  readonly file: string;
  readonly shard: Shard;
  readonly report: R;
}

const isCampaign = (part: Part): part is Part<CampaignReport> => 'properties' in part.report;
const isHunt = (part: Part): part is Part<HuntReport> => 'bugs' in part.report;

function parsed(file: string, io: Io): unknown {
  try {
    return JSON.parse(Buffer.from(readBytes(file, io, MAX_REPORT)).toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) throw new CliError(`${file}: not JSON: ${error.message}`);
    throw error;
  }
}

/** The report of a shard. @throws CliError naming the file, the place in it, and what was expected */
function read(file: string, io: Io): Part {
  const data = parsed(file, io);
  if (typeof data !== 'object' || data === null || !('properties' in data || 'bugs' in data))
    throw new CliError(`${file}: not a report of smmulab check --json`);
  if (!('shard' in data)) throw new CliError(`${file}: not a shard: it was made without --shard`);
  // The half of the union that the report means to be, for a message about that one.
  const [ofCampaign, ofHunt] = shape.options;
  const { error, data: valid } = 'bugs' in data ? ofHunt.safeParse(data) : ofCampaign.safeParse(data);
  if (valid === undefined) {
    const [issue] = error.issues;
    throw new CliError(`${file}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a report'}`);
  }
  const [index = 0, of = 0] = valid.shard.split('/').map(Number);
  if (of < 1 || of > MAX_SHARDS || index >= of) throw new CliError(`${file}: shard: '${valid.shard}' is not I/N`);
  return { file, shard: { index, of }, report: data as object as Report };
}

/** What all shards must have in common, and what it is called. */
const COMMON: readonly (readonly [string, (report: Report) => unknown])[] = [
  ['version', ({ smmulab }) => smmulab],
  ['kind of report', (report) => ('bugs' in report ? 'hunt' : 'campaign')],
  ['seed', ({ seed }) => seed],
  ['options', ({ options }) => options],
];

/** An object's members in the order of their names, so that equal options are equal text. */
const text = (value: unknown): string =>
  JSON.stringify(value, (_, one: unknown) =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1)))
      : one,
  );

/** Holds shards against each other: one campaign, each shard once, none missing. In the order of the shards. */
function whole(parts: readonly Part[]): readonly Part[] {
  const [first, ...rest] = parts;
  if (first === undefined) throw new CliError('--merge: no reports');
  for (const other of rest) {
    for (const [what, of] of COMMON) {
      const [mine, its] = [text(of(first.report)), text(of(other.report))];
      if (mine !== its) throw new CliError(`${other.file}: ${what} ${its}, and ${mine} in ${first.file}`);
    }
    if (other.shard.of !== first.shard.of)
      throw new CliError(`${other.file}: one of ${other.shard.of} shards, and of ${first.shard.of} in ${first.file}`);
  }
  const byIndex = new Map<number, Part>();
  for (const part of parts) {
    const same = byIndex.get(part.shard.index);
    if (same !== undefined)
      throw new CliError(`${part.file}: shard ${part.shard.index}/${part.shard.of} again, after ${same.file}`);
    byIndex.set(part.shard.index, part);
  }
  const missing = Array.from({ length: first.shard.of }, (_, i) => i).filter((i) => !byIndex.has(i));
  if (missing.length > 0) {
    const list = missing.slice(0, 10).map((i) => `${i}/${first.shard.of}`);
    const more = missing.length > list.length ? ` and ${missing.length - list.length} more` : '';
    throw new CliError(`--merge: no report of shard ${list.join(', ')}${more}`);
  }
  return [...parts].sort((a, b) => a.shard.index - b.shard.index);
}

/** Saves a shard's case beside the others. @throws CliError for a case that is no scenario */
function kept<E extends Pick<FindingEntry, 'case' | 'file'>>(file: string, entry: E, base: string, out: string): E {
  try {
    scenarioOf(entry.case);
  } catch (error) {
    if (error instanceof ScenarioError) throw new CliError(`${file}: case: ${error.message}`);
    throw error;
  }
  return { ...entry, file: save(out, base, entry.case) };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

/** What a shard has counted of a property up to a run. @throws CliError if it does not say */
function upTo({ file, shard, report }: Part<CampaignReport>, property: string, run: number): PropertyEntry {
  const line: Trail | undefined = report.trail?.find(({ properties }) => properties.includes(property));
  const ops = line === undefined || line.ops === '' ? [] : line.ops.split(' ').map(Number);
  const runs = run < shard.index ? 0 : Math.floor((run - shard.index) / shard.of) + 1;
  if (ops.length < runs) throw new CliError(`${file}: trail: ${ops.length} runs of ${property}, expected ${runs}`);
  const apart = (line?.apart ?? []).filter(([k]) => runOf(shard, k) <= run).map(([, why]) => ({ [why]: 1 }));
  return { name: property, ok: true, runs, ops: sum(ops.slice(0, runs)), findings: [], apart: sumOf(apart) };
}

function mergedProperty(parts: readonly Part<CampaignReport>[], name: string, out: string): PropertyEntry {
  const entries = parts.map((part) => {
    const entry = part.report.properties.find((one) => one.name === name);
    if (entry === undefined) throw new CliError(`${part.file}: properties: no ${name}`);
    return { part, entry };
  });
  const found = entries.flatMap(({ part, entry }) => entry.findings.map((one) => ({ part, one })));
  const [first, ...rest] = found;
  const lowest = rest.reduce((least, other) => (least && other.one.run < least.one.run ? other : least), first);
  const counted = entries.map(({ part, entry }) => (lowest === undefined ? entry : upTo(part, name, lowest.one.run)));
  const apart = sumOf(counted.map((entry) => entry.apart ?? {}));
  return {
    name,
    ok: lowest === undefined,
    runs: sum(counted.map(({ runs }) => runs)),
    ops: sum(counted.map(({ ops }) => ops)),
    ...(lowest === undefined
      ? { findings: [] }
      : {
          findings: [kept(lowest.part.file, lowest.one, baseName(name, lowest.part.report.seed, lowest.one.run), out)],
        }),
    ...(Object.keys(apart).length === 0 ? {} : { apart }),
  };
}

function mergedCampaign(parts: readonly Part<CampaignReport>[], out: string): CampaignReport {
  const [first] = parts;
  if (first === undefined) throw new CliError('--merge: no reports');
  const { smmulab, seed, options, properties } = first.report;
  const coverage = new Coverage();
  for (const { report } of parts) coverage.add(report.coverage);
  return {
    smmulab,
    seed,
    options,
    properties: properties.map(({ name }) => mergedProperty(parts, name, out)),
    coverage: coverage.report(),
  };
}

function mergedBug(parts: readonly Part<HuntReport>[], name: string, out: string): BugEntry {
  const entries = parts.map(({ file, report }) => {
    const entry = report.bugs.find((one) => one.name === name);
    if (entry === undefined) throw new CliError(`${file}: bugs: no ${name}`);
    return { file, entry, seed: report.seed };
  });
  const [lowest] = entries
    .filter(({ entry }) => entry.run !== undefined)
    .sort((a, b) => (a.entry.run ?? 0) - (b.entry.run ?? 0));
  if (lowest === undefined) {
    const [first] = entries;
    if (first === undefined) throw new CliError('--merge: no reports');
    return { ...first.entry, runs: sum(entries.map(({ entry }) => entry.runs)) };
  }
  const { entry, file, seed } = lowest;
  const { run = 0, case: data, file: saved, by } = entry;
  const counted = { ...entry, runs: run + 1 };
  if (data === undefined || saved === undefined) return counted;
  const [property = name] = (by ?? '').split(' ');
  return kept(file, { ...counted, case: data, file: saved }, baseName(property, seed, run), out);
}

/**
 * Joins the reports in some files; `-` is standard input. out: where the cases are saved.
 * @throws CliError naming the file and what is wrong with it: another campaign's, a shard again, one missing
 */
export function merge(files: readonly string[], out: string, io: Io): Report {
  const parts = whole(files.map((file) => read(file, io)));
  const campaigns = parts.filter(isCampaign);
  if (campaigns.length > 0) return mergedCampaign(campaigns, out);
  const hunts = parts.filter(isHunt);
  const [first] = hunts;
  if (first === undefined) throw new CliError('--merge: no reports');
  const { smmulab, seed, options, bugs } = first.report;
  return { smmulab, seed, options, bugs: bugs.map(({ name }) => mergedBug(hunts, name, out)) };
}
