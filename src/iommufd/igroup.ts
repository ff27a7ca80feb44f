/** A group as one context sees it (struct iommufd_group): which HWPT each PASID of it is attached to. */
import type { IommuGroup } from '../driver/iommu/group.ts';
import type { AttachHandle } from '../driver/iommu/ops.ts';
import type { Lock } from '../driver/kernel.ts';
import type { IommufdCtx } from './ctx.ts';
import type { DeviceObject } from './device.ts';
import type { HwptObject } from './hwpt.ts';

/** One (group, PASID): a HWPT and the devices that asked for it. */
export interface Attachment {
  hwpt: HwptObject;
  handle: AttachHandle;
  /** By device id. */
  readonly devices: Map<number, DeviceObject>;
}

/** See the module comment. PASID 0 stands for the RID. */
export class Igroup {
  readonly ctx: IommufdCtx;
  readonly group: IommuGroup;
  readonly lock: Lock;
  readonly attachments = new Map<number, Attachment>();
  #refs = 0;

  private constructor(ctx: IommufdCtx, group: IommuGroup) {
    this.ctx = ctx;
    this.group = group;
    this.lock = ctx.kernel.lock(`iommufd:igroup:${group.id}`);
  }

  /** The context's record of a group, one reference taken. Kernel: iommufd_get_group(). @throws KernelError ENOMEM */
  static get(ctx: IommufdCtx, group: IommuGroup): Igroup {
    let igroup = ctx.igroups.get(group);
    if (igroup === undefined) {
      ctx.kernel.alloc('iommufd:group');
      igroup = new Igroup(ctx, group);
      ctx.igroups.set(group, igroup);
    }
    igroup.#refs++;
    return igroup;
  }

  /** Drops one reference. */
  put(): void {
    this.#refs--;
    if (this.#refs > 0) return;
    if (this.attachments.size > 0) this.ctx.kernel.log('warn', `iommufd: ${this.group.name} is freed while attached`);
    this.ctx.igroups.delete(this.group);
  }

  /** True if any PASID besides the RID is attached. */
  get hasPasids(): boolean {
    return this.attachments.size > (this.attachments.has(0) ? 1 : 0);
  }

  locked<T>(body: () => T): T {
    return this.ctx.kernel.withLock(this.lock, body);
  }
}
