/** `smmulab dump`: everything that memory images say of an SMMU. */

import { STE } from '../../../spec/ste.ts';
import { type Inspection, inspect } from '../../inspect/inspect.ts';
import { snapshotOf } from '../../inspect/source.ts';
import { dumpLines } from '../dump-text.ts';
import type { Io, Verb } from '../io.ts';
import { COMMON, capsOption, choice, flag, number, readArgs, SMMU, SMMU_HELP, text, type Values } from '../options.ts';
import { orCliError, SOURCE, SOURCE_HELP, sourceOption } from '../source.ts';
import { painter } from '../text.ts';

const HELP = `smmulab dump IMAGE... [options]

Prints what memory images say of an SMMU: problems first, then the Stream table, each CD table
found, VMIDs and ASIDs, queues, and what the translation tables map.

${SOURCE_HELP}
  --phase NAME       one point in time of a manifest; else text shows the last, JSON all
  --sid N --vmid N --config NAME
                     only streams with this StreamID, VMID, Config (S1_TRANS, NESTED ...)
  --all              invalid and all-default entries too, and every mapped range
  --brief            without what the tables map
${SMMU_HELP}
                     default: what the registers say
  --html FILE        as one page for a browser, too
  --json             as JSON, with every field

Exit code: 0; 1 if a problem is listed; 2 for bad input.
`;

const OPTIONS = {
  ...COMMON,
  ...SMMU,
  ...SOURCE,
  phase: { type: 'string' },
  sid: { type: 'string' },
  vmid: { type: 'string' },
  config: { type: 'string' },
  all: { type: 'boolean' },
  brief: { type: 'boolean' },
  html: { type: 'string' },
} as const;

const fieldValue = (one: Inspection['streams'][number], name: string): { value: string; used: boolean } => {
  const found = one.ste.fields.find((field) => field.name === name);
  return { value: found?.value ?? '0x0', used: found !== undefined && found.ignored !== true };
};

/** Which streams are wanted. */
function filterOf(values: Values): ((stream: Inspection['streams'][number]) => boolean) | undefined {
  const sid = number(values, 'sid', 0n, 0xffffffffn);
  const vmid = number(values, 'vmid', 0n, 0xffffn);
  const configs = STE.fields.Config.values;
  const config = choice(values, 'config', Object.keys(configs) as (keyof typeof configs)[]);
  if (sid === undefined && vmid === undefined && config === undefined) return undefined;
  return (stream) => {
    const tag = fieldValue(stream, 'S2VMID');
    return (
      (sid === undefined || BigInt(stream.sid) === sid) &&
      (vmid === undefined || (tag.used && BigInt(tag.value) === vmid)) &&
      (config === undefined || BigInt(fieldValue(stream, 'Config').value) === BigInt(configs[config]))
    );
  };
}

/** A dump of the wanted streams, and what concerns them. */
function filtered(one: Inspection, wanted: ReturnType<typeof filterOf>): Inspection {
  if (wanted === undefined) return one;
  const streams = one.streams.filter(wanted);
  const sids = new Set(streams.map(({ sid }) => sid));
  return {
    ...one,
    streams,
    problems: one.problems.filter(({ sid }) => sid === undefined || sids.has(sid)),
    vmids: one.vmids.filter((use) => use.sids.some((sid) => sids.has(sid))),
    asids: one.asids.filter(({ users }) => users.some(({ sid }) => sids.has(sid))),
    tables: one.tables.filter(({ users }) => users.some(({ sid }) => sids.has(sid))),
  };
}

async function writeHtml(path: string, dumps: readonly Inspection[]): Promise<void> {
  const [{ dumpPage }, { writeOutput }] = await Promise.all([
    import('../../inspect/html/dump-page.ts'),
    import('../output.ts'),
  ]);
  writeOutput(path, dumpPage(dumps));
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = readArgs(args, OPTIONS);
  const caps = await capsOption(values);
  const wanted = filterOf(values);
  const phase = text(values, 'phase');
  const [json, all] = [flag(values, 'json'), flag(values, 'all')];
  const { source, dumps } = orCliError(() => {
    const source = sourceOption(positionals, values, io);
    const snapshots = json && phase === undefined ? source.snapshots : [snapshotOf(source, phase)];
    const dumps = snapshots.map((one) =>
      filtered(
        inspect(one.memory(), one.registers, { phase: one.phase, caps, all, brief: flag(values, 'brief') }),
        wanted,
      ),
    );
    return { source, dumps };
  });
  const html = text(values, 'html');
  if (html !== undefined) await writeHtml(html, dumps);
  if (json) io.out(`${JSON.stringify(source.hasPhases && phase === undefined ? dumps : dumps[0], null, 2)}\n`);
  else for (const one of dumps) io.out(`${dumpLines(one, all, painter(io.color)).join('\n')}\n`);
  return dumps.some(({ problems }) => problems.length > 0) ? 1 : 0;
}

/** The verb. */
export const verb: Verb = { help: HELP, run };
