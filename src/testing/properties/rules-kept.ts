/**
 * Software keeps the rules of the architecture: the sanitizer, attached since power-on, has nothing to report. Each of
 * its rules is one of docs/sanitizer.md; the finding names it.
 */
import type { Operation } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

class RulesKept implements Monitor {
  readonly #findings: NonNullable<Watched['findings']>;

  constructor({ findings }: Watched) {
    if (findings === undefined) throw new Error('no sanitizer is attached');
    this.#findings = findings;
  }

  /** What was written into tables from outside is no doing of the driver's. */
  #from = 0;

  after(o: Operation): Violation | null {
    if (o.op === 'kexec' && o.damage !== undefined) this.#from = this.#findings.length;
    return this.#first();
  }

  #first(): Violation | null {
    const finding = this.#findings[this.#from];
    return finding === undefined ? null : { rule: finding.rule, message: `${finding.rule}: ${finding.message}` };
  }

  atEnd(): Violation | null {
    return this.#first();
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
