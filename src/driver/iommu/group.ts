/**
 * Groups: devices that cannot be told apart, so that they share one domain for their RIDs and one for each PASID
 * (`struct iommu_group`, `__iommu_group_set_domain_internal`).
 */
import type { Kernel, Lock } from '../kernel.ts';
import { KernelError } from '../kernel.ts';
import { operation } from './notes.ts';
import type { AttachHandle, Device, IommuDomain, IommuOps } from './ops.ts';
import type { CoreParts } from './parts.ts';

/** The PASID number that stands for transactions without one (`IOMMU_NO_PASID`): slot 0 of `pasidArray`. */
export const NO_PASID = 0;

/** A device in its group (`struct group_device` and the core's part of `struct dev_iommu`). */
export interface GroupDevice {
  readonly dev: Device;
  /**
   * The device has the group's domain (or is blocked by a reset); false between its probe and its first attach, which a
   * driver may put off (`attach_deferred`).
   */
  attached: boolean;
  /** Firmware demands 1:1 mappings, so the device must never be blocked (`require_direct`). */
  requireDirect: boolean;
  /** PCI resets in progress, one inside the other: the device is blocked, whatever the group's domain. */
  resetDepth: number;
}

/** What a PASID (or slot 0, the RID) is attached to; without a handle if the caller gave none. */
export interface PasidEntry {
  readonly domain: IommuDomain;
  readonly handle: AttachHandle | null;
}

/** Kinds of default domain. */
export type DefaultDomainType = 'dma' | 'dma-fq' | 'identity';

/** `struct iommu_group`. Fields are read by anyone and written only by this directory, under `mutex`. */
export class IommuGroup {
  readonly id: number;
  readonly name: string;
  readonly kernel: Kernel;
  readonly parts: CoreParts;
  readonly mutex: Lock;
  defaultDomain: IommuDomain | null = null;
  defaultDomainType: DefaultDomainType | null = null;
  /** The domain of the RIDs now; null only before the first attach and after the last release. */
  domain: IommuDomain | null = null;
  /** Who owns the group's DMA; null with a count above 0: kernel drivers on the default domain. */
  owner: object | null = null;
  ownerCount = 0;
  /** Devices inside a PCI reset. */
  recoveryCount = 0;
  readonly pasidArray = new Map<number, PasidEntry>();
  readonly #members = new Map<Device, GroupDevice>();

  constructor(id: number, name: string, kernel: Kernel, parts: CoreParts) {
    this.id = id;
    this.name = name;
    this.kernel = kernel;
    this.parts = parts;
    this.mutex = kernel.lock(`iommu-group:${id}`);
  }

