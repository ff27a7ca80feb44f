/**
 * Many runs, and what to do with one that fails. Properties that are monitors are all asked on the same cases; one with
 * cases or a run of its own has a line of its own. Run i of a line depends on (seed, i) alone: not on what ran before, nor
 * on which properties are asked.
 */
import type fc from 'fast-check';
import { hashString } from '../hw/schedule.ts';
import { type CaseOptions, type FittingFlavour, fittingFlavours, flavoursOf, labCase } from './arbitraries/case.ts';
import { draw, shrink } from './arbitraries/draw.ts';
import { type Answers, askAll, type Finding, type LabCase, type RunOptions, runCase } from './case.ts';
import { bump, type Counts, sorted } from './counts.ts';
import type { Flavour } from './flavour.ts';
import { FLAVOURS } from './flavours/index.ts';
import type { Property } from './property.ts';
import { reduceCase } from './reduce.ts';

/** A failing run, shrunk. */
export interface FoundCase {
  /** Number of the run. */
  readonly run: number;
  readonly finding: Finding;
  readonly case: LabCase;
  /** Operations of the case as it was drawn. */
  readonly drawnOps: number;
}

/** What became of one property. */
export interface PropertyReport {
  readonly name: string;
  readonly ok: boolean;
  /** Runs on which it was asked, the one that broke it included. */
  readonly runs: number;
  /** Operations of those runs. */
  readonly ops: number;
  readonly findings: readonly FoundCase[];
  /** Runs that are counted apart, by the reason; absent: none. */
  readonly apart?: Counts;
}

/** How a campaign is run. */
export interface CampaignOptions extends RunOptions {
  /** An integer of 32 bits. */
  readonly seed: number;
  /** Runs to make of each line. */
  readonly runs: number;
  /** What is fixed of each case. */
  readonly fixed?: CaseOptions;
  /** Which of every `of` runs: those with i mod of = index. Default all. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** What is drawn. Default: all flavours of the package. */
  readonly flavours?: readonly Flavour[];
  /** Told after each run. */
  readonly progress?: (run: number) => void;
}

/** What one run of a line gave. */
export interface RunRecord {
  readonly ops: number;
  /** Why the run is counted apart; absent: it is not. */
  readonly apart?: string;
  /** Names of the properties that it broke. */
  readonly broken: readonly string[];
}

/** What has become of a property so far. */
interface Tally {
  readonly name: string;
  runs: number;
  ops: number;
  found: FoundCase | null;
  readonly apart: Map<string, number>;
}

/** What has become of some properties, told run after run. A property is counted up to the run that broke it first. */
export class Score {
  readonly #tallies: readonly Tally[];

  constructor(names: readonly string[]) {
    this.#tallies = names.map((name) => ({ name, runs: 0, ops: 0, found: null, apart: new Map() }));
  }

  /** Every property is broken. */
  get done(): boolean {
    return this.#tallies.every(({ found }) => found !== null);
  }

  /** Takes the next run. The names of those that it seems to be the first to break: {@link settle} says whether it is. */
  take({ ops, apart, broken }: RunRecord): readonly string[] {
    const whole = this.#tallies.filter(({ found }) => found === null);
    for (const tally of whole) {
      tally.runs++;
      tally.ops += ops;
      if (apart !== undefined) bump(tally.apart, apart);
    }
    return whole.map(({ name }) => name).filter((name) => broken.includes(name));
  }

  /** The run that was taken last has broken a property. */
  settle(name: string, found: FoundCase): void {
    const tally = this.#tallies.find((one) => one.name === name);
    if (tally !== undefined) tally.found = found;
  }

  /**
   * Asks whether a run that broke something has settled anything.
   * @param first what {@link take} gave for it
   * @throws Error if none of what it broke was broken when asked alone
   */
  sure(i: number, first: readonly string[], { broken }: RunRecord): void {
    const settled = this.#tallies.filter(({ found }) => found !== null).map(({ name }) => name);
    if (first.length > 0 && !broken.some((name) => settled.includes(name))) throw unsteady(i, first);
  }

  /** What has become of each property. */
  get reports(): readonly PropertyReport[] {
    return this.#tallies.map(({ name, runs, ops, found, apart }) => ({
      name,
      ok: found === null,
      runs,
      ops,
      findings: found === null ? [] : [found],
      ...(apart.size === 0 ? {} : { apart: sorted(apart) }),
    }));
  }
}

/** What a run is drawn from. */
interface Drawn {
  readonly arbitrary: fc.Arbitrary<LabCase>;
  /** Seed of the draw. */
  readonly seed: string;
  readonly flavour?: string;
}

/**
 * A sequence of runs, and the properties that are asked on each. A property that is broken is asked on: what a run does
 * must not depend on the runs before it.
 */
export abstract class Line {
  readonly options: CampaignOptions;
  readonly properties: readonly Property[];
  readonly #score: Score;

  constructor(properties: readonly Property[], options: CampaignOptions) {
    this.options = options;
    this.properties = properties;
    this.#score = new Score(properties.map(({ name }) => name));
  }

  protected abstract drawn(i: number): Drawn;
  protected abstract ask(one: LabCase): Answers;

  /** Every property is broken. */
  get done(): boolean {
    return this.#score.done;
  }

