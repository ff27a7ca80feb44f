/**
 * Which bits of an STE or CD Linux's entry writer takes as used by hardware, and which it may change at any time.
 * Source: Linux 7.2 arm-smmu-v3.c, arm_smmu_get_ste_used(), arm_smmu_get_ste_update_safe(), arm_smmu_get_cd_used().
 */
import { CD } from './cd.ts';
import { layout, slotValue, type Words } from './layout.ts';
import { STE } from './ste.ts';

/** Linux's pointer masks of an STE end at address bit 51, where the fields of the specification end at 55. */
const STE_POINTERS = layout(
  'STE pointers of Linux',
  { bytes: 64, section: 'arm-smmu-v3.h' },
  { S1CTXPTR: { bits: [51, 6], address: 6 }, S2TTB: { bits: [243, 196], address: 4 }, EATS_0: { bits: [92, 92] } },
);

/** Linux's pointer mask of a CD. */
const CD_POINTERS = layout(
  'CD pointers of Linux',
  { bytes: 64, section: 'arm-smmu-v3.h' },
  { TTB0: { bits: [115, 68], address: 4 } },
);

const union = (...masks: readonly Words[]): Words => {
  const out = STE.zero();
  for (const mask of masks) for (let i = 0; i < out.length; i++) out[i] = (out[i] ?? 0) | (mask[i] ?? 0);
  return out;
};

const S1_USED = union(
  STE_POINTERS.mask(['S1CTXPTR']),
  STE.mask(['S1Fmt', 'S1CDMax', 'S1DSS', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD', 'STRW', 'EATS', 'MEV', 'S2VMID']),
);
const S2_USED = union(
  STE_POINTERS.mask(['S2TTB']),
  STE.mask(['S2FWB', 'EATS', 'SHCFG', 'MEV', 'S2VMID']),
  STE.mask(['S2T0SZ', 'S2SL0', 'S2IR0', 'S2OR0', 'S2SH0', 'S2TG', 'S2PS']),
  STE.mask(['S2AA64', 'S2ENDI', 'S2PTW', 'S2S', 'S2R']),
);
const SHCFG_USED = STE.mask(['SHCFG']);
const V_USED = STE.mask(['V']);
const CONFIG_USED = STE.mask(['V', 'Config']);

const V = STE.slot('V');
const CONFIG = STE.slot('Config');
const S1DSS = STE.slot('S1DSS');
const EATS = STE.slot('EATS');
const S2S = STE.slot('S2S');
const CONFIGS = STE.fields.Config.values;
const DSS = STE.fields.S1DSS.values;

/** The bits of Config that turn on stage 1 and stage 2; Linux looks at them whatever the rest of Config says. */
const STAGE1 = CONFIGS.S1_TRANS & ~CONFIGS.BYPASS;
const STAGE2 = CONFIGS.S2_TRANS & ~CONFIGS.BYPASS;

/** What an STE uses that says nothing but its Config and whether S1DSS is BYPASS. */
function usedBy(config: number, s1bypass: boolean): Words {
  let used = CONFIG_USED;
  if ((config & STAGE1) !== 0) {
    used = union(used, S1_USED);
    if (s1bypass) used = union(used, SHCFG_USED);
  }
  if ((config & STAGE2) !== 0) used = union(used, S2_USED);
  if (config === CONFIGS.BYPASS) used = union(used, SHCFG_USED);
  return used;
}

const CONFIG_COUNT = CONFIG.mask + 1;
const USED = Array.from({ length: CONFIG_COUNT }, (_, config) => usedBy(config, false));
const USED_S1BYPASS = Array.from({ length: CONFIG_COUNT }, (_, config) => usedBy(config, true));

/** Ones in the bits of an STE that Linux takes as used; shared, to be read only. Kernel: arm_smmu_get_ste_used(). */
export function linuxSteUsed(ste: Words): Words {
  if (slotValue(ste, V) === 0) return V_USED;
  const used = slotValue(ste, S1DSS) === DSS.BYPASS ? USED_S1BYPASS : USED;
  return used[slotValue(ste, CONFIG)] ?? CONFIG_USED;
}

const MEV_SAFE = STE.mask(['MEV']);
const EATS_SAFE = union(MEV_SAFE, STE_POINTERS.mask(['EATS_0']));

/**
 * Ones in the bits of an STE that Linux may change in any order although both entries use them: MEV, and bit 0 of EATS
 * unless either entry has bit 1 of EATS or S2S set. Shared, to be read only. Kernel: arm_smmu_get_ste_update_safe().
 */
export function linuxSteSafe(from: Words, to: Words): Words {
  const bound = (ste: Words): boolean =>
    (slotValue(ste, EATS) & STE.fields.EATS.values.SPLIT) !== 0 || slotValue(ste, S2S) !== 0;
  return bound(from) || bound(to) ? MEV_SAFE : EATS_SAFE;
}

const CD_V = CD.slot('V');
const EPD0 = CD.slot('EPD0');
const CD_V_USED = CD.mask(['V']);
const CD_TTB0_SET = union(CD.mask(['T0SZ', 'TG0', 'IR0', 'OR0', 'SH0']), CD_POINTERS.mask(['TTB0']));

/** Ones in the bits of a CD that Linux takes as used. Kernel: arm_smmu_get_cd_used(). */
export function linuxCdUsed(cd: Words): Words {
  if (slotValue(cd, CD_V) === 0) return CD_V_USED.slice();
  const used = CD.zero().fill(0xffffffff);
  if (slotValue(cd, EPD0) === 0) return used;
  for (let i = 0; i < used.length; i++) used[i] = (used[i] ?? 0) & ~(CD_TTB0_SET[i] ?? 0);
  return used;
}
