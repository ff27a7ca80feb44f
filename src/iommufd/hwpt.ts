/** Hardware page tables: IOMMU_HWPT_ALLOC and the objects it makes (iommufd's hw_pagetable.c). */
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE } from '../../spec/uapi.ts';
import type { IommuDomain, IommuOps, PagingFlags, UserData } from '../driver/iommu/ops.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { type DeviceObject, getDevice } from './device.ts';
import { fail } from './errors.ts';
import type { FaultObject } from './fault.ts';
import { checkIommu } from './hold.ts';
import type { IoasObject } from './ioas.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { userData } from './user-data.ts';
import type { ViommuObject } from './viommu.ts';

const PAGING_FLAGS =
  HWPT_ALLOC_FLAGS.NEST_PARENT |
  HWPT_ALLOC_FLAGS.DIRTY_TRACKING |
  HWPT_ALLOC_FLAGS.FAULT_ID_VALID |
  HWPT_ALLOC_FLAGS.ALLOC_PASID;
const NESTED_FLAGS = HWPT_ALLOC_FLAGS.FAULT_ID_VALID | HWPT_ALLOC_FLAGS.ALLOC_PASID;

/** What drivers see of the flags: FAULT_ID_VALID is the core's affair. */
function pagingFlags(flags: number): PagingFlags {
  const out: { nestParent?: boolean; dirtyTracking?: boolean; pasid?: boolean } = {};
  if (flags & HWPT_ALLOC_FLAGS.NEST_PARENT) out.nestParent = true;
  if (flags & HWPT_ALLOC_FLAGS.DIRTY_TRACKING) out.dirtyTracking = true;
  if (flags & HWPT_ALLOC_FLAGS.ALLOC_PASID) out.pasid = true;
  return out;
}

/** What both kinds have in common (struct iommufd_hw_pagetable). */
abstract class Hwpt extends IommufdObject {
  readonly ctx: IommufdCtx;
  /** Null until the driver made it. */
  domain: IommuDomain | null = null;
  fault: FaultObject | null = null;
  /** Allocated with ALLOC_PASID. */
  readonly pasidCompat: boolean;
  /** The paging HWPT whose IOAS a device's reserved regions are kept in. */
  abstract readonly paging: HwptPaging;

  constructor(ctx: IommufdCtx, pasidCompat: boolean) {
    super();
    this.ctx = ctx;
    this.pasidCompat = pasidCompat;
  }

  /** The domain of a finished HWPT. */
  get liveDomain(): IommuDomain {
    this.use('domain');
    if (this.domain === null) throw new Error(`${this.label} has no domain`);
    return this.domain;
  }

  /** Frees domain and fault reference. Kernel: __iommufd_hwpt_destroy(). */
  protected destroyCommon(): void {
    if (this.domain !== null) {
      this.domain.ops.free(this.domain);
      // Its tags and pages speak for themselves: no stream is concerned, and no address.
      this.ctx.kernel.announce({ what: 'operation', act: 'done', where: '', id: 0n, owner: 'free domain', bytes: 0 });
    }
    this.domain = null;
    if (this.fault !== null) this.fault.users--;
    this.fault = null;
  }
}

/** A page table that the core fills from an IOAS (struct iommufd_hwpt_paging). */
export class HwptPaging extends Hwpt {
  readonly kind = 'HWPT_PAGING';
  readonly ioas: IoasObject;
  /** Made for an attach to the IOAS; goes with its last attachment. */
  autoDomain = false;
  readonly nestParent: boolean;
  enforceCacheCoherency = false;
  /** In the IOAS's list and domains. */
  linked = false;

  constructor(ctx: IommufdCtx, ioas: IoasObject, flags: number) {
    super(ctx, (flags & HWPT_ALLOC_FLAGS.ALLOC_PASID) !== 0);
    this.ioas = ioas;
    this.nestParent = (flags & HWPT_ALLOC_FLAGS.NEST_PARENT) !== 0;
  }

  get paging(): HwptPaging {
    return this;
  }

  release(): void {
    this.ctx.kernel.withLock(this.ioas.mutex, () => this.unlink());
    this.finish();
  }

  /** The caller holds the IOAS's mutex from allocation to finalize. */
  override abort(): void {
    this.unlink();
    this.finish();
  }

  private unlink(): void {
    if (!this.linked || this.domain === null) return;
    this.linked = false;
    this.ioas.hwpts.delete(this);
    this.ioas.table.removeDomain(this.domain);
  }

  private finish(): void {
    this.destroyCommon();
    this.ctx.parts.spaceHold.put(this.ioas);
  }
}

/** A page table of a guest's, on top of a nesting parent (struct iommufd_hwpt_nested). */
export class HwptNested extends Hwpt {
  readonly kind = 'HWPT_NESTED';
  readonly parent: HwptPaging;
  /** Null: made from the parent HWPT, without a vIOMMU. */
  readonly viommu: ViommuObject | null;

