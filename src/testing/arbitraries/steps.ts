/**
 * Arbitraries of sequences of operations: some drawn one by one, some as chains, which do what a VMM, a guest or a device
 * does in one go.
 */
import fc from 'fast-check';
import type { CaseStep } from '../case.ts';
import { type Flavour, SINGLE_WEIGHT } from '../flavour.ts';
import { FIRST_DATA_PAGE } from '../guest.ts';
import type { Operation } from '../operation.ts';
import { operation } from './operations.ts';
import { deviceIndex, EACH, fitting, oneOf, type Pools } from './pools.ts';
import { cd, page, vsid } from './values.ts';

/**
 * A device gets a vIOMMU, a vDEVICE and a nested HWPT, and is attached to it: what a VMM does when a VM starts.
 * withDma: and it does DMA
 */
function bringUp(p: Pools, withDma: boolean): fc.Arbitrary<Operation[]> {
  return deviceIndex(p).chain((i) =>
    fc
      .record({
        s2: oneOf(p.s2s),
        ioas: oneOf(p.ioas.slice(0, -1)),
        viommu: oneOf(fitting(p.viommus, p, i)),
        nested: oneOf(fitting(p.nested, p, i)),
        vste: fc.constantFrom('bypass' as const, 'translate' as const, 'translate' as const, 'abort' as const),
        cd,
        vsid,
      })
      .map(({ s2, ioas, viommu, nested, vste, cd, vsid }): Operation[] => {
        const dev = `d${i}`;
        return [
          { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
          { op: 'viommuAlloc', as: viommu, dev, parent: s2 },
          { op: 'vdeviceAlloc', as: `x${i}`, dev, viommu, vsid },
          { op: 'nestedAlloc', as: nested, dev, on: viommu, vste, cd },
          { op: 'attach', dev, to: nested },
          ...(withDma ? used(dev, viommu, vsid) : []),
        ];
      }),
  );
}

/** What a device that has just been brought up does: DMA, and an invalidation by its guest. */
const used = (dev: string, viommu: string, vsid: number): Operation[] => [
  { op: 'dma', dev, page: FIRST_DATA_PAGE + vsid },
  { op: 'invalidate', on: viommu, commands: [{ command: 'CFGI_CD', vsid }, { command: 'NH_ALL' }] },
];

/** A device is taken away and what it used is destroyed, as far as nobody else uses it. */
function takeDown(p: Pools): fc.Arbitrary<Operation[]> {
  return deviceIndex(p).map((i): Operation[] => {
    const names = [...fitting(p.nested, p, i), `x${i}`, ...fitting(p.viommus, p, i), ...p.s2s];
    return [{ op: 'detach', dev: `d${i}` }, ...names.map((name): Operation => ({ op: 'destroy', name }))];
  });
}

/** A device does DMA while its memory comes and goes under it, and its guest invalidates. */
function traffic(p: Pools): fc.Arbitrary<Operation[]> {
  return fc
    .record({
      i: deviceIndex(p),
      space: fc.nat({ max: p.vms.length - 1 }),
      pages: fc.array(page, { minLength: 1, maxLength: 3 }),
      write: fc.boolean(),
      from: page,
      viommu: fc.nat({ max: EACH - 1 }),
    })
    .map(({ i, space, pages, write, from, viommu }): Operation[] => {
      const dev = `d${i}`;
      const dmas = pages.map((at): Operation => ({ op: 'dma', dev, page: at, write }));
      const [first = FIRST_DATA_PAGE] = pages;
      const on = fitting(p.viommus, p, i)[viommu] ?? '';
      return [
        ...dmas,
        { op: 'unmap', ioas: `a${space}`, page: first, pages: 1 },
        ...dmas,
        { op: 'map', ioas: `a${space}`, vm: `vm${space}`, page: first, from, pages: 1 },
        { op: 'invalidate', on, commands: [{ command: 'NH_ALL' }] },
        ...dmas,
      ];
    });
}

/**
 * A sequence of at most `maxOps` operations, each with the id that its hardware draws depend on. Most are drawn one by
 * one; some come as a chain that sets a device up, uses it or takes it down, or as one of the flavour's own.
 */
export function steps({ weights, chains }: Flavour, from: Pools, maxOps: number): fc.Arbitrary<CaseStep[]> {
  const withDma = (weights.dma ?? 0) > 0;
  const single = operation(weights, from).map((one): Operation[] => [one]);
  const piece = fc.oneof(
    { weight: SINGLE_WEIGHT, arbitrary: single },
    { weight: 1, arbitrary: bringUp(from, withDma) },
    { weight: 1, arbitrary: takeDown(from) },
    { weight: withDma ? 1 : 0, arbitrary: traffic(from) },
    ...(chains?.(from) ?? []),
  );
  const group = fc.record({ id: fc.noShrink(fc.nat({ max: 0xffff })), operations: piece });
  return fc
    .array(group, { maxLength: Math.max(1, Math.ceil(maxOps * GROUPS)), size: 'max' })
    .map((groups) => numbered(groups).slice(0, maxOps));
}

/** Ids of a chain's operations follow from the chain's. */
function numbered(groups: readonly { readonly id: number; readonly operations: readonly Operation[] }[]): CaseStep[] {
  return groups.flatMap(({ id, operations }) => operations.map((operation, i) => ({ id: id * CHAIN + i, operation })));
}

/**
 * Groups for each operation of the longest case. A group has two or three operations on average, so most cases come near
 * the longest: that pays for the lab they are run on.
 */
const GROUPS = 0.75;

/** More than any chain is long. */
const CHAIN = 32;
