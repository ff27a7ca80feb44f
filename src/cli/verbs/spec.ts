/** `smmulab spec`: the layout tables. */
import { CliError } from '../error.ts';
import type { Verb } from '../io.ts';
import { COMMON, flag, readArgs } from '../options.ts';
import { runSpec } from '../spec.ts';

const HELP = `smmulab spec [NAME] [--json]

Prints a layout (register, structure, command, event, descriptor, ioctl) as a table;
without NAME, the names of all.

  --json             as JSON

Exit code: 0; 2 for an unknown name.
`;

/** The verb. */
export const verb: Verb = {
  help: HELP,
  run(args, io) {
    const { values, positionals } = readArgs(args, COMMON);
    const [name, ...more] = positionals;
    if (more.length > 0) throw new CliError(`one layout is printed at a time; '${more[0]}' is one too many`);
    const json = flag(values, 'json');
    return runSpec(name === undefined ? { json } : { name, json }, (line) => io.out(`${line}\n`));
  },
};
