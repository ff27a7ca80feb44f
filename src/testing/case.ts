/** A case: what a lab is made from and what is done with it, as plain data; and how one is run. */
import type { OwnershipNote } from '../driver/kernel.ts';
import { Sanitizer, type Finding as SanitizerFinding } from '../sanitizer/index.ts';
import type { Coverage } from './coverage.ts';
import { CaseError, Lab, type LabConfig, type LabExtras } from './lab.ts';
import { VmidModel } from './model.ts';
import { execute, type Operation, type OperationResult } from './operations.ts';
import type { Monitor, Property, Violation } from './property.ts';
import { withoutStacks } from './stacks.ts';

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
  /** Why the run is counted apart from those that answer the whole question; absent: it is not. */
  readonly apart?: string;
}

/** What became of a run under several properties. */
export interface Answers extends Omit<RunResult, 'finding'> {
  /** Of the properties that were broken, the first finding of each. */
  readonly findings: ReadonlyMap<Property, Finding>;
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
/** A success that the model cannot follow. */
const IMPOSSIBLE = 'impossible';

/**
 * Runs a case under a property until a rule is broken or the case is over.
 * @throws CaseError for a case that names devices, VMs or pages that its lab does not have
 */
export function runCase(property: Property, one: LabCase, options: RunOptions = {}): RunResult {
  if (property.run !== undefined) return property.run(one, options);
  const { findings, ...rest } = askAll([property], one, options);
  return { ...rest, finding: findings.get(property) ?? null };
}

/**
 * Runs a case once and asks several properties after each operation: each until it is broken, the case until all are or
 * it is over. A sanitizer is attached if one of them wants it. No property may have a `run` of its own.
 * @throws CaseError as {@link runCase}
 */
export function askAll(properties: readonly Property[], one: LabCase, options: RunOptions = {}): Answers {
  const { coverage } = options;
  coverage?.config(one.config);
  const watch = properties.some(({ sanitizer }) => sanitizer === true) ? sanitized(options.extras) : undefined;
  const lab = makeLab(one.config, watch?.extras ?? options.extras);
  if (!(lab instanceof Lab))
    return { findings: new Map(properties.map((property) => [property, { ...lab, step: 0 }])), steps: [], ops: 0 };
  coverage?.attach(lab, watch?.sanitizer(), properties);
  const model = modelOf(lab, options.withoutPolicy);
  const vmids = vmidNotes(lab);
  const asked = new Asked(properties, (property) => property.monitor({ lab, model, findings: watch?.findings }));
  const { schedule } = lab.machine.conductor;
  const steps: StepRecord[] = [];
  for (const { id, operation } of one.steps) {
    schedule.operation(`op ${id}`);
    asked.before(operation);
    const result = attempt(lab, operation);
    const crashed = 'rule' in result;
    const record = crashed ? ({ status: 'skipped', why: result.message } as const) : result;
    steps.push({ id, operation, result: record, notes: vmids() });
    const broken = crashed ? result : told(model, operation, result);
    if (broken !== null) {
      asked.all(broken, steps.length);
      break;
    }
    coverage?.step(operation, record);
    asked.after(operation, record, steps.length);
    if (asked.done) break;
  }
  if (!asked.done) {
    const crash = closed(lab);
    if (crash === null) asked.atEnd(steps.length);
    else asked.all(crash, steps.length);
  }
  return { findings: asked.findings, steps, ops: steps.length };
}

/** The monitors of a run that have not been broken. */
class Asked {
  readonly #left: Map<Property, Monitor>;
  readonly findings = new Map<Property, Finding>();

  constructor(properties: readonly Property[], monitor: (property: Property) => Monitor) {
    this.#left = new Map(properties.map((property) => [property, monitor(property)]));
  }

  /** Nobody is left to be asked. */
  get done(): boolean {
    return this.#left.size === 0;
  }

