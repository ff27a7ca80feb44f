/** Arbitraries of IO address spaces and what is in them. */
import fc from 'fast-check';
import type { SpaceOperation } from '../../operations/spaces.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page, pages, seldom } from '../values.ts';

/** See the module comment. */
export const spaceMakers = (p: Pools): Makers<SpaceOperation> => {
  const vm = fc.nat({ max: p.vms.length - 1 });
  return {
    ioasAlloc: fc.record({ op: op('ioasAlloc'), as: oneOf(p.ioas) }),
    // The memory of each VM goes into its own space and no other: what crosses over then is a defect.
    map: vm.chain((i) =>
      seldom(
        fc.record({ op: op('map'), ioas: fc.constant(`a${i}`), vm: fc.constant(`vm${i}`), page, from: page, pages }),
        { readonly: true },
        { file: true },
      ),
    ),
    unmap: fc.record({ op: op('unmap'), ioas: oneOf(p.ioas), page, pages }),
    unmapAll: fc.record({ op: op('unmapAll'), ioas: oneOf(p.ioas) }),
    // Into the space that is nobody's.
    copy: vm.chain((i) =>
      seldom(
        fc.record({
          op: op('copy'),
          ioas: fc.constant(`a${p.vms.length}`),
          source: fc.constant(`a${i}`),
          page,
          from: page,
          pages,
        }),
        { readonly: true },
      ),
    ),
    dirtyTracking: fc.record({ op: op('dirtyTracking'), hwpt: oneOf(p.s2s), on: fc.boolean() }),
    dirtyRead: fc.record({ op: op('dirtyRead'), hwpt: oneOf(p.s2s) }),
  };
};
