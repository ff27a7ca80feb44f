/** Which device answers at a physical address. Memory is apart: see memory.ts. */
import type { Pa } from './bus.ts';

/** A device that answers MMIO. Offsets are bytes from the start of its range. */
export interface MmioDevice {
  mmioRead32(offset: number): number;
  mmioRead64(offset: number): bigint;
  mmioWrite32(offset: number, value: number): void;
  mmioWrite64(offset: number, value: bigint): void;
}

interface Range {
  readonly base: Pa;
  readonly end: Pa;
  readonly device: MmioDevice;
}

/** See the module comment. */
export class AddressMap {
  readonly #ranges: Range[] = [];

  /** @throws RangeError if the range is empty or overlaps another */
  add(base: Pa, size: bigint, device: MmioDevice): void {
    const end = base + size;
    if (size <= 0n || base < 0n) throw new RangeError(`0x${base.toString(16)}+0x${size.toString(16)} is no range`);
    if (this.#ranges.some((other) => base < other.end && other.base < end))
      throw new RangeError(`0x${base.toString(16)}+0x${size.toString(16)} overlaps another device`);
    this.#ranges.push({ base, end, device });
  }

  /** Offset in the device of the last {@link find}. */
  offset = 0;

  /** The device that answers all of [pa, pa + bytes); its {@link offset} is left there. */
  find(pa: Pa, bytes: number): MmioDevice | undefined {
    for (const { base, end, device } of this.#ranges)
      if (base <= pa && pa + BigInt(bytes) <= end) {
        this.offset = Number(pa - base);
        return device;
      }
    return undefined;
  }
}
