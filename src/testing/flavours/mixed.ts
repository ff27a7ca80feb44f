import type { Flavour } from '../flavour.ts';

/** A bit of everything. */
export const mixed: Flavour = {
  name: 'mixed',
  title: 'a bit of everything',
  weights: {
    hwptAlloc: 3,
    viommuAlloc: 4,
    vdeviceAlloc: 3,
    nestedAlloc: 5,
    attach: 8,
    detach: 3,
    destroy: 5,
    bind: 1,
    unbind: 1,
    map: 2,
    unmap: 3,
    dma: 8,
    invalidate: 3,
    guestMap: 2,
  },
};
