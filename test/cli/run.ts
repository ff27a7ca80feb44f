/** Runs the command line inside the test's process. */
import { main } from '../../src/cli/cli.ts';

/** What a run of the command line left behind. */
export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `smmulab` with the given arguments and standard input. */
export async function run(argv: readonly string[], stdin: string | Uint8Array = ''): Promise<Result> {
  let out = '';
  let err = '';
  const code = await main(argv, {
    out: (text) => {
      out += typeof text === 'string' ? text : Buffer.from(text).toString('latin1');
    },
    err: (text) => {
      err += text;
    },
    stdin: () => (typeof stdin === 'string' ? Buffer.from(stdin, 'latin1') : stdin),
    color: false,
  });
  return { code, out, err };
}

/** The same, its output parsed as JSON. */
export async function runJson(argv: readonly string[], stdin?: string): Promise<{ code: number; value: unknown }> {
  const { code, out } = await run([...argv, '--json'], stdin);
  return { code, value: JSON.parse(out) };
}
