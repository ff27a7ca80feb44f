/** Steps of devices with ATS. */
import { z } from 'zod';
import type { AtsOperation } from '../../testing/operations/ats.ts';
import { dataPage, name, pasid, type Shapes } from './values.ts';

/** See the module comment. */
export const atsShapes: Shapes<AtsOperation> = {
  translate: { dev: name, page: dataPage, write: z.boolean().optional(), pasid: pasid.optional() },
  forge: { dev: name, page: dataPage },
  pageRequest: { dev: name, page: dataPage, write: z.boolean().optional(), pasid: pasid.optional() },
  atcHang: { dev: name, on: z.boolean() },
};
