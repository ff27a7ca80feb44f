/** `smmulab check`: properties, tried on many drawn cases; a failing one is shrunk, told and saved. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { caseOf, type Scenario, ScenarioError, scenarioData, scenarioYaml } from '../../lab/scenario.ts';
import { type CaseOptions, DEFAULT_MAX_OPS } from '../../testing/arbitraries/case.ts';
import { type CampaignOptions, type FoundCase, type PropertyReport, runCampaign } from '../../testing/campaign.ts';
import { type RunResult, runCase } from '../../testing/case.ts';
import { Coverage, type CoverageReport } from '../../testing/coverage.ts';
import { CaseError, LAB_PRESETS, type LabExtras, type LabPreset, POLICIES } from '../../testing/lab.ts';
import { PROPERTIES } from '../../testing/properties/index.ts';
import type { Property } from '../../testing/property.ts';
import { configText, headline, storyLines } from '../../testing/story.ts';
import { excluded, HUNT_RUNS, type Hunt, hunt, infected } from '../../testing/zoo/index.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, type Verb } from '../io.ts';
import { loadBugs } from '../load-bug.ts';
import { loadDriver } from '../load-driver.ts';
import { loadScenario } from '../load-scenario.ts';
import { COMMON, choice, flag, number, readArgs, text, type Values } from '../options.ts';
import { painter, type Row, tableLines, wrap } from '../text.ts';

/** Runs of each property, unless told. */
const DEFAULT_RUNS = 200;
/** Operations of a case at most. */
const MAX_OPS = 10_000;
/** Runs between two lines of progress. */
const PROGRESS_EVERY = 250;

const HELP = `smmulab check [PROPERTY...] [options]

Tries properties on many drawn cases: machines, policies, sequences of operations over the whole
stack, hardware schedules. A case that breaks one is shrunk, told step by step, and saved as a
scenario file. Without a PROPERTY, all of them:

${PROPERTIES.flatMap(({ name, title }) => wrap(title, COLUMNS - 25).map((line, i) => `  ${(i === 0 ? name : '').padEnd(22)} ${line}`)).join('\n')}

What an option does not fix is drawn. Run i depends on the seed and i alone.

  --runs N           runs of each property; default ${DEFAULT_RUNS}
  --seed S           default 1
  --max-ops N        operations of a case at most; default ${DEFAULT_MAX_OPS}
  --policy P         ${POLICIES.join(', ')}
  --preset NAME      ${Object.keys(LAB_PRESETS).join(', ')}
  --vmid-bits N      8 or 16
  --schedule S       eager or seeded
  --shard I/N        only runs I, I+N, I+2N ... (I counts from 0)
  --driver FILE      try the IOMMU driver that this module exports (docs/drivers.md)
  --bug NAME         put a bug of the zoo into the driver and find it: a name, a module's file
                     (docs/bugs.md), or all; ${HUNT_RUNS} runs
  --replay FILE      run this scenario under the properties instead of drawing
  --out DIR          where failing cases are saved; default: the current directory
  --json             as JSON

Exit code: 0; 1 if a property is broken; 2 for bad input. With --bug all: 0 if every bug was found.
Examples: smmulab check s2vmid-owned --policy at-attach --runs 1000 --seed 7
          smmulab check --driver examples/my-driver.mjs
`;

const OPTIONS = {
  ...COMMON,
  policy: { type: 'string' },
  preset: { type: 'string' },
  'vmid-bits': { type: 'string' },
  schedule: { type: 'string' },
  runs: { type: 'string' },
  seed: { type: 'string' },
  'max-ops': { type: 'string' },
  shard: { type: 'string' },
  driver: { type: 'string' },
  bug: { type: 'string' },
  replay: { type: 'string' },
  out: { type: 'string' },
} as const;

/** Options that a replay takes from its file. */
const DRAWING = ['policy', 'preset', 'vmid-bits', 'schedule', 'runs', 'seed', 'max-ops', 'shard'] as const;

