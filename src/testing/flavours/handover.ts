import fc from 'fast-check';
import { handoverMakers, smmuNames } from '../arbitraries/families/handover.ts';
import { nestedUp, place } from '../arbitraries/places.ts';
import { EACH, fitting, oneOf, type Pools } from '../arbitraries/pools.ts';
import { page } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** The SMMU of a device. */
const smmuOf = (p: Pools, dev: string): string => `smmu${Math.floor(Number(dev.slice(1)) / p.perSmmu)}`;

const reads = (p: Pools, at: number): Operation[] => p.devices.map((dev): Operation => ({ op: 'dma', dev, page: at }));

/** Devices at work, another kernel, and one device after the other is claimed. */
const takeOver = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      other: fc.nat({ max: p.devices.length - 1 }),
      how: fc.constantFrom('nested' as const, 'nested' as const, 's2' as const, 's1' as const, 'shared' as const),
      vste: fc.constantFrom('translate' as const, 'translate' as const, 'bypass' as const, 'abort' as const),
      kexec: handoverMakers(p).kexec,
      claimed: fc.array(oneOf(p.devices), { maxLength: 3 }),
      page,
    })
    .map(({ at, other, how, vste, kexec, claimed, page }): Operation[] => {
      const { dev, ioas, s2 } = at;
      const work: Operation[] =
        how === 'nested'
          ? nestedUp(at).map((one): Operation => (one.op === 'nestedAlloc' ? { ...one, vste } : one))
          : [
              { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: how !== 's1' },
              { op: 'attach', dev, to: s2 },
            ];
      // The other devices of its SMMU under the same number.
      const beside = p.devices.filter((one) => one !== dev && smmuOf(p, one) === smmuOf(p, dev));
      if (how === 'shared') for (const one of beside) work.push({ op: 'attach', dev: one, to: s2 });
      return [
        ...work,
        ...(how === 'shared' ? [] : [{ op: 'attach' as const, dev: `d${other}`, to: `a${other % p.vms.length}` }]),
        ...reads(p, page),
        kexec,
        ...reads(p, page),
        ...claimed.map((one): Operation => ({ op: 'bind', dev: one })),
      ];
    });

/** After another kernel came, a VM starts on devices that are claimed for it. */
const startAnew = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, s1: fc.boolean() })
    .map(({ at, page, s1 }): Operation[] => [
      { op: 'bind', dev: at.dev },
      ...(s1 ? [{ op: 'attach' as const, dev: at.dev, to: at.ioas }] : nestedUp(at)),
      ...reads(p, page),
    ]);

/** An SMMU sleeps while its VMs go on changing what it will find when it wakes. */
const sleep = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      suspend: handoverMakers(p).smmuSuspend,
      first: fc.boolean(),
      what: fc.nat({ max: 6 }),
      page,
      from: page,
      ack: fc.constantFrom('CR0ACK', 'IRQ_CTRLACK', null, null, null, null),
    })
    .map(({ at, suspend, first, what, page, from, ack }): Operation[] => {
      const { dev, ioas, vm, s2, nested, viommu } = at;
      const meanwhile: Operation[][] = [
        [{ op: 'detach', dev }],
        [{ op: 'attach', dev, to: ioas }],
        [{ op: 'unmap', ioas, page, pages: 1 }],
        [
          { op: 'unmap', ioas, page, pages: 1 },
          { op: 'map', ioas, vm, page, from, pages: 1 },
        ],
        [
          { op: 'detach', dev },
          { op: 'destroy', name: nested },
          { op: 'destroy', name: viommu },
        ],
        [{ op: 'attach', dev, to: s2 }],
        [
          { op: 'detach', dev },
          { op: 'attach', dev, to: nested },
        ],
      ];
      const resume: Operation = { op: 'smmuResume', smmu: smmuOf(p, dev) };
      // A register that does not answer in time: the resume is tried again.
      const late: Operation[] = ack === null ? [] : [{ op: 'fail', point: `poll:${ack}`, nth: 1 }, resume];
      return [
        ...(first ? nestedUp(at) : [{ op: 'attach' as const, dev, to: ioas }]),
        ...reads(p, page),
        { ...suspend, smmu: smmuOf(p, dev) },
        ...(meanwhile[what] ?? []),
        { op: 'dma', dev, page },
        ...late,
        resume,
        ...reads(p, page),
      ];
    });

/** Power goes and comes while devices are at work. */
const cut = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), reset: handoverMakers(p).smmuReset, page })
    .map(({ at, reset, page }): Operation[] => [...nestedUp(at), ...reads(p, page), reset, ...reads(p, page)]);

