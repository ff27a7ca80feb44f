/** What a campaign exercised: configurations, operations, how they ended. */
import type { LabConfig } from './lab.ts';
import type { Operation, OperationResult } from './operations.ts';

/** Numbers by name, names sorted. */
export type Counts = Readonly<Record<string, number>>;

/** {@link Coverage} as data. */
export interface CoverageReport {
  readonly policies: Counts;
  readonly presets: Counts;
  readonly vmidBits: Counts;
  readonly schedules: Counts;
  /** Operations that succeeded. */
  readonly operations: Counts;
  /** `hwptAlloc ENOSPC`: operations that failed, by errno. */
  readonly errnos: Counts;
}

const bump = (map: Map<string, number>, key: string, by = 1): void => void map.set(key, (map.get(key) ?? 0) + by);

const sorted = (map: ReadonlyMap<string, number>): Counts =>
  Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

/** See the module comment. */
export class Coverage {
  readonly #maps = {
    policies: new Map<string, number>(),
    presets: new Map<string, number>(),
    vmidBits: new Map<string, number>(),
    schedules: new Map<string, number>(),
    operations: new Map<string, number>(),
    errnos: new Map<string, number>(),
  };

  /** A lab is made. */
  config({ policy, preset, vmidBits, schedule }: LabConfig): void {
    if (policy !== undefined) bump(this.#maps.policies, policy);
    bump(this.#maps.presets, preset ?? 'linuxNesting');
    bump(this.#maps.vmidBits, String(vmidBits ?? 'preset'));
    bump(this.#maps.schedules, schedule?.mode ?? 'eager');
  }

  /** An operation ended. */
  step({ op }: Operation, result: OperationResult): void {
    if (result.status === 'ok') bump(this.#maps.operations, op);
    else if (result.status === 'error') bump(this.#maps.errnos, `${op} ${result.errno}`);
  }

  /** Adds the numbers of another campaign. */
  add(report: CoverageReport): void {
    for (const name of Object.keys(this.#maps) as (keyof CoverageReport)[])
      for (const [key, count] of Object.entries(report[name])) bump(this.#maps[name], key, count);
  }

  /** The numbers so far. */
  report(): CoverageReport {
    const { policies, presets, vmidBits, schedules, operations, errnos } = this.#maps;
    return {
      policies: sorted(policies),
      presets: sorted(presets),
      vmidBits: sorted(vmidBits),
      schedules: sorted(schedules),
      operations: sorted(operations),
      errnos: sorted(errnos),
    };
  }
}
