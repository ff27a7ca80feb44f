import fc from 'fast-check';
import { commands, nestedUp, place } from '../arbitraries/places.ts';
import { oneOf, type Pools } from '../arbitraries/pools.ts';
import { page, pasid, space } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** The host gives a PASID of a device a space of its own, moves it and takes it away. */
const hosted = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, pasid, rid: fc.constantFrom('a0', 'a1', null), other: fc.constantFrom('a0', 'a1') })
    .map(({ at: { dev, ioas, s2 }, page, pasid, rid, other }): Operation[] => [
      { op: 'hwptAlloc', as: s2, dev, ioas, pasid: true },
      ...(rid === null ? [] : [{ op: 'attach' as const, dev, to: rid }]),
      { op: 'pasidAttach', dev, pasid, to: s2 },
      { op: 'dma', dev, page, pasid },
      { op: 'dma', dev, page },
      { op: 'unmap', ioas, page, pages: 1 },
      { op: 'dma', dev, page, pasid },
      { op: 'pasidAttach', dev, pasid, to: other },
      { op: 'dma', dev, page, pasid },
      { op: 'pasidDetach', dev, pasid },
      { op: 'dma', dev, page, pasid },
    ]);

/** Who has a CD of a device: its RID, or one of its PASIDs. */
const users = fc.shuffledSubarray([0, 1, 2], { minLength: 3, maxLength: 3 });

/**
 * A device whose RID and PASIDs each have an address space, as one that several queues of a program share: they come and go
 * in any order, and the others go on with DMA.
 */
const beside = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      page,
      order: users,
      rid: oneOf(p.s2s),
      pasids: fc.tuple(oneOf(p.s2s), oneOf(p.s2s)),
      leaves: fc.nat({ max: 4 }),
      back: fc.boolean(),
      other: oneOf(p.ioas.slice(0, 2)),
    })
    .map(({ at: { dev, ioas }, page, order, rid, pasids, leaves, back, other }): Operation[] => {
      const spaces = [rid, ...pasids];
      const comes = (who: number): Operation =>
        who === 0 ? { op: 'attach', dev, to: rid } : { op: 'pasidAttach', dev, pasid: who, to: spaces[who] ?? rid };
      const dmas = [undefined, 0, 1].map(
        (pasid): Operation => ({ op: 'dma', dev, page, ...(pasid === undefined ? {} : { pasid }) }),
      );
      const goes: Operation[][] = [
        [{ op: 'detach', dev }],
        [{ op: 'detach', dev }],
        [{ op: 'attach', dev, to: other }],
        [{ op: 'pasidDetach', dev, pasid: 1 }],
        [{ op: 'pasidAttach', dev, pasid: 1, to: rid }],
      ];
      return [
        { op: 'detach', dev },
        ...p.s2s.map((as, i): Operation => ({ op: 'hwptAlloc', as, dev, ioas: `a${i}`, pasid: true })),
        ...order.map(comes),
        ...dmas,
        ...(goes[leaves] ?? []),
        ...dmas,
        { op: 'unmap', ioas, page, pages: 1 },
        ...dmas,
        ...(back ? [comes(0)] : []),
      ];
    });

/** A guest has several CDs and chooses by SubstreamID. */
const guest = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      page,
      ssid: pasid,
      space,
      ssids: fc.constantFrom(1, 2, 2),
      dss: fc.constantFrom('TERMINATE' as const, 'BYPASS' as const, 'SSID0' as const),
      all: fc.boolean(),
    })
    .map(({ at, page, ssid, space, ssids, dss, all }): Operation[] => {
      const { dev, vm, vsid } = at;
      return [
        ...nestedUp(at, { ssids, dss }),
        { op: 'dma', dev, page },
        { op: 'dma', dev, page, pasid: ssid },
        { op: 'guestCd', vm, cd: ssid, space },
        commands(at, all ? { command: 'CFGI_CD_ALL', vsid } : { command: 'CFGI_CD', vsid, ssid }, {
          command: 'NH_ALL',
        }),
        { op: 'dma', dev, page, pasid: ssid },
        { op: 'guestCd', vm, cd: ssid, space: null },
        { op: 'dma', dev, page, pasid: ssid },
      ];
    });

/** PASIDs of the host's and SubstreamIDs of guests. */
export const pasids: Flavour = {
  name: 'pasids',
  title: 'PASIDs have address spaces of their own, from the host or from a guest',
  lab: { pasidBits: [4], preset: ['linuxNesting', 'linuxNesting', 'grace'], ats: [false, false, true] },
  weights: {
    hwptAlloc: 2,
    viommuAlloc: 1,
    vdeviceAlloc: 1,
    nestedAlloc: 2,
    attach: 6,
    detach: 3,
    destroy: 3,
    unbind: 1,
    bind: 1,
    map: 2,
    unmap: 3,
    dma: 4,
    pasidAttach: 6,
    pasidDetach: 3,
    resetBegin: 1,
    resetEnd: 2,
    guestCd: 2,
    invalidate: 2,
    fail: 1,
  },
  chains: (p) => [
    { weight: 2, arbitrary: hosted(p) },
    { weight: 2, arbitrary: beside(p) },
    { weight: 2, arbitrary: guest(p) },
  ],
};
