/** A decoded record as a drawing of its bits and a table of its fields. */
import type { DecodedField, DecodedRecord } from '../record.ts';
import { html, type Markup, table } from './page.ts';

/** Bits of one row of a drawing. */
const ROW = 32;

interface Cell {
  readonly hi: number;
  readonly lo: number;
  readonly field: DecodedField | undefined;
}

/** Fields by their highest bit, and the gaps between them, cut at the ends of rows. */
function cellsOf(fields: readonly DecodedField[], bits: number): Cell[] {
  const owners: (DecodedField | undefined)[] = Array.from({ length: bits });
  for (const field of fields)
    for (const part of field.bits.split(',')) {
      const [hi = 0, lo = 0] = part.split(':').map(Number);
      owners.fill(field, lo, Math.min(hi, bits - 1) + 1);
    }
  const cells: Cell[] = [];
  for (let hi = bits - 1; hi >= 0; ) {
    let lo = hi;
    while (lo > 0 && owners[lo - 1] === owners[hi] && lo % ROW !== 0) lo--;
    cells.push({ hi, lo, field: owners[hi] });
    hi = lo - 1;
  }
  return cells;
}

function cell({ hi, lo, field }: Cell, changed: ReadonlySet<string>): Markup {
  const width = hi - lo + 1;
  if (field === undefined)
    return html`<span class="dim" style="grid-column: span ${width}" title="${hi}:${lo} reserved"></span>`;
  const tip = `${field.name} (${field.bits}) = ${field.value}${field.meaning === undefined ? '' : `: ${field.meaning}`}`;
  const classes = [
    field.value === '0x0' ? '' : 'set',
    field.ignored === true ? 'dim' : '',
    changed.has(field.name) ? 'changed' : '',
  ];
  return html`<span class="${classes.filter((one) => one !== '').join(' ')}" style="grid-column: span ${width}" tabindex="0" title="${tip}" aria-label="${tip}">${width > 1 ? field.name : ''}</span>`;
}

/** Drawing: 64-bit words from the first on, 32 bits a row, highest bit left; a tooltip a field. */
export function bitDrawing(record: DecodedRecord, bits: number, changed: ReadonlySet<string> = new Set()): Markup {
  const cells = cellsOf(record.fields, bits);
  const rows = Array.from({ length: bits / ROW }, (_, row) => {
    const [hi, lo] = [(row + 1) * ROW - 1, row * ROW];
    const own = cells.filter((one) => one.lo >= lo && one.hi <= hi);
    return html`<div class="bits"><span class="word">${hi}:${lo}</span>${own.map((one) => cell(one, changed))}</div>
`;
  });
  return html`${rows}`;
}

/** A record: what it says, its drawing, and its fields that count. */
export function recordMarkup(record: DecodedRecord, bits: number): Markup {
  const shown = record.fields.filter(({ ignored, value }) => ignored !== true || value !== '0x0');
  const rows = shown.map(({ bits, name, value, meaning = '', ignored }) => [
    bits,
    name,
    value,
    ignored === true ? `ignored; ${meaning}` : meaning,
  ]);
  return html`<p>${record.summary.startsWith(record.name) ? '' : html`<strong>${record.name}</strong>: `}${record.summary}</p>
${record.problems.map(({ rule, section, message }) => html`<p class="bad">${message} [${rule}, ${section}]</p>`)}
${bitDrawing(record, bits)}${table(['bits', 'field', 'value', 'meaning'], rows)}`;
}
