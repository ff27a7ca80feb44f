/** The sanitizer: reports broken software rules of a machine, with the history that led there. */
export type { Finding, Subject } from './finding.ts';
export type { NoteKind, Ordering, RuleInfo, Severity } from './rule.ts';
export { neverDecided } from './rule.ts';
export { RULES, ruleNamed } from './rules/index.ts';
export { rulesPage } from './rules-page.ts';
export { Sanitizer, type SanitizerOptions, type SanitizerReport, type Undecided } from './sanitizer.ts';
export type { VmidState } from './vmids.ts';
