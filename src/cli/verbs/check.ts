/** `smmulab check`: properties, tried on many drawn cases; a failing one is shrunk, told and saved. */
import { ScenarioError } from '../../lab/scenario.ts';
import { DEFAULT_MAX_OPS } from '../../testing/arbitraries/case.ts';
import { CaseError, LAB_PRESETS, type LabExtras, POLICIES } from '../../testing/lab.ts';
import { PROPERTIES } from '../../testing/properties/index.ts';
import { excluded, HUNT_RUNS, infected } from '../../testing/zoo/index.ts';
import { campaign } from '../check/campaign.ts';
import { hunts } from '../check/hunts.ts';
import { merge } from '../check/merge.ts';
import { checkMerge, checkReplay, DEFAULT_RUNS, OPTIONS, outOf, taskOf, workersOf } from '../check/options.ts';
import { withPool } from '../check/pool.ts';
import { printCampaign, printHunt, printJson } from '../check/print.ts';
import { replay } from '../check/replay.ts';
import type { Report } from '../check/report.ts';
import { runOf, type Task } from '../check/task.ts';
import { teller } from '../check/tell.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, type Verb } from '../io.ts';
import { loadBugs } from '../load-bug.ts';
import { loadDriver } from '../load-driver.ts';
import { flag, readArgs, text, type Values } from '../options.ts';
import { wrap } from '../text.ts';
import { packageVersion } from '../version.ts';

/** Runs between two lines of progress. */
const PROGRESS_EVERY = 250;
/** The word for all bugs of the zoo. */
const ALL = 'all';

const HELP = `smmulab check [PROPERTY...] [options]
smmulab check --merge REPORT... [--out DIR] [--json]

Tries properties on many drawn cases: machines, policies, sequences of operations over the whole
stack, hardware schedules. A case that breaks one is shrunk, told step by step, and saved as a
scenario file. Without a PROPERTY, all of them:

${PROPERTIES.flatMap(({ name, title }) => wrap(title, COLUMNS - 27).map((line, i) => `  ${(i === 0 ? name : '').padEnd(24)} ${line}`)).join('\n')}

What an option does not fix is drawn. Run i depends on the seed and i alone: shards and workers
change nothing.

  --runs N           runs of each property; default ${DEFAULT_RUNS}
  --seed S           default 1
  --max-ops N        operations of a case at most; default ${DEFAULT_MAX_OPS}
  --policy P         ${POLICIES.join(', ')}
  --preset NAME      ${Object.keys(LAB_PRESETS).join(', ')}
  --vmid-bits N      8 or 16
  --schedule S       eager or seeded
  --workers N        make the runs in N threads; default 1
  --shard I/N        only runs I, I+N, I+2N ... (I counts from 0)
  --merge            join the --json reports of all shards into one (docs/campaigns.md)
  --driver FILE      try the IOMMU driver that this module exports (docs/drivers.md)
  --bug NAME         put a bug of the zoo into the driver and find it: a name, a module's file
                     (docs/bugs.md), or all; ${HUNT_RUNS} runs
  --replay FILE      run this scenario under the properties instead of drawing
  --out DIR          where failing cases are saved, a directory that is there; default: the current
                     one
  --json             as JSON

Exit code: 0; 1 if a property is broken; 2 for bad input. With --bug all: 0 if every bug was
found, else 1.
Examples: smmulab check s2vmid-owned --policy at-attach --runs 1000 --seed 7
          smmulab check --driver examples/my-driver.mjs --workers 4
`;

/** Prints a report. The exit code. */
function finish(report: Report, json: boolean, io: Io): number {
  if (json) printJson(report, io);
  if ('properties' in report) {
    if (!json) printCampaign(report, io);
    return report.properties.every(({ ok }) => ok) ? 0 : 1;
  }
  if (!json) printHunt(report, io);
  const { bug } = report.options;
  const found = report.bugs.every((entry) => entry.found);
  return found === (bug === ALL) ? 0 : 1;
}

/** Options of the runs in which cases are told. */
const telling = (task: Task, extras: LabExtras) => ({ extras, withoutPolicy: task.fixed.policy === 'foreign' });

async function campaigns(values: Values, names: readonly string[], io: Io): Promise<Report> {
  const task = taskOf(values, names, DEFAULT_RUNS);
  const extras = task.driver === undefined ? {} : { driver: await loadDriver(task.driver) };
  const tell = teller(task.seed, outOf(values), telling(task, extras));
  const progress = (k: number): void => {
    const made = runOf(task.shard, k) + 1;
    if (made % PROGRESS_EVERY === 0 && made < task.runs) io.err(`${made} of ${task.runs} runs\n`);
  };
  return await withPool(task, workersOf(values), (pool) => campaign(task, pool, tell, packageVersion(), progress));
}

async function bugs(values: Values, names: readonly string[], wanted: string, io: Io): Promise<Report> {
  const task = taskOf(values, names, HUNT_RUNS);
  const zoo = await loadBugs(wanted);
  const all = wanted === ALL;
  const left = all ? zoo.filter((bug) => !excluded(bug, task.fixed)) : zoo;
  const [first] = left;
  if (first === undefined) throw new CliError('--bug all: no bug exists where the options say');
  const tell = all ? null : teller(task.seed, outOf(values), telling(task, infected(first)));
  return await withPool(task, workersOf(values), (pool) =>
    hunts(task, pool, left, tell, packageVersion(), ({ name, by }) => {
      if (all) io.err(`${name}: ${by === null ? 'not found' : 'found'}\n`);
    }),
  );
}

async function replays(file: string, values: Values, names: readonly string[], io: Io): Promise<number> {
  checkReplay(values);
  const driver = text(values, 'driver');
  const bug = text(values, 'bug');
  const [first] = bug === undefined ? [] : await loadBugs(bug);
  const own = driver === undefined ? {} : { driver: await loadDriver(driver) };
  const extras = first === undefined ? own : infected(first);
  return replay(file, names, { extras, foreign: driver !== undefined }, flag(values, 'json'), io);
}

/** The verb. */
export const verb: Verb = {
  help: HELP,
  async run(args, io) {
    const { values, positionals } = readArgs(args, OPTIONS);
    const json = flag(values, 'json');
    const file = text(values, 'replay');
    const bug = text(values, 'bug');
    try {
      if (flag(values, 'merge')) {
        checkMerge(values);
        if (positionals.length === 0) throw new CliError('--merge: no reports; see smmulab check --help');
        return finish(merge(positionals, outOf(values), io), json, io);
      }
      if (bug !== undefined && text(values, 'driver') !== undefined)
        throw new CliError('--bug and --driver: a bug is put into the shipped driver');
      if (bug === ALL && file !== undefined) throw new CliError('--bug all and --replay: name one bug');
      if (file !== undefined) return await replays(file, values, positionals, io);
      return finish(
        await (bug === undefined ? campaigns(values, positionals, io) : bugs(values, positionals, bug, io)),
        json,
        io,
      );
    } catch (error) {
      if (error instanceof CaseError || error instanceof ScenarioError)
        throw new CliError(file === undefined ? error.message : `${file}: ${error.message}`);
      throw error;
    }
  },
};
