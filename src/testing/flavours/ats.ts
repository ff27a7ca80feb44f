import fc from 'fast-check';
import { commands, nestedUp, type Place, place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

const through = (dev: string, at: number, write = false): Operation => ({ op: 'dma', dev, page: at, write, ats: true });

/** What happens to a page that a device has cached. */
const loses = ({ dev, ioas, vm, vsid, ...at }: Place, page: number): fc.Arbitrary<Operation[]> =>
  fc.constantFrom<Operation[]>(
    [{ op: 'unmap', ioas, page, pages: 1 }],
    [
      { op: 'guestMap', vm, space: 0, page, to: null },
      commands({ dev, ioas, vm, vsid, ...at }, { command: 'NH_VA', asid: 1, page }, { command: 'ATC_INV', vsid, page }),
    ],
    [
      { op: 'guestMap', vm, space: 0, page, to: 8 },
      commands({ dev, ioas, vm, vsid, ...at }, { command: 'NH_ALL' }, { command: 'ATC_INV', vsid }),
    ],
    [{ op: 'detach', dev }],
    [{ op: 'attach', dev, to: ioas }],
    [{ op: 'resetBegin', dev }, through(dev, page), { op: 'resetEnd', dev }],
  );

/** A guest's device with ATS asks for a page, and then the page is taken away from it. */
const nested = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, write: fc.boolean(), hang: fc.nat({ max: 5 }) })
    .chain(({ at, page, write, hang }) =>
      loses(at, page).map((lose): Operation[] => [
        ...nestedUp(at, { ats: true }),
        { op: 'translate', dev: at.dev, page, write },
        through(at.dev, page, write),
        ...(hang === 0 ? [{ op: 'atcHang' as const, dev: at.dev, on: true }] : []),
        ...lose,
        through(at.dev, page, write),
        ...(hang === 0 ? [{ op: 'atcHang' as const, dev: at.dev, on: false }] : []),
      ]),
    );

/** The same without a guest: a device on a stage 2, or on a stage 1 of the host. */
const direct = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, from: page, write: fc.boolean(), s2: fc.boolean() })
    .map(({ at: { dev, ioas, vm, s2: name }, page, from, write, s2 }): Operation[] => [
      { op: 'hwptAlloc', as: name, dev, ioas, nestParent: true },
      { op: 'attach', dev, to: s2 ? name : ioas },
      through(dev, page, write),
      { op: 'unmap', ioas, page, pages: 1 },
      through(dev, page, write),
      { op: 'map', ioas, vm, page, from, pages: 1 },
      through(dev, page, write),
    ]);

/** Devices with ATS keep translations of their own. */
export const ats: Flavour = {
  name: 'ats',
  title: 'devices with ATS keep translations while what they translate is taken away',
  lab: { ats: [true], preset: ['linuxNesting', 'linuxNesting', 'grace'], pri: [false, false, true] },
  weights: {
    hwptAlloc: 1,
    viommuAlloc: 1,
    nestedAlloc: 2,
    attach: 6,
    detach: 3,
    destroy: 2,
    unbind: 1,
    bind: 1,
    map: 3,
    unmap: 4,
    dma: 4,
    translate: 6,
    guestMap: 2,
    invalidate: 3,
    atcHang: 1,
    resetBegin: 1,
    resetEnd: 2,
  },
  chains: (p) => [
    { weight: 3, arbitrary: nested(p) },
    { weight: 2, arbitrary: direct(p) },
  ],
};
