import fc from 'fast-check';
import { place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import { GUEST_PAGES } from '../guest.ts';
import type { Operation } from '../operation.ts';

/** A device reaches copies of what a VM's space maps, in a space of their own. */
const copies = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, from: page, s2: fc.boolean() }).map(({ at, page, from, s2 }): Operation[] => {
    const { dev, ioas: source, s2: name } = at;
    const ioas = p.ioas.at(-1) ?? source;
    const dma: Operation = { op: 'dma', dev, page };
    return [
      { op: 'ioasAlloc', as: ioas },
      { op: 'copy', ioas, source, page, from, pages: 1 },
      { op: 'hwptAlloc', as: name, dev, ioas, nestParent: s2 },
      { op: 'attach', dev, to: name },
      dma,
      { op: 'unmap', ioas: source, page: from, pages: 1 },
      dma,
      { op: 'unmapAll', ioas },
      dma,
    ];
  });

/** A VM loses its memory and gets it back. */
const rebuilt = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, file: fc.boolean() }).map(({ at: { dev, ioas, vm }, page, file }): Operation[] => [
    { op: 'dma', dev, page },
    { op: 'unmapAll', ioas },
    { op: 'dma', dev, page },
    { op: 'map', ioas, vm, page: 0, from: 0, pages: GUEST_PAGES, ...(file ? { file } : {}) },
    { op: 'dma', dev, page },
  ]);

/** Address spaces are copied, emptied and filled again, by address and as files. */
export const spaces: Flavour = {
  name: 'spaces',
  title: 'address spaces are copied, emptied and filled again under DMA',
  weights: {
    ioasAlloc: 1,
    map: 4,
    unmap: 4,
    unmapAll: 1,
    copy: 4,
    hwptAlloc: 2,
    viommuAlloc: 1,
    vdeviceAlloc: 1,
    nestedAlloc: 2,
    attach: 6,
    detach: 2,
    destroy: 2,
    dma: 10,
    fail: 1,
  },
  chains: (p) => [
    { weight: 2, arbitrary: copies(p) },
    { weight: 1, arbitrary: rebuilt(p) },
  ],
};
