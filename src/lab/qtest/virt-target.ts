/**
 * QEMU's `virt` machine as a qtest client sees it: RAM, SMMUv3, PCIe configuration space and three `iommu-testdev`
 * functions, at QEMU's addresses. Functions are placed and enabled at power-on; QEMU leaves that to the client.
 */
import { ITD_BAR_BYTES, ITD_PCI_ID } from '../../../spec/iommu-testdev.ts';
import { PCI_ECAM } from '../../../spec/pci-header.ts';
import { FIRST_IRQ, VIRT as HW_VIRT, type Machine, virt } from '../../hw/machine.ts';
import type { ScheduleConfig } from '../../hw/schedule.ts';
import { PciBridgeSpace, type PciConfigSpace, PciFunctionSpace } from './pci-space.ts';
import type { QtestTarget } from './protocol.ts';
import { TestDevice } from './test-device.ts';

/** Addresses of the machine (QEMU, hw/arm/virt.c). */
export const VIRT = {
  ...HW_VIRT,
  ecam: 0x40_1000_0000n,
  lowEcam: 0x3f00_0000n,
  /** Bytes of the low ECAM: 16 buses. The high one has 256. */
  lowEcamBytes: 0x100_0000n,
  ecamBytes: 0x1000_0000n,
} as const;

/** The test functions: bus, device, and where BAR0 stands at power-on. */
export const TEST_FUNCTIONS = [
  { name: '0000:00:01.0', bus: 0, device: 1, bar: 0x1000_0000n },
  { name: '0000:00:02.0', bus: 0, device: 2, bar: 0x1000_1000n },
  { name: '0000:01:00.0', bus: 1, device: 0, bar: 0x1020_0000n },
] as const;

/** The root port that the last function is behind: QEMU's pcie-root-port. */
const ROOT_PORT = { device: 4, id: 0x000c1b36, bus: 1, window: { base: 0x1020_0000, limit: 0x102f_ffff } } as const;
const BUSES = 256;
/** The SMMU's wires as QEMU numbers its outputs: Event queue, PRI queue, CMD_SYNC, GERROR. */
const WIRES = 4;

/** One function: its configuration space, its registers, and the bridge it is behind. */
interface TestFunction {
  readonly space: PciFunctionSpace;
  readonly device: TestDevice;
  readonly behind: PciBridgeSpace | undefined;
}

/** See the module comment. */
export class VirtTarget implements QtestTarget {
  readonly machine: Machine;
  readonly #rootPort = new PciBridgeSpace(ROOT_PORT.id, ROOT_PORT.bus, ROOT_PORT.window);
  readonly #functions: readonly TestFunction[];

