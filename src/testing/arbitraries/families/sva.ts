/** Arbitraries of shared virtual addressing. */
import fc from 'fast-check';
import type { SvaOperation } from '../../operations/sva.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page } from '../values.ts';

/** See the module comment. */
export const svaMakers = (p: Pools): Makers<SvaOperation> => ({
  svaBind: fc.record({ op: op('svaBind'), as: oneOf(p.bonds), dev: oneOf(p.devices), mm: oneOf(p.processes) }),
  svaUnbind: fc.record({ op: op('svaUnbind'), name: oneOf(p.bonds) }),
  mmMap: fc.record({ op: op('mmMap'), mm: oneOf(p.processes), page, to: fc.option<number>(page, { freq: 3 }) }),
  mmExec: fc.record({ op: op('mmExec'), mm: oneOf(p.processes) }),
});
