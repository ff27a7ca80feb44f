import { describe, expect, test } from 'vitest';
import { CD, CR0, CR0ACK, L1STD, STE, STRTAB_BASE } from '../../../spec/index.ts';
import { ArmSmmuDriver, type DriverSettings } from '../../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../../src/driver/iommu/core.ts';
import { deviceClaimDmaOwner, deviceReleaseDmaOwner, iommuMap } from '../../../src/driver/iommu/index.ts';
import type { Device, IommuDomain } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting, type SmmuConfig } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';

const RW = { read: true, write: true, cache: true } as const;
const IOVA = 0x8000_0000n;
const A = '0000:00:05.0';
const B = '0000:01:00.0';
const linear: SmmuConfig = {
  ...linuxNesting,
  IDR0: { ...linuxNesting.IDR0, ST_LEVEL: 'LINEAR' },
  IDR1: { ...linuxNesting.IDR1, SIDSIZE: 6 },
};

/** A kernel whose driver has A on a stage 2 and B on a stage 1, and another that comes after it. */
class Bench extends Rig {
  readonly s2: IommuDomain;
  readonly s1: IommuDomain;

  constructor(config: SmmuConfig = linuxNesting, canStall = false) {
    const endpoints = [
      { name: A, streamIds: [0x28], canWbs: true, canStall },
      { name: B, streamIds: [0x30], canWbs: true, canStall },
    ];
    super({
      machine: { smmus: [{ config, base: 0x0905_0000n }], endpoints },
      settings: { defaultDomain: 'identity' },
    });
    this.boot();
    const page = this.kernel.allocPages('data', 4096);
    this.machine.memory.write64(page, 0x1234n);
    this.s2 = this.#mapped(this.device(A), { nestParent: true }, page);
    this.s1 = this.#mapped(this.device(B), {}, page);
    this.attach(this.s2, this.device(A));
    this.attach(this.s1, this.device(B));
  }

  #mapped(dev: Device, flags: { nestParent?: boolean }, page: bigint): IommuDomain {
    const domain = this.driver.domainAllocPagingFlags(dev, flags, null);
    iommuMap(domain, IOVA, page, 0x1000n, RW);
    return domain;
  }

  read(name: string): string {
    const result = this.machine.endpoint(name).read(IOVA, 8);
    return result.status === 'ok' ? `ok ${result.data[0]}` : result.status;
  }

  get cr0(): number {
    return this.machine.smmu('smmu0').mmioRead32(CR0ACK.offset);
  }

  /** Address of a device's STE. */
  steAt(name: string): bigint {
    return this.smmu.strtab.steOf(this.device(name).node.streamIds[0] ?? 0);
  }

  /** The next kernel. Nobody tells it anything. */
  next(settings: DriverSettings = { adopt: 'kexec' }): Next {
    this.kernel.handOver();
    return new Next(this, settings);
  }
}

class Next {
  readonly driver: ArmSmmuDriver;
  readonly core: IommuCore;
  readonly owner = {};
  readonly #bench: Bench;

  constructor(bench: Bench, settings: DriverSettings) {
    this.#bench = bench;
    this.driver = new ArmSmmuDriver(bench.kernel, { defaultDomain: 'identity', ...settings });
    this.core = new IommuCore(bench.kernel);
    for (const node of bench.machine.firmware.smmus)
      this.core.registerIommu(this.driver.probe(node), bench.machine.firmware.devices);
  }

  get smmu() {
    return this.driver.smmu('smmu0');
  }

  device(name: string): Device {
    const dev = this.core.device(name);
    if (dev === undefined) throw new Error(`no ${name}`);
    return dev;
  }

  claim(name: string): void {
    deviceClaimDmaOwner(this.device(name), this.owner);
  }

  /** VMID that a new stage 2 gets, with its owner attached. */
  vmidOf(name: string): number {
    const s2 = this.driver.domainAllocPagingFlags(this.device(name), { nestParent: true }, null);
    s2.ops.attachDev(s2, this.device(name), this.driver.blockedDomain);
    return STE.num(Uint32Array.from(this.ste(name)), 'S2VMID');
  }

