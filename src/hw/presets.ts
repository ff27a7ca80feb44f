/** Ready-made configurations. Plain objects, so that using one costs no validator. */
import type { SmmuConfig } from './config.ts';
import { DEFAULT_TLB } from './tlb.ts';

/** The least that translates: stage 1, 4 KB granule, one level of everything, v3.1, no interrupts but wires. */
export const minimal: SmmuConfig = {
  IDR0: {
    S1P: 1,
    TTF: 'AARCH64',
    COHACC: 1,
    TTENDIAN: 'LITTLE',
    STALL_MODEL: 'NO_STALL',
    TERM_MODEL: 'ABORT',
    ST_LEVEL: 'LINEAR',
  },
  IDR1: { SIDSIZE: 6, CMDQS: 8, EVENTQS: 7 },
  IDR3: { HAD: 1 },
  IDR5: { GRAN4K: 1, OAS: 'BITS_40' },
  AIDR: { ArchMinorRev: 'V3_1' },
};

/** CoreSight identification as QEMU shows it (`smmuv3_idreg`). */
const QEMU_ID_REGS = {
  PIDR4: 0x04n,
  PIDR0: 0x84n,
  PIDR1: 0xb4n,
  PIDR2: 0xf0n,
  PIDR3: 0x10n,
  CIDR0: 0x0dn,
  CIDR1: 0xf0n,
  CIDR2: 0x05n,
  CIDR3: 0xb1n,
} as const;

/** QEMU's emulated SMMUv3 with both stages: the values that QEMU 11.1 reads (`-machine virt,iommu=smmuv3`). */
export const qemuVirt: SmmuConfig = {
  IDR0: {
    S2P: 1,
    S1P: 1,
    TTF: 'AARCH64',
    COHACC: 1,
    ASID16: 'BITS_16',
    VMID16: 'BITS_16',
    TTENDIAN: 'LITTLE',
    STALL_MODEL: 'NO_STALL',
    TERM_MODEL: 'ABORT',
    ST_LEVEL: 'TWO_LEVEL',
  },
  IDR1: { SIDSIZE: 16, CMDQS: 19, EVENTQS: 19 },
  IDR3: { HAD: 1, XNX: 1, RIL: 1, BBML: 'LEVEL_2' },
  IDR5: { GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, OAS: 'BITS_44' },
  AIDR: { ArchMinorRev: 'V3_1' },
  options: {
    reset: { GBPA: 0x1000n, CMDQ_BASE: 19n, EVENTQ_BASE: 19n, ...QEMU_ID_REGS },
    page1Undefined: 'alias',
    tlb: { ...DEFAULT_TLB, asidDropsGlobals: true },
  },
};

/** What Linux needs for nested translation with vIOMMUs, PASIDs, stalling devices, ATS and PRI: v3.2, S2FWB, 48-bit addresses. */
export const linuxNesting: SmmuConfig = {
  IDR0: {
    ...qemuVirt.IDR0,
    Hyp: 1,
    MSI: 1,
    ATS: 1,
    PRI: 1,
    ATSRECERR: 1,
    CD2L: 1,
    STALL_MODEL: 'STALL_TERMINATE',
    TERM_MODEL: 'ABORT_OR_RAZWI',
  },
  IDR1: { SIDSIZE: 16, SSIDSIZE: 20, CMDQS: 19, EVENTQS: 19, PRIQS: 19, ATTR_TYPES_OVR: 1 },
  IDR3: { HAD: 1, XNX: 1, FWB: 1, RIL: 1, BBML: 'LEVEL_2' },
  IDR5: { GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, OAS: 'BITS_48', STALL_MAX: 16 },
  AIDR: { ArchMinorRev: 'V3_2' },
};

/** {@link linuxNesting} with 8-bit VMIDs: 255 of them, so that exhaustion is near. */
export const smallVmid: SmmuConfig = {
  ...linuxNesting,
  IDR0: { ...linuxNesting.IDR0, VMID16: 'BITS_8' },
};

