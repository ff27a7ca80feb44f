/** What VMs get of a CMDQV: a VINTF with each vIOMMU, queues in it, StreamID pairs (kernel: tegra241-cmdqv.c). */
import {
  CMDQV_PAGE_BYTES,
  COMMAND_BYTES,
  VCMDQ_BASE,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  vintfPage0,
} from '../../../spec/index.ts';
import { HW_QUEUE_TYPE, VEVENTQ_TYPE, VIOMMU_TYPE } from '../../../spec/uapi/constants.ts';
import { iommu_vevent_tegra241_cmdqv, iommu_viommu_tegra241_cmdqv } from '../../../spec/uapi/data-structs.ts';
import type { Pa } from '../../hw/bus.ts';
import { masterOf } from '../arm-smmu-v3/attach-domains.ts';
import { type Vsmmu, vdeviceInit, vsmmuDestroy } from '../arm-smmu-v3/vsmmu.ts';
import type { IommufdHwQueue, IommufdVdevice, IommufdViommu, UserData, ViommuOps } from '../iommu/ops.ts';
import { HW_QUEUE_CORE_SIZE, VDEVICE_CORE_SIZE } from '../iommu/ops.ts';
import { KernelError } from '../kernel.ts';
import type { Tegra241Cmdqv } from './cmdqv.ts';
import type { Vcmdq, Vintf } from './vintf.ts';

/** Bytes that the driver adds to the core's vDEVICE and HW_QUEUE. */
const VSID_EXTRA = 24;
const VCMDQ_EXTRA = 64;

/** log2 of the bytes of a command. */
const COMMAND_SHIFT = Math.log2(COMMAND_BYTES);
/** Shortest queue: ADDR has no room for a smaller alignment. */
const MIN_QUEUE_BYTES = 1n << BigInt(VCMDQ_BASE.field('ADDR').address ?? 0);
/** First address that ADDR cannot hold. */
const PA_LIMIT = MIN_QUEUE_BYTES << BigInt(VCMDQ_BASE.width('ADDR'));

/** A VM's VINTF. */
export interface UserVintf {
  readonly vintf: Vintf;
  readonly viommu: IommufdViommu;
  readonly mmapOffset: bigint;
  /** Hardware queues by LVCMDQ. */
  readonly hwQueues: Map<number, IommufdHwQueue>;
  /** Read by the interrupt, not yet reported. */
  errorMap: readonly [bigint, bigint] | null;
}

/** What a VM gets of a VINTF and gives back, step by step; see the module comment. A bug of the zoo wraps one of them. */
export interface VintfUserPart {
  readonly window: typeof window;
  readonly destroyVintf: typeof destroyVintf;
  readonly allocSid: typeof allocSid;
  readonly checkIndex: typeof checkIndex;
  readonly checkMemory: typeof checkMemory;
  readonly depend: typeof depend;
  readonly initQueue: typeof initQueue;
  readonly destroyQueue: typeof destroyQueue;
  readonly report: typeof report;
}

/** The errors that the interrupt saw go to the VM; it acknowledges them itself, through page 0. */
export function report(user: UserVintf): void {
  const { errorMap, viommu, vintf } = user;
  if (errorMap === null) return;
  user.errorMap = null;
  const data = iommu_vevent_tegra241_cmdqv.encode({ lvcmdq_err_map: [...errorMap] });
  try {
    viommu.callbacks.reportEvent(viommu, VEVENTQ_TYPE.TEGRA241_CMDQV, data);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    vintf.smmu.kernel.log('warn', `${vintf.smmu.name}: VINTF${vintf.index}: ${error.message}`);
  }
}

/** What a VM may map: page 0 of its VINTF. Page 1 has BASE, which holds host addresses. */
export const window = ({ regs, index }: Vintf): { readonly at: Pa; readonly length: bigint } => ({
  at: regs.base + BigInt(vintfPage0(index)),
  length: BigInt(CMDQV_PAGE_BYTES),
});

