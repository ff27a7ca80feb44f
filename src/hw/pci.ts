/** PCI configuration space of the functions of a machine. */
import type { Words } from '../../spec/layout.ts';
import {
  PCI_ATS,
  PCI_CAP_CONTROL,
  PCI_EXT_CAP_HEADER,
  PCI_EXT_CAPS,
  PCI_PASID,
  PCI_PRI,
  PCI_PRI_ALLOCATION,
  PCI_PRI_CAPACITY,
} from '../../spec/pci-capabilities.ts';
import { PCI_CONFIG_BYTES, PCI_TYPE0 } from '../../spec/pci-header.ts';

/** The word of a one-word record. */
const onlyWord = (words: Words): number => words[0] ?? 0;

/** Word 1 of the header: COMMAND and status. */
const COMMAND_WORD = 1;

const ALL_ONES = 0xffffffff;

/** A function's configuration space: 32-bit words, each with the bits that software can write. */
export class PciFunction {
  readonly #words = new Uint32Array(PCI_CONFIG_BYTES / 4);
  readonly #writable = new Uint32Array(PCI_CONFIG_BYTES / 4);
  readonly #written = new Map<number, () => void>();

  constructor(VendorID: number, DeviceID: number) {
    this.define(0, onlyWord(PCI_TYPE0.encode({ VendorID, DeviceID })), 0);
    const command = PCI_TYPE0.mask(['MemorySpace', 'BusMaster'])[COMMAND_WORD] ?? 0;
    this.define(COMMAND_WORD * 4, 0, command);
  }

  /** Sets a word, which of its bits can be written, and what happens after a write. */
  define(offset: number, value: number, writable: number, written?: () => void): void {
    this.#words[offset >>> 2] = value;
    this.#writable[offset >>> 2] = writable;
    if (written !== undefined) this.#written.set(offset, written);
  }

  read32(offset: number): number {
    return this.#words[offset >>> 2] ?? ALL_ONES;
  }

  /** Hardware's own change of a word. */
  set(offset: number, value: number): void {
    this.#words[offset >>> 2] = value;
  }

  write32(offset: number, value: number): void {
    const at = offset >>> 2;
    const writable = this.#writable[at];
    if (writable === undefined) return;
    this.#words[at] = ((this.#words[at] ?? 0) & ~writable) | (value & writable);
    this.#written.get(offset & ~3)?.();
  }
}

/** What a function can do with ATS, PRI and PASIDs. */
export interface PciCapabilities {
  readonly ats: boolean;
  readonly pri: boolean;
  /** PASID bits; 0: no PASID capability. */
  readonly pasidBits: number;
}

/** Outstanding page requests that a function with PRI can have. */
export const PRI_CAPACITY = 32;

/** The extended capabilities of one function and what software set in them. */
export class PciIommuCapabilities {
  readonly #function: PciFunction;
  readonly #ats: number;
  readonly #pri: number;
  readonly #pasid: number;

  /** @param changed called after software wrote a control word */
  constructor(fn: PciFunction, { ats, pri, pasidBits }: PciCapabilities, changed: () => void) {
    this.#function = fn;
    const spacing = 0x20;
    const kinds = [...(ats ? ['ATS'] : []), ...(pri ? ['PRI'] : []), ...(pasidBits > 0 ? ['PASID'] : [])];
    const offsetOf = (kind: string): number => PCI_EXT_CAPS + spacing * kinds.indexOf(kind);
    for (const [i, ID] of kinds.entries()) {
      const Next = i + 1 < kinds.length ? PCI_EXT_CAPS + spacing * (i + 1) : 0;
      const header = PCI_EXT_CAP_HEADER.encode({ ID: ID as 'ATS' | 'PRI' | 'PASID', Version: 1, Next });
      fn.define(PCI_EXT_CAPS + spacing * i, onlyWord(header), 0);
    }
    this.#ats = ats ? offsetOf('ATS') + PCI_CAP_CONTROL : -1;
    this.#pri = pri ? offsetOf('PRI') + PCI_CAP_CONTROL : -1;
    this.#pasid = pasidBits > 0 ? offsetOf('PASID') + PCI_CAP_CONTROL : -1;
    if (ats) {
      const value = PCI_ATS.encode({ PageAlignedRequest: 1, GlobalInvalidate: 1 });
      fn.define(this.#ats, onlyWord(value), onlyWord(PCI_ATS.mask(['STU', 'Enable'])), changed);
    }
    if (pri) {
      const value = PCI_PRI.encode({ Stopped: 1, ResponsePasidRequired: 1 });
      fn.define(this.#pri, onlyWord(value), onlyWord(PCI_PRI.mask(['Enable', 'Reset'])), changed);
      fn.define(offsetOf('PRI') + PCI_PRI_CAPACITY, PRI_CAPACITY, 0);
      fn.define(offsetOf('PRI') + PCI_PRI_ALLOCATION, 0, ALL_ONES);
    }
    if (pasidBits > 0) {
      const value = PCI_PASID.encode({ Execute: 1, Privileged: 1, MaxWidth: pasidBits });
      const control = PCI_PASID.mask(['Enable', 'ExecuteEnable', 'PrivilegedEnable']);
      fn.define(this.#pasid, onlyWord(value), onlyWord(control), changed);
    }
  }

  #bit(offset: number, bits: number): boolean {
    return offset >= 0 && (this.#function.read32(offset) & bits) !== 0;
  }

  get atsEnabled(): boolean {
    return this.#bit(this.#ats, onlyWord(PCI_ATS.mask(['Enable'])));
  }

  get priEnabled(): boolean {
    return this.#bit(this.#pri, onlyWord(PCI_PRI.mask(['Enable'])));
  }

  get pasidEnabled(): boolean {
    return this.#bit(this.#pasid, onlyWord(PCI_PASID.mask(['Enable'])));
  }

  /** A PRG Response said failure: the function stops asking until it is enabled anew (10.4.2). */
  priFailed(): void {
    if (this.#pri < 0) return;
    const failed = onlyWord(PCI_PRI.mask(['ResponseFailure', 'Stopped']));
    const enable = onlyWord(PCI_PRI.mask(['Enable']));
    this.#function.set(this.#pri, (this.#function.read32(this.#pri) | failed) & ~enable);
  }
}

/** Functions by requester id (bus << 8 | device << 3 | function). */
export class PciBus {
  readonly #functions = new Map<number, PciFunction>();

  /** @throws RangeError if the id is taken */
  add(bdf: number, fn: PciFunction): void {
    if (this.#functions.has(bdf)) throw new RangeError(`two PCI functions have requester id 0x${bdf.toString(16)}`);
    this.#functions.set(bdf, fn);
  }

  /** A function, if there is one. */
  at(bdf: number): PciFunction | undefined {
    return this.#functions.get(bdf);
  }

  /** A configuration word; all ones where no function is. */
  read32(bdf: number, offset: number): number {
    return this.#functions.get(bdf)?.read32(offset) ?? ALL_ONES;
  }

  write32(bdf: number, offset: number, value: number): void {
    this.#functions.get(bdf)?.write32(offset, value >>> 0);
  }
}
