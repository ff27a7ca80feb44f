/**
 * VINTF page 0 in the hands of virtual machines: what a VMM has mapped into which of them, and each guest's own driver of
 * the queues behind it.
 */
import { COMMAND_BYTES } from '../../spec/index.ts';
import type { Bus } from '../hw/bus.ts';
import type { Machine } from '../hw/machine.ts';
import type { IommufdContext, Vma } from '../iommufd/index.ts';
import { GUEST_BASE, type Guest } from './guest.ts';
import { GuestCmdqv } from './guest-cmdqv.ts';

/** What VIOMMU_ALLOC offered for mmap. */
export interface Offer {
  readonly ctx: IommufdContext;
  readonly offset: bigint;
  readonly length: bigint;
}

/** Where a VMM has put a queue: an IPA, and bytes. */
export interface RingPlace {
  readonly ipa: bigint;
  readonly bytes: number;
}

/** Page 0 of a VINTF, mapped into a VM. */
export interface Window {
  /** The vIOMMU whose page 0 it is, whatever name the offset was kept under. */
  readonly viommu: string;
  readonly guest: Guest;
  readonly vma: Vma;
  /** The guest's driver of each queue that it has touched, by LVCMDQ. */
  readonly queues: Map<number, GuestCmdqv>;
}

/** What a guest takes for its ring where no queue was ever allocated. */
const NO_RING: RingPlace = { ipa: GUEST_BASE + 7n * 4096n, bytes: 2048 };

/** Turns of a guest's polling loop; what hardware has then not done, it is given time for. */
const POLL_TURNS = 32;

/** See the module comment. */
export class Windows {
  readonly #machine: Machine;
  readonly #offers = new Map<string, Offer>();
  readonly #rings = new Map<string, RingPlace>();
  readonly #open = new Map<string, Window>();
  readonly #cpus = new Map<string, Bus>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** VIOMMU_ALLOC offers page 0 of a VINTF. */
  offer(viommu: string, offer: Offer): void {
    this.#offers.set(viommu, offer);
  }

  /** What was offered with the last vIOMMU of a name, which may be gone; undefined: nothing ever. */
  offerOf(viommu: string): Offer | undefined {
    return this.#offers.get(viommu);
  }

  /** HW_QUEUE_ALLOC has put LVCMDQ `index` of a vIOMMU there. */
  place(viommu: string, index: number, ring: RingPlace): void {
    this.#rings.set(`${viommu} ${index}`, ring);
  }

  /** A window by name; undefined: nothing is mapped. */
  get(name: string): Window | undefined {
    return this.#open.get(name);
  }

  /** Windows that are mapped, by name. */
  get all(): ReadonlyMap<string, Window> {
    return this.#open;
  }

  /** mmap() has shown page 0 of a vIOMMU. */
  open(name: string, viommu: string, guest: Guest, vma: Vma): void {
    this.#open.set(name, { viommu, guest, vma, queues: new Map() });
  }

  /** munmap(). False: there is no such window. */
  close(name: string): boolean {
    const window = this.#open.get(name);
    if (window === undefined) return false;
    this.#open.delete(name);
    window.vma.close();
    return true;
  }

  /** munmap() of everything: a VMM's exit. */
  closeAll(): void {
    for (const name of [...this.#open.keys()]) this.close(name);
  }

  /** The VMs are gone with their kernel, and nobody has closed anything. */
  forget(): void {
    for (const known of [this.#open, this.#offers, this.#rings, this.#cpus]) known.clear();
  }

  /** The CPU of a guest. */
  cpu(guest: Guest): Bus {
    let bus = this.#cpus.get(guest.name);
    if (bus === undefined) {
      bus = this.#machine.addCpu(guest.name);
      this.#cpus.set(guest.name, bus);
    }
    return bus;
  }

  /** The guest's driver of a queue. @param anew it begins with a fresh one */
  queue(window: Window, lvcmdq: number, anew = false): GuestCmdqv {
    const known = window.queues.get(lvcmdq);
    if (known !== undefined && !anew) return known;
    const { guest, viommu, vma } = window;
    const ring = this.#rings.get(`${viommu} ${lvcmdq}`) ?? NO_RING;
    const queue = new GuestCmdqv({
      bus: this.cpu(guest),
      ram: { hostOf: (gpa) => guest.pa + (gpa - GUEST_BASE) },
      page0: vma.pa,
      lvcmdq,
      ring: ring.ipa,
      log2size: Math.max(1, Math.floor(Math.log2(ring.bytes / COMMAND_BYTES))),
      pollTurns: POLL_TURNS,
    });
    window.queues.set(lvcmdq, queue);
    return queue;
  }
}
