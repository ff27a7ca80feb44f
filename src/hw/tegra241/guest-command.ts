/**
 * What a VINTF without HYP_OWN does to a command before it is executed: only some are permitted, and they are confined
 * to the VM's VMID and devices (CMDQV reference: Linux tegra241_guest_vcmdq_supports_cmd, tegra241_vintf_init_vsid).
 */
import {
  CMD_ATC_INV,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  commandOf,
  opcodeOf,
} from '../../../spec/commands.ts';
import { slotValue, type Words } from '../../../spec/layout.ts';
import { VCMDQ_ERR } from '../../../spec/tegra241.ts';
import type { CmdqvOptions } from './config.ts';

/** The command has no effect and no error. */
export const SKIP = -1;

/** An error code for CONS.ERR, 0 to go on, or {@link SKIP}. */
export type Confined = number;

/** What a VM is confined to. */
export interface Confinement {
  readonly VMID: number;
  /** The physical StreamID for a virtual one; -1 if no enabled pair has it. */
  physicalSid(virtSid: number): number;
}

const VMID = CMD_TLBI_NH_VA.slot('VMID');
const STREAM_ID = CMD_ATC_INV.slot('StreamID');

const refusal = (choice: 'ill-access' | 'ill' | 'skip'): Confined =>
  ({ 'ill-access': VCMDQ_ERR.CERROR_ILL_ACCESS, ill: VCMDQ_ERR.CERROR_ILL, skip: SKIP })[choice];

function place(words: Words, { word, shift, mask }: typeof VMID, value: number): void {
  words[word] = (((words[word] ?? 0) & ~(mask << shift)) | ((value & mask) << shift)) >>> 0;
}

/** Whether a VM's queue may issue this opcode. */
export function permitted(words: Words): boolean {
  const opcode = opcodeOf(words);
  return (
    opcode === CMD_TLBI_NH_ASID.opcode ||
    opcode === CMD_TLBI_NH_VA.opcode ||
    opcode === CMD_ATC_INV.opcode ||
    opcode === CMD_SYNC.opcode
  );
}

/** The error for a command that is not {@link permitted}: an opcode that nothing defines is merely ILLEGAL. */
export const notPermitted = (words: Words, options: CmdqvOptions): Confined =>
  commandOf(words) === undefined ? VCMDQ_ERR.CERROR_ILL : refusal(options.notPermitted);

/** Replaces VMID and StreamID in place. The command is permitted and legal. */
export function confine(words: Words, to: Confinement, options: CmdqvOptions): Confined {
  const opcode = opcodeOf(words);
  if (opcode === CMD_ATC_INV.opcode) {
    const sid = to.physicalSid(slotValue(words, STREAM_ID));
    if (sid < 0) return refusal(options.noSidMatch);
    place(words, STREAM_ID, sid);
  } else if (opcode !== CMD_SYNC.opcode) place(words, VMID, to.VMID);
  return VCMDQ_ERR.CERROR_NONE;
}
