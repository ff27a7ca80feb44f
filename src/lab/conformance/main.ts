/** `npm run conformance -- KIND PATH [--json]`: replays recorded truth. Exit 0: all equal; 1: something differs; 2: bad input. */
import { runIommufdConformance } from './iommufd.ts';
import { runVectorsFile } from './vectors-file.ts';

const USAGE = 'usage: conformance vectors FILE.jsonl[.gz] [--json] | conformance iommufd DIR [--json]';

async function main(args: readonly string[]): Promise<number> {
  const json = args.includes('--json');
  const [kind, path, ...more] = args.filter((arg) => arg !== '--json');
  const out = (line: string): void => void process.stdout.write(`${line}\n`);
  if (path === undefined || more.length > 0) throw new Error(USAGE);
  if (kind === 'vectors') return runVectorsFile(path, { json, out });
  if (kind === 'iommufd') return runIommufdConformance(path, { json, out });
  throw new Error(USAGE);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`conformance: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