  constructor(ctx: IommufdCtx, parent: HwptPaging, viommu: ViommuObject | null, flags: number) {
    super(ctx, (flags & HWPT_ALLOC_FLAGS.ALLOC_PASID) !== 0);
    this.parent = parent;
    this.viommu = viommu;
  }

  get paging(): HwptPaging {
    return this.parent;
  }

  release(): void {
    this.destroyCommon();
    (this.viommu ?? this.parent).users--;
  }

  override abort(): void {
    this.release();
  }
}

/** Either kind. */
export type HwptObject = HwptPaging | HwptNested;

/**
 * Makes a paging HWPT and adds it to the IOAS, whose mutex the caller holds. The object is not finalized.
 * Kernel: iommufd_hwpt_paging_alloc().
 * @param attachNow attaches the new HWPT before it is filled, and undoes that (an automatic domain)
 * @throws KernelError EOPNOTSUPP, EINVAL, EADDRINUSE, EFAULT, ENOMEM, the driver's errors
 */
export function hwptPagingAlloc(
  ctx: IommufdCtx,
  ioas: IoasObject,
  idev: DeviceObject,
  flags: number,
  data: UserData | null,
  attachNow?: { attach(hwpt: HwptPaging): void; detach(): void },
): HwptPaging {
  const { ops } = idev.dev.iommu;
  if ((flags !== 0 || data !== null) && ops.domainAllocPagingFlags === undefined)
    fail('EOPNOTSUPP', `${ops.name} cannot allocate paging domains with flags or data`);
  if (flags & ~PAGING_FLAGS) fail('EOPNOTSUPP', `unknown flags 0x${(flags & ~PAGING_FLAGS).toString(16)}`);
  if (flags & HWPT_ALLOC_FLAGS.DIRTY_TRACKING && !ops.capable(idev.dev, 'dirty-tracking'))
    fail('EOPNOTSUPP', `${idev.dev.name} has no dirty tracking`);
  if (flags & HWPT_ALLOC_FLAGS.FAULT_ID_VALID && flags & HWPT_ALLOC_FLAGS.NEST_PARENT)
    fail('EOPNOTSUPP', 'a nesting parent takes no fault queue');
  const hwpt = ctx.objects.alloc(new HwptPaging(ctx, ioas, flags));
  ctx.parts.spaceHold.get(ioas);
  try {
    hwpt.domain = allocPagingDomain(ops, idev, flags, data);
    if (idev.enforceCacheCoherency) enforceCacheCoherency(hwpt);
    attachNow?.attach(hwpt);
    try {
      ioas.table.addDomain(hwpt.domain);
    } catch (error) {
      attachNow?.detach();
      throw error;
    }
  } catch (error) {
    ctx.parts.unwind(ctx, hwpt);
    throw error;
  }
  ioas.hwpts.add(hwpt);
  hwpt.linked = true;
  return hwpt;
}

function allocPagingDomain(ops: IommuOps, idev: DeviceObject, flags: number, data: UserData | null): IommuDomain {
  if (ops.domainAllocPagingFlags === undefined) fail('EOPNOTSUPP', `${ops.name} has no paging domains`);
  const domain = ops.domainAllocPagingFlags(idev.dev, pagingFlags(flags), data);
  domain.owner = ops;
  return domain;
}

/** The IOMMU of the device makes every access coherent if told to; then the page table must say so. */
function enforceCacheCoherency(hwpt: HwptPaging): void {
  if (hwpt.enforceCacheCoherency || hwpt.domain === null) return;
  hwpt.enforceCacheCoherency = hwpt.domain.ops.enforceCacheCoherency?.(hwpt.domain) ?? false;
  if (!hwpt.enforceCacheCoherency) fail('EINVAL', 'the domain cannot enforce cache coherency as the device needs');
}

/** Kernel: iommufd_hwpt_nested_alloc(). @throws KernelError EOPNOTSUPP, EINVAL, ENOMEM, the driver's errors */
function hwptNestedAlloc(
  ctx: IommufdCtx,
  parent: HwptPaging,
  idev: DeviceObject,
  flags: number,
  data: UserData,
): HwptNested {
  const { ops } = idev.dev.iommu;
  const alloc = ops.domainAllocNested?.bind(ops);
  if (flags & ~NESTED_FLAGS || data.length === 0 || alloc === undefined)
    fail('EOPNOTSUPP', 'unknown flags, no data, or a driver that nests on a vIOMMU only');
  if (parent.autoDomain || !parent.nestParent || parent.domain?.owner !== ops)
    fail('EINVAL', `${parent.label} is not a nesting parent of this driver`);
  const hwpt = ctx.objects.alloc(new HwptNested(ctx, parent, null, flags));
  parent.users++;
  return buildNested(ctx, hwpt, ops, () => alloc(idev.dev, parent.liveDomain, pagingFlags(flags), data));
}

