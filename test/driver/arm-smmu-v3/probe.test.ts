import { describe, expect, test } from 'vitest';
import { IDR0, IDR1, IDR5, IIDR } from '../../../spec/index.ts';
import { ArmSmmuDriver, type DriverSettings } from '../../../src/driver/arm-smmu-v3/index.ts';
import { LocalKernel } from '../../../src/driver/local-kernel.ts';
import {
  type Bus,
  createMachine,
  type EndpointSetup,
  linuxNesting,
  minimal,
  qemuVirt,
  type SmmuConfig,
} from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';

const BASE = 0x0905_0000n;

/** A machine whose ID registers read as the test says. */
function driverOn(
  ids: Readonly<Record<number, (value: number) => number>>,
  config: SmmuConfig = qemuVirt,
  settings: DriverSettings = {},
) {
  const machine = createMachine({
    smmus: [{ config, base: BASE }],
    ram: [{ base: 0x4000_0000n, size: 0x4000_0000n }],
  });
  const bus = new Proxy(machine.bus, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      if (name !== 'readl') return value.bind(target);
      return (addr: bigint) => {
        const raw = target.readl(addr);
        const change = ids[Number(addr - BASE)];
        return change === undefined ? raw : change(raw) >>> 0;
      };
    },
  }) as Bus;
  const kernel = new LocalKernel(bus);
  const driver = new ArmSmmuDriver(kernel, settings);
  return { driver, kernel, machine };
}

const withField =
  (register: typeof IDR0 | typeof IDR1 | typeof IDR5 | typeof IIDR, name: string, value: number) =>
  (raw: number): number => {
    const words = Uint32Array.of(raw);
    (register as typeof IDR0).set(words, name as 'S1P', value);
    return words[0] ?? 0;
  };

describe('what the driver cannot do without is ENXIO, and nothing is held (linux-driver 1)', () => {
  test.each([
    ['TTENDIAN big', IDR0.offset, withField(IDR0, 'TTENDIAN', 3)],
    ['no AArch64 tables', IDR0.offset, withField(IDR0, 'TTF', 1)],
    ['no stage', IDR0.offset, (raw: number) => raw & ~IDR0.bit('S1P', 'S2P')],
    ['TABLES_PRESET', IDR1.offset, withField(IDR1, 'TABLES_PRESET', 1)],
    ['QUEUES_PRESET', IDR1.offset, withField(IDR1, 'QUEUES_PRESET', 1)],
    ['REL', IDR1.offset, withField(IDR1, 'REL', 1)],
    ['CMDQS 6: no room for a batch', IDR1.offset, withField(IDR1, 'CMDQS', 6)],
  ] as const)('%s', (_name, offset, change) => {
    const { driver, kernel } = driverOn({ [offset]: change });
    expect(() => driver.probeAll()).toThrow(/^ENXIO/);
    expect(kernel.pagesUsed).toBe(0);
  });
});

test('errata by IIDR (linux-driver 1)', () => {
  const id = (product: 'MMU_600' | 'MMU_700', Variant: number, Revision: number) =>
    driverOn(
      { [IIDR.offset]: () => IIDR.value({ Implementer: 'ARM', ProductID: product, Variant, Revision }) },
      qemuVirt,
    );
  const features = (product: 'MMU_600' | 'MMU_700', variant: number, revision: number) => {
    const { driver } = id(product, variant, revision);
    driver.probeAll();
    const { nesting, forceSync } = driver.smmu('smmu0').features;
    return { nesting, forceSync };
  };
  expect(features('MMU_600', 1, 0)).toEqual({ nesting: false, forceSync: false });
  expect(features('MMU_600', 2, 0)).toEqual({ nesting: true, forceSync: false });
  expect(features('MMU_700', 0, 5)).toEqual({ nesting: false, forceSync: true });
  expect(features('MMU_700', 1, 0)).toEqual({ nesting: false, forceSync: true });
  expect(features('MMU_700', 1, 1)).toEqual({ nesting: true, forceSync: false });
});

test('queue sizes are capped by the page allocator: 18 and 17 without CMA, 16 and 15 with (linux-driver 1)', () => {
  for (const [maxOrder, cmdq, evtq] of [
    [10, 18, 17],
    [8, 16, 15],
  ] as const) {
    const { driver } = driverOn({}, qemuVirt, { maxOrder });
    driver.probeAll();
    const { cmdqLog2, evtqLog2 } = driver.smmu('smmu0').features;
    expect([cmdqLog2, evtqLog2]).toEqual([cmdq, evtq]);
  }
});

test('an output size the driver does not know counts as 48 bits', () => {
  const { driver } = driverOn({ [IDR5.offset]: withField(IDR5, 'OAS', 7) });
  driver.probeAll();
  expect(driver.smmu('smmu0').features.oas).toBe(48);
});

