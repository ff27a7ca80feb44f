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
import type { PageRun, UserFile } from '../iommufd/index.ts';

/** Pages of a VM. */
export const GUEST_PAGES = 16;
/** The first page that holds data. */
export const FIRST_DATA_PAGE = 8;
/** Address of page 0: as an IPA, and as a virtual address in the guest's own tables. */
export const GUEST_BASE = 0x8000_0000n;
/** Address spaces of a guest: each has a CD and tables. */
export const GUEST_SPACES = 2;
/** CDs: one for each space, and two that are not valid. */
export const GUEST_CDS = 4;

const PAGE = 4096n;
const PAGE_BYTES = 4096;
/** Input address bits of a guest's stage 1. */
const INPUT_BITS = 39;
/** Where VMs lie in the process that runs them. */
const USER_BASE = 0x1_0000_0000n;
const USER_STRIDE = 0x1000_0000n;
/** Descriptors of their memory: above those that an iommufd gives out. */
const FIRST_MEMFD = 10_000;
/** Marks a data page. */
const MARK = 0x51a7n;

/** Address of a guest's page: IPA, and virtual address in its tables. */
export const guestAddress = (page: number): bigint => ipaOf(page);

/** The first 8 bytes of a data page. @param vm number of whose it is @param boot how many kernels ran before */
export const markOf = (vm: number, page: number, boot: number): bigint =>
  (MARK << 48n) | (BigInt(boot) << 32n) | (BigInt(vm) << 16n) | BigInt(page);

/** What a page of data says of itself: VM, page, and under which kernel it ran; undefined: it is no data page of any VM. */
export function readMark(
  bytes: Uint8Array,
): { readonly vm: number; readonly page: number; readonly boot: number } | undefined {
  const value = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (value >> 48n !== MARK) return undefined;
  const part = (shift: bigint): number => Number((value >> shift) & 0xffffn);
  return { vm: part(16n), page: part(0n), boot: part(32n) };
}

/** Bytes of a vSTE: the first two 64-bit words of an STE. */
const VSTE_BYTES = STE.bytes / 4;

/** What a vSTE asks for. */
export type VsteMode = 'abort' | 'bypass' | 'translate' | 'stage2';

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

/** What a guest makes of one of its CDs. */
export interface GuestCd {
  /** Address space whose tables it names; null: it is not valid. */
  readonly space: number | null;
  /** Default: the number of the space, and 1. */
  readonly asid?: number;
  /** Faults stall instead of aborting. Default false. */
  readonly stall?: boolean;
  /** Its tables lie where the VM has no memory. Default false. */
  readonly outside?: boolean;
}

/** An IPA at which no VM has memory. */
export const OUTSIDE_IPA = GUEST_BASE + 0x1000_0000n;
/** An address beyond the output size of every guest's CD (IPS). */
const BEYOND_IPS = 1n << 40n;
/** Where tables lead that lead to nothing. */
const NOWHERE = { outside: OUTSIDE_IPA, beyond: BEYOND_IPS } as const;

