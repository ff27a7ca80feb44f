/** A case: what a lab is made from and what is done with it, as plain data; and how one is run. */
import type { OwnershipNote } from '../driver/kernel.ts';
import { Sanitizer, type Finding as SanitizerFinding } from '../sanitizer/index.ts';
import type { Coverage } from './coverage.ts';
import { CaseError, Lab, type LabConfig, type LabExtras } from './lab.ts';
import { VmidModel } from './model.ts';
import { execute, type Operation, type OperationResult } from './operations.ts';
import type { Property, Violation } from './property.ts';

/** One operation of a case. Hardware's draws during it depend on `id` alone, so it keeps them when others are removed. */
export interface CaseStep {
  readonly id: number;
  readonly operation: Operation;
  /** For properties that run a case twice: what is done in the second run instead; null: nothing. */
  readonly twin?: Operation | null;
}

/** See the module comment. */
export interface LabCase {
  readonly config: LabConfig;
  readonly steps: readonly CaseStep[];
}

/** A step that was carried out. */
export interface StepRecord extends CaseStep {
  readonly result: OperationResult;
  /** What was announced meanwhile: who took and freed which VMID. */
  readonly notes: readonly OwnershipNote[];
}

/** What a run found: a violation, and the number of steps that led there. */
export interface Finding extends Violation {
  /** Steps carried out, the one that broke the rule included. */
  readonly step: number;
}

/** What became of a run. */
export interface RunResult {
  readonly finding: Finding | null;
  readonly steps: readonly StepRecord[];
  /** Operations carried out. */
  readonly ops: number;
}

/** How to run a case. */
export interface RunOptions {
  readonly extras?: LabExtras;
  /** Counts what happens. */
  readonly coverage?: Coverage;
  /** The driver follows no VMID policy of ours. Default: it does. */
  readonly withoutPolicy?: boolean;
}

/** A step that throws what no kernel function returns. */
const CRASH = 'crash';

/**
 * Runs a case under a property until a rule is broken or the case is over.
 * @throws CaseError for a case that names devices, VMs or pages that its lab does not have
 */
export function runCase(property: Property, one: LabCase, options: RunOptions = {}): RunResult {
  if (property.run !== undefined) return property.run(one, options);
  const { config, steps } = one;
  const records: StepRecord[] = [];
  const { coverage } = options;
  coverage?.config(config);
  const watch =
    property.sanitizer === true ? sanitized(options.extras) : { extras: options.extras, findings: undefined };
  const made = makeLab(config, watch.extras);
  if (!(made instanceof Lab)) return { finding: { ...made, step: 0 }, steps: [], ops: 0 };
  const lab = made;
  const model = modelOf(lab, options.withoutPolicy);
  let notes: OwnershipNote[] = [];
  lab.kernel.onNote((note) => {
    if (note.what === 'vmid') notes.push(note);
  });
  const monitor = property.monitor({ lab, model, findings: watch.findings });
  const { schedule } = lab.machine.conductor;
  const broken = (violation: Violation): RunResult => ({
    finding: { ...violation, step: records.length },
    steps: records,
    ops: records.length,
  });
  for (const { id, operation } of steps) {
    schedule.operation(`op ${id}`);
    notes = [];
    let result: OperationResult;
    monitor.before?.(operation);
    try {
      result = execute(lab, operation);
    } catch (error) {
      if (error instanceof CaseError) throw error;
      records.push({ id, operation, result: { status: 'skipped', why: String(error) }, notes });
      return broken({ rule: CRASH, message: `${operation.op} threw ${String(error)}` });
    }
    records.push({ id, operation, result, notes });
    coverage?.step(operation, result);
    model.apply(operation, result);
    const violation = monitor.after?.(operation, result) ?? null;
    if (violation !== null) return broken(violation);
  }
  const last = closing(lab, () => monitor.atEnd?.() ?? null);
  return last === null ? { finding: null, steps: records, ops: records.length } : broken(last);
}

/** Extras that attach a sanitizer before anything runs, and what it finds. */
export function sanitized(extras: LabExtras = {}): {
  readonly extras: LabExtras;
  readonly findings: readonly SanitizerFinding[];
} {
  const findings: SanitizerFinding[] = [];
  const withKernel: LabExtras['withKernel'] = (kernel, machine) => {
    const sanitizer = new Sanitizer(machine);
    sanitizer.onFinding = (finding) => findings.push(finding);
    kernel.onNote(sanitizer.announce);
    extras.withKernel?.(kernel, machine);
  };
  return { extras: { ...extras, withKernel }, findings };
}

/** A lab, or why the driver could not be started on it. */
function makeLab(config: LabConfig, extras: LabExtras | undefined): Lab | Violation {
  try {
    return new Lab(config, extras);
  } catch (error) {
    if (error instanceof CaseError) throw error;
    return { rule: CRASH, message: `starting the driver threw ${String(error)}` };
  }
}

/** What is broken once everything is closed. */
function closing(lab: Lab, atEnd: () => Violation | null): Violation | null {
  lab.machine.conductor.schedule.operation('close');
  try {
    lab.close();
  } catch (error) {
    return { rule: CRASH, message: `close threw ${String(error)}` };
  }
  return atEnd();
}

/** The model of a lab; withoutPolicy: of one whose driver has a policy of its own. */
export function modelOf(lab: Lab, withoutPolicy = false): VmidModel {
  const smmuOf = new Map(lab.devices.map(({ name, smmu }) => [name, smmu]));
  return new VmidModel({ policy: withoutPolicy ? null : (lab.config.policy ?? 'at-attach'), smmuOf });
}
