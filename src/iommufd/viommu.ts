/** Virtual IOMMUs: IOMMU_VIOMMU_ALLOC, and what a driver may ask of the core (iommufd's viommu.c, driver.c). */
import { VIOMMU_TYPE } from '../../spec/uapi.ts';
import type {
  IommuDevice,
  IommuDomain,
  IommufdCallbacks,
  IommufdHwQueue,
  IommufdViommu,
  ViommuOps,
} from '../driver/iommu/ops.ts';
import { VIOMMU_CORE_SIZE } from '../driver/iommu/ops.ts';
import type { Lock } from '../driver/kernel.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { getDevice } from './device.ts';
import { fail } from './errors.ts';
import { checkIommu, type Hold } from './hold.ts';
import { HwQueueObject } from './hw-queue.ts';
import { getHwptPaging, type HwptPaging } from './hwpt.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { userData } from './user-data.ts';
import type { VdeviceObject } from './vdevice.ts';
import type { VeventqObject } from './veventq.ts';

/** A vIOMMU, core and driver part (struct iommufd_viommu). */
export class ViommuObject extends IommufdObject implements IommufdViommu {
  readonly kind = 'VIOMMU';
  readonly ctx: IommufdCtx;
  /** VIOMMU_TYPE, as user space named it. */
  readonly type: number;
  /** The physical IOMMU; how it is held is {@link HoldPolicyName}. */
  readonly iommuDev: IommuDevice;
  /** The nesting parent. */
  readonly hwpt: HwptPaging;
  ops: ViommuOps | null = null;
  priv: object | null = null;
  readonly callbacks: IommufdCallbacks;
  /** By virtual id; null: reserved by an allocation under way. */
  readonly vdevs = new Map<bigint, VdeviceObject | null>();
  readonly veventqs: VeventqObject[] = [];
  readonly veventqsLock: Lock;
  readonly hold: Hold = { device: null, revoked: false };

  constructor(ctx: IommufdCtx, type: number, hwpt: HwptPaging, iommuDev: IommuDevice) {
    super();
    this.ctx = ctx;
    this.type = type;
    this.hwpt = hwpt;
    this.iommuDev = iommuDev;
    this.veventqsLock = ctx.kernel.lock('iommufd:veventqs');
    this.callbacks = callbacksOf(this);
  }

  get parent(): IommuDomain {
    return this.hwpt.liveDomain;
  }

  release(): void {
    if (this.ops?.destroy !== undefined) {
      reportDeadIommu(this);
      this.ops.destroy(this);
    }
    this.ctx.parts.hold.drop(this);
    this.hwpt.users--;
    this.vdevs.clear();
  }
}

/** Destroy cannot fail: whatever the policy, the driver is called. */
function reportDeadIommu(viommu: ViommuObject): void {
  if (!viommu.hold.revoked) checkIommu(viommu, 'destroy');
}

/** What the core does for the driver of one vIOMMU (the exports of iommufd's driver.c). */
function callbacksOf(viommu: ViommuObject): IommufdCallbacks {
  const queues = (queue: IommufdHwQueue, on: IommufdHwQueue): [HwQueueObject, HwQueueObject] => {
    if (!(queue instanceof HwQueueObject) || !(on instanceof HwQueueObject))
      throw new Error('a hardware queue that the core did not make');
    return [queue, on];
  };
  return {
    reportEvent: (_viommu, type, data) => {
      viommu.use('report event');
      const queue = viommu.veventqs.find((each) => each.type === type);
      if (queue === undefined) fail('EOPNOTSUPP', `${viommu.label} has no vEVENTQ of type ${type}`);
      queue.report(data);
    },
    findDev: (_viommu, virtId) => {
      viommu.use('find device');
      return viommu.vdevs.get(virtId)?.idev.dev;
    },
    getVdevId: (_viommu, dev) => {
      viommu.use('find virtual id');
      for (const [virtId, vdev] of viommu.vdevs) if (vdev !== null && vdev.idev.dev === dev) return virtId;
      return fail('ENOENT', `${dev.name} has no vDEVICE on ${viommu.label}`);
    },
    allocMmap: (_viommu, addr, length) => viommu.ctx.mmaps.alloc(viommu, addr, length),
    destroyMmap: (_viommu, offset) => viommu.ctx.mmaps.destroy(viommu, offset),
    hwQueueDepend: (queue, on) => HwQueueObject.depend(...queues(queue, on)),
    hwQueueUndepend: (queue, on) => HwQueueObject.undepend(...queues(queue, on)),
  };
}

/** A vIOMMU by id, both counts taken. @throws KernelError ENOENT */
export function getViommu(ctx: IommufdCtx, id: number): ViommuObject {
  return ctx.objects.get(id, 'VIOMMU') as ViommuObject;
}

/** IOMMU_VIOMMU_ALLOC. */
export function viommuAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_VIOMMU_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.type === VIOMMU_TYPE.DEFAULT) fail('EOPNOTSUPP', 'flags is not 0, or type DEFAULT');
  const idev = getDevice(ctx, cmd.dev_id);
  try {
    const { ops } = idev.dev.iommu;
    const size = ops.viommuInit === undefined ? 0 : (ops.getViommuSize?.(idev.dev, cmd.type) ?? 0);
    if (size === 0) fail('EOPNOTSUPP', `${ops.name} has no vIOMMU of type ${cmd.type} for ${idev.dev.name}`);
    if (size < VIOMMU_CORE_SIZE) {
      ctx.kernel.log('warn', `iommufd: the vIOMMU of ${ops.name} does not embed the core's struct`);
      fail('EOPNOTSUPP', `a vIOMMU of ${size} bytes does not embed the core's ${VIOMMU_CORE_SIZE}`);
    }
    const hwpt = getHwptPaging(ctx, cmd.hwpt_id);
    try {
      if (!hwpt.nestParent) fail('EINVAL', `${hwpt.label} is not a nesting parent`);
      const viommu = ctx.objects.alloc(new ViommuObject(ctx, cmd.type, hwpt, idev.dev.iommu));
      ucmd.newObject = viommu;
      hwpt.users++;
      ctx.parts.hold.take(viommu, idev);
      const data = userData(ucmd.pointer('data_uptr'), cmd.type, cmd.data_len);
      ops.viommuInit?.(viommu, hwpt.liveDomain, cmd.data_len > 0 ? data : null);
      if (viommu.ops === null) {
        ctx.kernel.log('warn', `iommufd: viommuInit of ${ops.name} set no ops`);
        fail('EOPNOTSUPP', 'viommuInit set no ops');
      }
      cmd.out_viommu_id = viommu.id;
      ucmd.respond();
    } finally {
      ctx.objects.put(hwpt);
    }
  } finally {
    ctx.objects.put(idev);
  }
}
