import { describe, expect, test } from 'vitest';
import { fromQwords, STE } from '../../../spec/index.ts';
import type { DriverSettings, Hypervisor, VmidPolicyName } from '../../../src/driver/arm-smmu-v3/index.ts';
import { iommuMap, iommuUnmap } from '../../../src/driver/iommu/index.ts';
import type { Device, IommuDomain, IommufdViommu } from '../../../src/driver/iommu/ops.ts';
import { KernelError } from '../../../src/driver/kernel.ts';
import { linuxNesting, smallVmid } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData, invalidation } from './shim.ts';

const A1 = 'a1';
const A2 = 'a2';
const B1 = 'b1';
const TRANSLATE = fromQwords([0x8000100bn, 0xd6n]);
const BYPASS = fromQwords([0x9n, 0n]);

/** Two SMMUs, two devices on the first, one on the second. No EL2 on the CPU side: commands are the plain ones. */
class TwoSmmus extends Rig {
  readonly iommufd = new FakeIommufd();

  constructor(settings: DriverSettings, config = linuxNesting) {
    super({
      machine: {
        smmus: [
          { config, base: 0x0905_0000n },
          { config, base: 0x0a05_0000n },
        ],
        endpoints: [
          { name: A1, streamIds: [1], canWbs: true },
          { name: A2, streamIds: [2], canWbs: true },
          { name: B1, streamIds: [3], smmu: 1, canWbs: true },
        ],
      },
      settings: { cpu: { vhe: false }, disableMsiPolling: true, ...settings },
    });
    this.boot();
    for (const name of [A1, A2, B1]) this.detach(name);
    this.queued('smmu0');
    this.queued('smmu1');
  }

  s2(name = A1, vm?: string): IommuDomain {
    return this.driver.domainAllocPagingFlags(
      this.device(name),
      { nestParent: true, ...(vm === undefined ? {} : { vm }) },
      null,
    );
  }

  viommu(name: string, s2: IommuDomain, vm?: string): IommufdViommu {
    return this.iommufd.viommu(this, this.device(name), s2, vm);
  }

  /** A nested domain of a vIOMMU, with a vDEVICE for the device. */
  nested(viommu: IommufdViommu, name: string, vste = TRANSLATE): IommuDomain {
    this.iommufd.vdevice(viommu, this.device(name), 0x77n);
    return this.iommufd.nested(viommu, hwptData(vste));
  }

  nestedOnS2(name: string, s2: IommuDomain, vste = TRANSLATE): IommuDomain {
    const { driver } = this;
    // What the core answers where the operation is missing.
    if (!driver.domainAllocNested) throw new KernelError('EOPNOTSUPP', 'no domain_alloc_nested');
    return driver.domainAllocNested(this.device(name), s2, {}, hwptData(vste));
  }

  attachTo(domain: IommuDomain, name: string): void {
    deviceAttach(this, domain, this.device(name));
  }

  detach(name: string): void {
    deviceDetach(this, this.device(name));
  }

  /** Config and S2VMID of a stream. */
  stream(name: string): [number, number] {
    const dev: Device = this.device(name);
    const words = fromQwords(this.ste(dev.node.streamIds[0] ?? -1, this.driver.smmu(dev.iommu.name)));
    return [STE.num(words, 'Config'), STE.num(words, 'S2VMID')];
  }

  taken(smmu: 'smmu0' | 'smmu1'): number[] {
    return this.driver.smmu(smmu).vmids.taken;
  }

  /** Commands without their CMD_SYNCs. */
  queued(smmu: 'smmu0' | 'smmu1' = 'smmu0'): string[] {
    return this.commands(this.driver.smmu(smmu)).filter((command) => !/46,/.test(command));
  }
}

const destroy = (viommu: IommufdViommu): void => viommu.ops?.destroy?.(viommu);

const lines = (...commands: readonly [bigint, bigint][]): string[] =>
  commands.map((pair) => pair.map((word) => word.toString(16).padStart(16, '0')).join(','));

