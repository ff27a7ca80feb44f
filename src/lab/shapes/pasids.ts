/** Steps on PASIDs. */
import type { PasidOperation } from '../../testing/operations/pasids.ts';
import { name, pasid, type Shapes } from './values.ts';

/** See the module comment. */
export const pasidShapes: Shapes<PasidOperation> = {
  pasidAttach: { dev: name, pasid, to: name },
  pasidDetach: { dev: name, pasid },
};
