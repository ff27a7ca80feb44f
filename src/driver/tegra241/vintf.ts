/**
 * VINTFs and their queues in hardware (kernel: `struct tegra241_vintf`, `struct tegra241_vcmdq`): the register sequences
 * of init, deinit, mapping and StreamID pairs. The driver reaches them through {@link VintfPart}, so that a test or a bug
 * of the zoo can wrap one.
 */
import {
  CMD_SYNC,
  CMDQV_CMDQ_ALLOC,
  VCMDQ_BASE,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_CONS_INDX_BASE,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
  VINTF_CONFIG,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  VINTF_STATUS,
} from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import { issueList } from '../arm-smmu-v3/command-batch.ts';
import type { CommandQueue } from '../arm-smmu-v3/command-queue.ts';
import type { Smmu } from '../arm-smmu-v3/smmu.ts';
import { type IdAllocator, KernelError, type Lock } from '../kernel.ts';
import type { CmdqvRegisters, Place } from './registers.ts';

/** A queue of a VINTF. */
export interface Vcmdq {
  readonly vintf: Vintf;
  /** Number inside the VINTF, and inside the CMDQV. */
  readonly lvcmdq: number;
  readonly q: number;
  /** BASE as written: address and log2 of the number of entries. */
  readonly base: Pa;
  readonly log2size: number;
  /** The kernel's own queue; null for a VM's. */
  readonly cmdq: CommandQueue | null;
  enabled: boolean;
}

/** A virtual interface. */
export interface Vintf {
  readonly index: number;
  readonly smmu: Smmu;
  readonly regs: CmdqvRegisters;
  /** 0 for the host's own. */
  readonly vmid: number;
  /** As read back from CONFIG. */
  hypOwn: boolean;
  enabled: boolean;
  /** By LVCMDQ. */
  readonly queues: (Vcmdq | null)[];
  readonly queuesLock: Lock;
  /** StreamID pairs. */
  readonly sids: IdAllocator;
  readonly numSids: number;
  /** Pairs in use: [virtual, physical] StreamID by number. */
  readonly pairs: Map<number, readonly [virtSid: number, physSid: number]>;
}

/** Register sequences on VINTFs; see the module comment. */
export interface VintfPart {
  readonly hwInit: typeof hwInit;
  readonly hwDeinit: typeof hwDeinit;
  readonly mapQueue: typeof mapQueue;
  readonly unmapQueue: typeof unmapQueue;
  readonly queueInit: typeof queueInit;
  readonly queueInitUser: typeof queueInitUser;
  readonly queueDeinit: typeof queueDeinit;
  readonly flushTimeout: typeof flushTimeout;
  readonly writeSid: typeof writeSid;
  readonly clearSid: typeof clearSid;
}

const nameOf = ({ smmu, index }: Vintf): string => `${smmu.name}: VINTF${index}`;
const queueName = (queue: Vcmdq): string => `${nameOf(queue.vintf)}: VCMDQ${queue.q}/LVCMDQ${queue.lvcmdq}`;
const ALLOCATED = CMDQV_CMDQ_ALLOC.bit('ALLOCATED');

function vintfConfigure(vintf: Vintf, value: number): boolean {
  const { regs, index } = vintf;
  const config: Place = { register: VINTF_CONFIG, at: regs.vintf(index, VINTF_CONFIG) };
  const status: Place = { register: VINTF_STATUS, at: regs.vintf(index, VINTF_STATUS) };
  const done = regs.configure('vintf', nameOf(vintf), config, status, value);
  if (done) vintf.enabled = (value & VINTF_CONFIG.bit('EN')) !== 0;
  return done;
}

function queueConfigure(queue: Vcmdq, value: number): boolean {
  const { regs, index } = queue.vintf;
  const place = (register: typeof VCMDQ_CONFIG | typeof VCMDQ_STATUS): Place => ({
    register,
    at: regs.lvcmdq(index, queue.lvcmdq, register),
  });
  const done = regs.configure('vcmdq', queueName(queue), place(VCMDQ_CONFIG), place(VCMDQ_STATUS), value);
  if (done) queue.enabled = (value & VCMDQ_CONFIG.bit('CMDQ_EN')) !== 0;
  return done;
}

