/** Steps of a guest's. */
import { z } from 'zod';
import { GUEST_SPACES } from '../../testing/guest.ts';
import type { GuestOperation } from '../../testing/operations/guests.ts';
import { dataPage, name, type Shapes, small, word32 } from './values.ts';

const guestCommand = z.strictObject({
  command: z.enum(['NSNH_ALL', 'NH_ALL', 'NH_ASID', 'CFGI_CD', 'CFGI_CD_ALL']),
  vsid: word32.optional(),
  asid: small(0, 0xffff).optional(),
});

/** See the module comment. */
export const guestShapes: Shapes<GuestOperation> = {
  invalidate: { on: name, commands: z.array(guestCommand).min(1).max(1000) },
  guestMap: { vm: name, space: small(0, GUEST_SPACES - 1), page: dataPage, to: dataPage.nullable() },
};