  before(operation: Operation): void {
    for (const monitor of this.#left.values()) monitor.before?.(operation);
  }

  after(operation: Operation, result: OperationResult, step: number): void {
    for (const [property, monitor] of this.#left) this.#take(property, monitor.after?.(operation, result), step);
  }

  atEnd(step: number): void {
    for (const [property, monitor] of this.#left) this.#take(property, monitor.atEnd?.(), step);
  }

  /** What nobody can go on after. */
  all(violation: Violation, step: number): void {
    for (const property of this.#left.keys()) this.#take(property, violation, step);
  }

  #take(property: Property, violation: Violation | null | undefined, step: number): void {
    if (violation === null || violation === undefined) return;
    this.findings.set(property, { ...violation, step });
    this.#left.delete(property);
  }
}

/** What an operation gives, or that it threw what no kernel function returns. */
function attempt(lab: Lab, operation: Operation): OperationResult | Violation {
  try {
    return withoutStacks(() => execute(lab, operation));
  } catch (error) {
    if (error instanceof CaseError) throw error;
    return { rule: CRASH, message: `${operation.op} threw ${String(error)}` };
  }
}

/** Tells the model; what it cannot follow should not have succeeded. */
function told(model: VmidModel, operation: Operation, result: OperationResult): Violation | null {
  try {
    model.apply(operation, result);
    return null;
  } catch (error) {
    if (error instanceof CaseError || !(error instanceof Error)) throw error;
    return { rule: IMPOSSIBLE, message: error.message };
  }
}

/** Collects what is announced of VMIDs; a call gives what has come since the last one. */
function vmidNotes(lab: Lab): () => readonly OwnershipNote[] {
  let notes: OwnershipNote[] = [];
  lab.kernel.onNote((note) => {
    if (note.what === 'vmid') notes.push(note);
  });
  return () => {
    const taken = notes;
    if (taken.length > 0) notes = [];
    return taken.length > 0 ? taken : NO_NOTES;
  };
}

const NO_NOTES: readonly OwnershipNote[] = [];

/** Extras that attach a sanitizer before anything runs, what it finds, and the one of the lab made last. */
export function sanitized(extras: LabExtras = {}): {
  readonly extras: LabExtras;
  readonly findings: readonly SanitizerFinding[];
  readonly sanitizer: () => Sanitizer | undefined;
} {
  const findings: SanitizerFinding[] = [];
  let made: Sanitizer | undefined;
  const withKernel: LabExtras['withKernel'] = (kernel, machine) => {
    const sanitizer = new Sanitizer(machine);
    sanitizer.onFinding = (finding) => findings.push(finding);
    kernel.onNote(sanitizer.announce);
    made = sanitizer;
    extras.withKernel?.(kernel, machine);
  };
  return { extras: { ...extras, withKernel }, findings, sanitizer: () => made };
}

/** A lab, or why the driver could not be started on it. @throws CaseError for a lab that cannot be */
export function makeLab(config: LabConfig, extras: LabExtras | undefined): Lab | Violation {
  try {
    return withoutStacks(() => new Lab(config, extras));
  } catch (error) {
    if (error instanceof CaseError) throw error;
    return { rule: CRASH, message: `starting the driver threw ${String(error)}` };
  }
}

/** Closes everything; what no kernel function throws is a finding. */
function closed(lab: Lab): Violation | null {
  lab.machine.conductor.schedule.operation('close');
  try {
    withoutStacks(() => lab.close());
    return null;
  } catch (error) {
    return { rule: CRASH, message: `close threw ${String(error)}` };
  }
}

/** The model of a lab; withoutPolicy: of one whose driver has a policy of its own. */
export function modelOf(lab: Lab, withoutPolicy = false): VmidModel {
  const smmuOf = new Map(lab.devices.map(({ name, smmu }) => [name, smmu]));
  const policy = withoutPolicy ? null : (lab.config.policy ?? 'at-attach');
  // A driver that never turns ATS on has nothing to do before a reset.
  const ats = lab.devices.some(({ dev }) => lab.ops.capable?.(dev, 'ats-not-supported') !== true);
  return new VmidModel({ policy, smmuOf, ats: lab.config.ats === true && ats });
}