function cdOf({ space, asid, stall = false, outside = false }: GuestCd): Words {
  if (space === null) return CD.zero();
  return CD.encode({
    V: 1,
    AA64: 'AARCH64',
    A: 'ABORT',
    S: stall ? 1 : 0,
    R: 1,
    ASET: 'PRIVATE',
    T0SZ: 64 - INPUT_BITS,
    TG0: '4KB',
    EPD1: 1,
    IPS: 'BITS_40',
    ASID: asid ?? space + 1,
    TTB0: (outside ? OUTSIDE_IPA : ipaOf(tablePage(space, START))) >> 4n,
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
    image.set(new Uint8Array(cdOf({ space }).buffer), space * CD.bytes);
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
  /** Descriptor of its memory (memfd) in that process. */
  readonly fd: number;
  readonly #machine: Machine;

  /**
   * @param boot how many kernels ran on the machine before: VMs of each have memory of their own
   * @throws KernelError ENOMEM
   */
  constructor(name: string, index: number, kernel: LocalKernel, machine: Machine, boot = 0) {
    this.name = name;
    this.index = index;
    this.fd = FIRST_MEMFD + index;
    this.userVa = USER_BASE + BigInt(index) * USER_STRIDE;
    this.pa = kernel.allocPages(`memory of ${name}`, GUEST_PAGES * PAGE_BYTES);
    this.#machine = machine;
    machine.memory.writeBytes(this.pa, initialImage());
    for (let page = FIRST_DATA_PAGE; page < GUEST_PAGES; page++)
      machine.memory.write64(this.pageAt(page), markOf(index, page, boot));
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

  /** Writes one of its CDs, in one go: what hardware sees of it is the old or the new one. */
  writeCd(index: number, cd: GuestCd): void {
    const words = cdOf(cd);
    this.#machine.memory.writeBytes(this.pa + BigInt(index * CD.bytes), new Uint8Array(words.buffer));
  }

  /**
   * Points the descriptor of a space's table at a level (1 or 2) that leads to the data pages at the next table of
   * another space; null: at nothing; 'outside': at where the VM has no memory; 'beyond': at an
   * address that is too large for its CD.
   */
  pointTable(space: number, level: number, to: number | null | 'outside' | 'beyond'): void {
    const next = typeof to === 'number' ? ipaOf(tablePage(to, level + 1)) : to === null ? 0n : NOWHERE[to];
    const at = this.pa + BigInt(entryOffset(space, level, FIRST_DATA_PAGE));
    this.#machine.memory.write64(at, to === null ? 0n : TABLE_DESCRIPTOR | next);
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

  /** Arguments of IOMMU_IOAS_MAP_FILE for the same, of the VM's memory as a file. */
  fileMapping(ioas: number, page: number, from: number, pages: number, writable = true) {
    const { user_va: _, ...rest } = this.mapping(ioas, page, from, pages, writable);
    return { ...rest, fd: this.fd, start: BigInt(from) * PAGE };
  }

  /** Its memory as a file. */
  get file(): UserFile {
    const size = BigInt(GUEST_PAGES) * PAGE;
    return {
      size,
      lookup: (offset, maxPages) => (offset < size ? this.lookup(this.userVa + offset, maxPages) : undefined),
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

/** What a translating vSTE says besides. */
export interface VsteOptions {
  /** Which CD it points at. Default 0. */
  readonly cd?: number;
  /** EATS. Default false. */
  readonly ats?: boolean;
  /** S1CDMax: log2 of the CDs that SubstreamIDs choose from. Default 0: none. */
  readonly ssids?: number;
  /** S1DSS: what a transaction without SubstreamID does if there are some. Default 'TERMINATE'. */
  readonly dss?: 'TERMINATE' | 'BYPASS' | 'SSID0';
  /** S1STALLD: nothing stalls in stage 1. Default false. */
  readonly stalld?: boolean;
}

/** Config of a vSTE without stage 1. A VM has no stage 2 of its own: the kernel refuses the last. */
const OTHER_CONFIGS = { abort: 'ABORT', bypass: 'BYPASS', stage2: 'S2_TRANS' } as const;

/** The vSTE (two 64-bit words) for a mode. */
export function vste(mode: VsteMode, options: VsteOptions = {}): Uint8Array {
  const { cd = 0, ats = false, ssids = 0, dss = 'TERMINATE', stalld = false } = options;
  const words =
    mode === 'translate'
      ? STE.encode({
          V: 1,
          Config: 'S1_TRANS',
          S1ContextPtr: (GUEST_BASE + BigInt(cd * CD.bytes)) >> 6n,
          S1CDMax: ssids,
          S1DSS: dss,
          S1STALLD: stalld ? 1 : 0,
          S1CIR: 'WB_RA',
          S1COR: 'WB_RA',
          S1CSH: 'ISH',
          EATS: ats ? 'FULL' : 'OFF',
        })
      : STE.encode({ V: 1, Config: OTHER_CONFIGS[mode] });
  return new Uint8Array(words.buffer, 0, VSTE_BYTES).slice();
}
