/** Steps of a guest's. */
import { z } from 'zod';
import { GUEST_CDS, GUEST_SPACES } from '../../testing/guest.ts';
import { ACCEPTED_COMMANDS, REFUSED_COMMANDS } from '../../testing/operations/guest-command.ts';
import type { GuestOperation } from '../../testing/operations/guests.ts';
import { dataPage, name, page, pages, pasid, type Shapes, small, word32 } from './values.ts';

/** A command of a guest's. */
export const guestCommand = z.strictObject({
  command: z.enum([...ACCEPTED_COMMANDS, ...REFUSED_COMMANDS]),
  vsid: word32.optional(),
  asid: small(0, 0xffff).optional(),
  vmid: small(0, 0xffff).optional(),
  ssid: pasid.optional(),
  page: page.optional(),
  pages: pages.optional(),
  leaf: z.boolean().optional(),
});

const space = small(0, GUEST_SPACES - 1);

/** See the module comment. */
export const guestShapes: Shapes<GuestOperation> = {
  invalidate: { on: name, commands: z.array(guestCommand).min(1).max(1000) },
  guestCd: {
    vm: name,
    cd: small(0, GUEST_CDS - 1),
    space: space.nullable(),
    asid: small(0, 0xffff).optional(),
    stall: z.boolean().optional(),
    outside: z.boolean().optional(),
  },
  guestTable: {
    vm: name,
    space,
    level: small(1, 2),
    to: z.union([space, z.enum(['outside', 'beyond'])]).nullable(),
  },
  guestMap: { vm: name, space, page: dataPage, to: dataPage.nullable() },
};
