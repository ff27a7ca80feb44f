/** What a verb has of the outside: its output, its input, and how wide and colourful it may be. */
import { readFileSync } from 'node:fs';
import { CliError } from './error.ts';

/** Columns of a line. */
export const COLUMNS = 100;

/** Input, output and environment of one run. */
export interface Io {
  /** Writes to standard output: text, or bytes as they are. */
  out(text: string | Uint8Array): void;
  /** Writes to standard error. */
  err(text: string): void;
  /** All of standard input. */
  stdin(): Uint8Array;
  /** Whether colour may be used on standard output. */
  readonly color: boolean;
}

/** A verb: what `smmulab VERB` runs. Exit codes: 0 fine, 1 a finding, 2 bad input (by a thrown error). */
export interface Verb {
  /** The text of `smmulab VERB --help`. */
  readonly help: string;
  run(args: readonly string[], io: Io): number | Promise<number>;
}

/** A file's bytes, or those of standard input for `-`. limit: most bytes that are read. @throws CliError naming it. */
export function readBytes(name: string, io: Io, limit: number): Uint8Array {
  const bytes = name === '-' ? io.stdin() : readFile(name);
  if (bytes.length > limit) throw new CliError(`${name}: ${bytes.length} bytes; at most ${limit} are read`);
  return bytes;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a directory',
  EACCES: 'it may not be read',
};

/** Why the system refused a file, in words. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return REASONS[code] ?? error.message;
}

function readFile(name: string): Uint8Array {
  try {
    return readFileSync(name);
  } catch (error) {
    throw new CliError(`${name}: ${reasonOf(error)}`);
  }
}
