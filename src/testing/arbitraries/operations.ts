/** Arbitraries of operations and of sequences of them. Names come from small pools, so that operations meet. */
import fc from 'fast-check';
import type { CaseStep } from '../case.ts';
import { FIRST_DATA_PAGE, GUEST_CDS, GUEST_PAGES, GUEST_SPACES } from '../guest.ts';
import type { GuestCommand, Operation, OperationName } from '../operations.ts';
import type { Weights } from '../property.ts';

/** What operations can name. vIOMMUs and nested HWPTs have a range for each SMMU, so that most of them fit a device. */
export interface Pools {
  readonly devices: readonly string[];
  /** Devices behind each SMMU. */
  readonly perSmmu: number;
  readonly vms: readonly string[];
  readonly ioas: readonly string[];
  /** Paging HWPTs. */
  readonly s2s: readonly string[];
  readonly viommus: readonly string[];
  readonly nested: readonly string[];
  readonly vdevices: readonly string[];
}

const named = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

/** vIOMMUs, and nested HWPTs, with a name for each SMMU. */
const EACH = 2;

/** The pools of a lab with so many SMMUs, devices behind each, and VMs. */
export function pools(smmus: number, perSmmu: number, vms: number): Pools {
  const devices = smmus * perSmmu;
  return {
    devices: named('d', devices),
    perSmmu,
    vms: named('vm', vms),
    ioas: named('a', vms + 1),
    s2s: named('s', 2),
    viommus: named('v', smmus * EACH),
    nested: named('n', smmus * EACH),
    vdevices: named('x', devices),
  };
}

const page = fc.integer({ min: FIRST_DATA_PAGE, max: GUEST_PAGES - 1 });
const vsid = fc.integer({ min: 0, max: 3 });

const guestCommand: fc.Arbitrary<GuestCommand> = fc.oneof(
  fc.constantFrom<GuestCommand>({ command: 'NSNH_ALL' }, { command: 'NH_ALL' }),
  fc.record({ command: fc.constant('NH_ASID' as const), asid: fc.integer({ min: 1, max: GUEST_SPACES }) }),
  fc.record({ command: fc.constantFrom('CFGI_CD' as const, 'CFGI_CD_ALL' as const), vsid }),
);

/** Names of a range that fit a device: those of its SMMU. */
const fitting = (names: readonly string[], p: Pools, dev: number): string[] => {
  const first = Math.floor(dev / p.perSmmu) * EACH;
  return names.slice(first, first + EACH);
};

/**
 * A device gets a vIOMMU, a vDEVICE and a nested HWPT, and is attached to it: what a VMM does when a VM starts.
 * withDma: and it does DMA
 */
