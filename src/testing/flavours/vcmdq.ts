import fc from 'fast-check';
import { aimed, cmdqvAims } from '../arbitraries/aimed.ts';
import { badRing, cmdqvMakers, goodCommand, goodRing, queueName } from '../arbitraries/families/cmdqv.ts';
import { type Place, place } from '../arbitraries/places.ts';
import { LVCMDQS, type Pools } from '../arbitraries/pools.ts';
import { cd, page, space } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';
import type { VcmdqCommand } from '../operations/cmdqv.ts';

/** Number of a place's vIOMMU, which is that of its window too. */
const numberOf = ({ viommu }: Place): number => Number(viommu.slice(1));

const TEGRA = 'tegra241-cmdqv' as const;

/** A VINTF for a VM, page 0 in it, one queue or two, started; a device attached through it. */
const bringUp = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      cd,
      vste: fc.constantFrom('translate' as const, 'translate' as const, 'bypass' as const),
      rings: fc.array(fc.oneof({ weight: 7, arbitrary: goodRing }, { weight: 1, arbitrary: badRing }), {
        minLength: 1,
        maxLength: LVCMDQS,
      }),
      commands: fc.array(goodCommand, { minLength: 1, maxLength: 3 }),
      late: fc.boolean(),
      direct: fc.constantFrom(false, false, true),
    })
    .map(({ at, cd, vste, rings, commands, late, direct }): Operation[] => {
      const { dev, vm, ioas, s2, viommu, nested, vdevice, vsid } = at;
      const i = numberOf(at);
      const window = p.windows[i] ?? '';
      const attached: Operation[] = [
        { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid },
        { op: 'nestedAlloc', as: nested, dev, on: viommu, vste, cd },
        { op: 'attach', dev, to: nested },
      ];
      return [
        { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
        // VMMs attach a device to the S2 when they open it, and make the vIOMMU when the guest wants one.
        ...(direct ? [{ op: 'attach' as const, dev, to: s2 }] : []),
        { op: 'viommuAlloc', as: viommu, dev, parent: s2, type: TEGRA },
        ...(late ? [] : attached),
        { op: 'mmap', as: window, viommu, vm },
        ...rings.flatMap((ring, index): Operation[] => [
          { op: 'hwQueueAlloc', as: queueName(p, i, index), viommu, index, ...ring },
          { op: 'vcmdqStart', window, index },
        ]),
        { op: 'vcmdqIssue', window, index: rings.length - 1, commands },
        ...(late ? attached : []),
      ];
    });

/** The VM goes: munmap first, last or never; queues from the highest down, or not. */
const takeDown = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      munmap: fc.constantFrom('first', 'last', 'never'),
      upwards: fc.constantFrom(false, false, true),
      parent: fc.boolean(),
    })
    .map(({ at, munmap, upwards, parent }): Operation[] => {
      const { dev, viommu, nested, vdevice, s2 } = at;
      const i = numberOf(at);
      const queues = Array.from({ length: LVCMDQS }, (_, l) => queueName(p, i, upwards ? l : LVCMDQS - 1 - l));
      const gone: Operation = { op: 'munmap', name: p.windows[i] ?? '' };
      const names = [...queues, nested, vdevice, viommu];
      return [
        ...(munmap === 'first' ? [gone] : []),
        { op: 'detach', dev },
        ...names.map((name): Operation => ({ op: 'destroy', name })),
        ...(munmap === 'last' ? [gone, { op: 'destroy' as const, name: viommu }] : []),
        ...(parent ? [{ op: 'destroy' as const, name: s2 }] : []),
      ];
    });

