/** PCI configuration space of the qtest machine's functions and its root port. */
import type { Layout, Words } from '../../../spec/layout.ts';
import {
  PCI_BRIDGE_WINDOWS,
  PCI_BRIDGE_WINDOWS_OFFSET,
  PCI_CONFIG_BYTES,
  PCI_TYPE0,
} from '../../../spec/pci-header.ts';

/** One function's configuration space: bytes, and the bits of them that software can write. */
export class PciConfigSpace {
  readonly #bytes = new Uint8Array(PCI_CONFIG_BYTES);
  readonly #writable = new Uint8Array(PCI_CONFIG_BYTES);

  /** Places the common header. `writable` has ones where software may write. */
  constructor(header: Words, writable: Words) {
    this.#place(0, header, writable);
  }

  /** Places a further part of the space at a byte offset. */
  protected place(offset: number, words: Words, writable: Words): void {
    this.#place(offset, words, writable);
  }

  #place(offset: number, words: Words, writable: Words): void {
    this.#bytes.set(new Uint8Array(words.slice().buffer), offset);
    this.#writable.set(new Uint8Array(writable.slice().buffer), offset);
  }

  read(offset: number): number {
    return this.#bytes[offset] ?? 0;
  }

  write(offset: number, value: number): void {
    const mask = this.#writable[offset] ?? 0;
    this.#bytes[offset] = (this.read(offset) & ~mask) | (value & mask);
  }

  /** The words of a part, for its layout. */
  protected words(layout: Layout, offset: number): Words {
    return new Uint32Array(this.#bytes.slice(offset, offset + layout.bytes).buffer);
  }

  get memorySpace(): boolean {
    return PCI_TYPE0.num(this.words(PCI_TYPE0, 0), 'MemorySpace') === 1;
  }

  get busMaster(): boolean {
    return PCI_TYPE0.num(this.words(PCI_TYPE0, 0), 'BusMaster') === 1;
  }
}

const COMMAND = PCI_TYPE0.mask(['IoSpace', 'MemorySpace', 'BusMaster', 'Serr', 'InterruptDisable']);
const ENABLED = { MemorySpace: 1, BusMaster: 1 } as const;

const both = (a: Words, b: Words): Words => a.map((word, i) => word | (b[i] ?? 0));

/** A function with one 32-bit memory BAR, enabled and placed as at power-on. */
export class PciFunctionSpace extends PciConfigSpace {
  readonly #barBytes: number;

  /** @param id configuration word 0; @param bar power-on address of BAR0; @param barBytes its size, a power of two */
  constructor(id: number, bar: number, barBytes: number) {
    const header = PCI_TYPE0.encode({ ClassCode: 0xff0000, Bar0Address: bar >>> 4, ...ENABLED });
    const size = PCI_TYPE0.encode({ Bar0Address: (-barBytes >>> 4) & 0xfffffff });
    header[0] = id;
    super(header, both(COMMAND, size));
    this.#barBytes = barBytes;
  }

  /** Offset of a physical address in BAR0, or undefined if the BAR does not answer it. */
  barOffset(addr: bigint): number | undefined {
    const base = PCI_TYPE0.address(this.words(PCI_TYPE0, 0), 'Bar0Address');
    if (!this.memorySpace || addr < base || addr >= base + BigInt(this.#barBytes)) return undefined;
    return Number(addr - base);
  }
}

/** A root port: a bridge with bus numbers and one memory window, enabled and placed as at power-on. */
export class PciBridgeSpace extends PciConfigSpace {
  constructor(id: number, secondary: number, window: { readonly base: number; readonly limit: number }) {
    const header = PCI_TYPE0.encode({ ClassCode: 0x060400, HeaderType: 'BRIDGE', ...ENABLED });
    header[0] = id;
    super(header, COMMAND);
    const names = ['PrimaryBus', 'SecondaryBus', 'SubordinateBus', 'MemoryBase', 'MemoryLimit'] as const;
    this.place(
      PCI_BRIDGE_WINDOWS_OFFSET,
      PCI_BRIDGE_WINDOWS.encode({
        SecondaryBus: secondary,
        SubordinateBus: secondary,
        MemoryBase: window.base >>> 20,
        MemoryLimit: window.limit >>> 20,
      }),
      PCI_BRIDGE_WINDOWS.mask(names),
    );
  }

  get #windows(): Words {
    return this.words(PCI_BRIDGE_WINDOWS, PCI_BRIDGE_WINDOWS_OFFSET);
  }

  get secondaryBus(): number {
    return PCI_BRIDGE_WINDOWS.num(this.#windows, 'SecondaryBus');
  }

  /** Whether a memory access to `addr` passes to the secondary bus. */
  forwards(addr: bigint): boolean {
    const base = PCI_BRIDGE_WINDOWS.address(this.#windows, 'MemoryBase');
    const end = PCI_BRIDGE_WINDOWS.address(this.#windows, 'MemoryLimit') + 0x100000n;
    return this.memorySpace && addr >= base && addr < end;
  }
}