/** Kernels, SMMUs and power come and go under devices at work. */
export const handover: Flavour = {
  name: 'handover',
  title: 'another kernel takes over, SMMUs sleep and lose power while devices are at work',
  lab: { ats: [false, false, false, true] },
  weights: {
    hwptAlloc: 1,
    viommuAlloc: 2,
    vdeviceAlloc: 1,
    nestedAlloc: 2,
    attach: 5,
    detach: 3,
    destroy: 3,
    bind: 6,
    unbind: 2,
    map: 1,
    unmap: 1,
    dma: 5,
    invalidate: 1,
    guestMap: 1,
    smmuSuspend: 1,
    smmuResume: 2,
    smmuReset: 1,
    cmdqvReset: 1,
    kexec: 1,
  },
  chains: (p) => [
    { weight: 2, arbitrary: takeOver(p) },
    { weight: 2, arbitrary: startAnew(p) },
    { weight: 1, arbitrary: sleep(p) },
    { weight: 1, arbitrary: cut(p) },
  ],
  share: 2,
};

/** A VM starts on an SMMU, the devices behind it and then the SMMU go, and its VMM goes on. */
const pulled = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), smmu: fc.nat({ max: smmuNames(p).length - 1 }), used: fc.nat({ max: 4 }) })
    .map(({ at, used }): Operation[] => {
      const { dev, viommu, nested, s2 } = at;
      const smmu = smmuOf(p, dev);
      const other = p.devices.find((one) => smmuOf(p, one) !== smmu);
      const after: Operation[][] = [
        [{ op: 'invalidate', on: viommu, commands: [{ command: 'NH_ALL' }] }],
        [
          { op: 'destroy', name: nested },
          { op: 'destroy', name: viommu },
        ],
        [{ op: 'veventqAlloc', as: at.veventq, viommu, depth: 1 }],
        [{ op: 'nestedAlloc', as: nested, dev: other ?? dev, on: viommu, vste: 'bypass' }],
        [{ op: 'attach', dev: other ?? dev, to: s2 }],
      ];
      return [...nestedUp(at), { op: 'dma', dev, page: 8 }, { op: 'smmuUnplug', smmu }, ...(after[used] ?? [])];
    });

/** SMMUs are unplugged under VMs. */
export const unplug: Flavour = {
  name: 'unplug',
  title: 'devices and then their SMMU are unplugged under live vIOMMUs',
  // With the others the SMMU is gone under the vIOMMU ('raw'), or stays ('users').
  lab: { iommuHold: ['revoke', 'wait-cnt'], preset: ['linuxNesting', 'qemuVirt'] },
  weights: {
    hwptAlloc: 2,
    viommuAlloc: 3,
    vdeviceAlloc: 2,
    nestedAlloc: 3,
    attach: 5,
    detach: 2,
    destroy: 4,
    bind: 1,
    unbind: 3,
    dma: 2,
    invalidate: 3,
    smmuUnplug: 1,
  },
  chains: (p) => [{ weight: 2, arbitrary: pulled(p) }],
};

/** Another tenant leaves a few VMIDs, for which VMs compete. */
const scarce = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      at: place(p),
      tenants: handoverMakers(p).tenants,
      second: fc.nat({ max: EACH - 1 }),
      direct: fc.boolean(),
    })
    .map(({ at, tenants, second, direct }): Operation[] => {
      const { dev, s2, ioas } = at;
      const i = Number(dev.slice(1));
      return [
        tenants,
        ...(direct
          ? ([
              { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
              { op: 'attach', dev, to: s2 },
            ] as const)
          : nestedUp(at)),
        { op: 'viommuAlloc', as: fitting(p.viommus, p, i)[second] ?? '', dev, parent: s2 },
        { op: 'attach', dev, to: s2 },
        { op: 'dma', dev, page: 8 },
        { op: 'detach', dev },
      ];
    });

/** The last VMIDs. */
export const exhaustion: Flavour = {
  name: 'exhaustion',
  title: 'another tenant leaves few VMIDs, or none',
  lab: { vmidBits: [8] },
  weights: {
    hwptAlloc: 4,
    viommuAlloc: 5,
    vdeviceAlloc: 1,
    nestedAlloc: 4,
    attach: 8,
    detach: 4,
    destroy: 6,
    unbind: 1,
    bind: 1,
    dma: 2,
    tenants: 2,
  },
  chains: (p) => [{ weight: 2, arbitrary: scarce(p) }],
};
