/** `smmulab encode`: records from field values. */
import { decode } from '../../inspect/decode.ts';
import { ENCODED_KINDS, encodeRecord, type FieldValue } from '../../inspect/encode.ts';
import { InputError } from '../../inspect/error.ts';
import { hexWords } from '../../inspect/words.ts';
import { CliError } from '../error.ts';
import type { Verb } from '../io.ts';
import { COMMON, capsOption, cLiteral, flag, readArgs, SMMU, SMMU_HELP } from '../options.ts';
import { painter } from '../text.ts';
import { problemLines } from './decode.ts';

const HELP = `smmulab encode KIND [NAME] FIELD=VALUE... [options]

Prints the words of a record with these fields, all others zero. KIND is ste, cd, l1std, l1cd, cmd
or event; cmd and event take the NAME of a command or event. A VALUE is a C literal or the name of
an encoding; pointers are given as addresses. What is illegal is listed on standard error.

${SMMU_HELP}
  --json             words, bytes in memory order, and the decoded record

Exit code: 0; 1 if a problem is listed; 2 for bad input.
Examples: smmulab encode ste V=1 Config=S2_TRANS S2VMID=3 S2TTB=0x80000000
          smmulab encode cmd CMD_TLBI_S12_VMALL VMID=3
`;

function pairOf(text: string): FieldValue {
  const at = text.indexOf('=');
  if (at < 1) throw new CliError(`'${text}' is not FIELD=VALUE`);
  const value = text.slice(at + 1);
  if (value === '') throw new CliError(`'${text}' has no value`);
  return [text.slice(0, at), cLiteral(value) ?? value];
}

/** The verb. */
export const verb: Verb = {
  help: HELP,
  async run(args, io) {
    const { values, positionals } = readArgs(args, { ...COMMON, ...SMMU });
    const [kindName, ...rest] = positionals;
    const kind = ENCODED_KINDS.find((one) => one === kindName?.toLowerCase());
    if (kind === undefined)
      throw new CliError(`'${kindName ?? ''}' is not a kind of record; it is one of ${ENCODED_KINDS.join(', ')}`);
    const named = kind === 'cmd' || kind === 'event';
    const name = named && rest[0]?.includes('=') === false ? rest[0] : undefined;
    const caps = await capsOption(values);
    try {
      const words = encodeRecord(kind, name, (name === undefined ? rest : rest.slice(1)).map(pairOf), caps);
      const record = decode(kind, words, { caps });
      const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength).toString('hex');
      if (flag(values, 'json')) io.out(`${JSON.stringify({ words: hexWords(words), bytes, ...record }, null, 2)}\n`);
      else {
        io.out(`${hexWords(words).join(' ')}\n`);
        for (const line of problemLines(record.problems, painter(false), '')) io.err(`${line}\n`);
      }
      return record.problems.length > 0 ? 1 : 0;
    } catch (error) {
      if (error instanceof InputError) throw new CliError(error.message);
      throw error;
    }
  },
};
