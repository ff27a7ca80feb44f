/** Every Non-secure command: what makes it ILLEGAL and what it does (IHI 0070 chapter 4). */
import * as spec from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import { firstCommandProblem, reservedFieldsSet } from '../../../spec/legality/command.ts';
import { CERROR } from '../../../spec/registers.ts';
import { cfgiCd, cfgiCdAll, cfgiSte, cfgiSteRange, cfgiVmsPidm } from './cfgi.ts';
import type { CommandError, CommandStream, CommandTarget, Execute } from './context.ts';
import { atcInv, priResp, resume, stallTerm } from './device.ts';
import { prefetchAddr, prefetchConfig } from './prefetch.ts';
import { sync } from './sync.ts';
import { tlbi } from './tlbi.ts';

/** What each opcode does. One that is not here is CERROR_ILL. */
const EXECUTE: ReadonlyMap<number, Execute> = new Map<number, Execute>([
  [spec.CMD_PREFETCH_CONFIG.opcode, prefetchConfig],
  [spec.CMD_PREFETCH_ADDR.opcode, prefetchAddr],
  [spec.CMD_CFGI_STE.opcode, cfgiSte],
  [spec.CMD_CFGI_STE_RANGE.opcode, cfgiSteRange],
  [spec.CMD_CFGI_CD.opcode, cfgiCd],
  [spec.CMD_CFGI_CD_ALL.opcode, cfgiCdAll],
  [spec.CMD_CFGI_VMS_PIDM.opcode, cfgiVmsPidm],
  [spec.CMD_TLBI_NH_ALL.opcode, tlbi],
  [spec.CMD_TLBI_NH_ASID.opcode, tlbi],
  [spec.CMD_TLBI_NH_VA.opcode, tlbi],
  [spec.CMD_TLBI_NH_VAA.opcode, tlbi],
  [spec.CMD_TLBI_EL2_ALL.opcode, tlbi],
  [spec.CMD_TLBI_EL2_ASID.opcode, tlbi],
  [spec.CMD_TLBI_EL2_VA.opcode, tlbi],
  [spec.CMD_TLBI_EL2_VAA.opcode, tlbi],
  [spec.CMD_TLBI_S12_VMALL.opcode, tlbi],
  [spec.CMD_TLBI_S2_IPA.opcode, tlbi],
  [spec.CMD_TLBI_NSNH_ALL.opcode, tlbi],
  [spec.CMD_ATC_INV.opcode, atcInv],
  [spec.CMD_PRI_RESP.opcode, priResp],
  [spec.CMD_RESUME.opcode, resume],
  [spec.CMD_STALL_TERM.opcode, stallTerm],
  [spec.CMD_SYNC.opcode, sync],
]);

/** Result of {@link execute}: the error, and the rule behind a CERROR_ILL. */
export interface Executed {
  error: CommandError;
  rule: string;
}

/** One object for all; read it before the next command. */
const executed: Executed = { error: 0, rule: '' };

/** Whether a command is taken without effect because the ID registers lack what it needs. */
const passesUnsupported = (rule: string | undefined, options: CommandTarget['options']): boolean =>
  rule === 'CMD-FEATURE' && options.unsupportedCommands === 'ignored';

/** The rule that makes a command CERROR_ILL, '' for a legal one; with the options that leave the choice to hardware. */
export function illegal(words: Words, { caps, options }: CommandTarget): string {
  const problem = firstCommandProblem(words, caps);
  if (problem !== undefined) return passesUnsupported(problem.rule, options) ? '' : problem.rule;
  if (options.reservedCommandBits === 'ill' && reservedFieldsSet(words, caps).length > 0) return 'CMD-RESERVED';
  const oversize =
    options.atcInvOversize === 'ill' &&
    spec.opcodeOf(words) === spec.CMD_ATC_INV.opcode &&
    spec.CMD_ATC_INV.num(words, 'Size') > spec.ATC_INV_SIZE_ALL;
  return oversize ? 'CMD-ATC-INV-SIZE' : '';
}

/** Runs one command. ILL conditions come first, then those under which a command is ignored (4.1.3). */
export function execute(words: Words, target: CommandTarget, stream: CommandStream): Executed {
  executed.rule = illegal(words, target);
  executed.error = CERROR.CERROR_NONE;
  if (executed.rule !== '') executed.error = CERROR.CERROR_ILL;
  else if (!target.defer(words, stream)) executed.error = perform(words, target, stream);
  return executed;
}

/** Does a command that is legal. */
export function perform(words: Words, target: CommandTarget, stream: CommandStream): CommandError {
  if (
    target.options.unsupportedCommands === 'ignored' &&
    passesUnsupported(firstCommandProblem(words, target.caps)?.rule, target.options)
  )
    return CERROR.CERROR_NONE;
  const act = EXECUTE.get(spec.opcodeOf(words));
  return act === undefined ? CERROR.CERROR_ILL : act(words, target, stream);
}

/** Whether the command only signals when it has been consumed. */
export const isSync = (words: Words): boolean => spec.opcodeOf(words) === spec.CMD_SYNC.opcode;
