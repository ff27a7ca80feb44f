/** A VFIO device as its user holds it: bound to an iommufd, attached, detached, doing DMA (drivers/vfio/iommufd.c). */
import {
  VFIO_DEVICE_ATTACH_FLAGS,
  VFIO_DEVICE_DETACH_FLAGS,
  VFIO_IOCTLS,
  vfio_device_attach_iommufd_pt,
  vfio_device_detach_iommufd_pt,
} from '../../spec/uapi.ts';
import type { Device } from '../driver/iommu/ops.ts';
import type { Lock } from '../driver/kernel.ts';
import type { IommufdContext } from './context.ts';
import type { DeviceObject } from './device.ts';
import { fail } from './errors.ts';

/** Lets the device write `bytes` at `iova`. @returns false if the access was refused */
export type DeviceDma = (iova: bigint, bytes: Uint8Array) => boolean;

const INT_MAX = 2 ** 31 - 1;

/** See the module comment. */
export class VfioDevice {
  readonly dev: Device;
  readonly #dma: DeviceDma | undefined;
  #ctx: IommufdContext | null = null;
  #idev: DeviceObject | null = null;
  #attached = false;
  /** One call at a time (the device set's lock). */
  #lock: Lock | null = null;
  readonly #pasids = new Set<number>();

  /** @param dma how the device does DMA; a device of another machine has it elsewhere */
  constructor(dev: Device, dma?: DeviceDma) {
    this.dev = dev;
    this.#dma = dma;
  }

  /** The device object; throws if the device is not bound. @throws KernelError EINVAL */
  get idev(): DeviceObject {
    return this.#idev ?? fail('EINVAL', `${this.dev.name} is not bound`);
  }

  get bound(): boolean {
    return this.#idev !== null;
  }

  get attached(): boolean {
    return this.#attached;
  }

  /** VFIO_DEVICE_BIND_IOMMUFD. @returns devid @throws KernelError EINVAL (bound already) and as `IommufdContext.bind` */
  bind(ctx: IommufdContext): number {
    this.#lock ??= ctx.kernel.lock(`vfio:${this.dev.name}`);
    return ctx.kernel.withLock(this.#lock, () => {
      if (this.#idev !== null) fail('EINVAL', `${this.dev.name} is bound already`);
      this.#idev = ctx.bind(this.dev);
      this.#ctx = ctx;
      return this.#idev.id;
    });
  }

