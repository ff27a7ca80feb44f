/**
 * Cases for two runs that differ only in what VM 0 controls: its vSTEs, its tables and CDs, its commands, its queues and
 * their registers, its devices. What its VMM does, and all that VM 1 and its VMM do, is the same in both.
 */
import fc from 'fast-check';
import type { CaseStep, LabCase } from '../case.ts';
import type { LabChoices } from '../flavour.ts';
import { meet } from '../flavour.ts';
import { GUEST_CDS } from '../guest.ts';
import { CaseError } from '../lab.ts';
import type { Operation } from '../operation.ts';
import { type CaseOptions, DEFAULT_MAX_OPS, labConfig } from './case.ts';
import { cmdqvMakers, goodRing, queueName } from './families/cmdqv.ts';
import { atsCommand, guestCommand, guestCommands, guestMakers } from './families/guests.ts';
import { EACH, LVCMDQS, type Pools, pools } from './pools.ts';
import { cd, page, pasid, seldom, vsteMode } from './values.ts';

const SMMUS = 2;
const VMS = 2;
/** vSID of every device: each VM has one behind each SMMU. */
const VSID = 1;
/** Accesses of a device that asks for attention: more than the Event queue of such a lab has entries. */
const FLOOD = 24;
/** Some that it has room for. */
const BURST = 6;
const EVENTS_LOG2 = 4;

/** A VM on an SMMU: everything of VM k ends in a number that is k modulo the VMs. */
interface Place {
  readonly vm: number;
  readonly dev: string;
  readonly s2: string;
  readonly viommu: string;
  readonly nested: string;
  readonly vdevice: string;
  readonly ioas: string;
  readonly window: string;
  readonly fault: string;
  readonly veventq: string;
  /** Hardware queues, by their number. */
  readonly queues: readonly string[];
}

/** The VM that an operation belongs to, by the number that the first of its names ends in. */
export function vmOf(operation: Operation): number {
  const named = Object.entries(operation).find(
    ([key, value]) => key !== 'op' && typeof value === 'string' && NUMBER.test(value),
  );
  return Number(NUMBER.exec(String(named?.[1] ?? ''))?.[0] ?? 0) % VMS;
}

const NUMBER = /\d+$/;

const POOLS: Pools = pools(SMMUS, VMS, VMS);

/** VM k on SMMU i. */
function placeOf(vm: number, smmu: number): Place {
  const i = smmu * EACH + vm;
  return {
    vm,
    dev: `d${i}`,
    s2: `s${vm}`,
    viommu: `v${i}`,
    nested: `n${i}`,
    vdevice: `x${i}`,
    ioas: `a${vm}`,
    window: `w${i}`,
    fault: `f${vm}`,
    veventq: `e${i}`,
    queues: Array.from({ length: LVCMDQS }, (_, l) => queueName(POOLS, i, l)),
  };
}

const PLACES = Array.from({ length: SMMUS * VMS }, (_, i) => placeOf(i % VMS, Math.floor(i / VMS)));

/** An operation, and what is done in its stead in the other run; absent: the same. */
interface Pair {
  readonly operation: Operation;
  readonly twin?: Operation | null;
}

/** Both runs alike. */
const same = (...operations: readonly Operation[]): Pair[] => operations.map((operation) => ({ operation }));

/** What VM 0 controls differs; the same of VM 1 does not. Null: nothing is done. */
const controlled = ({ vm }: Place, one: fc.Arbitrary<Operation>): fc.Arbitrary<Pair[]> =>
  fc
    .tuple(one, fc.option(one, { freq: 3 }))
    .map(([operation, twin]) => [vm === 0 ? { operation, twin } : { operation }]);

/** The vSTE of a VM: legal, or one that the kernel refuses. */
const nestedAlloc = ({ nested, dev, viommu }: Place): fc.Arbitrary<Operation> =>
  seldom(
    fc.record({
      vste: fc.oneof({ weight: 8, arbitrary: vsteMode }, { weight: 1, arbitrary: fc.constant('stage2') }),
      cd,
    }),
    { ats: true },
    { ssids: 1, dss: 'SSID0' as const },
    { ssids: 2, dss: 'BYPASS' as const },
    { stalld: true },
  ).map((content): Operation => ({ op: 'nestedAlloc', as: nested, dev, on: viommu, ...content }));