describe('at-attach (design: VmidPolicy)', () => {
  test('an S2 takes no VMID; each vIOMMU takes its own and keeps it until it is destroyed', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    expect(rig.taken('smmu0')).toEqual([]);
    const one = rig.viommu(A1, s2);
    const two = rig.viommu(A2, s2);
    const other = rig.viommu(B1, s2);
    expect([rig.taken('smmu0'), rig.taken('smmu1')]).toEqual([[1, 2], [1]]);
    rig.attachTo(rig.nested(one, A1), A1);
    rig.attachTo(rig.nested(two, A2), A2);
    rig.attachTo(rig.nested(other, B1), B1);
    expect([rig.stream(A1), rig.stream(A2), rig.stream(B1)]).toEqual([
      [7, 1],
      [7, 2],
      [7, 1],
    ]);
    for (const name of [A1, A2, B1]) rig.detach(name);
    expect([rig.taken('smmu0'), rig.taken('smmu1')]).toEqual([[1, 2], [1]]);
    for (const viommu of [one, two, other]) destroy(viommu);
    expect([rig.taken('smmu0'), rig.taken('smmu1')]).toEqual([[], []]);
  });

  test('a direct attach takes one VMID for (S2, SMMU) at the first attach, frees it after S12_VMALL at the last detach', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    rig.attachTo(s2, A1);
    rig.attachTo(s2, A2);
    rig.attachTo(s2, B1);
    expect([rig.stream(A1), rig.stream(A2), rig.stream(B1)]).toEqual([
      [6, 1],
      [6, 1],
      [6, 1],
    ]);
    rig.detach(A1);
    expect(rig.taken('smmu0')).toEqual([1]);
    rig.queued();
    rig.detach(A2);
    expect(rig.taken('smmu0')).toEqual([]);
    expect(rig.queued()).toEqual(lines([0x200000003n, 1n], [0x200000003n, 1n], [0x200000001n, 0n], [0x100000028n, 0n]));
    expect(rig.taken('smmu1')).toEqual([1]);
  });

  test('the S2 attached directly beside its vIOMMU has a VMID of its own; an unmap reaches both, and stage 1 of one', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    const viommu = rig.viommu(A1, s2);
    rig.attachTo(rig.nested(viommu, A1), A1);
    rig.attachTo(s2, A2);
    expect([rig.stream(A1), rig.stream(A2)]).toEqual([
      [7, 1],
      [6, 2],
    ]);
    iommuMap(s2, 0x8000_0000n, 0x6000_0000n, 0x1000n, { read: true, write: true, cache: true });
    rig.queued();
    iommuUnmap(s2, 0x8000_0000n, 0x1000n);
    // Sorted by type: S2_VMID, S2_VMID_VSMMU, CMD_SYNC, S1_CLEAR; S2_IPA with TG=1 TTL=3 Leaf=1.
    expect(rig.commands().map((command) => command.slice(0, 33))).toEqual([
      ...lines([0x20000002an, 0x80000701n], [0x10000002an, 0x80000701n]),
      expect.stringMatching(/46,/),
      ...lines([0x100000010n, 0n]),
      expect.stringMatching(/46,/),
    ]);
  });

  test('nested without a vIOMMU uses the very tag of a direct attach of the S2', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    const viommu = rig.viommu(A1, s2);
    const nested = rig.nestedOnS2(A1, s2);
    rig.attachTo(nested, A1);
    rig.attachTo(s2, A2);
    expect([rig.stream(A1), rig.stream(A2)]).toEqual([
      [7, 2],
      [6, 2],
    ]);
    rig.queued();
    // The nested stream leaves, the VMID stays: stage 1 under it has to go.
    rig.detach(A1);
    expect(rig.queued()).toEqual(lines([0x100000003n, 1n], [0x100000003n, 1n], [0x100000001n, 0n], [0x200000010n, 0n]));
    rig.detach(A2);
    expect(rig.queued().at(-1)).toBe(lines([0x200000028n, 0n])[0]);
    destroy(viommu);
    expect(rig.taken('smmu0')).toEqual([]);
  });

  test('nested without a vIOMMU: EATS=1 is EINVAL, TLBI commands are taken, those that name a StreamID are EIO', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    expect(() => rig.nestedOnS2(A1, s2, fromQwords([0x8000100bn, 0x100000d6n]))).toThrow(/^EINVAL/);
    const nested = rig.nestedOnS2(A1, s2);
    const invalidate = (...pair: [bigint, bigint]) =>
      nested.ops.cacheInvalidateUser?.(nested, invalidation([fromQwords(pair)]));
    rig.queued();
    invalidate(0x10n, 0n);
    expect(rig.queued()).toEqual([]);
    rig.attachTo(nested, A1);
    rig.queued();
    invalidate(0x0011000700000012n, 0x10001n);
    expect(rig.queued()).toEqual(lines([0x0011000100000012n, 0x10001n]));
    for (const opcode of [0x5n, 0x6n, 0x40n]) expect(() => invalidate((0x77n << 32n) | opcode, 0n)).toThrow(/^EIO/);
  });

  test('exhaustion is ENOSPC at VIOMMU_ALLOC and at a direct attach, and nothing is held afterwards', () => {
    const rig = new TwoSmmus({}, smallVmid);
    const s2 = rig.s2();
    const all = Array.from({ length: 255 }, () => rig.viommu(A1, s2));
    expect(() => rig.viommu(A1, s2)).toThrow(/^ENOSPC/);
    const before = rig.stream(A1);
    expect(() => rig.attachTo(s2, A1)).toThrow(/^ENOSPC/);
    expect(rig.stream(A1)).toEqual(before);
    const [first] = all;
    if (first !== undefined) destroy(first);
    rig.attachTo(s2, A1);
    expect(rig.stream(A1)).toEqual([6, 1]);
  });

  test('two vIOMMUs of one S2 on one SMMU: replacing one by the other cleans the first VMID (S12_VMALL)', () => {
    const rig = new TwoSmmus({});
    const s2 = rig.s2();
    const one = rig.viommu(A1, s2);
    const two = rig.viommu(A1, s2);
    rig.attachTo(rig.nested(one, A1), A1);
    const next = rig.nested(two, A1);
    rig.queued();
    rig.attachTo(next, A1);
    expect(rig.stream(A1)).toEqual([7, 2]);
    expect(rig.queued().at(-1)).toBe(lines([0x100000028n, 0n])[0]);
  });
});

