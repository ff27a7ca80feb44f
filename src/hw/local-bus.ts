/** The {@link Bus} of the CPU that host code is, over a {@link Machine} in the same process. */
import type { Bus, Firmware, Pa } from './bus.ts';
import { BusError } from './bus.ts';
import type { Machine } from './machine.ts';
import { Exchange } from './memory.ts';

const ALL_ONES_32 = 0xffffffff;
const ALL_ONES_64 = 0xffffffffffffffffn;

/** See the module comment. */
export class LocalBus implements Bus {
  readonly #machine: Machine;
  pairHi = 0;
  pairLo = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  get firmware(): Firmware {
    return this.#machine.firmware;
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
    this.writelRelaxed(addr, value);
  }

  writelRelaxed(addr: Pa, value: number): void {
    const { map } = this.#machine;
    map.find(addr, 4)?.mmioWrite32(map.offset, value >>> 0);
    this.#machine.conductor.moment();
  }

  writeq(addr: Pa, value: bigint): void {
    this.writeqRelaxed(addr, value);
  }

  writeqRelaxed(addr: Pa, value: bigint): void {
    const { map } = this.#machine;
    map.find(addr, 8)?.mmioWrite64(map.offset, BigInt.asUintN(64, value));
    this.#machine.conductor.moment();
  }

  load32(pa: Pa): number {
    return this.#machine.memory.read32(pa);
  }

  load64(pa: Pa): bigint {
    return this.#machine.memory.read64(pa);
  }

  store32(pa: Pa, value: number): void {
    this.#machine.memory.write32(pa, value);
  }

  store64(pa: Pa, value: bigint): void {
    this.#machine.memory.write64(pa, value);
  }

  loadBytes(pa: Pa, length: number): Uint8Array {
    return this.#machine.memory.readBytes(pa, length);
  }

  storeBytes(pa: Pa, bytes: Uint8Array): void {
    this.#machine.memory.writeBytes(pa, bytes);
  }

  loadPair(paHi: number, paLo: number): void {
    const { memory } = this.#machine;
    if (!memory.load64(paHi, paLo)) throw fault(paHi, paLo, '8-byte read');
    this.pairHi = memory.hi;
    this.pairLo = memory.lo;
  }

  storePair(paHi: number, paLo: number, valueHi: number, valueLo: number): void {
    if (!this.#machine.memory.store64(paHi, paLo, valueHi, valueLo)) throw fault(paHi, paLo, '8-byte write');
  }

  compareExchangePair(paHi: number, paLo: number, oldHi: number, oldLo: number, newHi: number, newLo: number): boolean {
    const { memory } = this.#machine;
    const result = memory.compareExchange64(paHi, paLo, oldHi, oldLo, newHi, newLo);
    if (result === Exchange.Abort) throw fault(paHi, paLo, 'compare and exchange');
    this.pairHi = memory.hi;
    this.pairLo = memory.lo;
    return result === Exchange.Done;
  }

  dmaWmb(): void {
    this.#machine.conductor.moment();
  }

  dmaRmb(): void {
    this.#machine.conductor.moment();
  }

  mb(): void {
    this.#machine.conductor.moment();
  }

  cpuRelax(): void {
    this.#machine.conductor.poll();
  }

  pciRead32(_bdf: number, _offset: number): number {
    return ALL_ONES_32;
  }

  pciWrite32(_bdf: number, _offset: number, _value: number): void {}

  onInterrupt(irq: number, edge: () => void): void {
    this.#machine.onInterrupt(irq, edge);
  }
}

const fault = (hi: number, lo: number, access: string): BusError =>
  new BusError((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0), access);
