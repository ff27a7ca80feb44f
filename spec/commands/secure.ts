/** Commands of the Secure queue (IHI 0070 4.1.1): known by name, CERROR_ILL on the Non-secure queue. */
import { type CommandLayout, command } from './command-layout.ts';

const OPERANDS = { Operands: { bits: [127, 8], text: 'as the Secure queue defines them' } } as const;

const secure = (name: string, opcode: number): CommandLayout<typeof OPERANDS> =>
  command(name, { opcode, nonSecure: false, section: '4.1.1', text: 'Secure queue only' }, OPERANDS);

/** Secure-only commands by name. */
export const SECURE_COMMANDS = {
  CMD_TLBI_EL3_ALL: secure('CMD_TLBI_EL3_ALL', 0x18),
  CMD_TLBI_EL3_VA: secure('CMD_TLBI_EL3_VA', 0x1a),
  CMD_TLBI_S_EL2_ALL: secure('CMD_TLBI_S_EL2_ALL', 0x50),
  CMD_TLBI_S_EL2_ASID: secure('CMD_TLBI_S_EL2_ASID', 0x51),
  CMD_TLBI_S_EL2_VA: secure('CMD_TLBI_S_EL2_VA', 0x52),
  CMD_TLBI_S_EL2_VAA: secure('CMD_TLBI_S_EL2_VAA', 0x53),
  CMD_TLBI_S_S12_VMALL: secure('CMD_TLBI_S_S12_VMALL', 0x58),
  CMD_TLBI_S_S2_IPA: secure('CMD_TLBI_S_S2_IPA', 0x5a),
  CMD_TLBI_SNH_ALL: secure('CMD_TLBI_SNH_ALL', 0x60),
} as const;
