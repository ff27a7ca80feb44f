/** Arbitraries of what a guest does itself. */
import fc from 'fast-check';
import { GUEST_SPACES } from '../../guest.ts';
import { type GuestCommand, REFUSED_COMMANDS } from '../../operations/guest-command.ts';
import type { GuestOperation } from '../../operations/guests.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { cd, page, pages, pasid, seldom, space, vsid } from '../values.ts';

const asid = fc.integer({ min: 1, max: GUEST_SPACES });
const leaf = fc.boolean();
const name = <N extends GuestCommand['command']>(...names: readonly N[]): fc.Arbitrary<N> => fc.constantFrom(...names);

/** A command that removes everything there is of a VM, or of an address space. */
const wholesale: fc.Arbitrary<GuestCommand> = fc.oneof(
  fc.constantFrom<GuestCommand>({ command: 'NSNH_ALL' }, { command: 'NH_ALL' }),
  fc.record({ command: name('NH_ASID'), asid }),
);

/** A command of a guest's that the kernel takes if it knows the vSID. */
export const guestCommand: fc.Arbitrary<GuestCommand> = fc.oneof(
  { weight: 3, arbitrary: wholesale },
  { weight: 2, arbitrary: fc.record({ command: name('NH_VA'), asid, page, pages, leaf }) },
  { weight: 1, arbitrary: fc.record({ command: name('NH_VAA'), page, pages, leaf }) },
  { weight: 2, arbitrary: seldom(fc.record({ command: name('CFGI_CD', 'CFGI_CD_ALL'), vsid }), { ssid: 1 }) },
);

/** A command of a guest's whose devices have ATS. */
export const atsCommand: fc.Arbitrary<GuestCommand> = fc.oneof(
  fc.record({ command: name('ATC_INV'), vsid }),
  seldom(fc.record({ command: name('ATC_INV'), vsid, page, pages }), { ssid: 1 }),
);

/** A command that the kernel refuses. */
export const refusedCommand: fc.Arbitrary<GuestCommand> = fc.record({ command: name(...REFUSED_COMMANDS), vsid });

/** Commands in one call; some calls have one in them that is refused. */
export const guestCommands = (one: fc.Arbitrary<GuestCommand> = guestCommand): fc.Arbitrary<GuestCommand[]> =>
  fc.oneof(
    { weight: 9, arbitrary: fc.array(one, { minLength: 1, maxLength: 3 }) },
    { weight: 1, arbitrary: fc.array(fc.oneof(one, refusedCommand), { minLength: 1, maxLength: 4 }) },
  );

/** See the module comment. */
export const guestMakers = (p: Pools): Makers<GuestOperation> => ({
  invalidate: fc.record({
    op: op('invalidate'),
    on: oneOf([...p.viommus, ...p.viommus, ...p.nested]),
    commands: guestCommands(),
  }),
  guestMap: fc.record({
    op: op('guestMap'),
    vm: oneOf(p.vms),
    space,
    page,
    to: fc.option<number>(page, { freq: 4 }),
  }),
  guestCd: seldom(
    fc.record({ op: op('guestCd'), vm: oneOf(p.vms), cd, space: fc.option<number>(space, { freq: 4 }) }),
    { stall: true },
    { outside: true },
    { asid: 1 },
  ),
  guestTable: fc.record({
    op: op('guestTable'),
    vm: oneOf(p.vms),
    space,
    level: fc.integer({ min: 1, max: 2 }),
    to: fc.oneof(
      { weight: 4, arbitrary: space },
      { weight: 1, arbitrary: fc.constantFrom(null, 'outside' as const, 'beyond' as const) },
    ),
  }),
});

/** A SubstreamID for commands by vSID. */
export const withSsid = (one: fc.Arbitrary<GuestCommand>): fc.Arbitrary<GuestCommand> =>
  fc.tuple(one, pasid).map(([command, ssid]) => ({ ...command, ssid }));