describe('viommu-only', () => {
  test('while (S2, SMMU) has a vIOMMU: direct attach and nested without vIOMMU are EBUSY, a bypass vSTE gets its VMID', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'viommu-only' });
    const s2 = rig.s2();
    const viommu = rig.viommu(A1, s2);
    expect(() => rig.attachTo(s2, A2)).toThrow(/^EBUSY/);
    expect(() => rig.attachTo(rig.nestedOnS2(A2, s2), A2)).toThrow(/^EBUSY/);
    rig.attachTo(rig.nested(viommu, A1, BYPASS), A1);
    expect(rig.stream(A1)).toEqual([6, 1]);
    // Another SMMU has no vIOMMU.
    rig.attachTo(s2, B1);
    expect(rig.stream(B1)).toEqual([6, 1]);
    rig.detach(A1);
    destroy(viommu);
    rig.attachTo(s2, A2);
    expect(rig.stream(A2)).toEqual([6, 1]);
  });

  test('while the S2 is attached directly there, VIOMMU_ALLOC is EBUSY and takes nothing', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'viommu-only' });
    const s2 = rig.s2();
    rig.attachTo(s2, A1);
    expect(() => rig.viommu(A2, s2)).toThrow(/^EBUSY/);
    expect(rig.taken('smmu0')).toEqual([1]);
    rig.detach(A1);
    rig.viommu(A2, s2);
    expect(rig.taken('smmu0')).toEqual([1]);
  });

  test('without any vIOMMU the S2 behaves as in at-attach', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'viommu-only' });
    const s2 = rig.s2();
    rig.attachTo(rig.nestedOnS2(A1, s2), A1);
    rig.attachTo(s2, A2);
    expect([rig.stream(A1), rig.stream(A2)]).toEqual([
      [7, 1],
      [6, 1],
    ]);
  });
});

describe('at-domain-alloc (Linux 7.2)', () => {
  test('the S2 takes its VMID when it is allocated and belongs to one SMMU; the vIOMMU borrows it', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'at-domain-alloc' });
    const s2 = rig.s2();
    expect(rig.taken('smmu0')).toEqual([1]);
    expect(() => rig.viommu(B1, s2)).toThrow(/^EINVAL/);
    expect(() => rig.attachTo(s2, B1)).toThrow(/^EINVAL/);
    const viommu = rig.viommu(A1, s2);
    rig.attachTo(rig.nested(viommu, A1), A1);
    rig.attachTo(s2, A2);
    expect([rig.stream(A1), rig.stream(A2)]).toEqual([
      [7, 1],
      [6, 1],
    ]);
    for (const name of [A1, A2]) rig.detach(name);
    destroy(viommu);
    expect(rig.taken('smmu0')).toEqual([1]);
    s2.ops.free(s2);
    expect(rig.taken('smmu0')).toEqual([]);
  });

  test('nested without a vIOMMU is EOPNOTSUPP, and by option takes the VMID of the S2', () => {
    const strict = new TwoSmmus({ vmidPolicy: 'at-domain-alloc' });
    expect(() => strict.nestedOnS2(A1, strict.s2())).toThrow(/^EOPNOTSUPP/);
    const open = new TwoSmmus({ vmidPolicy: 'at-domain-alloc', nestedWithoutViommu: true });
    open.s2();
    const s2 = open.s2();
    open.attachTo(open.nestedOnS2(A1, s2), A1);
    expect(open.stream(A1)).toEqual([7, 2]);
  });

  test('exhaustion is ENOSPC at HWPT_ALLOC', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'at-domain-alloc' }, smallVmid);
    for (let i = 0; i < 255; i++) rig.s2();
    const pages = rig.kernel.pagesUsed;
    expect(() => rig.s2()).toThrow(/^ENOSPC/);
    expect(rig.kernel.pagesUsed).toBe(pages);
  });
});

