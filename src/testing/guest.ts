/**
 * A virtual machine as far as the SMMU knows one: some pages of memory with a CD table and stage 1 tables in them, and
 * pages of data that say whose they are.
 *
 * Page 0 holds the CDs, pages 1 to 3 and 4 to 6 the tables of two address spaces, pages {@link FIRST_DATA_PAGE} and up
 * data. Space 0 maps each page at its own number; space 1 maps the data pages in reverse order.
 */
import { CD } from '../../spec/cd.ts';
import {
  DESCRIPTOR_LOG2,
  DESCRIPTOR_TYPE,
  GEOMETRY,
  type Level,
  levelGeometry,
  pte1,
  stage1StartLevel,
} from '../../spec/descriptors.ts';
import type { Layout, Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { IOAS_MAP_FLAGS } from '../../spec/uapi/constants.ts';
import type { LocalKernel } from '../driver/local-kernel.ts';
import type { Pa } from '../hw/bus.ts';
import type { Machine } from '../hw/machine.ts';
import type { PageRun } from '../iommufd/index.ts';

/** Pages of a VM. */
export const GUEST_PAGES = 16;
/** The first page that holds data. */
export const FIRST_DATA_PAGE = 8;
/** Address of page 0: as an IPA, and as a virtual address in the guest's own tables. */
export const GUEST_BASE = 0x8000_0000n;
/** Address spaces of a guest: each has a CD and tables. */
export const GUEST_SPACES = 2;
/** CDs: one for each space, and one that is not valid. */
export const GUEST_CDS = 3;

const PAGE = 4096n;
const PAGE_BYTES = 4096;
/** Input address bits of a guest's stage 1. */
const INPUT_BITS = 39;
/** Where VMs lie in the process that runs them. */
const USER_BASE = 0x1_0000_0000n;
const USER_STRIDE = 0x1000_0000n;
/** Marks a data page. */
const MARK = 0x51a7n;

/** Address of a guest's page: IPA, and virtual address in its tables. */
export const guestAddress = (page: number): bigint => ipaOf(page);

/** What a page of data says of itself: VM and page; undefined: it is no data page of any VM. */
export function readMark(bytes: Uint8Array): { readonly vm: number; readonly page: number } | undefined {
  const value = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (value >> 48n !== MARK) return undefined;
  return { vm: Number((value >> 16n) & 0xffffn), page: Number(value & 0xffffn) };
}

/** Bytes of a vSTE: the first two 64-bit words of an STE. */
const VSTE_BYTES = STE.bytes / 4;

/** What a vSTE asks for. */
export type VsteMode = 'abort' | 'bypass' | 'translate';

const ipaOf = (page: number): bigint => GUEST_BASE + BigInt(page) * PAGE;

/** First level of the guest's tables; levels up to 3 follow, a page each. */
const START = stage1StartLevel('4k', INPUT_BITS);

/** Page that holds the table of a level of a space. */
const tablePage = (space: number, level: number): number => 1 + space * (4 - START) + (level - START);

/** Byte offset in the guest of the descriptor that translates a page's address at a level. */
function entryOffset(space: number, level: number, page: number): number {
  const index =
    (ipaOf(page) >> BigInt(levelGeometry('4k', level as Level).shift)) % 2n ** BigInt(GEOMETRY['4k'].stride);
  return tablePage(space, level) * PAGE_BYTES + (Number(index) << DESCRIPTOR_LOG2);
}

const asBigint = (words: Words): bigint => (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0);

/** A descriptor without its address, whose bits lie where the address has them. */
const descriptor = (layout: Layout, fields: Readonly<Record<string, number>>): bigint =>
  asBigint(layout.encode({ Valid: 1, Type: DESCRIPTOR_TYPE.fields.Type.values.TABLE_PAGE, ...fields }));

/** Read and write by anybody, of one ASID, memory type of MAIR byte 0. */
const PAGE_DESCRIPTOR = descriptor(pte1('4k', 3, 'page'), { AF: 1, AP: 1, SH: 3, nG: 1 });
const TABLE_DESCRIPTOR = descriptor(pte1('4k', 2, 'table'), {});

/** What data page `page` is mapped to in a space at first. */
const initialTarget = (space: number, page: number): number =>
  space === 0 ? page : GUEST_PAGES - 1 + FIRST_DATA_PAGE - page;

function initialCd(space: number): Words {
  return CD.encode({
    V: 1,
    AA64: 'AARCH64',
    A: 'ABORT',
    R: 1,
    ASET: 'PRIVATE',
    T0SZ: 64 - INPUT_BITS,
    TG0: '4KB',
    EPD1: 1,
    IPS: 'BITS_40',
    ASID: space + 1,
    TTB0: ipaOf(tablePage(space, START)) >> 4n,
    MAIR0: 0xff,
  });
}

let image: Uint8Array | undefined;

/** CDs and tables as every guest begins with: all addresses in them are IPAs, so they are the same in each. */
function initialImage(): Uint8Array {
  if (image !== undefined) return image;
  image = new Uint8Array(FIRST_DATA_PAGE * PAGE_BYTES);
  const view = new DataView(image.buffer);
  for (let space = 0; space < GUEST_SPACES; space++) {
    image.set(new Uint8Array(initialCd(space).buffer), space * CD.bytes);
    for (let level = START; level < 3; level++)
      view.setBigUint64(entryOffset(space, level, 0), TABLE_DESCRIPTOR | ipaOf(tablePage(space, level + 1)), true);
    for (let page = FIRST_DATA_PAGE; page < GUEST_PAGES; page++)
      view.setBigUint64(entryOffset(space, 3, page), PAGE_DESCRIPTOR | ipaOf(initialTarget(space, page)), true);
  }
  return image;
}

/** See the module comment. */
export class Guest {
  readonly name: string;
  readonly index: number;
  readonly pages = GUEST_PAGES;
  /** Host physical address of page 0. */
  readonly pa: Pa;
  /** Address of page 0 in the process that runs the VM. */
  readonly userVa: bigint;
  readonly #machine: Machine;

  /** @throws KernelError ENOMEM */
  constructor(name: string, index: number, kernel: LocalKernel, machine: Machine) {
    this.name = name;
    this.index = index;
    this.userVa = USER_BASE + BigInt(index) * USER_STRIDE;
    this.pa = kernel.allocPages(`memory of ${name}`, GUEST_PAGES * PAGE_BYTES);
    this.#machine = machine;
    machine.memory.writeBytes(this.pa, initialImage());
    for (let page = FIRST_DATA_PAGE; page < GUEST_PAGES; page++)
      machine.memory.write64(this.pageAt(page), (MARK << 48n) | (BigInt(index) << 16n) | BigInt(page));
  }

  /** Host physical address of a page. */
  pageAt(page: number): Pa {
    return this.pa + BigInt(page) * PAGE;
  }

  /** Points a page of a space at another page of the guest; null: at nothing. The guest writes its own memory. */
  mapPage(space: number, page: number, to: number | null): void {
    const at = this.pa + BigInt(entryOffset(space, 3, page));
    this.#machine.memory.write64(at, to === null ? 0n : PAGE_DESCRIPTOR | ipaOf(to));
  }

  /** Arguments of IOMMU_IOAS_MAP for `pages` pages of the guest from `from` on, at IPA page `page`. */
  mapping(ioas: number, page: number, from: number, pages: number, writable = true) {
    const { FIXED_IOVA, READABLE, WRITEABLE } = IOAS_MAP_FLAGS;
    return {
      ioas_id: ioas,
      flags: FIXED_IOVA | READABLE | (writable ? WRITEABLE : 0),
      user_va: this.userVa + BigInt(from) * PAGE,
      length: BigInt(pages) * PAGE,
      iova: ipaOf(page),
    };
  }

  /** Whether a user address lies in this VM. */
  holds(va: bigint): boolean {
    return va >= this.userVa && va < this.userVa + BigInt(GUEST_PAGES) * PAGE;
  }

  /** Whether a host physical address lies in this VM. */
  holdsPa(pa: Pa): boolean {
    return pa >= this.pa && pa < this.pa + BigInt(GUEST_PAGES) * PAGE;
  }

  /** Bytes at a user address. */
  read(va: bigint, length: number): Uint8Array {
    return this.#machine.memory.readBytes(this.pa + (va - this.userVa), length);
  }

  /** Writes at a user address. */
  write(va: bigint, bytes: Uint8Array): void {
    this.#machine.memory.writeBytes(this.pa + (va - this.userVa), bytes);
  }

  /** The run of pages at a user address. */
  lookup(va: bigint, maxPages: number): PageRun {
    const offset = va - this.userVa;
    return { pa: this.pa + offset, pages: Math.min(maxPages, GUEST_PAGES - Number(offset / PAGE)) };
  }
}

/** The vSTE (two 64-bit words) for a mode; `cd` chooses the CD of a translating one. */
export function vste(mode: VsteMode, cd = 0, ats = false): Uint8Array {
  const words =
    mode === 'translate'
      ? STE.encode({
          V: 1,
          Config: 'S1_TRANS',
          S1ContextPtr: (GUEST_BASE + BigInt(cd * CD.bytes)) >> 6n,
          S1CIR: 'WB_RA',
          S1COR: 'WB_RA',
          S1CSH: 'ISH',
          EATS: ats ? 'FULL' : 'OFF',
        })
      : STE.encode({ V: 1, Config: mode === 'bypass' ? 'BYPASS' : 'ABORT' });
  return new Uint8Array(words.buffer, 0, VSTE_BYTES).slice();
}