/** Kernel: iommufd_viommu_alloc_hwpt_nested(). @throws KernelError EOPNOTSUPP, ENOMEM, the driver's errors */
function viommuHwptNestedAlloc(ctx: IommufdCtx, viommu: ViommuObject, flags: number, data: UserData): HwptNested {
  const alloc = viommu.ops?.allocDomainNested?.bind(viommu.ops);
  if (flags & ~NESTED_FLAGS || data.length === 0 || alloc === undefined)
    fail('EOPNOTSUPP', 'unknown flags, no data, or a vIOMMU that cannot nest');
  const hwpt = ctx.objects.alloc(new HwptNested(ctx, viommu.hwpt, viommu, flags));
  viommu.users++;
  return buildNested(ctx, hwpt, viommu.iommuDev.ops, () => alloc(viommu, pagingFlags(flags), data));
}

function buildNested(ctx: IommufdCtx, hwpt: HwptNested, owner: IommuOps, alloc: () => IommuDomain): HwptNested {
  try {
    hwpt.domain = alloc();
    hwpt.domain.owner = owner;
    if (hwpt.domain.type !== 'nested') {
      ctx.kernel.log('warn', `iommufd: ${owner.name} made a ${hwpt.domain.type} domain instead of a nested one`);
      fail('EOPNOTSUPP', 'the driver did not make a nested domain');
    }
    return hwpt;
  } catch (error) {
    ctx.parts.unwind(ctx, hwpt);
    throw error;
  }
}

/** IOMMU_HWPT_ALLOC. */
export function hwptAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_HWPT_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  if ((cmd.data_type === HWPT_DATA_TYPE.NONE) !== (cmd.data_len === 0))
    fail('EINVAL', `data type ${cmd.data_type} with ${cmd.data_len} bytes of data`);
  const idev = getDevice(ctx, cmd.dev_id);
  try {
    const object = lookUpPt(ctx, cmd.pt_id);
    try {
      const data = userData(ucmd.pointer('data_uptr'), cmd.data_type, cmd.data_len);
      if (object.kind === 'IOAS') {
        const ioas = object as IoasObject;
        ctx.kernel.withLock(ioas.mutex, () => {
          const make = () => hwptPagingAlloc(ctx, ioas, idev, cmd.flags, cmd.data_len > 0 ? data : null);
          publish(ctx, ucmd, make());
        });
      } else if (object.kind === 'HWPT_PAGING')
        publish(ctx, ucmd, hwptNestedAlloc(ctx, object as HwptPaging, idev, cmd.flags, data));
      else if (object.kind === 'VIOMMU') {
        const viommu = object as ViommuObject;
        checkIommu(viommu, 'HWPT_ALLOC');
        if (viommu.iommuDev !== idev.dev.iommu)
          fail('EINVAL', `${viommu.label} and ${idev.dev.name} are on different IOMMUs`);
        publish(ctx, ucmd, viommuHwptNestedAlloc(ctx, viommu, cmd.flags, data));
      } else fail('EINVAL', `pt_id names a ${object.kind}`);
    } finally {
      ctx.objects.put(object);
    }
  } finally {
    ctx.objects.put(idev);
  }
}

/** An unknown pt_id is EINVAL here, not ENOENT. */
function lookUpPt(ctx: IommufdCtx, id: number): IommufdObject {
  const object = ctx.objects.peek(id);
  if (object === undefined || !ctx.objects.lockObj(object)) fail('EINVAL', `pt_id ${id} names no object`);
  return object;
}

/** The rest of the allocation: fault queue, answer, finalize. */
function publish(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_HWPT_ALLOC'>>, hwpt: HwptObject): void {
  const { cmd } = ucmd;
  try {
    if (cmd.flags & HWPT_ALLOC_FLAGS.FAULT_ID_VALID) {
      const fault = ctx.objects.get(cmd.fault_id, 'FAULT') as FaultObject;
      hwpt.fault = fault;
      fault.users++;
      hwpt.liveDomain.iopfHandler = (group) => fault.report(group);
      ctx.objects.put(fault);
    }
    cmd.out_hwpt_id = hwpt.id;
    ucmd.respond();
  } catch (error) {
    ctx.parts.unwind(ctx, hwpt);
    throw error;
  }
  ctx.objects.finalize(hwpt);
}

/** A HWPT_PAGING by id, both counts taken. @throws KernelError ENOENT */
export function getHwptPaging(ctx: IommufdCtx, id: number): HwptPaging {
  return ctx.objects.get(id, 'HWPT_PAGING') as HwptPaging;
}

/** Drops an attachment's count; an automatic domain goes with its last. Kernel: iommufd_hw_pagetable_put(). */
export function hwptPut(ctx: IommufdCtx, hwpt: HwptObject): void {
  if (hwpt instanceof HwptPaging && hwpt.autoDomain) ctx.objects.putAndTryDestroy(hwpt);
  else ctx.objects.dropUsers(hwpt);
}
