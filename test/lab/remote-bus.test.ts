import { type ChildProcess, spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fromQwords, STE, toQwords } from '../../spec/index.ts';
import { ArmSmmuDriver } from '../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore, iommuMap, iommuUnmap } from '../../src/driver/iommu/index.ts';
import type { Device, IommuDomain } from '../../src/driver/iommu/ops.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import type { Bus } from '../../src/hw/bus.ts';
import { BusError } from '../../src/hw/bus.ts';
import { QtestSession } from '../../src/lab/qtest/protocol.ts';
import { RemoteBus, VIRT_FIRMWARE } from '../../src/lab/qtest/remote-bus.ts';
import { type QtestLink, QtestLinkError, QtestSocket } from '../../src/lab/qtest/socket.ts';
import { placeTestdev, runTestdev } from '../../src/lab/qtest/testdev.ts';
import { TEST_FUNCTIONS, VirtTarget } from '../../src/lab/qtest/virt-target.ts';
import { buildExecutable } from '../cli/built.ts';
import type { Rig } from '../driver/arm-smmu-v3/rig.ts';
import { FakeIommufd, hwptData, invalidation } from '../driver/arm-smmu-v3/shim.ts';

const RW = { read: true, write: true, cache: true };
const NAME = '0000:00:02.0';
const BDF = 0x10;
const BAR = 0x1000_1000n;
const IOVA = 0x8000_0000n;
const BUFFER = 0x6000_0000n;
/** VM memory: IPA 0 and up. */
const VM = 0x7000_0000n;
const MIB = 0x10_0000n;

/** A guest's stage 1 in VM memory: a CD at IPA 0x1000, tables at 0x2000 and up, one page IOVA 0 to IPA 0x8000. */
const CD_WORDS = [0x0001_e204_c000_3510n, 0x2000n, 0n, 0xffff_ffff_f404_ff44n];
const VSTE = fromQwords([0x100bn, 0xd6n]);

interface Seen {
  readonly what: string;
  readonly is: unknown;
}

