/** `smmulab diff`: two STEs, two CDs, or two dumps. */

import type { Words } from '../../../spec/layout.ts';
import { diffEntries, type EntryDiff } from '../../inspect/diff.ts';
import { type DumpDiff, diffDumps } from '../../inspect/diff-dumps.ts';
import { inspect } from '../../inspect/inspect.ts';
import { loadReader } from '../../inspect/kinds/load.ts';
import { hex } from '../../inspect/record.ts';
import { snapshotOf } from '../../inspect/source.ts';
import { parseWords } from '../../inspect/words.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, type Verb } from '../io.ts';
import { COMMON, capsOption, choice, flag, readArgs, SMMU, SMMU_HELP, text, type Values } from '../options.ts';
import { orCliError, SOURCE, sourceOption } from '../source.ts';
import { type Paint, painter, type Row, tableLines, wrap } from '../text.ts';
import { problemLines, wordsText } from './decode.ts';

const HELP = `smmulab diff ste|cd FROM TO [options]
smmulab diff IMAGE [IMAGE] [--from PHASE] [--to PHASE] [options]

Two STEs or CDs: which fields change, what that does, whether it can be done while hardware uses the
entry, and the commands needed after it. FROM and TO are one argument each: words separated by
commas, bytes in memory order, @FILE, or - for standard input.
Two images (or two phases of one manifest): streams added, removed and changed.

  --plan             the stores and invalidations, step by step
  --width 32|64      width of a word
  --from P, --to P   phases of the first and the second image; default: the last
  --base, --reg, --registers
                     as for dump
${SMMU_HELP}
  --html FILE        as one page for a browser, too
  --json             as JSON

Exit code: 0; 1 if TO is illegal (two images: if something differs); 2 for bad input.
`;

const OPTIONS = {
  ...COMMON,
  ...SMMU,
  ...SOURCE,
  plan: { type: 'boolean' },
  width: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  html: { type: 'string' },
} as const;

const PAD = '  ';

/** A diff of entries as lines of text. */
export function entryDiffLines(diff: EntryDiff, plan: boolean, paint: Paint): string[] {
  if (diff.changes.length === 0) return ['no change'];
  const rows: Row[] = diff.changes.map(({ bits, name, from, to, fromMeaning, toMeaning, ignored }) => ({
    cells: [
      bits,
      name,
      `${from} -> ${to}`,
      ignored === true ? 'ignored' : [fromMeaning ?? from, toMeaning ?? to].join(' -> '),
    ],
    style: ignored === true ? 'dim' : undefined,
  }));
  const how = diff.hitless
    ? 'hitless: the entry stays valid throughout'
    : 'not hitless: the entry is invalid before, after, or in between';
  const lines = [
    ...tableLines([{ cells: ['bits', 'field', 'value', 'meaning'], style: 'dim' }, ...rows], paint, PAD),
    ...problemLines(diff.problems, paint),
    ...diff.effects.flatMap((effect) => wrap(`effect: ${effect}`, COLUMNS)),
    `${how}; ${diff.syncs} ${diff.syncs === 1 ? 'step' : 'steps'}`,
  ];
  if (plan)
    for (const [i, { writes }] of diff.steps.entries()) {
      const stores = writes.map(({ qword, value }) => `qword ${qword} = ${value}`).join(', ');
      lines.push(...wrap(`step ${i + 1}: ${stores}; then invalidate and sync`, COLUMNS));
    }
  lines.push(...diff.commands.flatMap((command) => wrap(`then: ${command}`, COLUMNS)));
  return lines;
}

