/**
 * Cases for two runs that differ only in what VM 0 controls: its vSTEs, its tables, its commands, its DMA. What its VMM
 * does, and all that VM 1 and its VMM do, is the same in both.
 */
import fc from 'fast-check';
import type { CaseStep, LabCase } from '../case.ts';
import { FIRST_DATA_PAGE, GUEST_CDS, GUEST_PAGES, GUEST_SPACES, type VsteMode } from '../guest.ts';
import type { GuestCommand, Operation } from '../operations.ts';
import { type CaseOptions, DEFAULT_MAX_OPS, labConfig } from './case.ts';

const SMMUS = 2;
const VMS = 2;

/** Names of a VM on an SMMU: everything of VM k ends in a number that is k modulo the VMs. */
interface Place {
  readonly vm: number;
  readonly dev: string;
  readonly s2: string;
  readonly viommu: string;
  readonly nested: string;
  readonly vdevice: string;
  readonly ioas: string;
}

/** The VM that an operation belongs to, by the number that its names end in. */
export function vmOf(operation: Operation): number {
  const named = Object.entries(operation).find(
    ([key, value]) => key !== 'op' && typeof value === 'string' && NUMBER.test(value),
  );
  return Number(NUMBER.exec(String(named?.[1] ?? ''))?.[0] ?? 0) % VMS;
}

const NUMBER = /\d+$/;

const place: fc.Arbitrary<Place> = fc
  .record({ vm: fc.nat({ max: VMS - 1 }), smmu: fc.nat({ max: SMMUS - 1 }) })
  .map(({ vm, smmu }) => {
    const i = smmu * VMS + vm;
    return { vm, dev: `d${i}`, s2: `s${vm}`, viommu: `v${i}`, nested: `n${i}`, vdevice: `x${i}`, ioas: `a${vm}` };
  });

const page = fc.integer({ min: FIRST_DATA_PAGE, max: GUEST_PAGES - 1 });
const vsteMode = fc.constantFrom<VsteMode>('translate', 'bypass', 'abort');
const cd = fc.nat({ max: GUEST_CDS - 1 });
const command = fc.oneof(
  fc.constantFrom<GuestCommand>({ command: 'NSNH_ALL' }, { command: 'NH_ALL' }),
  fc.record({ command: fc.constant('NH_ASID' as const), asid: fc.integer({ min: 1, max: GUEST_SPACES }) }),
  fc.record({ command: fc.constantFrom('CFGI_CD' as const, 'CFGI_CD_ALL' as const), vsid: fc.nat({ max: 3 }) }),
);

/** An operation, and what is done in its stead in the other run; absent: the same. */
interface Pair {
  readonly operation: Operation;
  readonly twin?: Operation | null;
}

/** Both runs alike. */
const same = (...operations: readonly Operation[]): Pair[] => operations.map((operation) => ({ operation }));

/** What VM 0 controls differs; the same of VM 1 does not. `other` null: nothing is done. */
function controlled(vm: number, one: fc.Arbitrary<Operation>): fc.Arbitrary<Pair[]> {
  return fc
    .tuple(one, fc.option(one, { freq: 3 }))
    .map(([operation, twin]) => [vm === 0 ? { operation, twin } : { operation }]);
}

function nestedAlloc({ nested, dev, viommu }: Place): fc.Arbitrary<Operation> {
  return fc
    .record({ vste: vsteMode, cd })
    .map((content): Operation => ({ op: 'nestedAlloc', as: nested, dev, on: viommu, ...content }));
}

/** A VM starts on an SMMU. Its vSTE is its own; that there is one is the VMM's doing. */
function bringUp(p: Place): fc.Arbitrary<Pair[]> {
  const { dev, s2, viommu, nested, vdevice, ioas } = p;
  return fc
    .tuple(nestedAlloc(p), nestedAlloc(p))
    .map(([operation, twin]) => [
      ...same(
        { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
        { op: 'viommuAlloc', as: viommu, dev, parent: s2 },
        { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid: 1 },
      ),
      p.vm === 0 ? { operation, twin } : { operation },
      ...same({ op: 'attach', dev, to: nested }),
    ]);
}

function piece(p: Place): fc.Arbitrary<Pair[]> {
  const { vm, dev, s2, viommu, nested, vdevice, ioas } = p;
  const fixed = (...operations: readonly Operation[]): fc.Arbitrary<Pair[]> => fc.constant(same(...operations));
  const dma = fc
    .record({ at: page, write: fc.boolean() })
    .map(({ at, write }): Operation => ({ op: 'dma', dev, page: at, write }));
  const invalidate = fc
    .array(command, { minLength: 1, maxLength: 3 })
    .map((commands): Operation => ({ op: 'invalidate', on: viommu, commands }));
  // A guest that does not invalidate may read old entries, or not: VM 1 leaves its tables alone.
  const guestMap = fc
    .record({ space: fc.nat({ max: GUEST_SPACES - 1 }), at: page, to: fc.option<number>(page, { freq: 4 }) })
    .map(({ space, at, to }): Operation => ({ op: 'guestMap', vm: 'vm0', space, page: at, to }));
  return fc.oneof(
    { weight: 4, arbitrary: bringUp(p) },
    { weight: 8, arbitrary: controlled(vm, dma) },
    { weight: 3, arbitrary: controlled(vm, invalidate) },
    { weight: vm === 0 ? 3 : 0, arbitrary: controlled(0, guestMap) },
    { weight: 2, arbitrary: fixed({ op: 'attach', dev, to: nested }) },
    { weight: 1, arbitrary: fixed({ op: 'attach', dev, to: s2 }) },
    { weight: 1, arbitrary: fixed({ op: 'detach', dev }) },
    { weight: 2, arbitrary: page.map((at) => same({ op: 'unmap', ioas, page: at, pages: 1 })) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(page, page)
        .map(([at, from]) => same({ op: 'map', ioas, vm: `vm${vm}`, page: at, from, pages: 1 })),
    },
    {
      weight: 1,
      arbitrary: fixed(
        { op: 'detach', dev },
        { op: 'destroy', name: nested },
        { op: 'destroy', name: vdevice },
        { op: 'destroy', name: viommu },
      ),
    },
  );
}

/** Steps of a group have ids of their own. */
const CHAIN = 32;

/** Cases of two VMs, each with its own /dev/iommu and a device behind each SMMU, and what VM 0 does otherwise. */
export function twinCase(options: CaseOptions = {}): fc.Arbitrary<LabCase> {
  const group = fc.record({ id: fc.noShrink(fc.nat({ max: 0xffff })), pairs: place.chain(piece) });
  const maxOps = options.maxOps ?? DEFAULT_MAX_OPS;
  const steps = fc
    .array(group, { maxLength: maxOps, size: 'max' })
    .map((groups) =>
      groups
        .flatMap(({ id, pairs }) => pairs.map((pair, i): CaseStep => ({ id: id * CHAIN + i, ...pair })))
        .slice(0, maxOps),
    );
  const config = labConfig(options).map((one) => ({
    ...one,
    smmus: SMMUS,
    devices: VMS,
    vms: VMS,
    contexts: 'per-vm' as const,
  }));
  return fc.record({ config, steps });
}
