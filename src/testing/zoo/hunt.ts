/** Hunting a bug: run i tries one property on one drawn case, the properties taking turns. */

import type { CaseOptions } from '../arbitraries/case.ts';
import { type CampaignOptions, type FoundCase, runProperty } from '../campaign.ts';
import { CaseError, POLICIES } from '../lab.ts';
import type { Property } from '../property.ts';
import { type Bug, infected } from './bug.ts';

/** Runs that a bug gets, unless told. */
export const HUNT_RUNS = 2000;

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

/**
 * Policy and preset of run i: what is fixed, else what the bug exists in, in turn.
 * @throws CaseError if what is fixed excludes the bug
 */
function placeOf(bug: Bug, fixed: CaseOptions, turn: number): CaseOptions {
  const one = <T>(what: string, given: T | undefined, from: readonly T[] | undefined): T | undefined => {
    if (from === undefined) return given;
    if (given === undefined) return from[turn % from.length];
    if (!from.includes(given))
      throw new CaseError(`${bug.name} does not exist with ${what} ${given}: ${from.join(', ')}`);
    return given;
  };
  const policy = fixed.policy === 'foreign' ? undefined : fixed.policy;
  const drawn = one('policy', policy, bug.policies ?? POLICIES);
  const preset = one('preset', fixed.preset, bug.presets);
  return {
    ...fixed,
    ...(drawn === undefined ? {} : { policy: drawn }),
    ...(preset === undefined ? {} : { preset }),
    ...(bug.lab === undefined ? {} : { lab: bug.lab }),
  };
}

/** Whether what is fixed leaves a bug no place to exist. */
export function excluded(bug: Bug, { policy, preset }: CaseOptions): boolean {
  const gone = <T>(given: T | undefined, from: readonly T[] | undefined): boolean =>
    given !== undefined && from !== undefined && !from.includes(given);
  return gone(policy === 'foreign' ? undefined : policy, bug.policies) || gone(preset, bug.presets);
}

/** Hunts a bug until a property catches it or all runs are made. @throws CaseError if the options exclude the bug */
export function hunt(bug: Bug, options: HuntOptions): Hunt {
  const { properties, runs, fixed = {} } = options;
  const extras = infected(bug, options.extras);
  let ops = 0;
  for (let i = 0; i < runs; i++) {
    const property = properties[i % properties.length];
    if (property === undefined) break;
    const turn = Math.floor(i / properties.length);
    const place = placeOf(bug, fixed, turn);
    const shard = { index: turn, of: turn + 1 };
    const report = runProperty(property, { ...options, extras, fixed: place, shard, runs: turn + 1 });
    ops += report.ops;
    const [found] = report.findings;
    if (found !== undefined) return { bug, runs: i + 1, ops, catch: { property, found } };
  }
  return { bug, runs, ops, catch: null };
}
