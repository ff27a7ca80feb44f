/** `smmulab spec`: layouts as tables, or as JSON. */
import { CATALOG_KINDS, type CatalogEntry, catalog, catalogEntry } from '../../spec/catalog.ts';
import { CommandLayout } from '../../spec/commands.ts';
import { EventLayout } from '../../spec/events.ts';
import { type Field, type Layout, Register } from '../../spec/layout.ts';
import type { AnyStruct, StructField } from '../../spec/uapi.ts';
import { CliError } from './error.ts';
import { COLUMNS } from './io.ts';
import { wrap } from './text.ts';

/** What `smmulab spec` was asked. */
export interface SpecArgs {
  /** A layout's name, or an ioctl's; absent: all of them. */
  readonly name?: string;
  readonly json: boolean;
}

/** Named encodings. */
type Values = Readonly<Record<string, number>>;

const listOf = (when: string | readonly string[] | undefined): readonly string[] =>
  when === undefined ? [] : typeof when === 'string' ? [when] : when;

const hex = (value: number): string => `0x${value.toString(16)}`;

/** A copy without the keys whose value is undefined. */
const defined = (object: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

function bitFieldJson(layout: Layout, name: string): Record<string, unknown> {
  const { values, when, reserved, address, section, text } = layout.field(name);
  return defined({ name, bits: layout.bits(name), values, when, reserved, address, section, text });
}

/** What a layout is beside its fields: a register's place, a command's opcode, an event's number. */
function placeOf(layout: Layout): Record<string, unknown> {
  if (layout instanceof Register) {
    const { page, offset, access, info } = layout;
    return defined({ page, offset, access, when: info.when, repeat: info.repeat });
  }
  if (layout instanceof CommandLayout)
    return defined({ opcode: layout.opcode, nonSecure: layout.nonSecure, when: layout.info.when });
  if (layout instanceof EventLayout) return { number: layout.number, stallable: layout.stallable };
  return {};
}

function entryJson(entry: CatalogEntry): Record<string, unknown> {
  const { name, kind } = entry;
  if (entry.kind === 'uapi') {
    const { struct, ioctl } = entry;
    const fields = struct.names.map((field) => ({ name: field, ...struct.fields[field] }));
    const call = ioctl && { name: ioctl.name, nr: ioctl.nr, request: ioctl.request, minBytes: ioctl.minBytes };
    return defined({ name, kind, section: struct.source, bytes: struct.bytes, text: struct.text, ioctl: call, fields });
  }
  const { layout } = entry;
  const fields = layout.names.map((field) => bitFieldJson(layout, field));
  const text = layout.text === '' ? undefined : layout.text;
  return defined({ name, kind, section: layout.section, bytes: layout.bytes, ...placeOf(layout), text, fields });
}

const RESERVED_TEXT: Readonly<Record<NonNullable<Field['reserved']>, string>> = {
  RES0: 'RES0',
  RES1: 'RES1',
  IMPDEF: 'implementation defined',
  SOFTWARE: 'for software',
};

const valuesText = (values: Values | undefined): string =>
  Object.entries(values ?? {})
    .map(([name, value]) => `${value} ${name}`)
    .join(', ');

const joined = (parts: readonly string[]): string => parts.filter((part) => part !== '').join('; ');

/** One line of the table: bits (or bytes), name, meaning, feature, section. */
type Row = readonly [string, string, string, string, string];

function bitRow(layout: Layout, name: string): Row {
  const field = layout.field(name);
  const address = field.address === undefined ? '' : `address >> ${field.address}`;
  const meaning = joined([
    field.reserved === undefined ? '' : RESERVED_TEXT[field.reserved],
    field.text ?? '',
    address,
    valuesText(field.values),
  ]);
  return [layout.bits(name), name, meaning, listOf(field.when).join(' '), field.section ?? layout.section];
}

function byteRow(struct: AnyStruct, name: string, field: StructField): Row {
  const bytes = `${struct.endOf(name) - 1}:${field.offset}`;
  const kind = `${field.signed ? 's' : 'u'}${field.width * 8}${field.count === undefined ? '' : `[${field.count}]`}`;
  const union = field.unionWith === undefined ? '' : `same bytes as ${field.unionWith}`;
  const meaning = joined([kind, field.reserved ? 'must be 0' : '', field.text ?? '', union, valuesText(field.values)]);
  return [bytes, name, meaning, '', struct.source];
}

/** Widest that each column may become; the meaning then shrinks until the line fits. */
const COLUMN_LIMITS = [15, 28, COLUMNS, 22, 24] as const;
const MEANING = 2;
const GAP = '  ';

function tableLines(rows: readonly Row[]): string[] {
  const widths = COLUMN_LIMITS.map((limit, column) =>
    Math.min(limit, Math.max(...rows.map((row) => (row[column] ?? '').length))),
  );
  const others = widths.filter((width, column) => width > 0 && column !== MEANING);
  const room = COLUMNS - others.reduce((sum, width) => sum + width + GAP.length, 0);
  widths[MEANING] = Math.min(room, widths[MEANING] ?? 0);
  const lines: string[] = [];
  for (const row of rows) {
    const cells = row.map((text, column) => wrap(text, widths[column] || 1));
    const height = Math.max(...cells.map((cell) => cell.length));
    for (let i = 0; i < height; i++) {
      const parts = cells.flatMap((cell, column) => {
        const width = widths[column] ?? 0;
        return width === 0 ? [] : [(cell[i] ?? '').padEnd(width)];
      });
      lines.push(parts.join(GAP).trimEnd());
    }
  }
  return lines;
}

/** Facts of an entry for its title line. */
function titleOf(entry: CatalogEntry): string {
  if (entry.kind === 'uapi') {
    const { struct, ioctl } = entry;
    const call = ioctl === undefined ? '' : `${ioctl.name} = ${hex(ioctl.request)}, at least ${ioctl.minBytes} bytes`;
    return joined([`${entry.name}: ${struct.text}`, `${struct.bytes} bytes`, call]);
  }
  const { layout } = entry;
  const facts = [layout.text === '' ? entry.name : `${entry.name}: ${layout.text}`, `${layout.bytes} bytes`];
  if (layout instanceof Register) {
    const { repeat, when } = layout.info;
    facts.push(`${layout.page} + ${hex(layout.offset)}`, layout.access);
    if (repeat !== undefined) facts.push(`${repeat.count} times, ${hex(repeat.stride)} apart`);
    if (when !== undefined) facts.push(`needs ${listOf(when).join(' ')}`);
  } else if (layout instanceof CommandLayout) {
    facts.push(`opcode ${hex(layout.opcode)}`);
    if (!layout.nonSecure) facts.push('not on the Non-secure queue');
    if (layout.info.when !== undefined) facts.push(`needs ${listOf(layout.info.when).join(' ')}`);
  } else if (layout instanceof EventLayout) {
    facts.push(`event ${hex(layout.number)}`, layout.stallable ? 'may stall' : 'terminates');
  }
  return joined(facts);
}

function printEntry(entry: CatalogEntry, out: (line: string) => void): void {
  for (const line of wrap(titleOf(entry), COLUMNS)) out(line);
  out('');
  const unit = entry.kind === 'uapi' ? 'bytes' : 'bits';
  const rows: Row[] =
    entry.kind === 'uapi'
      ? Object.entries(entry.struct.fields).map(([name, field]) => byteRow(entry.struct, name, field))
      : lowestFirst(entry.layout).map((name) => bitRow(entry.layout, name));
  for (const line of tableLines([[unit, 'name', 'meaning', 'feature', 'section'], ...rows])) out(line);
}

/** Field names by their lowest bit: tables are written in either direction. */
function lowestFirst(layout: Layout): string[] {
  const lowest = (name: string) => Math.min(...layout.parts(name).map(({ word, shift }) => word * 32 + shift));
  return layout.names.toSorted((a, b) => lowest(a) - lowest(b));
}

function printNames(out: (line: string) => void): void {
  for (const kind of CATALOG_KINDS) {
    out(`${kind}:`);
    const names = catalog().filter((entry) => entry.kind === kind);
    for (const line of wrap(names.map(({ name }) => name).join(' '), COLUMNS - GAP.length)) out(`${GAP}${line}`);
  }
}

/** Number of characters to insert, remove or change to make one text the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Most names suggested, and longest text compared: names are short, input is not bounded. */
const SUGGESTIONS = 5;
const LONGEST = 64;

/** Names that resemble a wrong one, best first: a few typing errors away, or containing it. */
function nearNames(name: string): string[] {
  const wanted = name.toLowerCase().slice(0, LONGEST);
  return catalog()
    .map((entry) => ({ name: entry.name, known: entry.name.toLowerCase() }))
    .map(({ name, known }) => ({
      name,
      away: wanted.length > 2 && known.includes(wanted) ? 1 : distance(wanted, known),
    }))
    .filter(({ away }) => away <= Math.max(1, Math.floor(wanted.length / 3)))
    .sort((a, b) => a.away - b.away)
    .slice(0, SUGGESTIONS)
    .map((near) => near.name);
}

function unknownName(name: string): CliError {
  const near = nearNames(name);
  const shown = JSON.stringify(name.length > LONGEST ? `${name.slice(0, LONGEST)}...` : name);
  return new CliError(
    near.length === 0
      ? `no layout is called ${shown}; 'smmulab spec' lists the names`
      : `no layout is called ${shown}; did you mean ${near.join(', ')}?`,
  );
}

/**
 * Runs `smmulab spec`. Prints one layout as a table of 100 columns, or the names of all by kind, or either as JSON.
 * out: takes one line (JSON: the whole text), without the line end.
 * @returns the exit code, always 0.
 * @throws CliError for an unknown name; the message names similar ones.
 */
export function runSpec(args: SpecArgs, out: (s: string) => void): number {
  if (args.name === undefined) {
    if (args.json) out(JSON.stringify(catalog().map(entryJson), null, 2));
    else printNames(out);
    return 0;
  }
  const entry = catalogEntry(args.name);
  if (entry === undefined) throw unknownName(args.name);
  if (args.json) out(JSON.stringify(entryJson(entry), null, 2));
  else printEntry(entry, out);
  return 0;
}