/** Brings a machine up with the driver and does a VM's life on it; tells everything that can be told from outside. */
function life(bus: Bus, bar: Pick<Bus, 'readl' | 'writel'>): Seen[] {
  const seen: Seen[] = [];
  const kernel = new LocalKernel(bus);
  const driver = new ArmSmmuDriver(kernel, { cpu: { vhe: false } });
  const core = new IommuCore(kernel);
  const [node] = VIRT_FIRMWARE.smmus;
  if (node === undefined) throw new Error('no SMMU');
  core.registerIommu(driver.probe(node), VIRT_FIRMWARE.devices);
  const smmu = driver.smmu('smmu0');
  const dev = core.devices.find(({ name }) => name === NAME) as Device;
  let from = 0;
  const tell = (what: string): void => {
    kernel.runInterrupts();
    const commands: string[] = [];
    for (; from !== smmu.cmdq.prod; from++) {
      const slot = smmu.cmdq.base + BigInt(from * 16);
      commands.push(`${bus.load64(slot).toString(16)},${bus.load64(slot + 8n).toString(16)}`);
    }
    const ste = Array.from({ length: STE.bytes / 8 }, (_, i) => bus.load64(smmu.strtab.steOf(BDF) + BigInt(8 * i)));
    const log = kernel.messages.splice(0).map(({ text }) => text);
    seen.push({ what, is: { commands, ste: ste.map(String), log, events: iommufd.events.map((e) => [...e.words]) } });
  };
  const dma = (what: string, iova: bigint, pa: bigint, length = 8): void => {
    seen.push({ what, is: runTestdev(bar, BAR, { iova, pa, length }) });
    tell(what);
  };
  const iommufd = new FakeIommufd();
  const attach = (domain: IommuDomain): void => domain.ops.attachDev(domain, dev, driver.blockedDomain);
  const rig = { driver, kernel } as unknown as Rig;

  attach(driver.blockedDomain);
  tell('probe, reset, blocked');
  dma('blocked', IOVA, BUFFER);

  const s1 = driver.domainAllocPagingFlags(dev, {}, null);
  iommuMap(s1, IOVA, BUFFER, MIB, RW);
  attach(s1);
  tell('stage 1');
  dma('stage 1, over a page boundary', IOVA + 0xffcn, BUFFER + 0xffcn, 16);
  dma('stage 1, not mapped', IOVA + MIB, BUFFER);
  iommuUnmap(s1, IOVA, 0x4000n);
  tell('unmap');
  dma('stage 1, unmapped', IOVA, BUFFER);

  const s2 = driver.domainAllocPagingFlags(dev, { nestParent: true }, null);
  iommuMap(s2, 0n, VM, MIB, RW);
  attach(s2);
  dma('stage 2', 0x8000n, VM + 0x8000n);
  dma('stage 2, not mapped', MIB, VM);

  for (const [i, word] of CD_WORDS.entries()) bus.store64(VM + 0x1000n + BigInt(8 * i), word);
  for (const [table, entry] of [
    [0x2000n, 0x3003n],
    [0x3000n, 0x4003n],
    [0x4000n, 0x5003n],
    [0x5000n, 0x8f47n],
  ] as const)
    bus.store64(VM + table, entry);
  bus.mb();
  const viommu = iommufd.viommu(rig, dev, s2);
  const vdev = iommufd.vdevice(viommu, dev, 0x123n);
  const nested = iommufd.nested(viommu, hwptData(VSTE));
  attach(nested);
  dma('nested', 0x10n, VM + 0x8010n);
  dma('nested, stage 1 fault: the VM is told', 0x1000n, VM);
  bus.store64(VM + 0x5008n, 0x9f47n);
  viommu.ops?.cacheInvalidate?.(viommu, invalidation([fromQwords([0x0001_0000_0000_0012n, 0x1001n])]));
  dma('nested, mapped by the VM', 0x1008n, VM + 0x9008n);

  attach(driver.blockedDomain);
  tell('detach');
  nested.ops.free(nested);
  vdev.destroy();
  viommu.ops?.destroy?.(viommu);
  s2.ops.free(s2);
  s1.ops.free(s1);
  tell('freed');
  seen.push({ what: 'pages', is: kernel.pagesUsed });
  return seen;
}

/** The machine in this thread: its own bus, and the BAR as a qtest client reaches it. */
function inProcess(): Seen[] {
  const target = new VirtTarget();
  return life(target.machine.bus, {
    readl: (addr) => Number(target.read(addr, 4)),
    writel: (addr, value) => target.write(addr, 4, BigInt(value >>> 0)),
  });
}

/** A session in this thread behind the link's interface. */
function sessionLink(): QtestLink {
  const session = new QtestSession(new VirtTarget());
  return {
    exchange: (lines) => {
      const all = lines.flatMap((line) => session.handle(line));
      const irqs = all.filter((line) => line.startsWith('IRQ '));
      return { replies: all.filter((line) => !line.startsWith('IRQ ')), irqs };
    },
  };
}

const results = (seen: readonly Seen[]): Record<string, unknown> =>
  Object.fromEntries(seen.filter(({ is }) => typeof is === 'string').map(({ what, is }) => [what, is]));

const EXPECTED = {
  blocked: 'WRITE_FAILED',
  'stage 1, over a page boundary': 'SUCCESS',
  'stage 1, not mapped': 'WRITE_FAILED',
  'stage 1, unmapped': 'WRITE_FAILED',
  'stage 2': 'SUCCESS',
  'stage 2, not mapped': 'WRITE_FAILED',
  nested: 'SUCCESS',
  'nested, stage 1 fault: the VM is told': 'WRITE_FAILED',
  'nested, mapped by the VM': 'SUCCESS',
};

