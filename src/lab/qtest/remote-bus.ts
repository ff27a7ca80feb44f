/**
 * A machine at the other end of a qtest connection as the driver's bus: QEMU, or `smmulab serve`. MMIO, memory and
 * PCI configuration space become requests; everything stays synchronous.
 */
import { PCI_ECAM } from '../../../spec/pci-header.ts';
import { type Bus, BusError, type Firmware, type Pa } from '../../hw/bus.ts';
import { FIRST_IRQ } from '../../hw/machine.ts';
import { type QtestAnswer, type QtestLink, QtestLinkError } from './socket.ts';
import { TEST_FUNCTIONS, VIRT } from './virt-target.ts';

/** QEMU's `virt` machine with an SMMUv3 and three `iommu-testdev` functions, as its firmware tables tell it. */
export const VIRT_FIRMWARE: Firmware = {
  ram: [VIRT.ram],
  smmus: [
    {
      name: 'smmu0',
      base: VIRT.smmu,
      coherent: true,
      irqs: { eventq: FIRST_IRQ, priq: FIRST_IRQ + 1, gerror: FIRST_IRQ + 3 },
    },
  ],
  devices: TEST_FUNCTIONS.map(({ name, bus, device }) => {
    const bdf = (bus << 8) | (device << 3);
    return { name, smmu: 'smmu0', streamIds: [bdf], bdf, canWbs: true, canStall: false, ssidBits: 0 };
  }),
};

/** What {@link RemoteBus} has to know of the machine. */
export interface RemoteBusOptions {
  /** Default: {@link VIRT_FIRMWARE}. Loads and stores are refused outside its `ram`. */
  readonly firmware?: Firmware;
  /** Where PCI configuration space is mapped. Default: QEMU's high ECAM. */
  readonly ecam?: Pa;
  /**
   * The request that makes the other side tell of interrupts, and the interrupt that its line 0 is. Default: the
   * inputs of the interrupt controller, numbered as in {@link Firmware}; `smmulab serve` ignores the path.
   */
  readonly intercept?: { readonly request: string; readonly first: number };
}

/** Stores kept back before they are sent. */
const MAX_STORES = 256;
/** Bytes of one block request. */
const MAX_BLOCK = 1 << 16;
const INTERCEPT = { request: 'irq_intercept_in /machine/gic', first: 0 };

/**
 * The bus. Stores to memory are kept, in order, until something could tell: a load, any MMIO, a barrier. MMIO that
 * nothing answers reads as the other side says (QEMU: 0).
 */
export class RemoteBus implements Bus {
  readonly firmware: Firmware;
  readonly #link: QtestLink;
  readonly #ecam: Pa;
  readonly #firstLine: number;
  readonly #edges = new Map<number, (() => void)[]>();
  #stores: string[] = [];
  pairHi = 0;
  pairLo = 0;

  /** @throws QtestLinkError when nobody answers, or the machine is not little-endian or cannot tell of interrupts */
  constructor(link: QtestLink, options: RemoteBusOptions = {}) {
    const { request, first } = options.intercept ?? INTERCEPT;
    this.firmware = options.firmware ?? VIRT_FIRMWARE;
    this.#link = link;
    this.#ecam = options.ecam ?? VIRT.ecam;
    this.#firstLine = first;
    const order = this.#request('endianness');
    if (order !== 'little') throw new QtestLinkError(`the machine's byte order is '${order}', not little`);
    this.#request(request);
  }

