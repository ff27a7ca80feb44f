/** Stream Table Entries as the driver writes them (kernel: `arm_smmu_make_*_ste`; linux-driver 8). */
import { STE, type Words } from '../../../spec/index.ts';
import type { PagingDomain } from './domains.ts';
import type { Master, Smmu } from './smmu.ts';

/** What a stream without SubstreamID does when the STE names a CD table. */
export type S1Dss = 'TERMINATE' | 'BYPASS' | 'SSID0';

/** SHCFG=incoming, where the SMMU can override shareability at all. */
const incoming = (smmu: Smmu): { SHCFG?: 'INCOMING' } => (smmu.features.attrTypesOvr ? { SHCFG: 'INCOMING' } : {});

/** Valid, and everything aborts (`arm_smmu_make_abort_ste`). */
export const makeAbortSte = (): Words => STE.encode({ V: 1, Config: 'ABORT' });

/** Everything passes untranslated (`arm_smmu_make_bypass_ste`). */
export const makeBypassSte = (smmu: Smmu): Words => STE.encode({ V: 1, Config: 'BYPASS', ...incoming(smmu) });

/** Stage 1 through the master's own CD table (`arm_smmu_make_cdtable_ste`). */
export function makeCdTableSte(master: Master, ats: boolean, s1dss: S1Dss): Words {
  const { smmu, cdTable } = master;
  return STE.encode({
    V: 1,
    Config: 'S1_TRANS',
    S1Fmt: cdTable.format,
    S1ContextPtr: cdTable.base >> 6n,
    S1CDMax: master.ssidBits,
    S1DSS: s1dss,
    S1CIR: 'WB_RA',
    S1COR: 'WB_RA',
    S1CSH: 'ISH',
    S1STALLD: smmu.features.stalls && !master.stallEnabled ? 1 : 0,
    EATS: ats ? 'FULL' : 'OFF',
    ...(s1dss === 'BYPASS' ? incoming(smmu) : {}),
    STRW: smmu.features.e2h ? 'EL2' : 'EL1',
  });
}

/** Stage 2 by a domain's table under a VMID (`arm_smmu_make_s2_domain_ste`). */
export function makeS2DomainSte(master: Master, domain: PagingDomain, vmid: number, ats: boolean): Words {
  const { format } = domain.table;
  return STE.encode({
    V: 1,
    Config: 'S2_TRANS',
    EATS: ats ? 'FULL' : 'OFF',
    S2FWB: format.s2fwb ? 1 : 0,
    ...incoming(master.smmu),
    S2VMID: vmid,
    S2T0SZ: format.t0sz,
    S2SL0: format.sl0,
    S2IR0: format.cacheability,
    S2OR0: format.cacheability,
    S2SH0: format.shareability,
    S2TG: format.tg0,
    S2PS: format.ps,
    S2AA64: 'AARCH64',
    S2PTW: 1,
    S2R: 1,
    // With EATS set, S2S=1 is ILLEGAL (5.2, EATS): a device that uses ATS does not stall in stage 2.
    S2S: master.stallEnabled && !ats ? 1 : 0,
    S2TTB: domain.table.root >> 4n,
  });
}

/** The vSTE's fields in the first 64-bit word that reach the hardware. */
const VSTE_WORD0 = STE.mask(['S1Fmt', 'S1ContextPtr', 'S1CDMax']);

/**
 * Both stages: the VM's word 0 and word 1 over the parent's stage 2 (`arm_smmu_make_nested_cd_table_ste`).
 * @param vste its 4 halves, EATS stripped
 */
export function makeNestedCdTableSte(
  master: Master,
  parent: PagingDomain,
  vmid: number,
  vste: Words,
  ats: boolean,
): Words {
  const ste = makeS2DomainSte(master, parent, vmid, ats);
  for (const word of [0, 1]) ste[word] = ((ste[word] ?? 0) | ((vste[word] ?? 0) & (VSTE_WORD0[word] ?? 0))) >>> 0;
  for (const word of [2, 3]) ste[word] = ((ste[word] ?? 0) | (vste[word] ?? 0)) >>> 0;
  STE.set(ste, 'Config', 'NESTED');
  STE.set(ste, 'MEV', 1);
  return ste;
}
