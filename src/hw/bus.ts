/**
 * What a kernel has of a machine: MMIO, memory, barriers, interrupts, PCI configuration space and the firmware's
 * description. The driver sees hardware only through this interface, so it also runs on another implementation of it
 * (QEMU behind its qtest socket).
 */

/** Physical addresses are bigints of up to 56 bits. */
export type Pa = bigint;

/** One CPU's access to the machine. All methods are synchronous; none of them returns before the CPU would go on. */
export interface Bus {
  /** 32-bit MMIO read. An access that nothing answers reads as all ones. */
  readl(addr: Pa): number;
  readlRelaxed(addr: Pa): number;
  /** 64-bit MMIO read. */
  readq(addr: Pa): bigint;
  readqRelaxed(addr: Pa): bigint;
  /** 32-bit MMIO write, ordered after all earlier stores of this CPU (they are visible to devices before it). */
  writel(addr: Pa, value: number): void;
  /** 32-bit MMIO write without that order. */
  writelRelaxed(addr: Pa, value: number): void;
  writeq(addr: Pa, value: bigint): void;
  writeqRelaxed(addr: Pa, value: bigint): void;

  /** Memory as this CPU sees it: its own stores at once. Unmapped addresses throw {@link BusError}. */
  load32(pa: Pa): number;
  load64(pa: Pa): bigint;
  store32(pa: Pa, value: number): void;
  /** A 64-bit store; devices see it whole, but not before a barrier says so. */
  store64(pa: Pa, value: bigint): void;
  loadBytes(pa: Pa, length: number): Uint8Array;
  storeBytes(pa: Pa, bytes: Uint8Array): void;

  /**
   * The same for page-table code, as (high, low) halves of address and value. `loadPair` leaves the value in
   * {@link pairHi} and {@link pairLo}.
   */
  loadPair(paHi: number, paLo: number): void;
  storePair(paHi: number, paLo: number, valueHi: number, valueLo: number): void;
  readonly pairHi: number;
  readonly pairLo: number;
  /**
   * Atomic 64-bit compare and exchange (a CPU's cmpxchg64). True if memory held the old value; else the value found
   * is in {@link pairHi} and {@link pairLo}.
   */
  compareExchangePair(paHi: number, paLo: number, oldHi: number, oldLo: number, newHi: number, newLo: number): boolean;

  /** Write barrier towards devices (`dma_wmb`). */
  dmaWmb(): void;
  /** Read barrier towards devices (`dma_rmb`). */
  dmaRmb(): void;
  /** Full barrier (`mb`). */
  mb(): void;
  /** One turn of a polling loop: hardware that moves only in steps may move here. */
  cpuRelax(): void;

  /** PCI configuration space, 32-bit aligned words; `bdf` = bus << 8 | device << 3 | function. Absent: all ones. */
  pciRead32(bdf: number, offset: number): number;
  pciWrite32(bdf: number, offset: number, value: number): void;

  /** Registers for edges of an interrupt; the handler only notes the edge (the kernel runs it when it may). */
  onInterrupt(irq: number, edge: () => void): void;

  /** What firmware tables (IORT, device tree) tell the kernel. */
  readonly firmware: Firmware;
}

/** An access that no memory answers, seen by a CPU. */
export class BusError extends Error {
  override readonly name = 'BusError';
  readonly pa: Pa;
  constructor(pa: Pa, access: string) {
    super(`${access} at 0x${pa.toString(16)}: no memory there`);
    this.pa = pa;
  }
}

/** The firmware's description of the machine. */
export interface Firmware {
  /** RAM that the kernel may allocate from: [base, base + size). */
  readonly ram: readonly { readonly base: Pa; readonly size: bigint }[];
  readonly smmus: readonly SmmuNode[];
  readonly devices: readonly DeviceNode[];
}

/** An SMMUv3 as IORT describes it. */
export interface SmmuNode {
  /** For example "smmu0". */
  readonly name: string;
  readonly base: Pa;
  /** COHACC override / dma-coherent: table walks are coherent. */
  readonly coherent: boolean;
  readonly irqs: { readonly eventq: number; readonly priq: number; readonly gerror: number };
  /** The Tegra241 CMDQV beside it, if any. */
  readonly cmdqv?: { readonly base: Pa; readonly irq: number };
}

/** A device behind an SMMU as firmware and PCI enumeration describe it. */
export interface DeviceNode {
  /** For example "0000:00:05.0". */
  readonly name: string;
  /** Name of its SMMU. */
  readonly smmu: string;
  readonly streamIds: readonly number[];
  /** PCI requester id, for configuration space (ATS, PRI, PASID capabilities); platform devices have none. */
  readonly bdf?: number;
  /** Fully coherent: the device cannot make non-snooped accesses (CANWBS). */
  readonly canWbs: boolean;
  /** dma-can-stall. */
  readonly canStall: boolean;
  /** Number of SubstreamID bits the device can use (pasid-num-bits or the PASID capability). */
  readonly ssidBits: number;
  /** Devices that must share a group (no ACS between them) carry equal names here. Default: a group of its own. */
  readonly groupAlias?: string;
  /** Reserved regions firmware demands: 1:1 mapped ('direct'), or to be left alone ('reserved'). */
  readonly reserved?: readonly {
    readonly start: bigint;
    readonly length: bigint;
    readonly type: 'direct' | 'reserved';
  }[];
}