  ste(name: string): number[] {
    const at = this.smmu.strtab.steOf(this.device(name).node.streamIds[0] ?? 0);
    return Array.from({ length: STE.bytes / 4 }, (_, i) => this.#bench.machine.bus.load32(at + BigInt(4 * i)));
  }
}

describe.each([
  ['two levels', linuxNesting],
  ['linear', linear],
] as const)('adopting a live Stream table, %s (arm_smmu_kdump_adopt_strtab)', (_, config) => {
  test('DMA goes on while the new driver probes, and until its device is claimed', () => {
    const bench = new Bench(config);
    const table = bench.machine.smmu('smmu0').mmioRead64(STRTAB_BASE.offset);
    const next = bench.next();
    expect(bench.machine.smmu('smmu0').mmioRead64(STRTAB_BASE.offset)).toBe(table);
    expect([bench.read(A), bench.read(B)]).toEqual(['ok 52', 'ok 52']);
    next.claim(A);
    expect([bench.read(A), bench.read(B)]).toEqual(['abort', 'ok 52']);
    next.claim(B);
    expect(bench.read(B)).toBe('abort');
  });

  test('a VMID that an STE names is given to nobody; it is free once the STE is gone and S12_VMALL is done [lifecycle L43]', () => {
    const bench = new Bench(config);
    const next = bench.next();
    bench.read(A);
    expect(next.smmu.inherited.vmids).toEqual([1]);
    expect(next.smmu.vmids.ownerOf(1)).toBe('inherited');
    next.claim(B);
    expect(next.vmidOf(B)).toBe(2);
    const freed: number[] = [];
    bench.kernel.onNote(({ what, act, id }) => {
      if (what === 'vmid' && act === 'free') freed.push(bench.machine.vmidHolders(Number(id)).length);
    });
    next.claim(A);
    expect(freed).toEqual([0]);
    expect(next.smmu.inherited.vmids).toEqual([]);
    expect(next.vmidOf(A)).toBe(1);
  });

  test('an ASID that a CD names is given to nobody until its stream is claimed', () => {
    const bench = new Bench(config);
    const next = bench.next();
    expect(next.smmu.inherited.asids).toEqual([1]);
    const asid = (): number => {
      const domain = next.driver.domainAllocPagingFlags(next.device(A), {}, null);
      return 'asid' in domain ? Number(domain.asid) : 0;
    };
    expect(asid()).toBe(2);
    next.claim(B);
    expect(next.smmu.inherited.asids).toEqual([]);
    expect(asid()).toBe(1);
  });

  test('a claimed device works like any other, and goes back to its default domain', () => {
    const bench = new Bench(config);
    const next = bench.next();
    next.claim(A);
    deviceReleaseDmaOwner(next.device(A));
    expect(STE.num(Uint32Array.from(next.ste(A)), 'Config')).toBe(STE.fields.Config.values.BYPASS);
  });
});

test('ASIDs of all SMMUs are reserved before the first domain is made: one number serves all of them', () => {
  const smmus = [0x0905_0000n, 0x0907_0000n].map((base) => ({ config: linuxNesting, base }));
  const endpoints = [
    { name: A, streamIds: [0x28], canWbs: true, smmu: 0 },
    { name: B, streamIds: [0x30], canWbs: true, smmu: 1 },
  ];
  const rig = new Rig({ machine: { smmus, endpoints } }).boot();
  const asids = (driver: ArmSmmuDriver): number[][] => driver.smmus.map(({ inherited }) => inherited.asids);
  // A gives its stream up, so that the next kernel attaches it anew while B's goes on.
  rig.driver.blockedDomain.ops.attachDev(rig.driver.blockedDomain, rig.device(A), rig.driver.blockedDomain);
  rig.kernel.handOver();
  const given: bigint[] = [];
  rig.kernel.onNote(({ what, act, id }) => void (what === 'asid' && act === 'alloc' && given.push(id)));
  const driver = new ArmSmmuDriver(rig.kernel, { adopt: 'kexec' });
  const core = new IommuCore(rig.kernel);
  const { firmware } = rig.machine;
  for (const node of firmware.smmus)
    core.registerIommu(
      driver.probe(node),
      firmware.devices.filter(({ smmu }) => smmu === node.name),
    );
  expect(asids(driver)).toEqual([[], [2]]);
  expect(given).not.toContain(2n);
});

test('without adoption (Linux 7.2) everything aborts until it is set up anew', () => {
  const bench = new Bench();
  const next = bench.next({});
  expect(next.smmu.inherited.table).toBeNull();
  expect(bench.machine.vmidHolders(1)).toEqual([]);
});

test('after a crash the Event queue stays off; over a kexec it is set up', () => {
  const on = (adopt: 'kexec' | 'kdump'): number => {
    const bench = new Bench();
    bench.next({ adopt });
    expect(bench.cr0 & CR0.bit('SMMUEN', 'CMDQEN')).toBe(CR0.bit('SMMUEN', 'CMDQEN'));
    return bench.cr0 & CR0.bit('EVENTQEN');
  };
  expect(on('kdump')).toBe(0);
  expect(on('kexec')).not.toBe(0);
});

test('an SMMU that is off is probed as always', () => {
  const bench = new Bench();
  bench.driver.shutdown('smmu0');
  expect(bench.next().smmu.inherited.table).toBeNull();
});

describe('a damaged table is not adopted: nothing is reserved, and the reset stops all traffic', () => {
  const set =
    (at: bigint, words: number, layout: typeof STE | typeof CD | typeof L1STD, field: string, value: bigint) =>
    (bench: Bench): void => {
      const entry = Uint32Array.from({ length: words }, (_, i) => bench.machine.bus.load32(at + BigInt(4 * i)));
      (layout as typeof STE).set(entry, field as 'V', value);
      for (const [i, word] of entry.entries()) bench.machine.memory.write32(at + BigInt(4 * i), word);
    };
  const ste = (name: string, field: keyof typeof STE.fields & string, value: bigint) => (bench: Bench) =>
    set(bench.steAt(name), STE.bytes / 4, STE, field, value)(bench);
  const l1 = (field: string, value: bigint) => (bench: Bench) =>
    set(bench.smmu.strtab.base, L1STD.bytes / 4, L1STD, field, value)(bench);
  const cd = (field: string, value: bigint) => (bench: Bench) => {
    const { cdTable } = bench.device(B).priv as { cdTable: { base: bigint } };
    set(cdTable.base, CD.bytes / 4, CD, field, value)(bench);
  };

  test.each([
    ['S2VMID 0 with stage 2 on', ste(A, 'S2VMID', 0n), 'S2VMID 0'],
    ['a CD table outside memory', ste(B, 'S1ContextPtr', 0x3_ffff_ffffn), 'is not in memory'],
    ['a CD table at 0', ste(B, 'S1ContextPtr', 0n), 'not aligned'],
    ['more CDs than there are SubstreamIDs', ste(B, 'S1CDMax', 31n), '2^31 CDs'],
    ['ASID 0', cd('ASID', 0n), 'names ASID 0'],
    ['a Span that this driver never makes', l1('Span', 5n), 'Span 5'],
    ['a Span beyond all', l1('Span', 31n), 'Span 31'],
    ['a level 2 table outside memory', l1('L2Ptr', 0x1_0000_0000n), 'is not in memory'],
    ['a level 2 table that is not aligned', l1('L2Ptr', 0x4000_0040n >> 6n), 'not aligned'],
  ] as const)('%s', (_, damage, why) => {
    const bench = new Bench();
    damage(bench);
    const next = bench.next({ adopt: 'kdump' });
    expect(bench.kernel.messages.map(({ text }) => text).join('\n')).toContain(why);
    expect(next.smmu.inherited.table).toBeNull();
    expect(next.smmu.vmids.taken).toEqual([]);
    expect(next.driver.parts.asids.used).toBe(0);
    // Its own table, where the devices are on their default domain.
    expect(STE.num(Uint32Array.from(next.ste(A)), 'Config')).toBe(STE.fields.Config.values.BYPASS);
  });

  test('one level 2 table under two descriptors', () => {
    const bench = new Bench();
    const { memory } = bench.machine;
    memory.write64(bench.smmu.strtab.base + 16n, memory.read64(bench.smmu.strtab.base));
    expect(bench.next().smmu.inherited.table).toBeNull();
  });
});

describe('what the kernel before has stalled (IHI 0070 3.12.2, 4.7.2)', () => {
  /** Opcode and StreamID of a CMD_RESUME or CMD_STALL_TERM, and what B's STE says as it is consumed. */
  const claimed = (settings: DriverSettings, unheard: boolean): { ends: string[]; access: string } => {
    const bench = new Bench(linear, true);
    const stall = () => bench.machine.endpoint(B).read(IOVA + 0x1000n, 8);
    const before = stall();
    bench.kernel.runInterrupts();
    const next = bench.next(settings);
    const later = unheard ? stall() : before;
    const { watch } = bench.machine;
    const { observer } = watch;
    const ends: string[] = [];
    watch.observer = (act) => {
      observer?.(act);
      if (act.kind !== 'command') return;
      const [word = 0, sid = 0] = act.words;
      const opcode = word & 0xff;
      if (opcode !== 0x44 && opcode !== 0x45) return;
      const { Config } = STE.decode(Uint32Array.from(next.ste(B)));
      ends.push(`${opcode.toString(16)} ${sid.toString(16)} Config ${Config}`);
    };
    const s1 = next.driver.domainAllocPagingFlags(next.device(B), {}, null);
    s1.ops.attachDev(s1, next.device(B), next.driver.blockedDomain);
    bench.kernel.runInterrupts();
    watch.observer = observer;
    const how = [before, later].map((one) => (one.status === 'stall' ? one.pending.result.status : one.status));
    return { ends, access: [...new Set(how)].join() };
  };

  test('ends when its stream is claimed, by CMD_STALL_TERM, while the stream terminates all that comes', () => {
    expect(claimed({ adopt: 'kexec' }, false)).toEqual({ ends: ['45 30 Config 0'], access: 'abort' });
  });

  test('a crash kernel, which reads no events, does the same', () => {
    expect(claimed({ adopt: 'kdump' }, false)).toEqual({ ends: ['45 30 Config 0'], access: 'abort' });
  });

  test('what has stalled since is answered before, and never after [DET-3]', () => {
    const { ends, access } = claimed({ adopt: 'kexec' }, true);
    expect(ends).toEqual([expect.stringMatching(/^44 30 /), '45 30 Config 0']);
    expect(access).toBe('abort');
  });
});
