import fc from 'fast-check';
import { commands, nestedUp, place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** Both streams of a device are a guest's, where the kernel lets it; one CD is for both. */
const both = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, all: fc.boolean() }).map(({ at, page, all }): Operation[] => {
    const { dev, vm, vsid, s2 } = at;
    const dma: Operation[] = [0, 1].map((stream): Operation => ({ op: 'dma', dev, page, stream }));
    return [
      ...nestedUp(at),
      ...dma,
      { op: 'guestCd', vm, cd: 0, space: 1 },
      commands(at, { command: all ? 'CFGI_CD_ALL' : 'CFGI_CD', vsid }, { command: 'NH_ALL' }),
      ...dma,
      { op: 'guestCd', vm, cd: 0, space: 0 },
      { op: 'attach', dev, to: s2 },
      ...dma,
    ];
  });

/** Devices have two StreamIDs each. */
export const streams: Flavour = {
  name: 'streams',
  title: 'devices with two StreamIDs are attached, unmapped and detached',
  lab: { streams: [2] },
  weights: {
    hwptAlloc: 2,
    viommuAlloc: 2,
    vdeviceAlloc: 2,
    nestedAlloc: 3,
    attach: 8,
    detach: 3,
    destroy: 3,
    map: 2,
    unmap: 3,
    dma: 6,
    invalidate: 2,
    fail: 1,
  },
  chains: (p) => [{ weight: 3, arbitrary: both(p) }],
};
