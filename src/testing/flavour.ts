/**
 * What is drawn is a flavour: how often each operation comes, which chains of them, on which labs. Every property is asked
 * on the cases of every flavour; a flavour is there so that something happens often enough to be asked about.
 */
import type fc from 'fast-check';
import type { Pools } from './arbitraries/pools.ts';
import type { LabConfig } from './lab.ts';
import type { Operation } from './operation.ts';
import type { Weights } from './property.ts';

/** Values to draw members of a lab's configuration from. One that stands there twice comes twice as often. */
export type LabChoices = {
  readonly [K in Exclude<keyof LabConfig, 'schedule'>]?: readonly Exclude<LabConfig[K], undefined>[];
};

/** A sequence that comes as one piece, and how often: all single operations together weigh {@link SINGLE_WEIGHT}. */
export interface Chain {
  readonly weight: number;
  readonly arbitrary: fc.Arbitrary<Operation[]>;
}

/** See the module comment. */
export interface Flavour {
  readonly name: string;
  /** What happens in its cases, in one sentence. */
  readonly title: string;
  readonly weights: Weights;
  /** Chains beside the usual ones, in which a device is set up, used and taken down. */
  readonly chains?: (from: Pools) => readonly Chain[];
  /** What its labs must have. An option that says otherwise leaves the flavour out. */
  readonly lab?: LabChoices;
  /** How often it is drawn, relative to the others: a whole number. Default 1. */
  readonly share?: number;
}

/** What single operations weigh beside chains. */
export const SINGLE_WEIGHT = 6;

/** Values that both allow; a member that only one of them names keeps its values. Null: they contradict each other. */
export function meet(one: LabChoices, other: LabChoices): LabChoices | null {
  const both: Record<string, readonly unknown[]> = { ...other };
  for (const [key, values] of Object.entries(one) as [string, readonly unknown[]][]) {
    const theirs = both[key]?.map((value) => JSON.stringify(value));
    const left = theirs === undefined ? values : values.filter((value) => theirs.includes(JSON.stringify(value)));
    if (left.length === 0) return null;
    both[key] = left;
  }
  return both as LabChoices;
}

/** What a lab must have, as choices of one. */
export const only = (lab: Omit<Partial<LabConfig>, 'schedule'>): LabChoices =>
  Object.fromEntries(Object.entries(lab).map(([key, value]) => [key, [value]]));