function bringUp(p: Pools, withDma: boolean): fc.Arbitrary<Operation[]> {
  const of = (names: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...names);
  return fc.nat({ max: p.devices.length - 1 }).chain((i) =>
    fc
      .record({
        s2: of(p.s2s),
        ioas: of(p.ioas.slice(0, -1)),
        viommu: of(fitting(p.viommus, p, i)),
        nested: of(fitting(p.nested, p, i)),
        vste: fc.constantFrom('bypass' as const, 'translate' as const, 'translate' as const, 'abort' as const),
        cd: fc.integer({ min: 0, max: GUEST_CDS - 1 }),
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
  return fc.nat({ max: p.devices.length - 1 }).map((i): Operation[] => {
    const names = [...fitting(p.nested, p, i), `x${i}`, ...fitting(p.viommus, p, i), ...p.s2s];
    return [{ op: 'detach', dev: `d${i}` }, ...names.map((name): Operation => ({ op: 'destroy', name }))];
  });
}

/** A device does DMA while its memory comes and goes under it, and its guest invalidates. */
function traffic(p: Pools): fc.Arbitrary<Operation[]> {
  return fc
    .record({
      i: fc.nat({ max: p.devices.length - 1 }),
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

/** An arbitrary for each operation. */
function makers(p: Pools): Readonly<Record<OperationName, fc.Arbitrary<Operation>>> {
  const of = (names: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...names);
  const op = <N extends OperationName>(name: N): fc.Arbitrary<N> => fc.constant(name);
  const dev = of(p.devices);
  // Now and then something of another SMMU: the kernel has to refuse it.
  const placed = <T>(make: (dev: fc.Arbitrary<string>, at: number) => fc.Arbitrary<T>): fc.Arbitrary<T> =>
    fc
      .tuple(fc.nat({ max: p.devices.length - 1 }), fc.nat({ max: 19 }))
      .chain(([i, stray]) => make(stray === 19 ? dev : fc.constant(`d${i}`), i));
  const ioas = of(p.ioas);
  const pages = fc.integer({ min: 1, max: 3 });
  const vste = fc.constantFrom('bypass' as const, 'translate' as const, 'abort' as const);
  return {
    ioasAlloc: fc.record({ op: op('ioasAlloc'), as: ioas }),
    // The memory of each VM goes into its own space and no other: what crosses over then is a defect.
    map: fc
      .nat({ max: p.vms.length - 1 })
      .chain((i) =>
        fc.record({ op: op('map'), ioas: fc.constant(`a${i}`), vm: fc.constant(`vm${i}`), page, from: page, pages }),
      ),
    unmap: fc.record({ op: op('unmap'), ioas, page, pages }),
    hwptAlloc: fc.record({
      op: op('hwptAlloc'),
      as: of(p.s2s),
      dev,
      ioas,
      nestParent: fc.constantFrom(true, true, true, false),
    }),
    viommuAlloc: placed((dev, i) =>
      fc.record({ op: op('viommuAlloc'), as: of(fitting(p.viommus, p, i)), dev, parent: of(p.s2s) }),
    ),
    vdeviceAlloc: placed((dev, i) =>
      fc.record({ op: op('vdeviceAlloc'), as: fc.constant(`x${i}`), dev, viommu: of(fitting(p.viommus, p, i)), vsid }),
    ),
    nestedAlloc: placed((dev, i) =>
      fc.record({
        op: op('nestedAlloc'),
        as: of(fitting(p.nested, p, i)),
        dev,
        on: of([...fitting(p.viommus, p, i), ...p.s2s]),
        vste,
        cd: fc.integer({ min: 0, max: GUEST_CDS - 1 }),
      }),
    ),
    attach: placed((dev, i) =>
      fc.record({
        op: op('attach'),
        dev,
        to: of([...fitting(p.nested, p, i), ...fitting(p.nested, p, i), ...p.s2s, ...p.ioas]),
      }),
    ),
    detach: fc.record({ op: op('detach'), dev }),
    bind: fc.record({ op: op('bind'), dev }),
    unbind: fc.record({ op: op('unbind'), dev }),
    destroy: fc.record({
      op: op('destroy'),
      name: of([...p.nested, ...p.viommus, ...p.vdevices, ...p.s2s, ...p.ioas.slice(-1)]),
    }),
    invalidate: fc.record({
      op: op('invalidate'),
      on: of([...p.viommus, ...p.viommus, ...p.nested]),
      commands: fc.array(guestCommand, { minLength: 1, maxLength: 3 }),
    }),
    dma: fc.record({ op: op('dma'), dev, page, write: fc.boolean() }),
    fail: fc.record({
      op: op('fail'),
      point: fc.constantFrom('alloc:', 'ids:', 'copy:'),
      nth: fc.integer({ min: 1, max: 6 }),
    }),
    guestMap: fc.record({
      op: op('guestMap'),
      vm: of(p.vms),
      space: fc.integer({ min: 0, max: GUEST_SPACES - 1 }),
      page,
      to: fc.option<number>(page, { freq: 4 }),
    }),
  };
}

/** One operation, drawn by the weights. */
export function operation(weights: Weights, from: Pools): fc.Arbitrary<Operation> {
  const all = makers(from);
  const weighted = (Object.keys(weights) as OperationName[]).flatMap((name) => {
    const weight = weights[name] ?? 0;
    return weight === 0 ? [] : [{ weight, arbitrary: all[name] }];
  });
  return fc.oneof(...weighted);
}

/**
 * A sequence of at most `maxOps` operations, each with the id that its hardware draws depend on. Most are drawn one by
 * one; some come as a chain that sets a device up or takes it down.
 */
export function steps(weights: Weights, from: Pools, maxOps: number): fc.Arbitrary<CaseStep[]> {
  const withDma = (weights.dma ?? 0) > 0;
  const single = operation(weights, from).map((one): Operation[] => [one]);
  const piece = fc.oneof(
    { weight: 6, arbitrary: single },
    { weight: 1, arbitrary: bringUp(from, withDma) },
    { weight: 1, arbitrary: takeDown(from) },
    { weight: withDma ? 1 : 0, arbitrary: traffic(from) },
  );
  const group = fc.record({ id: fc.noShrink(fc.nat({ max: 0xffff })), operations: piece });
  return fc
    .array(group, { maxLength: Math.max(1, Math.ceil(maxOps / 2)), size: 'max' })
    .map((groups) => numbered(groups).slice(0, maxOps));
}

/** Ids of a chain's operations follow from the chain's. */
function numbered(groups: readonly { readonly id: number; readonly operations: readonly Operation[] }[]): CaseStep[] {
  return groups.flatMap(({ id, operations }) => operations.map((operation, i) => ({ id: id * CHAIN + i, operation })));
}

/** More than any chain is long. */
const CHAIN = 32;
