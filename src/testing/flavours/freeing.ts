import type { Flavour } from '../flavour.ts';

/** Objects are destroyed while devices still do DMA: what a freed VMID leaves in hardware. */
export const freeing: Flavour = {
  name: 'freeing',
  title: 'VMIDs are freed while devices do DMA',
  weights: {
    hwptAlloc: 3,
    viommuAlloc: 4,
    vdeviceAlloc: 3,
    nestedAlloc: 5,
    attach: 8,
    detach: 4,
    destroy: 8,
    unbind: 1,
    bind: 1,
    dma: 6,
    invalidate: 1,
  },
};
