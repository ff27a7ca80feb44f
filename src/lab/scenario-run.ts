/** Running a scenario: each step done, told, and held against what it expects and against the properties. */
import { slotValue, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import type { OwnershipNote } from '../driver/kernel.ts';
import { makeLab, modelOf, sanitized } from '../testing/case.ts';
import { CaseError, Lab, type LabConfig, type LabExtras } from '../testing/lab.ts';
import { execute, type Operation, type OperationResult } from '../testing/operations.ts';
import { PROPERTIES } from '../testing/properties/index.ts';
import type { Monitor, Property, Violation } from '../testing/property.ts';
import { forEachTranslatingSte } from '../testing/stes.ts';
import { noteTexts, operationText, resultText } from '../testing/story.ts';
import { type Check, caseOf, isCheck, type Scenario, ScenarioError, type ScenarioStep } from './scenario.ts';

/** What became of one step. */
export interface StepOutcome {
  /** Counted from 1; 0 is the start of the driver, where that failed. */
  readonly step: number;
  /** The operation as a call. */
  readonly text: string;
  /** How it ended, and who took or freed a VMID meanwhile. */
  readonly said: readonly string[];
  readonly note?: string;
  /** What was expected and is not so; absent: all as expected. */
  readonly failed?: string;
  /** A rule that is broken from this step on. */
  readonly broken?: Violation;
}

/** What became of a scenario. */
export interface ScenarioResult {
  readonly ok: boolean;
  readonly machine: LabConfig;
  readonly steps: readonly StepOutcome[];
  /** Every expectation that failed and rule that broke, in order. */
  readonly findings: readonly (Violation & { readonly step: number })[];
}

/** Name of the rule that a failed expectation breaks. */
const EXPECTATION = 'expectation';

/** The properties of a scenario: those it names, or all. @throws ScenarioError for an unknown one */
function propertiesOf({ properties }: Scenario): readonly Property[] {
  return (
    properties?.map((name) => {
      const found = PROPERTIES.find((one) => one.name === name);
      if (found === undefined)
        throw new ScenarioError(
          `properties: there is no property ${name}; there are ${PROPERTIES.map((one) => one.name).join(', ')}`,
        );
      return found;
    }) ?? PROPERTIES
  );
}

/**
 * Runs a scenario to its end; a broken rule is told once, at the step where it broke.
 * @param machine settings that replace the scenario's own
 * @throws CaseError, ScenarioError for a scenario that names what its machine does not have
 */
export function runScenario(scenario: Scenario, machine: LabConfig = {}, extras: LabExtras = {}): ScenarioResult {
  const config = { ...scenario.machine, ...machine };
  try {
    return new Run(scenario, config, extras).all();
  } catch (error) {
    if (!(error instanceof NotStarted)) throw error;
    const start = { step: 0, text: 'start', said: [], broken: error.violation };
    return { ok: false, machine: config, steps: [start], findings: [{ step: 0, ...error.violation }] };
  }
}

/** There is no lab: a driver of one's own could not be started. */
class NotStarted extends Error {
  override readonly name = 'NotStarted';
  readonly violation: Violation;

  constructor(violation: Violation) {
    super(violation.message);
    this.violation = violation;
  }
}

class Run {
  readonly #scenario: Scenario;
  readonly #config: LabConfig;
  readonly #extras: LabExtras;
  readonly #lab: Lab;
  readonly #model;
  #monitors: (Monitor & { readonly property: string })[];
  #notes: OwnershipNote[] = [];
  readonly #outcomes: StepOutcome[] = [];
  readonly #findings: (Violation & { readonly step: number })[] = [];
  readonly #events = new Map<string, number>();

  constructor(scenario: Scenario, config: LabConfig, extras: LabExtras) {
    this.#scenario = scenario;
    this.#config = config;
    this.#extras = extras;
    const watch = sanitized(extras);
    const made = makeLab(config, {
      ...watch.extras,
      observer: (act) => {
        if (act.kind === 'event' && act.result === 'written')
          this.#events.set(act.smmu, (this.#events.get(act.smmu) ?? 0) + 1);
        extras.observer?.(act);
      },
    });
    if (!(made instanceof Lab)) throw new NotStarted(made);
    this.#lab = made;
    this.#lab.kernel.onNote((note) => {
      if (note.what === 'vmid') this.#notes.push(note);
    });
    const lab = this.#lab;
    const foreign = extras.driver !== undefined && config.policy === undefined;
    const model = modelOf(lab, foreign);
    this.#model = model;
    this.#monitors = propertiesOf(scenario)
      .filter((one) => one.foreign || !foreign)
      .map((property) => monitorOf(property, property.monitor({ lab, model, findings: watch.findings })));
  }

  all(): ScenarioResult {
    const { schedule } = this.#lab.machine.conductor;
    for (const [i, step] of this.#scenario.steps.entries()) {
      schedule.operation(`op ${step.id ?? i + 1}`);
      this.#notes = [];
      this.#outcomes.push(this.#step(i + 1, step));
    }
    this.#close(this.#scenario.steps.length + 1);
    this.#runs(this.#scenario.steps.length + 2, this.#extras);
    return {
      ok: this.#findings.length === 0,
      machine: this.#config,
      steps: this.#outcomes,
      findings: this.#findings,
    };
  }

  #step(number: number, { operation, expect, note }: ScenarioStep): StepOutcome {
    const noted = note === undefined ? {} : { note };
    if (isCheck(operation)) {
      let failed: string | null;
      try {
        failed = this.#look(operation);
      } catch (error) {
        if (error instanceof CaseError) throw new CaseError(`step ${number}: ${error.message}`);
        throw error;
      }
      return { step: number, text: checkText(operation), said: [], ...noted, ...this.#judge(number, failed, null) };
    }
    let result: OperationResult;
    try {
      for (const monitor of this.#monitors) monitor.before?.(operation);
      result = execute(this.#lab, operation);
    } catch (error) {
      if (error instanceof CaseError) throw new CaseError(`step ${number}: ${error.message}`);
      const broken = { rule: 'crash', message: `${operation.op} threw ${String(error)}` };
      return { step: number, text: operationText(operation), said: [], ...noted, ...this.#judge(number, null, broken) };
    }
    this.#model.apply(operation, result);
    const failed = this.#unexpected(operation, expect, result);
    const broken = this.#ask((monitor) => monitor.after?.(operation, result) ?? null);
    const said = [resultText(result), ...noteTexts(this.#notes)].filter((text) => text !== '');
    return { step: number, text: operationText(operation), said, ...noted, ...this.#judge(number, failed, broken) };
  }

  /** Files what is wrong with a step. */
  #judge(step: number, failed: string | null, broken: Violation | null): { failed?: string; broken?: Violation } {
    if (failed !== null) this.#findings.push({ step, rule: EXPECTATION, message: failed });
    if (broken !== null) this.#findings.push({ step, ...broken });
    return { ...(failed === null ? {} : { failed }), ...(broken === null ? {} : { broken }) };
  }

  /** The first rule that is broken. A monitor that has spoken is not asked again. */
  #ask(question: (monitor: Monitor) => Violation | null): Violation | null {
    for (const monitor of this.#monitors) {
      const violation = question(monitor);
      if (violation === null) continue;
      this.#monitors = this.#monitors.filter((one) => one !== monitor);
      return violation;
    }
    return null;
  }

  /** Properties that run a case in a way of their own, where the scenario names them. */
  #runs(step: number, extras: LabExtras): void {
    const one = { ...caseOf(this.#scenario), config: this.#config };
    for (const property of propertiesOf(this.#scenario)) {
      if (property.run === undefined || this.#scenario.properties === undefined) continue;
      const { finding } = property.run(one, { extras });
      if (finding === null) continue;
      const text = `${property.name}: both runs compared`;
      this.#outcomes.push({ step, text, said: [], ...this.#judge(step, null, finding) });
    }
  }

  #close(step: number): void {
    this.#notes = [];
    this.#lab.machine.conductor.schedule.operation('close');
    let broken: Violation | null = null;
    try {
      this.#lab.close();
    } catch (error) {
      broken = { rule: 'crash', message: `close threw ${String(error)}` };
    }
    broken ??= this.#ask((monitor) => monitor.atEnd?.() ?? null);
    this.#outcomes.push({ step, text: 'close', said: noteTexts(this.#notes), ...this.#judge(step, null, broken) });
  }

  #unexpected(operation: Operation, expect: ScenarioStep['expect'], result: OperationResult): string | null {
    const wanted = typeof expect === 'string' ? expect : expect?.[this.#config.policy ?? 'at-attach'];
    if (wanted === undefined) return null;
    const got = outcomes(operation, result);
    return got.includes(wanted) ? null : `expected ${wanted}, got ${got[0] ?? 'nothing'}`;
  }

  #look(check: Check): string | null {
    switch (check.op) {
      case 'ste':
        return this.#ste(check.dev, check.fields);
      case 'vmids':
        return this.#vmids(check);
      case 'holders': {
        const smmu = this.#smmu(check.smmu);
        const found = [...new Set(smmu.vmidHolders(check.vmid).map(({ kind }) => kind))].sort().join(', ');
        const wanted = [...(check.kinds ?? [])].sort().join(', ');
        return found === wanted
          ? null
          : `VMID ${check.vmid} is named by ${found || 'nothing'}, expected ${wanted || 'nothing'}`;
      }
      case 'events': {
        // A record that waits for its write is an event too.
        this.#lab.machine.drain();
        const count = this.#events.get(this.#smmu(check.smmu).name) ?? 0;
        return count === check.count ? null : `${check.smmu} has recorded ${count} events, expected ${check.count}`;
      }
    }
  }

  #smmu(name: string) {
    const found = this.#lab.machine.smmus.find((one) => one.name === name);
    if (found === undefined)
      throw new CaseError(`no SMMU ${name}; there are ${this.#lab.machine.smmus.map((one) => one.name).join(', ')}`);
    return found;
  }

  /** The STE of a device in memory; undefined: nothing translates. */
  #steOf(name: string): Words | undefined {
    const { smmu, sid } = this.#lab.device(name);
    let found: Words | undefined;
    forEachTranslatingSte(this.#lab.machine.memory, this.#smmu(smmu), (at, ste) => {
      if (at === sid) found = ste.slice();
    });
    return found;
  }

  #ste(name: string, fields: Readonly<Record<string, string | number>>): string | null {
    const ste = this.#steOf(name);
    if (ste === undefined) {
      const off = Object.keys(fields).length === 1 && (fields.Config === 'ABORT' || fields.Config === 'BYPASS');
      return off ? null : `the STE of ${name} does not translate`;
    }
    for (const [field, wanted] of Object.entries(fields)) {
      if (!isSteField(field)) throw new CaseError(`an STE has no field ${field}`);
      const value = STE.get(ste, field);
      const text = typeof wanted === 'number' ? BigInt(wanted) : wanted;
      if (text !== value && text !== STE.valueName(field, value))
        return `STE.${field} of ${name} is ${STE.valueName(field, value) ?? value}, expected ${wanted}`;
    }
    return null;
  }

  #vmids({ same = [], different = [], owned = {} }: Extract<Check, { op: 'vmids' }>): string | null {
    const of = (names: readonly string[]): (number | undefined)[] =>
      names.map((name) => {
        const ste = this.#steOf(name);
        return ste === undefined ? undefined : slotValue(ste, S2VMID);
      });
    const text = (names: readonly string[]): string =>
      of(names)
        .map((vmid, i) => `${names[i]} ${vmid ?? 'none'}`)
        .join(', ');
    if (same.length > 0 && (new Set(of(same)).size > 1 || of(same).includes(undefined)))
      return `expected one VMID: ${text(same)}`;
    if (different.length > 0 && (new Set(of(different)).size < different.length || of(different).includes(undefined)))
      return `expected a VMID each: ${text(different)}`;
    for (const [smmu, wanted] of Object.entries(owned)) {
      const taken = this.#lab.ledger.taken(this.#smmu(smmu).name);
      if (taken.length !== wanted) return `${taken.length} VMIDs of ${smmu} are owned, expected ${wanted}`;
    }
    return null;
  }
}

