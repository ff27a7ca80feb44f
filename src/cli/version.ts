/** The package's version. */
import { readFileSync } from 'node:fs';
import { CliError } from './error.ts';

/** As package.json has it. @throws CliError if there is none beside the code */
export function packageVersion(): string {
  // The package root is two levels up in the sources and three in the build.
  for (const up of ['../../package.json', '../../../package.json'])
    try {
      const data: unknown = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'));
      if (typeof data === 'object' && data !== null && 'version' in data) return String(data.version);
    } catch {
      // Not there: the other layout.
    }
  throw new CliError('the package has no package.json beside it');
}
