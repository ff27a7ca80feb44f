/** A CMD_SYNC that is not seen to complete: what it should have protected may not be reused. */
import fc from 'fast-check';
import { operation } from '../arbitraries/operations.ts';
import type { Pools } from '../arbitraries/pools.ts';
import type { Chain, Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** Operations that wait for the Command queue. */
const WAITING = { attach: 6, detach: 4, destroy: 4, unmap: 5, invalidate: 3, unbind: 1 } as const;

/** An operation during which a poll of the Command queue times out; sometimes the next one too. */
const unheard = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .array(
      fc.record({
        nth: fc.integer({ min: 1, max: 5 }),
        waiting: operation(WAITING, p),
        point: fc.constantFrom('sync', 'sync', 'space'),
      }),
      { minLength: 1, maxLength: 3 },
    )
    .map((all) =>
      all.flatMap(({ nth, waiting, point }): Operation[] => [
        { op: 'fail', point: `poll:cmdq:${point}`, nth },
        waiting,
      ]),
    );

/** See the module comment. */
export const timeouts: Flavour = {
  name: 'timeouts',
  title: 'polls of the Command queue time out while attachments, mappings and objects go',
  weights: {
    hwptAlloc: 3,
    viommuAlloc: 3,
    vdeviceAlloc: 2,
    nestedAlloc: 3,
    attach: 6,
    detach: 3,
    destroy: 5,
    map: 2,
    unmap: 2,
    dma: 6,
    invalidate: 2,
  },
  chains: (p): readonly Chain[] => [{ weight: 2, arbitrary: unheard(p) }],
};
