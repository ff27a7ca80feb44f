/** Steps on iommufd objects. */
import { z } from 'zod';
import { GUEST_CDS } from '../../testing/guest.ts';
import type { ObjectOperation } from '../../testing/operations/objects.ts';
import { name, type Shapes, small, word32 } from './values.ts';

/** See the module comment. */
export const objectShapes: Shapes<ObjectOperation> = {
  hwptAlloc: {
    as: name,
    dev: name,
    ioas: name,
    nestParent: z.boolean().optional(),
    pasid: z.boolean().optional(),
    dirty: z.boolean().optional(),
    fault: name.optional(),
  },
  viommuAlloc: { as: name, dev: name, parent: name, type: z.enum(['arm-smmuv3', 'tegra241-cmdqv']).optional() },
  vdeviceAlloc: { as: name, dev: name, viommu: name, vsid: word32 },
  nestedAlloc: {
    as: name,
    dev: name,
    on: name,
    vste: z.enum(['abort', 'bypass', 'translate', 'stage2']),
    cd: small(0, GUEST_CDS - 1).optional(),
    ats: z.boolean().optional(),
    ssids: small(0, 31).optional(),
    dss: z.enum(['TERMINATE', 'BYPASS', 'SSID0']).optional(),
    stalld: z.boolean().optional(),
    fault: name.optional(),
  },
  destroy: { name },
};
