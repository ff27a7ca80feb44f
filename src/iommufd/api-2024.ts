/**
 * The kernel's vIOMMU API as the series of October 2024 had it (v3): the driver allocates the vIOMMU through an exported
 * helper and frees its part in a callback, and a vDEVICE counts on its device. An adapter over the same object table, so
 * that both lifetimes can be compared on one context.
 *
 * What differs from 7.2: the core does not know the driver's struct before it is made, so a driver that fails after its
 * own call of the helper leaves the id reserved until close; TYPE_DEFAULT makes a plain vIOMMU; and a device with a
 * vDEVICE cannot be unbound.
 */
import { VIOMMU_TYPE } from '../../spec/uapi.ts';
import type {
  IommuDevice,
  IommuDomain,
  IommufdViommu,
  PagingFlags,
  UserArray,
  UserData,
  ViommuOps,
} from '../driver/iommu/ops.ts';
import type { IommufdContext } from './context.ts';
import { type DeviceObject, getDevice } from './device.ts';
import { fail } from './errors.ts';
import { takeHold } from './hold.ts';
import { getHwptPaging } from './hwpt.ts';
import { IommufdObject } from './object.ts';
import { getViommu, ViommuObject } from './viommu.ts';

/** `struct iommufd_viommu_ops` of v3. */
export interface ViommuOps2024 {
  /** Called from the object's destroy, before the core frees the memory. */
  free?(viommu: IommufdViommu): void;
  allocDomainNested?(viommu: IommufdViommu, flags: PagingFlags, userData: UserData): IommuDomain;
  cacheInvalidate?(viommu: IommufdViommu, array: UserArray): void;
  /** A vDEVICE comes (the vdevice series). @throws KernelError */
  vdeviceAlloc?(viommu: IommufdViommu, device: DeviceObject, virtId: bigint): void;
  vdeviceFree?(viommu: IommufdViommu, device: DeviceObject, virtId: bigint): void;
}

/** `iommufd_viommu_alloc()`: reserves an id for the driver's struct. @throws KernelError ENOMEM, ENOSPC */
export type ViommuAllocHelper = (ops: ViommuOps2024 | null) => IommufdViommu;

/** The part of `struct iommu_ops` that v3 adds. */
export interface IommuOps2024 {
  /** @throws KernelError EOPNOTSUPP, EINVAL, ENOMEM */
  viommuAlloc?(iommu: IommuDevice, parent: IommuDomain, type: number, alloc: ViommuAllocHelper): IommufdViommu;
}

const opsOf = new WeakMap<ViommuObject, ViommuOps2024>();

function toViommuOps(ops: ViommuOps2024): ViommuOps {
  return {
    destroy: (viommu) => ops.free?.(viommu),
    ...(ops.allocDomainNested === undefined ? {} : { allocDomainNested: ops.allocDomainNested.bind(ops) }),
    ...(ops.cacheInvalidate === undefined ? {} : { cacheInvalidate: ops.cacheInvalidate.bind(ops) }),
  };
}

/** A vDEVICE of the 2024 series: it counts on its vIOMMU and on its device, and only DESTROY or close ends that. */
class Vdevice2024 extends IommufdObject {
  readonly kind = 'VDEVICE';
  readonly viommu: ViommuObject;
  readonly idev: DeviceObject;
  readonly virtId: bigint;
  readonly #taken: Map<bigint, IommufdObject>;

  constructor(viommu: ViommuObject, idev: DeviceObject, virtId: bigint, taken: Map<bigint, IommufdObject>) {
    super();
    this.viommu = viommu;
    this.idev = idev;
    this.virtId = virtId;
    this.#taken = taken;
  }

  release(): void {
    opsOf.get(this.viommu)?.vdeviceFree?.(this.viommu, this.idev, this.virtId);
    this.#taken.delete(this.virtId);
    this.idev.users--;
    this.viommu.users--;
  }
}

/** The 2024 calls on a context of today. */
export class Iommufd2024 {
  readonly ctx: IommufdContext;
  readonly #ops: IommuOps2024;
  readonly #virtIds = new WeakMap<ViommuObject, Map<bigint, IommufdObject>>();

