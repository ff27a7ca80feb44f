/** A small virtual machine: its memory, as the VMM maps it and as the guest sees it, and stage 1 tables in it. */
import { CD, encodeCommand, fromQwords, pte1, STE, toQwords, type Words } from '../../../spec/index.ts';
import type { Kernel } from '../../driver/kernel.ts';
import type { Pa } from '../../hw/bus.ts';
import type { UserMemory } from '../../iommufd/index.ts';

const PAGE = 4096n;
/** Where the VMM's process has the VM's memory. */
const USER_VA = 0x7f00_0000_0000n;
const TABLE = pte1('4k', 0, 'table');
const LEAF = pte1('4k', 3, 'page');
const LEVELS = 4;
const INDEX_BITS = 9n;

/** See the module comment. Guest physical addresses are "GPA"s; one run of host memory stands behind them. */
export class DemoVm {
  readonly gpa: bigint;
  readonly bytes: bigint;
  readonly userVa = USER_VA;
  readonly #kernel: Kernel;
  readonly #pa: Pa;
  #next: bigint;

  /** @param gpa where the guest has its memory; @param bytes how much of it, a power of two */
  constructor(kernel: Kernel, gpa: bigint, bytes: number) {
    this.#kernel = kernel;
    this.gpa = gpa;
    this.bytes = BigInt(bytes);
    this.#pa = kernel.allocPages('vm-memory', bytes);
    this.#next = gpa;
  }

  /** The VMM's process: what iommufd pins. */
  get memory(): UserMemory {
    const inside = (va: bigint): bigint => this.hostOf(this.gpa + (va - USER_VA));
    return {
      read: (va, length) => this.#kernel.bus.loadBytes(inside(va), length),
      write: (va, bytes) => this.#kernel.bus.storeBytes(inside(va), bytes),
      lookup: (va, maxPages) => {
        const left = (USER_VA + this.bytes - va) / PAGE;
        if (va < USER_VA || left <= 0n) return undefined;
        return { pa: inside(va), pages: Math.min(maxPages, Number(left)) };
      },
    };
  }

  /** Host physical address of a GPA. */
  hostOf(gpa: bigint): Pa {
    return this.#pa + (gpa - this.gpa);
  }

  /** A fresh page of the guest. */
  page(): bigint {
    const page = this.#next;
    this.#next += PAGE;
    return page;
  }

  /** Stores a record in guest memory. */
  store(gpa: bigint, words: Words): void {
    for (const [i, word] of toQwords(words).entries()) this.#kernel.bus.store64(this.hostOf(gpa) + BigInt(8 * i), word);
    this.#kernel.dmaWmb('guest:store');
  }

  /** The bytes that a device left at a GPA. */
  load(gpa: bigint, length: number): Uint8Array {
    return this.#kernel.bus.loadBytes(this.hostOf(gpa), length);
  }

  /** Maps one page in a guest stage 1 table: 4 KiB granule, 4 levels. @returns where its descriptor stands */
  map(root: bigint, iova: bigint, gpa: bigint): bigint {
    let table = root;
    for (let level = 0; level < LEVELS - 1; level++) {
      const at = slot(table, iova, level);
      const found = fromQwords([this.#kernel.bus.load64(this.hostOf(at))]);
      if (TABLE.num(found, 'Valid') === 0) {
        table = this.page();
        this.store(at, TABLE.encode({ Valid: 1, Type: 1, NextLevelTableAddress: table / PAGE }));
      } else table = TABLE.address(found, 'NextLevelTableAddress');
    }
    const leaf = slot(table, iova, LEVELS - 1);
    this.store(leaf, this.leaf(gpa));
    return leaf;
  }

  /** A leaf descriptor: read and write for all, cached, tagged with the ASID. */
  leaf(gpa: bigint): Words {
    const access = { AP: 1, SH: 3, AF: 1, nG: 1, AttrIndx: 1 } as const;
    return LEAF.encode({ Valid: 1, Type: 1, ...access, OutputAddress: gpa / PAGE });
  }

  /** A CD for a table root, as a guest kernel writes it. @returns its GPA */
  contextDescriptor(root: bigint, ASID: number): bigint {
    const at = this.page();
    const walk = { T0SZ: 16, IR0: 1, OR0: 1, SH0: 3, EPD1: 1, IPS: 5 } as const;
    const cd = { V: 1, AA64: 1, A: 1, R: 1, ASET: 1, ASID, ...walk, MAIR0: 0x04ff44, TTB0: root >> 4n } as const;
    this.store(at, CD.encode(cd));
    return at;
  }

  /** The two words of a vSTE that names a CD (`struct iommu_hwpt_arm_smmuv3`). */
  vste(cd: bigint): Uint8Array {
    const ste = STE.encode({ V: 1, Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, S1CIR: 1, S1COR: 1, S1CSH: 3 });
    return new Uint8Array(ste.slice(0, 4).buffer);
  }

  /** A guest's CMD_TLBI_NH_VA for one page; its VMID is the guest's own idea and does not count. */
  tlbiVa(ASID: number, iova: bigint): Uint8Array {
    const words = encodeCommand('CMD_TLBI_NH_VA', { ASID, VMID: 0, Leaf: 1, Address: iova >> 12n });
    return new Uint8Array(words.buffer);
  }
}

const slot = (table: bigint, iova: bigint, level: number): bigint => {
  const shift = 12n + INDEX_BITS * BigInt(LEVELS - 1 - level);
  return table + ((iova >> shift) & ((1n << INDEX_BITS) - 1n)) * 8n;
};
