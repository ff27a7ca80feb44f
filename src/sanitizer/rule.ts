/** What a rule of the sanitizer is. */

/** H: data corruption or isolation loss. F: spurious faults, lost service. O: over-invalidation, noise, debug damage. */
export type Severity = 'H' | 'F' | 'O';

/** Kinds of ownership announcement that a rule may need. */
export type NoteKind = 'vmid' | 'asid' | 'page' | 'operation' | 'stream';

/** Strict: X has completed (its CMD_SYNC, too) before Y is consumed. Lenient: X before Y in one queue is enough. */
export type Ordering = 'strict' | 'lenient';

/** A rule as its table lists it. What it means in full stands in docs/sanitizer.md, which is made from this. */
export interface RuleInfo {
  readonly id: string;
  readonly severity: Severity;
  /** Sections of IHI 0070, or the named source. */
  readonly section: string;
  /** What breaks it. */
  readonly broken: string;
  /** What the sanitizer looks at to decide; '' if it never can. */
  readonly observed: string;
  /** Announcements without which it is undecided. */
  readonly needs?: readonly NoteKind[];
  /** What cannot be decided, and why. A rule with `observed` '' is undecided as a whole. */
  readonly undecidable?: string;
  /** The rule has a strict and a lenient form. */
  readonly ordering?: boolean;
}

/** Whether a rule is never decided. */
export const neverDecided = (rule: RuleInfo): boolean => rule.observed === '';
