import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromQwords } from '../../spec/index.ts';
import type { DriverExtras, DriverParts, Hypervisor, VmidPolicyName } from '../../src/driver/arm-smmu-v3/index.ts';
import { iommuMap, iommuUnmap } from '../../src/driver/iommu/index.ts';
import type { IommuDomain, IommufdViommu } from '../../src/driver/iommu/ops.ts';
import { KernelError } from '../../src/driver/kernel.ts';
import { linuxNesting, qemuVirt, type ScheduleConfig, type SmmuConfig } from '../../src/hw/index.ts';
import { Sanitizer } from '../../src/sanitizer/index.ts';
import { Rig } from '../driver/arm-smmu-v3/rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData, invalidation } from '../driver/arm-smmu-v3/shim.ts';

const DEVICES = ['a1', 'a2', 'b1'] as const;
const RW = { read: true, write: true, cache: true };
const VSTES = [
  fromQwords([0x8000100bn, 0xd6n]),
  fromQwords([0x8000200bn, 0xd6n]),
  fromQwords([0x9n, 0n]),
  fromQwords([0x1n, 0n]),
  fromQwords([0n, 0n]),
];
const POLICIES = ['at-attach', 'viommu-only', 'at-domain-alloc', 'external'] as const;

/** With ATS, PRI and PASIDs. */
const ATS_NESTING: SmmuConfig = { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, ATS: 1, PRI: 1 } };

/** A hypervisor that owns the numbers, and says so. */
class Numbers implements Hypervisor {
  readonly #pins = new Map<string, { vmid: number; count: number }>();
  announce: Sanitizer['announce'] = () => {};
  #next = 5;