test('SMMUEN left on by firmware: GBPA.ABORT with its handshake comes before CR0=0 (linux-driver 2)', () => {
  const machine = createMachine({
    smmus: [{ config: qemuVirt, base: BASE }],
    ram: [{ base: 0x4000_0000n, size: 0x4000_0000n }],
  });
  machine.bus.writel(BASE + 0x20n, 1);
  const kernel = new LocalKernel(machine.bus);
  const points: string[] = [];
  kernel.onPoint((point) => points.push(point));
  new ArmSmmuDriver(kernel).probeAll();
  const accesses = points.filter((point) => /^mmio:reset:(GBPA|CR0)$/.test(point));
  expect(accesses.slice(0, 6)).toEqual([
    'mmio:reset:CR0',
    'mmio:reset:GBPA',
    'mmio:reset:GBPA',
    'mmio:reset:GBPA',
    'mmio:reset:GBPA',
    'mmio:reset:CR0',
  ]);
  expect(machine.bus.readl(BASE + 0x44n)).toBe(0x101000);
});

describe('devices (linux-driver 3)', () => {
  const rig = (endpoints: readonly EndpointSetup[], config: SmmuConfig = qemuVirt): Rig =>
    new Rig({ machine: { smmus: [{ config, base: BASE }], endpoints } });

  const probeNode = (bench: Rig, node: { name: string; streamIds: number[] }): void => {
    const [iommu] = bench.core.iommus;
    if (iommu === undefined) throw new Error('no IOMMU');
    bench.core.probeDevice({ smmu: 'smmu0', canWbs: true, canStall: false, ssidBits: 0, ...node }, iommu);
  };

  test('a StreamID outside the table is ERANGE, one that another device owns ENODEV', () => {
    expect(() => rig([{ name: 'a', streamIds: [0x10000] }]).boot()).toThrow(/^ERANGE/);
    const bench = rig([{ name: 'a', streamIds: [4, 5] }]).boot();
    expect(() => probeNode(bench, { name: 'b', streamIds: [3, 5] })).toThrow(/^ENODEV/);
    // The refused device left nothing behind: its other stream is free.
    probeNode(bench, { name: 'c', streamIds: [3] });
  });

  test('several streams: ascending, each once; CD commands in one list, STE and PREFETCH stream by stream', () => {
    const bench = rig([]).boot();
    probeNode(bench, { name: 'a', streamIds: [0x308, 0x300, 0x308] });
    // The two commands of the reset and their CMD_SYNCs come first.
    const all = bench.commands();
    const got = all.slice(all.findIndex((command) => command.startsWith('00000300')));
    const cd = [
      '0000030000000005,0000000000000001',
      '0000030800000005,0000000000000001',
      '000000000fc02046,0000000000000000',
    ];
    const ste = (sid: string) => [
      `0000${sid}00000003,0000000000000001`,
      '000000000fc02046,0000000000000000',
      `0000${sid}00000003,0000000000000001`,
      '000000000fc02046,0000000000000000',
      `0000${sid}00000001,0000000000000000`,
    ];
    const leaf0 = got.slice(0, 2);
    expect(leaf0).toEqual(['0000030000000003,0000000000000000', '000000000fc02046,0000000000000000']);
    expect(got.slice(2)).toEqual([...cd, ...cd, ...ste('0300'), ...ste('0308')]);
  });

  test("a new level 2 table: CFGI_STE Leaf=0 once the SMMU is on, none with quirk 'l1std-no-cfgi'", () => {
    const linux = new Rig({ settings: { quirks: ['l1std-no-cfgi'] } }).boot();
    const ours = new Rig().boot();
    const leaf0 = (bench: Rig): number => bench.commands().filter((command) => /0003,0{16}$/.test(command)).length;
    expect([leaf0(linux), leaf0(ours)]).toEqual([0, 2]);
  });

  test('a linear table: all streams abort before the SMMU is on, S1 works', () => {
    const bench = rig([{ name: 'a', streamIds: [3] }], minimal).boot();
    expect(bench.smmu.strtab.cfg).toBe(6);
    expect(bench.ste(63)).toEqual([1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
    expect(bench.ste(3)[0]).not.toBe(1n);
  });

  test('streams of reserved memory regions bypass from the first moment', () => {
    const reserved = [{ start: 0x6000_0000n, length: 0x1000n, type: 'direct' as const }];
    const bench = rig([{ name: 'a', streamIds: [3], reserved }]);
    bench.driver.probe(bench.machine.bus.firmware.smmus[0] ?? expect.fail('no SMMU'));
    expect(bench.ste(3)[0]).toBe(9n);
    expect(bench.machine.endpoint('a').write(0x6000_0000n, Uint8Array.of(1)).status).toBe('ok');
  });

  test('shutdown writes CR0=0 and nothing else (linux-driver 2)', () => {
    const bench = rig([{ name: 'a', streamIds: [3] }], linuxNesting).boot();
    const points: string[] = [];
    bench.kernel.onPoint((point) => points.push(point));
    bench.driver.shutdown('smmu0');
    expect(points.filter((point) => point.startsWith('mmio:'))).toEqual(['mmio:reset:CR0', 'mmio:reset:CR0ACK']);
    expect(bench.machine.bus.readl(BASE + 0x20n)).toBe(0);
  });

  test('released, everything comes back', () => {
    const bench = rig([{ name: 'a', streamIds: [3], ssidBits: 12 }], linuxNesting).boot();
    bench.core.releaseDevice(bench.device('a'));
    bench.driver.remove('smmu0');
    expect(bench.kernel.pagesUsed).toBe(0);
    expect(bench.driver.parts.asids.used).toBe(0);
  });
});