/** The guest changes its own table and invalidates on its own queue; its device does DMA before and after. */
const remap = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      index: fc.nat({ max: LVCMDQS - 1 }),
      space,
      page,
      to: fc.option<number>(page, { freq: 4 }),
      byVa: fc.boolean(),
      stop: fc.boolean(),
    })
    .map(({ at, index, space, page, to, byVa, stop }): Operation[] => {
      const { dev, vm } = at;
      const window = p.windows[numberOf(at)] ?? '';
      const asid = space + 1;
      const command: VcmdqCommand = byVa ? { command: 'NH_VA', asid, page } : { command: 'NH_ASID', asid };
      return [
        { op: 'dma', dev, page },
        { op: 'guestMap', vm, space, page, to },
        { op: 'vcmdqIssue', window, index, commands: [command] },
        { op: 'dma', dev, page },
        ...(stop ? [{ op: 'vcmdqStop' as const, window, index }] : []),
      ];
    });

/** A guest that keeps to no rule: registers, commands, and then what a kernel does after an error, or not. */
const mischief = (p: Pools): fc.Arbitrary<Operation[]> => {
  const { vcmdqWrite, vcmdqIssue } = cmdqvMakers(p);
  return fc
    .record({
      window: fc.constantFrom(...p.windows),
      index: fc.nat({ max: LVCMDQS - 1 }),
      acts: fc.array(fc.oneof(vcmdqWrite, vcmdqIssue, vcmdqIssue), { minLength: 1, maxLength: 3 }),
      after: fc.constantFrom('vcmdqRecover' as const, 'vcmdqStart' as const, null),
    })
    .map(({ window, index, acts, after }): Operation[] => [
      ...acts.map((one) => ({ ...one, window, index })),
      ...(after === null ? [] : [{ op: after, window, index }]),
    ]);
};

/** Single operations that only this flavour has a use for. */
const single = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc.oneof(
    place(p).map(({ dev, viommu, s2 }): Operation[] => [
      { op: 'viommuAlloc', as: viommu, dev, parent: s2, type: TEGRA },
    ]),
    place(p).map(({ viommu, veventq }): Operation[] => [
      { op: 'veventqAlloc', as: veventq, viommu, depth: 2, type: TEGRA },
      { op: 'veventRead', on: veventq },
    ]),
    fc.constantFrom(...p.queues).map((name): Operation[] => [{ op: 'destroy', name }]),
    // VINTF_STATUS does not follow in time: when it is switched on, or off.
    fc.record({ at: place(p), nth: fc.constantFrom(1, 2, 2) }).map(({ at: { dev, viommu, s2 }, nth }): Operation[] => [
      { op: 'fail', point: 'poll:cmdqv:VINTF_STATUS', nth },
      { op: 'viommuAlloc', as: viommu, dev, parent: s2, type: TEGRA },
    ]),
  );

/** VMs on queues of their own. */
export const vcmdq: Flavour = {
  name: 'vcmdq',
  share: 2,
  title: 'VMs invalidate on VCMDQs of their own, and write what they like to their registers',
  lab: { preset: ['grace'], sidPairsLog2: [1, 1, 0], ats: [false, true] },
  weights: {
    hwptAlloc: 1,
    vdeviceAlloc: 2,
    nestedAlloc: 1,
    attach: 3,
    detach: 1,
    destroy: 3,
    unbind: 1,
    bind: 1,
    map: 1,
    unmap: 2,
    dma: 3,
    guestMap: 1,
    fail: 2,
    veventRead: 2,
    cmdqvReset: 1,
    hwQueueAlloc: 4,
    mmap: 2,
    munmap: 2,
    vcmdqStart: 3,
    vcmdqStop: 1,
    vcmdqRecover: 2,
    vcmdqIssue: 5,
    vcmdqWrite: 5,
    vcmdqRead: 1,
  },
  chains: (p) => [
    { weight: 3, arbitrary: bringUp(p) },
    { weight: 2, arbitrary: takeDown(p) },
    { weight: 2, arbitrary: remap(p) },
    { weight: 2, arbitrary: mischief(p) },
    { weight: 2, arbitrary: single(p) },
    { weight: 1, arbitrary: aimed(p, page, cmdqvAims(p)) },
  ],
};
