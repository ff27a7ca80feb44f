/** Reset of one SMMU: the register writes of `arm_smmu_device_reset`, in its order. */
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GBPA,
  GERROR_IRQ_CFG0,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_PROD,
  type Register,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../../spec/index.ts';
import { KernelError } from '../kernel.ts';
import { issueWithSync } from './command-batch.ts';
import { cfgiAll, tlbiEl2All, tlbiNsnhAll } from './commands.ts';
import type { HardwareQueue } from './event-queue.ts';
import { registerAt, type Smmu } from './smmu.ts';

const write32 = (smmu: Smmu, register: Register, value: number): void =>
  smmu.kernel.write32Relaxed(`reset:${register.name}`, registerAt(smmu, register), value >>> 0);

const write64 = (smmu: Smmu, register: Register, value: bigint): void =>
  smmu.kernel.write64Relaxed(`reset:${register.name}`, registerAt(smmu, register), value);

export const read32 = (smmu: Pick<Smmu, 'node' | 'kernel'>, register: Register): number =>
  smmu.kernel.read32(`reset:${register.name}`, registerAt(smmu, register));

/** Writes a register and waits until its ACK copy says the same (`arm_smmu_write_reg_sync`). @throws KernelError ETIMEDOUT */
export function writeSync(smmu: Smmu, register: Register, ack: Register, value: number): void {
  smmu.kernel.write32(`reset:${register.name}`, registerAt(smmu, register), value >>> 0);
  if (!smmu.kernel.poll(`${ack.name}`, () => read32(smmu, ack) === value >>> 0))
    throw new KernelError('ETIMEDOUT', `${smmu.name}: ${ack.name} never became 0x${(value >>> 0).toString(16)}`);
}

/** Sets GBPA.ABORT, so that nothing passes while translation is off (`arm_smmu_update_gbpa`). @throws KernelError ETIMEDOUT */
function abortWhileOff(smmu: Smmu): void {
  const update = GBPA.bit('Update');
  const idle = (): boolean => (read32(smmu, GBPA) & update) === 0;
  const wait = (): void => {
    if (!smmu.kernel.poll('GBPA', idle)) throw new KernelError('ETIMEDOUT', `${smmu.name}: GBPA not responding`);
  };
  wait();
  const value = read32(smmu, GBPA) | GBPA.bit('ABORT');
  smmu.kernel.write32('reset:GBPA', registerAt(smmu, GBPA), (value | update) >>> 0);
  wait();
}

function startHardwareQueue(smmu: Smmu, queue: HardwareQueue, base: Register, prod: Register, cons: Register): void {
  const words = base.zero();
  base.set(words, 'WA', 1);
  base.set(words, 'ADDR', queue.setup.base >> 5n);
  base.set(words, 'LOG2SIZE', queue.setup.log2size);
  write64(smmu, base, (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0));
  queue.restart();
  write32(smmu, prod, 0);
  write32(smmu, cons, 0);
}

/** Interrupts off, message addresses cleared: wires are used (`arm_smmu_setup_irqs`, `arm_smmu_setup_msis`). */
function setupInterrupts(smmu: Smmu): void {
  const { pri } = smmu.features;
  writeSync(smmu, IRQ_CTRL, IRQ_CTRLACK, 0);
  write64(smmu, GERROR_IRQ_CFG0, 0n);
  write64(smmu, EVENTQ_IRQ_CFG0, 0n);
  if (pri) write64(smmu, PRIQ_IRQ_CFG0, 0n);
  const enables = IRQ_CTRL.bit('EVENTQ_IRQEN', 'GERROR_IRQEN') | (pri ? IRQ_CTRL.bit('PRIQ_IRQEN') : 0);
  writeSync(smmu, IRQ_CTRL, IRQ_CTRLACK, enables);
}

/** Steps of a reset that a test or the bug zoo wraps. */
export interface ResetPart {
  /** Nothing passes while SMMUEN is 0 (`arm_smmu_update_gbpa`). @throws KernelError ETIMEDOUT */
  abortWhileOff(smmu: Smmu): void;
  /** Everything that hardware caches, each command with its own CMD_SYNC. False: one timed out. */
  invalidateAll(smmu: Smmu): boolean;
  /** Base and indexes of the SMMU's own queue; it is off. */
  startCommandQueue(smmu: Smmu): void;
  /** The Event queue, and the PRI queue if there is one; `enable` sets bits of CR0. */
  startOutputQueues(smmu: Smmu, enable: (bits: number) => void): void;
}

function invalidateAll(smmu: Smmu): boolean {
  const config = issueWithSync(smmu, cfgiAll());
  const el2 = !smmu.features.hyp || issueWithSync(smmu, tlbiEl2All());
  return issueWithSync(smmu, tlbiNsnhAll()) && config && el2;
}

function startCommandQueue(smmu: Smmu): void {
  const { cmdq } = smmu;
  write64(smmu, CMDQ_BASE, CMDQ_BASE.value64({ RA: 1, ADDR: cmdq.base >> 5n, LOG2SIZE: cmdq.log2size }));
  cmdq.restart();
  write32(smmu, CMDQ_PROD, 0);
  write32(smmu, CMDQ_CONS, 0);
}

