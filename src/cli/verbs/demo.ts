/** `smmulab demo`: a real kernel's dump, a nested VM on two SMMUs, and a VM with a command queue of its own. */
import { runCmdqvVm } from '../../lab/demo/cmdqv-vm.ts';
import { type DemoLine, runNestedVm } from '../../lab/demo/nested-vm.ts';
import { runRealDump } from '../../lab/demo/real-dump.ts';
import { CliError } from '../error.ts';
import { COLUMNS, type Verb } from '../io.ts';
import { COMMON, flag, readArgs } from '../options.ts';
import { wrap } from '../text.ts';

const HELP = `smmulab demo [--json]

Decodes a dump of a real Linux and translates one of its IOVAs; then runs one VM on a host with
two SMMUs, and one that invalidates on a Tegra241 command queue of its own.

Exit code: 0.
`;

/** The verb. */
export const verb: Verb = {
  help: HELP,
  run(args, io) {
    const { values, positionals } = readArgs(args, COMMON);
    if (positionals.length > 0) throw new CliError(`'${positionals[0]}' is one argument too many`);
    const dump: DemoLine[] = [];
    const vm: DemoLine[] = [];
    const cmdqv: DemoLine[] = [];
    runRealDump((line) => dump.push(line));
    runNestedVm((line) => vm.push(line));
    runCmdqvVm((line) => cmdqv.push(line));
    if (flag(values, 'json')) io.out(`${JSON.stringify({ dump, vm, cmdqv }, null, 2)}\n`);
    else {
      io.out('A. A dump of a real kernel\n\n');
      for (const line of dump) io.out(`${layOut(line)}\n`);
      io.out('\nB. One VM on a host with two SMMUs\n\n');
      for (const line of vm) io.out(`${layOut(line)}\n`);
      io.out('\nC. A VM with a command queue of its own\n\n');
      for (const line of cmdqv) io.out(`${layOut(line)}\n`);
    }
    return 0;
  },
};

/** A line within the columns; what is wrapped goes on under the text's own start. */
function layOut({ step, text }: DemoLine): string {
  const inner = text.trimStart();
  const head = `${step === undefined ? '' : String(step)}`.padStart(3) + ' '.repeat(2 + text.length - inner.length);
  return wrap(inner, COLUMNS - head.length)
    .map((line, i) => `${i === 0 ? head : ' '.repeat(head.length)}${line}`.trimEnd())
    .join('\n');
}
