/** A dump as aligned text. */
import type { Inspection, TableDump } from '../inspect/inspect.ts';
import type { QueueDump, QueueEntry } from '../inspect/queues.ts';
import type { MappedRange } from '../inspect/ranges.ts';
import { type DecodedRecord, hex } from '../inspect/record.ts';
import { COLUMNS } from './io.ts';
import { type Paint, type Row, tableLines, wrap } from './text.ts';

const INDENT = '  ';

/** A field's value and meaning; `-` where hardware ignores it. */
function field(record: DecodedRecord, name: string): { readonly value: string; readonly meaning: string } {
  const found = record.fields.find((one) => one.name === name);
  return { value: found === undefined || found.ignored === true ? '-' : found.value, meaning: found?.meaning ?? '' };
}

/** The first words of a field's meaning. */
function short(record: DecodedRecord, name: string): string {
  const { value, meaning } = field(record, name);
  return value === '-' ? '-' : (meaning.split(/[;:]/)[0] ?? '');
}

const decimal = (record: DecodedRecord, name: string): string => {
  const { value } = field(record, name);
  return value === '-' ? '-' : `${Number(value)}`;
};

function streamRows({ streams }: Inspection): Row[] {
  return streams.map(({ sid, ste, cds }) => ({
    cells: [
      hex(sid),
      ste.valid ? short(ste, 'Config') : 'invalid',
      short(ste, 'S1ContextPtr'),
      cds === undefined ? '-' : `${cds.length}`,
      decimal(ste, 'S2VMID'),
      short(ste, 'S2TTB'),
      short(ste, 'EATS'),
    ],
    style: ste.problems.length > 0 ? 'red' : undefined,
  }));
}

function cdRows({ streams }: Inspection): Row[] {
  return streams.flatMap(({ sid, cds }) =>
    (cds ?? []).map(({ ssid, pa, cd }): Row => {
      const size = (n: 0 | 1): string =>
        field(cd, `TTB${n}`).value === '-'
          ? '-'
          : `${short(cd, `TG${n}`)}, ${short(cd, `T${n}SZ`).replace('-bit input', ' bits')}`;
      return {
        cells: [
          hex(sid),
          hex(ssid),
          pa,
          cd.valid ? decimal(cd, 'ASID') : 'invalid',
          short(cd, 'TTB0'),
          size(0),
          short(cd, 'TTB1'),
          size(1),
        ],
        style: cd.problems.length > 0 ? 'red' : undefined,
      };
    }),
  );
}

function titleLines({ phase, strtab, streams }: Inspection, paint: Paint): string[] {
  const shape = strtab.format === 'linear' ? 'linear' : `two-level (split ${strtab.split})`;
  const where = `${shape} Stream table at ${strtab.base}, StreamID 0 to ${hex(2 ** strtab.log2size - 1)}`;
  const title = `${phase === undefined ? '' : `${phase}: `}${where}: ${streams.length} streams`;
  return wrap(title, COLUMNS).map((line) => paint('bold', line));
}

function problemLines({ problems }: Inspection, paint: Paint): string[] {
  return problems.flatMap(({ rule, section, message, sid, ssid }) => {
    const named = sid === undefined || message.includes('StreamID');
    const who = named ? '' : `StreamID ${hex(sid)}${ssid === undefined ? '' : `, CD ${hex(ssid)}`}: `;
    return wrap(`problem: ${who}${message} [${rule}, ${section}]`, COLUMNS).map((line) => paint('red', line));
  });
}

const entryRows = (entries: readonly QueueEntry[], style?: 'dim'): Row[] =>
  entries.map(({ index, record }) => ({
    cells: [hex(index), record.summary],
    style: record.problems.length > 0 ? 'red' : style,
  }));

function queueLines(queue: QueueDump, paint: Paint): string[] {
  const what = queue.name === 'cmdq' ? 'Command queue' : 'Event queue';
  const index = (at: number, wrapBit: number): string => `${hex(at)}${wrapBit === 1 ? ' (wrap)' : ''}`;
  const waits =
    queue.state === 'used' || queue.state === 'full'
      ? `${queue.used} waiting${queue.state === 'full' ? ', full' : ''}`
      : queue.state;
  const title = `${what} at ${queue.base}, 2^${queue.log2size} entries: PROD ${index(queue.prod, queue.prodWrap)}, CONS ${index(queue.cons, queue.consWrap)}: ${waits}`;
  const lines = ['', ...wrap(title, COLUMNS)];
  if (queue.error !== undefined) lines.push(paint('red', `${INDENT}${queue.error}`));
  if (queue.overflow === true)
    lines.push(paint('red', `${INDENT}overflow: events were lost and it is not acknowledged`));
  if (queue.missing === true) lines.push(`${INDENT}part of the queue is in no image`);
  if (queue.recent.length > 0)
    lines.push(`${INDENT}taken last:`, ...tableLines(entryRows(queue.recent, 'dim'), paint, INDENT + INDENT));
  if (queue.waiting.length > 0)
    lines.push(`${INDENT}waiting:`, ...tableLines(entryRows(queue.waiting), paint, INDENT + INDENT));
  return lines;
}

