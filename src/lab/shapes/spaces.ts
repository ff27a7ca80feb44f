/** Steps on IO address spaces. */
import { z } from 'zod';
import type { SpaceOperation } from '../../testing/operations/spaces.ts';
import { name, page, pages, type Shapes } from './values.ts';

/** See the module comment. */
export const spaceShapes: Shapes<SpaceOperation> = {
  ioasAlloc: { as: name },
  map: {
    ioas: name,
    vm: name,
    page,
    from: page,
    pages,
    readonly: z.boolean().optional(),
    file: z.boolean().optional(),
  },
  unmap: { ioas: name, page, pages },
  unmapAll: { ioas: name },
  copy: { ioas: name, source: name, page, from: page, pages, readonly: z.boolean().optional() },
  dirtyTracking: { hwpt: name, on: z.boolean() },
  dirtyRead: { hwpt: name },
};
