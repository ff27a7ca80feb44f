import fc from 'fast-check';
import { place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** A device writes to a page that may only be read from now on. */
const protectedPage = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, s1: fc.boolean() }).map(({ at: { dev, ioas, vm, s2 }, page, s1 }): Operation[] => [
    { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
    { op: 'attach', dev, to: s1 ? ioas : s2 },
    { op: 'dma', dev, page, write: true },
    { op: 'unmap', ioas, page, pages: 1 },
    { op: 'map', ioas, vm, page, from: page, pages: 1, readonly: true },
    { op: 'dma', dev, page, write: true },
    { op: 'dma', dev, page },
  ]);

/** Devices do DMA while memory, tables and attachments change under them. */
export const dma: Flavour = {
  name: 'dma',
  title: 'devices do DMA while memory, tables and attachments change under them',
  weights: {
    hwptAlloc: 3,
    viommuAlloc: 3,
    vdeviceAlloc: 3,
    nestedAlloc: 4,
    attach: 8,
    detach: 3,
    destroy: 3,
    map: 3,
    unmap: 4,
    dma: 20,
    guestMap: 3,
    invalidate: 3,
    unbind: 1,
    bind: 1,
  },
  chains: (p) => [{ weight: 1, arbitrary: protectedPage(p) }],
};
