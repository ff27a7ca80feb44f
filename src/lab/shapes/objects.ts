/** Steps on iommufd objects. */
import { z } from 'zod';
import { GUEST_CDS } from '../../testing/guest.ts';
import type { ObjectOperation } from '../../testing/operations/objects.ts';
import { name, type Shapes, small, word32 } from './values.ts';

/** See the module comment. */
export const objectShapes: Shapes<ObjectOperation> = {
  hwptAlloc: { as: name, dev: name, ioas: name, nestParent: z.boolean().optional() },
  viommuAlloc: { as: name, dev: name, parent: name },
  vdeviceAlloc: { as: name, dev: name, viommu: name, vsid: word32 },
  nestedAlloc: {
    as: name,
    dev: name,
    on: name,
    vste: z.enum(['abort', 'bypass', 'translate']),
    cd: small(0, GUEST_CDS - 1).optional(),
    ats: z.boolean().optional(),
  },
  destroy: { name },
};
