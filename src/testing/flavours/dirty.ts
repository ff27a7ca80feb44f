import fc from 'fast-check';
import { place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page, pasid } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** A VM is copied while its device writes: rounds of writes and reads of the bitmap. */
const migrated = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      by: fc.option(pasid, { freq: 3 }),
      rounds: fc.array(fc.array(page, { maxLength: 3 }), { minLength: 2, maxLength: 4 }),
      ats: fc.boolean(),
    })
    .map(({ at: { dev, ioas, s2: hwpt }, by, rounds, ats }): Operation[] => {
      const through = by === null ? {} : { pasid: by };
      return [
        { op: 'hwptAlloc', as: hwpt, dev, ioas, dirty: true, ...(by === null ? {} : { pasid: true }) },
        by === null ? { op: 'attach', dev, to: hwpt } : { op: 'pasidAttach', dev, pasid: by, to: hwpt },
        { op: 'dirtyTracking', hwpt, on: true },
        ...rounds.flatMap((pages): Operation[] => [
          ...pages.map(
            (at): Operation => ({ op: 'dma', dev, page: at, write: true, ...through, ...(ats ? { ats } : {}) }),
          ),
          { op: 'dirtyRead', hwpt },
        ]),
      ];
    });

/** Hardware keeps the dirty state. */
export const dirty: Flavour = {
  name: 'dirty',
  title: 'a VMM reads which pages devices have written, while they write and their memory changes',
  lab: { preset: ['mmu700'], pasidBits: [4], ats: [false, true] },
  weights: {
    hwptAlloc: 2,
    attach: 4,
    detach: 2,
    pasidAttach: 1,
    pasidDetach: 1,
    destroy: 2,
    map: 2,
    unmap: 2,
    dma: 8,
    dirtyTracking: 2,
    dirtyRead: 6,
    fail: 1,
  },
  chains: (p) => [{ weight: 4, arbitrary: migrated(p) }],
};
