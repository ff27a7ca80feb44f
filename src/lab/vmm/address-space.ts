/** A process's address space and files over simulated RAM: what a VMM hands to iommufd. */
import { KernelError } from '../../driver/kernel.ts';
import type { Bus, Pa } from '../../hw/bus.ts';
import type { PageRun, UserFile, UserMemory } from '../../iommufd/process.ts';
import { PAGE_BYTES, PAGE_SIZE } from '../../iommufd/process.ts';

/** Pages of RAM in the order in which they appear to the process; equal content, whatever is mapped where. */
export class PageList implements UserFile {
  readonly #bus: Bus;
  readonly #pages: readonly Pa[];
  /** Index of the first page after the physical run that a page belongs to. */
  readonly #runEnd: Uint32Array;

  /** @param pages physical addresses of the pages, page aligned */
  constructor(bus: Bus, pages: readonly Pa[]) {
    this.#bus = bus;
    this.#pages = pages;
    this.#runEnd = new Uint32Array(pages.length);
    for (let i = pages.length - 1; i >= 0; i--) {
      const goesOn = pages[i + 1] === (pages[i] ?? 0n) + PAGE_SIZE;
      this.#runEnd[i] = goesOn ? (this.#runEnd[i + 1] ?? i + 1) : i + 1;
    }
  }

  get size(): bigint {
    return BigInt(this.#pages.length) * PAGE_SIZE;
  }

  lookup(offset: bigint, maxPages: number): PageRun | undefined {
    const first = Number(offset / PAGE_SIZE);
    const pa = this.#pages[first];
    if (pa === undefined) return undefined;
    return { pa, pages: Math.min(maxPages, (this.#runEnd[first] ?? first + 1) - first) };
  }

  /** Calls `piece` for each part of [offset, offset + length) inside one page, until the pages end. */
  #pieces(offset: number, length: number, piece: (pa: Pa, at: number, length: number) => void): void {
    for (let done = 0; done < length; ) {
      const page = this.#pages[Math.floor((offset + done) / PAGE_BYTES)];
      if (page === undefined) return;
      const inPage = (offset + done) % PAGE_BYTES;
      const size = Math.min(length - done, PAGE_BYTES - inPage);
      piece(page + BigInt(inPage), done, size);
      done += size;
    }
  }

  /** Bytes from `offset` on; zeros beyond the end. */
  read(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.#pieces(offset, length, (pa, at, size) => out.set(this.#bus.loadBytes(pa, size), at));
    return out;
  }

  /** Writes what fits. */
  write(offset: number, bytes: Uint8Array): void {
    this.#pieces(offset, bytes.length, (pa, at, size) => this.#bus.storeBytes(pa, bytes.subarray(at, at + size)));
  }
}

/** A range of virtual addresses. */
export interface UserArea {
  readonly va: bigint;
  readonly pages: PageList;
  readonly writable: boolean;
}

/** See the module comment. */
export class AddressSpace implements UserMemory {
  readonly #areas: UserArea[] = [];

  /** Maps an area. @throws RangeError if it is not page aligned or overlaps another */
  map(area: UserArea): void {
    if (area.va % PAGE_SIZE !== 0n) throw new RangeError(`0x${area.va.toString(16)} is not page aligned`);
    const end = area.va + area.pages.size;
    for (const other of this.#areas)
      if (area.va < other.va + other.pages.size && other.va < end) throw new RangeError('the areas overlap');
    this.#areas.push(area);
  }

  #at(va: bigint): UserArea | undefined {
    return this.#areas.find((area) => va >= area.va && va < area.va + area.pages.size);
  }

  /** Runs over [va, va + length) area by area. @throws KernelError EFAULT where nothing is mapped */
  #pieces(
    va: bigint,
    length: number,
    write: boolean,
    piece: (area: UserArea, offset: number, at: number, length: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const area = this.#at(va + BigInt(done));
      if (area === undefined || (write && !area.writable))
        throw new KernelError('EFAULT', `user address 0x${(va + BigInt(done)).toString(16)} is not mapped`);
      const offset = Number(va - area.va) + done;
      const size = Math.min(length - done, Number(area.pages.size) - offset);
      piece(area, offset, done, size);
      done += size;
    }
  }

  read(va: bigint, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.#pieces(va, length, false, (area, offset, at, size) => out.set(area.pages.read(offset, size), at));
    return out;
  }

  write(va: bigint, bytes: Uint8Array): void {
    this.#pieces(va, bytes.length, true, (area, offset, at, size) =>
      area.pages.write(offset, bytes.subarray(at, at + size)),
    );
  }

  lookup(va: bigint, maxPages: number, write: boolean): PageRun | undefined {
    const area = this.#at(va);
    if (area === undefined || (write && !area.writable)) return undefined;
    return area.pages.lookup(va - area.va, maxPages);
  }
}
