/** Makes the runs of a task, in the process itself or in a worker thread: what a run gives hangs on (seed, i) alone. */
import { type CampaignOptions, type FoundCase, type Line, linesOf, type RunRecord } from '../../testing/campaign.ts';
import { Coverage, type CoverageReport } from '../../testing/coverage.ts';
import { type Bug, Hunter } from '../../testing/zoo/index.ts';
import { loadBugs } from '../load-bug.ts';
import { loadDriver } from '../load-driver.ts';
import { propertyNamed, runOf, type Task } from './task.ts';

/** Runs of a shard, by their place in it: `count` of them from the `first` on. */
export interface Block {
  readonly first: number;
  readonly count: number;
}

/** What can be asked for. */
export type Request =
  /** Runs of a campaign; none after the one in which the last of `whole` was broken. */
  | { readonly kind: 'scan'; readonly block: Block; readonly whole: readonly string[] }
  /** The shrunk case of the kth run of the shard; null: the property holds when it is asked alone. */
  | { readonly kind: 'found'; readonly property: string; readonly k: number }
  /** Runs of a hunt; none after the first that breaks something. */
  | { readonly kind: 'hunt'; readonly bug: string; readonly block: Block }
  /** What the kth run of the shard has caught, given what it broke. */
  | { readonly kind: 'caught'; readonly bug: string; readonly k: number; readonly record: RunRecord };

/** Runs of a campaign that were made. */
export interface Scanned {
  readonly made: number;
  /** A record for each run, line by line. */
  readonly lines: readonly {
    readonly properties: readonly string[];
    readonly records: readonly RunRecord[];
  }[];
  readonly coverage: CoverageReport;
}

/** Runs of a hunt that were made. */
export interface Hunted {
  readonly made: number;
  /** What the last of them broke; null: nothing. */
  readonly record: RunRecord | null;
}

/** What a hunt has caught. */
export interface Caught {
  readonly property: string;
  readonly found: FoundCase;
}

/** What each request is answered. */
export interface Answers {
  readonly scan: Scanned;
  readonly found: FoundCase | null;
  readonly hunt: Hunted;
  readonly caught: Caught;
}

/** A request's kind. */
export type Kind = Request['kind'];
/** A request of one kind. */
export type RequestOf<K extends Kind> = Extract<Request, { readonly kind: K }>;

/** See the module comment. */
export class Performer {
  readonly #task: Task;
  readonly #options: CampaignOptions;
  readonly #bugs: readonly Bug[];
  readonly #hunters = new Map<string, Hunter>();
  #lines: readonly Line[] | null = null;

  private constructor(task: Task, options: CampaignOptions, bugs: readonly Bug[]) {
    this.#task = task;
    this.#options = options;
    this.#bugs = bugs;
  }

  /** @throws CliError, CaseError for a module that cannot be used */
  static async of(task: Task): Promise<Performer> {
    const { seed, runs, fixed } = task;
    const extras = task.driver === undefined ? {} : { driver: await loadDriver(task.driver) };
    const options = { seed, runs, fixed, extras, withoutPolicy: fixed.policy === 'foreign' };
    return new Performer(task, options, task.bug === undefined ? [] : await loadBugs(task.bug));
  }

  /** Answers a request. @throws CaseError for options that leave nothing to draw, or exclude a bug */
  perform<K extends Kind>(request: RequestOf<K>): Answers[K];
  perform(request: Request): Answers[Kind] {
    switch (request.kind) {
      case 'scan':
        return this.#scan(request);
      case 'found':
        return this.#found(request);
      case 'hunt':
        return this.#hunt(request);
      case 'caught':
        return this.#caught(request);
    }
  }

  #scan({ block, whole }: RequestOf<'scan'>): Scanned {
    const coverage = new Coverage();
    const lines = this.#linesWith(coverage);
    const records = lines.map((): RunRecord[] => []);
    const left = new Set(whole);
    let made = 0;
    while (made < block.count && left.size > 0) {
      const i = runOf(this.#task.shard, block.first + made);
      for (const [l, line] of lines.entries()) {
        const record = line.scan(i);
        records[l]?.push(record);
        for (const name of record.broken) left.delete(name);
      }
      made++;
    }
    return {
      made,
      lines: lines.map(({ properties }, l) => ({
        properties: properties.map(({ name }) => name),
        records: records[l] ?? [],
      })),
      coverage: coverage.report(),
    };
  }

  #linesWith(coverage: Coverage): readonly Line[] {
    const properties = this.#task.properties.map(propertyNamed);
    return linesOf(properties, { ...this.#options, coverage });
  }

  #found({ property, k }: RequestOf<'found'>): FoundCase | null {
    this.#lines ??= this.#linesWith(new Coverage());
    const line = this.#lines.find(({ properties }) => properties.some(({ name }) => name === property));
    return line?.found(propertyNamed(property), runOf(this.#task.shard, k)) ?? null;
  }

  #hunter(name: string): Hunter {
    const known = this.#hunters.get(name);
    if (known !== undefined) return known;
    const bug = this.#bugs.find((one) => one.name === name);
    if (bug === undefined) throw new Error(`no bug ${name}`);
    const made = new Hunter(bug, { ...this.#options, properties: this.#task.properties.map(propertyNamed) });
    this.#hunters.set(name, made);
    return made;
  }

  #hunt({ bug, block }: RequestOf<'hunt'>): Hunted {
    const hunter = this.#hunter(bug);
    for (let made = 1; made <= block.count; made++) {
      const record = hunter.scan(runOf(this.#task.shard, block.first + made - 1));
      if (record.broken.length > 0) return { made, record };
    }
    return { made: block.count, record: null };
  }

  #caught({ bug, k, record }: RequestOf<'caught'>): Caught {
    const run = runOf(this.#task.shard, k);
    const caught = this.#hunter(bug).caught(run, record);
    if (caught === null) throw new Error(`run ${run} broke nothing`);
    return { property: caught.property.name, found: caught.found };
  }
}
