/** Which images and registers the command line names. */
import { InputError } from '../inspect/error.ts';
import { registerNamed, registersOfText } from '../inspect/registers.ts';
import { openSource, type Source } from '../inspect/source.ts';
import { CliError } from './error.ts';
import { type Io, readBytes } from './io.ts';
import { cLiteral, number, type Values } from './options.ts';

/** Options that say where memory and registers come from. */
export const SOURCE = {
  base: { type: 'string' },
  reg: { type: 'string', multiple: true },
  registers: { type: 'string' },
} as const;

/** Help text of {@link SOURCE}. */
export const SOURCE_HELP = `IMAGE is a manifest or a directory with manifest.json; an ELF core file (dump-guest-memory, vmcore);
a raw image with its address, FILE@0x40000000; or text of xxd, hexdump, crash rd, QEMU xp. Several
may be given. gzip is unpacked.

  --base ADDRESS     where a raw image lies, or where the addresses of a text dump count from
  --reg NAME=VALUE   a register; may be repeated: STRTAB_BASE, STRTAB_BASE_CFG, IDR0 ...
  --registers FILE   registers from text: NAME 0xVALUE, an MMIO trace, a dump of the register pages`;

const MAX_REGISTER_TEXT = 2 ** 26;

function registerOption(given: string): [string, bigint] {
  const at = given.indexOf('=');
  const name = registerNamed(at < 0 ? given : given.slice(0, at));
  const value = at < 0 ? undefined : cLiteral(given.slice(at + 1));
  if (name === undefined) throw new CliError(`--reg: '${given}' names no register`);
  if (value === undefined) throw new CliError(`--reg: '${given}' is not NAME=VALUE`);
  return [name, value];
}

/** Registers that the options give. @throws CliError naming what is wrong. */
export function registersOption(values: Values, io: Io): Map<string, bigint> {
  const out = new Map<string, bigint>();
  const file = values.registers;
  if (typeof file === 'string') {
    const text = Buffer.from(readBytes(file, io, MAX_REGISTER_TEXT)).toString('latin1');
    for (const [name, value] of registersOfText(text, file)) out.set(name, value);
  }
  for (const given of Array.isArray(values.reg) ? values.reg : []) out.set(...registerOption(String(given)));
  return out;
}

/** Opens what the arguments name. @throws InputError, CliError naming what is wrong. */
export const sourceOption = (paths: readonly string[], values: Values, io: Io): Source =>
  openSource(paths, registersOption(values, io), number(values, 'base', 0n, (1n << 56n) - 1n));

/** Runs `act`; bad input becomes a usage error. */
export function orCliError<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof InputError) throw new CliError(error.message);
    throw error;
  }
}
