/**
 * A campaign: blocks of runs are made by a pool, and counted in the order of the runs. What workers have made beyond the
 * run in which the last property was broken is dropped, so their number changes nothing.
 */
import { type RunRecord, Score } from '../../testing/campaign.ts';
import { Coverage, type CoverageReport } from '../../testing/coverage.ts';
import { coverable } from '../../testing/covered/coverable.ts';
import type { Block, Scanned } from './performer.ts';
import type { Pool } from './pool.ts';
import type { CampaignReport, FindingEntry, Trail } from './report.ts';
import { headOf, propertyNamed, runOf, runsOf, type Task } from './task.ts';
import type { Teller } from './tell.ts';

/** Runs of a block. */
const BLOCK = 16;
/** Blocks asked for ahead, for each worker. */
const AHEAD = 2;

/** Records of one line in the order of the runs, and what has become of its properties. */
interface Lane {
  readonly properties: readonly string[];
  readonly score: Score;
  readonly ops: number[];
  /** Sum of them. */
  total: number;
  readonly apart: [number, string][];
}

/** A block that has been asked for. */
interface Asked {
  readonly block: Block;
  readonly scanned: Promise<Scanned>;
}

/** See the module comment. */
class Campaign {
  readonly #task: Task;
  readonly #pool: Pool;
  readonly #progress: (k: number) => void;
  readonly #maxOps: number;
  readonly coverage = new Coverage();
  lanes: readonly Lane[] = [];

  constructor(task: Task, pool: Pool, progress: (k: number) => void, maxOps: number) {
    this.#task = task;
    this.#pool = pool;
    this.#progress = progress;
    this.#maxOps = maxOps;
  }

  /** Names of properties that are not broken. */
  get #whole(): string[] {
    const broken = this.lanes.flatMap(({ score }) => score.reports.filter(({ ok }) => !ok).map(({ name }) => name));
    return this.#task.properties.filter((name) => !broken.includes(name));
  }

  /** No run is to be made any more. */
  get #over(): boolean {
    const [first] = this.lanes;
    return this.#whole.length === 0 || (first !== undefined && first.total >= this.#maxOps);
  }

  async run(): Promise<void> {
    const total = runsOf(this.#task.shard, this.#task.runs);
    const queue: Asked[] = [];
    let next = 0;
    while (true) {
      for (; next < total && queue.length < AHEAD * this.#pool.size; next += BLOCK)
        queue.push(this.#ask({ first: next, count: Math.min(BLOCK, total - next) }));
      const asked = queue.shift();
      if (asked === undefined) return;
      const { made, ...scanned } = await asked.scanned;
      const { first, count } = asked.block;
      const last = await this.#take(first, made, scanned.lines);
      this.coverage.add(last === made ? scanned.coverage : await this.#coverageOf({ first, count: last }));
      if (this.#over) return;
      if (made < count) queue.unshift(this.#ask({ first: first + made, count: count - made }));
    }
  }

  #ask(block: Block): Asked {
    const scanned = this.#pool.ask<'scan'>({ kind: 'scan', block, whole: this.#whole });
    // Who waits for an earlier block is told of the error there.
    scanned.catch(() => {});
    return { block, scanned };
  }

  async #coverageOf(block: Block): Promise<CoverageReport> {
    const all = this.#task.properties;
    // Stops early only where all were broken, which is the end of this block.
    return (await this.#pool.ask<'scan'>({ kind: 'scan', block, whole: [...all, ''] })).coverage;
  }

  /** Counts runs; gives how many, up to the one in which the last property was broken. */
  async #take(first: number, made: number, lines: Scanned['lines']): Promise<number> {
    if (this.lanes.length === 0)
      this.lanes = lines.map(({ properties }) => ({
        properties,
        score: new Score(properties),
        ops: [],
        total: 0,
        apart: [],
      }));
    for (let at = 0; at < made; at++) {
      for (const [l, lane] of this.lanes.entries()) {
        const record = lines[l]?.records[at];
        if (record !== undefined) await this.#count(lane, first + at, record);
      }
      this.#progress(first + at);
      if (this.#over) return at + 1;
    }
    return made;
  }

  async #count(lane: Lane, k: number, record: RunRecord): Promise<void> {
    lane.ops.push(record.ops);
    lane.total += record.ops;
    if (record.apart !== undefined) lane.apart.push([k, record.apart]);
    const broken = lane.score.take(record);
    for (const property of broken) {
      const found = await this.#pool.ask<'found'>({ kind: 'found', property, k });
      if (found !== null) lane.score.settle(property, found);
    }
    lane.score.sure(runOf(this.#task.shard, k), broken, record);
  }
}

const trailOf = ({ properties, ops, apart }: Lane): Trail => ({
  properties,
  ops: ops.join(' '),
  ...(apart.length === 0 ? {} : { apart }),
});

/**
 * Makes all runs of a task.
 * @param progress told of each run of the shard, in order
 * @param maxOps no run is made after so many operations of the properties that share their cases
 */
export async function campaign(
  task: Task,
  pool: Pool,
  tell: Teller,
  version: string,
  progress: (k: number) => void,
  maxOps = Number.POSITIVE_INFINITY,
): Promise<CampaignReport> {
  const made = new Campaign(task, pool, progress, maxOps);
  await made.run();
  const reports = new Map(made.lanes.flatMap(({ score }) => score.reports.map((report) => [report.name, report])));
  const properties = task.properties.map((name) => {
    // A shard of fewer runs than shards may have none.
    const report = reports.get(name) ?? { name, ok: true, runs: 0, ops: 0, findings: [] };
    const findings = report.findings.map(
      (found): FindingEntry => ({
        rule: found.finding.rule,
        message: found.finding.message,
        run: found.run,
        drawnOps: found.drawnOps,
        ...tell(propertyNamed(name), found),
      }),
    );
    return { ...report, findings };
  });
  return {
    smmulab: version,
    ...headOf(task),
    properties,
    coverage: made.coverage.report(coverable(task.properties.map(propertyNamed), task.fixed)),
    ...(task.shard === null ? {} : { trail: made.lanes.map(trailOf) }),
  };
}