describe('the driver on an SMMUv3 that is not ours', () => {
  let child: ChildProcess;
  let where = '';

  beforeAll(async () => {
    child = spawn(process.execPath, [buildExecutable(), 'serve', '--qtest', 'tcp:127.0.0.1:0', '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    where = await new Promise<string>((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`serve ended with ${code}`)));
      child.stdout?.once('data', (line) => resolve(String(JSON.parse(String(line)).listening)));
    });
  }, 120_000);

  afterAll(() => {
    child.removeAllListeners('exit');
    child.kill('SIGTERM');
  });

  test('in this process DMA answers as the domains say, and the VM gets its one event', () => {
    const seen = inProcess();
    expect(results(seen)).toEqual(EXPECTED);
    const events = seen.findLast(({ what }) => what === 'freed')?.is as { events: number[][] };
    // F_TRANSLATION with the vSID, InputAddr in words 4 and 5.
    expect(events.events.map((words) => [words[0], words[1], words[4], words[5]])).toEqual([[0x10, 0x123, 0x1000, 0]]);
    expect(seen.at(-1)?.what).toBe('pages');
  });

  test('over the protocol without a socket: the same', () => {
    const bus = new RemoteBus(sessionLink());
    expect(life(bus, bus)).toEqual(inProcess());
  });

  test('in another process: the same commands, STEs, DMA results, log, events and pages', () => {
    const socket = new QtestSocket(where);
    try {
      const bus = new RemoteBus(socket);
      for (const { bus: number, device, bar } of TEST_FUNCTIONS)
        if (number === 0) placeTestdev(bus, (number << 8) | (device << 3), bar);
      expect(life(bus, bus)).toEqual(inProcess());
    } finally {
      socket.close();
    }
  }, 60_000);

  test('each access as the local bus has it', () => {
    const socket = new QtestSocket(where);
    const bus = new RemoteBus(socket);
    bus.store64(0x4000_0000n, 0x1122_3344_5566_7788n);
    bus.store32(0x4000_0004n, 0xffff_ffff);
    expect(bus.load64(0x4000_0000n)).toBe(0xffff_ffff_5566_7788n);
    const bytes = Uint8Array.from({ length: 200_000 }, (_, i) => i % 251);
    bus.storeBytes(0x4000_1000n, bytes);
    expect(bus.loadBytes(0x4000_1000n, bytes.length)).toEqual(bytes);
    bus.storeBytes(0x4000_1000n, new Uint8Array(100_000));
    expect(bus.loadBytes(0x4000_1000n + 99_996n, 8)).toEqual(
      Uint8Array.of(0, 0, 0, 0, ...bytes.subarray(100_000, 100_004)),
    );
    expect(bus.compareExchangePair(0, 0x4000_0000, 1, 2, 3, 4)).toBe(false);
    expect([bus.pairHi, bus.pairLo]).toEqual([0xffff_ffff, 0x5566_7788]);
    expect(bus.compareExchangePair(0, 0x4000_0000, 0xffff_ffff, 0x5566_7788, 3, 4)).toBe(true);
    expect(bus.load64(0x4000_0000n)).toBe(0x3_0000_0004n);
    // IDR0 of the machine (QEMU 11.1), and the functions of its bus 0.
    expect(bus.readl(0x0905_0000n)).toBe(0x0d44_101b);
    expect(bus.pciRead32(BDF, 0) >>> 0).toBe(0x0005_1b36);
    expect(bus.pciRead32(0x18, 0) >>> 0).toBe(0xffff_ffff);
    expect(() => bus.load64(0x3fff_fff8n)).toThrow(BusError);
    expect(() => bus.store64(0xbfff_fffcn, 0n)).toThrow(BusError);
    socket.close();
    expect(() => bus.readl(0x0905_0000n)).toThrow(QtestLinkError);
  });

  test('nobody there, or no answer: an error, no hang', () => {
    expect(() => new RemoteBus(new QtestSocket('tcp:127.0.0.1:1'))).toThrow(QtestLinkError);
    expect(() => new QtestSocket('tcp:192.0.2.1:1')).toThrow('is not unix:PATH');
    const refuses: QtestLink = { exchange: (lines) => ({ replies: lines.map(() => 'FAIL no'), irqs: [] }) };
    expect(() => new RemoteBus(refuses)).toThrow("'endianness' was answered 'FAIL no'");
  });
});

test('the STE of a vSTE that is used here translates at stage 1 (5.2)', () => {
  expect(STE.valueName('Config', STE.get(VSTE, 'Config'))).toBe('S1_TRANS');
  expect(toQwords(VSTE)).toEqual([0x100bn, 0xd6n]);
});
