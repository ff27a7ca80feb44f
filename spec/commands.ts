/** The commands of the Command queue (IHI 0070 chapter 4). */
import { type CommandLayout, opcodeOf } from './commands/command-layout.ts';
import * as config from './commands/config.ts';
import * as device from './commands/device.ts';
import { SECURE_COMMANDS } from './commands/secure.ts';
import * as tlbi from './commands/tlbi.ts';
import { type Encoding, LayoutError, type Words } from './layout.ts';

export * from './commands/command-layout.ts';
export * from './commands/config.ts';
export * from './commands/device.ts';
export * from './commands/secure.ts';
export * from './commands/tlbi.ts';

/**
 * Every command by the specification's name, in opcode order, Secure ones last. CMD_CFGI_ALL is not here: it is
 * CMD_CFGI_STE_RANGE with Range {@link CFGI_ALL_RANGE}; {@link commandOf} and {@link encodeCommand} know the name.
 */
export const COMMANDS = {
  CMD_PREFETCH_CONFIG: config.CMD_PREFETCH_CONFIG,
  CMD_PREFETCH_ADDR: config.CMD_PREFETCH_ADDR,
  CMD_CFGI_STE: config.CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE: config.CMD_CFGI_STE_RANGE,
  CMD_CFGI_CD: config.CMD_CFGI_CD,
  CMD_CFGI_CD_ALL: config.CMD_CFGI_CD_ALL,
  CMD_CFGI_VMS_PIDM: config.CMD_CFGI_VMS_PIDM,
  CMD_TLBI_NH_ALL: tlbi.CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID: tlbi.CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA: tlbi.CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA: tlbi.CMD_TLBI_NH_VAA,
  CMD_TLBI_EL2_ALL: tlbi.CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID: tlbi.CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA: tlbi.CMD_TLBI_EL2_VA,
  CMD_TLBI_EL2_VAA: tlbi.CMD_TLBI_EL2_VAA,
  CMD_TLBI_S12_VMALL: tlbi.CMD_TLBI_S12_VMALL,
  CMD_TLBI_S2_IPA: tlbi.CMD_TLBI_S2_IPA,
  CMD_TLBI_NSNH_ALL: tlbi.CMD_TLBI_NSNH_ALL,
  CMD_ATC_INV: device.CMD_ATC_INV,
  CMD_PRI_RESP: device.CMD_PRI_RESP,
  CMD_RESUME: device.CMD_RESUME,
  CMD_STALL_TERM: device.CMD_STALL_TERM,
  CMD_SYNC: device.CMD_SYNC,
  CMD_DPTI_ALL: tlbi.CMD_DPTI_ALL,
  CMD_DPTI_PA: tlbi.CMD_DPTI_PA,
  ...SECURE_COMMANDS,
} as const;

/** Names of commands, CMD_CFGI_ALL included. */
export type CommandName = keyof typeof COMMANDS | 'CMD_CFGI_ALL';

/** Opcodes that an implementation may define, first and last (4.1.1). */
export const IMPDEF_OPCODES = [0x80, 0x8f] as const;

/** A command's name and table. */
export interface CommandMatch {
  readonly name: CommandName;
  readonly layout: CommandLayout;
}

const byOpcode: ReadonlyMap<number, CommandMatch> = new Map(
  Object.entries(COMMANDS).map(([name, layout]) => [
    layout.opcode,
    { name: name as keyof typeof COMMANDS, layout: layout as CommandLayout },
  ]),
);

const CFGI_ALL: CommandMatch = { name: 'CMD_CFGI_ALL', layout: config.CMD_CFGI_STE_RANGE as CommandLayout };

/** Which command these 4 words are. Undefined for a reserved or implementation defined opcode. */
export function commandOf(words: Words): CommandMatch | undefined {
  const match = byOpcode.get(opcodeOf(words));
  return match?.layout === CFGI_ALL.layout && CFGI_ALL.layout.num(words, 'Range') === config.CFGI_ALL_RANGE
    ? CFGI_ALL
    : match;
}

/** The table of a command by name; CMD_CFGI_ALL gives that of CMD_CFGI_STE_RANGE. Undefined for an unknown name. */
export function commandNamed(name: string): CommandLayout | undefined {
  if (name === CFGI_ALL.name) return CFGI_ALL.layout;
  return Object.hasOwn(COMMANDS, name) ? (COMMANDS[name as keyof typeof COMMANDS] as CommandLayout) : undefined;
}

/**
 * The words of a command given by name; CMD_CFGI_ALL sets Range. For names that come from outside; in code the
 * command's own `encode` has its fields checked by the compiler.
 * @throws LayoutError for an unknown command or field, or a value that does not fit.
 */
export function encodeCommand(name: string, values: Readonly<Record<string, bigint | number | string>> = {}): Words {
  const layout = commandNamed(name);
  if (layout === undefined) throw new LayoutError(`there is no command ${name}`);
  const range = name === CFGI_ALL.name ? { Range: config.CFGI_ALL_RANGE } : {};
  return layout.encode({ ...values, ...range } as Encoding<CommandLayout['fields']>);
}