  constructor(schedule?: ScheduleConfig) {
    // A function's StreamID follows from the bus number that software gives its bridge.
    const endpoints = TEST_FUNCTIONS.map(({ name, bus, device }) => ({
      name,
      streamIds: bus === 0 ? [device << 3] : Array.from({ length: BUSES }, (_, number) => number << 8),
    }));
    this.machine = virt(schedule === undefined ? { endpoints } : { endpoints, schedule });
    this.#functions = TEST_FUNCTIONS.map(({ name, bus, bar }) => {
      const behind = bus === 0 ? undefined : this.#rootPort;
      const space = new PciFunctionSpace(ITD_PCI_ID, Number(bar), ITD_BAR_BYTES);
      const endpoint = this.machine.endpoint(name);
      const device = new TestDevice({
        dmaWrite: (iova, bytes) => {
          if (!space.busMaster || behind?.busMaster === false) return false;
          const fits = iova + BigInt(bytes.length) <= 1n << 64n;
          return fits && endpoint.write(iova, bytes, { stream: behind?.secondaryBus ?? 0 }).status === 'ok';
        },
        readPhysical: (pa, length) =>
          this.machine.memory.covers(pa, length) ? this.machine.memory.readBytes(pa, length) : undefined,
      });
      return { space, device, behind };
    });
  }

  read(addr: bigint, size: number): bigint {
    const { memory } = this.machine;
    if (memory.covers(addr, size)) return littleEndian(memory.readBytes(addr, size));
    const bar = this.#bar(addr);
    if (bar !== undefined) return size === 4 && addr % 4n === 0n ? BigInt(bar.device.read(bar.offset)) : 0n;
    const config = this.#config(addr);
    if (config !== undefined) return config.read(size);
    return addr % BigInt(size) === 0n && size >= 4 ? this.#mmioRead(addr, size) : 0n;
  }

  write(addr: bigint, size: number, value: bigint): void {
    const { memory } = this.machine;
    if (memory.covers(addr, size)) {
      memory.writeBytes(addr, bytesOf(value, size));
      return;
    }
    const bar = this.#bar(addr);
    const config = this.#config(addr);
    if (bar !== undefined) {
      if (size === 4 && addr % 4n === 0n) bar.device.write(bar.offset, Number(value));
    } else if (config !== undefined) config.write(size, value);
    else if (addr % BigInt(size) === 0n && size >= 4) this.#mmioWrite(addr, size, value);
  }

  readBytes(addr: bigint, length: number): Uint8Array {
    const { memory } = this.machine;
    if (length === 0 || memory.covers(addr, length)) return memory.readBytes(addr, length);
    const bytes = new Uint8Array(length);
    this.#pieces(addr, length, (at, size, offset) => bytes.set(bytesOf(this.read(at, size), size), offset));
    return bytes;
  }

  writeBytes(addr: bigint, bytes: Uint8Array): void {
    const { memory } = this.machine;
    if (memory.covers(addr, bytes.length)) memory.writeBytes(addr, bytes);
    else
      this.#pieces(addr, bytes.length, (at, size, offset) =>
        this.write(at, size, littleEndian(bytes.subarray(offset, offset + size))),
      );
  }

  /** Cuts a block that is not all memory into the widest aligned accesses that a device takes (QEMU memory_access_size). */
  #pieces(addr: bigint, length: number, each: (at: bigint, size: number, offset: number) => void): void {
    for (let offset = 0; offset < length; ) {
      const at = addr + BigInt(offset);
      const widest = this.#bar(at) === undefined ? 8 : 4;
      let size = widest;
      while (size > length - offset || at % BigInt(size) !== 0n) size /= 2;
      each(at, size, offset);
      offset += size;
    }
  }

  intercept(side: 'in' | 'out', level: (line: number, high: boolean) => void): void {
    for (let wire = 0; wire < WIRES; wire++)
      this.machine.onInterrupt(FIRST_IRQ + wire, () => {
        const line = side === 'in' ? FIRST_IRQ + wire : wire;
        level(line, true);
        level(line, false);
      });
  }

  #mmioRead(addr: bigint, size: number): bigint {
    const { bus, map } = this.machine;
    if (map.find(addr, size) === undefined) return 0n;
    return size === 8 ? bus.readq(addr) : BigInt(bus.readl(addr) >>> 0);
  }

  #mmioWrite(addr: bigint, size: number, value: bigint): void {
    const { bus } = this.machine;
    if (size === 8) bus.writeq(addr, value);
    else bus.writel(addr, Number(value));
  }

  #bar(addr: bigint): { device: TestDevice; offset: number } | undefined {
    for (const { space, device, behind } of this.#functions) {
      const offset = space.barOffset(addr);
      if (offset !== undefined && (behind === undefined || behind.forwards(addr))) return { device, offset };
    }
    return undefined;
  }

  /** The configuration space at an ECAM address; a function that is not there reads all ones. */
  #config(addr: bigint): ConfigAccess | undefined {
    const inside = (base: bigint, bytes: bigint): boolean => addr >= base && addr < base + bytes;
    const base = inside(VIRT.lowEcam, VIRT.lowEcamBytes)
      ? VIRT.lowEcam
      : inside(VIRT.ecam, VIRT.ecamBytes)
        ? VIRT.ecam
        : undefined;
    if (base === undefined) return undefined;
    const words = new Uint32Array([Number(addr - base)]);
    const [bus, device, fn] = [
      PCI_ECAM.num(words, 'Bus'),
      PCI_ECAM.num(words, 'Device'),
      PCI_ECAM.num(words, 'Function'),
    ];
    return new ConfigAccess(fn === 0 ? this.#space(bus, device) : undefined, PCI_ECAM.num(words, 'Offset'));
  }

  #space(bus: number, device: number): PciConfigSpace | undefined {
    if (bus === 0 && device === ROOT_PORT.device) return this.#rootPort;
    const index = TEST_FUNCTIONS.findIndex(
      (one) => one.device === device && bus === (one.bus === 0 ? 0 : this.#rootPort.secondaryBus),
    );
    return this.#functions[index]?.space;
  }
}

/** An access to configuration space, byte by byte. */
class ConfigAccess {
  readonly #space: PciConfigSpace | undefined;
  readonly #offset: number;

  constructor(space: PciConfigSpace | undefined, offset: number) {
    this.#space = space;
    this.#offset = offset;
  }

  read(size: number): bigint {
    return littleEndian(Uint8Array.from({ length: size }, (_, i) => this.#space?.read(this.#offset + i) ?? 0xff));
  }

  write(size: number, value: bigint): void {
    for (const [i, byte] of bytesOf(value, size).entries()) this.#space?.write(this.#offset + i, byte);
  }
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function bytesOf(value: bigint, size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
}
