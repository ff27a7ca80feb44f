import type { Flavour } from '../flavour.ts';

/** Objects of all kinds are made and destroyed, address spaces too. */
export const lives: Flavour = {
  name: 'lives',
  title: 'objects of all kinds are made and destroyed, devices unplugged',
  weights: {
    ioasAlloc: 1,
    map: 2,
    unmap: 2,
    hwptAlloc: 4,
    viommuAlloc: 4,
    vdeviceAlloc: 4,
    nestedAlloc: 4,
    attach: 6,
    detach: 2,
    destroy: 4,
    bind: 1,
    unbind: 2,
    fail: 3,
  },
};
