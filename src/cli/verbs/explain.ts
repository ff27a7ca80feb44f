/** `smmulab explain`: a log with answers in it. */
import { closeSync, openSync, readSync } from 'node:fs';
import { LogExplainer } from '../../inspect/explain/explain.ts';
import { hex } from '../../inspect/record.ts';
import { CliError } from '../error.ts';
import { type Io, reasonOf, type Verb } from '../io.ts';
import { COMMON, flag, readArgs } from '../options.ts';
import { painter, type Row, tableLines } from '../text.ts';

const HELP = `smmulab explain [FILE|-] [options]

Reads any text (dmesg, journal, serial log, debugfs, QEMU trace) and explains in place what it
knows: SMMU events, GERROR and command queue errors, CMD_SYNC timeouts, CMDQV errors, STEs, CDs and
commands printed as words, QEMU's smmuv3 traces. Other lines pass through untouched. Repeated
events are summarised at the end. Without FILE, standard input is read.

  --summary          the summary alone
  --json             findings and summary as JSON

Exit code: 0; 1 if an error was recognised; 2 for bad input.
`;

const CHUNK = 1 << 20;

/** Pieces of a file, or standard input. */
function* chunksOf(name: string, io: Io): Generator<string> {
  if (name === '-') {
    const all = io.stdin();
    for (let at = 0; at < all.length; at += CHUNK) yield Buffer.from(all.subarray(at, at + CHUNK)).toString('latin1');
    return;
  }
  let fd: number | undefined;
  try {
    fd = openSync(name, 'r');
    const buffer = Buffer.alloc(CHUNK);
    for (;;) {
      const got = readSync(fd, buffer, 0, CHUNK, null);
      if (got === 0) return;
      yield buffer.toString('latin1', 0, got);
    }
  } catch (error) {
    throw new CliError(`${name}: ${reasonOf(error)}`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function summaryLines(explainer: LogExplainer, color: boolean): string[] {
  const { summary } = explainer;
  if (summary.length === 0) return [];
  const rows: Row[] = summary.map(({ count, name, sid, ssid, access, from, to, firstLine, lastLine }) => ({
    cells: [
      `${count}`,
      name,
      ssid === undefined ? hex(sid) : `${hex(sid)}/${hex(ssid)}`,
      access,
      from === undefined ? '' : from === to ? from : `${from} to ${to}`,
      firstLine === lastLine ? `line ${firstLine}` : `lines ${firstLine} to ${lastLine}`,
    ],
  }));
  const head: Row = { cells: ['count', 'event', 'StreamID', 'access', 'addresses', 'where'], style: 'bold' };
  return tableLines([head, ...rows], painter(color));
}

/** The verb. */
export const verb: Verb = {
  help: HELP,
  run(args, io) {
    const { values, positionals } = readArgs(args, { ...COMMON, summary: { type: 'boolean' } });
    const [name = '-', ...more] = positionals;
    if (more.length > 0) throw new CliError(`one log is explained at a time; '${more[0]}' is one too many`);
    const explainer = new LogExplainer();
    const quiet = flag(values, 'json') || flag(values, 'summary');
    const show = (text: string): void => {
      if (!quiet && text !== '') io.out(Buffer.from(text, 'latin1'));
    };
    for (const chunk of chunksOf(name, io)) show(explainer.push(chunk));
    show(explainer.end());
    const lines = summaryLines(explainer, io.color);
    if (flag(values, 'json'))
      io.out(`${JSON.stringify({ findings: explainer.findings, summary: explainer.summary }, null, 2)}\n`);
    else if (lines.length > 0) io.out(`${quiet ? '' : '\n'}${lines.join('\n')}\n`);
    return explainer.failed ? 1 : 0;
  },
};
