/** Records from field values: the reverse of decode. */
import type { Caps } from '../../spec/caps.ts';
import { COMMANDS, commandNamed, encodeCommand, opcodeOf } from '../../spec/commands.ts';
import { EVENTS, type EventLayout } from '../../spec/events.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import { type Encoding, type Fields, type Layout, LayoutError, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { cdLayout } from '../../spec/used.ts';
import { InputError } from './error.ts';

/** Kinds of records that {@link encodeRecord} makes. */
export const ENCODED_KINDS = ['ste', 'cd', 'l1std', 'l1cd', 'cmd', 'event'] as const;

/** A kind of record that can be made. */
export type EncodedKind = (typeof ENCODED_KINDS)[number];

/** A field and what it is given: a number, or the name of one of its encodings. */
export type FieldValue = readonly [name: string, value: bigint | string];

function eventNamed(name: string): EventLayout | undefined {
  return Object.hasOwn(EVENTS, name) ? (EVENTS[name as keyof typeof EVENTS] as EventLayout) : undefined;
}

function tableOf(kind: EncodedKind, name: string | undefined, caps: Caps | undefined): Layout {
  if (kind === 'ste') return STE;
  if (kind === 'cd') return cdLayout(caps);
  if (kind === 'l1std') return L1STD;
  if (kind === 'l1cd') return L1CD;
  const what = kind === 'cmd' ? 'command' : 'event';
  const known = kind === 'cmd' ? [...Object.keys(COMMANDS), 'CMD_CFGI_ALL'] : Object.keys(EVENTS);
  if (name === undefined) throw new InputError(`which ${what}? One of ${known.join(', ')}`);
  const wanted = known.find(
    (one) => one.toLowerCase() === name.toLowerCase() || one.toLowerCase() === `cmd_${name.toLowerCase()}`,
  );
  const found = wanted === undefined ? undefined : kind === 'cmd' ? commandNamed(wanted) : eventNamed(wanted);
  if (found === undefined) throw new InputError(`there is no ${what} ${name}; one of ${known.join(', ')}`);
  return found;
}

function fieldNamed(table: Layout, name: string): string {
  const lower = name.toLowerCase();
  const found = table.names.find((one) => one === name) ?? table.names.find((one) => one.toLowerCase() === lower);
  if (found !== undefined) return found;
  throw new InputError(`${table.name} has no field ${name}; 'smmulab spec ${table.name}' lists them`);
}

/** The field's own bits for a value as people write it: a pointer is given by its address. */
function bitsOf(table: Layout, name: string, value: bigint | string): bigint | string {
  const { address, values } = table.field(name);
  if (typeof value === 'string') {
    const lower = value.toLowerCase();
    const found = Object.keys(values ?? {}).find((one) => one.toLowerCase() === lower);
    if (found !== undefined) return found;
    const legal = values === undefined ? 'a number' : `a number, or one of ${Object.keys(values).join(', ')}`;
    throw new InputError(`${table.name}.${name}: '${value}' is not ${legal}`);
  }
  if (address === undefined) return value;
  if ((value & ((1n << BigInt(address)) - 1n)) !== 0n)
    throw new InputError(`${table.name}.${name}: address 0x${value.toString(16)} is not a multiple of ${2 ** address}`);
  return value >> BigInt(address);
}

/**
 * A record with the given fields, all others zero. Field and encoding names are taken in any case; pointers are given
 * as addresses.
 * @param name which command or event; `SYNC` stands for `CMD_SYNC`
 * @throws InputError for an unknown name, or a value that does not fit
 */
export function encodeRecord(
  kind: EncodedKind,
  name: string | undefined,
  fields: readonly FieldValue[],
  caps?: Caps,
): Words {
  const table = tableOf(kind, name, caps);
  const values: Record<string, bigint | string> = {};
  for (const [field, value] of fields) {
    const known = fieldNamed(table, field);
    if (Object.hasOwn(values, known)) throw new InputError(`${table.name}.${known} is given twice`);
    values[known] = bitsOf(table, known, value);
  }
  try {
    const all = /^(cmd_)?cfgi_all$/i.test(name ?? '');
    const words =
      kind === 'cmd'
        ? encodeCommand(all ? 'CMD_CFGI_ALL' : table.name, values)
        : table.encode(values as Encoding<Fields>);
    if (kind === 'cmd' && values.Opcode !== undefined && BigInt(opcodeOf(words)) !== values.Opcode)
      throw new InputError(`${table.name} has another opcode`);
    return words;
  } catch (error) {
    if (error instanceof LayoutError) throw new InputError(error.message);
    throw error;
  }
}
