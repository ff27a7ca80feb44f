/** The command line: which verb, its help, and what becomes of errors. Verbs are loaded when they are asked for. */
import { CliError } from './error.ts';
import type { Io, Verb } from './io.ts';

/** A verb as the overview lists it. */
interface Entry {
  readonly summary: string;
  load(): Promise<Verb>;
}

/** All verbs, by name. */
export const VERBS: Readonly<Record<string, Entry>> = {
  check: {
    summary: 'properties of the whole stack, or of a driver of your own, on many drawn cases',
    load: async () => (await import('./verbs/check.ts')).verb,
  },
  demo: {
    summary: "a real kernel's dump, and a nested VM on two SMMUs",
    load: async () => (await import('./verbs/demo.ts')).verb,
  },
  decode: {
    summary: 'an STE, CD, command, event or table descriptor, field by field',
    load: async () => (await import('./verbs/decode.ts')).verb,
  },
  encode: {
    summary: 'the words of a record from field values',
    load: async () => (await import('./verbs/encode.ts')).verb,
  },
  dump: {
    summary: 'Stream table, CDs, queues, tags and mappings of memory images',
    load: async () => (await import('./verbs/dump.ts')).verb,
  },
  translate: {
    summary: 'one access on memory images, step by step',
    load: async () => (await import('./verbs/translate.ts')).verb,
  },
  diff: {
    summary: 'two STEs or CDs with a safe way from one to the other, or two images',
    load: async () => (await import('./verbs/diff.ts')).verb,
  },
  explain: {
    summary: 'a kernel log, serial log or QEMU trace, with answers in it',
    load: async () => (await import('./verbs/explain.ts')).verb,
  },
  run: {
    summary: 'a scenario file, step by step',
    load: async () => (await import('./verbs/run.ts')).verb,
  },
  serve: {
    summary: 'the model behind a qtest socket, for clients written for QEMU',
    load: async () => (await import('./verbs/serve.ts')).verb,
  },
  spec: {
    summary: 'the layout tables: registers, structures, commands, events, ioctls',
    load: async () => (await import('./verbs/spec.ts')).verb,
  },
};

function overview(): string {
  const width = Math.max(...Object.keys(VERBS).map((name) => name.length));
  const lines = Object.entries(VERBS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return `smmulab VERB [arguments]

A laboratory for Arm SMMUv3, NVIDIA Tegra241 CMDQV and Linux iommufd.

${lines.join('\n')}

'smmulab VERB --help' says more. Every verb takes --json. Exit codes: 0 fine, 1 a finding, 2 bad input.
`;
}

async function version(): Promise<string> {
  const { packageVersion } = await import('./version.ts');
  return `smmulab ${packageVersion()}\n`;
}

/** Wants help: --help or -h before a `--`. */
function wantsHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === '--help' || arg === '-h');
}

async function dispatch(argv: readonly string[], io: Io): Promise<number> {
  const [name, ...args] = argv;
  if (name === undefined) throw new CliError(`no verb; one of ${Object.keys(VERBS).join(', ')}`);
  if (name === '--help' || name === '-h' || name === 'help') {
    io.out(overview());
    return 0;
  }
  if (name === '--version' || name === '-V') {
    io.out(await version());
    return 0;
  }
  const entry = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  if (entry === undefined)
    throw new CliError(
      name.startsWith('-')
        ? `unknown option '${name}'; a verb comes first: ${Object.keys(VERBS).join(', ')}`
        : `'${name}' is not a verb; one of ${Object.keys(VERBS).join(', ')}`,
    );
  const verb = await entry.load();
  if (wantsHelp(args)) {
    io.out(verb.help);
    return 0;
  }
  return await verb.run(args, io);
}

/** One line, whatever the message holds. */
const oneLine = (text: string): string => text.replace(/[\r\n]+/g, ' ').trim();

/**
 * Runs the command line.
 * @param argv arguments after the program's name
 * @returns the exit code: 0 fine, 1 a finding, 2 bad input or usage, which is one line on standard error
 */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(argv, io);
  } catch (error) {
    const own = error instanceof CliError;
    const message = error instanceof Error ? error.message : String(error);
    io.err(`${oneLine(own ? `error: ${message}` : `error: internal: ${message} (please report it)`)}\n`);
    return 2;
  }
}