  /** In the order in which they joined: the order of every loop over the group. */
  get devices(): GroupDevice[] {
    return [...this.#members.values()];
  }

  /** How many devices there are. */
  get size(): number {
    return this.#members.size;
  }

  /** The first device that is left. @throws KernelError ENODEV for an empty group */
  get first(): Device {
    for (const dev of this.#members.keys()) return dev;
    throw new KernelError('ENODEV', `group ${this.id} has no device`);
  }

  /** The driver of the group's devices. @throws KernelError ENODEV for an empty group */
  get ops(): IommuOps {
    return this.first.iommu.ops;
  }

  /** Attached PASIDs in ascending order, without slot 0. */
  get pasids(): number[] {
    return [...this.pasidArray.keys()].filter((pasid) => pasid !== NO_PASID).sort((a, b) => a - b);
  }

  /** The record of a device of this group. @throws KernelError ENODEV */
  member(dev: Device): GroupDevice {
    const found = this.#members.get(dev);
    if (found === undefined) throw new KernelError('ENODEV', `${dev.name} is not in group ${this.id}`);
    return found;
  }

  /** A device joins; it has no domain yet. */
  add(dev: Device): void {
    this.#members.set(dev, { dev, attached: false, requireDirect: false, resetDepth: 0 });
  }

  /** A device leaves. */
  remove(dev: Device): void {
    this.#members.delete(dev);
  }

  /** Runs `body` with the group's mutex held. */
  locked<T>(body: () => T): T {
    return this.kernel.withLock(this.mutex, body);
  }

  /** A caller's mistake that the kernel survives: it is reported and the call does nothing (`WARN_ON`). */
  warn(text: string): void {
    this.kernel.log('err', `WARN: iommu group ${this.id}: ${text}`);
  }

  /** Runs what must not fail. True: it did not; an errno becomes a warning, anything else passes. */
  mustNotFail(what: string, body: () => void): boolean {
    try {
      body();
      return true;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.warn(`${what}: ${error.message}`);
      return false;
    }
  }
}

/** The group of a probed device. @throws KernelError ENODEV */
export function groupOf(dev: Device): IommuGroup {
  if (!dev.group) throw new KernelError('ENODEV', `${dev.name} has no iommu group`);
  return dev.group;
}

/** Whether `ops` may attach `domain`: its own, or one of its static domains (`domain_iommu_ops_compatible`). */
export function domainCompatible(ops: IommuOps, domain: IommuDomain): boolean {
  return domain.owner === ops || domain === ops.blockedDomain || domain === ops.identityDomain;
}

/**
 * Moves the RIDs of all devices to `next`, one device after the other. On an error the devices already moved return to
 * the old domain and the group keeps it. Does nothing if the group has that domain. Under the group's mutex.
 * Kernel: __iommu_group_set_domain().
 * @throws KernelError EBUSY during a PCI reset; EINVAL where firmware forbids blocking; the driver's errors
 */
export function groupSetDomain(group: IommuGroup, next: IommuDomain): void {
  if (group.domain === next) return;
  if (group.recoveryCount > 0) throw new KernelError('EBUSY', 'a device of the group is in reset');
  const moved: GroupDevice[] = [];
  for (const gdev of group.devices) {
    try {
      deviceSetDomain(group, gdev, next, group.domain, false);
    } catch (error) {
      // The device that failed still has the old domain; a driver must accept a domain that it had before.
      if (group.domain !== null) for (const back of moved) restoreDomain(group, back, group.domain, next);
      throw error;
    }
    moved.push(gdev);
  }
  group.domain = next;
}

/**
 * The same for teardown: it must succeed. Devices in reset stay blocked and follow when the reset ends; a device that
 * fails is put into the blocking domain. Returns false (and warns) if a device failed. Under the group's mutex.
 * Kernel: __iommu_group_set_domain_nofail().
 */
export function groupSetDomainNofail(group: IommuGroup, next: IommuDomain): boolean {
  if (group.domain === next) return true;
  let done = true;
  for (const gdev of group.devices) {
    if (gdev.resetDepth > 0) continue;
    const left = group.mustNotFail(`${gdev.dev.name} failed to leave its domain`, () =>
      deviceSetDomain(group, gdev, next, group.domain, true),
    );
    done &&= left;
  }
  group.domain = next;
  return done;
}

/** To the blocking domain of an owned group, else to the default domain (`__iommu_group_set_core_domain`). */
export function groupSetCoreDomain(group: IommuGroup): void {
  const core = group.owner !== null ? group.ops.blockedDomain : group.defaultDomain;
  if (core !== null) groupSetDomainNofail(group, core);
}

/**
 * Moves one device's RID. `old` null: its first domain. Under the group's mutex. Kernel: __iommu_device_set_domain().
 * @throws KernelError EINVAL if the device needs 1:1 mappings and would be blocked; the driver's errors
 */
export function deviceSetDomain(
  group: IommuGroup,
  gdev: GroupDevice,
  next: IommuDomain,
  old: IommuDomain | null,
  mustSucceed: boolean,
): void {
  const blocked = gdev.dev.iommu.ops.blockedDomain;
  if (gdev.requireDirect && (next.type === 'blocked' || next === blocked)) {
    throw new KernelError('EINVAL', `firmware demands a 1:1 mapping for ${gdev.dev.name}, so it cannot be blocked`);
  }
  // What the driver before gave the device goes on until somebody claims it.
  if (!gdev.attached && next === group.defaultDomain && gdev.dev.iommu.ops.isAttachDeferred?.(gdev.dev) === true)
    return;
  operation(group.kernel, gdev.dev, attachName(gdev.dev, next), () => {
    try {
      group.parts.attachDevice(next, gdev.dev, old ?? blocked);
    } catch (error) {
      // The old domain is about to be freed: blocked is the one place that is left.
      if (mustSucceed && next !== blocked) tryBlock(group, gdev, old ?? blocked);
      throw error;
    }
  });
  gdev.attached = true;
}

/** What an attachment to a domain is called in notes. */
export const attachName = (dev: Device, domain: IommuDomain): string =>
  domain === dev.iommu.ops.blockedDomain ? 'detach' : `attach to ${domain.type}`;

/** What is done to a PASID is called so in notes: the RID stays what it is. */
export const PASID_OPERATION = 'PASID set';

/**
 * A kernel driver begins to use devices whose attach was put off: now they get the group's domain. Under the group's
 * mutex. Kernel: iommu_deferred_attach(). @throws KernelError of the driver
 */
export function attachDeferred(group: IommuGroup): void {
  const { domain } = group;
  for (const gdev of group.devices) {
    if (gdev.attached || domain === null) continue;
    const { dev } = gdev;
    operation(group.kernel, dev, attachName(dev, domain), () =>
      group.parts.attachDevice(domain, dev, dev.iommu.ops.blockedDomain),
    );
    gdev.attached = true;
  }
}

function tryBlock(group: IommuGroup, gdev: GroupDevice, old: IommuDomain): void {
  group.mustNotFail(`${gdev.dev.name} cannot even be blocked`, () =>
    group.parts.attachDevice(gdev.dev.iommu.ops.blockedDomain, gdev.dev, old),
  );
}

function restoreDomain(group: IommuGroup, gdev: GroupDevice, domain: IommuDomain, failed: IommuDomain): void {
  group.mustNotFail(`${gdev.dev.name} cannot return to the domain it had`, () =>
    deviceSetDomain(group, gdev, domain, failed, true),
  );
}

/**
 * Moves one PASID of every device that has PASIDs to `domain`; `old` null: the PASID had none. On an error the devices
 * already moved return. Under the group's mutex. Kernel: __iommu_set_group_pasid(). @throws KernelError of the driver
 */
export function groupSetPasid(group: IommuGroup, domain: IommuDomain, pasid: number, old: IommuDomain | null): void {
  const moved: Device[] = [];
  for (const { dev } of group.devices) {
    if (dev.maxPasids === 0) continue;
    try {
      operation(group.kernel, dev, PASID_OPERATION, () => group.parts.setDevPasid(domain, dev, pasid, old));
    } catch (error) {
      for (const back of moved) restorePasid(group, back, pasid, domain, old);
      throw error;
    }
    moved.push(dev);
  }
}

function restorePasid(
  group: IommuGroup,
  dev: Device,
  pasid: number,
  failed: IommuDomain,
  old: IommuDomain | null,
): void {
  const back =
    old !== null &&
    group.mustNotFail(`${dev.name} PASID ${pasid} cannot return to the domain it had`, () =>
      operation(group.kernel, dev, PASID_OPERATION, () => group.parts.setDevPasid(old, dev, pasid, failed)),
    );
  if (!back) removePasid(group, dev, pasid, failed);
}

/** Blocks one PASID of one device. */
export function removePasid(group: IommuGroup, dev: Device, pasid: number, domain: IommuDomain): void {
  operation(group.kernel, dev, PASID_OPERATION, () => group.parts.removeDevPasid(domain, dev, pasid));
}

/** Blocks one PASID of every device that has PASIDs and is not in reset (`__iommu_remove_group_pasid`). */
export function groupRemovePasid(group: IommuGroup, pasid: number, domain: IommuDomain): void {
  for (const gdev of group.devices) {
    if (gdev.dev.maxPasids > 0 && gdev.resetDepth === 0) removePasid(group, gdev.dev, pasid, domain);
  }
}

/**
 * Takes a device off every domain before its driver forgets it: blocked, or identity where firmware demands 1:1
 * mappings. Under the group's mutex. Kernel: `release_domain` in iommu_deinit_device().
 */
export function parkDevice(group: IommuGroup, gdev: GroupDevice): void {
  const { dev } = gdev;
  if (!gdev.attached || group.domain === null) return;
  if (dev.maxPasids > 0) {
    for (const pasid of group.pasids) {
      const entry = group.pasidArray.get(pasid);
      if (entry) removePasid(group, dev, pasid, entry.domain);
    }
  }
  const { identityDomain, blockedDomain } = dev.iommu.ops;
  const target = gdev.requireDirect ? identityDomain : blockedDomain;
  const old = group.domain;
  if (old !== target)
    operation(group.kernel, dev, attachName(dev, target), () => group.parts.attachDevice(target, dev, old));
  gdev.attached = false;
}
