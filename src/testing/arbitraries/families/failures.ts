/** Arbitraries of failures. */
import fc from 'fast-check';
import type { FailureOperation } from '../../operations/failures.ts';
import { type Makers, op } from '../pools.ts';

/** See the module comment. */
export const failureMakers = (): Makers<FailureOperation> => ({
  fail: fc.record({
    op: op('fail'),
    point: fc.constantFrom('alloc:', 'ids:', 'copy:'),
    nth: fc.integer({ min: 1, max: 6 }),
  }),
});
