/**
 * The stack as a state machine in the manner of `fc.commands`: each operation is a command with a precondition, run on a
 * {@link Lab} beside the {@link VmidModel}, with monitors asked after each.
 *
 * @example
 * fc.assert(fc.property(labCommands(), (commands) => fc.modelRun(labSetup({ policy: 'at-attach' }, [vmidFree]), commands)));
 */
import fc from 'fast-check';
import { operation, pools } from './arbitraries/operations.ts';
import { modelOf, sanitized } from './case.ts';
import { Lab, type LabConfig, type LabExtras } from './lab.ts';
import type { VmidModel } from './model.ts';
import { execute, type Operation } from './operations.ts';
import type { Monitor, Property, Violation, Weights } from './property.ts';
import { operationText } from './story.ts';

/** What a command knows before it runs: the model, and the names in use. */
export interface MachineModel {
  readonly vmids: VmidModel;
  readonly names: Set<string>;
}

/** What a command runs on. */
export interface MachineReal {
  readonly lab: Lab;
  readonly monitors: readonly Monitor[];
}

/** A monitor's answer as an error. */
export class PropertyBroken extends Error {
  override readonly name = 'PropertyBroken';
  readonly violation: Violation;
  constructor(violation: Violation) {
    super(`${violation.rule}: ${violation.message}`);
    this.violation = violation;
  }
}

/** Names that an operation uses. */
const USES = ['ioas', 'parent', 'on', 'to', 'viommu', 'name'] as const;

/** An operation as a command: it runs if all names it uses are there and the one it gives is not. */
export class OperationCommand implements fc.Command<MachineModel, MachineReal> {
  readonly operation: Operation;

  constructor(one: Operation) {
    this.operation = one;
  }

  check({ names }: Readonly<MachineModel>): boolean {
    const { operation: o } = this;
    if ('as' in o && names.has(o.as)) return false;
    return USES.every((key) => !(key in o) || names.has((o as unknown as Record<string, string>)[key] ?? ''));
  }

  run(model: MachineModel, { lab, monitors }: MachineReal): void {
    const { operation: o } = this;
    for (const monitor of monitors) monitor.before?.(o);
    const result = execute(lab, o);
    model.vmids.apply(o, result);
    model.names.clear();
    for (const name of lab.names) model.names.add(name);
    for (const monitor of monitors) {
      const violation = monitor.after?.(o, result) ?? null;
      if (violation !== null) throw new PropertyBroken(violation);
    }
  }

  toString(): string {
    return operationText(this.operation);
  }
}

/** Sequences of commands for labs of two SMMUs with two devices each, and two VMs. */
export function labCommands(
  weights: Weights,
  maxCommands = 40,
): fc.Arbitrary<Iterable<fc.Command<MachineModel, MachineReal>>> {
  const one = operation(weights, pools(2, 2, 2)).map((o) => new OperationCommand(o));
  return fc.commands([one], { maxCommands, size: 'max' });
}

/** A setup for `fc.modelRun`: a fresh lab, its model, and the monitors of some properties. */
export function labSetup(
  config: LabConfig,
  properties: readonly Property[],
  extras: LabExtras = {},
): () => { readonly model: MachineModel; readonly real: MachineReal } {
  return () => {
    const watch = sanitized(extras);
    const lab = new Lab(config, watch.extras);
    const vmids = modelOf(lab);
    const monitors = properties.map((property) => property.monitor({ lab, model: vmids, findings: watch.findings }));
    return { model: { vmids, names: new Set(lab.names) }, real: { lab, monitors } };
  };
}
