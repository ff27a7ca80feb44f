/** `smmulab dump`: Stream table and CD tables of memory images. */
import { type Dump, dump } from '../../inspect/dump.ts';
import { InputError } from '../../inspect/error.ts';
import { ImageFiles, type Manifest, memoryOf, readManifest } from '../../inspect/manifest.ts';
import type { DecodedRecord } from '../../inspect/record.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Io, type Verb } from '../io.ts';
import { COMMON, capsOption, flag, readArgs, SMMU, SMMU_HELP, text } from '../options.ts';
import { type Paint, painter, type Row, tableLines, wrap } from '../text.ts';

const HELP = `smmulab dump MANIFEST [options]

Prints the Stream table and each CD table of memory images, as a manifest lists them.
The SMMU is taken from the registers in the manifest.

  --phase NAME       one point in time; else text shows the last, JSON all
  --all              invalid and all-default entries, too
${SMMU_HELP}
  --json             as JSON, with every field

Exit code: 0; 1 if a problem is listed; 2 for bad input.
`;

const OPTIONS = { ...COMMON, ...SMMU, phase: { type: 'string' }, all: { type: 'boolean' } } as const;

const field = (record: DecodedRecord, name: string): { readonly value: string; readonly meaning: string } => {
  const found = record.fields.find((one) => one.name === name);
  return { value: found?.ignored === true ? '-' : (found?.value ?? '-'), meaning: found?.meaning ?? '' };
};

const shortMeaning = (record: DecodedRecord, name: string): string => {
  const { value, meaning } = field(record, name);
  return value === '-' ? '-' : (meaning.split(/[;:]/)[0] ?? '');
};

function streamRows({ streams }: Dump): Row[] {
  return streams.map(({ sid, ste, cds }) => {
    const vmid = field(ste, 'S2VMID').value;
    return {
      cells: [
        `0x${sid.toString(16)}`,
        ste.valid ? shortMeaning(ste, 'Config') : 'invalid',
        shortMeaning(ste, 'S1ContextPtr'),
        cds === undefined ? '-' : `${cds.length}`,
        vmid === '-' ? '-' : `${Number(vmid)}`,
        shortMeaning(ste, 'S2TTB'),
        shortMeaning(ste, 'EATS'),
      ],
      style: ste.problems.length > 0 ? 'red' : undefined,
    };
  });
}

function cdRows({ streams }: Dump): Row[] {
  return streams.flatMap(({ sid, cds }) =>
    (cds ?? []).map(({ ssid, pa, cd }) => ({
      cells: [
        `0x${sid.toString(16)}`,
        `0x${ssid.toString(16)}`,
        pa,
        cd.valid ? `${Number(field(cd, 'ASID').value)}` : 'invalid',
        shortMeaning(cd, 'TTB0'),
        cd.valid && field(cd, 'TTB0').value !== '-' ? `${shortMeaning(cd, 'TG0')}, ${shortMeaning(cd, 'T0SZ')}` : '-',
        shortMeaning(cd, 'TTB1'),
      ],
      style: cd.problems.length > 0 ? ('red' as const) : undefined,
    })),
  );
}

function tableTitle({ phase, strtab, streams }: Dump): string {
  const shape = strtab.format === 'linear' ? 'linear' : `two-level (split ${strtab.split})`;
  const where = `${shape} Stream table at ${strtab.base}, StreamID 0 to 0x${(2 ** strtab.log2size - 1).toString(16)}`;
  return `${phase === undefined ? '' : `${phase}: `}${where}: ${streams.length} streams`;
}

/** A dump as lines of text, problems first. */
export function dumpLines(one: Dump, paint: Paint): string[] {
  const lines = wrap(tableTitle(one), COLUMNS).map((line) => paint('bold', line));
  for (const { rule, section, message, sid, ssid } of one.problems) {
    const who =
      sid === undefined || message.includes('StreamID')
        ? ''
        : `StreamID 0x${sid.toString(16)}${ssid === undefined ? '' : `, CD 0x${ssid.toString(16)}`}: `;
    lines.push(...wrap(`problem: ${who}${message} [${rule}, ${section}]`, COLUMNS).map((line) => paint('red', line)));
  }
  const streams = streamRows(one);
  const cds = cdRows(one);
  if (streams.length > 0) {
    const head: Row = { cells: ['sid', 'Config', 'S1ContextPtr', 'CDs', 'VMID', 'S2TTB', 'ATS'], style: 'dim' };
    lines.push('', ...tableLines([head, ...streams], paint, '  '));
  }
  if (cds.length > 0) {
    const head: Row = { cells: ['sid', 'ssid', 'CD at', 'ASID', 'TTB0', 'input', 'TTB1'], style: 'dim' };
    lines.push('', ...tableLines([head, ...cds], paint, '  '));
  }
  return lines;
}

function phasesOf(manifest: Manifest, wanted: string | undefined): Manifest['phases'] {
  if (wanted === undefined) return manifest.phases;
  const found = manifest.phases.filter(({ phase }) => phase === wanted);
  if (found.length === 0) {
    const names = manifest.phases.flatMap(({ phase }) => (phase === undefined ? [] : [phase]));
    throw new CliError(`--phase: '${wanted}' is not one of ${names.length === 0 ? 'none' : names.join(', ')}`);
  }
  return found.slice(0, 1);
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArgs(args, OPTIONS);
  const [path, ...more] = positionals;
  if (path === undefined) throw new CliError('no manifest given');
  if (more.length > 0) throw new CliError(`one manifest is dumped at a time; '${more[0]}' is one too many`);
  const caps = await capsOption(values);
  try {
    const manifest = readManifest(path);
    const wanted = text(values, 'phase');
    const json = flag(values, 'json');
    const phases = phasesOf(manifest, wanted);
    const files = new ImageFiles();
    const dumps = (json ? phases : phases.slice(-1)).map((phase) =>
      dump(memoryOf(manifest, phase, files), phase.registers, { phase: phase.phase, caps, all: flag(values, 'all') }),
    );
    if (json) io.out(`${JSON.stringify(manifest.hasPhases && wanted === undefined ? dumps : dumps[0], null, 2)}\n`);
    else for (const one of dumps) io.out(`${dumpLines(one, painter(io.color)).join('\n')}\n`);
    return dumps.some(({ problems }) => problems.length > 0) ? 1 : 0;
  } catch (error) {
    if (error instanceof InputError) throw new CliError(error.message);
    throw error;
  }
}

/** The verb. */
export const verb: Verb = { help: HELP, run };
