/** What a Non-secure STE says about the world of its streams and about VMIDs. Source: IHI 0070 3.3.3, 5.2. */
import type { Caps } from './caps.ts';
import { slotValue, type Words } from './layout.ts';
import { STE } from './ste.ts';

/** The translation regime of a Non-secure stream. EL2 without E2H has no ASIDs and one TTB. */
export type StreamWorld = 'NS-EL1' | 'NS-EL2' | 'NS-EL2-E2H';

const CONFIG = STE.slot('Config');
const STRW = STE.slot('STRW');
const CONFIGS = STE.fields.Config.values;
const WORLDS = STE.fields.STRW.values;

/** Whether stage 1 is on by Config (1x1). */
export function s1Enabled(ste: Words): boolean {
  return (slotValue(ste, CONFIG) & CONFIGS.S1_TRANS) === CONFIGS.S1_TRANS;
}

/** Whether stage 2 is on by Config (11x). */
export function s2Enabled(ste: Words): boolean {
  return (slotValue(ste, CONFIG) & CONFIGS.S2_TRANS) === CONFIGS.S2_TRANS;
}

/** Whether hardware looks at STRW: stage 1 only, on an SMMU with EL2 contexts (IHI 0070 5.2 STRW). */
export function strwUsed(ste: Words, caps: Pick<Caps, 'S1P' | 'Hyp'>): boolean {
  return caps.S1P && caps.Hyp && slotValue(ste, CONFIG) === CONFIGS.S1_TRANS;
}

/** StreamWorld of an STE; undefined if no stage translates. e2h: CR2.E2H. STRW=x1 (ILLEGAL) counts as its bit 1 says. */
export function streamWorld(ste: Words, caps: Pick<Caps, 'S1P' | 'Hyp'>, e2h: boolean): StreamWorld | undefined {
  if (!s1Enabled(ste) && !s2Enabled(ste)) return undefined;
  if (!strwUsed(ste, caps) || (slotValue(ste, STRW) & WORLDS.EL2) === 0) return 'NS-EL1';
  return e2h ? 'NS-EL2-E2H' : 'NS-EL2';
}

/**
 * Whether S2VMID tags the translations of an STE: in every NS-EL1 stream of an SMMU with stage 2, those with stage 1
 * alone included (IHI 0070 5.2 S2VMID, 5.2.2 IgnoreSTES2VMID).
 */
export function vmidUsed(ste: Words, caps: Pick<Caps, 'S1P' | 'S2P' | 'Hyp'>): boolean {
  if (!caps.S2P || (!s1Enabled(ste) && !s2Enabled(ste))) return false;
  return !strwUsed(ste, caps) || slotValue(ste, STRW) === WORLDS.EL1;
}

/** Whether an SMMU has Virtual Machine Structures for Non-secure streams (IHI 0070 5.6.1). */
export function vmsSupported(caps: Pick<Caps, 'MPAM' | 'S1P' | 'S2P' | 'PARTID_MAX'>): boolean {
  return caps.MPAM && caps.S1P && caps.S2P && caps.PARTID_MAX !== 0;
}
