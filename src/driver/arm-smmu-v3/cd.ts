/** Context Descriptors as the driver writes them (kernel: `arm_smmu_make_s1_cd`, `arm_smmu_make_sva_cd`). */
import { CD, type Words } from '../../../spec/index.ts';
import type { MmStruct } from '../iommu/ops.ts';
import type { PagingDomain } from './domains.ts';
import type { Master } from './smmu.ts';

/**
 * Memory attributes 0 to 3: Normal non-cacheable, Normal write-back, Device-nGnRE, Normal outer write-back with inner
 * non-cacheable (`arm_lpae_s1_cfg.mair`).
 */
const MAIR0 = 0xf404ff44;
/** The kernel sign-extends its 32-bit constant: attributes 4 to 7 are all ones. */
const MAIR1 = 0xffffffff;

/** No CD: the SubstreamID is not in use. */
export const makeZeroCd = (): Words => CD.zero();

/** Stage 1 by a domain's table under its ASID (`arm_smmu_make_s1_cd`). */
export function makeS1Cd(master: Master, domain: PagingDomain, asid: number): Words {
  const { format } = domain.table;
  return CD.encode({
    T0SZ: format.t0sz,
    TG0: format.tg0,
    IR0: format.cacheability,
    OR0: format.cacheability,
    SH0: format.shareability,
    EPD1: 1,
    V: 1,
    IPS: format.ps,
    AA64: 'AARCH64',
    S: master.stallEnabled ? 1 : 0,
    R: 1,
    A: 'ABORT',
    ASET: 'PRIVATE',
    ASID: asid,
    ...(format.dirty ? { HA: 1, HD: 1 } : {}),
    TTB0: domain.table.root >> 4n,
    MAIR0,
    MAIR1,
  });
}

/** The CPU kernel's MAIR_EL1: write-back, tagged write-back, non-cacheable, Device-nGnRnE, Device-nGnRE. */
const CPU_MAIR0 = 0x0044ffff;
const CPU_MAIR1 = 0x00000004;

/** A process's address space; without `mm` it has ended and every access terminates (`arm_smmu_make_sva_cd`). */
export function makeSvaCd(master: Master, mm: MmStruct | null, asid: number): Words {
  const { features, options } = master.smmu;
  const bits = features.oas;
  const cd = CD.encode({
    T0SZ: 64 - options.cpu.vaBits,
    TG0: options.cpu.pageSize === 4096 ? '4KB' : options.cpu.pageSize === 16384 ? '16KB' : '64KB',
    IR0: 'WB_RA_WA',
    OR0: 'WB_RA_WA',
    SH0: 'ISH',
    EPD1: 1,
    V: 1,
    IPS: paRange(Math.min(bits, options.cpu.paBits)),
    AA64: 'AARCH64',
    R: 1,
    A: 'ABORT',
    ASET: 'PRIVATE',
    ASID: asid,
    HA: features.ha ? 1 : 0,
    HD: features.hd ? 1 : 0,
    HAFT: features.haft ? 1 : 0,
    S: master.stallEnabled ? 1 : 0,
    MAIR0: CPU_MAIR0,
    MAIR1: CPU_MAIR1,
  });
  if (mm !== null) {
    CD.set(cd, 'TTB0', mm.pgd >> 4n);
    return cd;
  }
  // Stays valid, so that the device sees terminated accesses and no C_BAD_CD.
  CD.set(cd, 'EPD0', 1);
  for (const name of ['T0SZ', 'TG0', 'IR0', 'OR0', 'SH0'] as const) CD.set(cd, name, 0);
  if (!features.stallForce) for (const name of ['S', 'R'] as const) CD.set(cd, name, 0);
  return cd;
}

/** Encoding of a physical address size. */
export function paRange(bits: number): number {
  const sizes = [32, 36, 40, 42, 44, 48, 52];
  const found = sizes.findLastIndex((size) => size <= bits);
  return Math.max(0, found);
}
