/** Attach, replace and detach of devices and their PASIDs (iommufd's device.c). */
import {
  attachDevicePasid,
  attachGroupHandle,
  detachDevicePasid,
  detachGroupHandle,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../driver/iommu/attach.ts';
import { doneTo } from '../driver/iommu/notes.ts';
import type { AttachHandle, Device } from '../driver/iommu/ops.ts';
import type { IommufdCtx } from './ctx.ts';
import type { DeviceObject } from './device.ts';
import { errnoOf, fail } from './errors.ts';
import { checkIommu } from './hold.ts';
import { HwptNested, type HwptObject, HwptPaging, hwptPagingAlloc, hwptPut } from './hwpt.ts';
import type { Attachment } from './igroup.ts';
import { IoasObject } from './ioas.ts';

/** The PASID number that stands for the RID. */
export const NO_PASID = 0;

/** How a device gets a HWPT: attach, or replace of the one it has. Returns the HWPT to be put, if any. */
type DoAttach = (idev: DeviceObject, pasid: number, hwpt: HwptObject) => HwptObject | null;

/**
 * Attaches a device, or one of its PASIDs, to a HWPT, or to an IOAS through an automatic one.
 * Kernel: iommufd_device_attach().
 * @returns the id of the HWPT
 * @throws KernelError ENOENT, EINVAL, EBUSY, EADDRINUSE, EFAULT, EOPNOTSUPP, ENOMEM, the driver's errors
 */
export function deviceAttach(idev: DeviceObject, ptId: number, pasid = NO_PASID): number {
  idev.use('attach');
  const id = changePt(idev, ptId, pasid, doAttach, true);
  // Pairs with detach.
  idev.users++;
  return id;
}

/**
 * Moves an attached device (and its whole group) to another HWPT; on an error it stays where it is.
 * Kernel: iommufd_device_replace(). @returns and @throws as {@link deviceAttach}; EINVAL if nothing is attached
 */
export function deviceReplace(idev: DeviceObject, ptId: number, pasid = NO_PASID): number {
  idev.use('replace');
  return changePt(idev, ptId, pasid, doReplace, false);
}

function changePt(idev: DeviceObject, ptId: number, pasid: number, act: DoAttach, immediate: boolean): number {
  const { ctx } = idev;
  const object = ctx.objects.get(ptId);
  let id = ptId;
  let old: HwptObject | null = null;
  try {
    if (object instanceof HwptPaging || object instanceof HwptNested) old = act(idev, pasid, object);
    else if (object instanceof IoasObject) [id, old] = autoDomain(idev, pasid, object, act, immediate);
    else fail('EINVAL', `pt_id names a ${object.kind}`);
  } finally {
    ctx.objects.put(object);
  }
  // Only now: its destruction takes the IOAS's mutex.
  if (old !== null) hwptPut(ctx, old);
  return id;
}

/** A paging HWPT that the IOAS made for itself and that fits, else a new one. Kernel: iommufd_device_auto_get_domain(). */
function autoDomain(
  idev: DeviceObject,
  pasid: number,
  ioas: IoasObject,
  act: DoAttach,
  immediate: boolean,
): [number, HwptObject | null] {
  const { ctx } = idev;
  return ctx.kernel.withLock(ioas.mutex, () => {
    for (const hwpt of ioas.hwpts) {
      if (!hwpt.autoDomain || !ctx.objects.lockObj(hwpt)) continue;
      try {
        return [hwpt.id, act(idev, pasid, hwpt)];
      } catch (error) {
        // Incompatible with the device: the next one may not be.
        if (errnoOf(error) !== 'EINVAL') throw error;
      } finally {
        ctx.objects.put(hwpt);
      }
    }
    return newAutoDomain(ctx, idev, pasid, ioas, act, immediate);
  });
}

function newAutoDomain(
  ctx: IommufdCtx,
  idev: DeviceObject,
  pasid: number,
  ioas: IoasObject,
  act: DoAttach,
  immediate: boolean,
): [number, HwptObject | null] {
  let old: HwptObject | null = null;
  // A first attach comes before the mappings are filled in: some drivers finish a domain only then.
  const attachNow = {
    attach: (hwpt: HwptPaging) => void act(idev, pasid, hwpt),
    detach: () => {
      const gone = detachLocked(idev, pasid);
      if (gone !== null) gone.users--;
    },
  };
  const hwpt = hwptPagingAlloc(ctx, ioas, idev, 0, null, immediate ? attachNow : undefined);
  if (!immediate) {
    try {
      old = act(idev, pasid, hwpt);
    } catch (error) {
      ctx.objects.abortAndDestroy(hwpt);
      throw error;
    }
  }
  hwpt.autoDomain = true;
  ctx.objects.finalize(hwpt);
  return [hwpt.id, old];
}

/** Kernel: iommufd_hw_pagetable_attach(). */
function doAttach(idev: DeviceObject, pasid: number, hwpt: HwptObject): null {
  const { igroup, ctx } = idev;
  igroup.locked(() => {
    const current = igroup.attachments.get(pasid);
    if (current === undefined) ctx.kernel.alloc('iommufd:attach');
    if (current?.devices.has(idev.id)) fail('EBUSY', `${idev.dev.name} is attached already`);
    if (current !== undefined && current.hwpt !== hwpt)
      fail('EINVAL', `the group is attached to ${current.hwpt.label} already`);
    const { table } = hwpt.paging.ioas;
    if (pasid === NO_PASID) table.enforceDevResvRegions(idev.dev);
    try {
      if (current === undefined) firstAttach(idev, pasid, hwpt);
      else current.devices.set(idev.id, idev);
    } catch (error) {
      if (pasid === NO_PASID) table.removeReserved(idev.dev);
      throw error;
    }
    hwpt.users++;
  });
  return null;
}

/** The first device of the group programs the hardware for all of them. Kernel: iommufd_hwpt_attach_device(). */
function firstAttach(idev: DeviceObject, pasid: number, hwpt: HwptObject): void {
  const { igroup } = idev;
  checkPasidCompat(idev, pasid, hwpt);
  const handle = makeHandle(idev, hwpt);
  orFree(idev, handle, () => {
    if (pasid === NO_PASID) attachGroupHandle(hwpt.liveDomain, igroup.group, handle);
    else attachDevicePasid(hwpt.liveDomain, idev.dev, pasid, handle);
  });
  igroup.attachments.set(pasid, { hwpt, handle, devices: new Map([[idev.id, idev]]) });
  sayHow(idev, hwpt);
}

/** Whose commands are about the device from now on: a nested HWPT may have been made without a vIOMMU. */
function sayHow(idev: DeviceObject, hwpt: HwptObject): void {
  if (hwpt instanceof HwptNested && hwpt.viommu !== null) doneTo(idev.ctx.kernel, idev.dev, 'vIOMMU attached');
}

function makeHandle(idev: DeviceObject, hwpt: HwptObject): AttachHandle {
  if (hwpt instanceof HwptNested && hwpt.viommu !== null) checkIommu(hwpt.viommu, 'attach');
  return idev.ctx.parts.handles.alloc(idev, hwpt.liveDomain);
}

/** An attach that fails never had a handle. */
function orFree(idev: DeviceObject, handle: AttachHandle, attach: () => void): void {
  try {
    attach();
  } catch (error) {
    idev.ctx.parts.handles.free(idev, handle);
    throw error;
  }
}

/**
 * RID and PASIDs of a device share one PASID table, so either all of their HWPTs can live in one or none.
 * Kernel: iommufd_hwpt_pasid_compat(). @throws KernelError EINVAL
 */
function checkPasidCompat(idev: DeviceObject, pasid: number, hwpt: HwptObject): void {
  const { igroup } = idev;
  if (pasid === NO_PASID) {
    if (!hwpt.pasidCompat && igroup.hasPasids) fail('EINVAL', 'a PASID is attached; the HWPT lacks ALLOC_PASID');
    return;
  }
  if (!hwpt.pasidCompat) fail('EINVAL', 'the HWPT lacks ALLOC_PASID');
  const rid = igroup.attachments.get(NO_PASID);
  if (rid !== undefined && !rid.hwpt.pasidCompat) fail('EINVAL', "the RID's HWPT lacks ALLOC_PASID");
}

/** Kernel: iommufd_device_do_replace(). */
function doReplace(idev: DeviceObject, pasid: number, hwpt: HwptObject): HwptObject | null {
  const { igroup } = idev;
  return igroup.locked(() => {
    const attachment = igroup.attachments.get(pasid);
    if (!attachment?.devices.has(idev.id)) fail('EINVAL', `${idev.dev.name} is not attached`);
    const old = attachment.hwpt;
    if (old === hwpt) return null;
    const devs = [...attachment.devices.values()].map(({ dev }) => dev);
    const sameIoas = hwpt.paging.ioas === old.paging.ioas;
    if (pasid === NO_PASID && !sameIoas) reserveAll(hwpt.paging, devs);
    try {
      replaceDomain(idev, pasid, attachment, hwpt);
    } catch (error) {
      // Linux 7.2 drops the regions even where they belong to the attachment that stays.
      if (pasid === NO_PASID && (!sameIoas || idev.ctx.quirks === 'linux-7.2')) unreserveAll(hwpt.paging, devs);
      throw error;
    }
    if (pasid === NO_PASID && !sameIoas) unreserveAll(old.paging, devs);
    idev.ctx.parts.replaced(old, hwpt, attachment.devices.size);
    return old;
  });
}

/** Hardware first, then the faults of the attachment that ended. Kernel: iommufd_hwpt_replace_device(). */
function replaceDomain(idev: DeviceObject, pasid: number, attachment: Attachment, hwpt: HwptObject): void {
  checkPasidCompat(idev, pasid, hwpt);
  const handle = makeHandle(idev, hwpt);
  orFree(idev, handle, () => {
    if (pasid === NO_PASID) replaceGroupHandle(idev.igroup.group, hwpt.liveDomain, handle);
    else replaceDevicePasid(hwpt.liveDomain, idev.dev, pasid, handle);
  });
  attachment.hwpt.fault?.autoRespond(attachment.handle);
  idev.ctx.parts.handles.free(idev, attachment.handle);
  attachment.hwpt = hwpt;
  attachment.handle = handle;
  sayHow(idev, hwpt);
}

function reserveAll(hwpt: HwptPaging, devs: readonly Device[]): void {
  const { table } = hwpt.ioas;
  try {
    for (const dev of devs) table.enforceDevResvRegions(dev);
  } catch (error) {
    unreserveAll(hwpt, devs);
    throw error;
  }
}

function unreserveAll(hwpt: HwptPaging, devs: readonly Device[]): void {
  for (const dev of devs) hwpt.ioas.table.removeReserved(dev);
}

/** Detaches and lets go. Nothing attached at this PASID: nothing to do. */
export function detach(idev: DeviceObject, pasid: number): void {
  const hwpt = detachLocked(idev, pasid);
  if (hwpt === null) return;
  hwptPut(idev.ctx, hwpt);
  idev.ctx.objects.dropUsers(idev);
}

/** Kernel: iommufd_hw_pagetable_detach(). @returns the HWPT, whose count the caller drops */
function detachLocked(idev: DeviceObject, pasid: number): HwptObject | null {
  const { igroup } = idev;
  return igroup.locked(() => {
    const attachment = igroup.attachments.get(pasid);
    if (attachment === undefined) return null;
    const { hwpt } = attachment;
    attachment.devices.delete(idev.id);
    if (attachment.devices.size === 0) {
      if (pasid === NO_PASID) detachGroupHandle(hwpt.liveDomain, igroup.group);
      else detachDevicePasid(hwpt.liveDomain, idev.dev, pasid);
      hwpt.fault?.autoRespond(attachment.handle);
      idev.ctx.parts.handles.free(idev, attachment.handle);
      igroup.attachments.delete(pasid);
    }
    if (pasid === NO_PASID) hwpt.paging.ioas.table.removeReserved(idev.dev);
    return hwpt;
  });
}
