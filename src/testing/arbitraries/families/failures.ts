/** Arbitraries of failures. */
import fc from 'fast-check';
import type { FailureOperation } from '../../operations/failures.ts';
import { type Makers, op } from '../pools.ts';

/** How many uses of a point go well before the one that fails: few of most operations, dozens of those that map memory. */
export const nth = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 10 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 30 }) },
);

/** See the module comment. */
export const failureMakers = (): Makers<FailureOperation> => ({
  fail: fc.record({ op: op('fail'), point: fc.constantFrom('alloc:', 'alloc:', 'ids:', 'copy:'), nth }),
});
