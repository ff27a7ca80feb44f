/** Something that was given up while hardware might still use it: it waits here for the next completed CMD_SYNC. */
export interface Quarantined {
  /** For example "page table", "VMID 3". */
  readonly what: string;
  /** Names of the SMMUs whose queues have to complete first. */
  readonly waitsFor: readonly string[];
}

interface Held {
  /** '': nothing is given up; somebody waits to be told. */
  readonly what: string;
  readonly waitsFor: Set<string>;
  readonly release: () => void;
}

/** Something that may still be under way in hardware: a queue, or a VINTF that does not disable. */
export interface Settling {
  /** Nothing is in doubt. */
  readonly quiet: boolean;
}

/** An SMMU as the quarantine sees it. */
export interface QuarantineSource {
  readonly name: string;
  readonly queues: readonly Settling[];
}

/**
 * Keeps what a timed-out CMD_SYNC leaves in doubt. A CMD_SYNC that completes proves every earlier command of its queue
 * complete (IHI 0070 4.7.3), so it also makes good for the lost one.
 */
export class Quarantine {
  readonly #held: Held[] = [];
  readonly #ignore: boolean;

  /** @param ignore free at once, as Linux 7.2 does */
  constructor(ignore: boolean) {
    this.#ignore = ignore;
  }

  /** Runs `release` now if every queue of `smmus` is quiet, else once each has completed a CMD_SYNC. */
  retire(smmus: readonly QuarantineSource[], what: string, release: () => void): void {
    const doubtful = this.#ignore ? [] : smmus.filter((smmu) => smmu.queues.some((queue) => !queue.quiet));
    if (doubtful.length === 0) release();
    else this.#held.push({ what, waitsFor: new Set(doubtful.map(({ name }) => name)), release });
  }

  /** Calls `then` as {@link retire} would: what was done is certain. It is no thing that is held. */
  settled(smmus: readonly QuarantineSource[], then: () => void): void {
    this.retire(smmus, '', then);
  }

  /** A queue of `smmu` is quiet again; releases what waited for nothing else. */
  settle(smmu: QuarantineSource): void {
    if (this.#held.length === 0 || smmu.queues.some((queue) => !queue.quiet)) return;
    const due: Held[] = [];
    for (let i = 0; i < this.#held.length; ) {
      const held = this.#held[i];
      if (held === undefined) break;
      held.waitsFor.delete(smmu.name);
      if (held.waitsFor.size > 0) i++;
      else due.push(...this.#held.splice(i, 1));
    }
    for (const { release } of due) release();
  }

  /** What is held, oldest first. */
  list(): Quarantined[] {
    const things = this.#held.filter(({ what }) => what !== '');
    return things.map(({ what, waitsFor }) => ({ what, waitsFor: [...waitsFor].sort() }));
  }
}
