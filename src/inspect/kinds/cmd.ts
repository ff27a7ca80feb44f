/** Commands. */
import { COMMAND_BYTES, commandOf, IMPDEF_OPCODES, opcodeOf } from '../../../spec/commands.ts';
import { layout, type Words } from '../../../spec/layout.ts';
import { commandProblems } from '../../../spec/legality/command.ts';
import { hex } from '../record.ts';
import { COMMAND_MEANINGS, commandSummary } from './command-words.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';

const UNKNOWN_COMMAND = layout(
  'reserved command',
  { bytes: COMMAND_BYTES, section: '4.1.1', text: 'a command of no known meaning' },
  { Opcode: { bits: [7, 0] }, Operands_63_8: { bits: [63, 8] }, Operands_127_64: { bits: [127, 64] } },
);

function readCommand(words: Words, { caps }: DecodeOptions): Reading {
  const problems = commandProblems(words, caps);
  const match = commandOf(words);
  if (match === undefined) {
    const name =
      opcodeOf(words) >= IMPDEF_OPCODES[0] && opcodeOf(words) <= IMPDEF_OPCODES[1]
        ? 'implementation defined command'
        : UNKNOWN_COMMAND.name;
    const opcode = `opcode ${hex(opcodeOf(words))}: ${name}`;
    return {
      name,
      layout: UNKNOWN_COMMAND,
      valid: true,
      meanings: { Opcode: () => name },
      summary: () => opcode,
      problems,
    };
  }
  const { name, layout } = match;
  return {
    name,
    layout,
    valid: true,
    meanings: { ...COMMAND_MEANINGS, Opcode: () => `${name}: ${layout.text}` },
    summary: (view) => `${name}: ${commandSummary(view, name)}`,
    problems,
  };
}

/** Reads commands. */
export const reader: Reader = { kind: 'cmd', bytes: COMMAND_BYTES, what: 'a command', read: readCommand };
