/**
 * An operation that fails leaves everything as it was: every word of every STE, every VMID's owner, every object. So a
 * replace is all or nothing. Exceptions, as in the kernel: an unmap that stops halfway, invalidations before the bad one,
 * and registers that a resume had written when one of them did not answer. Where more than one failure
 * is planned, the way back may fail as well (a default domain that cannot be attached again is a WARN in Linux).
 */
import { toQwords } from '../../../spec/layout.ts';
import type { IommufdObject } from '../../iommufd/object.ts';
import { ViommuObject } from '../../iommufd/viommu.ts';
import type { Lab } from '../lab.ts';
import type { Operation, OperationResult } from '../operations.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import type { TranslatingSte } from '../streams.ts';

const RULE = 'failure-changes-nothing';

/** Operations that may stop halfway. */
const PARTIAL: ReadonlySet<Operation['op']> = new Set(['unmap', 'invalidate', 'smmuResume']);

/** What may not change beside VMIDs, as it stood: nothing of it is made into text unless it has to be told. */
class State {
  readonly #lab: Lab;
  readonly #objects: IommufdObject[] = [];
  /** Of each object, its count and its vSIDs that are taken. */
  readonly #counts: number[] = [];
  readonly #streams: (readonly TranslatingSte[])[] = [];

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  /** Takes down what is now. */
  take(): this {
    const { contexts, machine, streams } = this.#lab;
    this.#objects.length = this.#counts.length = this.#streams.length = 0;
    for (const ctx of contexts) ctx.objects.forEach(this.#object);
    for (const smmu of machine.smmus) this.#streams.push(streams.of(smmu));
    return this;
  }

  readonly #object = (object: IommufdObject): void => {
    this.#objects.push(object);
    this.#counts.push(object.users, object instanceof ViommuObject ? object.vdevs.size : 0);
  };

  /** Whether nothing has moved at all; if something has, the texts decide. */
  same(other: State): boolean {
    return (
      equal(this.#objects, other.#objects) && equal(this.#counts, other.#counts) && equal(this.#streams, other.#streams)
    );
  }

  /** Everything, a line each. */
  lines(): string[] {
    const streams = this.#lab.machine.smmus.flatMap(({ name }, i) =>
      (this.#streams[i] ?? []).map(
        ({ sid, ste }) => `${name} STE 0x${sid.toString(16)} ${toQwords(ste).map((qword) => qword.toString(16))}`,
      ),
    );
    const objects = this.#objects.map(
      ({ label }, i) => `${label} users ${this.#counts[2 * i]}, ${this.#counts[2 * i + 1]} vSIDs`,
    );
    return [...objects, ...streams];
  }
}

const equal = <T>(a: readonly T[], b: readonly T[]): boolean =>
  a.length === b.length && a.every((one, i) => one === b[i]);

class FailureChangesNothing implements Monitor {
  readonly #lab: Lab;
  readonly #before: State;
  readonly #after: State;
  #version = 0;
  /** Failures that are planned for the next operation. */
  #failures = 0;

  constructor({ lab }: Watched) {
    this.#lab = lab;
    this.#before = new State(lab);
    this.#after = new State(lab);
  }

  before(): void {
    const { ledger } = this.#lab;
    ledger.mark();
    this.#version = ledger.version;
    this.#before.take();
  }

  after({ op }: Operation, result: OperationResult): Violation | null {
    const failures = this.#failures;
    this.#failures = op === 'fail' ? failures + 1 : 0;
    if (failures > 1) return null;
    if (result.status !== 'error' || PARTIAL.has(op)) return null;
    const { ledger } = this.#lab;
    const [before, after] = [this.#before, this.#after.take()];
    if (ledger.version === this.#version && after.same(before)) return null;
    const vmids = ledger.changes();
    const was = before.lines();
    const now = after.lines();
    const gone = vmids.gone[0] ?? was.find((line) => !now.includes(line));
    const came = vmids.came[0] ?? now.find((line) => !was.includes(line));
    if (gone === undefined && came === undefined) return null;
    // A device that nobody owns, and that an earlier failure had left blocked, gets its default domain after all.
    if (op === 'bind' && gone === undefined && came?.includes(' STE ') === true) return null;
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
