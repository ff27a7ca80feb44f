/** An open /dev/iommu: every ioctl typed and raw, the descriptors it hands out, mmap, and what kernel drivers call. */
import type { Device } from '../driver/iommu/ops.ts';
import { type AccessObject, type AccessOps, accessCreate, accessDestroy } from './access.ts';
import { deviceAttach, deviceReplace } from './attach.ts';
import type { Command, TypedArgs } from './command.ts';
import { IommufdCtx } from './ctx.ts';
import { type DeviceObject, deviceBind, deviceDetach, deviceUnbind } from './device.ts';
import { fail } from './errors.ts';
import type { PollState } from './files.ts';
import { ioctlRaw, ioctlTyped } from './ioctl.ts';
import type { MmapRequest, Vma } from './mmap.ts';
import { pointerInto, pointerTo } from './ucmd.ts';

/**
 * One open /dev/iommu.
 *
 * Each ioctl is a method that takes the fields of its C struct (what is left out is 0) and returns the struct with its
 * outputs; pointer fields take an address in the process's memory, or the buffer itself. {@link ioctl} takes a request
 * number and the bytes of the struct. Both throw `IommufdError`.
 *
 * @example
 * const ioas = ctx.ioasAlloc({}).out_ioas_id;
 * ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: 0x4000000000n, length: 0x400000n, iova: 0x80000000n });
 */
export class IommufdContext extends IommufdCtx {
  /** An ioctl on a struct's bytes, which take the outputs. @throws IommufdError */
  ioctl(request: number, arg: Uint8Array | bigint): void {
    const pointer =
      typeof arg === 'bigint'
        ? pointerTo(this.kernel, this.process.memory, arg, 'ioctl')
        : pointerInto(this.kernel, arg, 'ioctl');
    ioctlRaw(this, request, pointer);
  }

  destroy(args: TypedArgs<'IOMMU_DESTROY'>): Command<'IOMMU_DESTROY'> {
    return ioctlTyped(this, 'IOMMU_DESTROY', args);
  }