/** Toggles ALLOCATED only; VINTF and LVCMDQ were written at reset (`tegra241_vintf_map_lvcmdq`). */
export function mapQueue({ vintf: { regs }, q }: Vcmdq): void {
  const at = regs.global(CMDQV_CMDQ_ALLOC, q);
  regs.write32(CMDQV_CMDQ_ALLOC, at, regs.read32(CMDQV_CMDQ_ALLOC, at) | ALLOCATED);
}

/** `tegra241_vintf_unmap_lvcmdq` */
export function unmapQueue({ vintf: { regs }, q }: Vcmdq): void {
  const at = regs.global(CMDQV_CMDQ_ALLOC, q);
  regs.write32(CMDQV_CMDQ_ALLOC, at, regs.read32(CMDQV_CMDQ_ALLOC, at) & ~ALLOCATED);
}

/**
 * Clears an ATC time-out that the queue holds, so that its next owner does not get it: a CMD_SYNC on the SMMU's own
 * queue, waited for by another (`tegra241_vcmdq_hw_flush_timeout`).
 */
export function flushTimeout({ smmu }: Vintf): void {
  issueList(smmu, smmu.cmdq, [CMD_SYNC.encode({})], true);
}

/**
 * Stops a queue and clears its registers (`tegra241_vcmdq_hw_deinit`). False: it never stopped.
 *
 * What a queue that may run fetches is said by them: Linux clears them all the same; here it is told to stop once more,
 * and if that is in vain too they are left alone.
 */
export function queueDeinit(queue: Vcmdq): boolean {
  const { vintf, lvcmdq } = queue;
  const { regs, index, smmu } = vintf;
  const at = (register: Parameters<CmdqvRegisters['lvcmdq']>[2]): Pa => regs.lvcmdq(index, lvcmdq, register);
  const stopped = queueConfigure(queue, 0) || queueConfigure(queue, 0);
  if (!stopped) {
    const show = [VCMDQ_GERRORN, VCMDQ_GERROR, VCMDQ_CONS].map(
      (register) => `${register.name}=0x${regs.read32(register, at(register)).toString(16)}`,
    );
    smmu.kernel.log('err', `${queueName(queue)}: ${show.join(', ')}`);
  }
  smmu.parts.vintf.flushTimeout(vintf);
  if (!stopped) return false;
  regs.write32Relaxed(VCMDQ_PROD, at(VCMDQ_PROD), 0);
  regs.write32Relaxed(VCMDQ_CONS, at(VCMDQ_CONS), 0);
  regs.write64Relaxed(VCMDQ_BASE, at(VCMDQ_BASE), 0n);
  regs.write64Relaxed(VCMDQ_CONS_INDX_BASE, at(VCMDQ_CONS_INDX_BASE), 0n);
  const gerrorn = regs.read32(VCMDQ_GERRORN, at(VCMDQ_GERRORN));
  const gerror = regs.read32(VCMDQ_GERROR, at(VCMDQ_GERROR));
  if (gerror !== gerrorn) {
    smmu.kernel.log('warn', `${queueName(queue)}: uncleared error detected, resetting`);
    regs.write32(VCMDQ_GERRORN, at(VCMDQ_GERRORN), gerror);
  }
  return true;
}

function writeBase(queue: Vcmdq): void {
  const { regs, index } = queue.vintf;
  const value = VCMDQ_BASE.value64({
    ADDR: queue.base >> BigInt(VCMDQ_BASE.field('ADDR').address ?? 0),
    LOG2SIZE: queue.log2size,
  });
  regs.write64Relaxed(VCMDQ_BASE, regs.lvcmdq(index, queue.lvcmdq, VCMDQ_BASE), value);
}

/** Nothing is written to a queue that runs. @throws KernelError ETIMEDOUT */
function stop(queue: Vcmdq): void {
  if (!queue.vintf.smmu.parts.vintf.queueDeinit(queue))
    throw new KernelError('ETIMEDOUT', `${queueName(queue)} does not stop`);
}

