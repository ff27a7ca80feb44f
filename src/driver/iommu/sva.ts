/**
 * Shared virtual addressing: bonds between devices and process address spaces. PASIDs are global; an address space keeps
 * one for its life (drivers/iommu/iommu-sva.c, iommu_alloc_global_pasid).
 */
import type { IdAllocator, Kernel, Lock } from '../kernel.ts';
import { KernelError } from '../kernel.ts';
import { attachDevicePasid, attachHandleGet, detachDevicePasid } from './attach.ts';
import { groupOf } from './group.ts';
import type { AttachHandle, Device, IommuDomain, MmStruct, PageFaultGroup } from './ops.ts';
import { type CoreParts, coreParts } from './parts.ts';

/** PASIDs have 20 bits on the bus; 0 stands for none (`IOMMU_FIRST_GLOBAL_PASID`). */
const FIRST_PASID = 1;
const LAST_PASID = 0xfffff;

/** A bond (`struct iommu_sva`): the attach handle of a PASID, held by `users` binds. */
export interface SvaHandle extends AttachHandle {
  readonly dev: Device;
  readonly mm: MmStruct;
  readonly pasid: number;
  users: number;
}

/** `struct iommu_mm_data`. */
interface MmData {
  readonly pasid: number;
  /** Domains of the address space with the number of bonds on each; the newest first, as they are tried. */
  readonly domains: { readonly domain: IommuDomain; users: number }[];
}

/** All bonds of one core; see the module comment. */
export class Sva {
  readonly #kernel: Kernel;
  readonly #parts: CoreParts;
  readonly #lock: Lock;
  readonly #pasids: IdAllocator;
  readonly #mms = new Map<MmStruct, MmData>();
  readonly #bonds = new Map<AttachHandle, SvaHandle>();
  readonly #released = new WeakSet<MmStruct>();

  constructor(kernel: Kernel, parts: CoreParts = coreParts()) {
    this.#kernel = kernel;
    this.#parts = parts;
    this.#lock = kernel.lock('iommu-sva');
    this.#pasids = kernel.ids('pasid', FIRST_PASID, LAST_PASID);
  }

  /** The bonds, oldest first. */
  get bonds(): SvaHandle[] {
    return [...this.#bonds.values()];
  }

  /** The PASID of an address space, if it has one yet. */
  pasidOf(mm: MmStruct): number | undefined {
    return this.#mms.get(mm)?.pasid;
  }

  /**
   * Lets a device use an address space. A second bind of the same device (or group) and address space returns the same
   * handle with one more user. Another device first tries the domains that the address space has, then takes a new one.
   * Kernel: iommu_sva_bind_device().
   * @throws KernelError ENODEV (no group), EINVAL (the address space is gone), ENOSPC (no PASID left that the device can
   * use, or it has none), EOVERFLOW (the address space's PASID is beyond the device's), EBUSY (another type or address
   * space at that PASID; in reset), EOPNOTSUPP (the driver has no SVA), ENOMEM, the driver's errors
   */
  bindDevice(dev: Device, mm: MmStruct): SvaHandle {
    const group = groupOf(dev);
    return this.#kernel.withLock(this.#lock, () => {
      if (this.#released.has(mm)) throw new KernelError('EINVAL', `the address space ${mm.name} is gone`);
      const data = this.#mmData(mm, dev);
      const present = group.pasidArray.get(data.pasid);
      if (present?.handle) {
        const bond = this.#bonds.get(attachHandleGet(group, data.pasid, 'sva'));
        if (bond?.mm !== mm) throw new KernelError('EBUSY', `PASID ${data.pasid} belongs to another address space`);
        const shared = this.#parts.shareBond(bond);
        this.#bonds.set(shared, shared);
        return shared;
      }
      return this.#newBond(dev, mm, data);
    });
  }

