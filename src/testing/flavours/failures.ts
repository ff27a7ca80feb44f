import type { Flavour } from '../flavour.ts';

/** Allocations, ids and copies fail in the middle of things. */
export const failures: Flavour = {
  name: 'failures',
  title: 'allocations, ids and copies fail in the middle of everything',
  weights: {
    hwptAlloc: 4,
    viommuAlloc: 4,
    vdeviceAlloc: 3,
    nestedAlloc: 4,
    attach: 10,
    detach: 2,
    destroy: 3,
    bind: 1,
    unbind: 1,
    map: 1,
    fail: 8,
  },
};
