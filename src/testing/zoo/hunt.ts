/** Hunting a bug: the runs of a campaign on a stack that has it, until a property is broken. */
import { allowed, type CaseOptions } from '../arbitraries/case.ts';
import { type CampaignOptions, type FoundCase, type Line, linesOf, type RunRecord, unsteady } from '../campaign.ts';
import { type LabChoices, meet, only } from '../flavour.ts';
import { CaseError } from '../lab.ts';
import type { Property } from '../property.ts';
import { type Bug, infected } from './bug.ts';

/** Runs that a bug gets, unless told. */
export const HUNT_RUNS = 2000;

/** One of so many runs is a run of a property with cases of its own, if there are such and others. */
const OWN_EVERY = 5;

/** What became of a hunt. */
export interface Hunt {
  readonly bug: Bug;
  /** Runs until it was found, or all of them. */
  readonly runs: number;
  /** Operations of those runs. */
  readonly ops: number;
  /** Null: it was not found. */
  readonly catch: { readonly property: Property; readonly found: FoundCase } | null;
}

/** What has caught a bug: the property, and the rule if it has another name. */
export const caughtBy = (property: string, rule: string): string =>
  rule === property ? property : `${property} ${rule}`;

/** What to hunt with. */
export interface HuntOptions extends CampaignOptions {
  readonly properties: readonly Property[];
}

/** Where a bug exists. */
const habitat = ({ policies, presets, lab = {} }: Bug): LabChoices => ({
  ...only(lab),
  ...(policies === undefined ? {} : { policy: policies }),
  ...(presets === undefined ? {} : { preset: presets }),
});

/** Whether what is fixed leaves a bug no place to exist. */
export const excluded = (bug: Bug, fixed: CaseOptions): boolean => exclusion(bug, fixed) !== null;

/** What is fixed that excludes a bug; null: nothing. */
function exclusion(bug: Bug, fixed: CaseOptions): string | null {
  const wanted: readonly [string, readonly unknown[]][] = Object.entries(allowed(fixed) ?? {});
  const lives: Readonly<Record<string, readonly unknown[]>> = { ...habitat(bug) };
  for (const [key, values] of wanted) {
    const places = lives[key];
    if (places !== undefined && meet({ [key]: values }, { [key]: places }) === null)
      return `${bug.name} does not exist with ${key} ${values.join(', ')}: ${places.join(', ')}`;
  }
  return null;
}

/** The line that makes run i, and which of its runs that is: lines with cases of their own take turns among themselves. */
function turnOf(lines: readonly Line[], i: number): { readonly line: Line | undefined; readonly turn: number } {
  const [first, ...own] = lines;
  if (own.length === 0) return { line: first, turn: i };
  const round = Math.floor(i / OWN_EVERY);
  if (i % OWN_EVERY !== OWN_EVERY - 1) return { line: first, turn: i - round };
  return { line: own[round % own.length], turn: Math.floor(round / own.length) };
}

/** The properties that have cases where a bug exists. @throws CaseError if none has */
function askable(properties: readonly Property[], options: CampaignOptions): readonly Property[] {
  const left: Property[] = [];
  let why: unknown;
  for (const property of properties) {
    try {
      linesOf([property], options);
      left.push(property);
    } catch (error) {
      if (!(error instanceof CaseError)) throw error;
      why ??= error;
    }
  }
  if (left.length === 0) throw why;
  return left;
}

/** Which bug a run has caught, and how. */
export type Catch = NonNullable<Hunt['catch']>;

/** The runs of a hunt, one by one, in any order. */
export class Hunter {
  readonly bug: Bug;
  readonly #lines: readonly Line[];

  /** @throws CaseError if the options exclude the bug */
  constructor(bug: Bug, options: HuntOptions) {
    const { properties, fixed = {} } = options;
    const why = exclusion(bug, fixed);
    if (why !== null) throw new CaseError(why);
    const among = meet(fixed.among ?? {}, habitat(bug)) ?? {};
    const extras = infected(bug, options.extras);
    this.bug = bug;
    const where = { ...options, extras, fixed: { ...fixed, among } };
    this.#lines = linesOf(askable(properties, where), where);
  }

  /** Makes run i. */
  scan(i: number): RunRecord {
    const { line, turn } = turnOf(this.#lines, i);
    return line?.scan(turn) ?? { ops: 0, broken: [] };
  }

  /** What run i catches, shrunk; null: nothing. @throws Error if what it broke holds when it is made again */
  caught(i: number, { broken }: RunRecord): Catch | null {
    if (broken.length === 0) return null;
    const { line, turn } = turnOf(this.#lines, i);
    for (const property of line?.properties ?? []) {
      const found = broken.includes(property.name) ? line?.found(property, turn) : null;
      if (found !== null && found !== undefined) return { property, found: { ...found, run: i } };
    }
    throw unsteady(i, broken);
  }
}

/**
 * Hunts a bug until a property catches it or all runs are made. Cases are drawn from where it exists.
 * @throws CaseError if the options exclude the bug
 */
export function hunt(bug: Bug, options: HuntOptions): Hunt {
  const { runs, shard = { index: 0, of: 1 } } = options;
  const hunter = new Hunter(bug, options);
  let made = 0;
  let ops = 0;
  for (let i = shard.index; i < runs; i += shard.of) {
    const record = hunter.scan(i);
    made++;
    ops += record.ops;
    const caught = hunter.caught(i, record);
    if (caught !== null) return { bug, runs: made, ops, catch: caught };
  }
  return { bug, runs: made, ops, catch: null };
}
