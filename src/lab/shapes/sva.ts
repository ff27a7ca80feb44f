/** Steps of shared virtual addressing. */
import type { SvaOperation } from '../../testing/operations/sva.ts';
import { dataPage, name, type Shapes } from './values.ts';

/** See the module comment. */
export const svaShapes: Shapes<SvaOperation> = {
  svaBind: { as: name, dev: name, mm: name },
  svaUnbind: { name },
  mmMap: { mm: name, page: dataPage, to: dataPage.nullable() },
  mmExec: { mm: name },
};