  readl(addr: Pa): number {
    return Number(BigInt(this.#request(`readl ${hex(addr)}`)));
  }

  readlRelaxed(addr: Pa): number {
    return this.readl(addr);
  }

  readq(addr: Pa): bigint {
    return BigInt(this.#request(`readq ${hex(addr)}`));
  }

  readqRelaxed(addr: Pa): bigint {
    return this.readq(addr);
  }

  writel(addr: Pa, value: number): void {
    this.#request(`writel ${hex(addr)} ${hex(value >>> 0)}`);
  }

  writelRelaxed(addr: Pa, value: number): void {
    this.writel(addr, value);
  }

  writeq(addr: Pa, value: bigint): void {
    this.#request(`writeq ${hex(addr)} ${hex(BigInt.asUintN(64, value))}`);
  }

  writeqRelaxed(addr: Pa, value: bigint): void {
    this.writeq(addr, value);
  }

  load32(pa: Pa): number {
    this.#inRam(pa, 4, 'read');
    return this.readl(pa);
  }

  load64(pa: Pa): bigint {
    this.#inRam(pa, 8, 'read');
    return this.readq(pa);
  }

  store32(pa: Pa, value: number): void {
    this.#inRam(pa, 4, 'write');
    this.#store(`writel ${hex(pa)} ${hex(value >>> 0)}`);
  }

  store64(pa: Pa, value: bigint): void {
    this.#inRam(pa, 8, 'write');
    this.#store(`writeq ${hex(pa)} ${hex(BigInt.asUintN(64, value))}`);
  }

  loadBytes(pa: Pa, length: number): Uint8Array {
    this.#inRam(pa, length, 'read');
    const out = new Uint8Array(length);
    for (let at = 0; at < length; at += MAX_BLOCK) {
      const wanted = Math.min(MAX_BLOCK, length - at);
      const bytes = Buffer.from(this.#request(`b64read ${hex(pa + BigInt(at))} ${wanted}`), 'base64');
      if (bytes.length !== wanted)
        throw new QtestLinkError(`${bytes.length} bytes came where ${wanted} were asked for`);
      out.set(bytes, at);
    }
    return out;
  }

  storeBytes(pa: Pa, bytes: Uint8Array): void {
    this.#inRam(pa, bytes.length, 'write');
    if (bytes.length > 0 && bytes.every((byte) => byte === 0)) {
      this.#store(`memset ${hex(pa)} ${bytes.length} 0`);
      return;
    }
    for (let at = 0; at < bytes.length; at += MAX_BLOCK) {
      const block = bytes.subarray(at, at + MAX_BLOCK);
      this.#store(`write ${hex(pa + BigInt(at))} ${block.length} 0x${Buffer.from(block).toString('hex')}`);
    }
  }

  loadPair(paHi: number, paLo: number): void {
    const value = this.load64(joined(paHi, paLo));
    this.pairHi = Number(value >> 32n);
    this.pairLo = Number(value & 0xffff_ffffn);
  }

  storePair(paHi: number, paLo: number, valueHi: number, valueLo: number): void {
    this.store64(joined(paHi, paLo), joined(valueHi, valueLo));
  }

  /** Not one request, but nothing moves at the other side between two of this connection. */
  compareExchangePair(paHi: number, paLo: number, oldHi: number, oldLo: number, newHi: number, newLo: number): boolean {
    this.loadPair(paHi, paLo);
    if (this.pairHi !== oldHi >>> 0 || this.pairLo !== oldLo >>> 0) return false;
    this.storePair(paHi, paLo, newHi, newLo);
    return true;
  }

  dmaWmb(): void {
    this.#flush();
  }

  /** Loads are answered in order. */
  dmaRmb(): void {}

  mb(): void {
    this.#flush();
  }

  cpuRelax(): void {}

  pciRead32(bdf: number, offset: number): number {
    return this.readl(this.#config(bdf, offset));
  }

  pciWrite32(bdf: number, offset: number, value: number): void {
    this.writel(this.#config(bdf, offset), value);
  }

  onInterrupt(irq: number, edge: () => void): void {
    const edges = this.#edges.get(irq) ?? [];
    this.#edges.set(irq, edges);
    edges.push(edge);
  }

  #config(bdf: number, offset: number): Pa {
    const [at] = PCI_ECAM.encode({
      Bus: BigInt(bdf >>> 8),
      Device: BigInt((bdf >>> 3) & 0x1f),
      Function: BigInt(bdf & 7),
      Offset: BigInt(offset),
    });
    return this.#ecam + BigInt(at ?? 0);
  }

  #inRam(pa: Pa, length: number, access: string): void {
    const end = pa + BigInt(length);
    if (!this.firmware.ram.some(({ base, size }) => pa >= base && end <= base + size))
      throw new BusError(pa, `${length}-byte ${access}`);
  }

  #store(line: string): void {
    if (this.#stores.push(line) >= MAX_STORES) this.#flush();
  }

  #flush(): void {
    if (this.#stores.length > 0) this.#send([]);
  }

  /** Sends what was kept and one request. Gives what stands behind its OK. */
  #request(line: string): string {
    return this.#send([line]).slice('OK '.length);
  }

  #send(lines: readonly string[]): string {
    const all = [...this.#stores, ...lines];
    this.#stores = [];
    const { replies, irqs }: QtestAnswer = this.#link.exchange(all);
    this.#interrupts(irqs);
    for (const [i, reply] of replies.entries())
      if (!/^OK( |$)/.test(reply)) throw new QtestLinkError(`'${all[i]?.slice(0, 64)}' was answered '${reply}'`);
    return replies.at(-1) ?? '';
  }

  #interrupts(irqs: readonly string[]): void {
    for (const line of irqs) {
      const raised = /^IRQ raise (\d+)$/.exec(line)?.[1];
      if (raised === undefined) continue;
      for (const edge of this.#edges.get(this.#firstLine + Number(raised)) ?? []) edge();
    }
  }
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

const joined = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