  /** VFIO_DEVICE_ATTACH_IOMMUFD_PT: attaches, or replaces what is attached. @returns the HWPT's id @throws KernelError */
  attach(ptId: number): number {
    return this.#locked((ctx, idev) => {
      const id = this.#attached ? ctx.replace(idev, ptId) : ctx.attach(idev, ptId);
      this.#attached = true;
      return id;
    });
  }

  /** The same for one PASID. @throws KernelError */
  attachPasid(ptId: number, pasid: number): number {
    return this.#locked((ctx, idev) => {
      // The kernel keeps attached PASIDs in an IDA, whose numbers are ints.
      if (pasid > INT_MAX) fail('ENOSPC', `PASID ${pasid} is above INT_MAX`);
      const id = this.#pasids.has(pasid) ? ctx.replace(idev, ptId, pasid) : ctx.attach(idev, ptId, pasid);
      this.#pasids.add(pasid);
      return id;
    });
  }

  /** VFIO_DEVICE_DETACH_IOMMUFD_PT. Nothing attached: nothing happens. @throws KernelError EINVAL if not bound */
  detach(): void {
    this.#locked((ctx, idev) => this.#detachRid(ctx, idev));
  }

  /** The same for one PASID. @throws KernelError EINVAL if not bound */
  detachPasid(pasid: number): void {
    this.#locked((ctx, idev) => {
      if (this.#pasids.delete(pasid)) ctx.detach(idev, pasid);
    });
  }

  /** Detaches every PASID, then the RID; not bound: nothing happens. */
  detachAll(): void {
    if (this.#idev !== null) this.#locked((ctx, idev) => this.#detachAll(ctx, idev));
  }

  #detachAll(ctx: IommufdContext, idev: DeviceObject): void {
    for (const pasid of [...this.#pasids].sort((a, b) => a - b)) ctx.detach(idev, pasid);
    this.#pasids.clear();
    this.#detachRid(ctx, idev);
  }

  /** close() of the device's descriptor, or its hot-unplug: PASIDs, RID, unbind. */
  close(): void {
    if (this.#idev === null) return;
    this.#locked((ctx, idev) => {
      this.#detachAll(ctx, idev);
      ctx.unbind(idev);
      this.#idev = null;
      this.#ctx = null;
    });
  }

  #detachRid(ctx: IommufdContext, idev: DeviceObject): void {
    if (!this.#attached) return;
    ctx.detach(idev);
    this.#attached = false;
  }

  #locked<T>(body: (ctx: IommufdContext, idev: DeviceObject) => T): T {
    if (this.#lock === null || this.#ctx === null) fail('EINVAL', `${this.dev.name} is not bound`);
    return this.#ctx.kernel.withLock(this.#lock, () => {
      if (this.#ctx === null) fail('EINVAL', `${this.dev.name} is not bound`);
      return body(this.#ctx, this.idev);
    });
  }

  /** The device writes. @returns false if the access was refused @throws Error for a device made without DMA */
  dma(iova: bigint, bytes: Uint8Array): boolean {
    if (this.#dma === undefined) throw new Error(`${this.dev.name} has no DMA function`);
    return this.#dma(iova, bytes);
  }

  /**
   * ATTACH and DETACH on the bytes of their struct, argsz first; pt_id takes the HWPT's id.
   * @throws KernelError ENOTTY, EFAULT, EINVAL and as the typed calls
   */
  ioctl(request: number, arg: Uint8Array): void {
    if (request === VFIO_IOCTLS.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request) this.#attachRaw(arg);
    else if (request === VFIO_IOCTLS.VFIO_DEVICE_DETACH_IOMMUFD_PT.request) this.#detachRaw(arg);
    else fail('ENOTTY', `request 0x${request.toString(16)} is not one of this device's`);
  }

  #attachRaw(arg: Uint8Array): void {
    const struct = vfio_device_attach_iommufd_pt;
    const { bytes, wide } = header(arg, struct.bytes, struct.endOf('pt_id'), struct.endOf('pasid'));
    const { flags, pt_id: ptId, pasid } = struct.decode(bytes);
    if (flags & ~VFIO_DEVICE_ATTACH_FLAGS.PASID) fail('EINVAL', 'unknown flags');
    const withPasid = (flags & VFIO_DEVICE_ATTACH_FLAGS.PASID) !== 0;
    if (withPasid && !wide) fail('EINVAL', 'argsz leaves no room for pasid');
    struct.set(arg, 'pt_id', withPasid ? this.attachPasid(ptId, pasid) : this.attach(ptId));
  }

  #detachRaw(arg: Uint8Array): void {
    const struct = vfio_device_detach_iommufd_pt;
    const { bytes, wide } = header(arg, struct.bytes, struct.endOf('flags'), struct.endOf('pasid'));
    const { flags, pasid } = struct.decode(bytes);
    if (flags & ~VFIO_DEVICE_DETACH_FLAGS.PASID) fail('EINVAL', 'unknown flags');
    const withPasid = (flags & VFIO_DEVICE_DETACH_FLAGS.PASID) !== 0;
    if (withPasid && !wide) fail('EINVAL', 'argsz leaves no room for pasid');
    if (withPasid) this.detachPasid(pasid);
    else this.detach();
  }
}

/** The struct filled up with zeros, and whether argsz covers all of it. @throws KernelError EFAULT, EINVAL */
function header(arg: Uint8Array, size: number, min: number, full: number): { bytes: Uint8Array; wide: boolean } {
  if (arg.length < min) fail('EFAULT', `the struct has ${arg.length} bytes, at least ${min}`);
  const argsz = new DataView(arg.buffer, arg.byteOffset).getUint32(0, true);
  if (argsz < min) fail('EINVAL', `argsz ${argsz}, at least ${min}`);
  const bytes = new Uint8Array(size);
  bytes.set(arg.subarray(0, size));
  return { bytes, wide: argsz >= full };
}
