/**
 * Ownership of a group's DMA, attach, replace and detach of RIDs and PASIDs, and the handles of attachments (the
 * exported functions of drivers/iommu/iommu.c that iommufd, VFIO and SVA call).
 */
import { KernelError } from '../kernel.ts';
import type { IommuGroup, PasidEntry } from './group.ts';
import {
  attachDeferred,
  domainCompatible,
  groupOf,
  groupRemovePasid,
  groupSetCoreDomain,
  groupSetDomain,
  groupSetDomainNofail,
  groupSetPasid,
  NO_PASID,
} from './group.ts';
import { passTo } from './notes.ts';
import type { AttachHandle, Device, DomainType, IommuDomain } from './ops.ts';

/** A handle for one attachment of `domain`. The core sets `live`; the caller keeps it until detach. */
export function newAttachHandle(domain: IommuDomain, owner: object | null): AttachHandle {
  return { domain, owner, live: false };
}

/**
 * Takes the DMA of a whole group that nobody uses; its devices are blocked. Kernel: iommu_group_claim_dma_owner().
 * @throws KernelError EPERM (claimed, or a kernel driver uses it), EBUSY (not on its default domain, or a PASID is
 * attached, or in reset), EINVAL (firmware demands 1:1 mappings), the driver's errors
 */
export function groupClaimDmaOwner(group: IommuGroup, owner: object): void {
  group.locked(() => {
    if (group.ownerCount > 0) throw new KernelError('EPERM', 'the group has an owner');
    takeDmaOwnership(group, owner);
  });
}

/** Gives a group back to its default domain. Kernel: iommu_group_release_dma_owner(). */
export function groupReleaseDmaOwner(group: IommuGroup): void {
  group.locked(() => releaseDmaOwnership(group));
}

/**
 * Takes the DMA of a device's group, or counts one more claim of the same owner.
 * Kernel: iommu_device_claim_dma_owner().
 * @throws KernelError ENODEV (no group), EPERM (another owner), and as {@link groupClaimDmaOwner}
 */
export function deviceClaimDmaOwner(dev: Device, owner: object): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.ownerCount === 0) return takeDmaOwnership(group, owner);
    if (group.owner !== owner) throw new KernelError('EPERM', 'the group has another owner');
    group.ownerCount++;
  });
}

/** Undoes one {@link deviceClaimDmaOwner}; the last returns the group to its default domain. @throws KernelError ENODEV */
export function deviceReleaseDmaOwner(dev: Device): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.ownerCount > 1) group.ownerCount--;
    else releaseDmaOwnership(group);
  });
}

/**
 * A kernel driver begins to use the device with the default domain. Kernel: iommu_device_use_default_domain().
 * @throws KernelError ENODEV; EBUSY if the group is owned, on another domain or has a PASID attached; the driver's
 */
export function deviceUseDefaultDomain(dev: Device): void {
  const group = groupOf(dev);
  group.locked(() => {
    const taken = group.domain !== group.defaultDomain || group.owner !== null || group.pasidArray.size > 0;
    if (group.ownerCount > 0 && taken) throw new KernelError('EBUSY', 'the group does not use its default domain');
    attachDeferred(group);
    group.ownerCount++;
  });
}

/** Undoes {@link deviceUseDefaultDomain}. Kernel: iommu_device_unuse_default_domain(). @throws KernelError ENODEV */
export function deviceUnuseDefaultDomain(dev: Device): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.ownerCount === 0 || group.pasidArray.size > 0) group.warn('unuse of a group that is not in default use');
    else group.ownerCount--;
  });
}

function takeDmaOwnership(group: IommuGroup, owner: object): void {
  const inUse = group.domain !== null && group.domain !== group.defaultDomain;
  if (inUse || group.pasidArray.size > 0) {
    throw new KernelError('EBUSY', 'the group is in use: not on its default domain, or a PASID is attached');
  }
  groupSetDomain(group, group.ops.blockedDomain);
  group.owner = owner;
  group.ownerCount = 1;
  for (const { dev } of group.devices) passTo(group.kernel, dev, owner);
}

function releaseDmaOwnership(group: IommuGroup): void {
  if (group.ownerCount === 0 || group.owner === null || group.pasidArray.size > 0) {
    group.warn('release of a group that is not owned, or still has an attachment');
    return;
  }
  group.ownerCount = 0;
  group.owner = null;
  for (const { dev } of group.devices) passTo(group.kernel, dev, null);
  if (group.defaultDomain !== null) groupSetDomainNofail(group, group.defaultDomain);
}

/**
 * Attaches the RIDs of a group, without a handle. Under the group's mutex. Kernel: __iommu_attach_group().
 * @throws KernelError EBUSY (neither default nor blocking domain now), EINVAL (another driver's domain), the driver's
 */