  pinVmid(vm: string, smmu: string): number {
    const key = `${vm} ${smmu}`;
    let pin = this.#pins.get(key);
    if (pin === undefined) {
      const other = [...this.#pins].find(([held]) => held.startsWith(`${vm} `))?.[1].vmid;
      pin = { vmid: other ?? this.#next++, count: 0 };
      this.#pins.set(key, pin);
      this.announce({ what: 'vmid', act: 'alloc', where: smmu, id: BigInt(pin.vmid), owner: vm });
    }
    pin.count++;
    return pin.vmid;
  }

  unpinVmid(vm: string, smmu: string): void {
    const key = `${vm} ${smmu}`;
    const pin = this.#pins.get(key);
    if (pin === undefined || --pin.count > 0) return;
    this.#pins.delete(key);
    this.announce({ what: 'vmid', act: 'free', where: smmu, id: BigInt(pin.vmid), owner: vm });
  }
}

/** Two SMMUs, three devices, the shipped driver, the sanitizer listening to both sides. */
class Watched extends Rig {
  readonly iommufd = new FakeIommufd();
  readonly sanitizer: Sanitizer;
  readonly s2s: IommuDomain[] = [];
  readonly s1s: IommuDomain[] = [];
  readonly viommus: { readonly viommu: IommufdViommu; readonly device: string }[] = [];
  readonly attached = new Map<string, IommuDomain>();
  /** Domains by device and PASID. */
  readonly pasids = new Map<string, IommuDomain>();

  constructor(
    vmidPolicy: VmidPolicyName,
    schedule: ScheduleConfig,
    config: SmmuConfig = linuxNesting,
    extras: DriverExtras = {},
  ) {
    const hypervisor = new Numbers();
    super({
      machine: {
        smmus: [
          { config, base: 0x0905_0000n },
          { config, base: 0x0a05_0000n },
        ],
        endpoints: [
          { name: 'a1', streamIds: [8], bdf: 8, ats: config.IDR0.ATS === 1, canWbs: true, ssidBits: 4 },
          { name: 'a2', streamIds: [2, 0x102], canWbs: true, canStall: true },
          { name: 'b1', streamIds: [3], smmu: 1, canWbs: true },
        ],
        schedule,
      },
      settings: { vmidPolicy, hypervisor },
      extras,
    });
    this.sanitizer = new Sanitizer(this.machine);
    hypervisor.announce = this.sanitizer.announce;
    this.kernel.onNote(this.sanitizer.announce);
    this.boot();
    for (const name of DEVICES) this.detach(name);
  }

  /** Runs an operation that may be refused, and says that it is done. */
  operation(kind: string, body: () => void): void {
    this.machine.conductor.schedule.operation(kind);
    try {
      body();
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
    }
    this.sanitizer.announce({ what: 'operation', act: 'done', where: '', id: 0n, owner: kind });
  }

  /** Says of each stream of a device that an operation on it is done. */
  streamsDone(kind: string, name: string): void {
    const { smmu, streamIds } = this.device(name).node;
    for (const sid of streamIds)
      this.sanitizer.announce({ what: 'operation', act: 'done', where: smmu, id: BigInt(sid), owner: kind });
  }

  attachTo(name: string, domain: IommuDomain): void {
    this.operation(`attach ${name}`, () => {
      deviceAttach(this, domain, this.device(name));
      this.attached.set(name, domain);
    });
  }

  detach(name: string): void {
    this.operation(`detach ${name}`, () => {
      deviceDetach(this, this.device(name));
      this.attached.delete(name);
    });
    this.streamsDone('detach', name);
  }
}

const pick = <T>(list: readonly T[], n: number): T | undefined => list[n % Math.max(1, list.length)];
const nameOf = (n: number): string => pick(DEVICES, n) ?? 'a1';

/** One step on the stack, by three numbers. */
function step(rig: Watched, [op, x, y]: readonly [number, number, number]): void {
  const name = nameOf(x);
  const dev = rig.device(name);
  switch (op) {
    case 0:
      rig.operation('alloc', () =>
        rig.s2s.push(rig.driver.domainAllocPagingFlags(dev, { nestParent: true, vm: `vm${rig.s2s.length}` }, null)),
      );
      break;
    case 1:
      rig.operation('alloc', () => rig.s1s.push(rig.driver.domainAllocPagingFlags(dev, {}, null)));
      break;
    case 2: {
      const s2 = pick(rig.s2s, y);
      if (s2 === undefined) break;
      rig.operation('viommu', () => {
        const viommu = rig.iommufd.viommu(rig, dev, s2, `vm${rig.s2s.indexOf(s2)}`);
        rig.viommus.push({ viommu, device: name });
      });
      break;
    }
    case 3: {
      const held = pick(rig.viommus, y);
      if (held === undefined) break;
      rig.operation('nested', () => {
        const vdev = rig.iommufd.vdevice(held.viommu, dev, BigInt(x + 0x70));
        try {
          const vste = pick(VSTES, y) ?? VSTES[0];
          const domain = rig.iommufd.nested(held.viommu, hwptData(vste ?? fromQwords([0n, 0n])));
          deviceAttach(rig, domain, dev);
          rig.attached.set(name, domain);
        } finally {
          if (!rig.attached.has(name)) vdev.destroy();
        }
      });
      break;
    }
    case 4: {
      const s2 = pick(rig.s2s, y);
      if (s2 !== undefined) rig.attachTo(name, s2);
      break;
    }
    case 5: {
      const s1 = pick(rig.s1s, y);
      if (s1 !== undefined) rig.attachTo(name, s1);
      break;
    }
    case 6:
      rig.attachTo(name, rig.driver.identityDomain);
      break;
    case 7:
      rig.detach(name);
      break;
    case 8: {
      const domain = pick([...rig.s2s, ...rig.s1s], y);
      if (domain === undefined) break;
      rig.operation('map', () =>
        iommuMap(domain, BigInt(x) << 12n, 0x5000_0000n + (BigInt(y) << 21n), BigInt(1 + (y % 5)) << 12n, RW),
      );
      break;
    }
    case 9: {
      const domain = pick([...rig.s2s, ...rig.s1s], y);
      if (domain === undefined) break;
      rig.operation('unmap', () => iommuUnmap(domain, BigInt(x & ~7) << 12n, 0x8000n));
      break;
    }
    case 10: {
      const held = pick(rig.viommus, y);
      const { viommu } = held ?? {};
      if (viommu === undefined) break;
      rig.operation('invalidate', () =>
        viommu.ops?.cacheInvalidate?.(
          viommu,
          invalidation([fromQwords([0x10n, 0n]), fromQwords([0x0007_0000_0000_0011n, 0n])]),
        ),
      );
      break;
    }
    case 11: {
      const used = new Set<unknown>([...rig.attached.values(), ...rig.pasids.values()]);
      const at = rig.s1s.findIndex((domain) => !used.has(domain));
      const [domain] = at < 0 ? [] : rig.s1s.splice(at, 1);
      if (domain !== undefined) rig.operation('free', () => domain.ops.free(domain));
      break;
    }
    case 12: {
      const s1 = pick(rig.s1s, y);
      if (s1 === undefined) break;
      const pasid = 1 + (x % 3);
      rig.operation('attach pasid', () => {
        const old = rig.pasids.get(`${name} ${pasid}`) ?? null;
        s1.ops.setDevPasid?.(s1, dev, pasid, old);
        rig.pasids.set(`${name} ${pasid}`, s1);
      });
      break;
    }
    case 13:
      clearPasids(rig, name);
      break;
    case 14: {
      const stream = x % rig.machine.endpoint(name).streamIds.length;
      rig.operation('dma', () => {
        rig.machine.endpoint(name).write(BigInt(x) << 12n, Uint8Array.of(y), { stream });
        rig.kernel.runInterrupts();
      });
      break;
    }
    case 15: {
      const { ats, streamIds } = rig.machine.endpoint(name);
      const StreamID = streamIds[0] ?? 0;
      rig.operation('dma', () =>
        ats?.translate({
          StreamID,
          SubstreamID: (y % 4) - 1,
          address: BigInt(x) << 12n,
          privileged: false,
          execute: false,
          noWrite: false,
        }),
      );
      break;
    }
    default:
      teardown(rig);
  }
}

function clearPasids(rig: Watched, name: string): void {
  for (const [key, domain] of [...rig.pasids]) {
    if (!key.startsWith(`${name} `)) continue;
    rig.pasids.delete(key);
    const { blockedDomain } = rig.driver;
    rig.operation('detach pasid', () =>
      blockedDomain.ops.setDevPasid?.(blockedDomain, rig.device(name), Number(key.split(' ')[1]), domain),
    );
  }
}

/** Detaches everything, ends the vIOMMUs, frees the domains. */
function teardown(rig: Watched): void {
  for (const name of DEVICES) {
    clearPasids(rig, name);
    rig.detach(name);
  }
  for (const { viommu } of rig.viommus.splice(0)) rig.operation('destroy', () => viommu.ops?.destroy?.(viommu));
  for (const domain of [...rig.s2s.splice(0), ...rig.s1s.splice(0)])
    rig.operation('free', () => domain.ops.free(domain));
}

const found = (rig: Watched): string[] =>
  rig.sanitizer.report().findings.map(({ rule, message, history }) => `${rule}: ${message}\n${history.join('\n')}`);

const steps = fc.array(fc.tuple(fc.nat(16), fc.nat(31), fc.nat(15)), { minLength: 10, maxLength: 60 });

describe.each(POLICIES)('no false alarm on the shipped driver, policy %s', (policy) => {
  test.each(['eager', 'seeded'] as const)('%s', (mode) => {
    fc.assert(
      fc.property(steps, fc.nat(), fc.boolean(), (list, seed, ats) => {
        const rig = new Watched(policy, { mode, seed }, ats ? ATS_NESTING : linuxNesting);
        for (const one of list) step(rig, one);
        teardown(rig);
        expect(found(rig)).toEqual([]);
      }),
      { numRuns: 25, seed: 20260717 },
    );
  });
});

describe('the same rig finds what a driver does wrong', () => {
  const run = (parts: (shipped: DriverParts) => DriverParts, ops: readonly (readonly [number, number, number])[]) => {
    const rig = new Watched('at-attach', { mode: 'eager' }, linuxNesting, { parts });
    for (const one of ops) step(rig, one);
    teardown(rig);
    return new Set(rig.sanitizer.report().findings.map(({ rule }) => rule));
  };

  test('no flush of the tag at the last detach: VMID-2, and TLB-3 for its tables', () => {
    const rules = run(
      (shipped) => ({ ...shipped, invalidation: { ...shipped.invalidation, flushTag: () => true } }),
      [
        [0, 0, 0],
        [4, 0, 0],
        [7, 0, 0],
      ],
    );
    expect([...rules].sort()).toEqual(['TLB-3', 'VMID-2']);
  });

  test('no invalidation at unmap: TLB-1', () => {
    const rules = run(
      (shipped) => ({ ...shipped, invalidation: { ...shipped.invalidation, invRange: () => true } }),
      [
        [0, 0, 0],
        [4, 0, 0],
        [8, 0, 0],
        [9, 0, 0],
      ],
    );
    expect(rules).toContain('TLB-1');
  });

  test('an entry writer without invalidation between its steps: torn STEs', () => {
    const rules = run(
      (shipped) => ({
        ...shipped,
        entryWriter: {
          write: (kernel, pa, target, rules, sync) => {
            shipped.entryWriter.write(kernel, pa, target, rules, () => true);
            return sync();
          },
        },
      }),
      [
        [0, 0, 0],
        [4, 0, 0],
        [1, 0, 0],
        [5, 0, 0],
      ],
    );
    expect([...rules].some((rule) => ['CFG-2', 'CFG-3', 'CFG-4'].includes(rule))).toBe(true);
  });
});

test('without EL2 and with 8-byte ranges off the lists are other ones', () => {
  const rig = new Watched('at-attach', { mode: 'eager' }, qemuVirt);
  for (const op of [1, 5, 8, 9, 7, 11]) step(rig, [op, 0, 0]);
  teardown(rig);
  expect(found(rig)).toEqual([]);
});
