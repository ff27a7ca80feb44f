/** How lines of logs that stand alone are recognised, and words that drivers and QEMU share. */
import type { Register } from '../../../spec/layout.ts';
import { GERROR } from '../../../spec/registers/interrupts.ts';

/** What a line was recognised as. */
export interface LineMeaning {
  /** Key of the advice, or of repeated traces. */
  readonly kind: string;
  readonly summary: string;
  /** A mere trace: no error. */
  readonly info?: true;
  readonly sid?: number;
  readonly ssid?: number;
  readonly iova?: bigint;
}

/** How a line is recognised, and what it means then. */
export interface LineRule {
  readonly test: RegExp;
  readonly meaning: (match: RegExpExecArray) => LineMeaning | undefined;
}

/** A rule with values from the line. */
export const rule = (test: RegExp, meaning: (match: RegExpExecArray) => LineMeaning | undefined): LineRule => ({
  test,
  meaning,
});

/** A rule for a line without values. */
export const fixed = (test: RegExp, kind: string, summary: string): LineRule => rule(test, () => ({ kind, summary }));

/** Active errors of a GERROR value in words. */
export function gerrorText(value: number): string {
  const table: Register = GERROR;
  const active = table.names.filter((name) => table.field(name).reserved === undefined && table.of(value, name) !== 0);
  const place = (name: string): number => table.slot(name).shift;
  return active.length === 0 ? 'no known bit' : active.sort((a, b) => place(a) - place(b)).join(', ');
}

/** Why the command queue stopped, by CMDQ_CONS.ERR. */
export const CERRORS: Readonly<Record<number, string>> = {
  0: 'no error',
  1: 'CERROR_ILL: an illegal command',
  2: 'CERROR_ABT: the command could not be fetched',
  3: 'CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation',
};
