/** Files that a verb writes. */
import { writeFileSync } from 'node:fs';
import { CliError } from './error.ts';
import { reasonOf } from './io.ts';

/** Writes a whole file. @throws CliError that names the file and the reason. */
export function writeOutput(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new CliError(`${path}: ${reasonOf(error)}`);
  }
}