/** Ranges of one table that text shows without --all. */
const SHOWN_RANGES = 12;

const rangeRow = ({ from, to, pa, permissions = '', attributes = '', fault }: MappedRange): Row =>
  pa === undefined
    ? { cells: [from, to, fault ?? '', permissions, ''] }
    : { cells: [from, to, `-> ${pa}`, permissions, attributes] };

/** Mapped ranges as table lines. */
export const rangeLines = (ranges: readonly MappedRange[], paint: Paint, indent: string): string[] =>
  tableLines(ranges.map(rangeRow), paint, indent);

function tableDumpLines(table: TableDump, all: boolean, paint: Paint): string[] {
  const users = table.users.map(({ sid, ssid }) => `${hex(sid)}${ssid === undefined ? '' : `/${hex(ssid)}`}`);
  const roots = [
    table.ttb0 && `TTB0 ${table.ttb0}`,
    table.ttb1 && `TTB1 ${table.ttb1}`,
    table.s2ttb && `S2TTB ${table.s2ttb}`,
  ];
  const more = users.length > 8 ? `, and ${users.length - 8} more` : '';
  const title = `StreamID ${users.slice(0, 8).join(', ')}${more}: ${roots.filter((one) => one !== undefined).join(', ')}`;
  const shown = all ? table.ranges : table.ranges.slice(0, SHOWN_RANGES);
  const left = table.ranges.length - shown.length;
  return [
    '',
    ...wrap(title, COLUMNS),
    ...(shown.length === 0 ? [`${INDENT}nothing is mapped`] : rangeLines(shown, paint, INDENT)),
    ...(left > 0 ? [paint('dim', `${INDENT}and ${left} more ranges (--all)`)] : []),
    ...(table.incomplete === true ? [`${INDENT}the tables map more; the search was stopped`] : []),
  ];
}

function tagLines({ vmids, asids }: Inspection, paint: Paint): string[] {
  const list = (all: readonly string[]): string =>
    all.slice(0, 24).join(', ') + (all.length > 24 ? `, and ${all.length - 24} more` : '');
  const rows: Row[] = [
    ...vmids.map(({ vmid, sids }) => ({ cells: [`VMID ${vmid}`, '', list(sids.map(hex))] })),
    ...asids.map(({ asid, vmid, world, users }) => ({
      cells: [
        world === 'NS-EL2' ? 'no ASID' : `ASID ${asid}`,
        vmid === undefined ? world : `VMID ${vmid}`,
        list(users.map(({ sid, ssid }) => (ssid === 0 ? hex(sid) : `${hex(sid)}/${hex(ssid)}`))),
      ],
    })),
  ];
  return rows.length === 0
    ? []
    : ['', ...tableLines([{ cells: ['tag', '', 'used by StreamID'], style: 'dim' }, ...rows], paint, INDENT)];
}

/** A dump as lines of text, problems first. all: every mapped range. */
export function dumpLines(one: Inspection, all: boolean, paint: Paint): string[] {
  const streamHead: Row = { cells: ['sid', 'Config', 'S1ContextPtr', 'CDs', 'VMID', 'S2TTB', 'ATS'], style: 'dim' };
  const cdHead: Row = { cells: ['sid', 'ssid', 'CD at', 'ASID', 'TTB0', 'input', 'TTB1', 'input'], style: 'dim' };
  const entries = (head: Row, rows: readonly Row[]): string[] =>
    rows.length === 0 ? [] : ['', ...tableLines([head, ...rows], paint, INDENT)];
  return [
    ...titleLines(one, paint),
    ...problemLines(one, paint),
    ...entries(streamHead, streamRows(one)),
    ...entries(cdHead, cdRows(one)),
    ...tagLines(one, paint),
    ...one.queues.flatMap((queue) => queueLines(queue, paint)),
    ...one.tables.flatMap((table) => tableDumpLines(table, all, paint)),
  ];
}
