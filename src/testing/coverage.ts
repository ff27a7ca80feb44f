/** What a campaign exercised: configurations, operations and how they ended, and what hardware and software did. */
import type { Sanitizer } from '../sanitizer/index.ts';
import { bump, type Counts, sorted } from './counts.ts';
import { FEATURE, noFeatures } from './covered/features.ts';
import { CMDQV_STATES, COMMAND_LIST, EVENT_LIST, edge, MODES, VMID_STATES } from './covered/lists.ts';
import { hadSubject, propertySubject, RULE_SUBJECTS } from './covered/rules.ts';
import { Counters, Watch } from './covered/watch.ts';
import type { Lab, LabConfig } from './lab.ts';
import type { Operation, OperationResult } from './operations.ts';
import type { Property } from './property.ts';

/** What is counted, in the order in which it is shown. */
export const COVERAGE_KINDS = [
  'policies',
  'presets',
  'vmidBits',
  'schedules',
  'flavours',
  'operations',
  'errnos',
  'failures',
  'commands',
  'events',
  'streams',
  'vmids',
  'cmdqv',
  'rules',
] as const;

/**
 * Kinds of what is counted. policies, presets, vmidBits, schedules, flavours: cases that had it. operations: those that
 * succeeded. errnos: `hwptAlloc ENOSPC`, operations that failed. failures: points of the kernel that were made to fail.
 * commands, events: those that SMMUs took from their queues, and recorded. streams: steps from one mode to another
 * (`bypass to S2`). vmids: steps of a VMID's life (`FREE to ALLOCATED`). cmdqv: what VINTFs and VCMDQs did. rules: cases
 * in which a property, or a rule of the sanitizer, had something to judge.
 */
export type CoverageKind = (typeof COVERAGE_KINDS)[number];

/** {@link Coverage} as data. */
export type CoverageReport = Readonly<Record<CoverageKind, Counts>>;

/** Names that could be covered, by kind. */
export type Coverable = Readonly<Partial<Record<CoverageKind, readonly string[]>>>;

type Maps = Record<CoverageKind, Map<string, number>>;

const none = (): Maps => Object.fromEntries(COVERAGE_KINDS.map((kind) => [kind, new Map()])) as Maps;

/** See the module comment. */
export class Coverage {
  readonly #maps = none();
  /** Operations that failed, by errno. */
  readonly #errors = new Map<string, Map<string, number>>();
  readonly #counters = new Counters();
  readonly #rules = new Float64Array(RULE_SUBJECTS.length);
  /** What has happened in the present case, and who watched it. */
  readonly #seen = noFeatures();
  #watched = false;
  #properties: readonly Property[] = [];

  /** A case begins: a lab is made. */
  config({ policy, preset, vmidBits, schedule }: LabConfig): void {
    this.#close();
    const maps = this.#maps;
    if (policy !== undefined) bump(maps.policies, policy);
    bump(maps.presets, preset ?? 'linuxNesting');
    bump(maps.vmidBits, String(vmidBits ?? 'preset'));
    bump(maps.schedules, schedule?.mode ?? 'eager');
    if (schedule?.mode === 'seeded') this.#seen[FEATURE['weak stores']] = 1;
  }

  /** What the case was drawn from. */
  flavour(name: string): void {
    bump(this.#maps.flavours, name);
  }

  /** A lab is there, with a sanitizer if one watches it. properties: those that are asked. */
  attach(lab: Lab, sanitizer?: Sanitizer, properties: readonly Property[] = []): void {
    this.#watched = sanitizer !== undefined;
    this.#properties = properties;
    const watch = new Watch(lab, this.#counters, this.#seen, sanitizer);
    lab.kernel.onNote(watch.note);
    lab.kernel.onFailure = (point) => bump(this.#maps.failures, point);
  }

  /** An operation ended. */
  step({ op }: Operation, result: OperationResult): void {
    if (result.status === 'ok') bump(this.#maps.operations, op);
    else if (result.status === 'error') {
      const errnos = this.#errors.get(op) ?? new Map<string, number>();
      this.#errors.set(op, errnos);
      bump(errnos, result.errno);
      this.#seen[FEATURE['error result']] = 1;
    }
  }

  /** The present case is over: which rules had a subject in it? */
  #close(): void {
    const seen = this.#seen;
    if (this.#watched)
      for (const [i, [, wanted]] of RULE_SUBJECTS.entries())
        if (hadSubject(seen, wanted)) this.#rules[i] = (this.#rules[i] ?? 0) + 1;
    for (const { name } of this.#properties) if (hadSubject(seen, propertySubject(name))) bump(this.#maps.rules, name);
    seen.fill(0);
    this.#watched = false;
    this.#properties = [];
  }

  /** Adds the numbers of another campaign. */
  add(report: CoverageReport): void {
    for (const kind of COVERAGE_KINDS)
      for (const [key, count] of Object.entries(report[kind])) bump(this.#maps[kind], key, count);
  }

  /** The numbers so far, with a 0 for what could be covered and was not. Names are sorted. */
  report(coverable: Coverable = {}): CoverageReport {
    this.#close();
    const maps = none();
    for (const kind of COVERAGE_KINDS) {
      for (const name of coverable[kind] ?? []) maps[kind].set(name, 0);
      for (const [name, count] of this.#maps[kind]) bump(maps[kind], name, count);
    }
    for (const [op, errnos] of this.#errors) for (const [errno, n] of errnos) bump(maps.errnos, `${op} ${errno}`, n);
    this.#counted(maps);
    return Object.fromEntries(COVERAGE_KINDS.map((kind) => [kind, sorted(maps[kind])])) as CoverageReport;
  }

  /** What stands in arrays. */
  #counted(maps: Maps): void {
    const { commands, cfgiAll, events, modes, vmids, cmdqv } = this.#counters;
    const put = (kind: CoverageKind, name: string, count = 0): void => {
      if (count > 0) bump(maps[kind], name, count);
    };
    put('commands', 'CMD_CFGI_ALL', cfgiAll);
    for (const { name, opcode } of COMMAND_LIST)
      put('commands', name, (commands[opcode] ?? 0) - (name === 'CMD_CFGI_STE_RANGE' ? cfgiAll : 0));
    for (const { name, number } of EVENT_LIST) put('events', name, events[number]);
    for (const [i, from] of MODES.entries())
      for (const [j, to] of MODES.entries()) put('streams', edge(from, to), modes[i * MODES.length + j]);
    for (const [i, from] of VMID_STATES.entries())
      for (const [j, to] of VMID_STATES.entries()) put('vmids', edge(from, to), vmids[i * VMID_STATES.length + j]);
    for (const [i, name] of CMDQV_STATES.entries()) put('cmdqv', name, cmdqv[i]);
    for (const [i, [id]] of RULE_SUBJECTS.entries()) put('rules', id, this.#rules[i]);
  }
}
