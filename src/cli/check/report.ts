/** What `smmulab check` reports, as data: `--json` prints it, `--merge` reads it, and the text is made from it. */
import type { CoverageReport } from '../../testing/coverage.ts';
import type { Task } from './task.ts';

/** A rule that was broken. */
export interface FindingEntry {
  readonly rule: string;
  readonly message: string;
  /** Number of the run. */
  readonly run: number;
  /** Operations of the case as it was drawn. */
  readonly drawnOps: number;
  /** The shrunk case: the data of a scenario file. */
  readonly case: Readonly<Record<string, unknown>>;
  /** Where it is saved. */
  readonly file: string;
  /** The case told step by step. */
  readonly told: readonly string[];
}

/** What became of a property. */
export interface PropertyEntry {
  readonly name: string;
  readonly ok: boolean;
  readonly runs: number;
  readonly ops: number;
  readonly findings: readonly FindingEntry[];
  /** Runs that are counted apart, by the reason. */
  readonly apart?: Readonly<Record<string, number>>;
}

/** What shards must have in common, beside the seed. */
export interface ReportOptions extends Omit<Task, 'seed' | 'shard' | 'properties'> {
  readonly properties: readonly string[];
}

/** What every report has. */
interface Head {
  /** Version of the package. */
  readonly smmulab: string;
  readonly seed: number;
  /** `I/N`. */
  readonly shard?: string;
  readonly options: ReportOptions;
}

/** Operations of each run of a shard, for properties that share their cases: what merging counts with. */
export interface Trail {
  readonly properties: readonly string[];
  /** A number for each run, in order, with blanks between them. */
  readonly ops: string;
  /** Runs that are counted apart: place in the shard, and why. */
  readonly apart?: readonly (readonly [k: number, why: string])[];
}

/** What a campaign reports. */
export interface CampaignReport extends Head {
  readonly properties: readonly PropertyEntry[];
  readonly coverage: CoverageReport;
  /** Of a shard only. */
  readonly trail?: readonly Trail[];
}

/** What became of a hunt. */
export interface BugEntry {
  readonly name: string;
  readonly found: boolean;
  /** Property, and the rule if it has another name. */
  readonly by: string | null;
  readonly runs: number;
  /** Operations of the shrunk case. */
  readonly ops: number | null;
  /** Number of the run that caught it. */
  readonly run?: number;
  /** What went wrong, of a bug that was asked for by name. */
  readonly story?: string;
  readonly case?: Readonly<Record<string, unknown>>;
  readonly file?: string;
  readonly told?: readonly string[];
}

/** What a hunt reports. */
export interface HuntReport extends Head {
  readonly bugs: readonly BugEntry[];
}

/** Either. */
export type Report = CampaignReport | HuntReport;
