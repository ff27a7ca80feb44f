/** Many runs of a property, and what to do with one that fails: shrink it, then tell it. */
import fc from 'fast-check';
import { hashString } from '../hw/schedule.ts';
import { type CaseOptions, labCase } from './arbitraries/case.ts';
import { type Finding, type LabCase, type RunOptions, type RunResult, runCase } from './case.ts';
import { Coverage } from './coverage.ts';
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
  readonly runs: number;
  readonly ops: number;
  readonly findings: readonly FoundCase[];
}

/** How a campaign is run. */
export interface CampaignOptions extends RunOptions {
  /** An integer of 32 bits. */
  readonly seed: number;
  /** Runs to make; run i depends on (seed, i) and the property alone. */
  readonly runs: number;
  /** What is fixed of each case. */
  readonly fixed?: CaseOptions;
  /** Which of every `of` runs: those with i mod of = index. Default all. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** Told after each run. */
  readonly progress?: (property: string, run: number) => void;
}

/** Seed of run `i` of a property. */
export const runSeed = (seed: number, property: string, i: number): number => hashString(`${seed} ${property} ${i}`);

/** Runs a property until it fails or all runs are made. */
export function runProperty(property: Property, options: CampaignOptions): PropertyReport {
  const { seed, runs, fixed = {}, shard = { index: 0, of: 1 }, progress } = options;
  const coverage = options.coverage ?? new Coverage();
  const arbitrary = (property.cases ?? ((of) => labCase(property, of)))(fixed);
  let made = 0;
  let ops = 0;
  for (let i = shard.index; i < runs; i += shard.of) {
    let failed = false;
    let drawnOps = 0;
    const details = fc.check(
      fc.property(arbitrary, (drawn) => {
        // Shrinking runs again and again; only the drawn case counts.
        const result = runCase(property, drawn, failed ? uncounted(options) : { ...options, coverage });
        if (!failed) {
          ops += result.ops;
          drawnOps = drawn.steps.length;
          failed = result.finding !== null;
        }
        return result.finding === null;
      }),
      // Biased values are for the first runs of many; each of these is the first.
      { seed: runSeed(seed, property.name, i), numRuns: 1, unbiased: true },
    );
    made++;
    progress?.(property.name, i);
    if (details.errorInstance instanceof Error && !failed) throw details.errorInstance;
    const [shrunk] = details.counterexample ?? [];
    if (shrunk === undefined) continue;
    return {
      name: property.name,
      ok: false,
      runs: made,
      ops,
      findings: [found(property, i, shrunk, drawnOps, options)],
    };
  }
  return { name: property.name, ok: true, runs: made, ops, findings: [] };
}

function uncounted({ coverage: _, ...rest }: CampaignOptions): RunOptions {
  return rest;
}

function found(
  property: Property,
  run: number,
  shrunk: LabCase,
  drawnOps: number,
  options: CampaignOptions,
): FoundCase {
  const rest = uncounted(options);
  const attempt = (one: LabCase): RunResult => runCase(property, one, rest);
  const least = reduceCase(shrunk, (one) => attempt(one).finding !== null);
  const { finding } = attempt(least);
  if (finding === null) throw new Error(`run ${run} of ${property.name} fails only now and then`);
  return { run, finding, case: least, drawnOps };
}
