/** Hunting a bug: the runs of a campaign on a stack that has it, until a property is broken. */
import { allowed, type CaseOptions } from '../arbitraries/case.ts';
import { type CampaignOptions, type FoundCase, type Line, linesOf } from '../campaign.ts';
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

/**
 * Hunts a bug until a property catches it or all runs are made. Cases are drawn from where it exists.
 * @throws CaseError if the options exclude the bug
 */
export function hunt(bug: Bug, options: HuntOptions): Hunt {
  const { properties, runs, fixed = {} } = options;
  const why = exclusion(bug, fixed);
  if (why !== null) throw new CaseError(why);
  const among = meet(fixed.among ?? {}, habitat(bug)) ?? {};
  const extras = infected(bug, options.extras);
  const lines = linesOf(properties, { ...options, extras, fixed: { ...fixed, among } });
  for (let i = 0; i < runs; i++) {
    const { line, turn } = turnOf(lines, i);
    const [caught] = line?.run(turn, 1) ?? [];
    if (caught !== undefined) return { bug, runs: i + 1, ops: opsOf(lines), catch: caught };
  }
  return { bug, runs, ops: opsOf(lines), catch: null };
}

/** Operations of all cases of some lines. */
const opsOf = (lines: readonly Line[]): number =>
  lines.reduce((sum, { reports }) => sum + Math.max(0, ...reports.map(({ ops }) => ops)), 0);
