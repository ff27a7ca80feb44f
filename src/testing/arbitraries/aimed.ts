/**
 * Failures that are aimed: a point of the kernel fails in the operation that comes by it, which is then tried again.
 * Drawn by number, most failures hit what is used most; these reach what few operations use, and only in some states.
 */
import fc from 'fast-check';
import type { Operation } from '../operation.ts';
import { goodRing, queueName } from './families/cmdqv.ts';
import { nestedUp, type Place, place } from './places.ts';
import type { Pools } from './pools.ts';

/** What an operation needs before it, and the points that it comes by. */
interface Aim {
  readonly points: readonly string[];
  readonly before: readonly Operation[];
  readonly operation: Operation;
}

/** A number of a case's small choices. */
interface Choices {
  readonly at: Place;
  readonly page: number;
  readonly ring: { readonly page: number; readonly offset: number; readonly bytes: number };
}

type Aims = (choices: Choices) => readonly Aim[];

/** One of some aims: what it needs, a failure, and the operation twice. */
export const aimed = (p: Pools, page: fc.Arbitrary<number>, aims: Aims): fc.Arbitrary<Operation[]> =>
  fc
    .record({ at: place(p), page, ring: goodRing, which: fc.nat({ max: 999 }), point: fc.nat({ max: 99 }) })
    .map(({ which, point, ...choices }): Operation[] => {
      const all = aims(choices);
      const aim = all[which % all.length];
      if (aim === undefined) return [];
      const { points, before, operation } = aim;
      const fail: Operation = { op: 'fail', point: points[point % points.length] ?? 'alloc:', nth: 1 };
      return [...before, fail, operation, operation];
    });

