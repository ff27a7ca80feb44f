/** What the parts of the sanitizer share. */
import type { Clock } from './clock.ts';
import type { Subject } from './finding.ts';
import type { History } from './history.ts';
import type { Pages } from './pages.ts';
import type { NoteKind, Ordering } from './rule.ts';
import type { Peek } from './units.ts';

/** See the module comment. */
export interface Context {
  readonly clock: Clock;
  readonly history: History;
  readonly pages: Pages;
  readonly peek: Peek;
  /** When the store that becomes visible now was made; undefined: it never waited. */
  issued(unit: number): number | undefined;
  /** The store that becomes visible now has overtaken an earlier one to `units` units from `unit` on. */
  overtakes(unit: number, units: number): boolean;
  /** How a rule with two forms is judged. */
  ordering(rule: string): Ordering;
  /** Announcements of this kind have been made. */
  noted(kind: NoteKind): boolean;
  /** A rule is broken. `units`: address ranges whose stores belong to the story. */
  report(rule: string, message: string, subject: Subject, units?: readonly (readonly [number, number])[]): void;
  /** Something was too large to be judged. */
  capped(what: string): void;
}

/** A number as the specification's examples print it. */
export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
