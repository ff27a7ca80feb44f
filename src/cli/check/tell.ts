/** A failing case: told step by step, and saved as a scenario file. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scenarioData, scenarioYaml } from '../../lab/scenario.ts';
import type { FoundCase } from '../../testing/campaign.ts';
import { type RunOptions, runCase } from '../../testing/case.ts';
import type { Property } from '../../testing/property.ts';
import { configText, headline, storyLines } from '../../testing/story.ts';
import { CliError } from '../error.ts';
import { COLUMNS, reasonOf } from '../io.ts';
import { wrap } from '../text.ts';
import type { FindingEntry } from './report.ts';

/** Data of a scenario file. */
export type CaseData = FindingEntry['case'];

/** What is told of a failing case. */
export type Told = Pick<FindingEntry, 'case' | 'file' | 'told'>;

/** Tells a failing case and saves it. */
export type Teller = (property: Property, found: FoundCase) => Told;

/**
 * Saves a scenario in a directory and gives the file's name: `base.yaml`, or with a number if that is another case.
 * @throws CliError if it cannot be written
 */
export function save(out: string, base: string, data: CaseData): string {
  const yaml = scenarioYaml(data);
  for (let n = 1; ; n++) {
    const file = join(out, `${base}${n === 1 ? '' : `-${n}`}.yaml`);
    try {
      if (!existsSync(file)) writeFileSync(file, yaml, { flag: 'wx' });
      if (readFileSync(file, 'utf8') === yaml) return file;
    } catch (error) {
      throw new CliError(`--out: ${file} cannot be written: ${reasonOf(error)}`);
    }
  }
}

/** Name of the file of a finding, without its ending. */
export const baseName = (property: string, seed: number, run: number): string => `${property}-${seed}-${run}`;

/** Tells and saves failing cases of one campaign. */
export const teller =
  (seed: number, out: string, options: RunOptions): Teller =>
  (property, found) => {
    const { rule, message } = found.finding;
    const run = runCase(property, found.case, options);
    const title = `${property.name}: found by smmulab check --seed ${seed}, run ${found.run}`;
    const data = scenarioData(found.case, { title, properties: [property.name], finding: { rule, message } });
    return {
      case: data,
      file: save(out, baseName(property.name, seed, found.run), data),
      told: [
        ...wrap(headline(property.name, found.case, run, found.drawnOps), COLUMNS),
        ...wrap(configText(found.case.config), COLUMNS - 2).map((line) => `  ${line}`),
        ...storyLines(run),
      ],
    };
  };
