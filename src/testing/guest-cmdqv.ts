/**
 * A VM's kernel on a queue of its VINTF: all it has is page 0, which the VMM mapped from the vIOMMU's mmap offset, and
 * its own memory. BASE is not there: writing it traps, and the VMM answers with IOMMU_HW_QUEUE_ALLOC.
 */
import {
  ATC_INV_SIZE_ALL,
  CMD_ATC_INV,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND_BYTES,
  type Register,
  toQwords,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_ERR,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
  VCMDQ_STRIDE,
  type Words,
} from '../../spec/index.ts';
import type { Bus, Pa } from '../hw/bus.ts';

/** A guest's memory as the simulator finds it. */
export interface GuestRam {
  /** Host physical address of a guest physical one. */
  hostOf(gpa: bigint): Pa;
}

/** What a guest's queue is made of. */
export interface GuestQueueSetup {
  /** The guest's CPU. */
  readonly bus: Bus;
  readonly ram: GuestRam;
  /** Physical address of VINTF page 0: where the VMM's mmap leads. */
  readonly page0: Pa;
  readonly lvcmdq: number;
  /** Guest physical address of the ring, as given to IOMMU_HW_QUEUE_ALLOC. */
  readonly ring: bigint;
  /** log2 of the number of entries. */
  readonly log2size: number;
  /** The VMID that the guest believes it has; hardware puts the VINTF's in its place. Default 0. */
  readonly vmid?: number;
  /** Turns of a polling loop. Default 10,000. */
  readonly pollTurns?: number;
}

/** How a list of commands ended: consumed, stopped by an error, or neither in time. */
export type GuestResult =
  | { readonly status: 'done' }
  /** `code` is CONS.ERR (`VCMDQ_ERR`), `index` the entry's place in the ring. */
  | { readonly status: 'error'; readonly code: number; readonly index: number }
  | { readonly status: 'timeout' };

/** See the module comment. */
export class GuestCmdqv {
  readonly #setup: GuestQueueSetup;
  readonly #entries: number;
  #prod = 0;

  constructor(setup: GuestQueueSetup) {
    this.#setup = setup;
    this.#entries = 2 ** setup.log2size;
  }

