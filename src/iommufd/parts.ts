/**
 * Steps of iommufd that are handed in, so that a test, or a bug of the zoo, may replace one: the places where counts are
 * taken and dropped, and where objects begin and cease to be seen.
 */
import { newAttachHandle } from '../driver/iommu/attach.ts';
import type { AttachHandle, IommuDomain } from '../driver/iommu/ops.ts';
import type { IommufdCtx } from './ctx.ts';
import type { DeviceObject } from './device.ts';
import { dropHold, revokeHolds, takeHold } from './hold.ts';
import type { HwptObject } from './hwpt.ts';
import type { IoasObject } from './ioas.ts';
import type { IommufdObject } from './object.ts';
import type { VdeviceObject } from './vdevice.ts';
import type { ViommuObject } from './viommu.ts';

/** See the module comment. */
export interface IommufdParts {
  /** What a mapping of device memory in a process keeps alive: the object that offers it. */
  readonly mmapHold: {
    get(owner: IommufdObject): void;
    put(owner: IommufdObject): void;
  };
  /** The driver that bound a device becomes a user of it, until unbind (`iommufd_device_bind`). */
  bound(idev: DeviceObject): void;
  /** A device is about to be unbound: its vDEVICE must not outlive it (`iommufd_device_pre_destroy`). */
  devicePreDestroy(idev: DeviceObject): void;
  /** How a vIOMMU keeps its physical IOMMU. */
  readonly hold: {
    take(viommu: ViommuObject, idev: DeviceObject): void;
    drop(viommu: ViommuObject): void;
  };
  /** The record of an attachment: it lives as long as the attachment, and belongs to who attached. */
  readonly handles: {
    /** @throws KernelError ENOMEM */
    alloc(idev: DeviceObject, domain: IommuDomain): AttachHandle;
    free(idev: DeviceObject, handle: AttachHandle): void;
  };
  /** A paging HWPT keeps its IOAS. */
  readonly spaceHold: {
    get(ioas: IoasObject): void;
    put(ioas: IoasObject): void;
  };
  /** `devices` attachments moved from one HWPT to another; the caller drops the last count of the old one. */
  replaced(from: HwptObject, to: HwptObject, devices: number): void;
  /** An allocation failed: what the object holds already is given back, then its id (`iommufd_object_abort_and_destroy`). */
  unwind(ctx: IommufdCtx, object: IommufdObject): void;
  /** The vSID of a vDEVICE: taken first, found by the driver only once its init has succeeded. */
  readonly vdevices: {
    /** @throws KernelError ENOMEM */
    reserve(vdev: VdeviceObject): void;
    /** The driver's init failed. */
    unreserve(vdev: VdeviceObject): void;
    publish(vdev: VdeviceObject): void;
    /** The vDEVICE goes, or never came. */
    withdraw(vdev: VdeviceObject): void;
  };
}

function devicePreDestroy(idev: DeviceObject): void {
  const { objects } = idev.ctx;
  revokeHolds(idev);
  const vdev = idev.igroup.locked(() => {
    idev.destroying = true;
    if (idev.vdev === null || objects.peek(idev.vdev.id) !== idev.vdev) return null;
    idev.vdev.users++;
    return idev.vdev;
  });
  if (vdev !== null) objects.tombstoneUser(vdev);
}

/** The parts as shipped. */
export const iommufdParts = (): IommufdParts => ({
  mmapHold: {
    get: (owner) => {
      owner.users++;
    },
    put: (owner) => {
      owner.users--;
    },
  },
  bound: (idev) => {
    idev.users++;
  },
  devicePreDestroy,
  hold: { take: takeHold, drop: dropHold },
  handles: {
    alloc: (idev, domain) => {
      idev.ctx.kernel.alloc('iommufd:attach-handle');
      const handle = newAttachHandle(domain, idev);
      idev.ctx.handles.add(handle);
      return handle;
    },
    free: (idev, handle) => void idev.ctx.handles.delete(handle),
  },
  spaceHold: {
    get: (ioas) => {
      ioas.users++;
    },
    put: (ioas) => {
      ioas.users--;
    },
  },
  replaced: (from, to, devices) => {
    to.users += devices;
    from.users -= devices - 1;
  },
  unwind: (ctx, object) => ctx.objects.abortAndDestroy(object),
  vdevices: {
    reserve: ({ ctx, viommu, virtId }) => {
      ctx.kernel.alloc('iommufd:vdevs');
      viommu.vdevs.set(virtId, null);
    },
    unreserve: ({ viommu, virtId }) => void viommu.vdevs.delete(virtId),
    publish: (vdev) => void vdev.viommu.vdevs.set(vdev.virtId, vdev),
    withdraw: (vdev) => {
      const { viommu, virtId } = vdev;
      // Only its own slot: the allocation may have found it taken.
      if (viommu.vdevs.get(virtId) === vdev) viommu.vdevs.delete(virtId);
    },
  },
});