  /** Makes run i. */
  scan(i: number): RunRecord {
    const { arbitrary, seed, flavour } = this.drawn(i);
    if (flavour !== undefined) this.options.coverage?.flavour(flavour);
    const { findings, ops, apart } = this.ask(draw(arbitrary, seed).value);
    const broken = [...findings.keys()].map(({ name }) => name);
    return { ops, broken, ...(apart === undefined ? {} : { apart }) };
  }

  /** The case of run i shrunk; null: asked alone the property holds, so what broke was another one's watcher. */
  found(property: Property, i: number): FoundCase | null {
    // Only drawn cases count, not the many in which they are shrunk.
    const { coverage: _, ...rest } = this.options;
    const { arbitrary, seed } = this.drawn(i);
    const one = draw(arbitrary, seed);
    const fails = (attempt: LabCase): boolean => runCase(property, attempt, rest).finding !== null;
    if (!fails(one.value)) return null;
    const least = reduceCase(shrink(arbitrary, one, fails), fails);
    const { finding } = runCase(property, least, rest);
    if (finding === null) throw new Error(`run ${i} breaks ${property.name} only now and then`);
    return { run: i, finding, case: least, drawnOps: one.value.steps.length };
  }

  /** Makes run i and counts it. A property that it is the first to break has its case shrunk, with it alone. */
  run(i: number): void {
    const { properties } = this;
    const record = this.scan(i);
    const first = this.#score.take(record);
    for (const name of first) {
      const property = properties.find((one) => one.name === name);
      const found = property === undefined ? null : this.found(property, i);
      if (found !== null) this.#score.settle(name, found);
    }
    this.#score.sure(i, first, record);
  }

  /** What has become of each property. */
  get reports(): readonly PropertyReport[] {
    return this.#score.reports;
  }
}

/** A run whose properties hold when they are asked alone, all of them. */
export const unsteady = (i: number, names: readonly string[]): Error =>
  new Error(`run ${i} breaks ${names.join(', ')} only now and then`);

/** Monitors, all asked on the same cases. */
class MonitorLine extends Line {
  readonly #turns: readonly FittingFlavour[];

  constructor(properties: readonly Property[], options: CampaignOptions) {
    super(properties, options);
    const { flavours = FLAVOURS, fixed } = options;
    this.#turns = fittingFlavours(flavours, fixed).flatMap((one) => Array.from({ length: one.share }, () => one));
  }

  /** Flavours take turns, each round from another one on: in any sequence of runs each has its share. */
  protected override drawn(i: number): Drawn {
    const { seed } = this.options;
    const { length } = this.#turns;
    const first = hashString(`${seed} round ${Math.floor(i / length)}`) >>> 0;
    const turn = this.#turns[(first + i) % length];
    if (turn === undefined) throw new Error('a campaign has at least one flavour');
    const { name } = turn.flavour;
    return { arbitrary: turn.arbitrary, seed: `${seed} ${name} ${i}`, flavour: name };
  }

  protected override ask(one: LabCase): Answers {
    return askAll(this.properties, one, this.options);
  }
}

/** A property with cases of its own. */
class OwnLine extends Line {
  readonly #property: Property;
  readonly #arbitrary: fc.Arbitrary<LabCase>;

  constructor(property: Property, options: CampaignOptions) {
    super([property], options);
    this.#property = property;
    this.#arbitrary = labCase(property, options.fixed);
  }

  protected override drawn(i: number): Drawn {
    return { arbitrary: this.#arbitrary, seed: `${this.options.seed} ${this.#property.name} ${i}` };
  }

  protected override ask(one: LabCase): Answers {
    const { finding, ...rest } = runCase(this.#property, one, this.options);
    return { ...rest, findings: new Map(finding === null ? [] : [[this.#property, finding]]) };
  }
}

/** The lines of some properties: first the one of all monitors, if there are any. @throws CaseError as `labCase` */
export function linesOf(properties: readonly Property[], options: CampaignOptions): readonly Line[] {
  const monitors = properties.filter((one) => !hasOwnLine(one));
  const own = properties.filter(hasOwnLine);
  return [
    ...(monitors.length === 0 ? [] : [new MonitorLine(monitors, options)]),
    ...own.map((property) => new OwnLine(property, options)),
  ];
}

const hasOwnLine = ({ cases, run }: Property): boolean => cases !== undefined || run !== undefined;

/**
 * Makes all runs, or fewer if every property is broken before. The reports are in the order of the properties.
 * @throws CaseError for options that exclude everything that could be drawn
 */
export function runCampaign(properties: readonly Property[], options: CampaignOptions): PropertyReport[] {
  const { runs, shard = { index: 0, of: 1 }, progress } = options;
  const lines = linesOf(properties, options);
  for (let i = shard.index; i < runs && lines.some(({ done }) => !done); i += shard.of) {
    for (const line of lines) line.run(i);
    progress?.(i);
  }
  const reports = new Map(lines.flatMap(({ reports }) => reports.map((report) => [report.name, report])));
  return properties.flatMap(({ name }) => reports.get(name) ?? []);
}

/** The same for one property; if it has weights, its cases are drawn by them. */
export function runProperty(property: Property, options: CampaignOptions): PropertyReport {
  const [report] = runCampaign([property], { flavours: flavoursOf(property), ...options });
  if (report === undefined) throw new Error(`no report of ${property.name}`);
  return report;
}