function startOutputQueues(smmu: Smmu, enable: (bits: number) => void): void {
  startHardwareQueue(smmu, smmu.evtq, EVENTQ_BASE as unknown as Register, EVENTQ_PROD, EVENTQ_CONS);
  enable(CR0.bit('EVENTQEN'));
  if (smmu.priq === null) return;
  startHardwareQueue(smmu, smmu.priq, PRIQ_BASE as unknown as Register, PRIQ_PROD, PRIQ_CONS);
  enable(CR0.bit('PRIQEN'));
}

/** The steps as shipped. */
export const resetPart: ResetPart = { abortWhileOff, invalidateAll, startCommandQueue, startOutputQueues };

/** Whether translation is on now, whoever switched it on. */
export const isEnabled = (smmu: Pick<Smmu, 'node' | 'kernel'>): boolean =>
  (read32(smmu, CR0) & CR0.bit('SMMUEN')) !== 0;

/** Whether the Event queue is on: in a crash kernel, not before a reset ({@link retainSmmu}). */
export const hearsEvents = (smmu: Smmu): boolean => (read32(smmu, CR0) & CR0.bit('EVENTQEN')) !== 0;

/**
 * Takes over an SMMU that is on, and stays on with the Stream table it has: queues are set up anew, everything cached is
 * invalidated while traffic goes on. After a crash the Event and PRI queues stay off: an old stream may fault without end.
 * @throws KernelError ETIMEDOUT
 */
export function retainSmmu(smmu: Smmu): void {
  const { parts, options } = smmu;
  let enables = read32(smmu, CR0) & CR0.bit('SMMUEN', 'ATSCHK', 'VMW');
  const enable = (more: number): void => {
    enables |= more;
    writeSync(smmu, CR0, CR0ACK, enables);
  };
  writeSync(smmu, IRQ_CTRL, IRQ_CTRLACK, 0);
  enable(0);
  // The tables' attributes cannot change while SMMUEN is 1 (6.3.11).
  const tables = read32(smmu, CR1) & CR1.bit('TABLE_SH', 'TABLE_OC', 'TABLE_IC');
  write32(smmu, CR1, tables | CR1.value({ QUEUE_SH: 'ISH', QUEUE_OC: 'WB', QUEUE_IC: 'WB' }));
  parts.reset.startCommandQueue(smmu);
  enable(CR0.bit('CMDQEN'));
  const clean = parts.reset.invalidateAll(smmu);
  smmu.enabled = true;
  if (options.adopt !== 'kdump') {
    // What has stalled meanwhile is recorded as soon as the queue is on; an interrupt that is off then never comes (3.18).
    setupInterrupts(smmu);
    parts.reset.startOutputQueues(smmu, enable);
  }
  smmu.cmdq.settled(clean);
  smmu.impl?.deviceReset?.(smmu);
}

/**
 * Brings an SMMU from any state into operation (`arm_smmu_device_reset`).
 * @throws KernelError ETIMEDOUT if a register does not follow
 */
export function resetSmmu(smmu: Smmu): void {
  const { features, parts } = smmu;
  const on = isEnabled(smmu);
  // Switched off by nobody here: its registers were reset under the driver.
  if (!on && (smmu.enabled || smmu.suspended)) smmu.impl?.deviceLost?.(smmu);
  if (on) {
    smmu.kernel.log('warn', `${smmu.name}: SMMU currently enabled! Resetting...`);
    parts.reset.abortWhileOff(smmu);
  }
  smmu.enabled = false;
  writeSync(smmu, CR0, CR0ACK, 0);
  write32(
    smmu,
    CR1,
    CR1.value({ TABLE_SH: 'ISH', TABLE_OC: 'WB', TABLE_IC: 'WB', QUEUE_SH: 'ISH', QUEUE_OC: 'WB', QUEUE_IC: 'WB' }),
  );
  write32(smmu, CR2, CR2.value({ PTM: 1, RECINVSID: 1, E2H: features.e2h ? 1 : 0 }));
  write64(smmu, STRTAB_BASE, STRTAB_BASE.value64({ RA: 1, ADDR: smmu.strtab.base >> 6n }));
  write32(smmu, STRTAB_BASE_CFG, smmu.strtab.cfg);
  parts.reset.startCommandQueue(smmu);
  let enables = CR0.bit('CMDQEN');
  const enable = (more: number): void => {
    enables |= more;
    writeSync(smmu, CR0, CR0ACK, enables);
  };
  enable(0);
  const clean = parts.reset.invalidateAll(smmu);
  parts.reset.startOutputQueues(smmu, enable);
  if (features.ats) enable(CR0.bit('ATSCHK'));
  setupInterrupts(smmu);
  enable(CR0.bit('SMMUEN'));
  smmu.enabled = true;
  smmu.suspended = false;
  smmu.cmdq.settled(clean);
  smmu.impl?.deviceReset?.(smmu);
}

/** Switches translation and queues off (`arm_smmu_device_disable`). @throws KernelError ETIMEDOUT */
export function disableSmmu(smmu: Smmu): void {
  smmu.enabled = false;
  writeSync(smmu, CR0, CR0ACK, 0);
}
