/** What every command has, and the class of command layouts (IHI 0070 4.1). */
import { type Encoding, type Fields, Layout, type Words } from '../layout.ts';

/** Bytes of a command (4.1.1). */
export const COMMAND_BYTES = 16;

/** Facts about a command. */
export interface CommandInfo {
  /** Bits 7:0. */
  readonly opcode: number;
  readonly section: string;
  /** Whether the Non-secure queue knows the command. Where it does not, the opcode is CERROR_ILL there (4.1.3). */
  readonly nonSecure: boolean;
  /** Features it needs, all of them, as {@link Field.when}; without them it is CERROR_ILL. */
  readonly when?: string | readonly string[];
  readonly text?: string;
}

/** The first 8 bits of every command. */
export const OPCODE = { Opcode: { bits: [7, 0] } } as const;

/** A 16-byte command. {@link encode} writes the opcode by itself. */
export class CommandLayout<F extends Fields = Fields> extends Layout<F & typeof OPCODE> {
  readonly opcode: number;
  readonly nonSecure: boolean;
  readonly info: CommandInfo;

  constructor(name: string, info: CommandInfo, fields: F) {
    super(
      name,
      { bytes: COMMAND_BYTES, section: info.section, ...(info.text === undefined ? {} : { text: info.text }) },
      { ...OPCODE, ...fields },
    );
    this.opcode = info.opcode;
    this.nonSecure = info.nonSecure;
    this.info = info;
  }

  /** The command with the given fields, all others zero, its opcode set. @throws LayoutError as Layout.set. */
  override encode(values: Encoding<F & typeof OPCODE> = {}): Words {
    const words = super.encode(values);
    if (values.Opcode === undefined) this.set(words, 'Opcode', this.opcode);
    return words;
  }
}

/** Makes a command; field names and value names stay known to the compiler. */
export function command<const F extends Fields>(name: string, info: CommandInfo, fields: F): CommandLayout<F> {
  return new CommandLayout(name, info, fields);
}

const OPCODE_MASK = 2 ** (OPCODE.Opcode.bits[0] + 1) - 1;

/** The opcode of a command's words. */
export const opcodeOf = (words: Words): number => (words[0] ?? 0) & OPCODE_MASK;
