/** `smmulab run`: a scenario, told step by step. */
import type { ScheduleConfig } from '../../hw/schedule.ts';
import { ScenarioError } from '../../lab/scenario.ts';
import { runScenario, type ScenarioResult } from '../../lab/scenario-run.ts';
import { CaseError, type LabConfig, POLICIES } from '../../testing/lab.ts';
import { configText } from '../../testing/story.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Verb } from '../io.ts';
import { loadDriver } from '../load-driver.ts';
import { loadScenario } from '../load-scenario.ts';
import { COMMON, choice, flag, number, readArgs, text, type Values } from '../options.ts';
import { type Paint, painter, wrap } from '../text.ts';

const HELP = `smmulab run FILE [options]

Runs a scenario file (docs/scenarios.md) and tells each step: what was done, what the kernel said,
who took and freed which VMID. Properties are held against the hardware after each step. - reads
the file from standard input.

  --policy P         ${POLICIES.join(', ')}; default: the file's
  --schedule S       eager or seeded; default: the file's
  --seed N           seed of a seeded schedule
  --driver FILE      with the IOMMU driver that this module exports (docs/drivers.md)
  --json             as JSON

Exit code: 0; 1 if an expectation failed or a rule was broken; 2 for bad input.
Example: smmulab run examples/scenarios/shared-s2-two-smmus.yaml --schedule seeded --seed 7
`;

const OPTIONS = {
  ...COMMON,
  policy: { type: 'string' },
  schedule: { type: 'string' },
  seed: { type: 'string' },
  driver: { type: 'string' },
} as const;

function overrides(values: Values, own: LabConfig): LabConfig {
  const policy = choice(values, 'policy', POLICIES);
  const mode = choice(values, 'schedule', ['eager', 'seeded']);
  const given = number(values, 'seed', 0n, 0x7fffffffn);
  const seed = given === undefined ? own.schedule?.seed : Number(given);
  const effective = mode ?? own.schedule?.mode ?? (given === undefined ? 'eager' : 'seeded');
  if (given !== undefined && effective !== 'seeded') throw new CliError('--seed: an eager schedule has no seed');
  const schedule: ScheduleConfig = effective === 'seeded' ? { mode: 'seeded', seed: seed ?? 0 } : { mode: 'eager' };
  return { schedule, ...(policy === undefined ? {} : { policy }) };
}

function lines(title: string, { machine, steps, findings, ok }: ScenarioResult, paint: Paint): string[] {
  const width = String(steps.length).length;
  const column = Math.min(48, Math.max(...steps.map(({ text }) => text.length)));
  const out = [paint('bold', title), ...wrap(configText(machine), COLUMNS - 2).map((line) => `  ${line}`), ''];
  for (const { step, text, said, note, failed, broken } of steps) {
    if (note !== undefined)
      out.push(
        ...wrap(`# ${note}`, COLUMNS - width - 3).map((line) => paint('dim', `${' '.repeat(width + 3)}${line}`)),
      );
    const indent = ' '.repeat(width + column + 5);
    const head = `  ${String(step).padStart(width)} ${text.padEnd(column)}  `;
    const tail = wrap(said.join('; '), Math.max(30, COLUMNS - head.length));
    out.push(`${head}${tail[0] ?? ''}`.trimEnd(), ...tail.slice(1).map((line) => `${indent}${line}`));
    for (const wrong of [
      failed === undefined ? undefined : `EXPECTATION: ${failed}`,
      broken === undefined ? undefined : `BROKEN ${broken.rule}: ${broken.message}`,
    ])
      if (wrong !== undefined)
        out.push(...wrap(wrong, COLUMNS - width - 3).map((line) => paint('red', `${' '.repeat(width + 3)}${line}`)));
  }
  const many = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;
  return [...out, '', ok ? `${many(steps.length, 'step')}, all as expected` : many(findings.length, 'finding')];
}

/** The verb. */
export const verb: Verb = {
  help: HELP,
  async run(args, io) {
    const { values, positionals } = readArgs(args, OPTIONS);
    const [file, more] = positionals;
    if (file === undefined) throw new CliError('no scenario file; see smmulab run --help');
    if (more !== undefined) throw new CliError(`'${more}' is one argument too many`);
    const scenario = loadScenario(file, io);
    try {
      const driver = text(values, 'driver');
      const extras = driver === undefined ? {} : { driver: await loadDriver(driver) };
      const result = runScenario(scenario, overrides(values, scenario.machine), extras);
      const title = scenario.title ?? file;
      if (flag(values, 'json')) io.out(`${JSON.stringify({ title, ...result }, null, 2)}\n`);
      else io.out(`${lines(title, result, painter(io.color)).join('\n')}\n`);
      return result.ok ? 0 : 1;
    } catch (error) {
      if (error instanceof CaseError || error instanceof ScenarioError) throw new CliError(`${file}: ${error.message}`);
      throw error;
    }
  },
};