/** What a device does by itself, or at its driver's word. */
const deviceAct = ({ vm, dev }: Place, ats: boolean): fc.Arbitrary<Operation> => {
  const dma = seldom(fc.record({ dev: fc.constant(dev), page, write: fc.boolean() }), { pasid: 1 }, { ats }).map(
    (access): Operation => ({ op: 'dma', ...access }),
  );
  const translate = fc
    .record({ page, write: fc.boolean() })
    .map((access): Operation => ({ op: 'translate', dev, ...access }));
  // More than one access at a time, and a cache that does not answer: what only an attacker's device does.
  const flood = fc
    .record({ page, times: fc.constantFrom(BURST, BURST, FLOOD) })
    .map((accesses): Operation => ({ op: 'dma', dev, ...accesses }));
  const hang = fc.boolean().map((on): Operation => ({ op: 'atcHang', dev, on }));
  return fc.oneof(
    { weight: 12, arbitrary: dma },
    { weight: ats ? 4 : 0, arbitrary: translate },
    { weight: 1, arbitrary: fc.constant<Operation>({ op: 'settle', dev }) },
    { weight: vm === 0 ? 2 : 0, arbitrary: flood },
    { weight: vm === 0 && ats ? 1 : 0, arbitrary: hang },
    { weight: vm === 0 && ats ? 1 : 0, arbitrary: page.map((at): Operation => ({ op: 'forge', dev, page: at })) },
  );
};

/** What a guest does in its memory: VM 1 leaves it alone, as one that does not invalidate may read either. */
function memoryAct(): fc.Arbitrary<Operation> {
  const { guestMap, guestCd, guestTable } = guestMakers({ ...POOLS, vms: ['vm0'] });
  return fc.oneof(
    { weight: 3, arbitrary: guestMap },
    { weight: 2, arbitrary: guestCd },
    { weight: 1, arbitrary: guestTable },
  );
}

/** Commands of a guest: through its VMM, or on its own queue. */
const commandAct = ({ viommu, window }: Place, cmdqv: boolean): fc.Arbitrary<Operation> => {
  const one = fc.oneof({ weight: 3, arbitrary: guestCommand }, { weight: 1, arbitrary: atsCommand });
  const invalidate = guestCommands(one).map((commands): Operation => ({ op: 'invalidate', on: viommu, commands }));
  const { vcmdqStart, vcmdqStop, vcmdqRecover, vcmdqIssue, vcmdqWrite, vcmdqRead } = cmdqvMakers({
    ...POOLS,
    windows: [window],
  });
  return fc.oneof(
    { weight: 3, arbitrary: invalidate },
    ...[vcmdqStart, vcmdqIssue, vcmdqIssue, vcmdqStop, vcmdqRecover, vcmdqWrite, vcmdqRead].map((arbitrary) => ({
      weight: cmdqv ? 1 : 0,
      arbitrary,
    })),
  );
};

/** Everything that a VM controls beside its vSTE. In the other run VM 0 does anything else of this in its place. */
const guestAct = (p: Place, { ats, cmdqv }: Has): fc.Arbitrary<Operation> =>
  fc.oneof(
    { weight: 6, arbitrary: deviceAct(p, ats) },
    { weight: p.vm === 0 ? 3 : 0, arbitrary: memoryAct() },
    { weight: 3, arbitrary: commandAct(p, cmdqv) },
  );

/** What a lab has. */
interface Has {
  readonly ats: boolean;
  readonly cmdqv: boolean;
  readonly stalls: boolean;
}

