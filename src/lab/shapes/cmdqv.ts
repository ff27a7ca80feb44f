/** Steps on a Tegra241 CMDQV. */
import { z } from 'zod';
import { GUEST_PAGES } from '../../testing/guest.ts';
import { type CmdqvOperation, PAGE0_REGISTERS } from '../../testing/operations/cmdqv.ts';
import { guestCommand } from './guests.ts';
import { name, type Shapes, small, word32 } from './values.ts';

/** LVCMDQs of a page of registers. */
const index = small(0, 511);
const queue = { window: name, index };
const register = z.enum(Object.keys(PAGE0_REGISTERS) as [keyof typeof PAGE0_REGISTERS]);
const command = z.union([z.strictObject({ command: z.enum(['SYNC_IRQ', 'GARBAGE']) }), guestCommand]);

/** See the module comment. */
export const cmdqvShapes: Shapes<CmdqvOperation> = {
  hwQueueAlloc: {
    as: name,
    viommu: name,
    index,
    page: small(0, 2 * GUEST_PAGES),
    offset: small(0, 4095).optional(),
    bytes: small(0, 0x10_0000),
  },
  mmap: { as: name, viommu: name, vm: name },
  munmap: { name },
  vcmdqStart: queue,
  vcmdqStop: queue,
  vcmdqRecover: queue,
  vcmdqIssue: { ...queue, commands: z.array(command).min(1).max(1000), post: z.boolean().optional() },
  vcmdqWrite: { ...queue, register, value: word32 },
  vcmdqRead: { ...queue, register },
};
