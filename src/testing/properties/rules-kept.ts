/**
 * Software keeps the rules of the architecture: the sanitizer, attached since power-on, has nothing to report. Each of
 * its rules is one of docs/sanitizer.md; the finding names it.
 */
import type { Monitor, Property, Violation, Watched } from '../property.ts';

class RulesKept implements Monitor {
  readonly #findings: NonNullable<Watched['findings']>;

  constructor({ findings }: Watched) {
    if (findings === undefined) throw new Error('no sanitizer is attached');
    this.#findings = findings;
  }

  after(): Violation | null {
    const [finding] = this.#findings;
    return finding === undefined ? null : { rule: finding.rule, message: `${finding.rule}: ${finding.message}` };
  }

  atEnd(): Violation | null {
    return this.after();
  }
}

/** See the module comment. */
export const rulesKept: Property = {
  name: 'rules-kept',
  title: 'the sanitizer finds no broken rule of the architecture',
  foreign: true,
  sanitizer: true,
  monitor: (watched) => new RulesKept(watched),
};
