/**
 * A vIOMMU is never used on a physical IOMMU that is gone, where its hold is one that the kernel can keep: `users` refuses
 * the unplug, `wait-cnt` and `revoke` refuse what comes after it. `raw`, `driver-count` after its time-out and
 * `device-ref` cannot (docs/scenarios.md), and are not asked.
 */
import type { HoldPolicyName } from '../../iommufd/index.ts';
import type { Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'iommu-held';

/** Holds that keep their promise whatever user space does. */
const KEEPING: ReadonlySet<HoldPolicyName | undefined> = new Set(['users', 'wait-cnt', 'revoke']);

class IommuHeld implements Monitor {
  readonly #watched: Watched;
  readonly #asked: boolean;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#asked = KEEPING.has(watched.lab.config.iommuHold);
  }

  after(_o: Operation, _result: OperationResult): Violation | null {
    return this.#first();
  }

  atEnd(): Violation | null {
    return this.#first();
  }

  #first(): Violation | null {
    if (!this.#asked) return null;
    for (const { holdReports } of this.#watched.lab.contexts) {
      const [report] = holdReports;
      if (report === undefined) continue;
      const { kind, viommu, iommu, entry } = report;
      return { rule: RULE, message: `${kind}: ${entry} through ${viommu} on ${iommu}, which was removed` };
    }
    return null;
  }
}

/** See the module comment. */
export const iommuHeld: Property = {
  name: 'iommu-held',
  title: 'no vIOMMU is used after its physical IOMMU was unplugged',
  foreign: true,
  monitor: (watched) => new IommuHeld(watched),
};