/**
 * Makes a VINTF for a vIOMMU (`tegra241_cmdqv_init_vintf_user`). The ops come last: an init that fails never runs
 * destroy.
 * @throws KernelError EINVAL, EFAULT, ENOMEM, ENOSPC, ETIMEDOUT
 */
export function vsmmuInit(
  cmdqv: Tegra241Cmdqv,
  vsmmu: Vsmmu,
  viommu: IommufdViommu,
  userData: UserData | null,
  shared: ViommuOps,
): void {
  const layout = iommu_viommu_tegra241_cmdqv;
  if (userData === null) throw new KernelError('EINVAL', 'a Tegra241 vIOMMU needs user data');
  userData.copy(VIOMMU_TYPE.TEGRA241_CMDQV, layout.bytes, layout.bytes);
  const { smmu } = vsmmu;
  const index = allocVintf(cmdqv);
  let vintf: Vintf;
  try {
    vintf = cmdqv.newVintf(smmu, index, vsmmu.vmid);
    switchOn(cmdqv, vintf);
  } catch (error) {
    freeVintf(cmdqv, vsmmu, index);
    throw error;
  }
  const { at, length } = smmu.parts.vintfUser.window(vintf);
  let mmapOffset: bigint | null = null;
  try {
    mmapOffset = viommu.callbacks.allocMmap(viommu, at, length);
    const answer = layout.encode({ out_vintf_mmap_offset: mmapOffset, out_vintf_mmap_length: length });
    userData.copyBack(VIOMMU_TYPE.TEGRA241_CMDQV, answer, layout.bytes);
  } catch (error) {
    if (mmapOffset !== null) viommu.callbacks.destroyMmap(viommu, mmapOffset);
    switchOff(cmdqv, vintf);
    freeVintf(cmdqv, vsmmu, index);
    throw error;
  }
  const user: UserVintf = { vintf, viommu, mmapOffset, hwQueues: new Map(), errorMap: null };
  cmdqv.users.set(index, user);
  viommu.ops = viommuOps(cmdqv, user, vsmmu, shared);
}

function allocVintf(cmdqv: Tegra241Cmdqv): number {
  try {
    return cmdqv.vintfIds.alloc();
  } catch (error) {
    if (error instanceof KernelError && error.errno === 'ENOSPC')
      throw new KernelError('ENOSPC', `${cmdqv.name}: no more available vintf`);
    throw error;
  }
}

/**
 * Linux leaves EN and VMID in CONFIG when STATUS does not follow, and gives VINTF and VMID away; here the VINTF is
 * switched off again.
 */
function switchOn(cmdqv: Tegra241Cmdqv, vintf: Vintf): void {
  const { parts, options } = vintf.smmu;
  try {
    parts.vintf.hwInit(vintf, false);
  } catch (error) {
    if (!options.quirks.has('vintf-timeout-left-enabled')) switchOff(cmdqv, vintf);
    throw error;
  }
}

/** A VINTF that does not disable keeps its index and its VMID: hardware may still use them. */
function switchOff(cmdqv: Tegra241Cmdqv, vintf: Vintf): void {
  if (!vintf.smmu.parts.vintf.hwDeinit(vintf)) cmdqv.stuckVintf(vintf.index);
}

function freeVintf(cmdqv: Tegra241Cmdqv, { smmu }: Vsmmu, index: number): void {
  smmu.quarantine.retire([smmu], `${smmu.name} VINTF ${index}`, () => cmdqv.vintfIds.free(index));
}

