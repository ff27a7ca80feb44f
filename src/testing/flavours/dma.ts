import type { Flavour } from '../flavour.ts';

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
};
