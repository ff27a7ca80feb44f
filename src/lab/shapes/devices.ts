/** Steps on devices. */
import { z } from 'zod';
import { type DeviceOperation, MOST_ACCESSES } from '../../testing/operations/devices.ts';
import { dataPage, name, pasid, type Shapes, small } from './values.ts';

/** See the module comment. */
export const deviceShapes: Shapes<DeviceOperation> = {
  attach: { dev: name, to: name },
  detach: { dev: name },
  bind: { dev: name },
  unbind: { dev: name },
  dma: {
    dev: name,
    page: dataPage,
    write: z.boolean().optional(),
    ats: z.boolean().optional(),
    pasid: pasid.optional(),
    stream: small(0, 1).optional(),
    times: small(1, MOST_ACCESSES).optional(),
    unheard: z.boolean().optional(),
  },
  settle: { dev: name },
  resetBegin: { dev: name },
  resetEnd: { dev: name },
};