/** Starts a queue of the kernel's (`tegra241_vcmdq_hw_init`). @throws KernelError ETIMEDOUT */
export function queueInit(queue: Vcmdq): void {
  stop(queue);
  queue.cmdq?.restart();
  writeBase(queue);
  if (!queueConfigure(queue, VCMDQ_CONFIG.bit('CMDQ_EN')))
    throw new KernelError('ETIMEDOUT', `${queueName(queue)} does not start`);
  // The reset of the SMMU, of which this is the last step, has invalidated everything.
  queue.cmdq?.settled(true);
}

/**
 * Prepares a queue for a VM, which starts it through page 0 (`tegra241_vcmdq_hw_init_user`).
 * @throws KernelError ETIMEDOUT: it still runs, for whoever had it before
 */
export function queueInitUser(queue: Vcmdq): void {
  stop(queue);
  writeBase(queue);
}

/** Writes a pair: the physical StreamID before the match that makes it count (`tegra241_vintf_init_vsid`). */
export function writeSid({ regs, index }: Vintf, s: number, virtSid: number, physSid: number): void {
  regs.write32(
    VINTF_SID_REPLACE,
    regs.vintf(index, VINTF_SID_REPLACE, s),
    VINTF_SID_REPLACE.value({ PHYS_SID: physSid }),
  );
  const match = VINTF_SID_MATCH.value({ VIRT_SID: virtSid, ENABLE: 1 });
  regs.write32(VINTF_SID_MATCH, regs.vintf(index, VINTF_SID_MATCH, s), match);
}

/** Clears a pair: the match first (`tegra241_vintf_destroy_vsid`). */
export function clearSid({ regs, index }: Vintf, s: number): void {
  regs.write32(VINTF_SID_MATCH, regs.vintf(index, VINTF_SID_MATCH, s), 0);
  regs.write32(VINTF_SID_REPLACE, regs.vintf(index, VINTF_SID_REPLACE, s), 0);
}

/**
 * Switches a VINTF off: queues from the highest down, then the VINTF, then its pairs (`tegra241_vintf_hw_deinit`).
 * False: hardware may still use its VMID.
 */
export function hwDeinit(vintf: Vintf): boolean {
  const { parts } = vintf.smmu;
  for (const queue of vintf.queues.toReversed()) {
    if (queue === null) continue;
    parts.vintf.queueDeinit(queue);
    parts.vintf.unmapQueue(queue);
  }
  const off = vintfConfigure(vintf, 0);
  for (let s = 0; s < vintf.numSids; s++) parts.vintf.clearSid(vintf, s);
  return off;
}

/**
 * Switches a VINTF on with its VMID, and starts the queues and pairs that it has (`tegra241_vintf_hw_init`).
 * @throws KernelError ETIMEDOUT
 */
export function hwInit(vintf: Vintf, hypOwn: boolean): void {
  const { smmu, regs, index } = vintf;
  const { parts } = smmu;
  parts.vintf.hwDeinit(vintf);
  const config = regs.vintf(index, VINTF_CONFIG);
  const value = VINTF_CONFIG.value({ VMID: vintf.vmid, HYP_OWN: hypOwn ? 1 : 0 });
  // VMID before EN: hardware must never see the VINTF enabled with another one (CMDQV-13).
  regs.write32(VINTF_CONFIG, config, value);
  if (!vintfConfigure(vintf, value | VINTF_CONFIG.bit('EN')))
    throw new KernelError('ETIMEDOUT', `${nameOf(vintf)} does not become enabled`);
  // Wired to 0 in a VM, whatever was written.
  vintf.hypOwn = VINTF_CONFIG.of(regs.read32(VINTF_CONFIG, config), 'HYP_OWN') === 1;
  for (const queue of vintf.queues) {
    if (queue === null) continue;
    parts.vintf.mapQueue(queue);
    try {
      if (queue.cmdq === null) parts.vintf.queueInitUser(queue);
      else parts.vintf.queueInit(queue);
    } catch (error) {
      parts.vintf.hwDeinit(vintf);
      throw error;
    }
  }
  for (const [s, [virtSid, physSid]] of vintf.pairs) parts.vintf.writeSid(vintf, s, virtSid, physSid);
}

/** The part as shipped. */
export const vintfPart: VintfPart = {
  hwInit,
  hwDeinit,
  mapQueue,
  unmapQueue,
  queueInit,
  queueInitUser,
  queueDeinit,
  flushTimeout,
  writeSid,
  clearSid,
};
