/** `smmulab decode`: records from hexadecimal words. */
import type { Granule, Level } from '../../../spec/descriptors.ts';
import { LayoutError } from '../../../spec/layout.ts';
import { InputError } from '../../inspect/error.ts';
import { loadReader } from '../../inspect/kinds/load.ts';
import { type DecodeOptions, decodeWith } from '../../inspect/kinds/reader.ts';
import { type DecodedRecord, KINDS, type RecordKind } from '../../inspect/record.ts';
import { MAX_TEXT, parseWords } from '../../inspect/words.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, readBytes, type Verb } from '../io.ts';
import { COMMON, capsOption, choice, flag, number, readArgs, SMMU, SMMU_HELP, type Values } from '../options.ts';
import { type Paint, painter, type Row, tableLines, wrap } from '../text.ts';

const HELP = `smmulab decode KIND WORDS... [options]

Prints a record field by field: bits, value, meaning, what is ignored, what is illegal.
KIND is ste, cd, l1std, l1cd, cmd, event, pte1 or pte2.

WORDS are hexadecimal, with or without 0x, separated by blanks or commas: 64-bit words, or 32-bit
ones (low half first) if each has 8 digits. One string of more than 16 digits is bytes in memory
order (xxd -p). - reads standard input, @FILE a file. Several records are printed one by one.

  --width 32|64      width of a word
  --granule G        4k (default), 16k or 64k, for pte1 and pte2
  --level N          -1 to 3 (default), for pte1 and pte2
  --ds, --pa52       52-bit formats, for pte1 and pte2: CD.DS or STE.S2DS; 52-bit output with 64k
${SMMU_HELP}
  --all              fields that are zero and ignored, too
  --json             as JSON

Exit code: 0; 1 if a problem is listed; 2 for bad input.
Example: smmulab decode ste 0x44a1700b 0xd6 0 0 0 0 0 0 --preset qemuVirt
`;

const OPTIONS = {
  ...COMMON,
  ...SMMU,
  width: { type: 'string' },
  granule: { type: 'string' },
  level: { type: 'string' },
  ds: { type: 'boolean' },
  pa52: { type: 'boolean' },
  all: { type: 'boolean' },
} as const;

/** Words as text: arguments as they are, `-` and `@FILE` replaced by what they hold. */
export function wordsText(args: readonly string[], io: Io): string {
  const whole = (name: string): string => Buffer.from(readBytes(name, io, MAX_TEXT)).toString('latin1');
  return args.map((arg) => (arg === '-' ? whole('-') : arg.startsWith('@') ? whole(arg.slice(1)) : arg)).join(' ');
}

/** The kind of record that an argument names. @throws CliError that lists the kinds. */
export function kindOf(name: string | undefined): RecordKind {
  const kind = KINDS.find((known) => known === name?.toLowerCase());
  if (kind !== undefined) return kind;
  const given = name === undefined ? 'no kind of record' : `'${name}' is not a kind of record`;
  throw new CliError(`${given}; it is one of ${KINDS.join(', ')}`);
}

const GRANULES: readonly Granule[] = ['4k', '16k', '64k'];

function formatOptions(values: Values): Pick<DecodeOptions, 'granule' | 'level' | 'ds' | 'pa52'> {
  const granule = choice(values, 'granule', GRANULES);
  const level = number(values, 'level', -1n, 3n);
  return {
    granule,
    level: level === undefined ? undefined : (Number(level) as Level),
    ds: flag(values, 'ds'),
    pa52: flag(values, 'pa52'),
  };
}

/** The lines of a record's problems. */
export const problemLines = (problems: DecodedRecord['problems'], paint: Paint, indent = '  '): string[] =>
  problems.flatMap(({ rule, section, message }) =>
    wrap(`${message} [${rule}, ${section}]`, COLUMNS - indent.length - 9).map((line, i) =>
      paint('red', `${indent}${i === 0 ? 'ILLEGAL: ' : '         '}${line}`),
    ),
  );

/** A decoded record as lines of text. all: fields that are zero and ignored, too. */
export function recordLines(record: DecodedRecord, all: boolean, paint: Paint): string[] {
  const shown = record.fields.filter(({ ignored, value }) => all || ignored !== true || value !== '0x0');
  const rows: Row[] = shown.map(({ name, bits, value, meaning = '', ignored }) => ({
    cells: [bits, name, value, ignored === true ? `ignored${meaning === '' ? '' : `; ${meaning}`}` : meaning],
    style: ignored === true ? 'dim' : undefined,
  }));
  const title = record.summary.startsWith(record.name) ? record.summary : `${record.name}: ${record.summary}`;
  const hidden = record.fields.length - shown.length;
  return [
    ...wrap(title, COLUMNS).map((line) => paint('bold', line)),
    ...problemLines(record.problems, paint),
    ...tableLines([{ cells: ['bits', 'field', 'value', 'meaning'], style: 'dim' }, ...rows], paint, '  '),
    ...(hidden === 0 ? [] : [paint('dim', `  and ${hidden} ignored fields that are zero (--all)`)]),
  ];
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArgs(args, OPTIONS);
  const [name, ...words] = positionals;
  const kind = kindOf(name);
  const width = choice(values, 'width', ['32', '64']);
  const options: DecodeOptions = { caps: await capsOption(values), ...formatOptions(values) };
  const paint = painter(io.color);
  try {
    const reader = await loadReader(kind);
    const records = parseWords(wordsText(words, io), {
      bytes: reader.bytes,
      what: reader.what,
      width: width === undefined ? undefined : width === '32' ? 32 : 64,
    }).map((record) => decodeWith(reader, record, options));
    if (flag(values, 'json')) io.out(`${JSON.stringify(records.length === 1 ? records[0] : records, null, 2)}\n`);
    else
      for (const [i, record] of records.entries()) {
        const lines = recordLines(record, flag(values, 'all'), paint);
        io.out(`${i === 0 ? '' : '\n'}${lines.join('\n')}\n`);
      }
    return records.some(({ problems }) => problems.length > 0) ? 1 : 0;
  } catch (error) {
    if (error instanceof InputError || error instanceof LayoutError) throw new CliError(error.message);
    throw error;
  }
}

/** The verb. */
export const verb: Verb = { help: HELP, run };