function dumpDiffLines(diff: DumpDiff, paint: Paint): string[] {
  const count = diff.added.length + diff.removed.length + diff.changed.length;
  if (count === 0) return [`${diff.from} -> ${diff.to}: no stream differs`];
  const lines = [
    paint(
      'bold',
      `${diff.from} -> ${diff.to}: ${diff.added.length} added, ${diff.removed.length} removed, ${diff.changed.length} changed`,
    ),
  ];
  for (const { sid, summary } of diff.added) lines.push(...wrap(`+ StreamID ${hex(sid)}: ${summary}`, COLUMNS));
  for (const { sid, summary } of diff.removed) lines.push(...wrap(`- StreamID ${hex(sid)}: ${summary}`, COLUMNS));
  for (const { sid, ste, cds } of diff.changed) {
    lines.push(paint('bold', `* StreamID ${hex(sid)}`));
    if (ste !== undefined) lines.push(`${PAD}STE`, ...entryDiffLines(ste, false, paint).map((line) => PAD + line));
    for (const { ssid, what, diff: cd } of cds) {
      lines.push(`${PAD}CD ${hex(ssid)}${what === 'changed' ? '' : ` ${what}`}`);
      if (cd !== undefined) lines.push(...entryDiffLines(cd, false, paint).map((line) => PAD + line));
    }
  }
  return lines;
}

async function entries(
  kind: 'ste' | 'cd',
  args: readonly string[],
  values: Values,
  io: Io,
): Promise<{ value: EntryDiff; code: number }> {
  const [from, to, ...more] = args;
  if (from === undefined || to === undefined || more.length > 0)
    throw new CliError(
      `diff ${kind} takes FROM and TO, one argument each, words separated by commas; ${args.length} given`,
    );
  const caps = await capsOption(values);
  const reader = await loadReader(kind);
  const width = choice(values, 'width', ['32', '64']);
  const one = (name: string, argument: string): Words => {
    const records = orCliError(() =>
      parseWords(wordsText([argument], io), {
        bytes: reader.bytes,
        what: reader.what,
        width: width === undefined ? undefined : width === '32' ? 32 : 64,
      }),
    );
    const [record, ...others] = records;
    if (record === undefined || others.length > 0)
      throw new CliError(`${name} is ${records.length} records; one is compared`);
    return record;
  };
  const value = diffEntries(kind, one('FROM', from), one('TO', to), caps);
  return { value, code: value.problems.length > 0 ? 1 : 0 };
}

async function images(paths: readonly string[], values: Values, io: Io): Promise<{ value: DumpDiff; code: number }> {
  const caps = await capsOption(values);
  const [first, second = first, ...more] = paths;
  if (first === undefined || second === undefined || more.length > 0)
    throw new CliError(`diff takes ste or cd with FROM and TO, or one or two images; ${paths.length} arguments given`);
  const value = orCliError(() => {
    const [a, b] = [
      { path: first, phase: text(values, 'from') },
      { path: second, phase: text(values, 'to') },
    ].map(({ path, phase }) => {
      const snapshot = snapshotOf(sourceOption([path], values, io), phase);
      const dump = inspect(snapshot.memory(), snapshot.registers, { phase: snapshot.phase, caps, brief: true });
      return { name: snapshot.phase ?? path, dump };
    });
    if (a === undefined || b === undefined) throw new CliError('nothing to compare');
    return diffDumps(a, b, caps);
  });
  return { value, code: value.added.length + value.removed.length + value.changed.length > 0 ? 1 : 0 };
}

async function writeHtml(path: string, value: EntryDiff | DumpDiff): Promise<void> {
  const [{ diffPage }, { writeOutput }] = await Promise.all([
    import('../../inspect/html/diff-page.ts'),
    import('../output.ts'),
  ]);
  writeOutput(path, diffPage(value));
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArgs(args, OPTIONS);
  const [first, ...rest] = positionals;
  const kind = first === 'ste' || first === 'cd' ? first : undefined;
  const paint = painter(io.color);
  const html = text(values, 'html');
  const json = (value: unknown): void => io.out(`${JSON.stringify(value, null, 2)}\n`);
  if (kind !== undefined) {
    const { value, code } = await entries(kind, rest, values, io);
    if (html !== undefined) await writeHtml(html, value);
    if (flag(values, 'json')) json(value);
    else io.out(`${entryDiffLines(value, flag(values, 'plan'), paint).join('\n')}\n`);
    return code;
  }
  const { value, code } = await images(positionals, values, io);
  if (html !== undefined) await writeHtml(html, value);
  if (flag(values, 'json')) json(value);
  else io.out(`${dumpDiffLines(value, paint).join('\n')}\n`);
  return code;
}

/** The verb. */
export const verb: Verb = { help: HELP, run };