  #at(register: Register): Pa {
    return this.#setup.page0 + BigInt(this.#setup.lvcmdq * VCMDQ_STRIDE + register.offset);
  }

  #read(register: Register): number {
    return this.#setup.bus.readl(this.#at(register));
  }

  #write(register: Register, value: number): void {
    this.#setup.bus.writel(this.#at(register), value >>> 0);
  }

  #poll(done: () => boolean): boolean {
    for (let turn = 0; turn < (this.#setup.pollTurns ?? 10_000); turn++) {
      if (done()) return true;
      this.#setup.bus.cpuRelax();
    }
    return done();
  }

  #configure(value: number): boolean {
    this.#write(VCMDQ_CONFIG, value);
    const wanted = value === 0 ? 0 : VCMDQ_STATUS.bit('ENABLED');
    return this.#poll(() => (this.#read(VCMDQ_STATUS) & VCMDQ_STATUS.bit('ENABLED')) === wanted);
  }

  /** Clears the indexes and enables the queue. False: STATUS does not follow (no memory behind it yet, for example). */
  start(): boolean {
    if (!this.stop()) return false;
    this.#write(VCMDQ_PROD, 0);
    this.#write(VCMDQ_CONS, 0);
    this.#prod = 0;
    return this.#configure(VCMDQ_CONFIG.bit('CMDQ_EN'));
  }

  /** Disables the queue; what it has not consumed stays undone. False: STATUS does not follow. */
  stop(): boolean {
    return this.#configure(0);
  }

  /** Whether STATUS says enabled. */
  get enabled(): boolean {
    return (this.#read(VCMDQ_STATUS) & VCMDQ_STATUS.bit('ENABLED')) !== 0;
  }

  /** Active errors: GERROR against GERRORN. */
  get errors(): number {
    return (this.#read(VCMDQ_GERROR) ^ this.#read(VCMDQ_GERRORN)) >>> 0;
  }

  #slot(index: number): Pa {
    const { ram, ring } = this.#setup;
    return ram.hostOf(ring + BigInt((index & (this.#entries - 1)) * COMMAND_BYTES));
  }

  #put(index: number, command: Words): void {
    for (const [i, qword] of toQwords(command).entries())
      this.#setup.bus.store64(this.#slot(index) + BigInt(8 * i), qword);
  }

  /** Queues commands and a CMD_SYNC, and waits for it. @throws RangeError for more than the ring holds */
  issue(...commands: readonly Words[]): GuestResult {
    this.post(...commands, CMD_SYNC.encode({}));
    return this.wait();
  }

  /** Queues commands and waits for nothing. @throws RangeError for more than the ring holds */
  post(...commands: readonly Words[]): void {
    if (commands.length > this.#entries) throw new RangeError(`${commands.length} commands, ${this.#entries} entries`);
    for (const command of commands) {
      this.#put(this.#prod, command);
      this.#prod = (this.#prod + 1) & (2 * this.#entries - 1);
    }
    // writel: the entries are visible before the index that makes hardware read them.
    this.#write(VCMDQ_PROD, VCMDQ_PROD.value({ WR: this.#prod }));
  }

  /** Polls CONS until everything queued is consumed. */
  wait(): GuestResult {
    let stopped: GuestResult | null = null;
    const done = this.#poll(() => {
      if (VCMDQ_CONS.of(this.#read(VCMDQ_CONS), 'RD') === this.#prod) return true;
      if ((this.errors & VCMDQ_GERROR.bit('CMDQ_ERR')) === 0) return false;
      // Read again: CONS from before the error tells neither its code nor its place.
      const cons = this.#read(VCMDQ_CONS);
      const index = VCMDQ_CONS.of(cons, 'RD') & (this.#entries - 1);
      stopped = { status: 'error', code: VCMDQ_CONS.of(cons, 'ERR'), index };
      return true;
    });
    return stopped ?? { status: done ? 'done' : 'timeout' };
  }

  /**
   * Goes on after an error, as a kernel does: a command that cannot be executed becomes a CMD_SYNC; then all errors are
   * acknowledged.
   */
  recover(): void {
    const cons = this.#read(VCMDQ_CONS);
    const code = VCMDQ_CONS.of(cons, 'ERR');
    if (code === VCMDQ_ERR.CERROR_ILL || code === VCMDQ_ERR.CERROR_ILL_ACCESS)
      this.#put(VCMDQ_CONS.of(cons, 'RD'), CMD_SYNC.encode({}));
    this.#write(VCMDQ_GERRORN, this.#read(VCMDQ_GERROR));
  }

  get #vmid(): number {
    return this.#setup.vmid ?? 0;
  }

  /** CMD_TLBI_NH_ASID: every translation of one of its address spaces. */
  nhAsid(ASID: number): Words {
    return CMD_TLBI_NH_ASID.encode({ ASID, VMID: this.#vmid });
  }

  /** CMD_TLBI_NH_VA: the translation of one page. `leaf` spares cached table descriptors. */
  nhVa(ASID: number, va: bigint, leaf = true): Words {
    const page = va >> BigInt(CMD_TLBI_NH_VA.field('Address').address ?? 0);
    return CMD_TLBI_NH_VA.encode({ ASID, VMID: this.#vmid, Leaf: leaf ? 1 : 0, Address: page });
  }

  /** CMD_ATC_INV: everything that a device caches, by its StreamID in the VM. */
  atcInvAll(vsid: number): Words {
    return CMD_ATC_INV.encode({ StreamID: vsid, Size: ATC_INV_SIZE_ALL });
  }
}
