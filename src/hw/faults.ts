/** How the parts of translation leave a fault in the transaction. Each returns false, for `return fault(...)`. */
import { EVENTS } from '../../spec/events.ts';
import type { FaultClass, Transaction } from './transaction.ts';

export const F_UUT = EVENTS.F_UUT.number;
export const C_BAD_STREAMID = EVENTS.C_BAD_STREAMID.number;
export const F_STE_FETCH = EVENTS.F_STE_FETCH.number;
export const C_BAD_STE = EVENTS.C_BAD_STE.number;
export const F_BAD_ATS_TREQ = EVENTS.F_BAD_ATS_TREQ.number;
export const F_STREAM_DISABLED = EVENTS.F_STREAM_DISABLED.number;
export const F_TRANSL_FORBIDDEN = EVENTS.F_TRANSL_FORBIDDEN.number;
export const C_BAD_SUBSTREAMID = EVENTS.C_BAD_SUBSTREAMID.number;
export const F_CD_FETCH = EVENTS.F_CD_FETCH.number;
export const C_BAD_CD = EVENTS.C_BAD_CD.number;
export const F_WALK_EABT = EVENTS.F_WALK_EABT.number;
export const F_TRANSLATION = EVENTS.F_TRANSLATION.number;
export const F_ADDR_SIZE = EVENTS.F_ADDR_SIZE.number;
export const F_ACCESS = EVENTS.F_ACCESS.number;
export const F_PERMISSION = EVENTS.F_PERMISSION.number;
export const F_TLB_CONFLICT = EVENTS.F_TLB_CONFLICT.number;
export const F_VMS_FETCH = EVENTS.F_VMS_FETCH.number;

/** Events that CD.A/R/S and STE.S2R/S2S are about (5.5). */
export const isTranslationFault = (event: number): boolean => event >= F_TRANSLATION && event <= F_PERMISSION;

/** A fault of configuration: event and, in explanations, the rule that was broken. */
export function configFault(t: Transaction, event: number, rule = ''): false {
  t.event = event;
  t.rule = rule;
  return false;
}

/** An external abort: event and the physical address that was read. */
export function fetchFault(t: Transaction, event: number, hi: number, lo: number): false {
  t.event = event;
  t.fetchHi = hi;
  t.fetchLo = lo;
  return false;
}

/** A fault of one stage. For stage 2: the intermediate address. */
export function stageFault(
  t: Transaction,
  event: number,
  S2: boolean,
  CLASS: FaultClass,
  hi: number,
  lo: number,
): false {
  t.event = event;
  t.S2 = S2;
  t.CLASS = CLASS;
  t.ipaHi = hi;
  t.ipaLo = lo;
  return false;
}
