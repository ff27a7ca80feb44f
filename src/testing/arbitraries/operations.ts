/** Arbitraries of single operations, from those of the families. */
import fc from 'fast-check';
import { CaseError } from '../lab-config.ts';
import type { Operation, OperationName } from '../operation.ts';
import type { Weights } from '../property.ts';
import { makers } from './families/index.ts';
import type { Pools } from './pools.ts';

export * from './pools.ts';

/** One operation, drawn by the weights. @throws CaseError for a name that no operation has, and if no weight is above 0 */
export function operation(weights: Weights, from: Pools): fc.Arbitrary<Operation> {
  const all = makers(from);
  const weighted = (Object.keys(weights) as OperationName[]).flatMap((name) => {
    const weight = weights[name] ?? 0;
    if (!Object.hasOwn(all, name))
      throw new CaseError(`weights: there is no operation ${name}; there are ${Object.keys(all).join(', ')}`);
    return weight === 0 ? [] : [{ weight, arbitrary: all[name] as fc.Arbitrary<Operation> }];
  });
  if (weighted.length === 0) throw new CaseError('weights: no operation has a weight above 0');
  return fc.oneof(...weighted);
}