  ioasAlloc(args: TypedArgs<'IOMMU_IOAS_ALLOC'> = {}): Command<'IOMMU_IOAS_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_IOAS_ALLOC', args);
  }

  ioasAllowIovas(args: TypedArgs<'IOMMU_IOAS_ALLOW_IOVAS'>): Command<'IOMMU_IOAS_ALLOW_IOVAS'> {
    return ioctlTyped(this, 'IOMMU_IOAS_ALLOW_IOVAS', args);
  }

  ioasCopy(args: TypedArgs<'IOMMU_IOAS_COPY'>): Command<'IOMMU_IOAS_COPY'> {
    return ioctlTyped(this, 'IOMMU_IOAS_COPY', args);
  }

  ioasIovaRanges(args: TypedArgs<'IOMMU_IOAS_IOVA_RANGES'>): Command<'IOMMU_IOAS_IOVA_RANGES'> {
    return ioctlTyped(this, 'IOMMU_IOAS_IOVA_RANGES', args);
  }

  ioasMap(args: TypedArgs<'IOMMU_IOAS_MAP'>): Command<'IOMMU_IOAS_MAP'> {
    return ioctlTyped(this, 'IOMMU_IOAS_MAP', args);
  }

  ioasMapFile(args: TypedArgs<'IOMMU_IOAS_MAP_FILE'>): Command<'IOMMU_IOAS_MAP_FILE'> {
    return ioctlTyped(this, 'IOMMU_IOAS_MAP_FILE', args);
  }

  ioasUnmap(args: TypedArgs<'IOMMU_IOAS_UNMAP'>): Command<'IOMMU_IOAS_UNMAP'> {
    return ioctlTyped(this, 'IOMMU_IOAS_UNMAP', args);
  }

  ioasChangeProcess(args: TypedArgs<'IOMMU_IOAS_CHANGE_PROCESS'> = {}): Command<'IOMMU_IOAS_CHANGE_PROCESS'> {
    return ioctlTyped(this, 'IOMMU_IOAS_CHANGE_PROCESS', args);
  }

  option(args: TypedArgs<'IOMMU_OPTION'>): Command<'IOMMU_OPTION'> {
    return ioctlTyped(this, 'IOMMU_OPTION', args);
  }

  vfioIoasOp(args: TypedArgs<'IOMMU_VFIO_IOAS'>): Command<'IOMMU_VFIO_IOAS'> {
    return ioctlTyped(this, 'IOMMU_VFIO_IOAS', args);
  }

  hwptAlloc(args: TypedArgs<'IOMMU_HWPT_ALLOC'>): Command<'IOMMU_HWPT_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_HWPT_ALLOC', args);
  }

  getHwInfo(args: TypedArgs<'IOMMU_GET_HW_INFO'>): Command<'IOMMU_GET_HW_INFO'> {
    return ioctlTyped(this, 'IOMMU_GET_HW_INFO', args);
  }

  hwptSetDirtyTracking(args: TypedArgs<'IOMMU_HWPT_SET_DIRTY_TRACKING'>): Command<'IOMMU_HWPT_SET_DIRTY_TRACKING'> {
    return ioctlTyped(this, 'IOMMU_HWPT_SET_DIRTY_TRACKING', args);
  }

  hwptGetDirtyBitmap(args: TypedArgs<'IOMMU_HWPT_GET_DIRTY_BITMAP'>): Command<'IOMMU_HWPT_GET_DIRTY_BITMAP'> {
    return ioctlTyped(this, 'IOMMU_HWPT_GET_DIRTY_BITMAP', args);
  }

  hwptInvalidate(args: TypedArgs<'IOMMU_HWPT_INVALIDATE'>): Command<'IOMMU_HWPT_INVALIDATE'> {
    return ioctlTyped(this, 'IOMMU_HWPT_INVALIDATE', args);
  }

  faultQueueAlloc(args: TypedArgs<'IOMMU_FAULT_QUEUE_ALLOC'> = {}): Command<'IOMMU_FAULT_QUEUE_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_FAULT_QUEUE_ALLOC', args);
  }

  viommuAlloc(args: TypedArgs<'IOMMU_VIOMMU_ALLOC'>): Command<'IOMMU_VIOMMU_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_VIOMMU_ALLOC', args);
  }

  vdeviceAlloc(args: TypedArgs<'IOMMU_VDEVICE_ALLOC'>): Command<'IOMMU_VDEVICE_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_VDEVICE_ALLOC', args);
  }

  veventqAlloc(args: TypedArgs<'IOMMU_VEVENTQ_ALLOC'>): Command<'IOMMU_VEVENTQ_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_VEVENTQ_ALLOC', args);
  }

  hwQueueAlloc(args: TypedArgs<'IOMMU_HW_QUEUE_ALLOC'>): Command<'IOMMU_HW_QUEUE_ALLOC'> {
    return ioctlTyped(this, 'IOMMU_HW_QUEUE_ALLOC', args);
  }

  /** read() of a vEVENTQ or fault queue: up to `count` bytes of whole records. @throws KernelError EBADF, ESPIPE, EINVAL */
  read(fd: number, count: number): Uint8Array {
    const chunks: Uint8Array[] = [];
    const done = this.files.use(fd, (file) =>
      file.read(count, (bytes) => {
        this.kernel.userCopy('to-user:read');
        chunks.push(bytes);
      }),
    );
    return join(chunks, done);
  }

  /** The same into the process's memory. @returns the bytes read @throws KernelError EBADF, ESPIPE, EINVAL, EFAULT */
  readTo(fd: number, va: bigint, count: number): number {
    return this.files.use(fd, (file) =>
      file.read(count, (bytes, at) => {
        this.kernel.userCopy('to-user:read');
        this.process.memory.write(va + BigInt(at), bytes);
      }),
    );
  }

  /** write() to a fault queue. @returns the bytes taken @throws KernelError EBADF, ESPIPE, EINVAL, EFAULT */
  write(fd: number, bytes: Uint8Array): number {
    return this.files.use(fd, (file) => {
      this.kernel.userCopy('from-user:write');
      return file.write(bytes);
    });
  }

  /** poll(). @throws KernelError EBADF */
  poll(fd: number): PollState {
    return this.files.use(fd, (file) => file.poll());
  }

  /** close() of a vEVENTQ or fault queue; the object stays until it is destroyed. @throws KernelError EBADF */
  closeFd(fd: number): void {
    this.files.close(fd);
  }

  /** mmap() of what a vIOMMU's driver offers. @throws KernelError EINVAL, EPERM, ENXIO */
  mmap(request: MmapRequest): Vma {
    return this.mmaps.map(
      request,
      () => this.getFile(),
      () => this.putFile(),
    );
  }

  /** Binds a device for a kernel driver such as VFIO. @throws KernelError EINVAL, ENODEV, EPERM, EBUSY, ENOMEM */
  bind(dev: Device): DeviceObject {
    if (this.released) fail('EBADF', 'the iommufd is closed');
    return this.#call(() => deviceBind(this, dev));
  }

  /** Unbinds; detach first. False: somebody kept the object, which a warning in the log says. */
  unbind(idev: DeviceObject): boolean {
    return this.#call(() => deviceUnbind(this, idev));
  }

  /** Attaches a device or PASID to a HWPT or IOAS. @returns the HWPT's id @throws KernelError */
  attach(idev: DeviceObject, ptId: number, pasid = 0): number {
    return this.#call(() => deviceAttach(idev, ptId, pasid));
  }

  /** Moves an attached device or PASID. @returns the HWPT's id @throws KernelError */
  replace(idev: DeviceObject, ptId: number, pasid = 0): number {
    return this.#call(() => deviceReplace(idev, ptId, pasid));
  }

  /** Detaches a device or PASID. */
  detach(idev: DeviceObject, pasid = 0): void {
    this.#call(() => deviceDetach(idev, pasid));
  }

  /** Makes an access for a kernel driver. @throws KernelError ENOMEM */
  accessCreate(ops: AccessOps): AccessObject {
    return this.#call(() => accessCreate(this, ops));
  }

  accessDestroy(access: AccessObject): void {
    this.#call(() => accessDestroy(this, access));
  }

  /** close() of the descriptor. Bound devices, open queues, mmaps and accesses keep the file until they are gone. */
  close(): void {
    if (this.closed) fail('EBADF', 'the iommufd is closed');
    this.closed = true;
    this.#call(() => this.putFile());
  }

  /** The open file outlives the call. */
  #call<T>(body: () => T): T {
    this.getFile();
    try {
      return body();
    } finally {
      this.putFile();
      this.kernel.runInterrupts();
    }
  }
}

function join(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const out = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    if (at + chunk.length > length) break;
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}