/** The properties of the given names. foreign: only those that say something of any driver. @throws CliError */
function propertiesOf(names: readonly string[], foreign: boolean): readonly Property[] {
  const known = PROPERTIES.map(({ name }) => name).join(', ');
  const wanted = names.map((name) => {
    const found = PROPERTIES.find((one) => one.name === name);
    if (found === undefined) throw new CliError(`'${name}' is not a property; one of ${known}`);
    if (foreign && !found.foreign)
      throw new CliError(`${name} asks about the shipped driver's policy; it cannot be asked of --driver`);
    return found;
  });
  return wanted.length > 0 ? wanted : PROPERTIES.filter((one) => one.foreign || !foreign);
}

const SHARD = /^(\d{1,6})\/(\d{1,6})$/;

function shardOf(given: string | undefined): { index: number; of: number } | undefined {
  if (given === undefined) return undefined;
  const [, index = '', of = ''] = SHARD.exec(given) ?? [];
  const shard = { index: Number(index), of: Number(of) };
  if (of === '' || shard.of < 1 || shard.index >= shard.of)
    throw new CliError(`--shard: '${given}' is not I/N with I from 0 to N-1`);
  return shard;
}

function fixedOf(values: Values): CaseOptions {
  const bits = choice(values, 'vmid-bits', ['8', '16']);
  const policy = choice(values, 'policy', POLICIES);
  const preset = choice(values, 'preset', Object.keys(LAB_PRESETS) as LabPreset[]);
  const schedule = choice(values, 'schedule', ['eager', 'seeded']);
  const maxOps = number(values, 'max-ops', 1n, BigInt(MAX_OPS));
  if (preset === 'smallVmid' && bits === '16') throw new CliError('--preset smallVmid has 8-bit VMIDs');
  return {
    ...(policy === undefined ? {} : { policy }),
    ...(preset === undefined ? {} : { preset }),
    ...(bits === undefined ? {} : { vmidBits: bits === '8' ? 8 : 16 }),
    ...(schedule === undefined ? {} : { schedule }),
    ...(maxOps === undefined ? {} : { maxOps: Number(maxOps) }),
  };
}

/** A failing case as it is shown and saved. */
interface Shown {
  readonly lines: readonly string[];
  readonly data: Record<string, unknown>;
  readonly file: string;
}

/** A file name that nothing has yet. */
function freeName(directory: string, base: string): string {
  for (let n = 1; ; n++) {
    const file = join(directory, `${base}${n === 1 ? '' : `-${n}`}.yaml`);
    if (!existsSync(file)) return file;
  }
}

