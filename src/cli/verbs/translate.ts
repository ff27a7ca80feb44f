/** `smmulab translate`: one access, or a range of addresses, on memory images. */
import { capsFromRegisters } from '../../inspect/dump.ts';
import { mapRange } from '../../inspect/ranges.ts';
import { hex } from '../../inspect/record.ts';
import { snapshotOf } from '../../inspect/source.ts';
import { type TranslationResult, translateOnImage } from '../../inspect/translate.ts';
import { rangeLines } from '../dump-text.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, type Verb } from '../io.ts';
import { COMMON, capsOption, flag, number, readArgs, SMMU, SMMU_HELP, text } from '../options.ts';
import { orCliError, SOURCE, SOURCE_HELP, sourceOption } from '../source.ts';
import { type Paint, painter, type Row, tableLines, wrap } from '../text.ts';

const HELP = `smmulab translate IMAGE... --sid N --iova ADDRESS [options]

Runs an access through the hardware model on memory images and prints each structure and descriptor
that it reads, and where it ends: an address and its attributes, or the event and the reason.

${SOURCE_HELP}
  --phase NAME       one point in time of a manifest; default: the last
  --sid N            StreamID
  --ssid N           SubstreamID (PASID); default: none
  --iova ADDRESS     what the device accesses
  --write            a write; default: a read
  --inst             an instruction fetch
  --priv             a privileged access
  --range BYTES      map this many bytes from --iova on, as merged ranges
${SMMU_HELP}
                     default: what the registers say
  --html FILE        as one page for a browser, too
  --json             as JSON

Exit code: 0; 1 if the access faults (with --range: if no address is mapped); 2 for bad input.
`;

const OPTIONS = {
  ...COMMON,
  ...SMMU,
  ...SOURCE,
  phase: { type: 'string' },
  sid: { type: 'string' },
  ssid: { type: 'string' },
  iova: { type: 'string' },
  write: { type: 'boolean' },
  inst: { type: 'boolean' },
  priv: { type: 'boolean' },
  range: { type: 'string' },
  html: { type: 'string' },
} as const;

const LAST = (1n << 64n) - 1n;

/** An access as lines of text. */
export function translationLines(result: TranslationResult, paint: Paint): string[] {
  const who = `StreamID ${hex(result.sid)}${result.ssid === undefined ? '' : `, SubstreamID ${hex(result.ssid)}`}`;
  const access = `${result.privileged ? 'privileged ' : ''}${result.access} of ${result.iova}`;
  const rows: Row[] = result.steps.map(({ what, level, address, words, meaning }) => ({
    cells: [
      level === undefined ? what : `${what} L${level}`,
      address,
      level === undefined ? meaning : `${words[0]}: ${meaning}`,
    ],
  }));
  const lines = [paint('bold', `${who}: ${access}`), ...tableLines(rows, paint, '  ')];
  const end = (line: string): void => {
    lines.push(...wrap(line, COLUMNS).map((one) => paint(result.outcome === 'ok' ? 'bold' : 'red', one)));
  };
  if (result.outcome === 'ok') end(`PA ${result.pa}, ${result.permissions}, ${result.attributes}`);
  end(`${result.event === undefined ? '' : `${result.event.name}: `}${result.reason}`);
  if (result.event !== undefined)
    lines.push(
      ...wrap(`${result.event.recorded ? 'event record' : 'not recorded'}: ${result.event.words.join(' ')}`, COLUMNS),
    );
  const tags = [
    result.vmid === undefined ? '' : `VMID ${result.vmid}`,
    result.asid === undefined ? '' : `ASID ${result.asid}`,
  ];
  const tagged = tags.filter((tag) => tag !== '').join(', ');
  if (tagged !== '') lines.push(paint('dim', `tagged with ${tagged}`));
  return lines;
}

async function writeHtml(path: string, result: TranslationResult): Promise<void> {
  const [{ translationPage }, { writeOutput }] = await Promise.all([
    import('../../inspect/html/translation-page.ts'),
    import('../output.ts'),
  ]);
  writeOutput(path, translationPage(result));
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArgs(args, OPTIONS);
  const sid = number(values, 'sid', 0n, 0xffffffffn);
  const ssid = number(values, 'ssid', 0n, 0xfffffn);
  const iova = number(values, 'iova', 0n, LAST);
  if (sid === undefined || iova === undefined) throw new CliError('translate needs --sid and --iova');
  const bytes = number(values, 'range', 1n, LAST);
  const given = await capsOption(values);
  const snapshot = orCliError(() => snapshotOf(sourceOption(positionals, values, io), text(values, 'phase')));
  const caps = given ?? capsFromRegisters(snapshot.registers);
  if (caps === undefined)
    throw new CliError('which SMMU? Its registers IDR0, IDR1, IDR3 and IDR5 are not known; give --preset or --idr0 ..');
  const paint = painter(io.color);
  const stream = { sid: Number(sid), ssid: ssid === undefined ? undefined : Number(ssid) };
  if (bytes !== undefined) {
    const to = iova + bytes - 1n > LAST ? LAST : iova + bytes - 1n;
    const result = orCliError(() =>
      mapRange(snapshot.memory(), snapshot.registers, caps, { ...stream, from: iova, to }),
    );
    if (flag(values, 'json')) io.out(`${JSON.stringify({ ...stream, ...result }, null, 2)}\n`);
    else {
      const more = result.complete ? [] : ['the search was stopped before the end'];
      io.out(`${[...rangeLines(result.ranges, paint, ''), ...more].join('\n')}\n`);
    }
    return result.ranges.some(({ pa }) => pa !== undefined) ? 0 : 1;
  }
  const request = {
    ...stream,
    iova,
    write: flag(values, 'write'),
    instruction: flag(values, 'inst'),
    privileged: flag(values, 'priv'),
  };
  const result = orCliError(() => translateOnImage(snapshot.memory(), snapshot.registers, caps, request));
  const html = text(values, 'html');
  if (html !== undefined) await writeHtml(html, result);
  io.out(
    flag(values, 'json') ? `${JSON.stringify(result, null, 2)}\n` : `${translationLines(result, paint).join('\n')}\n`,
  );
  return result.outcome === 'ok' ? 0 : 1;
}

/** The verb. */
export const verb: Verb = { help: HELP, run };
