/**
 * An operation that fails leaves everything as it was: every word of every STE, every VMID's owner, every object. So a
 * replace is all or nothing. Exceptions, as in the kernel: an unmap that stops halfway, invalidations before the bad one.
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
const PARTIAL: ReadonlySet<Operation['op']> = new Set(['unmap', 'invalidate']);

/** What may not change, as it stood: nothing of it is made into text unless it has to be told. */
class State {
  readonly #lab: Lab;
  readonly #objects: IommufdObject[] = [];
  /** Of each object, its count. */
  readonly #users: number[] = [];
  /** Of each object, its vSIDs that are taken. */
  readonly #vsids: number[] = [];
  readonly #streams: readonly (readonly TranslatingSte[])[];
  readonly #vmids: readonly string[];
  readonly #version: number;

  /** @param before an earlier state, whose parts that have not moved since are taken over */
  constructor(lab: Lab, before: State | null) {
    this.#lab = lab;
    for (const ctx of lab.contexts)
      ctx.objects.forEach((object) => {
        this.#objects.push(object);
        this.#users.push(object.users);
        this.#vsids.push(object instanceof ViommuObject ? object.vdevs.size : 0);
      });
    this.#streams = lab.machine.smmus.map((smmu) => lab.streams.of(smmu));
    this.#version = lab.ledger.version;
    this.#vmids = before !== null && before.#version === this.#version ? before.#vmids : lab.ledger.list();
  }

  /** Whether nothing has moved at all; if something has, the texts decide. */
  same(other: State): boolean {
    return (
      this.#version === other.#version &&
      this.#objects.length === other.#objects.length &&
      this.#objects.every(
        (one, i) =>
          one === other.#objects[i] && this.#users[i] === other.#users[i] && this.#vsids[i] === other.#vsids[i],
      ) &&
      this.#streams.every((one, i) => one === other.#streams[i])
    );
  }

  /** Everything, a line each. */
  lines(): string[] {
    const streams = this.#lab.machine.smmus.flatMap(({ name }, i) =>
      (this.#streams[i] ?? []).map(
        ({ sid, ste }) => `${name} STE 0x${sid.toString(16)} ${toQwords(ste).map((qword) => qword.toString(16))}`,
      ),
    );
    return [
      ...this.#vmids,
      ...this.#objects.map(({ label }, i) => `${label} users ${this.#users[i]}, ${this.#vsids[i]} vSIDs`),
      ...streams,
    ];
  }
}

class FailureChangesNothing implements Monitor {
  readonly #watched: Watched;
  #before: State | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before(): void {
    this.#before = new State(this.#watched.lab, this.#before);
  }

  after({ op }: Operation, result: OperationResult): Violation | null {
    const before = this.#before;
    if (before === null || result.status !== 'error' || PARTIAL.has(op)) return null;
    const after = new State(this.#watched.lab, before);
    if (after.same(before)) return null;
    const was = before.lines();
    const now = after.lines();
    const gone = was.find((line) => !now.includes(line));
    const came = now.find((line) => !was.includes(line));
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
