/** Steps on devices. */
import { z } from 'zod';
import type { DeviceOperation } from '../../testing/operations/devices.ts';
import { dataPage, name, type Shapes } from './values.ts';

/** See the module comment. */
export const deviceShapes: Shapes<DeviceOperation> = {
  attach: { dev: name, to: name },
  detach: { dev: name },
  bind: { dev: name },
  unbind: { dev: name },
  dma: { dev: name, page: dataPage, write: z.boolean().optional() },
};
