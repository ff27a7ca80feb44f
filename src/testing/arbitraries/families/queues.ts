/** Arbitraries of fault queues and vEVENTQs. */
import fc from 'fast-check';
import type { QueueOperation } from '../../operations/queues.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';

/** See the module comment. */
export const queueMakers = (p: Pools): Makers<QueueOperation> => ({
  faultQueueAlloc: fc.record({ op: op('faultQueueAlloc'), as: oneOf(p.faults), dev: oneOf(p.devices) }),
  faultRead: fc.record({ op: op('faultRead'), on: oneOf(p.faults) }),
  faultRespond: fc.record({
    op: op('faultRespond'),
    on: oneOf(p.faults),
    code: fc.constantFrom('success' as const, 'invalid' as const),
  }),
  // The queue of a vIOMMU has its number: there is one of a type.
  veventqAlloc: fc.nat({ max: p.viommus.length - 1 }).chain((i) =>
    fc.record({
      op: op('veventqAlloc'),
      as: fc.constant(`e${i}`),
      viommu: fc.constant(`v${i}`),
      depth: fc.constantFrom(1, 2, 8),
    }),
  ),
  veventRead: fc.record({ op: op('veventRead'), on: oneOf(p.veventqs) }),
  queueClose: fc.record({ op: op('queueClose'), on: oneOf([...p.faults, ...p.veventqs]) }),
});