function attachGroupLocked(domain: IommuDomain, group: IommuGroup): void {
  const { ops } = group;
  if (group.domain !== null && group.domain !== group.defaultDomain && group.domain !== ops.blockedDomain) {
    throw new KernelError('EBUSY', 'the group has a domain that is neither its default nor the blocking one');
  }
  if (!domainCompatible(ops, domain)) throw new KernelError('EINVAL', "another driver's domain");
  groupSetDomain(group, domain);
}

/**
 * Attaches the RIDs of a group. `handle` lives from here to {@link detachGroupHandle} or a replace.
 * Kernel: iommu_attach_group_handle().
 * @throws KernelError EBUSY (slot taken; other domain; in reset), EINVAL (another driver's domain), the driver's errors
 */
export function attachGroupHandle(domain: IommuDomain, group: IommuGroup, handle: AttachHandle): void {
  checkHandle(domain, handle);
  group.locked(() => {
    if (group.pasidArray.has(NO_PASID)) throw new KernelError('EBUSY', 'the RID has an attachment');
    group.kernel.alloc('iommu:pasid-array');
    attachGroupLocked(domain, group);
    store(group, NO_PASID, { domain, handle });
  });
}

/**
 * Moves a group from what it has to `newDomain`, whole or not at all; the old handle ends.
 * Kernel: iommu_replace_group_handle(). @throws KernelError EBUSY (in reset), the driver's errors
 */
export function replaceGroupHandle(group: IommuGroup, newDomain: IommuDomain, handle: AttachHandle): void {
  checkHandle(newDomain, handle);
  group.locked(() => {
    if (!group.pasidArray.has(NO_PASID)) group.kernel.alloc('iommu:pasid-array');
    groupSetDomain(group, newDomain);
    store(group, NO_PASID, { domain: newDomain, handle });
  });
}

/**
 * Returns a group to the blocking domain (owned) or its default domain; its handle ends.
 * Kernel: iommu_detach_group_handle().
 */
export function detachGroupHandle(domain: IommuDomain, group: IommuGroup): void {
  group.locked(() => {
    if (group.pasidArray.get(NO_PASID)?.domain !== domain) group.warn('detach of a domain that is not attached');
    groupSetCoreDomain(group);
    erase(group, NO_PASID);
  });
}

/**
 * Attaches the only device of a group, without a handle. Kernel: iommu_attach_device().
 * @throws KernelError ENODEV, EINVAL (the group has several devices; another driver's domain), EBUSY, the driver's
 */
export function attachDevice(domain: IommuDomain, dev: Device): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.size !== 1) throw new KernelError('EINVAL', 'the group has several devices');
    attachGroupLocked(domain, group);
  });
}

/** Undoes {@link attachDevice}. Kernel: iommu_detach_device(). @throws KernelError ENODEV */
export function detachDevice(domain: IommuDomain, dev: Device): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.domain !== domain || group.size !== 1) group.warn('detach of a domain that is not attached');
    else groupSetCoreDomain(group);
  });
}

/**
 * Attaches one PASID of a device's group. Kernel: iommu_attach_device_pasid().
 * @throws KernelError ENODEV (no group), EOPNOTSUPP (no setDevPasid in the domain or the blocked domain), EINVAL
 * (another driver's domain, PASID 0, PASID beyond what a PASID-capable device of the group has), EBUSY (in reset, slot
 * taken), the driver's errors
 */
export function attachDevicePasid(
  domain: IommuDomain,
  dev: Device,
  pasid: number,
  handle: AttachHandle | null = null,
): void {
  const group = groupOf(dev);
  const { ops } = dev.iommu;
  if (!domain.ops.setDevPasid || !ops.blockedDomain.ops.setDevPasid) {
    throw new KernelError('EOPNOTSUPP', 'the domain, or the blocked domain, cannot be set on a PASID');
  }
  checkPasid(domain, dev, pasid);
  if (handle !== null) checkHandle(domain, handle);
  group.locked(() => {
    checkNoReset(group);
    for (const { dev: each } of group.devices) {
      if (each.maxPasids > 0 && pasid >= each.maxPasids) {
        throw new KernelError('EINVAL', `PASID ${pasid} is beyond the ${each.maxPasids} of ${each.name}`);
      }
    }
    if (group.pasidArray.has(pasid)) throw new KernelError('EBUSY', `PASID ${pasid} has an attachment`);
    group.kernel.alloc('iommu:pasid-array');
    groupSetPasid(group, domain, pasid, null);
    store(group, pasid, { domain, handle });
  });
}

