/**
 * How soon each bug of the zoo is found: `npm run zoo -- [--seeds 1,2,3] [--runs N] [--results FILE] [--table FILE] [NAME...]`.
 *
 * Prints one line for each bug and seed. `--results` keeps what was measured in a JSON file and adds to it, so that the
 * bugs can be measured one at a time, on several machines; `--table` writes all that the file holds as a page of docs
 * (`--runs 0`: and nothing is hunted).
 * A NAME is a bug of the zoo or a module's file (docs/bugs.md); none: the whole zoo.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { PROPERTIES } from '../src/testing/properties/index.ts';
import { type Bug, caughtBy, HUNT_RUNS, hunt, ZOO } from '../src/testing/zoo/index.ts';
import { commit } from './commit.ts';
import { processorTime } from './stack.ts';

/** One hunt. */
interface Measured {
  readonly bug: string;
  readonly seed: number;
  readonly runs: number;
  /** Property, and the rule if it has another name; null: not found. */
  readonly by: string | null;
  /** Operations of the shrunk case; null: not found. */
  readonly ops: number | null;
  readonly commit: string;
}

const { values, positionals } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    runs: { type: 'string', default: String(HUNT_RUNS) },
    results: { type: 'string' },
    table: { type: 'string' },
  },
  allowPositionals: true,
});
const seeds = values.seeds.split(',').map(Number);
const runs = Number(values.runs);
const kept: Measured[] =
  values.results !== undefined && existsSync(values.results) ? JSON.parse(readFileSync(values.results, 'utf8')) : [];

async function named(name: string): Promise<Bug> {
  const known = ZOO.find((bug) => bug.name === name);
  if (known !== undefined) return known;
  return (await import(pathToFileURL(resolve(name)).href)).default;
}

function measure(bug: Bug, seed: number): Measured {
  const before = processorTime();
  const { runs: made, catch: caught } = hunt(bug, { seed, runs, properties: PROPERTIES });
  const seconds = ((processorTime() - before) / 1e9).toFixed(1);
  const by = caught === null ? null : caughtBy(caught.property.name, caught.found.finding.rule);
  const ops = caught === null ? null : caught.found.case.steps.length;
  const how = by === null ? 'NOT FOUND' : `${by}, ${ops} operations`;
  console.log(`${bug.name.padEnd(32)} seed ${seed}  ${String(made).padStart(5)} runs  ${how}  (${seconds} s)`);
  return { bug: bug.name, seed, runs: made, by, ops, commit: commit() };
}

function remember(one: Measured): void {
  const same = kept.findIndex(({ bug, seed }) => bug === one.bug && seed === one.seed);
  if (same < 0) kept.push(one);
  else kept[same] = one;
  if (values.results !== undefined) writeFileSync(values.results, `${JSON.stringify(kept, null, 1)}\n`);
}

const cell = (one: Measured | undefined): string => {
  if (one === undefined) return '';
  return one.by === null ? `**not found in ${one.runs}**` : `${one.runs}: ${one.by}, ${one.ops}`;
};

/** The page of docs. */
function page(): string {
  const all = [...new Set(kept.map(({ seed }) => seed))].sort((a, b) => a - b);
  const commits = [...new Set(kept.map((one) => one.commit))];
  const rows = ZOO.filter(({ name }) => kept.some(({ bug }) => bug === name)).map(({ name }) => {
    const cells = all.map((seed) => cell(kept.find((one) => one.bug === name && one.seed === seed)));
    return `| ${name} | ${cells.join(' | ')} |`;
  });
  const missed = kept.filter(({ by }) => by === null).length;
  return `# How soon each bug of the zoo is found

Made by \`npm run zoo\`, which hunts as \`smmulab check --bug NAME --seed S\` does, with nothing else set: ${HUNT_RUNS} runs at
most. Each cell has the runs until the bug was found, the property (and its rule) that found it, and the operations of
the shrunk case. Commit ${commits.join(', ')}; ${rows.length} bugs, ${missed} hunts without a catch. An empty cell was not measured.

| bug | ${all.map((seed) => `seed ${seed}`).join(' | ')} |
|---|${all.map(() => '---|').join('')}
${rows.join('\n')}
`;
}

const bugs = positionals.length === 0 ? ZOO : await Promise.all(positionals.map(named));
if (runs > 0) for (const bug of bugs) for (const seed of seeds) remember(measure(bug, seed));
if (values.table !== undefined) writeFileSync(values.table, page());
