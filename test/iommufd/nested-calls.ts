/** Whole calls at the hooks of others, from start to end: what a second thread may do at worst. */
import type { LocalKernel } from '../../src/driver/local-kernel.ts';

/** A call, and at its `at`th hook (lock, unlock, allocation, copy, poll ...) another, which may have one inside it, too. */
export interface Nested<Call> {
  readonly command: Call;
  readonly at: number;
  readonly inner: Nested<Call> | null;
}

/** The inner call would have to wait for the outer one: such a run proves nothing. */
export class NotSchedulable extends Error {}

/** A run that ends so proves nothing. */
export const isDeadlock = (error: unknown): boolean =>
  error instanceof NotSchedulable || (error instanceof Error && error.message.startsWith('deadlock'));

/** What calls are made on. */
export interface Callee<Call> {
  readonly kernel: LocalKernel;
  run(command: Call): void;
  /** Told of each hook at which an inner call begins. */
  hooked?(point: string): void;
}

/** Makes the calls. False: an inner one met a lock of an outer one, or would have waited for it. */
export function schedulable<Call>({ kernel, run, hooked }: Callee<Call>, nested: Nested<Call>): boolean {
  let stuck = false;
  const make = ({ command, at, inner }: Nested<Call>): void => {
    if (inner === null) {
      run(command);
      return;
    }
    let left = at;
    const stop = kernel.onPoint((point) => {
      if (left-- > 0) return;
      stop();
      hooked?.(point);
      try {
        make(inner);
      } catch (error) {
        // The code around the hook may take what is thrown for a failure of its own.
        stuck ||= isDeadlock(error);
        throw error;
      }
    });
    try {
      run(command);
    } finally {
      stop();
    }
  };
  // A wait for the last put of an object that an outer call holds would never end.
  const stop = kernel.onPoint((point) => {
    if (point === 'poll:iommufd:wait-cnt') throw new NotSchedulable(point);
  });
  try {
    make(nested);
    return !stuck;
  } catch (error) {
    if (stuck || isDeadlock(error)) return false;
    throw error;
  } finally {
    stop();
  }
}