/** Objects of iommufd, spaces and commands. */
export const objectAims =
  (p: Pools): Aims =>
  ({ at, page }) => {
    const { dev, ioas, s2, viommu, veventq, fault, vm, vsid, nested, vdevice } = at;
    const spare = p.ioas.at(-1) ?? ioas;
    return [
      {
        points: ['alloc:iommufd:IOAS', 'ids:iommufd:object', 'copy:to-user:response'],
        before: [{ op: 'destroy', name: spare }],
        operation: { op: 'ioasAlloc', as: spare },
      },
      {
        points: ['alloc:iommufd:DEVICE', 'alloc:iommufd:group', 'ids:iommufd:object'],
        before: [{ op: 'unbind', dev }],
        operation: { op: 'bind', dev },
      },
      {
        points: ['alloc:iommufd:FAULT', 'ids:iommufd:fd', 'copy:to-user:response'],
        before: [
          { op: 'queueClose', on: fault },
          { op: 'destroy', name: fault },
        ],
        operation: { op: 'faultQueueAlloc', as: fault, dev },
      },
      {
        points: ['alloc:iommufd:VEVENTQ', 'ids:iommufd:fd'],
        before: [...nestedUp(at), { op: 'queueClose', on: veventq }, { op: 'destroy', name: veventq }],
        operation: { op: 'veventqAlloc', as: veventq, viommu, depth: 2 },
      },
      {
        // Most machines have no CMDQV.
        points: ['alloc:iommufd:VIOMMU', 'copy:from-user:IOMMU_VIOMMU_ALLOC', 'copy:to-user:IOMMU_VIOMMU_ALLOC'],
        before: [
          { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
          { op: 'detach', dev },
          ...[nested, vdevice, viommu].map((name): Operation => ({ op: 'destroy', name })),
        ],
        operation: { op: 'viommuAlloc', as: viommu, dev, parent: s2, type: 'tegra241-cmdqv' },
      },
      {
        points: ['copy:to-user:response', 'alloc:iommufd:VDEVICE', 'alloc:iommufd:vdevs'],
        before: [
          { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
          { op: 'viommuAlloc', as: viommu, dev, parent: s2 },
          { op: 'destroy', name: vdevice },
        ],
        operation: { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid },
      },
      {
        points: ['alloc:user-commands', 'copy:from-user:IOMMU_HWPT_INVALIDATE'],
        before: nestedUp(at),
        operation: { op: 'invalidate', on: viommu, commands: [{ command: 'NH_ALL' }, { command: 'CFGI_CD', vsid }] },
      },
      {
        points: ['ids:iommufd:object', 'copy:to-user:response', 'alloc:iommufd:HWPT_PAGING'],
        before: [{ op: 'destroy', name: s2 }],
        operation: { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
      },
      {
        points: ['alloc:iommufd:pages-list', 'alloc:iommufd:area', 'copy:to-user:response'],
        before: [
          { op: 'ioasAlloc', as: spare },
          { op: 'unmap', ioas: spare, page, pages: 1 },
        ],
        operation: { op: 'copy', ioas: spare, source: ioas, page, from: page, pages: 1 },
      },
      {
        points: ['copy:to-user:response', 'alloc:iommufd:pages', 'alloc:iommufd:area'],
        before: [{ op: 'unmap', ioas, page, pages: 1 }],
        operation: { op: 'map', ioas, vm, page, from: page, pages: 1 },
      },
    ];
  };

/** Queues of faults and events, and those who fill and read them. */
export const queueAims =
  (p: Pools): Aims =>
  ({ at, page }) => {
    const { dev, fault, s2, ioas, vm, veventq, viommu } = at;
    const spareQueue = p.veventqs[(Number(viommu.slice(1)) + 1) % p.veventqs.length] ?? veventq;
    // A stage 1 of the host's, in which a page is missing: what the device accesses stalls.
    const stalling: readonly Operation[] = [
      { op: 'faultQueueAlloc', as: fault, dev },
      { op: 'detach', dev },
      { op: 'destroy', name: s2 },
      { op: 'hwptAlloc', as: s2, dev, ioas, fault },
    ];
    const stalled: readonly Operation[] = [
      ...stalling,
      { op: 'attach', dev, to: s2 },
      { op: 'unmap', ioas, page, pages: 1 },
    ];
    const dma: Operation = { op: 'dma', dev, page };
    const read: Operation = { op: 'faultRead', on: fault };
    return [
      {
        points: ['alloc:iopf:fault-param', 'alloc:master-domain'],
        before: stalling,
        operation: { op: 'attach', dev, to: s2 },
      },
      { points: ['alloc:iopf:group'], before: stalled, operation: dma },
      { points: ['ids:iommufd:fault-cookie', 'copy:to-user:read'], before: [...stalled, dma], operation: read },
      {
        points: ['copy:from-user:write'],
        before: [...stalled, dma, read],
        operation: { op: 'faultRespond', on: fault, code: 'invalid' },
      },
      {
        points: ['alloc:iommufd:vevent'],
        before: [
          ...nestedUp(at),
          { op: 'veventqAlloc', as: veventq, viommu, depth: 8 },
          { op: 'guestMap', vm, space: 0, page, to: null },
          { op: 'invalidate', on: viommu, commands: [{ command: 'NH_ALL' }] },
        ],
        operation: dma,
      },
      {
        // A vIOMMU has one queue of a type.
        points: ['alloc:iommufd:VEVENTQ', 'ids:iommufd:object', 'copy:to-user:response'],
        before: [...nestedUp(at), { op: 'veventqAlloc', as: veventq, viommu, depth: 8 }],
        operation: { op: 'veventqAlloc', as: spareQueue, viommu, depth: 2 },
      },
      {
        points: ['copy:to-user:read'],
        before: [
          ...nestedUp(at),
          { op: 'veventqAlloc', as: veventq, viommu, depth: 8 },
          { op: 'unmap', ioas, page, pages: 1 },
          dma,
        ],
        operation: { op: 'veventRead', on: veventq },
      },
    ];
  };

/** A VINTF, its queues, pairs and window. */
export const cmdqvAims =
  (p: Pools): Aims =>
  ({ at, ring }) => {
    const { dev, s2, viommu, vdevice, vsid, ioas, nested } = at;
    const i = Number(viommu.slice(1));
    const queue = queueName(p, i, 0);
    const window = p.windows[i] ?? '';
    const gone: readonly Operation[] = [
      { op: 'munmap', name: window },
      { op: 'detach', dev },
      ...[queueName(p, i, 1), queue, nested, vdevice, viommu].map((name): Operation => ({ op: 'destroy', name })),
    ];
    const parent: Operation = { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true };
    const vintf: Operation = { op: 'viommuAlloc', as: viommu, dev, parent: s2, type: 'tegra241-cmdqv' };
    return [
      {
        points: [
          'alloc:lvcmdqs',
          'alloc:iommufd:mmap',
          'ids:vintf',
          'copy:from-user:IOMMU_VIOMMU_ALLOC',
          'copy:to-user:IOMMU_VIOMMU_ALLOC',
        ],
        before: [parent, ...gone],
        operation: vintf,
      },
      {
        points: ['ids:vsid'],
        before: [parent, vintf, { op: 'destroy', name: vdevice }],
        operation: { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid },
      },
      {
        points: [
          'alloc:iommufd:HW_QUEUE',
          'alloc:iommufd:ACCESS',
          'alloc:iommufd:access-list',
          'alloc:iommufd:pages-access',
          'alloc:vcmdq-user',
          'ids:iommufd:object',
        ],
        before: [parent, vintf, { op: 'destroy', name: queue }],
        operation: { op: 'hwQueueAlloc', as: queue, viommu, index: 0, ...ring },
      },
      {
        points: ['poll:cmdqv:VCMDQ_STATUS'],
        before: [
          parent,
          vintf,
          { op: 'mmap', as: window, viommu, vm: at.vm },
          { op: 'hwQueueAlloc', as: queue, viommu, index: 0, ...ring },
          { op: 'vcmdqStart', window, index: 0 },
        ],
        operation: { op: 'destroy', name: queue },
      },
      {
        // Memory in which a queue lies is not unmapped.
        points: ['alloc:iommufd:pfn-batch'],
        before: [parent, vintf, { op: 'hwQueueAlloc', as: queue, viommu, index: 0, ...ring }],
        operation: { op: 'unmapAll', ioas },
      },
      {
        // A second queue with the number of the first.
        points: ['alloc:iommufd:HW_QUEUE'],
        before: [parent, vintf, { op: 'hwQueueAlloc', as: queue, viommu, index: 0, ...ring }],
        operation: { op: 'hwQueueAlloc', as: queueName(p, i, 1), viommu, index: 0, ...ring },
      },
    ];
  };

/** Bonds with processes, and processes. */
export const svaAims =
  (p: Pools): Aims =>
  ({ at }) => {
    const { dev } = at;
    const [mm = ''] = p.processes.slice(Number(at.vm.slice(2)) % p.processes.length);
    const [bond = ''] = p.bonds.slice(Number(dev.slice(1)));
    const free: readonly Operation[] = [
      { op: 'unbind', dev },
      { op: 'svaUnbind', name: bond },
    ];
    return [
      {
        // The address space that begins has no PASID yet.
        points: [
          'alloc:sva:mm-data',
          'ids:pasid',
          'alloc:sva:handle',
          'alloc:sva-domain',
          'ids:asid',
          'alloc:cd-table',
        ],
        before: [...free, { op: 'mmExec', mm }],
        operation: { op: 'svaBind', as: bond, dev, mm },
      },
      { points: ['alloc:memory of mm'], before: free, operation: { op: 'mmExec', mm } },
    ];
  };
