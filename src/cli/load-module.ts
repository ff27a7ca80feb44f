/** Modules named on the command line. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CliError } from './error.ts';
import { reasonOf } from './io.ts';

/** The default export of a module; undefined: it has none. @throws CliError naming the option, the file, and why it cannot be loaded */
export async function loadDefault(option: string, file: string): Promise<unknown> {
  if (!existsSync(file)) throw new CliError(`--${option}: ${file}: there is no such file`);
  try {
    const { default: made } = (await import(pathToFileURL(resolve(file)).href)) as { readonly default?: unknown };
    return made;
  } catch (error) {
    throw new CliError(`--${option}: ${file}: ${reasonOf(error)}`);
  }
}
