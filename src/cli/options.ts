/** Options of the command line: C literals, and which SMMU is meant. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { Caps, IdValues } from '../../spec/caps.ts';
import { CliError } from './error.ts';

/** Options as `parseArgs` describes them. */
export type Options = NonNullable<ParseArgsConfig['options']>;

/** Values of parsed options. */
export type Values = Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;

/** Options that every verb has. */
export const COMMON = { help: { type: 'boolean', short: 'h' }, json: { type: 'boolean' } } as const satisfies Options;

/** Options that say which SMMU is meant. */
export const SMMU = {
  preset: { type: 'string' },
  idr0: { type: 'string' },
  idr1: { type: 'string' },
  idr3: { type: 'string' },
  idr5: { type: 'string' },
  idr6: { type: 'string' },
  aidr: { type: 'string' },
  mpamidr: { type: 'string' },
} as const satisfies Options;

/** Help text of {@link SMMU}. */
export const SMMU_HELP = `  --preset NAME      the SMMU: minimal, qemuVirt, linuxNesting, smallVmid, mmu700, grace
                     or full
  --idr0 V --idr1 V --idr3 V --idr5 V
                     its ID registers; --idr6, --aidr and --mpamidr too, if they matter`;

const NUMBER = /^-\d/;

/** `--level -1` as `--level=-1`: a number after an option is its value. */
const joinNumbers = (args: readonly string[], options: Options): string[] => {
  const out: string[] = [];
  for (const arg of args) {
    const last = out.at(-1);
    if (NUMBER.test(arg) && last?.startsWith('--') && options[last.slice(2)]?.type === 'string')
      out[out.length - 1] = `${last}=${arg}`;
    else out.push(arg);
  }
  return out;
};

/** A near miss of an option's name, for the message. */
const NAME = /'(--?[^' ]*)/;

/**
 * Options and positional arguments.
 * @throws CliError for an unknown option, and for one without its value.
 */
export function readArgs(args: readonly string[], options: Options): { values: Values; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({
      args: joinNumbers(args, options),
      options,
      allowPositionals: true,
      strict: true,
    });
    return { values, positionals };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const [, name = ''] = NAME.exec(message) ?? [];
    if (message.startsWith('Unknown option')) throw new CliError(`unknown option '${name}'`);
    if (message.includes('argument missing') || message.includes('ambiguous'))
      throw new CliError(`option '${name}' needs a value`);
    throw new CliError(message.split('\n')[0] ?? message);
  }
}

const LITERAL = /^(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0([0-7]+)|(0|[1-9][0-9]*))[uUlL]{0,3}$/;

/** A C integer literal: decimal, 0x, 0b or octal, with suffixes. Undefined if it is none. */
export function cLiteral(text: string): bigint | undefined {
  const found = LITERAL.exec(text);
  if (found === null) return undefined;
  const [, hex, binary, octal, decimal] = found;
  if (hex !== undefined) return BigInt(`0x${hex}`);
  if (binary !== undefined) return BigInt(`0b${binary}`);
  return octal === undefined ? BigInt(decimal ?? 0) : BigInt(`0o${octal}`);
}

/** The value of a text option. */
export function text(values: Values, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

/** Whether a flag is given. */
export const flag = (values: Values, name: string): boolean => values[name] === true;

/** A number option within `[min, max]`, both included. @throws CliError that says what was expected. */
export function number(values: Values, name: string, min: bigint, max: bigint): bigint | undefined {
  const given = text(values, name);
  if (given === undefined) return undefined;
  const negative = given.startsWith('-');
  const magnitude = cLiteral(negative ? given.slice(1) : given);
  const value = magnitude === undefined ? undefined : negative ? -magnitude : magnitude;
  if (value === undefined) throw new CliError(`--${name}: '${given}' is not a whole number`);
  // All ones are bits; other limits are counts.
  const bits = max > 0xffffn && (max & (max + 1n)) === 0n;
  if (value < min || value > max)
    throw new CliError(`--${name}: ${given} is out of range, legal ${min}..${bits ? `0x${max.toString(16)}` : max}`);
  return value;
}

/** One of the given words. @throws CliError that lists them. */
export function choice<T extends string>(values: Values, name: string, legal: readonly T[]): T | undefined {
  const given = text(values, name);
  if (given === undefined) return undefined;
  const found = legal.find((one) => one === given);
  if (found === undefined) throw new CliError(`--${name}: '${given}' is not one of ${legal.join(', ')}`);
  return found;
}

const WORD32 = 0xffffffffn;

/** The SMMU that the options name, or undefined if they name none. @throws CliError for half a set of ID registers. */
export async function capsOption(values: Values): Promise<Caps | undefined> {
  const of = (name: string): number | undefined => {
    const value = number(values, name, 0n, WORD32);
    return value === undefined ? undefined : Number(value);
  };
  const [IDR0, IDR1, IDR3, IDR5] = [of('idr0'), of('idr1'), of('idr3'), of('idr5')];
  const rest = { IDR6: of('idr6'), AIDR: of('aidr'), MPAMIDR: of('mpamidr') };
  const preset = text(values, 'preset');
  const given = [IDR0, IDR1, IDR3, IDR5, ...Object.values(rest)].some((value) => value !== undefined);
  if (preset === undefined && !given) return undefined;
  const { capsOf } = await import('../../spec/caps.ts');
  if (preset === undefined) {
    if (IDR0 === undefined || IDR1 === undefined || IDR3 === undefined || IDR5 === undefined)
      throw new CliError('an SMMU is named by --preset, or by all of --idr0, --idr1, --idr3 and --idr5');
    return capsOf({ IDR0, IDR1, IDR3, IDR5, ...rest });
  }
  const ids: IdValues = await presetIds(preset);
  return capsOf({
    ...ids,
    IDR0: IDR0 ?? ids.IDR0,
    IDR1: IDR1 ?? ids.IDR1,
    IDR3: IDR3 ?? ids.IDR3,
    IDR5: IDR5 ?? ids.IDR5,
    IDR6: rest.IDR6 ?? ids.IDR6,
    AIDR: rest.AIDR ?? ids.AIDR,
    MPAMIDR: rest.MPAMIDR ?? ids.MPAMIDR,
  });
}

async function presetIds(name: string): Promise<IdValues> {
  const [{ PRESETS }, { idRegistersOf }] = await Promise.all([import('../hw/presets.ts'), import('../hw/config.ts')]);
  const found = Object.entries(PRESETS).find(([known]) => known === name);
  if (found === undefined) throw new CliError(`--preset: '${name}' is not one of ${Object.keys(PRESETS).join(', ')}`);
  return idRegistersOf(found[1]);
}
