/** The {@link Bus} of the CPU that host code is, over a {@link Machine} in the same process. */
import type { Bus, Firmware, Pa } from './bus.ts';
import { BusError } from './bus.ts';
import type { Machine } from './machine.ts';
import { Exchange } from './memory.ts';
import { StoreBuffer } from './store-buffer.ts';

const ALL_ONES_32 = 0xffffffff;
const ALL_ONES_64 = 0xffffffffffffffffn;

/** See the module comment. Only in the `seeded` schedule do stores wait in a buffer; elsewhere they are visible at once. */
export class LocalBus implements Bus {
  readonly #machine: Machine;
  readonly #stores: StoreBuffer | null;
  pairHi = 0;
  pairLo = 0;

  /** @param cpu names the CPU in the schedule's choices */
  constructor(machine: Machine, cpu: string) {
    this.#machine = machine;
    const { conductor, memory, watch } = machine;
    const weak = conductor.schedule.mode === 'seeded';
    const published = (): void => conductor.moment();
    const issued = (hi: number, lo: number): void => watch.issued?.(hi, lo);
    this.#stores = weak ? new StoreBuffer(`${cpu}.stores`, memory, conductor.schedule, published, issued) : null;
    if (this.#stores === null) return;
    const stores = this.#stores;
    conductor.addSpeculator(stores);
    const others = watch.overtakes;
    watch.overtakes = (hi, lo, bytes) => stores.overtakes(hi, lo, bytes) || others?.(hi, lo, bytes) === true;
  }

  get firmware(): Firmware {
    return this.#machine.firmware;
  }

  /** Stores that devices do not see yet. */
  get pendingStores(): number {
    return this.#stores?.size ?? 0;
  }

  readl(addr: Pa): number {
    return this.readlRelaxed(addr);
  }

  readlRelaxed(addr: Pa): number {
    this.#machine.conductor.moment();
    const { map } = this.#machine;
    return map.find(addr, 4)?.mmioRead32(map.offset) ?? ALL_ONES_32;
  }

  readq(addr: Pa): bigint {
    return this.readqRelaxed(addr);
  }

  readqRelaxed(addr: Pa): bigint {
    this.#machine.conductor.moment();
    const { map } = this.#machine;
    return map.find(addr, 8)?.mmioRead64(map.offset) ?? ALL_ONES_64;
  }

  writel(addr: Pa, value: number): void {
    this.#stores?.drain();
    this.writelRelaxed(addr, value);
  }

  writelRelaxed(addr: Pa, value: number): void {
    const { map } = this.#machine;
    map.find(addr, 4)?.mmioWrite32(map.offset, value >>> 0);
    this.#machine.conductor.moment();
  }

  writeq(addr: Pa, value: bigint): void {
    this.#stores?.drain();
    this.writeqRelaxed(addr, value);
  }

  writeqRelaxed(addr: Pa, value: bigint): void {
    const { map } = this.#machine;
    map.find(addr, 8)?.mmioWrite64(map.offset, BigInt.asUintN(64, value));
    this.#machine.conductor.moment();
  }

  load32(pa: Pa): number {
    if (this.#empty) return this.#machine.memory.read32(pa);
    const bytes = this.loadBytes(pa, 4);
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  }

  load64(pa: Pa): bigint {
    if (this.#empty) return this.#machine.memory.read64(pa);
    const bytes = this.loadBytes(pa, 8);
    return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  }

  store32(pa: Pa, value: number): void {
    if (this.#stores === null) this.#machine.memory.write32(pa, value);
    else if (pa % 4n !== 0n) this.storeBytes(pa, bytesOf(BigInt(value >>> 0), 4));
    else if (!inRange(pa) || !this.#stores.store32(highOf(pa), lowOf(pa), value))
      throw new BusError(pa, '4-byte write');
  }

  store64(pa: Pa, value: bigint): void {
    if (this.#stores === null) this.#machine.memory.write64(pa, value);
    else if (pa % 8n !== 0n) this.storeBytes(pa, bytesOf(value, 8));
    else if (!inRange(pa) || !this.#stores.store64(highOf(pa), lowOf(pa), highOf(value), lowOf(value)))
      throw new BusError(pa, '8-byte write');
  }

  loadBytes(pa: Pa, length: number): Uint8Array {
    const stores = this.#stores;
    const bytes = this.#machine.memory.readBytes(pa, length);
    if (stores === null || this.#empty) return bytes;
    for (let unit = pa - (pa % 8n); unit < pa + BigInt(length); unit += 8n) {
      stores.load(highOf(unit), lowOf(unit));
      const seen = bytesOf((BigInt(stores.hi >>> 0) << 32n) | BigInt(stores.lo >>> 0), 8);
      const at = Number(unit - pa);
      for (let i = Math.max(0, -at); i < Math.min(8, length - at); i++) bytes[at + i] = seen[i] ?? 0;
    }
    return bytes;
  }

  storeBytes(pa: Pa, bytes: Uint8Array): void {
    const stores = this.#stores;
    if (stores === null) {
      this.#machine.memory.writeBytes(pa, bytes);
      return;
    }
    if (!this.#machine.memory.covers(pa, bytes.length)) throw new BusError(pa, `${bytes.length}-byte write`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let hi = highOf(pa);
    let lo = lowOf(pa) & ~7;
    for (let at = -Number(pa % 8n); at < bytes.length; at += 8) {
      if (at >= 0 && at + 8 <= bytes.length)
        stores.store64(hi, lo, view.getInt32(at + 4, true), view.getInt32(at, true));
      else storePart(stores, hi, lo, bytes, at);
      lo = (lo + 8) | 0;
      if (lo === 0) hi = (hi + 1) | 0;
    }
  }

  get #empty(): boolean {
    return this.#stores === null || this.#stores.size === 0;
  }

  loadPair(paHi: number, paLo: number): void {
    const source = this.#stores ?? this.#machine.memory;
    const found = this.#stores === null ? this.#machine.memory.load64(paHi, paLo) : this.#stores.load(paHi, paLo);
    if (!found) throw fault(paHi, paLo, '8-byte read');
    this.pairHi = source.hi;
    this.pairLo = source.lo;
  }

  storePair(paHi: number, paLo: number, valueHi: number, valueLo: number): void {
    const target = this.#stores ?? this.#machine.memory;
    if (!target.store64(paHi, paLo, valueHi, valueLo)) throw fault(paHi, paLo, '8-byte write');
  }

  /** Ordered both ways, as the kernel's cmpxchg is: earlier stores are visible before it. */
  compareExchangePair(paHi: number, paLo: number, oldHi: number, oldLo: number, newHi: number, newLo: number): boolean {
    this.#stores?.drain();
    const { memory } = this.#machine;
    const result = memory.compareExchange64(paHi, paLo, oldHi, oldLo, newHi, newLo);
    if (result === Exchange.Abort) throw fault(paHi, paLo, 'compare and exchange');
    this.pairHi = memory.hi;
    this.pairLo = memory.lo;
    return result === Exchange.Done;
  }

  dmaWmb(): void {
    this.#stores?.drain();
    this.#machine.conductor.moment();
  }

  /** Loads are not reordered here; only time passes. */
  dmaRmb(): void {
    this.#machine.conductor.moment();
  }

  mb(): void {
    this.#stores?.drain();
    this.#machine.conductor.moment();
  }

  cpuRelax(): void {
    this.#machine.conductor.poll();
  }

  pciRead32(bdf: number, offset: number): number {
    return this.#machine.pci.read32(bdf, offset);
  }

  pciWrite32(bdf: number, offset: number, value: number): void {
    this.#machine.pci.write32(bdf, offset, value);
  }

  onInterrupt(irq: number, edge: () => void): void {
    this.#machine.onInterrupt(irq, edge);
  }
}

/** Stores the bytes of the unit at (hi, lo), which begins at index `at` (it may be negative) of `bytes`. */
function storePart(stores: StoreBuffer, hi: number, lo: number, bytes: Uint8Array, at: number): void {
  let mask = 0n;
  let value = 0n;
  for (let i = 0; i < 8; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) continue;
    mask |= 0xffn << BigInt(8 * i);
    value |= BigInt(byte) << BigInt(8 * i);
  }
  stores.store(hi, lo, highOf(mask), lowOf(mask), highOf(value), lowOf(value));
}

/** Physical addresses have 56 bits; beyond them halves would wrap. */
const inRange = (pa: Pa): boolean => pa >= 0n && pa >> 56n === 0n;
const highOf = (value: bigint): number => Number(BigInt.asIntN(32, value >> 32n));
const lowOf = (value: bigint): number => Number(BigInt.asIntN(32, value));

function bytesOf(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return bytes.subarray(0, length);
}

const fault = (hi: number, lo: number, access: string): BusError =>
  new BusError((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0), access);