/**
 * Moves one PASID to another domain, whole group or not at all; the old handle ends. With the domain that it has, only
 * the handle changes. Kernel: iommu_replace_device_pasid().
 * @throws KernelError ENODEV, EOPNOTSUPP, EINVAL (as attach; nothing attached; the handle in use), EBUSY (in reset)
 */
export function replaceDevicePasid(domain: IommuDomain, dev: Device, pasid: number, handle: AttachHandle): void {
  const group = groupOf(dev);
  if (!domain.ops.setDevPasid) throw new KernelError('EOPNOTSUPP', 'the domain cannot be set on a PASID');
  checkPasid(domain, dev, pasid);
  group.locked(() => {
    checkNoReset(group);
    const current = group.pasidArray.get(pasid);
    if (current === undefined) throw new KernelError('EINVAL', `PASID ${pasid} has no attachment to replace`);
    if (current.handle === handle) throw new KernelError('EINVAL', 'the handle is in use: readers hold no lock');
    checkHandle(domain, handle);
    if (current.domain !== domain) groupSetPasid(group, domain, pasid, current.domain);
    store(group, pasid, { domain, handle });
  });
}

/** Blocks one PASID; its handle ends. Kernel: iommu_detach_device_pasid(). @throws KernelError ENODEV */
export function detachDevicePasid(domain: IommuDomain, dev: Device, pasid: number): void {
  const group = groupOf(dev);
  group.locked(() => {
    if (group.pasidArray.get(pasid)?.domain !== domain) {
      // The kernel would block the PASID all the same and lose another domain's record.
      group.warn(`detach of a domain that is not attached to PASID ${pasid}`);
      return;
    }
    groupRemovePasid(group, pasid, domain);
    erase(group, pasid);
  });
}

/**
 * The handle of an attachment, for the fault path: no lock. Kernel: iommu_attach_handle_get().
 * @throws KernelError ENOENT (nothing attached, or without a handle), EBUSY (the domain is of another type)
 */
export function attachHandleGet(group: IommuGroup, pasid: number, type?: DomainType): AttachHandle {
  const handle = group.pasidArray.get(pasid)?.handle;
  if (!handle) throw new KernelError('ENOENT', `PASID ${pasid} has no attach handle`);
  if (type !== undefined && handle.domain.type !== type) {
    throw new KernelError('EBUSY', `PASID ${pasid} has a domain of type ${handle.domain.type}, not ${type}`);
  }
  return handle;
}

/** The domain of a device's RID. Kernel: iommu_get_domain_for_dev(). */
export function getDomainForDev(dev: Device): IommuDomain | null {
  return dev.group?.domain ?? null;
}

/** Every handle of a group that is attached, by ascending PASID. */
export function liveHandles(group: IommuGroup): AttachHandle[] {
  const handles: AttachHandle[] = [];
  for (const pasid of [NO_PASID, ...group.pasids]) {
    const handle = group.pasidArray.get(pasid)?.handle;
    if (handle) handles.push(handle);
  }
  return handles;
}

function checkPasid(domain: IommuDomain, dev: Device, pasid: number): void {
  if (!domainCompatible(dev.iommu.ops, domain)) throw new KernelError('EINVAL', "another driver's domain");
  if (pasid === NO_PASID) throw new KernelError('EINVAL', 'PASID 0 stands for the RID');
  if (!Number.isSafeInteger(pasid) || pasid < 0) throw new KernelError('EINVAL', `${pasid} is not a PASID`);
}

function checkNoReset(group: IommuGroup): void {
  if (group.recoveryCount > 0) throw new KernelError('EBUSY', 'a device of the group is in reset');
}

/** @throws Error on a handle of another domain or another attachment: a bug of the caller */
function checkHandle(domain: IommuDomain, handle: AttachHandle): void {
  if (handle.domain !== domain) throw new Error('the attach handle was made for another domain');
  if (handle.live) throw new Error('the attach handle belongs to another attachment');
}

function store(group: IommuGroup, pasid: number, entry: PasidEntry): void {
  const before = group.pasidArray.get(pasid)?.handle;
  group.pasidArray.set(pasid, entry);
  if (entry.handle) group.parts.beginHandle(entry.handle);
  if (before) endHandle(group, before);
}

function erase(group: IommuGroup, pasid: number): void {
  const handle = group.pasidArray.get(pasid)?.handle;
  group.pasidArray.delete(pasid);
  if (handle) endHandle(group, handle);
}

/** Hardware no longer uses the attachment: its faults are answered, then the handle is dead. */
function endHandle(group: IommuGroup, handle: AttachHandle): void {
  group.parts.flushHandle(group, handle);
  group.parts.endHandle(handle);
}