  constructor(ctx: IommufdContext, ops: IommuOps2024) {
    this.ctx = ctx;
    this.#ops = ops;
  }

  /**
   * IOMMU_VIOMMU_ALLOC of v3. @returns the id
   * @throws KernelError EOPNOTSUPP, ENOENT, EINVAL, ENOMEM, EFAULT, the driver's errors
   */
  viommuAlloc(args: { readonly type: number; readonly dev_id: number; readonly hwpt_id: number }): number {
    const { objects } = this.ctx;
    const idev = getDevice(this.ctx, args.dev_id);
    try {
      const hwpt = getHwptPaging(this.ctx, args.hwpt_id);
      try {
        if (!hwpt.nestParent) fail('EINVAL', `${hwpt.label} is not a nesting parent`);
        const { iommu } = idev.dev;
        const alloc = (ops: ViommuOps2024 | null): ViommuObject => {
          const viommu = objects.alloc(new ViommuObject(this.ctx, args.type, hwpt, iommu));
          if (ops === null) return viommu;
          viommu.ops = toViommuOps(ops);
          opsOf.set(viommu, ops);
          return viommu;
        };
        const viommu = this.#allocate(args.type, iommu, hwpt.liveDomain, alloc);
        hwpt.users++;
        takeHold(viommu, idev);
        return this.#publish(viommu);
      } finally {
        objects.put(hwpt);
      }
    } finally {
      objects.put(idev);
    }
  }

  #allocate(type: number, iommu: IommuDevice, parent: IommuDomain, alloc: (ops: ViommuOps2024 | null) => ViommuObject) {
    if (type === VIOMMU_TYPE.DEFAULT) return alloc(null);
    if (this.#ops.viommuAlloc === undefined) fail('EOPNOTSUPP', 'the driver has no viommu_alloc');
    // A driver that fails in here after its call of the helper has no way to abort: the id stays reserved.
    const made = this.#ops.viommuAlloc(iommu, parent, type, alloc);
    if (made instanceof ViommuObject) return made;
    throw new Error('the driver did not allocate its vIOMMU with the helper');
  }

  /**
   * IOMMU_VDEVICE_ALLOC of the vdevice series. @returns the id
   * @throws KernelError ENOENT, EINVAL, EEXIST, ENOMEM, EFAULT, the driver's errors
   */
  vdeviceAlloc(args: { readonly viommu_id: number; readonly dev_id: number; readonly virt_id: bigint }): number {
    const { objects } = this.ctx;
    const viommu = getViommu(this.ctx, args.viommu_id);
    try {
      const idev = getDevice(this.ctx, args.dev_id);
      try {
        if (viommu.iommuDev !== idev.dev.iommu) fail('EINVAL', 'vIOMMU and device are on different IOMMUs');
        const taken = this.#virtIds.get(viommu) ?? new Map<bigint, IommufdObject>();
        this.#virtIds.set(viommu, taken);
        if (taken.has(args.virt_id)) fail('EEXIST', `virtual id 0x${args.virt_id.toString(16)} is in use`);
        const vdev = objects.alloc(new Vdevice2024(viommu, idev, args.virt_id, taken));
        try {
          opsOf.get(viommu)?.vdeviceAlloc?.(viommu, idev, args.virt_id);
        } catch (error) {
          objects.abort(vdev);
          throw error;
        }
        taken.set(args.virt_id, vdev);
        idev.users++;
        viommu.users++;
        return this.#publish(vdev);
      } finally {
        objects.put(idev);
      }
    } finally {
      objects.put(viommu);
    }
  }

  /** The answer is copied before the object is published: nothing may fail after. */
  #publish(object: IommufdObject): number {
    try {
      this.ctx.kernel.userCopy('to-user:response');
    } catch (error) {
      this.ctx.objects.abortAndDestroy(object);
      throw error;
    }
    this.ctx.objects.finalize(object);
    return object.id;
  }
}
