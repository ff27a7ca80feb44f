/** Many devices on one address space, each under a tag of its own: what an unmap has to reach. */
import fc from 'fast-check';
import { deviceIndex, EACH, fitting, oneOf, type Pools } from '../arbitraries/pools.ts';
import { cd, page } from '../arbitraries/values.ts';
import type { Chain, Flavour } from '../flavour.ts';
import { FIRST_DATA_PAGE, GUEST_PAGES, type VsteMode } from '../guest.ts';
import type { Operation } from '../operation.ts';

/** How a device is attached to the S2 of all. */
interface Seat {
  readonly how: 'direct' | 'nested' | 'bare' | 'none';
  /** Which of its SMMU's vIOMMUs. */
  readonly viommu: number;
  readonly vste: VsteMode;
  readonly cd: number;
}

const seat: fc.Arbitrary<Seat> = fc.record({
  how: fc.constantFrom(
    'nested' as const,
    'nested' as const,
    'nested' as const,
    'bare' as const,
    'direct' as const,
    'none' as const,
  ),
  viommu: fc.nat({ max: EACH - 1 }),
  vste: fc.constantFrom('translate' as const, 'bypass' as const),
  cd,
});

/** What attaches device `i`. Its nested HWPT has its own name, so that each has its own vSTE. */
function sit(p: Pools, s2: string, i: number, { how, viommu, vste, cd }: Seat): Operation[] {
  const dev = `d${i}`;
  const on = fitting(p.viommus, p, i)[viommu] ?? '';
  const nested = fitting(p.nested, p, i)[i % EACH] ?? '';
  if (how === 'none') return [];
  if (how === 'direct') return [{ op: 'attach', dev, to: s2 }];
  // A stage 1 of a guest's without a vIOMMU.
  if (how === 'bare')
    return [
      { op: 'nestedAlloc', as: nested, dev, on: s2, vste, cd },
      { op: 'attach', dev, to: nested },
    ];
  return [
    { op: 'viommuAlloc', as: on, dev, parent: s2 },
    { op: 'vdeviceAlloc', as: `x${i}`, dev, viommu: on, vsid: i },
    { op: 'nestedAlloc', as: nested, dev, on, vste, cd },
    { op: 'attach', dev, to: nested },
  ];
}

/** All devices sit down at one S2. */
const gather = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      space: fc.nat({ max: p.vms.length - 1 }),
      s2: oneOf(p.s2s),
      seats: fc.array(seat, { minLength: p.devices.length, maxLength: p.devices.length }),
      first: fc.nat({ max: p.devices.length - 1 }),
    })
    .map(({ space, s2, seats, first }): Operation[] => [
      { op: 'hwptAlloc', as: s2, dev: `d${first}`, ioas: `a${space}`, nestParent: true },
      ...seats.flatMap((one, i) => sit(p, s2, i, one)),
    ]);

/** All devices access some pages, which are then unmapped; they access them again, and they come back. */
const shrinkUnder = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      space: fc.nat({ max: p.vms.length - 1 }),
      pages: fc.integer({ min: 1, max: 4 }),
      page: fc.integer({ min: FIRST_DATA_PAGE, max: GUEST_PAGES - 4 }),
      write: fc.boolean(),
      back: fc.boolean(),
    })
    .map(({ space, pages, page, write, back }): Operation[] => {
      const ioas = `a${space}`;
      // The first and the last page: what lies between is no other than they are.
      const touched = pages === 1 ? [page] : [page, page + pages - 1];
      const all = touched.flatMap((at) => p.devices.map((dev): Operation => ({ op: 'dma', dev, page: at, write })));
      return [
        ...all,
        { op: 'unmap', ioas, page, pages },
        ...all,
        ...(back ? [{ op: 'map', ioas, vm: `vm${space}`, page, from: page, pages } as const] : []),
      ];
    });

/** A guest lets its device go: that leaves stage 1 for the S2 of all, and comes back, while pages are unmapped. */
const letGo = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      i: deviceIndex(p),
      space: fc.nat({ max: p.vms.length - 1 }),
      s2: oneOf(p.s2s),
      how: seat.map((one): Seat => (one.how === 'nested' ? one : { ...one, how: 'bare' })),
      page,
      last: fc.boolean(),
    })
    .map(({ i, space, s2, how, page, last }): Operation[] => {
      const dev = `d${i}`;
      const dma: Operation = { op: 'dma', dev, page };
      const nested = fitting(p.nested, p, i)[i % EACH] ?? '';
      return [
        ...sit(p, s2, i, how),
        dma,
        last ? { op: 'detach', dev } : { op: 'attach', dev, to: s2 },
        { op: 'unmap', ioas: `a${space}`, page, pages: 1 },
        dma,
        { op: 'attach', dev, to: nested },
        dma,
      ];
    });

/** See the module comment. */
export const crowds: Flavour = {
  name: 'crowds',
  title: 'many devices, under vIOMMUs and without, share an address space that shrinks and grows',
  weights: {
    attach: 6,
    detach: 3,
    destroy: 3,
    unbind: 1,
    bind: 1,
    map: 3,
    unmap: 3,
    dma: 4,
    guestMap: 1,
    invalidate: 3,
  },
  chains: (p): readonly Chain[] => [
    { weight: 3, arbitrary: gather(p) },
    { weight: 3, arbitrary: shrinkUnder(p) },
    { weight: 1, arbitrary: letGo(p) },
  ],
  share: 2,
};
