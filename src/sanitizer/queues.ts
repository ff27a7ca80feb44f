/** pend(q): what has been consumed from each queue and not been completed by a CMD_SYNC of the same queue (4.7.3). */
import type { Maintenance } from './commands.ts';

/** A command that waits for its CMD_SYNC. */
export interface Pending {
  readonly what: Maintenance;
  readonly consumed: number;
}

/** Commands remembered for one queue without a CMD_SYNC; more are forgotten, oldest first. */
const MOST = 0x10000;

/** See the module comment. */
export class Queues {
  readonly #pending = new Map<string, Pending[]>();
  /** When a CMD_SYNC completed last, by queue. */
  readonly #synced = new Map<string, number>();
  readonly #complete: (pending: Pending, queue: string) => void;
  /** Commands that were forgotten. */
  dropped = 0;

  /** @param complete called for each command that a CMD_SYNC completes, in order */
  constructor(complete: (pending: Pending, queue: string) => void) {
    this.#complete = complete;
  }

  /** A command was consumed. */
  add(queue: string, what: Maintenance, consumed: number): void {
    const list = this.#pending.get(queue);
    if (list === undefined) this.#pending.set(queue, [{ what, consumed }]);
    else {
      if (list.length >= MOST) {
        list.shift();
        this.dropped++;
      }
      list.push({ what, consumed });
    }
  }

  /** A CMD_SYNC of a queue completed. */
  sync(queue: string, now: number): void {
    this.#synced.set(queue, now);
    this.stopped(queue);
  }

  /** A queue has stopped: what was consumed from it is done. */
  stopped(queue: string): void {
    const list = this.#pending.get(queue);
    if (list === undefined || list.length === 0) return;
    this.#pending.set(queue, []);
    for (const pending of list) this.#complete(pending, queue);
  }

  /** Forgets commands of a queue: they count as never sent. */
  drop(queue: string, which: (pending: Pending) => boolean): void {
    const list = this.#pending.get(queue);
    if (list !== undefined)
      this.#pending.set(
        queue,
        list.filter((pending) => !which(pending)),
      );
  }

  /** The SMMU was reset: no CMD_SYNC will complete what waits. */
  reset(): void {
    this.#pending.clear();
  }

  /** Another queue on which a CMD_SYNC completed after `since`: its name, or ''. */
  syncedElsewhere(queue: string, since: number): string {
    for (const [other, time] of this.#synced) if (other !== queue && time > since) return other;
    return '';
  }

  /** What waits, with its queue. */
  *all(): Iterable<readonly [queue: string, pending: Pending]> {
    for (const [queue, list] of this.#pending) for (const pending of list) yield [queue, pending];
  }
}
