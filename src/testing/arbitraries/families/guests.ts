/** Arbitraries of what a guest does itself. */
import fc from 'fast-check';
import { GUEST_SPACES } from '../../guest.ts';
import type { GuestCommand, GuestOperation } from '../../operations/guests.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page, space, vsid } from '../values.ts';

/** A command of a guest's. */
export const guestCommand: fc.Arbitrary<GuestCommand> = fc.oneof(
  fc.constantFrom<GuestCommand>({ command: 'NSNH_ALL' }, { command: 'NH_ALL' }),
  fc.record({ command: fc.constant('NH_ASID' as const), asid: fc.integer({ min: 1, max: GUEST_SPACES }) }),
  fc.record({ command: fc.constantFrom('CFGI_CD' as const, 'CFGI_CD_ALL' as const), vsid }),
);

/** See the module comment. */
export const guestMakers = (p: Pools): Makers<GuestOperation> => ({
  invalidate: fc.record({
    op: op('invalidate'),
    on: oneOf([...p.viommus, ...p.viommus, ...p.nested]),
    commands: fc.array(guestCommand, { minLength: 1, maxLength: 3 }),
  }),
  guestMap: fc.record({
    op: op('guestMap'),
    vm: oneOf(p.vms),
    space,
    page,
    to: fc.option<number>(page, { freq: 4 }),
  }),
});
