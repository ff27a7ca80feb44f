import fc from 'fast-check';
import { aimed, svaAims } from '../arbitraries/aimed.ts';
import { oneOf, type Pools, PROCESSES } from '../arbitraries/pools.ts';
import { page, pasid } from '../arbitraries/values.ts';
import type { Flavour } from '../flavour.ts';
import type { Operation } from '../operation.ts';

/** A device leaves its VM, and its driver binds it to a process, once or twice; the process changes or ends. */
const shared = (p: Pools): fc.Arbitrary<Operation[]> =>
  fc
    .record({
      dev: oneOf(p.devices),
      mm: oneOf(p.processes),
      bonds: fc.shuffledSubarray([...p.bonds], { minLength: 1, maxLength: 3 }),
      page,
      to: fc.option<number>(page, { freq: 2 }),
      pasid: fc.constantFrom(1, 1, 2),
      ats: fc.boolean(),
      end: fc.nat({ max: 5 }),
    })
    .map(({ dev, mm, bonds, page, to, pasid, ats, end }): Operation[] => {
      const dma: Operation = { op: 'dma', dev, page, pasid, ...(ats ? { ats } : {}) };
      const [first = ''] = bonds;
      return [
        { op: 'unbind', dev },
        ...bonds.map((as): Operation => ({ op: 'svaBind', as, dev, mm })),
        dma,
        { op: 'mmMap', mm, page, to },
        dma,
        { op: 'svaUnbind', name: first },
        dma,
        ...(end === 0 ? [{ op: 'mmExec' as const, mm }, dma] : []),
        ...bonds.slice(1).map((name): Operation => ({ op: 'svaUnbind', name })),
        dma,
        ...(end > 2 ? [{ op: 'bind' as const, dev }] : []),
      ];
    });

/** Devices of the host's in the address spaces of processes, beside devices of VMs. */
export const sva: Flavour = {
  name: 'sva',
  title: 'devices share address spaces of processes by PASID, while these change and end',
  lab: {
    preset: ['linuxNesting', 'linuxNesting', 'grace', 'mmu700'],
    processes: [PROCESSES],
    pasidBits: [4],
    ats: [false, false, true],
  },
  weights: {
    bind: 2,
    unbind: 3,
    hwptAlloc: 1,
    attach: 3,
    pasidAttach: 2,
    pasidDetach: 1,
    unmap: 1,
    dma: 3,
    svaBind: 8,
    svaUnbind: 5,
    mmMap: 4,
    mmExec: 1,
    resetBegin: 1,
    resetEnd: 2,
    fail: 2,
  },
  chains: (p) => [
    { weight: 3, arbitrary: shared(p) },
    { weight: 1, arbitrary: aimed(p, page, svaAims(p)) },
    {
      weight: 2,
      arbitrary: fc
        .record({ dev: oneOf(p.devices), page, pasid, write: fc.boolean() })
        .map((access): Operation[] => [{ op: 'dma', ...access }]),
    },
  ],
};
