/** Reports as text, or as JSON. */
import { COVERAGE_KINDS, type CoverageKind, type CoverageReport } from '../../testing/coverage.ts';
import { COLUMNS, type Io } from '../io.ts';
import { painter, type Row, tableLines, wrap } from '../text.ts';
import type { BugEntry, CampaignReport, HuntReport, PropertyEntry, ReportOptions } from './report.ts';

/** Prints a report as JSON. */
export const printJson = (report: object, io: Io): void => io.out(`${JSON.stringify(report, null, 2)}\n`);

/** How to see a case again. */
function replayLine(file: string, { driver, bug }: ReportOptions): string {
  const options = [driver === undefined ? '' : ` --driver ${driver}`, bug === undefined ? '' : ` --bug ${bug}`];
  return `replay: smmulab check --replay ${file}${options.join('')}`;
}

const summary = (properties: readonly PropertyEntry[]): Row[] => [
  { cells: ['property', 'runs', 'operations', 'result'], style: 'dim' },
  ...properties.map(
    ({ name, runs, ops, ok, apart = {} }): Row => ({
      cells: [
        name,
        String(runs),
        String(ops),
        [ok ? 'holds' : 'broken', ...Object.entries(apart).map(([why, n]) => `${n} ${why}`)].join('; '),
      ],
      style: ok ? undefined : 'red',
    }),
  ),
];

/** What each kind is called in the table. */
const TITLES: Readonly<Record<CoverageKind, string>> = {
  policies: 'policies',
  presets: 'presets',
  vmidBits: 'widths of a VMID',
  schedules: 'schedules',
  flavours: 'flavours of cases',
  operations: 'operations that succeeded',
  errnos: 'operations by errno',
  failures: 'failures of the kernel',
  commands: 'commands',
  events: 'events',
  streams: 'steps of a stream',
  vmids: 'steps of a VMID',
  cmdqv: 'states of a CMDQV',
  rules: 'rules with a subject',
};

/** What a campaign exercised: a line for each kind, with what it did not. */
export function coverageRows(coverage: CoverageReport): Row[] {
  const rows = COVERAGE_KINDS.flatMap((kind): Row[] => {
    const counts = Object.entries(coverage[kind]);
    if (counts.length === 0) return [];
    const missed = counts.filter(([, count]) => count === 0).map(([name]) => name);
    return [{ cells: [TITLES[kind], `${counts.length - missed.length}/${counts.length}`, missed.join(', ')] }];
  });
  return [{ cells: ['exercised', '', 'not exercised'], style: 'dim' }, ...rows];
}

/** Prints what a campaign found and exercised. */
export function printCampaign({ properties, coverage, options }: CampaignReport, io: Io): void {
  const paint = painter(io.color);
  for (const { findings } of properties)
    for (const { told, file } of findings) io.out(`${[...told, replayLine(file, options)].join('\n')}\n\n`);
  const tables = [tableLines(summary(properties), paint), tableLines(coverageRows(coverage), paint)];
  io.out(`${tables.map((lines) => lines.join('\n')).join('\n\n')}\n`);
}

const huntRows = (bugs: readonly BugEntry[]): Row[] => [
  { cells: ['bug', 'found by', 'runs', 'operations'], style: 'dim' },
  ...bugs.map(
    ({ name, by, runs, ops }): Row => ({
      cells: [name, by ?? 'not found', String(runs), ops === null ? '' : String(ops)],
      style: by === null ? 'red' : undefined,
    }),
  ),
];

/** Prints what a hunt found: a table for all bugs, the story for one. */
export function printHunt({ bugs, options }: HuntReport, io: Io): void {
  if (options.bug === 'all') {
    io.out(`${tableLines(huntRows(bugs), painter(io.color)).join('\n')}\n`);
    return;
  }
  for (const { name, story = '', told, file, runs } of bugs) {
    const caught = told === undefined || file === undefined ? null : [...told, replayLine(file, options)];
    io.out(`${[...wrap(`${name}: ${story}`, COLUMNS), '', ...(caught ?? [`not found in ${runs} runs`])].join('\n')}\n`);
  }
}
