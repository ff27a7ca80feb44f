/** What a Translation Request and a Translated transaction get (IHI 0070 3.9.1, 13.7.1). */
import type { Caps } from '../../spec/caps.ts';
import { STE } from '../../spec/ste.ts';
import type { CdEntry } from './context-descriptor.ts';
import { configFault, F_ADDR_SIZE, F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN, stageFault } from './faults.ts';
import { CLEAN, R, S2_UX, UNPRIVILEGED_SHIFT, W, X } from './permissions.ts';
import type { Stages } from './stages.ts';
import { beyond, highMask, type SteEntry } from './stream-table.ts';
import { FaultClass, Outcome, type Transaction, type TranslationRegs } from './transaction.ts';

export const EATS = STE.fields.EATS.values;
const INSTCFG = STE.fields.INSTCFG.values;

/** EATS as it takes effect (5.2 EATS): split-stage needs ATSCHK; the Device Permission Table does not exist here. */
export function effectiveEats(ste: SteEntry, regs: Pick<TranslationRegs, 'ATSCHK'>): number {
  if (ste.EATS === EATS.FULL_DPT) return EATS.OFF;
  return ste.EATS === EATS.SPLIT && !regs.ATSCHK ? EATS.OFF : ste.EATS;
}

/** A Translation Request that the stream may not make (7.3.6). */
export function refuseRequest(t: Transaction): void {
  configFault(t, F_BAD_ATS_TREQ);
  t.outcome = Outcome.AtsUr;
  t.record = true;
}

/** A Translated transaction that the stream may not make (7.3.8). */
export function forbid(t: Transaction): void {
  configFault(t, F_TRANSL_FORBIDDEN);
  t.outcome = Outcome.Abort;
  t.record = true;
}

/**
 * A Translated transaction whose address is taken as a physical one: false if it is beyond OAS and not cut (3.9.1.1).
 * Its attributes are those it came with, as MTCFG and SHCFG do not apply (13.1.4).
 */
export function passTranslated(t: Transaction, caps: Pick<Caps, 'OAS'>, truncate: boolean): boolean {
  const hi = t.addrHi | 0;
  t.outcome = Outcome.Abort;
  if (beyond(hi, caps.OAS) && !truncate) return false;
  t.outcome = Outcome.Ok;
  t.paHi = hi & highMask(caps.OAS);
  t.paLo = t.addrLo | 0;
  t.grantRead = t.grantWrite = t.grantExec = true;
  t.memAttr = t.inMemAttr;
  t.SH = t.inSH;
  t.alloc = t.inAlloc;
  return true;
}

/** Split-stage: the address of a Translated transaction is an intermediate one. False: the fault stands in `t`. */
export function splitInput(t: Transaction, caps: Pick<Caps, 'IAS'>): boolean {
  return beyond(t.addrHi, caps.IAS) ? stageFault(t, F_ADDR_SIZE, false, FaultClass.IN, 0, 0) : true;
}

/** One translation that a request may be answered from: through stage 1 with a CD, or (null) without stage 1. */
function run(t: Transaction, stages: Stages, ste: SteEntry, cd: CdEntry | null, need: number, update: number): boolean {
  if (cd === null) return stages.withoutStage1(t, ste, need, update);
  return stages.withStage1(t, ste, cd, need, update, R | W | X);
}

/** Permissions of both stages for the request's privilege: R, W, X. */
function rights(t: Transaction, stages: Stages): number {
  const one = t.eventPnU ? stages.perm1 : stages.perm1 >> UNPRIVILEGED_SHIFT;
  const execute = (stages.perm2 & (t.eventPnU ? X : S2_UX)) !== 0 ? X : 0;
  return one & ((stages.perm2 & (R | W)) | execute);
}

/**
 * Finds what a Translation Request is granted and leaves it in the transaction (13.7.1). Flags and dirty state are
 * updated now (3.13.7.1): Access flags by any walk, dirty state only if write is granted and asked for. False: a fault
 * stands in `t`.
 */
export function grantRequest(t: Transaction, stages: Stages, ste: SteEntry, cd: CdEntry | null): boolean {
  if (!run(t, stages, ste, cd, 0, 0)) return false;
  let both = rights(t, stages);
  const clean = ((stages.perm1 | stages.perm2) & CLEAN) !== 0;
  if ((both & W) !== 0 && clean) {
    if (t.noWrite) both &= ~W;
    else if (!run(t, stages, ste, cd, W, W)) return false;
  }
  const executable = (both & X) !== 0;
  const readable = (both & R) !== 0;
  const instruction = ste.INSTCFG === INSTCFG.INSTRUCTION;
  t.grantRead = instruction ? executable : readable;
  t.grantWrite = (both & W) !== 0;
  // Execute-only pages give nothing unless all reads count as instruction fetches.
  t.grantExec = t.InD && t.grantRead && (ste.INSTCFG === INSTCFG.DATA || executable);
  return true;
}
