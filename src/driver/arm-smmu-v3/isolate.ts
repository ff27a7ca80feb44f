/** A device that does not answer CMD_ATC_INV (IHI 0070 3.9.1.4). Linux goes on; here the device is cut off. */
import { disableAts } from './pci.ts';
import type { Master, Smmu } from './smmu.ts';

/**
 * Cuts devices off whose ATC may still hold translations that were invalidated: no ATS in the endpoint, an aborting STE
 * with EATS off (translated transactions are then refused, CR0.ATSCHK). They stay attached; a later attach of another
 * domain works without ATS.
 */
export function isolateStreams(smmu: Smmu, sids: readonly number[]): void {
  if (smmu.options.quirks.has('atc-timeout-ignored')) return;
  const masters = new Set<Master>();
  for (const sid of sids) {
    const master = smmu.streams.get(sid)?.master;
    if (master !== undefined && !master.atcBroken) masters.add(master);
  }
  for (const master of masters) {
    master.atcBroken = true;
    smmu.kernel.log('err', `${master.dev.name}: no answer to ATC invalidation; the device is cut off`);
    disableAts(master);
    smmu.parts.attach.installSte(master, smmu.parts.makers.abortSte());
  }
}
