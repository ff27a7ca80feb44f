/** Which checkout a bench runs on. */
import { execFileSync } from 'node:child_process';
import { packageVersion } from '../src/cli/version.ts';

/** The commit, and whether there is more in src and spec than it has; outside a checkout the package's version. */
export function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'spec') === '' ? '' : '+changes';
    return `${git('rev-parse', '--short', 'HEAD')}${changed}`;
  } catch {
    return packageVersion();
  }
}
