/** The step that makes something fail. */
import { z } from 'zod';
import type { FailureOperation } from '../../testing/operations/failures.ts';
import { type Shapes, small } from './values.ts';

/** See the module comment. */
export const failureShapes: Shapes<FailureOperation> = {
  fail: { point: z.string().min(1).max(100), nth: small(1, 1_000_000).default(1) },
};
