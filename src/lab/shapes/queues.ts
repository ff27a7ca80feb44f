/** Steps on fault queues and vEVENTQs. */
import { z } from 'zod';
import type { QueueOperation } from '../../testing/operations/queues.ts';
import { name, type Shapes, small } from './values.ts';

/** See the module comment. */
export const queueShapes: Shapes<QueueOperation> = {
  faultQueueAlloc: { as: name, dev: name },
  faultRead: { on: name },
  faultRespond: { on: name, code: z.enum(['success', 'invalid']) },
  veventqAlloc: {
    as: name,
    viommu: name,
    depth: small(1, 1 << 19),
    type: z.enum(['arm-smmuv3', 'tegra241-cmdqv']).optional(),
  },
  veventRead: { on: name },
  queueClose: { on: name },
};