describe('external', () => {
  class Vms implements Hypervisor {
    readonly pins: string[] = [];
    readonly #numbers: Readonly<Record<string, number>>;
    constructor(numbers: Readonly<Record<string, number>>) {
      this.#numbers = numbers;
    }
    pinVmid(vm: string, smmu: string): number {
      this.pins.push(`${vm}@${smmu}`);
      return this.#numbers[vm] ?? 0;
    }
    unpinVmid(vm: string, smmu: string): void {
      const at = this.pins.indexOf(`${vm}@${smmu}`);
      expect(at).toBeGreaterThanOrEqual(0);
      this.pins.splice(at, 1);
    }
  }

  test('one VM has one VMID on all SMMUs, pinned where at-attach allocates and unpinned where it frees', () => {
    const hypervisor = new Vms({ guest: 42 });
    const rig = new TwoSmmus({ vmidPolicy: 'external', hypervisor });
    const s2 = rig.s2(A1, 'guest');
    expect(hypervisor.pins).toEqual([]);
    const one = rig.viommu(A1, s2);
    const two = rig.viommu(B1, s2);
    rig.attachTo(rig.nested(one, A1), A1);
    rig.attachTo(rig.nested(two, B1), B1);
    rig.attachTo(s2, A2);
    expect([rig.stream(A1), rig.stream(B1), rig.stream(A2)]).toEqual([
      [7, 42],
      [7, 42],
      [6, 42],
    ]);
    expect(hypervisor.pins).toEqual(['guest@smmu0', 'guest@smmu1', 'guest@smmu0']);
    for (const name of [A1, A2, B1]) rig.detach(name);
    expect(hypervisor.pins.toSorted()).toEqual(['guest@smmu0', 'guest@smmu1']);
    destroy(one);
    destroy(two);
    expect(hypervisor.pins).toEqual([]);
    expect(rig.taken('smmu0')).toEqual([]);
  });

  test('a number too wide for the SMMU is ENOSPC and not kept pinned', () => {
    const hypervisor = new Vms({ wide: 256 });
    const rig = new TwoSmmus({ vmidPolicy: 'external', hypervisor }, smallVmid);
    expect(() => rig.viommu(A1, rig.s2(A1, 'wide'))).toThrow(/^ENOSPC/);
    expect(() => rig.attachTo(rig.s2(A1, 'wide'), A1)).toThrow(/^ENOSPC/);
    expect(hypervisor.pins).toEqual([]);
  });

  test('a second stage 2 of the same VM on one SMMU is refused: one VMID cannot tag two tables (5.2.1)', () => {
    const rig = new TwoSmmus({ vmidPolicy: 'external', hypervisor: new Vms({ guest: 7 }) });
    rig.viommu(A1, rig.s2(A1, 'guest'));
    expect(() => rig.viommu(A1, rig.s2(A1, 'guest'))).toThrow(/^EBUSY/);
  });

  test('needs a hypervisor', () => {
    expect(() => new TwoSmmus({ vmidPolicy: 'external' })).toThrow(RangeError);
  });
});

test.each(['at-attach', 'viommu-only', 'at-domain-alloc'] satisfies VmidPolicyName[])(
  '%s: a VMID that is free is named by nothing in hardware (vmid-lifecycle VMID-1, VMID-2)',
  (vmidPolicy) => {
    const rig = new TwoSmmus({ vmidPolicy });
    const s2 = rig.s2();
    const viommu = rig.viommu(A1, s2);
    iommuMap(s2, 0x8000_0000n, 0x6000_0000n, 0x1000n, { read: true, write: true, cache: true });
    rig.attachTo(rig.nested(viommu, A1, BYPASS), A1);
    expect(rig.machine.endpoint(A1).write(0x8000_0000n, Uint8Array.of(1)).status).toBe('ok');
    const hardware = rig.machine.smmu('smmu0');
    expect(hardware.vmidHolders(1)).not.toEqual([]);
    rig.detach(A1);
    destroy(viommu);
    s2.ops.free(s2);
    expect(rig.taken('smmu0')).toEqual([]);
    expect(hardware.vmidHolders(1)).toEqual([]);
  },
);
