/** Scenario files named on the command line. */
import { MAX_SCENARIO, parseScenario, type Scenario, ScenarioError } from '../lab/scenario.ts';
import { CliError } from './error.ts';
import { type Io, readBytes } from './io.ts';

/** Reads a scenario; `-` is standard input. @throws CliError naming the file, the place in it, and what was expected */
export function loadScenario(file: string, io: Io): Scenario {
  try {
    return parseScenario(Buffer.from(readBytes(file, io, MAX_SCENARIO)).toString('utf8'));
  } catch (error) {
    if (error instanceof ScenarioError) throw new CliError(`${file}: ${error.message}`);
    throw error;
  }
}
