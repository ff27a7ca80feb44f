/** Arbitraries of PASIDs. */
import fc from 'fast-check';
import type { PasidOperation } from '../../operations/pasids.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { pasid } from '../values.ts';

/** See the module comment. */
export const pasidMakers = (p: Pools): Makers<PasidOperation> => ({
  pasidAttach: fc.record({
    op: op('pasidAttach'),
    dev: oneOf(p.devices),
    pasid,
    to: oneOf([...p.s2s, ...p.s2s, ...p.ioas, ...p.nested]),
  }),
  pasidDetach: fc.record({ op: op('pasidDetach'), dev: oneOf(p.devices), pasid }),
});
