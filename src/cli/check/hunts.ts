/** Hunting bugs: one after the other, as many at once as there are workers; one alone gets all workers. */
import type { RunRecord } from '../../testing/campaign.ts';
import { type Bug, caughtBy } from '../../testing/zoo/index.ts';
import type { Hunted } from './performer.ts';
import type { Pool } from './pool.ts';
import type { BugEntry, HuntReport } from './report.ts';
import { headOf, propertyNamed, runOf, runsOf, type Task } from './task.ts';
import type { Teller } from './tell.ts';

/** Runs of a block. */
const BLOCK = 8;
/** Blocks of one bug asked for ahead, for each worker. */
const AHEAD = 2;

/** The first run that broke something. */
interface Hit {
  readonly k: number;
  readonly record: RunRecord;
}

/** The first run of the shard that the bug breaks; null: none of all. ahead: blocks that are asked for at once. */
async function firstHit(task: Task, pool: Pool, bug: string, ahead: number): Promise<Hit | null> {
  const total = runsOf(task.shard, task.runs);
  const queue: { readonly first: number; readonly hunted: Promise<Hunted> }[] = [];
  let next = 0;
  while (true) {
    for (; next < total && queue.length < ahead; next += BLOCK) {
      const block = { first: next, count: Math.min(BLOCK, total - next) };
      const hunted = pool.ask<'hunt'>({ kind: 'hunt', bug, block });
      // Who waits for an earlier block is told of the error there.
      hunted.catch(() => {});
      queue.push({ first: next, hunted });
    }
    const asked = queue.shift();
    if (asked === undefined) return null;
    const { made, record } = await asked.hunted;
    if (record !== null) return { k: asked.first + made - 1, record };
  }
}

/** What becomes of one bug. tell: for a bug that was asked for by name. */
async function huntOne(task: Task, pool: Pool, { name, story }: Bug, tell: Teller | null): Promise<BugEntry> {
  const hit = await firstHit(task, pool, name, tell === null ? 1 : AHEAD * pool.size);
  const asked = tell === null ? {} : { story };
  if (hit === null) return { name, found: false, by: null, runs: runsOf(task.shard, task.runs), ops: null, ...asked };
  const { property, found } = await pool.ask<'caught'>({ kind: 'caught', bug: name, k: hit.k, record: hit.record });
  return {
    name,
    found: true,
    by: caughtBy(property, found.finding.rule),
    runs: hit.k + 1,
    ops: found.case.steps.length,
    run: runOf(task.shard, hit.k),
    ...asked,
    ...(tell === null ? {} : tell(propertyNamed(property), found)),
  };
}

/** Hunts bugs. tell: tells what was caught, of a bug that was asked for by name. done: told of each, as it is done. */
export async function hunts(
  task: Task,
  pool: Pool,
  bugs: readonly Bug[],
  tell: Teller | null,
  version: string,
  done: (entry: BugEntry) => void,
): Promise<HuntReport> {
  const entries: BugEntry[] = [];
  let next = 0;
  const hunter = async (): Promise<void> => {
    for (let at = next++; at < bugs.length; at = next++) {
      const bug = bugs[at];
      if (bug === undefined) return;
      const entry = await huntOne(task, pool, bug, tell);
      entries[at] = entry;
      done(entry);
    }
  };
  await Promise.all(Array.from({ length: Math.min(pool.size, bugs.length) }, hunter));
  return {
    smmulab: version,
    ...headOf(task),
    bugs: entries,
  };
}
