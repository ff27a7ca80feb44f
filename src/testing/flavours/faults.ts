import fc from 'fast-check';
import { aimed, queueAims } from '../arbitraries/aimed.ts';
import { commands, nestedUp, type Place, place } from '../arbitraries/places.ts';
import { EACH, type Pools } from '../arbitraries/pools.ts';
import { page, vsid } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

const code = fc.constantFrom('success' as const, 'success' as const, 'invalid' as const);

/** A transaction stalls on a page that the guest's tables lack; it is answered, or its stream goes away first. */
const stalls = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      page,
      to: page,
      code,
      queued: fc.nat({ max: 4 }),
      end: fc.nat({ max: 6 }),
      heard: fc.boolean(),
    })
    .map(({ at, page, to, code, queued, end, heard }): Operation[] => {
      const { dev, vm, vsid, ioas, viommu, fault, nested } = at;
      const next = neighbour(at, vsid).nested;
      const dma: Extract<Operation, { op: 'dma' }> = { op: 'dma', dev, page };
      const ends: Operation[][] = [
        [{ op: 'detach', dev }],
        [{ op: 'attach', dev, to: ioas }],
        [
          { op: 'unbind', dev },
          { op: 'bind', dev },
        ],
        [{ op: 'unmap', ioas, page: to, pages: 1 }],
        // Its next stage 1 has the same queue: what waits there is of an attachment that is no more.
        [
          { op: 'nestedAlloc', as: next, dev, on: viommu, vste: 'translate', fault },
          { op: 'attach', dev, to: next },
          { op: 'faultRead', on: fault },
        ],
      ];
      return [
        { op: 'faultQueueAlloc', as: fault, dev },
        ...nestedUp(at, queued === 0 ? {} : { fault }),
        { op: 'guestCd', vm, cd: 0, space: 0, stall: true },
        { op: 'guestMap', vm, space: 0, page, to: null },
        commands(at, { command: 'CFGI_CD_ALL', vsid }, { command: 'NH_ALL' }),
        // What ends it may come before the kernel has heard of the stall.
        ...(heard ? [dma, { op: 'faultRead' as const, on: fault }] : [{ ...dma, unheard: true }]),
        ...(ends[end] ?? []),
        { op: 'guestMap', vm, space: 0, page, to },
        { op: 'faultRespond', on: fault, code },
        { op: 'settle', dev },
        { op: 'attach', dev, to: nested },
      ];
    });

/** The same on a stage 1 of the host's, where the VMM maps what is missing. */
const hosted = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, from: page, code, early: fc.nat({ max: 3 }) })
    .map(({ at: { dev, ioas, vm, s2, fault }, page, from, code, early }): Operation[] => [
      { op: 'faultQueueAlloc', as: fault, dev },
      { op: 'hwptAlloc', as: s2, dev, ioas, fault },
      { op: 'attach', dev, to: s2 },
      { op: 'unmap', ioas, page, pages: 1 },
      { op: 'dma', dev, page },
      { op: 'faultRead', on: fault },
      ...(early === 0 ? [{ op: 'detach' as const, dev }] : []),
      { op: 'map', ioas, vm, page, from, pages: 1 },
      { op: 'faultRespond', on: fault, code },
      { op: 'settle', dev },
    ]);

/** A guest's device faults, and its VMM reads the events; or the device goes away before the kernel has heard of them. */
export const events = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, depth: fc.constantFrom(1, 1, 8), end: fc.constantFrom(0, 1, 2, 2) })
    .map(({ at, page, depth, end }): Operation[] => {
      const { dev, vm, viommu, vdevice, veventq, nested } = at;
      const unmapped: Operation[] = [
        { op: 'guestMap', vm, space: 0, page, to: null },
        commands(at, { command: 'NH_ALL' }),
      ];
      const fault: Operation[] = [...unmapped, { op: 'dma', dev, page }, { op: 'dma', dev, page, write: true }];
      const again: Operation[] = [
        { op: 'detach', dev },
        { op: 'attach', dev, to: nested },
      ];
      const ends: Operation[][] = [
        fault,
        [...fault, ...again, ...fault],
        [...unmapped, { op: 'dma', dev, page, unheard: true }, ...again],
      ];
      return [
        // The VM starts anew: a device has one vDEVICE at a time, and no object has the name of another.
        { op: 'detach', dev },
        { op: 'destroy', name: nested },
        { op: 'destroy', name: vdevice },
        { op: 'guestCd', vm, cd: 0, space: 0 },
        ...nestedUp(at),
        { op: 'veventqAlloc', as: veventq, viommu, depth },
        ...(ends[end] ?? []),
        { op: 'veventRead', on: veventq },
      ];
    });

/** A device goes from one VM to the other without a detach in between; both VMMs read their events. */
export const handedOn = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.record({ at: place(p), page, vsid, queued: fc.boolean() }).map(({ at, page, vsid, queued }): Operation[] => {
    const { dev, vdevice, veventq, viommu } = at;
    const next = neighbour(at, vsid);
    const queues: Operation[] = [
      { op: 'veventqAlloc', as: veventq, viommu, depth: 8 },
      { op: 'veventqAlloc', as: next.veventq, viommu: next.viommu, depth: 8 },
    ];
    return [
      { op: 'detach', dev },
      { op: 'destroy', name: vdevice },
      ...nestedUp(at),
      { op: 'destroy', name: vdevice },
      ...nestedUp(next),
      ...queues,
      { op: 'guestMap', vm: next.vm, space: 0, page, to: null },
      commands(next, { command: 'NH_ALL' }),
      { op: 'dma', dev, page },
      { op: 'veventRead', on: veventq },
      { op: 'veventRead', on: next.veventq },
      ...(queued ? [{ op: 'queueClose' as const, on: veventq }] : []),
    ];
  });

/** The other VM's place for the same device. */
function neighbour(at: Place, vsid: number): Place {
  const other = (name: string): string => {
    const number = Number(name.slice(-1));
    return `${name.slice(0, -1)}${number % EACH === 0 ? number + 1 : number - 1}`;
  };
  const { vm, ioas, s2, viommu, nested, veventq, fault } = at;
  return {
    ...at,
    vsid,
    vm: other(vm),
    ioas: other(ioas),
    s2: other(s2),
    viommu: other(viommu),
    nested: other(nested),
    veventq: other(veventq),
    fault: other(fault),
  };
}

/** Transactions stall, wait and are answered; events go to who owns the stream. */
export const faults: Flavour = {
  name: 'faults',
  title: 'transactions stall and are answered, or their stream goes away; events reach VMs',
  lab: { stalls: [true, true, false], preset: ['linuxNesting', 'linuxNesting', 'grace'] },
  weights: {
    nestedAlloc: 3,
    attach: 6,
    detach: 4,
    destroy: 4,
    unbind: 1,
    bind: 1,
    map: 2,
    unmap: 2,
    dma: 8,
    settle: 3,
    guestMap: 2,
    guestCd: 2,
    invalidate: 2,
    faultQueueAlloc: 1,
    faultRead: 4,
    faultRespond: 4,
    veventqAlloc: 2,
    veventRead: 3,
    queueClose: 1,
    fail: 1,
  },
  chains: (p) => [
    { weight: 3, arbitrary: stalls(p) },
    { weight: 1, arbitrary: hosted(p) },
    { weight: 2, arbitrary: events(p) },
    { weight: 1, arbitrary: handedOn(p) },
    { weight: 1, arbitrary: aimed(p, page, queueAims(p)) },
  ],
};
