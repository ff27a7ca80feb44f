/**
 * As many VMIDs are owned on each SMMU as the policy says, after each operation: nobody keeps one too long, nobody gives
 * one back too early, nobody takes two. Policy 'viommu-only' refuses what it must, and nothing else is refused as busy
 * in its name.
 */
import type { Operation, OperationResult } from '../operations.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'vmid-counted';

class VmidCounted implements Monitor {
  readonly #watched: Watched;
  #refusal: 'EBUSY' | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before(operation: Operation): void {
    this.#refusal = this.#watched.model.refusal(operation);
  }

  after(operation: Operation, result: OperationResult): Violation | null {
    const { lab, model } = this.#watched;
    if (model.policy === null) return null;
    if (this.#refusal !== null && result.status === 'ok')
      return { rule: RULE, message: `${operation.op} succeeded; policy ${model.policy} has to refuse it: EBUSY` };
    const [fault] = lab.ledger.faults;
    if (fault !== undefined) return { rule: RULE, message: fault.message };
    for (const { name } of lab.machine.smmus) {
      const owners = model.owners(name);
      const taken = lab.ledger.taken(name);
      const waiting = owners.size === taken.length ? 0 : waitingOf(lab, name).size;
      if (owners.size > taken.length || owners.size + waiting < taken.length)
        return {
          rule: RULE,
          message: `${name}: VMIDs ${taken.join(', ') || 'none'} are owned; the owners are ${[...owners].join(', ') || 'nobody'}`,
        };
    }
    return null;
  }
}

const WAITS = /^(\S+) VMID (\d+)$/;

/** VMIDs that were given up while hardware may still use them: they have no owner, and are not free. */
function waitingOf({ driver }: Watched['lab'], smmu: string): ReadonlySet<number> {
  const waiting = new Set<number>();
  for (const { what } of driver?.quarantined() ?? []) {
    const [, where, vmid] = WAITS.exec(what) ?? [];
    if (where === smmu) waiting.add(Number(vmid));
  }
  return waiting;
}

/** See the module comment. */
export const vmidCounted: Property = {
  name: 'vmid-counted',
  title: 'each SMMU has as many VMIDs owned as the policy has owners there',
  foreign: false,
  monitor: (watched) => new VmidCounted(watched),
};
