/** Devices bound to a context, and IOMMU_GET_HW_INFO (iommufd's device.c). */
import { HW_CAPABILITIES, HW_INFO_FLAGS, HW_INFO_TYPE, HW_INFO_TYPE_DEFAULT } from '../../spec/uapi.ts';
import { deviceClaimDmaOwner, deviceReleaseDmaOwner } from '../driver/iommu/attach.ts';
import type { Device } from '../driver/iommu/ops.ts';
import { detach } from './attach.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { Igroup } from './igroup.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd, UserPointer } from './ucmd.ts';
import type { VdeviceObject } from './vdevice.ts';
import type { ViommuObject } from './viommu.ts';

/** A device that a driver (VFIO) bound to the context (struct iommufd_device). */
export class DeviceObject extends IommufdObject {
  readonly kind = 'DEVICE';
  readonly ctx: IommufdCtx;
  readonly dev: Device;
  readonly igroup: Igroup;
  /** Whether its IOMMU makes every access coherent. */
  readonly enforceCacheCoherency: boolean;
  vdev: VdeviceObject | null = null;
  /** vIOMMUs that hold this device, where the policy has them do so. */
  readonly heldBy = new Set<ViommuObject>();
  /** Unbind is under way: no new vDEVICE. */
  destroying = false;

  constructor(ctx: IommufdCtx, dev: Device, igroup: Igroup) {
    super();
    this.ctx = ctx;
    this.dev = dev;
    this.igroup = igroup;
    this.enforceCacheCoherency = dev.iommu.ops.capable(dev, 'enforce-cache-coherency');
  }

  release(): void {
    deviceReleaseDmaOwner(this.dev);
    this.igroup.put();
    this.ctx.putFile();
  }

  /** The vDEVICE must not outlive the device. Kernel: iommufd_device_pre_destroy(). */
  override preDestroy(): void {
    this.ctx.parts.devicePreDestroy(this);
  }
}

/**
 * Binds a device: its group's DMA belongs to the context and is blocked. Kernel: iommufd_device_bind().
 * @throws KernelError EINVAL (not cache coherent; firmware demands 1:1 mappings), ENODEV (no group), EPERM (another
 * owner; MSIs not isolated), EBUSY (group in use), ENOMEM
 */
export function deviceBind(ctx: IommufdCtx, dev: Device): DeviceObject {
  if (!dev.iommu.ops.capable(dev, 'cache-coherency')) fail('EINVAL', `${dev.name} is not cache coherent`);
  const { group } = dev;
  if (!group) fail('ENODEV', `${dev.name} has no iommu group`);
  const igroup = Igroup.get(ctx, group);
  try {
    if (!ctx.isolatedMsi(group) && !ctx.allowUnsafeInterrupts) fail('EPERM', `MSIs of ${group.name} are not isolated`);
    deviceClaimDmaOwner(dev, ctx);
  } catch (error) {
    igroup.put();
    throw error;
  }
  const idev = new DeviceObject(ctx, dev, igroup);
  try {
    ctx.objects.alloc(idev);
  } catch (error) {
    deviceReleaseDmaOwner(dev);
    igroup.put();
    throw error;
  }
  ctx.getFile();
  // The calling driver is a user until unbind; the bias of 1 belongs to the table.
  ctx.parts.bound(idev);
  ctx.objects.finalize(idev);
  return idev;
}

/**
 * Unbinds a device; all attachments must be gone. A vDEVICE goes with it and leaves its id behind for good.
 * Kernel: iommufd_device_unbind(). False (and a warning): somebody kept the object.
 */
export function deviceUnbind(ctx: IommufdCtx, idev: DeviceObject): boolean {
  return ctx.objects.destroyUser(idev);
}

/** Detaches, whatever is attached at this PASID. Kernel: iommufd_device_detach(). */
export function deviceDetach(idev: DeviceObject, pasid = 0): void {
  idev.use('detach');
  detach(idev, pasid);
}

/** A device by id, both counts taken. @throws KernelError ENOENT */
export function getDevice(ctx: IommufdCtx, id: number): DeviceObject {
  return ctx.objects.get(id, 'DEVICE') as DeviceObject;
}

/** Bytes written as zero in one piece. */
const ZERO_CHUNK = 4096;

function clearUser(pointer: UserPointer, from: number, to: number): void {
  for (let at = from; at < to; at += ZERO_CHUNK) pointer.write(at, new Uint8Array(Math.min(ZERO_CHUNK, to - at)));
}

/** IOMMU_GET_HW_INFO. */
export function getHwInfo(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_GET_HW_INFO'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags & ~HW_INFO_FLAGS.INPUT_TYPE || cmd.__reserved.some((byte) => byte !== 0))
    fail('EOPNOTSUPP', 'unknown flags, or __reserved is not 0');
  const wanted = cmd.flags & HW_INFO_FLAGS.INPUT_TYPE ? cmd.in_data_type : HW_INFO_TYPE_DEFAULT;
  const { dev } = withDevice(ctx, cmd.dev_id);
  const { ops } = dev.iommu;
  const info = ops.hwInfo?.(dev, wanted) ?? { type: HW_INFO_TYPE.NONE, data: new Uint8Array(0) };
  if (ops.hwInfo !== undefined && info.type === HW_INFO_TYPE.NONE) {
    ctx.kernel.log('warn', `iommufd: hwInfo of ${ops.name} gave type NONE`);
    fail('EOPNOTSUPP', 'the driver gave hardware information of type NONE');
  }
  const pointer = ucmd.pointer('data_uptr');
  const copied = Math.min(cmd.data_len, info.data.length);
  if (copied > 0) pointer.write(0, info.data.subarray(0, copied));
  clearUser(pointer, copied, cmd.data_len);
  cmd.data_len = info.data.length;
  cmd.out_data_type = info.type;
  cmd.out_max_pasid_log2 = dev.maxPasids > 0 ? 31 - Math.clz32(dev.maxPasids) : 0;
  cmd.out_capabilities = BigInt(
    (ops.capable(dev, 'dirty-tracking') ? HW_CAPABILITIES.DIRTY_TRACKING : 0) |
      (ops.capable(dev, 'ats-not-supported') ? HW_CAPABILITIES.PCI_ATS_NOT_SUPPORTED : 0),
  );
  ucmd.respond();
}

/** Looks a device up and gives the counts back at once: nothing runs in between that could destroy it. */
function withDevice(ctx: IommufdCtx, id: number): DeviceObject {
  const idev = getDevice(ctx, id);
  ctx.objects.put(idev);
  return idev;
}
