/**
 * Page faults of devices: partial faults wait for the last page of their group; the whole group goes to the handler of
 * the attachment it belongs to, and each group gets one answer (drivers/iommu/io-pgfault.c).
 */
import type { Kernel, Lock } from '../kernel.ts';
import { KernelError } from '../kernel.ts';
import { groupOf, type IommuGroup, NO_PASID } from './group.ts';
import type { AttachHandle, Device, PageFault, PageFaultGroup, PageResponseCode } from './ops.ts';

/** What a device has in its queue (`struct iommu_fault_param`). */
export interface FaultParam {
  readonly queue: IopfQueue;
  /** Faults whose last page has not come, in the order of their arrival. */
  partial: PageFault[];
  /** Groups without an answer, oldest first. */
  readonly pending: Set<PageFaultGroup>;
}

/** The page-fault queue of one IOMMU instance (`struct iopf_queue`). The driver makes it and adds devices to it. */
export class IopfQueue {
  readonly name: string;
  readonly #kernel: Kernel;
  readonly #lock: Lock;
  readonly #devices = new Set<Device>();

  constructor(kernel: Kernel, name: string) {
    this.name = name;
    this.#kernel = kernel;
    this.#lock = kernel.lock(`iopf-queue:${name}`);
  }

  /** The devices whose faults come here, in the order of adding. */
  get devices(): Device[] {
    return [...this.#devices];
  }

  /**
   * From now on the device may report faults. Kernel: iopf_queue_add_device().
   * @throws KernelError ENODEV (the driver cannot answer), EBUSY (in a queue already), ENOMEM
   */
  addDevice(dev: Device): void {
    if (!dev.iommu.ops.pageResponse) throw new KernelError('ENODEV', `${dev.iommu.ops.name} cannot answer page faults`);
    this.#kernel.withLock(this.#lock, () => {
      if (dev.faultParam) throw new KernelError('EBUSY', `${dev.name} is in a page-fault queue`);
      this.#kernel.alloc('iopf:fault-param');
      dev.faultParam = { queue: this, partial: [], pending: new Set() };
      this.#devices.add(dev);
    });
  }

  /**
   * Drops the device's partial faults and answers its pending groups 'invalid'. Kernel: iopf_queue_remove_device().
   * @throws Error if the device is not in this queue: a bug of the driver
   */
  removeDevice(dev: Device): void {
    const param = dev.faultParam;
    if (param?.queue !== this) throw new Error(`${dev.name} is not in the page-fault queue ${this.name}`);
    this.#kernel.withLock(this.#lock, () => {
      param.partial = [];
      for (const group of [...param.pending]) group.respond('invalid');
      dev.faultParam = null;
      this.#devices.delete(dev);
    });
  }

  /**
   * Drops the partial faults of all devices: the hardware queue overflowed, so last pages may be lost.
   * Kernel: iopf_queue_discard_partial().
   */
  discardPartial(): void {
    for (const dev of this.#devices) if (dev.faultParam) dev.faultParam.partial = [];
  }
}

/**
 * A driver reports a fault. One that is not the last of its group is kept; the last one has the group handled. Where no
 * attachment takes it, it is answered 'invalid', and a group that fails on the way 'failure': a device never waits for
 * good. Kernel: iommu_report_device_fault().
 * @throws KernelError EINVAL (nobody takes the fault: answered), ENOMEM (a partial fault is lost: not answered)
 */
export function reportDeviceFault(dev: Device, fault: PageFault): void {
  const handle = findFaultHandler(dev, fault);
  const param = dev.faultParam;
  if (handle === undefined || !param) {
    dev.iommu.ops.pageResponse?.(dev, fault, 'invalid');
    throw new KernelError(
      'EINVAL',
      `no attachment takes the page fault of ${dev.name}, PASID ${fault.pasid ?? 'none'}`,
    );
  }
  const { kernel } = groupOf(dev);
  if (!fault.lastPage) {
    kernel.alloc('iopf:partial');
    param.partial.push(fault);
    return;
  }
  const mine = param.partial.filter((each) => each.grpid === fault.grpid);
  param.partial = param.partial.filter((each) => each.grpid !== fault.grpid);
  const group = pendingGroup(dev, param, handle, mine, fault);
  try {
    kernel.alloc('iopf:group');
    handle.domain.iopfHandler?.(group);
  } catch (error) {
    group.respond('failure');
    if (!(error instanceof KernelError)) throw error;
    kernel.log('warn', `${dev.name}: page-fault group ${fault.grpid} aborted: ${error.message}`);
  }
}

/** The attachment that a fault belongs to, if its domain handles page faults (`find_fault_handler`). */
function findFaultHandler(dev: Device, fault: PageFault): AttachHandle | undefined {
  if (!dev.group) return undefined;
  let handle = lookUp(dev.group, fault.pasid ?? NO_PASID);
  if (handle === undefined && fault.pasid !== undefined && dev.iommu.ops.userPasidTable) {
    // The guest owns the PASID table: all of its PASIDs belong to the nested domain of the RID.
    handle = lookUp(dev.group, NO_PASID);
    if (handle?.domain.type !== 'nested') return undefined;
  }
  return handle?.domain.iopfHandler ? handle : undefined;
}

function lookUp(group: IommuGroup, pasid: number): AttachHandle | undefined {
  return group.pasidArray.get(pasid)?.handle ?? undefined;
}

function pendingGroup(
  dev: Device,
  param: FaultParam,
  handle: AttachHandle,
  earlier: readonly PageFault[],
  last: PageFault,
): PageFaultGroup {
  const group: PageFaultGroup = {
    dev,
    handle,
    faults: [...earlier, last],
    respond: (code: PageResponseCode) => {
      if (!param.pending.delete(group)) return;
      dev.iommu.ops.pageResponse?.(dev, last, code);
    },
  };
  param.pending.add(group);
  return group;
}

/**
 * Answers 'invalid' to what is pending on a handle whose attachment ends: hardware has left it, the handle is about to
 * die. Called by detach and replace.
 */
export function flushHandleFaults(group: IommuGroup, handle: AttachHandle): void {
  for (const { dev } of group.devices) {
    if (!dev.faultParam) continue;
    for (const pending of [...dev.faultParam.pending]) if (pending.handle === handle) pending.respond('invalid');
  }
}