const S2VMID = STE.slot('S2VMID');

const isSteField = (name: string): name is keyof typeof STE.fields => Object.hasOwn(STE.fields, name);

const monitorOf = (property: Property, monitor: Monitor): Monitor & { readonly property: string } => ({
  property: property.name,
  before: (operation) => monitor.before?.(operation),
  after: (operation, result) => monitor.after?.(operation, result) ?? null,
  atEnd: () => monitor.atEnd?.() ?? null,
});

/** Calls that give something when they succeed: `ok` says that they did. */
const GIVING: ReadonlySet<Operation['op']> = new Set<Operation['op']>([
  'svaBind',
  'dirtyRead',
  'faultRead',
  'veventRead',
  'kexec',
]);

/** What an expectation may say of a result; the first is what is shown. */
function outcomes({ op }: Operation, result: OperationResult): string[] {
  if (result.status === 'error')
    return result.entries === undefined ? [result.errno] : [result.errno, `${result.errno}:${result.entries}`];
  if (result.status === 'skipped') return ['skipped'];
  const { dma, saw } = result;
  // What a guest saw, whole or its first word: error:CERROR_ILL, error.
  if (saw !== undefined)
    return [
      saw,
      ...(saw.match(/^\w+(:\w+)?/) ?? []).slice(0, 1),
      saw.replace(/\W.*/, ''),
      ...(GIVING.has(op) ? ['ok'] : []),
    ];
  if (dma === undefined) return ['ok'];
  const { vm, mm } = dma;
  if (vm === undefined && mm === undefined) return [dma.status];
  return [`${dma.old ? 'old-' : ''}${vm === undefined ? `mm${mm}` : `vm${vm}`}:${dma.page}`, dma.status];
}

/** A step that looks, as one line. */
function checkText(check: Check): string {
  switch (check.op) {
    case 'ste':
      return `ste(${check.dev}: ${Object.entries(check.fields)
        .map(([name, value]) => `${name} ${value}`)
        .join(', ')})`;
    case 'vmids':
      return `vmids(${[
        ...(check.same === undefined ? [] : [`${check.same.join(' = ')}`]),
        ...(check.different === undefined ? [] : [`${check.different.join(' != ')}`]),
        ...Object.entries(check.owned ?? {}).map(([smmu, count]) => `${count} owned of ${smmu}`),
      ].join(', ')})`;
    case 'holders':
      return `holders(${check.smmu} VMID ${check.vmid}: ${check.kinds?.join(', ') ?? 'none'})`;
    case 'events':
      return `events(${check.smmu}: ${check.count})`;
  }
}
