/** Arbitraries of what devices with ATS do. */
import fc from 'fast-check';
import type { AtsOperation } from '../../operations/ats.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page, seldom } from '../values.ts';

/** See the module comment. */
export const atsMakers = (p: Pools): Makers<AtsOperation> => ({
  translate: fc.record({ op: op('translate'), dev: oneOf(p.devices), page, write: fc.boolean() }),
  forge: fc.record({ op: op('forge'), dev: oneOf(p.devices), page }),
  pageRequest: seldom(fc.record({ op: op('pageRequest'), dev: oneOf(p.devices), page, write: fc.boolean() }), {
    pasid: 1,
  }),
  atcHang: fc.record({ op: op('atcHang'), dev: oneOf(p.devices), on: fc.boolean() }),
});
