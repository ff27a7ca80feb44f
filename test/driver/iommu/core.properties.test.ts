import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  attachDevicePasid,
  attachGroupHandle,
  detachDevicePasid,
  detachGroupHandle,
  deviceClaimDmaOwner,
  deviceReleaseDmaOwner,
  newAttachHandle,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf, type IommuGroup, NO_PASID } from '../../../src/driver/iommu/group.ts';
import { IopfQueue, reportDeviceFault } from '../../../src/driver/iommu/io-pgfault.ts';
import type { AttachHandle, Device, PageFaultGroup } from '../../../src/driver/iommu/ops.ts';
import { pciDevResetDone, pciDevResetPrepare } from '../../../src/driver/iommu/reset.ts';
import { errnoOf, fixture, type MockDomain, MockDriver, node, pageFault } from './mock-ops.ts';

const OWNERS = [{ name: 'one' }, { name: 'two' }];
const KINDS = [
  'claim',
  'release',
  'attach',
  'replace',
  'detach',
  'attachPasid',
  'replacePasid',
  'detachPasid',
  'prepare',
  'done',
  'fault',
  'respond',
] as const;

const step = fc.record({
  kind: fc.constantFrom(...KINDS),
  dev: fc.nat({ max: 3 }),
  domain: fc.nat({ max: 5 }),
  pasid: fc.constantFrom(0, 1, 2, 8),
  owner: fc.nat({ max: 1 }),
  /** The device of the group that refuses the new domain, if any. */
  refuse: fc.option(fc.nat({ max: 3 }), { freq: 4 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** What the rules of iommufd.md 7 say about a group, kept in plain values beside the core. */
interface Model {
  owner: object | null;
  claims: number;
  rid: MockDomain | null;
  readonly pasids: Map<number, MockDomain>;
  readonly resets: Map<string, number>;
}

class World {
  readonly f = fixture();
  readonly devices: Device[];
  readonly domains: MockDomain[];
  readonly handles: AttachHandle[] = [];
  readonly faults: PageFaultGroup[] = [];
  readonly models = new Map<IommuGroup, Model>();

  /** A (16 PASIDs), B (none) and C (4) share a group; D is alone. */
  constructor() {
    const bits: Record<string, number> = { A: 4, B: 0, C: 2, D: 4 };
    this.devices = Object.entries(bits).map(([name, ssidBits]) =>
      this.f.core.probeDevice(
        node(name, { ssidBits, ...(name === 'D' ? {} : { groupAlias: 'g' }) }),
        this.f.driver.iommu,
      ),
    );
    const { driver } = this.f;
    const queue = new IopfQueue(this.f.kernel, 'iopf');
    for (const dev of this.devices) queue.addDevice(dev);
    this.domains = [
      driver.alloc('s1'),
      driver.alloc('s1'),
      driver.alloc('s2'),
      driver.alloc('nested'),
      driver.identity,
      new MockDriver('foreign').alloc('s1'),
    ];
    for (const domain of this.domains) domain.iopfHandler = (group) => this.faults.push(group);
    for (const group of this.f.core.groups) {
      this.models.set(group, { owner: null, claims: 0, rid: null, pasids: new Map(), resets: new Map() });
    }
  }

  handle(domain: MockDomain): AttachHandle {
    const handle = newAttachHandle(domain, null);
    this.handles.push(handle);
    return handle;
  }
}

/** What the model says the step must answer, and what it changes if that is no error. */
interface Expectation {
  readonly errno: string;
  readonly change: () => void;
  /** The step calls the driver with a domain that may be refused. */
  readonly calls: boolean;
}

function expectation(world: World, s: Step, dev: Device, domain: MockDomain): Expectation {
  const model = world.models.get(groupOf(dev));
  if (!model) throw new Error('no model');
  const inReset = [...model.resets.values()].some((depth) => depth > 0);
  const foreign = s.domain === 5;
  const nothing = () => {};
  const is = (errno: string, change: () => void = nothing, calls = false): Expectation => ({ errno, change, calls });
  const busy = model.rid !== null || model.pasids.size > 0;
  const at = model.pasids.get(s.pasid);
  switch (s.kind) {
    case 'claim':
      if (model.claims > 0 && model.owner !== OWNERS[s.owner]) return is('EPERM');
      if (model.claims === 0 && (busy || inReset)) return is('EBUSY');
      return is('none', () => {
        model.owner = OWNERS[s.owner] ?? null;
        model.claims++;
      });
    case 'release':
      if (model.claims > 1) return is('none', () => model.claims--);
      if (model.claims === 0 || busy) return is('none');
      return is('none', () => {
        model.owner = null;
        model.claims = 0;
      });
    case 'attach':
      if (model.rid) return is('EBUSY');
      if (foreign) return is('EINVAL');
      if (inReset) return is('EBUSY');
      return is('none', () => (model.rid = domain), true);
    case 'replace':
      if (model.rid !== domain && inReset) return is('EBUSY');
      return is('none', () => (model.rid = domain), model.rid !== domain);
    case 'detach':
      return is('none', () => (model.rid = null));
    case 'attachPasid':
    case 'replacePasid':
      if (s.domain === 3) return is('EOPNOTSUPP');
      if (foreign || s.pasid === 0) return is('EINVAL');
      if (inReset) return is('EBUSY');
      if (s.kind === 'replacePasid') {
        if (!at) return is('EINVAL');
        return is('none', () => model.pasids.set(s.pasid, domain), at !== domain);
      }
      if (dev.name !== 'D' && s.pasid >= 4) return is('EINVAL');
      if (at) return is('EBUSY');
      return is('none', () => model.pasids.set(s.pasid, domain), true);
    case 'detachPasid':
      return is('none', () => model.pasids.delete(s.pasid));
    case 'prepare':
      return is('none', () => model.resets.set(dev.name, (model.resets.get(dev.name) ?? 0) + 1));
    case 'done':
      return is('none', () => model.resets.set(dev.name, Math.max(0, (model.resets.get(dev.name) ?? 0) - 1)));
    case 'fault': {
      const pasidOwner = s.pasid === 0 ? model.rid : (at ?? (model.rid?.type === 'nested' ? model.rid : null));
      return is(pasidOwner ? 'none' : 'EINVAL');
    }
    case 'respond':
      return is('none');
  }
}

function perform(world: World, s: Step, dev: Device, domain: MockDomain): void {
  const group = groupOf(dev);
  const model = world.models.get(group);
  const acts: Record<Step['kind'], () => void> = {
    claim: () => deviceClaimDmaOwner(dev, OWNERS[s.owner] ?? world),
    release: () => deviceReleaseDmaOwner(dev),
    attach: () => attachGroupHandle(domain, group, world.handle(domain)),
    replace: () => replaceGroupHandle(group, domain, world.handle(domain)),
    detach: () => {
      if (model?.rid) detachGroupHandle(model.rid, group);
    },
    attachPasid: () => attachDevicePasid(domain, dev, s.pasid, world.handle(domain)),
    replacePasid: () => replaceDevicePasid(domain, dev, s.pasid, world.handle(domain)),
    detachPasid: () => {
      const at = model?.pasids.get(s.pasid);
      if (at) detachDevicePasid(at, dev, s.pasid);
    },
    prepare: () => pciDevResetPrepare(dev),
    done: () => pciDevResetDone(dev),
    fault: () => reportDeviceFault(dev, pageFault(s.owner, { pasid: s.pasid === 0 ? undefined : s.pasid })),
    respond: () => world.faults.shift()?.respond('success'),
  };
  acts[s.kind]();
}

/** Driver, core and model agree; no handle outlives its attachment. */
function checkWorld(world: World): void {
  const { driver } = world.f;
  const attached = new Set<AttachHandle>();
  for (const [group, model] of world.models) {
    const rest = model.owner === null ? group.defaultDomain : driver.blocked;
    expect(group.domain).toBe(model.rid ?? rest);
    expect([group.owner, group.ownerCount]).toEqual([model.owner, model.claims]);
    const entries = [...model.pasids, ...(model.rid ? [[NO_PASID, model.rid] as const] : [])];
    expect(new Map([...group.pasidArray].map(([pasid, entry]) => [pasid, entry.domain]))).toEqual(new Map(entries));
    for (const { handle } of group.pasidArray.values()) if (handle) attached.add(handle);
    for (const { dev } of group.devices) {
      const inReset = (model.resets.get(dev.name) ?? 0) > 0;
      expect(driver.rids.get(dev.name)).toBe(inReset ? driver.blocked : (model.rid ?? rest));
      const seen = [...driver.pasids.keys()].filter((key) => key.startsWith(`${dev.name}/`)).sort();
      const wanted = inReset || dev.maxPasids === 0 ? [] : [...model.pasids.keys()].map((p) => `${dev.name}/${p}`);
      expect(seen).toEqual(wanted.sort());
      for (const [pasid, domain] of model.pasids) {
        if (wanted.length > 0) expect(driver.pasids.get(`${dev.name}/${pasid}`)).toBe(domain);
      }
      for (const pending of dev.faultParam?.pending ?? []) expect(pending.handle.live).toBe(true);
    }
  }
  for (const handle of world.handles) expect(handle.live).toBe(attached.has(handle));
}

test('after any sequence the driver sees what the core records, errors change nothing, and handles die with their attachment', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const world = new World();
      checkWorld(world);
      for (const s of steps) {
        const dev = world.devices[s.dev];
        const domain = world.domains[s.domain];
        if (!dev || !domain) throw new Error('no such device or domain');
        // A replace does not look at the owner of a domain: iommufd has.
        if (s.kind === 'replace' && s.domain === 5) continue;
        const expected = expectation(world, s, dev, domain);
        const refuser = s.refuse === null ? undefined : world.devices[s.refuse];
        const pasidStep = s.kind.endsWith('Pasid');
        const hit = expected.calls && refuser?.group === dev.group && (!pasidStep || (refuser?.maxPasids ?? 0) > 0);
        if (hit && refuser) world.f.driver.refuse(refuser.name, domain.name, 'EIO');
        expect(errnoOf(() => perform(world, s, dev, domain))).toBe(hit ? 'EIO' : expected.errno);
        world.f.driver.clearRefusals();
        if (!hit && expected.errno === 'none') expected.change();
        checkWorld(world);
      }
    }),
    { numRuns: 400 },
  );
});
