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
import type { Counts } from './coverage.ts';
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

/** A property that was broken in a run. */
export interface Caught {
  readonly property: Property;
  readonly found: FoundCase;
}

/** What has become of a property so far. */
interface Tally {
  readonly property: Property;
  runs: number;
  ops: number;
  found: FoundCase | null;
  readonly apart: Map<string, number>;
}

/** A sequence of runs, and the properties that are asked on each until they are broken. */
export abstract class Line {
  readonly options: CampaignOptions;
  readonly #tallies: readonly Tally[];

  constructor(properties: readonly Property[], options: CampaignOptions) {
    this.options = options;
    this.#tallies = properties.map((property) => ({ property, runs: 0, ops: 0, found: null, apart: new Map() }));
  }

  /** What run i is drawn from, and the seed of the draw. */
  protected abstract drawn(i: number): { readonly arbitrary: fc.Arbitrary<LabCase>; readonly seed: string };
  protected abstract ask(properties: readonly Property[], one: LabCase): Answers;

  /** Nobody is left to be asked. */
  get done(): boolean {
    return this.#tallies.every(({ found }) => found !== null);
  }

  /**
   * Makes run i. A property that it breaks is not asked again; its case is shrunk with it alone.
   * @param most of so many properties at most
   */
  run(i: number, most = Number.POSITIVE_INFINITY): readonly Caught[] {
    const asked = this.#tallies.filter(({ found }) => found === null);
    if (asked.length === 0) return [];
    const { arbitrary, seed } = this.drawn(i);
    const one = draw(arbitrary, seed);
    const { findings, ops, apart } = this.ask(
      asked.map(({ property }) => property),
      one.value,
    );
    const caught: Caught[] = [];
    for (const tally of asked) {
      tally.runs++;
      tally.ops += ops;
      if (apart !== undefined) tally.apart.set(apart, (tally.apart.get(apart) ?? 0) + 1);
      if (!findings.has(tally.property) || caught.length >= most) continue;
      tally.found = this.#found(tally.property, i, arbitrary, one);
      if (tally.found !== null) caught.push({ property: tally.property, found: tally.found });
    }
    if (findings.size > 0 && caught.length === 0)
      throw new Error(`run ${i} breaks ${[...findings.keys()].map(({ name }) => name).join(', ')} only now and then`);
    return caught;
  }

  /** The case shrunk; null: alone the property holds, so what broke was another one's watcher. */
  #found(property: Property, run: number, arbitrary: fc.Arbitrary<LabCase>, one: fc.Value<LabCase>): FoundCase | null {
    // Only drawn cases count, not the many in which they are shrunk.
    const { coverage: _, ...rest } = this.options;
    const fails = (attempt: LabCase): boolean => runCase(property, attempt, rest).finding !== null;
    if (!fails(one.value)) return null;
    const least = reduceCase(shrink(arbitrary, one, fails), fails);
    const { finding } = runCase(property, least, rest);
    if (finding === null) throw new Error(`run ${run} breaks ${property.name} only now and then`);
    return { run, finding, case: least, drawnOps: one.value.steps.length };
  }

  /** What has become of each property. */
  get reports(): readonly PropertyReport[] {
    return this.#tallies.map(({ property: { name }, runs, ops, found, apart }) => ({
      name,
      ok: found === null,
      runs,
      ops,
      findings: found === null ? [] : [found],
      ...(apart.size === 0 ? {} : { apart: Object.fromEntries([...apart].sort()) }),
    }));
  }
}

/** Monitors, all asked on the same cases. */
class MonitorLine extends Line {
  readonly #turns: readonly FittingFlavour[];

  constructor(properties: readonly Property[], options: CampaignOptions) {
    super(properties, options);
    const { flavours = FLAVOURS, fixed } = options;
    this.#turns = fittingFlavours(flavours, fixed).flatMap((one) => Array.from({ length: one.share }, () => one));
  }

  /** Flavours take turns, each round from another one on: in any sequence of runs each has its share. */
  protected override drawn(i: number) {
    const { seed } = this.options;
    const { length } = this.#turns;
    const first = hashString(`${seed} round ${Math.floor(i / length)}`) >>> 0;
    const turn = this.#turns[(first + i) % length];
    if (turn === undefined) throw new Error('a campaign has at least one flavour');
    this.options.coverage?.flavour(turn.flavour.name);
    return { arbitrary: turn.arbitrary, seed: `${seed} ${turn.flavour.name} ${i}` };
  }

  protected override ask(properties: readonly Property[], one: LabCase): Answers {
    return askAll(properties, one, this.options);
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

  protected override drawn(i: number) {
    return { arbitrary: this.#arbitrary, seed: `${this.options.seed} ${this.#property.name} ${i}` };
  }

  protected override ask(_: readonly Property[], one: LabCase): Answers {
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
