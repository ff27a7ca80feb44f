/**
 * Suspend and resume of one SMMU. Linux 7.2 has neither; the order is that of "iommu/arm-smmu-v3: Implement Runtime/System
 * Sleep ops" (Pranjal Shrivastava, v5 January 2026 to v9): traffic aborts, the SMMU goes off and its queue stops; resume
 * is a device reset. Stream table, CDs and page tables stay in memory all the time.
 */
import { CR0, CR0ACK } from '../../../spec/index.ts';
import { atcInvMaster } from './attach.ts';
import { issueWithSync } from './command-batch.ts';
import { drainEvents } from './events.ts';
import { disableAts, enableAts } from './pci.ts';
import { disableSmmu, isEnabled, resetSmmu, writeSync } from './reset.ts';
import type { Master, Smmu } from './smmu.ts';

/** Every device behind an SMMU, once, by StreamID. */
function mastersOf(smmu: Smmu): Master[] {
  return [...new Set([...smmu.streams.values()].map(({ master }) => master))];
}

/**
 * Switches an SMMU off for a while (`arm_smmu_runtime_suspend`). From here on entries are changed in memory alone, and
 * what is given up waits for {@link resumeSmmu}: hardware may still cache it. Suspended already: nothing happens.
 * @throws KernelError ETIMEDOUT
 */
export function suspendSmmu(smmu: Smmu): void {
  if (smmu.suspended) return;
  stopAts(smmu);
  // Before SMMUEN: nothing may pass untranslated in between.
  smmu.parts.reset.abortWhileOff(smmu);
  writeSync(smmu, CR0, CR0ACK, CR0.bit('CMDQEN'));
  smmu.enabled = false;
  // Hardware has ended all stalls with SMMUEN (6.3.9.6); their tags mean nothing afterwards.
  drainEvents(smmu);
  for (const master of mastersOf(smmu)) master.stalls.clear();
  smmu.impl?.deviceSuspend?.(smmu);
  issueWithSync(smmu);
  smmu.cmdq.stop();
  smmu.suspended = true;
  disableSmmu(smmu);
}

/**
 * Brings an SMMU back (`arm_smmu_runtime_resume`), whether or not its registers and caches were lost: also one that lost
 * them without a suspend. Endpoints kept their ATCs, and CMD_ATC_INV does nothing while SMMUEN is 0 (4.5.1).
 * @throws KernelError ETIMEDOUT
 */
export function resumeSmmu(smmu: Smmu): void {
  if (isEnabled(smmu)) stopAts(smmu);
  resetSmmu(smmu);
  for (const master of mastersOf(smmu)) {
    master.stalls.clear();
    if (!master.atsEnabled) continue;
    flushAtc(master);
    enableAts(master);
  }
}

/** Endpoints use no translations of an SMMU that is off (3.9.2). */
export function stopAts(smmu: Smmu): void {
  for (const master of mastersOf(smmu)) {
    if (!master.atsEnabled) continue;
    disableAts(master);
    flushAtc(master);
  }
}

/** Everything that a device caches, with PASIDs and without. */
function flushAtc(master: Master): void {
  atcInvMaster(master, 0);
  for (const ssid of master.records.keys()) if (ssid !== 0) atcInvMaster(master, ssid);
}
