/** Global errors (IHI 0070 6.3.19, 6.3.20, 7.5). */
import { GERROR, GERRORN } from '../../spec/registers.ts';
import type { Watch } from './observer.ts';
import type { RegisterFile } from './registers.ts';

/** GERROR and GERRORN. An error is active while its bits differ. */
export class GlobalErrors {
  readonly #smmu: string;
  readonly #watch: Watch;
  readonly #raised: (bits: number) => void;
  #gerror = 0;
  #gerrorn = 0;

  /** @param raised called when bits became active, after GERROR shows them */
  constructor(smmu: string, file: RegisterFile, watch: Watch, raised: (bits: number) => void) {
    this.#smmu = smmu;
    this.#watch = watch;
    this.#raised = raised;
    file.attach(GERROR, { read: () => this.#gerror });
    file.attach(GERRORN, { read: () => this.#gerrorn, write: (value) => this.#acknowledge(value) });
  }

  /** Active errors: the bits in which the two registers differ. */
  get active(): number {
    return (this.#gerror ^ this.#gerrorn) >>> 0;
  }

  /** Makes errors active. Those that are active already leave no trace (7.5). */
  raise(bits: number): void {
    const fresh = (bits & ~this.active) >>> 0;
    if (fresh === 0) return;
    this.#gerror = (this.#gerror ^ fresh) >>> 0;
    this.#watch.observer?.({ kind: 'gerror', smmu: this.#smmu, bits: fresh });
    this.#raised(fresh);
  }

  /** No error is active, and both registers are 0. */
  reset(): void {
    this.#gerror = 0;
    this.#gerrorn = 0;
  }

  /** A toggle of an inactive bit is CONSTRAINED (6.3.20): here it makes the error active, without an interrupt. */
  #acknowledge(value: number): string {
    const before = this.active;
    this.#gerrorn = value;
    const gone = (before & ~this.active) >>> 0;
    if (gone !== 0) this.#watch.observer?.({ kind: 'gerror-acknowledged', smmu: this.#smmu, bits: gone });
    return '';
  }
}
