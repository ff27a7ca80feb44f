/** What `smmulab check` is to try, as plain data: what worker threads are told, and what shards have in common. */
import type { CaseOptions } from '../../testing/arbitraries/case.ts';
import { PROPERTIES } from '../../testing/properties/index.ts';
import type { Property } from '../../testing/property.ts';

/** Which of every `of` runs: those with i mod `of` = `index`. */
export interface Shard {
  readonly index: number;
  readonly of: number;
}

/** See the module comment. */
export interface Task {
  readonly seed: number;
  /** Runs in all, those of other shards included. */
  readonly runs: number;
  /** Null: all runs, and the report is that of a whole campaign. */
  readonly shard: Shard | null;
  readonly fixed: CaseOptions;
  /** Names of the properties that are asked. */
  readonly properties: readonly string[];
  /** Module of a driver. */
  readonly driver?: string;
  /** Bugs to hunt, as `--bug` names them. */
  readonly bug?: string;
}

/** Number of the kth run of a shard. */
export const runOf = (shard: Shard | null, k: number): number => (shard === null ? k : shard.index + k * shard.of);

/** How many of so many runs are a shard's. */
export const runsOf = (shard: Shard | null, runs: number): number =>
  shard === null ? runs : Math.max(0, Math.ceil((runs - shard.index) / shard.of));

/** A shard as reports name it. */
const shardText = ({ index, of }: Shard): string => `${index}/${of}`;

/** What every report begins with. */
export const headOf = ({ seed, shard, ...options }: Task) => ({
  seed,
  ...(shard === null ? {} : { shard: shardText(shard) }),
  options,
});

/** A property by its name. @throws Error for a name that nothing has: names are checked where they are given */
export function propertyNamed(name: string): Property {
  const found = PROPERTIES.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no property ${name}`);
  return found;
}
