/**
 * An operation that fails leaves everything as it was: every word of every STE, every VMID's owner, every object. So a
 * replace is all or nothing. Exceptions, as in the kernel: an unmap that stops halfway, invalidations before the bad one.
 */
import { toQwords } from '../../../spec/layout.ts';
import type { Operation, OperationResult } from '../operations.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { forEachTranslatingSte } from '../stes.ts';

const RULE = 'failure-changes-nothing';

/** Operations that may stop halfway. */
const PARTIAL: ReadonlySet<Operation['op']> = new Set(['unmap', 'invalidate']);

class FailureChangesNothing implements Monitor {
  readonly #watched: Watched;
  #before: readonly string[] = [];

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  /** Everything that may not change, a line each. */
  #state(): string[] {
    const { lab } = this.#watched;
    const objects = lab.contexts.flatMap((ctx) => ctx.objects.list());
    const lines = [...lab.ledger.list(), ...objects.map(({ label, users }) => `${label} users ${users}`)];
    for (const smmu of lab.machine.smmus)
      forEachTranslatingSte(lab.machine.memory, smmu, (sid, ste) => {
        lines.push(`${smmu.name} STE 0x${sid.toString(16)} ${toQwords(ste).map((qword) => qword.toString(16))}`);
      });
    return lines;
  }

  before(): void {
    this.#before = this.#state();
  }

  after({ op }: Operation, result: OperationResult): Violation | null {
    if (result.status !== 'error' || PARTIAL.has(op)) return null;
    const now = this.#state();
    const gone = this.#before.find((line) => !now.includes(line));
    const came = now.find((line) => !this.#before.includes(line));
    if (gone === undefined && came === undefined) return null;
    return {
      rule: RULE,
      message: `${op} failed with ${result.errno}; before: ${gone ?? 'nothing'}; after: ${came ?? 'nothing'}`,
    };
  }
}

/** See the module comment. */
export const failureChangesNothing: Property = {
  name: 'failure-changes-nothing',
  title: 'an operation that fails leaves STEs, VMID owners, objects and their counts as they were',
  foreign: true,
  monitor: (watched) => new FailureChangesNothing(watched),
};