/** A vIOMMU's operations: those of every vIOMMU, and the VINTF's own. */
function viommuOps(cmdqv: Tegra241Cmdqv, user: UserVintf, vsmmu: Vsmmu, shared: ViommuOps): ViommuOps {
  return {
    ...shared,
    destroy: (viommu) => {
      vsmmu.smmu.parts.vintfUser.destroyVintf(cmdqv, user, vsmmu);
      vsmmuDestroy(viommu);
    },
    vdeviceSize: VDEVICE_CORE_SIZE + VSID_EXTRA,
    vdeviceInit: (vdev) => initVsid(user.vintf, vsmmu, vdev),
    getHwQueueSize: (_viommu, type) => (type === HW_QUEUE_TYPE.TEGRA241_CMDQV ? HW_QUEUE_CORE_SIZE + VCMDQ_EXTRA : 0),
    hwQueueInitPhys: (queue, index, pa) => vsmmu.smmu.parts.vintfUser.initQueue(cmdqv, user, queue, index, pa),
  };
}

/** The VINTF goes before the VMID does (`tegra241_cmdqv_destroy_vintf_user`, CMDQV-15). */
export function destroyVintf(cmdqv: Tegra241Cmdqv, user: UserVintf, vsmmu: Vsmmu): void {
  const { vintf, viommu, mmapOffset } = user;
  viommu.callbacks.destroyMmap(viommu, mmapOffset);
  switchOff(cmdqv, vintf);
  // No slot: an interrupt that is on its way finds nobody to report to.
  cmdqv.users.delete(vintf.index);
  freeVintf(cmdqv, vsmmu, vintf.index);
}

/** Number of a free pair (kernel: the ida of a VINTF's vSIDs). @throws KernelError ENOSPC, ENOMEM */
export const allocSid = (vintf: Vintf): number => vintf.sids.alloc();

/** A pair for a vDEVICE (`tegra241_vintf_init_vsid`). @throws KernelError EINVAL, EOPNOTSUPP, EBUSY, ENOSPC, ENOMEM */
function initVsid(vintf: Vintf, vsmmu: Vsmmu, vdev: IommufdVdevice): void {
  const { parts } = vintf.smmu;
  if (vdev.virtId >> BigInt(VINTF_SID_MATCH.width('VIRT_SID')) !== 0n)
    throw new KernelError('EINVAL', `vSID 0x${vdev.virtId.toString(16)} has more bits than VIRT_SID`);
  vdeviceInit(vdev);
  // Its translations have another VMID than this VM's commands: CMDQV-2.
  const { vmaster } = masterOf(vdev.dev);
  refuse(
    vmaster !== null && vmaster.vsmmu.vmid !== vsmmu.vmid,
    'EBUSY',
    `${vdev.dev.name} is attached through ${vmaster?.vsmmu.name}`,
  );
  const sid = masterOf(vdev.dev).streams[0]?.sid ?? 0;
  if (sid >= 2 ** VINTF_SID_REPLACE.width('PHYS_SID'))
    throw new KernelError('EINVAL', `StreamID 0x${sid.toString(16)} has more bits than PHYS_SID`);
  const s = parts.vintfUser.allocSid(vintf);
  const pair = [Number(vdev.virtId), sid] as const;
  vintf.pairs.set(s, pair);
  parts.vintf.writeSid(vintf, s, ...pair);
  vdev.destroy = () => {
    vintf.pairs.delete(s);
    parts.vintf.clearSid(vintf, s);
    vintf.sids.free(s);
  };
}

function refuse(broken: boolean, errno: 'EBUSY' | 'EINVAL' | 'EEXIST' | 'EIO' | 'EOPNOTSUPP', why: string): void {
  if (broken) throw new KernelError(errno, why);
}

/** Hardware takes LVCMDQs in ascending order only. @throws KernelError EEXIST, EIO */
export function checkIndex({ hwQueues }: UserVintf, index: number): void {
  refuse(hwQueues.has(index), 'EEXIST', `LVCMDQ ${index} is in use`);
  refuse(index > 0 && !hwQueues.has(index - 1), 'EIO', `LVCMDQ ${index} needs LVCMDQ ${index - 1}`);
}

/** And gives them back in descending order: each keeps the one below. @returns that one */
export function depend(user: UserVintf, queue: IommufdHwQueue, index: number): IommufdHwQueue | undefined {
  const lower = user.hwQueues.get(index - 1);
  if (lower !== undefined) user.viommu.callbacks.hwQueueDepend(queue, lower);
  return lower;
}

