import fc from 'fast-check';
import { commands, nestedUp, type Place, place, renest } from '../arbitraries/places.ts';
import { EACH, type Pools } from '../arbitraries/pools.ts';
import { page, vsteMode } from '../arbitraries/values.ts';
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

/** A device that nobody allowed to asks for a page, and then gets another owner. */
const asked = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, write: fc.boolean(), forged: fc.boolean() })
    .map(({ at: { dev, ioas }, page, write, forged }): Operation[] => [
      { op: 'attach', dev, to: ioas },
      forged ? { op: 'forge', dev, page } : { op: 'pageRequest', dev, page, write },
      { op: 'unbind', dev },
      { op: 'forge', dev, page },
      { op: 'bind', dev },
      through(dev, page, write),
    ]);

/** A guest whose device has translations changes its STE to one of another kind, and back. */
const restated = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, first: fc.boolean(), vste: vsteMode, ats: fc.boolean(), write: fc.boolean() })
    .map(({ at, page, first, vste, ats, write }): Operation[] => {
      const { dev, viommu, nested } = at;
      // The name of its SMMU's other nested HWPT: a VMM makes the new one before it destroys the old.
      const number = Number(nested.slice(1));
      const next = p.nested[number % EACH === 0 ? number + 1 : number - 1] ?? nested;
      return [
        ...(first ? nestedUp(at, { ats: true }) : []),
        through(dev, page, write),
        { op: 'destroy', name: next },
        { op: 'nestedAlloc', as: next, dev, on: viommu, vste, ats },
        { op: 'attach', dev, to: next },
        { op: 'destroy', name: nested },
        through(dev, page, write),
        ...renest(at, { ats: true }),
        through(dev, page, write),
      ];
    });

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
    forge: 2,
    pageRequest: 2,
    resetBegin: 1,
    resetEnd: 2,
  },
  chains: (p) => [
    { weight: 3, arbitrary: nested(p) },
    { weight: 2, arbitrary: direct(p) },
    { weight: 1, arbitrary: restated(p) },
    { weight: 1, arbitrary: asked(p) },
  ],
};
