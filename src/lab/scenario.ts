/** Scenario files: reading and writing YAML, and how a failing case becomes one. */
import { parseDocument, stringify } from 'yaml';
import type { LabCase } from '../testing/case.ts';
import type { Operation } from '../testing/operations.ts';
import { type Check, SCENARIO_VERSION, type Scenario, ScenarioError, scenarioOf } from './scenario-schema.ts';

export {
  type Check,
  MAX_STEPS,
  SCENARIO_VERSION,
  type Scenario,
  ScenarioError,
  type ScenarioStep,
  scenarioOf,
} from './scenario-schema.ts';

/** Largest scenario file in bytes. */
export const MAX_SCENARIO = 1 << 24;

/** What is wrong with the YAML, and where, in one line. */
function yamlText({ code, message }: { readonly code: string; readonly message: string }): string {
  const [line = message] = message.split('\n');
  const place = / at line \d+, column \d+/.exec(line)?.[0] ?? '';
  if (code === 'MULTIPLE_DOCS') return `a second document begins${place}; a scenario is one`;
  if (line.startsWith('Maximum call stack')) return `nested too deeply${place}`;
  return line.replace(/:$/, '');
}

/** Reads a scenario from YAML (or JSON). @throws ScenarioError naming line or field and what was expected */
export function parseScenario(text: string): Scenario {
  const document = parseDocument(text);
  const [error] = document.errors;
  if (error !== undefined) throw new ScenarioError(yamlText(error));
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: 0 });
  } catch {
    // What parses and is no data has an alias.
    throw new ScenarioError('there is an alias (*name) in it; a scenario has none');
  }
  return scenarioOf(data);
}

/** A failing case as the data of a scenario file. */
export function scenarioData(
  one: LabCase,
  about: {
    readonly title?: string;
    readonly properties?: readonly string[];
    readonly finding?: Scenario['finding'];
  } = {},
): Record<string, unknown> {
  return {
    smmulab: SCENARIO_VERSION,
    ...(about.title === undefined ? {} : { title: about.title }),
    machine: one.config,
    ...(about.properties === undefined ? {} : { properties: about.properties }),
    ...(about.finding === undefined ? {} : { finding: about.finding }),
    steps: one.steps.map(({ id, operation, twin }) => ({ ...operation, id, ...(twin === undefined ? {} : { twin }) })),
  };
}

/** The same as YAML. */
export function scenarioYaml(data: Record<string, unknown>): string {
  const { steps, ...head } = data;
  const lines = (steps as readonly unknown[]).map((step) => `  - ${flow(step)}\n`);
  return `${stringify(head, { lineWidth: 100, aliasDuplicateObjects: false })}steps:${lines.length === 0 ? ' []\n' : `\n${lines.join('')}`}`;
}

/** One line of YAML; what stands in it twice is written twice, as no scenario may have aliases. */
const flow = (value: unknown): string =>
  stringify(value, {
    collectionStyle: 'flow',
    lineWidth: 0,
    flowCollectionPadding: true,
    aliasDuplicateObjects: false,
  }).trim();

/** What a scenario does, as a case: without what it looks at. Steps without an id have their number. */
export function caseOf({ machine, steps }: Scenario): LabCase {
  const done = steps.flatMap(({ id, operation, twin }, i) =>
    isCheck(operation) ? [] : [{ id: id ?? i + 1, operation, ...(twin === undefined ? {} : { twin }) }],
  );
  return { config: machine, steps: done };
}

const CHECKS: ReadonlySet<string> = new Set<Check['op']>(['ste', 'vmids', 'holders', 'events']);

/** Whether a step only looks. */
export const isCheck = (operation: Operation | Check): operation is Check => CHECKS.has(operation.op);
