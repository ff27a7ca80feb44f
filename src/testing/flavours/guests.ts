import fc from 'fast-check';
import { guestCommand, guestCommands } from '../arbitraries/families/guests.ts';
import { commands, nestedUp, type Place, place, renest } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { cd, page, space } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';
import type { GuestCommand } from '../operations/guest-command.ts';
import { events, handedOn } from './faults.ts';

/** A change of a guest's own memory, with the commands that make it known. */
interface Change {
  readonly op: Operation;
  readonly known: readonly GuestCommand[];
}

const changes = ({ vm, vsid }: Place, page: number): fc.Arbitrary<Change> =>
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc
        .record({ space, to: fc.option<number>(fc.integer({ min: 8, max: 15 }), { freq: 4 }), leaf: fc.boolean() })
        .map(
          ({ space, to, leaf }): Change => ({
            op: { op: 'guestMap', vm, space, page, to },
            known: [{ command: 'NH_VA', asid: space + 1, page, leaf }],
          }),
        ),
    },
    {
      weight: 2,
      arbitrary: fc.record({ space, level: fc.constantFrom(1, 2), to: space }).map(
        ({ space, level, to }): Change => ({
          op: { op: 'guestTable', vm, space, level, to },
          known: [{ command: 'NH_ASID', asid: space + 1 }],
        }),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.record({ space, all: fc.boolean() }).map(
        ({ space, all }): Change => ({
          op: { op: 'guestCd', vm, cd: 0, space },
          known: [all ? { command: 'CFGI_CD_ALL', vsid } : { command: 'CFGI_CD', vsid }, { command: 'NH_ALL' }],
        }),
      ),
    },
  );

/** A device of a guest does DMA, the guest changes what translates it, and says so, or not, or something else. */
const changed = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page }).chain(({ at, page }) =>
    fc
      .record({
        change: changes(at, page),
        said: fc.oneof(
          { weight: 3, arbitrary: fc.constant(null) },
          { weight: 2, arbitrary: guestCommands(guestCommand) },
        ),
        write: fc.boolean(),
      })
      .map(({ change, said, write }): Operation[] => [
        ...nestedUp(at),
        { op: 'dma', dev: at.dev, page, write },
        change.op,
        { op: 'dma', dev: at.dev, page },
        commands(at, ...(said ?? change.known)),
        { op: 'dma', dev: at.dev, page },
      ]),
  );

/** A guest changes its STE: its VMM makes another nested HWPT and moves the device to it. */
const moved = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, cd, other: cd }).map(({ at, page, cd, other }): Operation[] => {
    const { dev, ioas, nested } = at;
    const dma: Operation = { op: 'dma', dev, page };
    return [
      ...nestedUp(at, { cd }),
      dma,
      { op: 'attach', dev, to: ioas },
      { op: 'destroy', name: nested },
      ...renest(at, { cd: other }),
      dma,
    ];
  });

/** A vDEVICE goes; its vSID is another's, or nobody's. */
const renamed = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, vsid: fc.integer({ min: 0, max: 3 }) }).map(({ at, page, vsid }): Operation[] => {
    const { dev, viommu, vdevice, vm } = at;
    const invalidate = (vsid: number): Operation => commands(at, { command: 'CFGI_CD', vsid }, { command: 'NH_ALL' });
    return [
      ...nestedUp(at),
      { op: 'dma', dev, page },
      { op: 'guestCd', vm, cd: 0, space: 1 },
      invalidate(at.vsid),
      { op: 'dma', dev, page },
      { op: 'destroy', name: vdevice },
      invalidate(at.vsid),
      { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid },
      { op: 'guestCd', vm, cd: 0, space: 0 },
      invalidate(vsid),
      { op: 'dma', dev, page },
    ];
  });

/** Guests change their own tables, CDs and STEs and send commands of all kinds. */
export const guests: Flavour = {
  name: 'guests',
  title: 'guests change their tables, CDs and STEs and send all kinds of commands',
  lab: { streams: [1, 1, 1, 2] },
  share: 2,
  weights: {
    hwptAlloc: 1,
    viommuAlloc: 1,
    vdeviceAlloc: 2,
    nestedAlloc: 2,
    attach: 5,
    detach: 2,
    destroy: 3,
    map: 1,
    unmap: 2,
    dma: 10,
    guestMap: 4,
    guestCd: 3,
    guestTable: 2,
    invalidate: 8,
    veventRead: 1,
  },
  chains: (p) => [
    { weight: 3, arbitrary: changed(p) },
    { weight: 1, arbitrary: moved(p) },
    { weight: 1, arbitrary: renamed(p) },
    { weight: 2, arbitrary: events(p) },
    { weight: 1, arbitrary: handedOn(p) },
  ],
};
