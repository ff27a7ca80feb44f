/** Arbitraries of single operations, from those of the families. */
import fc from 'fast-check';
import type { Operation, OperationName } from '../operation.ts';
import type { Weights } from '../property.ts';
import { makers } from './families/index.ts';
import type { Pools } from './pools.ts';

export * from './pools.ts';

/** One operation, drawn by the weights. */
export function operation(weights: Weights, from: Pools): fc.Arbitrary<Operation> {
  const all = makers(from);
  const weighted = (Object.keys(weights) as OperationName[]).flatMap((name) => {
    const weight = weights[name] ?? 0;
    return weight === 0 ? [] : [{ weight, arbitrary: all[name] as fc.Arbitrary<Operation> }];
  });
  return fc.oneof(...weighted);
}
