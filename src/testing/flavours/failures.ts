import fc from 'fast-check';
import { aimed, objectAims } from '../arbitraries/aimed.ts';
import { operation } from '../arbitraries/operations.ts';
import { nestedUp, place } from '../arbitraries/places.ts';
import type { Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** Operations that make something of several parts, and undo it when one fails. */
const MAKING = { hwptAlloc: 2, viommuAlloc: 3, vdeviceAlloc: 2, nestedAlloc: 2, attach: 8, detach: 1, map: 1 } as const;

/** One operation is tried again and again, and fails a step later each time, until it works or patience ends. */
const everLater = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      tried: operation(MAKING, p),
      point: fc.constantFrom('alloc:', 'alloc:', 'ids:', 'copy:'),
      first: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 8 })),
      times: fc.integer({ min: 2, max: 6 }),
    })
    .map(({ tried, point, first, times }) =>
      Array.from({ length: times }, (_, i): Operation[] => [{ op: 'fail', point, nth: first + i }, tried]).flat(),
    );

/** A VM starts on a device that has left another, and one of the steps fails before the VMM tries it again. */
const failedStart = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      step: fc.nat({ max: 4 }),
      point: fc.constantFrom('alloc:', 'alloc:', 'ids:', 'copy:to-user'),
      nth: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 5 })),
      next: operation(MAKING, p),
    })
    .map(({ at, step, point, nth, next }): Operation[] => [
      { op: 'detach', dev: at.dev },
      ...[at.nested, at.vdevice, at.viommu].map((name): Operation => ({ op: 'destroy', name })),
      ...nestedUp(at).flatMap((one, i): Operation[] =>
        i === step ? [{ op: 'fail', point, nth }, one, next, one] : [one],
      ),
    ]);

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
  chains: (p) => [
    { weight: 2, arbitrary: everLater(p) },
    { weight: 1, arbitrary: failedStart(p) },
    { weight: 1, arbitrary: aimed(p, page, objectAims(p)) },
  ],
  share: 2,
};
