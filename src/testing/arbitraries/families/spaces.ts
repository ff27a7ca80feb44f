/** Arbitraries of IO address spaces and what is in them. */
import fc from 'fast-check';
import type { SpaceOperation } from '../../operations/spaces.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page, pages } from '../values.ts';

/** See the module comment. */
export const spaceMakers = (p: Pools): Makers<SpaceOperation> => ({
  ioasAlloc: fc.record({ op: op('ioasAlloc'), as: oneOf(p.ioas) }),
  // The memory of each VM goes into its own space and no other: what crosses over then is a defect.
  map: fc
    .nat({ max: p.vms.length - 1 })
    .chain((i) =>
      fc.record({ op: op('map'), ioas: fc.constant(`a${i}`), vm: fc.constant(`vm${i}`), page, from: page, pages }),
    ),
  unmap: fc.record({ op: op('unmap'), ioas: oneOf(p.ioas), page, pages }),
});
