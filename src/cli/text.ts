/** Text for a terminal: aligned tables within the columns of a line, and colour where it is wanted. */
import { COLUMNS } from './io.ts';

/** How a piece of text stands out. */
export type Style = 'bold' | 'dim' | 'red' | 'yellow';

const CODES: Readonly<Record<Style, number>> = { bold: 1, dim: 2, red: 31, yellow: 33 };

/** Colours text, or leaves it as it is. */
export type Paint = (style: Style, text: string) => string;

/** The painter of a run. */
export const painter =
  (color: boolean): Paint =>
  (style, text) =>
    color && text !== '' ? `\u001b[${CODES[style]}m${text}\u001b[0m` : text;

/** Splits text into lines of at most `width` characters, at blanks where there are any. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
    for (; line.length > width; line = line.slice(width)) lines.push(line.slice(0, width));
  }
  return [...lines, line];
}

/** A row of a table: its cells, and how the whole of it stands out. */
export interface Row {
  readonly cells: readonly string[];
  readonly style?: Style | undefined;
}

const GAP = '  ';

/** Lines of a table. Columns are as wide as their widest cell; the last one is wrapped at the end of the line. */
export function tableLines(rows: readonly Row[], paint: Paint, indent = ''): string[] {
  // A table may have more rows than a call has arguments.
  const widths: number[] = [];
  for (const { cells } of rows)
    for (const [i, { length }] of cells.entries()) widths[i] = Math.max(widths[i] ?? 0, length);
  const columns = widths.length;
  const before = indent.length + widths.slice(0, -1).reduce((sum, width) => sum + width + GAP.length, 0);
  const last = Math.max(20, COLUMNS - before);
  return rows.flatMap(({ cells, style }) => {
    const tail = wrap(cells[columns - 1] ?? '', last);
    return tail.map((text, line) => {
      const head = widths.slice(0, -1).map((width, i) => (line === 0 ? (cells[i] ?? '') : '').padEnd(width));
      const whole = `${indent}${[...head, text].join(GAP)}`.trimEnd();
      return style === undefined ? whole : paint(style, whole);
    });
  });
}
