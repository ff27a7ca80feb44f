/**
 * A process of the host as far as SVA knows one: page tables that CPU and SMMU share, and pages of data that say whose
 * they are. Its data pages have the numbers and addresses of a VM's, in tables of four levels.
 */
import { DESCRIPTOR_LOG2, DESCRIPTOR_TYPE, GEOMETRY, type Level, levelGeometry, pte1 } from '../../spec/descriptors.ts';
import type { Layout } from '../../spec/layout.ts';
import type { MmNotifier, MmStruct } from '../driver/iommu/ops.ts';
import type { LocalKernel } from '../driver/local-kernel.ts';
import type { Pa } from '../hw/bus.ts';
import { FIRST_DATA_PAGE, GUEST_PAGES, guestAddress, markOf } from './guest.ts';

/** Processes have marks like VMs, with numbers from here on. */
export const FIRST_PROCESS = 0x8000;

const PAGE = 4096n;
/** The tables of a process, a page each: levels 0 to 3. */
const TABLES = 4;
const PAGES = TABLES + GUEST_PAGES - FIRST_DATA_PAGE;

const descriptor = (layout: Layout, fields: Readonly<Record<string, number>>): bigint => {
  const words = layout.encode({ Valid: 1, Type: DESCRIPTOR_TYPE.fields.Type.values.TABLE_PAGE, ...fields });
  return (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0);
};

/** Read and write by anybody, of one ASID, memory type of MAIR byte 0. */
const PAGE_DESCRIPTOR = descriptor(pte1('4k', 3, 'page'), { AF: 1, AP: 1, SH: 3, nG: 1 });
const TABLE_DESCRIPTOR = descriptor(pte1('4k', 2, 'table'), {});

/** See the module comment. */
export class Process implements MmStruct {
  readonly name: string;
  readonly notifiers = new Set<MmNotifier>();
  readonly #pa: Pa;
  readonly #kernel: LocalKernel;

  /**
   * @param boot how many kernels ran on the machine before
   * @throws KernelError ENOMEM
   */
  constructor(index: number, kernel: LocalKernel, boot: number) {
    this.name = `mm${index}`;
    this.#kernel = kernel;
    this.#pa = kernel.allocPages(`memory of ${this.name}`, PAGES * Number(PAGE));
    for (let level = 0; level < TABLES - 1; level++)
      this.#store(this.#entry(level, FIRST_DATA_PAGE), TABLE_DESCRIPTOR | this.#table(level + 1));
    for (let page = FIRST_DATA_PAGE; page < GUEST_PAGES; page++) {
      this.#store(this.pageAt(page), markOf(FIRST_PROCESS + index, page, boot));
      this.#store(this.#entry(TABLES - 1, page), PAGE_DESCRIPTOR | this.pageAt(page));
    }
    kernel.dmaWmb('mm:made');
  }

  /** Stage 1 root. */
  get pgd(): Pa {
    return this.#table(0);
  }

  /** Host physical address of a data page. */
  pageAt(page: number): Pa {
    return this.#pa + BigInt(TABLES + page - FIRST_DATA_PAGE) * PAGE;
  }

  /** Whether a host physical address is in its memory. */
  holdsPa(pa: Pa): boolean {
    return pa >= this.#pa && pa < this.#pa + BigInt(PAGES) * PAGE;
  }

  /** Points a page at another of its own, or at nothing. @param told tells devices once the old translation is gone */
  mapPage(page: number, to: number | null, told: (start: bigint, end: bigint) => void): void {
    const at = this.#entry(TABLES - 1, page);
    // Break before make, and the devices hear of it in between.
    this.#store(at, 0n);
    this.#kernel.dmaWmb('mm:break');
    told(guestAddress(page), guestAddress(page + 1));
    if (to === null) return;
    this.#store(at, PAGE_DESCRIPTOR | this.pageAt(to));
    this.#kernel.dmaWmb('mm:make');
  }

  /** Gives its memory back. Nobody translates with its tables any more. */
  free(): void {
    this.#kernel.freePages(`memory of ${this.name}`, this.#pa);
  }

  /** The CPU's store: in order with the zeros of a fresh page. */
  #store(at: Pa, value: bigint): void {
    this.#kernel.bus.store64(at, value);
  }

  #table(level: number): Pa {
    return this.#pa + BigInt(level) * PAGE;
  }

  #entry(level: number, page: number): Pa {
    const { shift } = levelGeometry('4k', level as Level);
    const index = (guestAddress(page) >> BigInt(shift)) % 2n ** BigInt(GEOMETRY['4k'].stride);
    return this.#table(level) + (index << BigInt(DESCRIPTOR_LOG2));
  }
}
