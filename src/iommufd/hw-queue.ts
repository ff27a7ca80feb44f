/** Hardware queues given to a VM: guest memory that hardware fetches commands from (iommufd's viommu.c). */
import { HW_QUEUE_TYPE } from '../../spec/uapi.ts';
import type { IommufdHwQueue } from '../driver/iommu/ops.ts';
import { HW_QUEUE_CORE_SIZE } from '../driver/iommu/ops.ts';
import { type AccessObject, accessCreateInternal, accessDestroy } from './access.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { checkIommu } from './hold.ts';
import { IOVA_LAST } from './io-pagetable.ts';
import { IommufdObject } from './object.ts';
import type { PinnedRun } from './pages.ts';
import { PAGE_SIZE } from './process.ts';
import type { Ucmd } from './ucmd.ts';
import { getViommu, type ViommuObject } from './viommu.ts';

/** A hardware queue, core and driver part (struct iommufd_hw_queue). */
export class HwQueueObject extends IommufdObject implements IommufdHwQueue {
  readonly kind = 'HW_QUEUE';
  readonly viommu: ViommuObject;
  readonly type: number;
  readonly baseAddr: bigint;
  readonly length: bigint;
  destroy: ((queue: IommufdHwQueue) => void) | null = null;
  priv: object | null = null;
  /** Pins the queue's pages and locks their areas; null while it is built. */
  access: AccessObject | null = null;
  /** Whether the queue counts on its vIOMMU yet. */
  holdsViommu = false;

  constructor(viommu: ViommuObject, type: number, baseAddr: bigint, length: bigint) {
    super();
    this.viommu = viommu;
    this.type = type;
    this.baseAddr = baseAddr;
    this.length = length;
  }

  /** The page-aligned cover of the queue in guest memory. */
  get cover(): { readonly iova: bigint; readonly length: bigint } {
    const iova = this.baseAddr & ~(PAGE_SIZE - 1n);
    const end = (this.baseAddr + this.length + PAGE_SIZE - 1n) & ~(PAGE_SIZE - 1n);
    return { iova, length: end - iova };
  }

  release(): void {
    this.destroy?.(this);
    if (this.access !== null) {
      this.access.unpinPages(this.cover.iova, this.cover.length);
      this.dropAccess(this.access);
    }
    if (this.holdsViommu) this.viommu.users--;
  }

  /** Gives up the internal access; its pins are gone already. */
  dropAccess(access: AccessObject): void {
    this.access = null;
    access.detach();
    accessDestroy(this.viommu.ctx, access);
  }

  /** `queue` keeps `on` alive. Kernel: iommufd_hw_queue_depend(). @throws KernelError EINVAL */
  static depend(queue: HwQueueObject, on: HwQueueObject): void {
    if (queue === on || queue.type !== on.type || queue.viommu !== on.viommu)
      fail('EINVAL', `${queue.label} cannot depend on ${on.label}`);
    on.users++;
  }

  /** Undoes {@link depend}. Kernel: iommufd_hw_queue_undepend(). */
  static undepend(queue: HwQueueObject, on: HwQueueObject): void {
    if (queue !== on && queue.type === on.type && queue.viommu === on.viommu) on.users--;
  }
}

/** IOMMU_HW_QUEUE_ALLOC. */
export function hwQueueAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_HW_QUEUE_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.type === HW_QUEUE_TYPE.DEFAULT) fail('EOPNOTSUPP', 'flags is not 0, or type DEFAULT');
  if (cmd.length === 0n) fail('EINVAL', 'length is 0');
  if (cmd.nesting_parent_iova + cmd.length - 1n > IOVA_LAST) fail('EOVERFLOW', 'address and length overflow');
  const viommu = getViommu(ctx, cmd.viommu_id);
  try {
    checkIommu(viommu, 'HW_QUEUE_ALLOC');
    checkDriver(ctx, viommu, cmd.type);
    const queue = ctx.objects.alloc(new HwQueueObject(viommu, cmd.type, cmd.nesting_parent_iova, cmd.length));
    ucmd.newObject = queue;
    const basePa = pinQueue(ctx, queue);
    viommu.users++;
    queue.holdsViommu = true;
    viommu.ops?.hwQueueInitPhys?.(queue, cmd.index, basePa);
    cmd.out_hw_queue_id = queue.id;
    ucmd.respond();
  } finally {
    ctx.objects.put(viommu);
  }
}

function checkDriver(ctx: IommufdCtx, viommu: ViommuObject, type: number): void {
  const { ops } = viommu;
  const size = ops?.hwQueueInitPhys === undefined ? 0 : (ops.getHwQueueSize?.(viommu, type) ?? 0);
  if (size === 0) fail('EOPNOTSUPP', `${viommu.label} has no hardware queues of type ${type}`);
  if (size < HW_QUEUE_CORE_SIZE) {
    ctx.kernel.log('warn', "iommufd: the driver's hardware queue does not embed the core's struct");
    fail('EOPNOTSUPP', `a hardware queue of ${size} bytes does not embed the core's ${HW_QUEUE_CORE_SIZE}`);
  }
}

/** Pins the queue's pages, which must be physically contiguous. @returns the physical address of its first byte */
function pinQueue(ctx: IommufdCtx, queue: HwQueueObject): bigint {
  const offset = queue.baseAddr & (PAGE_SIZE - 1n);
  if (queue.length + offset + PAGE_SIZE - 1n > IOVA_LAST) fail('ERANGE', 'length and offset overflow when rounded up');
  const access = accessCreateInternal(ctx);
  const { iova, length } = queue.cover;
  let runs: PinnedRun[];
  try {
    access.attachTo(queue.viommu.hwpt.ioas);
    runs = access.pinPages(iova, length, false);
  } catch (error) {
    queue.dropAccess(access);
    throw error;
  }
  queue.access = access;
  const [first] = runs;
  if (first === undefined || !contiguous(runs)) fail('EFAULT', 'the queue is not physically contiguous');
  return BigInt(first.pfn) * PAGE_SIZE + offset;
}

function contiguous(runs: readonly PinnedRun[]): boolean {
  return runs.every((run, i) => {
    const before = runs[i - 1];
    return before === undefined || before.pfn + before.count === run.pfn;
  });
}
