import type { Flavour } from '../flavour.ts';

/** Objects and attachments come and go: who owns which VMID. */
export const owners: Flavour = {
  name: 'owners',
  title: 'vIOMMUs, nested HWPTs and attachments come and go in all orders',
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
    fail: 1,
  },
};
