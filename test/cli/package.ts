/** The package as it is installed: built, with its own package.json and examples, so that `smmulab/...` paths resolve. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Where the package stands: one for each worker of vitest. Inside node_modules, so that its dependencies are found. */
export const PACKAGE = join(ROOT, 'node_modules/.cache', `smmulab-package-test-${process.env.VITEST_POOL_ID ?? 0}`);

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs Node in the package. */
export function runNode(args: readonly string[]): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: PACKAGE });
  return { code: status, out: stdout, err: stderr };
}

/** Builds the package with the given files of the checkout in it. Gives a way to run its executable there. */
export function buildPackage(files: readonly string[]): (args: readonly string[]) => Ran {
  mkdirSync(PACKAGE, { recursive: true });
  for (const file of ['package.json', ...files]) {
    mkdirSync(dirname(join(PACKAGE, file)), { recursive: true });
    copyFileSync(join(ROOT, file), join(PACKAGE, file));
  }
  const tsc = join(dirname(fileURLToPath(import.meta.resolve('typescript/package.json'))), 'bin/tsc');
  const args = [tsc, '-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(PACKAGE, 'dist')];
  spawnSync(process.execPath, args, { encoding: 'utf8' });
  const main = join(PACKAGE, 'dist/src/cli/main.js');
  return (argv) => runNode([main, ...argv]);
}
