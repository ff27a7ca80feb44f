/** `smmulab serve`: the model behind a qtest socket. */
import { parseQtestAddress, QTEST_ADDRESS_FORM, serveQtest } from '../../lab/qtest/server.ts';
import { VirtTarget } from '../../lab/qtest/virt-target.ts';
import { CliError } from '../error.ts';
import type { Verb } from '../io.ts';
import { COMMON, choice, flag, number, readArgs, text } from '../options.ts';

const HELP = `smmulab serve --qtest ADDRESS [--machine virt] [--shared] [--schedule S] [--seed N]

Answers the qtest protocol, so that a client written for QEMU drives this model. ADDRESS is
${QTEST_ADDRESS_FORM} (port 0: any free one). Prints where it listens; stops on
SIGINT or SIGTERM.

  --machine virt     QEMU's virt machine with its SMMUv3 and three iommu-testdev functions
  --shared           one machine for all connections; without it, each gets one at power-on
  --schedule S       eager (default) or seeded
  --seed N           seed of a seeded schedule

Exit code: 0; 2 for bad input.
`;

const OPTIONS = {
  ...COMMON,
  qtest: { type: 'string' },
  machine: { type: 'string' },
  shared: { type: 'boolean' },
  schedule: { type: 'string' },
  seed: { type: 'string' },
} as const;

/** The verb. */
export const verb: Verb = {
  help: HELP,
  run(args, io) {
    const { values, positionals } = readArgs(args, OPTIONS);
    if (positionals.length > 0) throw new CliError(`'${positionals[0]}' is one argument too many`);
    const given = text(values, 'qtest');
    if (given === undefined) throw new CliError(`--qtest is missing; expected ${QTEST_ADDRESS_FORM}`);
    const address = parseQtestAddress(given);
    if (address === undefined) throw new CliError(`--qtest: '${given}' is not ${QTEST_ADDRESS_FORM}`);
    choice(values, 'machine', ['virt']);
    const mode = choice(values, 'schedule', ['eager', 'seeded']) ?? 'eager';
    const seed = Number(number(values, 'seed', 0n, 0xffffffffn) ?? 0n);
    const fresh = (): VirtTarget => new VirtTarget(mode === 'eager' ? { mode } : { mode, seed });
    const shared = flag(values, 'shared') ? fresh() : undefined;
    return new Promise((resolve, reject) => {
      const server = serveQtest({
        address,
        target: () => shared ?? fresh(),
        listening: (where) =>
          io.out(flag(values, 'json') ? `${JSON.stringify({ listening: where })}\n` : `listening on ${where}\n`),
        failed: (error) => reject(new CliError(`--qtest: ${error.message}`)),
      });
      const stop = (): void => server.stop(() => resolve(0));
      process.once('SIGINT', stop).once('SIGTERM', stop);
    });
  },
};
