/** Virtual devices: a device's identity inside one vIOMMU (iommufd's viommu.c). */
import { VIOMMU_TYPE } from '../../spec/uapi.ts';
import { doneTo } from '../driver/iommu/notes.ts';
import type { Device, IommufdVdevice } from '../driver/iommu/ops.ts';
import { VDEVICE_CORE_SIZE } from '../driver/iommu/ops.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { type DeviceObject, getDevice } from './device.ts';
import { fail } from './errors.ts';
import { checkIommu } from './hold.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { getViommu, type ViommuObject } from './viommu.ts';

/** A vDEVICE, core and driver part (struct iommufd_vdevice). */
export class VdeviceObject extends IommufdObject implements IommufdVdevice {
  readonly kind = 'VDEVICE';
  readonly ctx: IommufdCtx;
  readonly viommu: ViommuObject;
  /** Held with both counts from the lookup of its allocation on; unbind revokes it. */
  readonly idev: DeviceObject;
  readonly virtId: bigint;
  destroy: ((vdev: IommufdVdevice) => void) | null = null;
  priv: object | null = null;

  constructor(ctx: IommufdCtx, viommu: ViommuObject, idev: DeviceObject, virtId: bigint) {
    super();
    this.ctx = ctx;
    this.viommu = viommu;
    this.idev = idev;
    this.virtId = virtId;
  }

  get dev(): Device {
    return this.idev.dev;
  }

  release(): void {
    this.idev.igroup.locked(() => this.abort());
    this.ctx.objects.put(this.idev);
  }

  /** The caller holds the igroup's lock, and keeps the device's counts. */
  override abort(): void {
    this.destroy?.(this);
    doneTo(this.ctx.kernel, this.dev, 'vDEVICE destroyed');
    this.ctx.parts.vdevices.withdraw(this);
    this.viommu.users--;
    this.idev.vdev = null;
  }
}

/** IOMMU_VDEVICE_ALLOC. */
export function vdeviceAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_VDEVICE_ALLOC'>>): void {
  const { cmd } = ucmd;
  const viommu = getViommu(ctx, cmd.viommu_id);
  try {
    const idev = getDevice(ctx, cmd.dev_id);
    try {
      if (viommu.iommuDev !== idev.dev.iommu)
        fail('EINVAL', `${viommu.label} and ${idev.dev.name} are on different IOMMUs`);
      idev.igroup.locked(() => build(ctx, ucmd, viommu, idev));
    } catch (error) {
      ctx.objects.put(idev);
      throw error;
    }
  } finally {
    ctx.objects.put(viommu);
  }
}

function build(
  ctx: IommufdCtx,
  ucmd: Ucmd<Command<'IOMMU_VDEVICE_ALLOC'>>,
  viommu: ViommuObject,
  idev: DeviceObject,
): void {
  const { cmd } = ucmd;
  if (idev.destroying) fail('ENOENT', `${idev.label} is being unbound`);
  if (idev.vdev !== null) fail('EEXIST', `${idev.dev.name} has a vDEVICE already`);
  checkIommu(viommu, 'VDEVICE_ALLOC');
  checkDriver(ctx, viommu);
  const vdev = ctx.objects.alloc(new VdeviceObject(ctx, viommu, idev, cmd.virt_id));
  viommu.users++;
  idev.vdev = vdev;
  try {
    if (viommu.vdevs.has(cmd.virt_id)) fail('EEXIST', `virtual id 0x${cmd.virt_id.toString(16)} is in use`);
    const { vdevices } = ctx.parts;
    vdevices.reserve(vdev);
    try {
      viommu.ops?.vdeviceInit?.(vdev);
    } catch (error) {
      vdevices.unreserve(vdev);
      throw error;
    }
    vdevices.publish(vdev);
    cmd.out_vdevice_id = vdev.id;
    ucmd.respond();
  } catch (error) {
    ctx.parts.unwind(ctx, vdev);
    throw error;
  }
  ctx.objects.finalize(vdev);
  const { TEGRA241_CMDQV } = VIOMMU_TYPE;
  doneTo(ctx.kernel, idev.dev, viommu.type === TEGRA241_CMDQV ? 'vDEVICE of a VINTF made' : 'vDEVICE made');
}

/** A vDEVICE struct of the driver's must embed the core's and come with an init. */
function checkDriver(ctx: IommufdCtx, { ops }: ViommuObject): void {
  const size = ops?.vdeviceSize;
  if (size === undefined || (size >= VDEVICE_CORE_SIZE && ops?.vdeviceInit !== undefined)) return;
  ctx.kernel.log('warn', 'iommufd: vdeviceSize and vdeviceInit of the driver do not fit together');
  fail('EOPNOTSUPP', `a vDEVICE of ${size} bytes, or one without vdeviceInit: the driver is wrong`);
}