function save(file: string, data: Record<string, unknown>): void {
  try {
    writeFileSync(file, scenarioYaml(data), { flag: 'wx' });
  } catch (error) {
    throw new CliError(`--out: ${file} cannot be written: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function show(property: Property, seed: number, found: FoundCase, run: RunResult, given: Given): Shown {
  const { rule, message } = found.finding;
  const title = `${property.name}: found by smmulab check --seed ${seed}, run ${found.run}`;
  const data = scenarioData(found.case, { title, properties: [property.name], finding: { rule, message } });
  const file = freeName(given.out, `${property.name}-${seed}-${found.run}`);
  save(file, data);
  const driver = given.driver === undefined ? '' : ` --driver ${given.driver}`;
  return {
    lines: [
      ...wrap(headline(property.name, found.case, run, found.drawnOps), COLUMNS),
      ...wrap(configText(found.case.config), COLUMNS - 2).map((line) => `  ${line}`),
      ...storyLines(run),
      `replay: smmulab check --replay ${file}${driver}${given.bug === undefined ? '' : ` --bug ${given.bug}`}`,
    ],
    data,
    file,
  };
}

/** What the options say besides which cases to draw. */
interface Given {
  readonly out: string;
  readonly driver: string | undefined;
  readonly bug: string | undefined;
  readonly extras: LabExtras;
}

const summary = (reports: readonly PropertyReport[]): Row[] => [
  { cells: ['property', 'runs', 'operations', 'result'], style: 'dim' },
  ...reports.map(
    ({ name, runs, ops, ok }): Row => ({
      cells: [name, String(runs), String(ops), ok ? 'holds' : 'broken'],
      style: ok ? undefined : 'red',
    }),
  ),
];

/** What a campaign exercised, a line for each kind. */
function coverageLines(report: CoverageReport): string[] {
  return Object.entries(report).flatMap(([kind, counts]) => {
    const text = Object.entries(counts as Record<string, number>).map(([name, count]) => `${name} ${count}`);
    return wrap(`${kind}: ${text.length === 0 ? 'none' : text.join(', ')}`, COLUMNS - 2).map((line) => `  ${line}`);
  });
}

function campaign(values: Values, names: readonly string[], given: Given, io: Io): number {
  const properties = propertiesOf(names, given.driver !== undefined);
  const seed = Number(number(values, 'seed', 0n, 0xffffffffn) ?? 1n);
  const runs = Number(number(values, 'runs', 1n, 100_000_000n) ?? BigInt(DEFAULT_RUNS));
  const shard = shardOf(text(values, 'shard'));
  const fixed = fixedOf(values);
  const coverage = new Coverage();
  const options: CampaignOptions = {
    seed,
    runs,
    fixed: given.driver !== undefined && fixed.policy === undefined ? { ...fixed, policy: 'foreign' } : fixed,
    coverage,
    extras: given.extras,
    withoutPolicy: given.driver !== undefined && fixed.policy === undefined,
    ...(shard === undefined ? {} : { shard }),
    progress: (run) => {
      if ((run + 1) % PROGRESS_EVERY === 0 && run + 1 < runs) io.err(`${run + 1} of ${runs} runs\n`);
    },
  };
  const { coverage: _, ...uncounted } = options;
  const json = flag(values, 'json');
  const reports = runCampaign(properties, options).map((report, i) => {
    const property = properties[i];
    const shown = report.findings.flatMap((one) =>
      property === undefined ? [] : [show(property, seed, one, runCase(property, one.case, uncounted), given)],
    );
    if (!json) for (const { lines } of shown) io.out(`${lines.join('\n')}\n\n`);
    return { report, shown };
  });
  const results = reports.map(({ report }) => report);
  if (json) {
    const entries = reports.map(({ report, shown }) => ({
      ...report,
      findings: report.findings.map(({ finding: { rule, message }, run, drawnOps }, i) => ({
        rule,
        message,
        run,
        drawnOps,
        case: shown[i]?.data,
        file: shown[i]?.file,
      })),
    }));
    const shardText = shard === undefined ? {} : { shard: `${shard.index}/${shard.of}` };
    io.out(`${JSON.stringify({ seed, ...shardText, properties: entries, coverage: coverage.report() }, null, 2)}\n`);
  } else {
    const paint = painter(io.color);
    io.out(`${tableLines(summary(results), paint).join('\n')}\n\n${coverageLines(coverage.report()).join('\n')}\n`);
  }
  return results.every(({ ok }) => ok) ? 0 : 1;
}

/** The properties that a scenario is held against: those named, or its own, or all. */
const replayed = (names: readonly string[], scenario: Scenario, foreign: boolean): readonly Property[] =>
  propertiesOf(names.length > 0 ? names : (scenario.properties ?? []), foreign);

/** One line for each bug of the zoo, or the shrunk case of the one that was asked for. */
async function bugs(values: Values, names: readonly string[], wanted: string, given: Given, io: Io): Promise<number> {
  const seed = Number(number(values, 'seed', 0n, 0xffffffffn) ?? 1n);
  const runs = Number(number(values, 'runs', 1n, 100_000_000n) ?? BigInt(HUNT_RUNS));
  if (text(values, 'shard') !== undefined) throw new CliError('--shard and --bug: a hunt ends with the first catch');
  const options = { seed, runs, fixed: fixedOf(values), properties: propertiesOf(names, false) };
  const json = flag(values, 'json');
  const all = wanted === 'all';
  const hunts: Hunt[] = [];
  for (const bug of await loadBugs(wanted)) {
    if (all && excluded(bug, options.fixed)) continue;
    hunts.push(hunt(bug, options));
    if (all) io.err(`${bug.name}: ${hunts.at(-1)?.catch === null ? 'not found' : 'found'}\n`);
  }
  if (hunts.length === 0) throw new CliError('--bug all: no bug exists where the options say');
  const shown = hunts.flatMap(({ bug, catch: caught }) => {
    if (all || caught === null) return [];
    const { property, found } = caught;
    const extras = infected(bug);
    return [show(property, seed, found, runCase(property, found.case, { extras }), { ...given, bug: wanted })];
  });
  if (json) {
    const entries = hunts.map(({ bug, runs, catch: caught }) => ({
      name: bug.name,
      found: caught !== null,
      by: caught === null ? null : byText(caught),
      runs,
      ops: caught === null ? null : caught.found.case.steps.length,
      ...(shown[0] === undefined ? {} : { case: shown[0].data, file: shown[0].file }),
    }));
    io.out(`${JSON.stringify({ seed, bugs: entries }, null, 2)}\n`);
  } else if (all) io.out(`${tableLines(huntRows(hunts), painter(io.color)).join('\n')}\n`);
  else
    for (const { bug, runs } of hunts) {
      const story = wrap(`${bug.name}: ${bug.story}`, COLUMNS);
      io.out(`${[...story, '', ...(shown[0]?.lines ?? [`not found in ${runs} runs`])].join('\n')}\n`);
    }
  const found = hunts.every(({ catch: caught }) => caught !== null);
  return found === all ? 0 : 1;
}

/** Property, and the rule if it is another name. */
const byText = ({ property, found }: NonNullable<Hunt['catch']>): string =>
  found.finding.rule === property.name ? property.name : `${property.name} ${found.finding.rule}`;

const huntRows = (hunts: readonly Hunt[]): Row[] => [
  { cells: ['bug', 'found by', 'runs', 'operations'], style: 'dim' },
  ...hunts.map(
    ({ bug, runs, catch: caught }): Row => ({
      cells:
        caught === null
          ? [bug.name, 'not found', String(runs), '']
          : [bug.name, byText(caught), String(runs), String(caught.found.case.steps.length)],
      style: caught === null ? 'red' : undefined,
    }),
  ),
];

function replay(file: string, values: Values, names: readonly string[], given: Given, io: Io): number {
  for (const option of DRAWING)
    if (text(values, option) !== undefined) throw new CliError(`--${option} and --replay: the file says what is run`);
  const scenario = loadScenario(file, io);
  const one = caseOf(scenario);
  const foreign = given.driver !== undefined;
  const coverage = new Coverage();
  const outcomes = replayed(names, scenario, foreign).map((property) => ({
    property,
    run: runCase(property, one, {
      extras: given.extras,
      coverage,
      withoutPolicy: foreign && one.config.policy === undefined,
    }),
  }));
  if (flag(values, 'json')) {
    const properties = outcomes.map(({ property, run: { finding, ops } }) => ({
      name: property.name,
      ok: finding === null,
      runs: 1,
      ops,
      findings:
        finding === null
          ? []
          : [
              {
                rule: finding.rule,
                message: finding.message,
                case: scenarioData(one, { properties: [property.name], finding }),
                file,
              },
            ],
    }));
    const seed = one.config.schedule?.seed ?? 0;
    io.out(`${JSON.stringify({ seed, properties, coverage: coverage.report() }, null, 2)}\n`);
  } else
    for (const { property, run } of outcomes) {
      const title = run.finding === null ? `${property.name} holds` : headline(property.name, one, run, 0);
      io.out(`${[...wrap(title, COLUMNS), `  ${configText(one.config)}`, ...storyLines(run)].join('\n')}\n`);
    }
  return outcomes.every(({ run }) => run.finding === null) ? 0 : 1;
}

/** The verb. */
export const verb: Verb = {
  help: HELP,
  async run(args, io) {
    const { values, positionals } = readArgs(args, OPTIONS);
    const driver = text(values, 'driver');
    const file = text(values, 'replay');
    try {
      const bug = text(values, 'bug');
      if (bug !== undefined && driver !== undefined)
        throw new CliError('--bug and --driver: a bug is put into the shipped driver');
      if (bug === 'all' && file !== undefined) throw new CliError('--bug all and --replay: name one bug');
      const [first] = bug === undefined || file === undefined ? [] : await loadBugs(bug);
      const given: Given = {
        out: text(values, 'out') ?? '',
        driver,
        bug,
        extras:
          first !== undefined ? infected(first) : driver === undefined ? {} : { driver: await loadDriver(driver) },
      };
      if (bug !== undefined && file === undefined) return await bugs(values, positionals, bug, given, io);
      return file === undefined
        ? campaign(values, positionals, given, io)
        : replay(file, values, positionals, given, io);
    } catch (error) {
      if (error instanceof CaseError || error instanceof ScenarioError)
        throw new CliError(file === undefined ? error.message : `${file}: ${error.message}`);
      throw error;
    }
  },
};
