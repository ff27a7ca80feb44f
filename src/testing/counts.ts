/** Numbers by name. */

/** Numbers by name, names sorted. In coverage, 0 is what could have been covered and was not. */
export type Counts = Readonly<Record<string, number>>;

/** Counts one more of a name, or `by` more. */
export const bump = (map: Map<string, number>, key: string, by = 1): void =>
  void map.set(key, (map.get(key) ?? 0) + by);

/** Counts as data. */
export const sorted = (map: ReadonlyMap<string, number>): Counts =>
  Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

/** The sum of counts, name by name. */
export function sumOf(all: Iterable<Counts>): Counts {
  const total = new Map<string, number>();
  for (const one of all) for (const [key, n] of Object.entries(one)) bump(total, key, n);
  return sorted(total);
}