  /**
   * Ends one bind; the last of a handle detaches the PASID, the last bond of a domain frees it.
   * Kernel: iommu_sva_unbind_device(). @throws Error on a handle that has no bind left: a bug of the caller
   */
  unbindDevice(handle: SvaHandle): void {
    this.#kernel.withLock(this.#lock, () => {
      if (this.#bonds.get(handle) !== handle) throw new Error('unbind of a handle that is not bound');
      handle.users--;
      if (handle.users > 0) return;
      detachDevicePasid(handle.domain, handle.dev, handle.pasid);
      this.#bonds.delete(handle);
      this.#putDomain(handle.mm, handle.domain);
      this.#dropMm(handle.mm);
    });
  }

  /**
   * The address space ends (`exit_mmap`): every notifier is told and the devices lose their translations, while bonds
   * and handles stay until they are unbound. The PASID is free again after the last of them (`mm_pasid_drop`).
   */
  mmRelease(mm: MmStruct): void {
    if (this.#released.has(mm)) return;
    this.#released.add(mm);
    for (const notifier of [...mm.notifiers]) notifier.release();
    this.#kernel.withLock(this.#lock, () => this.#dropMm(mm));
  }

  /** A range of the address space changed (`mmu_notifier_arch_invalidate_secondary_tlbs`); `end` is not included. */
  mmInvalidate(mm: MmStruct, start: bigint, end: bigint): void {
    for (const notifier of [...mm.notifiers]) notifier.invalidateRange(start, end);
  }

  #mmData(mm: MmStruct, dev: Device): MmData {
    const present = this.#mms.get(mm);
    if (present !== undefined) {
      if (present.pasid < dev.maxPasids) return present;
      throw new KernelError('EOVERFLOW', `PASID ${present.pasid} of ${mm.name} is beyond those of ${dev.name}`);
    }
    this.#kernel.alloc('sva:mm-data');
    if (dev.maxPasids === 0) throw new KernelError('ENOSPC', `${dev.name} has no PASIDs`);
    const pasid = this.#pasids.alloc();
    if (pasid >= dev.maxPasids) {
      this.#pasids.free(pasid);
      throw new KernelError('ENOSPC', `no PASID below the ${dev.maxPasids} of ${dev.name} is left`);
    }
    const data: MmData = { pasid, domains: [] };
    this.#mms.set(mm, data);
    return data;
  }

  #newBond(dev: Device, mm: MmStruct, data: MmData): SvaHandle {
    this.#kernel.alloc('sva:handle');
    for (const shared of data.domains) {
      const handle = this.#tryShared(shared.domain, dev, mm, data.pasid);
      if (handle === undefined) continue;
      shared.users++;
      return handle;
    }
    const domain = this.#allocDomain(dev, mm);
    try {
      const handle = this.#attach(domain, dev, mm, data.pasid);
      data.domains.unshift({ domain, users: 1 });
      return handle;
    } catch (error) {
      domain.ops.free(domain);
      throw error;
    }
  }

  #tryShared(domain: IommuDomain, dev: Device, mm: MmStruct, pasid: number): SvaHandle | undefined {
    try {
      return this.#attach(domain, dev, mm, pasid);
    } catch (error) {
      if (error instanceof KernelError) return undefined;
      throw error;
    }
  }

  #attach(domain: IommuDomain, dev: Device, mm: MmStruct, pasid: number): SvaHandle {
    const handle: SvaHandle = { domain, owner: null, live: false, dev, mm, pasid, users: 1 };
    attachDevicePasid(domain, dev, pasid, handle);
    this.#bonds.set(handle, handle);
    return handle;
  }

  #allocDomain(dev: Device, mm: MmStruct): IommuDomain {
    const { ops } = dev.iommu;
    if (!ops.domainAllocSva) throw new KernelError('EOPNOTSUPP', `${ops.name} has no SVA`);
    const domain = ops.domainAllocSva(dev, mm);
    domain.owner = ops;
    domain.iopfHandler = (group) => this.#handleFaults(group, mm);
    return domain;
  }

  /** Every fault of the group in order, until one fails (`iommu_sva_handle_iopf`). */
  #handleFaults(group: PageFaultGroup, mm: MmStruct): void {
    const handled = group.faults.every(
      (fault) => fault.pasid !== undefined && !this.#released.has(mm) && mm.handleFault?.(fault) === true,
    );
    group.respond(handled ? 'success' : 'invalid');
  }

  #putDomain(mm: MmStruct, domain: IommuDomain): void {
    const domains = this.#mms.get(mm)?.domains ?? [];
    const at = domains.findIndex((each) => each.domain === domain);
    const entry = domains[at];
    if (entry === undefined) throw new Error('the bond has a domain that its address space does not know');
    entry.users--;
    if (entry.users > 0) return;
    domains.splice(at, 1);
    domain.ops.free(domain);
  }

  /** Frees the PASID of an address space that has ended and has no bond left. */
  #dropMm(mm: MmStruct): void {
    const data = this.#mms.get(mm);
    if (data === undefined || data.domains.length > 0 || !this.#released.has(mm)) return;
    this.#pasids.free(data.pasid);
    this.#mms.delete(mm);
  }
}