/** Everything this model implements, v3.3: 52-bit addresses, both endiannesses, ATOS, ECMDQs, broadcasts, MPAM with VMS. */
export const full: SmmuConfig = {
  IDR0: {
    ...linuxNesting.IDR0,
    HTTU: 'ACCESS_DIRTY_TABLE',
    BTM: 1,
    VMW: 1,
    SEV: 1,
    ATOS: 1,
    VATOS: 1,
    TTENDIAN: 'MIXED',
  },
  IDR1: { ...linuxNesting.IDR1, ATTR_PERMS_OVR: 1, ECMDQ: 1, SIDSIZE: 24 },
  IDR3: { ...linuxNesting.IDR3, MPAM: 1, PPS: 1, STT: 1, E0PD: 1, PTWNNC: 1, EPAN: 1 },
  IDR5: { ...linuxNesting.IDR5, OAS: 'BITS_52', DS: 1, VAX: 'BITS_52' },
  IDR6: { CMDQ_CONTROL_PAGE_LOG2NUMP: 1, CMDQ_CONTROL_PAGE_LOG2NUMQ: 4 },
  AIDR: { ArchMinorRev: 'V3_3' },
  MPAMIDR: { PARTID_MAX: 255, PMG_MAX: 3 },
  options: { eventMerging: 'drawn' },
};

/**
 * Arm CoreLink MMU-700, v3.2, as far as this model goes. Little of its ID registers is public; docs/impdef.md says where
 * each value comes from and which are assumed.
 */
export const mmu700: SmmuConfig = {
  IDR0: {
    S2P: 1,
    S1P: 1,
    TTF: 'AARCH64',
    COHACC: 1,
    BTM: 1,
    HTTU: 'ACCESS_DIRTY',
    Hyp: 1,
    ATS: 1,
    NS1ATS: 1,
    ASID16: 'BITS_16',
    MSI: 1,
    SEV: 1,
    PRI: 1,
    VMW: 1,
    VMID16: 'BITS_16',
    CD2L: 1,
    TTENDIAN: 'MIXED',
    STALL_MODEL: 'STALL_TERMINATE',
    TERM_MODEL: 'ABORT_OR_RAZWI',
    ST_LEVEL: 'TWO_LEVEL',
  },
  IDR1: { SIDSIZE: 24, SSIDSIZE: 20, CMDQS: 19, EVENTQS: 19, PRIQS: 19, ATTR_TYPES_OVR: 1, ATTR_PERMS_OVR: 1 },
  IDR3: { HAD: 1, XNX: 1, PPS: 1, MPAM: 1, FWB: 1, STT: 1, RIL: 1, BBML: 'LEVEL_1' },
  IDR5: { GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, OAS: 'BITS_48', STALL_MAX: 64 },
  IIDR: { ProductID: 0x487, Variant: 1, Revision: 1, Implementer: 0x43b },
  AIDR: { ArchMinorRev: 'V3_2' },
  MPAMIDR: { PARTID_MAX: 511, PMG_MAX: 1 },
};

/**
 * The SMMU of NVIDIA Grace: 48-bit addresses, 20-bit SubstreamIDs, no range invalidation, and so v3.1, without S2FWB.
 * docs/impdef.md says where each value comes from; what is not public is that of an MMU-600.
 */
export const graceSmmu: SmmuConfig = {
  IDR0: { ...mmu700.IDR0, HTTU: 'NONE' },
  IDR1: mmu700.IDR1,
  IDR3: { HAD: 1, XNX: 1, PPS: 1 },
  IDR5: mmu700.IDR5,
  AIDR: { ArchMinorRev: 'V3_1' },
};

/** All presets by name. */
export const PRESETS = { minimal, qemuVirt, linuxNesting, smallVmid, mmu700, grace: graceSmmu, full } as const;