/** A VM starts on an SMMU. Its vSTE is its own; that there is one is the VMM's doing. */
function bringUp(p: Place, { cmdqv, stalls }: Has): fc.Arbitrary<Pair[]> {
  const { vm, dev, s2, viommu, nested, vdevice, ioas, window, queues, fault } = p;
  return fc
    .record({
      one: nestedAlloc(p),
      other: nestedAlloc(p),
      ring: goodRing,
      events: fc.boolean(),
      vintf: fc.boolean(),
      // Without a fault queue a stalled access ends at once.
      faults: fc.boolean(),
    })
    .map(({ one, other, ring, events, vintf, faults }) => {
      const queued = (o: Operation): Operation => (stalls && faults && o.op === 'nestedAlloc' ? { ...o, fault } : o);
      const tegra = cmdqv && vintf ? ({ type: 'tegra241-cmdqv' } as const) : {};
      const queue: Operation[] = [
        { op: 'mmap', as: window, viommu, vm: `vm${vm}` },
        { op: 'hwQueueAlloc', as: queues[0] ?? '', viommu, index: 0, ...ring },
      ];
      return [
        ...same(
          { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
          { op: 'viommuAlloc', as: viommu, dev, parent: s2, ...tegra },
          ...(stalls && faults ? [{ op: 'faultQueueAlloc' as const, as: fault, dev }] : []),
          ...(events ? [{ op: 'veventqAlloc' as const, as: p.veventq, viommu, depth: FLOOD }] : []),
          { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid: VSID },
        ),
        vm === 0 ? { operation: queued(one), twin: queued(other) } : { operation: queued(one) },
        ...same({ op: 'attach', dev, to: nested }, ...(cmdqv && vintf ? queue : [])),
      ];
    });
}

/** A VM whose stage 1 has no valid CD hears of each access of its device. */
const heard = ({ dev, s2, viommu, nested, vdevice, ioas, veventq }: Place): fc.Arbitrary<Pair[]> =>
  page.map((at) =>
    same(
      { op: 'hwptAlloc', as: s2, dev, ioas, nestParent: true },
      { op: 'viommuAlloc', as: viommu, dev, parent: s2 },
      { op: 'veventqAlloc', as: veventq, viommu, depth: FLOOD },
      { op: 'vdeviceAlloc', as: vdevice, dev, viommu, vsid: VSID },
      { op: 'nestedAlloc', as: nested, dev, on: viommu, vste: 'translate', cd: GUEST_CDS - 1 },
      { op: 'attach', dev, to: nested },
      { op: 'dma', dev, page: at },
      { op: 'veventRead', on: veventq },
    ),
  );

function piece(p: Place, has: Has): fc.Arbitrary<Pair[]> {
  const { vm, dev, s2, viommu, nested, vdevice, ioas, window, fault, veventq, queues } = p;
  const fixed = (...operations: readonly Operation[]): fc.Arbitrary<Pair[]> => fc.constant(same(...operations));
  const destroyed = [...queues].reverse().concat(nested, vdevice, viommu);
  return fc.oneof(
    { weight: 5, arbitrary: bringUp(p, has) },
    { weight: 1, arbitrary: heard(p) },
    { weight: 16, arbitrary: controlled(p, guestAct(p, has)) },
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
    { weight: 1, arbitrary: fixed({ op: 'veventRead', on: veventq }) },
    { weight: has.stalls ? 1 : 0, arbitrary: fixed({ op: 'faultRead', on: fault }) },
    { weight: has.stalls ? 1 : 0, arbitrary: fixed({ op: 'faultRespond', on: fault, code: 'success' }) },
    { weight: 1, arbitrary: pasid.map((one) => same({ op: 'pasidAttach', dev, pasid: one, to: ioas })) },
    {
      weight: 1,
      arbitrary: fixed(
        { op: 'munmap', name: window },
        { op: 'detach', dev },
        ...destroyed.map((name): Operation => ({ op: 'destroy', name })),
      ),
    },
  );
}

/** Pieces of labs of each kind: made once. */
const made = new Map<string, fc.Arbitrary<Pair[]>>();

function pieces(has: Has): fc.Arbitrary<Pair[]> {
  const key = JSON.stringify(has);
  const known = made.get(key) ?? fc.oneof(...PLACES.map((p) => piece(p, has)));
  made.set(key, known);
  return known;
}

/** Steps of a group have ids of their own. */
const CHAIN = 32;

/** Labs of two VMs, each with its own /dev/iommu and a device behind each SMMU. */
const LABS: LabChoices = {
  smmus: [SMMUS],
  devices: [VMS],
  vms: [VMS],
  contexts: ['per-vm'],
  eventsLog2: [EVENTS_LOG2],
  ats: [false, true],
  stalls: [false, false, true],
  pasidBits: [0, 2],
};

/** Cases of two runs. @throws CaseError for options that ask for another kind of lab */
export function twinCase(options: CaseOptions = {}): fc.Arbitrary<LabCase> {
  const among = meet(LABS, options.among ?? {});
  if (among === null) throw new CaseError('two VMs, each with its own /dev/iommu, are what isolation is about');
  const maxOps = options.maxOps ?? DEFAULT_MAX_OPS;
  return labConfig({ ...options, among }).chain((config) => {
    const has = { ats: config.ats === true, cmdqv: config.preset === 'grace', stalls: config.stalls === true };
    const group = fc.record({ id: fc.noShrink(fc.nat({ max: 0xffff })), pairs: pieces(has) });
    const steps = fc
      .array(group, { maxLength: maxOps, size: 'max' })
      .map((groups) =>
        groups
          .flatMap(({ id, pairs }) => pairs.map((pair, i): CaseStep => ({ id: id * CHAIN + i, ...pair })))
          .slice(0, maxOps),
      );
    return fc.record({ config: fc.constant(config), steps });
  });
}