/** A VM's queue (`tegra241_vintf_alloc_lvcmdq_user`). @throws KernelError EOPNOTSUPP, EINVAL, EEXIST, EIO, ENOMEM, ETIMEDOUT */
export function initQueue(cmdqv: Tegra241Cmdqv, user: UserVintf, queue: IommufdHwQueue, index: number, pa: Pa): void {
  const { vintf, hwQueues } = user;
  const { kernel, parts } = vintf.smmu;
  refuse(queue.type !== HW_QUEUE_TYPE.TEGRA241_CMDQV, 'EOPNOTSUPP', `hardware queue of type ${queue.type}`);
  refuse(index >= cmdqv.counts.lvcmdqs, 'EINVAL', `index ${index}: a VINTF has ${cmdqv.counts.lvcmdqs} queues`);
  kernel.withLock(vintf.queuesLock, () => {
    parts.vintfUser.checkIndex(user, index);
    parts.vintfUser.checkMemory(vintf, queue.length, pa);
    kernel.alloc('vcmdq-user');
    const lower = parts.vintfUser.depend(user, queue, index);
    const vcmdq: Vcmdq = {
      vintf,
      lvcmdq: index,
      q: cmdqv.globalNumber(vintf.index, index),
      base: pa,
      log2size: Math.log2(Number(queue.length)) - COMMAND_SHIFT,
      cmdq: null,
      enabled: false,
    };
    vintf.queues[index] = vcmdq;
    hwQueues.set(index, queue);
    parts.vintf.mapQueue(vcmdq);
    try {
      parts.vintf.queueInitUser(vcmdq);
    } catch (error) {
      parts.vintf.unmapQueue(vcmdq);
      vintf.queues[index] = null;
      hwQueues.delete(index);
      if (lower !== undefined) user.viommu.callbacks.hwQueueUndepend(queue, lower);
      throw error;
    }
    queue.priv = vcmdq;
    queue.destroy = () => parts.vintfUser.destroyQueue(cmdqv, user, vcmdq, queue, lower);
  });
}

/** Length, then address (`tegra241_vintf_alloc_lvcmdq_user`). */
export function checkMemory(vintf: Vintf, length: bigint, pa: Pa): void {
  const most = 1n << BigInt(vintf.smmu.features.caps.CMDQS + COMMAND_SHIFT);
  const bad = (length & (length - 1n)) !== 0n || length < MIN_QUEUE_BYTES || length > most;
  refuse(bad, 'EINVAL', `${length} bytes: a power of two from ${MIN_QUEUE_BYTES} to ${most} is needed`);
  refuse(
    pa >= PA_LIMIT || pa % length !== 0n,
    'EINVAL',
    `0x${pa.toString(16)} is not aligned to ${length} or too high`,
  );
}

/** Highest queue first: the core sees to that, because each holds the one below (`tegra241_vintf_destroy_lvcmdq_user`). */
export function destroyQueue(
  cmdqv: Tegra241Cmdqv,
  { vintf, viommu, hwQueues }: UserVintf,
  vcmdq: Vcmdq,
  queue: IommufdHwQueue,
  lower: IommufdHwQueue | undefined,
): void {
  const { kernel, parts } = vintf.smmu;
  kernel.withLock(vintf.queuesLock, () => {
    const stopped = parts.vintf.queueDeinit(vcmdq);
    parts.vintf.unmapQueue(vcmdq);
    if (!stopped) cmdqv.stuckQueue(vcmdq.q);
    vintf.queues[vcmdq.lvcmdq] = null;
    hwQueues.delete(vcmdq.lvcmdq);
    if (lower !== undefined) viommu.callbacks.hwQueueUndepend(queue, lower);
  });
}

/** The part as shipped. */
export const vintfUserPart: VintfUserPart = {
  window,
  destroyVintf,
  allocSid,
  checkIndex,
  checkMemory,
  depend,
  initQueue,
  destroyQueue,
  report,
};
