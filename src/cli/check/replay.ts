/** A scenario run again under properties. */
import { caseOf, type Scenario, scenarioData } from '../../lab/scenario.ts';
import { type RunOptions, runCase } from '../../testing/case.ts';
import { Coverage } from '../../testing/coverage.ts';
import { configText, headline, storyLines } from '../../testing/story.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io } from '../io.ts';
import { loadScenario } from '../load-scenario.ts';
import { wrap } from '../text.ts';
import { propertiesOf } from './options.ts';
import { printJson } from './print.ts';

/** The properties that a scenario is held against: those named, or its own, or all. @throws CliError naming the file */
function wanted(names: readonly string[], { properties = [] }: Scenario, file: string, foreign: boolean) {
  if (names.length > 0) return propertiesOf(names, foreign);
  try {
    return propertiesOf(properties, foreign);
  } catch (error) {
    if (error instanceof CliError) throw new CliError(`${file}: properties: ${error.message}`);
    throw error;
  }
}

/** Runs a file; foreign: with a driver that is not the shipped one. The exit code. @throws CliError, CaseError */
export function replay(
  file: string,
  names: readonly string[],
  { extras, foreign }: { readonly extras: NonNullable<RunOptions['extras']>; readonly foreign: boolean },
  json: boolean,
  io: Io,
): number {
  const scenario = loadScenario(file, io);
  const one = caseOf(scenario);
  const coverage = new Coverage();
  const options = { extras, coverage, withoutPolicy: foreign && one.config.policy === undefined };
  const outcomes = wanted(names, scenario, file, foreign).map((property) => ({
    property,
    run: runCase(property, one, options),
  }));
  if (json) {
    const properties = outcomes.map(({ property, run: { finding, ops } }) => {
      const data = { properties: [property.name], ...(finding === null ? {} : { finding }) };
      const found = finding === null ? [] : [{ rule: finding.rule, message: finding.message, file }];
      const findings = found.map((entry) => ({ ...entry, case: scenarioData(one, data) }));
      return { name: property.name, ok: finding === null, runs: 1, ops, findings };
    });
    printJson({ seed: one.config.schedule?.seed ?? 0, properties, coverage: coverage.report() }, io);
  } else
    for (const { property, run } of outcomes) {
      const title = run.finding === null ? `${property.name} holds` : headline(property.name, one, run, 0);
      io.out(`${[...wrap(title, COLUMNS), `  ${configText(one.config)}`, ...storyLines(run)].join('\n')}\n`);
    }
  return outcomes.every(({ run }) => run.finding === null) ? 0 : 1;
}
