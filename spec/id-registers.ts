/**
 * Identification registers of the Non-secure programming interface: what one SMMU is and can do.
 * Source: IHI 0070 6.3.1 to 6.3.8 and 6.3.45.
 */
import { register } from './layout.ts';

/** Features, part 0: stages, table formats, ATS, stall and termination models (IHI 0070 6.3.1). */
export const IDR0 = register(
  'IDR0',
  { offset: 0x000, width: 32, access: 'RO', section: '6.3.1', text: 'Features, part 0' },
  {
    S2P: { bits: [0, 0], text: 'stage 2 supported' },
    S1P: { bits: [1, 1], text: 'stage 1 supported' },
    TTF: { bits: [3, 2], values: { AARCH32: 1, AARCH64: 2, AARCH32_AARCH64: 3 }, text: 'translation table formats' },
    COHACC: { bits: [4, 4], text: 'walks, structure fetches, queues and MSIs are IO-coherent' },
    BTM: { bits: [5, 5], text: 'receives broadcast TLB maintenance' },
    HTTU: {
      bits: [7, 6],
      values: { NONE: 0, ACCESS: 1, ACCESS_DIRTY: 2, ACCESS_DIRTY_TABLE: 3 },
      text: 'hardware update of Access flag and dirty state',
    },
    DORMHINT: { bits: [8, 8], text: 'STATUSR.DORMANT exists' },
    Hyp: { bits: [9, 9], text: 'EL2 stage 1 contexts (STE.STRW)', when: ['IDR0.S1P', 'IDR0.S2P'] },
    ATS: { bits: [10, 10], text: 'PCIe ATS supported' },
    NS1ATS: {
      bits: [11, 11],
      text: 'split-stage ATS (STE.EATS = 10) is not supported',
      when: ['IDR0.ATS', 'IDR0.S1P', 'IDR0.S2P'],
    },
    ASID16: { bits: [12, 12], values: { BITS_8: 0, BITS_16: 1 }, text: 'width of an ASID' },
    MSI: { bits: [13, 13], text: 'interrupts may be MSIs' },
    SEV: { bits: [14, 14], text: 'can send WFE wake-up events' },
    ATOS: { bits: [15, 15], text: 'address translation operations (GATOS)' },
    PRI: { bits: [16, 16], text: 'PRI queue', when: 'IDR0.ATS' },
    VMW: { bits: [17, 17], text: 'CR0.VMW exists', when: 'IDR0.S2P' },
    VMID16: { bits: [18, 18], values: { BITS_8: 0, BITS_16: 1 }, text: 'width of a VMID' },
    CD2L: { bits: [19, 19], text: 'two-level CD tables supported' },
    VATOS: { bits: [20, 20], text: 'VATOS page', when: 'IDR0.ATOS' },
    TTENDIAN: {
      bits: [22, 21],
      values: { MIXED: 0, LITTLE: 2, BIG: 3 },
      text: 'endianness of translation tables',
    },
    ATSRECERR: { bits: [23, 23], text: 'CR2.REC_CFG_ATS exists', when: 'IDR0.ATS' },
    STALL_MODEL: {
      bits: [25, 24],
      values: { STALL_TERMINATE: 0, NO_STALL: 1, STALL_FORCED: 2 },
      text: 'what a faulting transaction may do',
    },
    TERM_MODEL: {
      bits: [26, 26],
      values: { ABORT_OR_RAZWI: 0, ABORT: 1 },
      text: 'how a faulting transaction may end; 1: CD.A must be 1',
    },
    ST_LEVEL: { bits: [28, 27], values: { LINEAR: 0, TWO_LEVEL: 1 }, text: 'Stream table levels' },
    RES0_29: { bits: [29, 29], reserved: 'RES0' },
    RME_IMPL: { bits: [30, 30], text: 'RME features for the Non-secure interface' },
    RES0_31: { bits: [31, 31], reserved: 'RES0' },
  },
);

/** Features, part 1: sizes of queues, StreamIDs and SubstreamIDs, overrides, presets (IHI 0070 6.3.2). */
export const IDR1 = register(
  'IDR1',
  { offset: 0x004, width: 32, access: 'RO', section: '6.3.2', text: 'Features, part 1: sizes' },
  {
    SIDSIZE: { bits: [5, 0], text: 'StreamID bits, 0 to 32' },
    SSIDSIZE: { bits: [10, 6], text: 'SubstreamID bits, 0 to 20; 0: no substreams' },
    PRIQS: { bits: [15, 11], text: 'log2 of the largest PRI queue', when: 'IDR0.PRI' },
    EVENTQS: { bits: [20, 16], text: 'log2 of the largest Event queue' },
    CMDQS: { bits: [25, 21], text: 'log2 of the largest Command queue' },
    ATTR_PERMS_OVR: { bits: [26, 26], text: 'incoming INST, PRIV and NS can be overridden' },
    ATTR_TYPES_OVR: { bits: [27, 27], text: 'incoming memory type, shareability and hints can be overridden' },
    REL: { bits: [28, 28], values: { ABSOLUTE: 0, RELATIVE: 1 }, text: 'preset addresses count from Page 0' },
    QUEUES_PRESET: { bits: [29, 29], text: 'queue base registers are fixed' },
    TABLES_PRESET: { bits: [30, 30], text: 'Stream table base registers are fixed' },
    ECMDQ: { bits: [31, 31], text: 'enhanced Command queues; IDR6 valid' },
  },
);

/** Features, part 2: where the VATOS page lies (IHI 0070 6.3.3). */
export const IDR2 = register(
  'IDR2',
  { offset: 0x008, width: 32, access: 'RO', section: '6.3.3', text: 'Features, part 2: VATOS page' },
  {
    BA_VATOS: { bits: [9, 0], text: 'VATOS page at 0x20000 + BA_VATOS * 0x10000', when: 'IDR0.VATOS' },
    RES0_31_10: { bits: [31, 10], reserved: 'RES0' },
  },
);

/** Features, part 3: those added since SMMUv3.1 (IHI 0070 6.3.4). */
export const IDR3 = register(
  'IDR3',
  { offset: 0x00c, width: 32, access: 'RO', section: '6.3.4', text: 'Features, part 3' },
  {
    RES0_1_0: { bits: [1, 0], reserved: 'RES0' },
    HAD: { bits: [2, 2], text: 'hierarchical attributes can be disabled (CD.HAD0, CD.HAD1)', when: 'IDR0.S1P' },
    PBHA: { bits: [3, 3], text: 'page-based hardware attributes' },
    XNX: { bits: [4, 4], text: 'stage 2 tells EL0 and EL1 execute-never apart', when: 'IDR0.S2P' },
    PPS: { bits: [5, 5], text: 'PRI auto-response always carries the PASID', when: ['IDR0.PRI', 'IDR1.SSIDSIZE'] },
    RES0_6: { bits: [6, 6], reserved: 'RES0' },
    MPAM: { bits: [7, 7], text: 'MPAM in at least one Security state' },
    FWB: { bits: [8, 8], text: 'STE.S2FWB usable' },
    STT: { bits: [9, 9], text: 'small translation tables' },
    RIL: { bits: [10, 10], text: 'range invalidation and level hints' },
    BBML: { bits: [12, 11], values: { LEVEL_0: 0, LEVEL_1: 1, LEVEL_2: 2 }, text: 'break-before-make level' },
    E0PD: { bits: [13, 13], text: 'CD.E0PD0 and CD.E0PD1' },
    PTWNNC: { bits: [14, 14], text: 'a walk through stage 2 Device memory is made as Normal-NC', when: 'IDR0.S2P' },
    DPT: { bits: [15, 15], text: 'Device Permission Table, STE.EATS = 11', when: 'IDR0.ATS' },
    PASIDTT: { bits: [16, 16], text: 'PASID on ATS Translated transactions', when: ['IDR0.ATS', 'IDR1.SSIDSIZE'] },
    EPAN: { bits: [17, 17], text: 'enhanced PAN' },
    S1PI: { bits: [18, 18], text: 'stage 1 permission indirection', when: 'IDR0.S1P' },
    S2PI: { bits: [19, 19], text: 'stage 2 permission indirection', when: 'IDR0.S2P' },
    S2PO: { bits: [20, 20], text: 'stage 2 permission overlays', when: 'IDR3.S2PI' },
    THE: { bits: [21, 21], text: 'translation hardening', when: 'IDR0.S1P' },
    MTEPERM: { bits: [22, 22], text: 'stage 2 NoTagAccess encodings', when: 'IDR0.S2P' },
    AIE: { bits: [23, 23], text: 'Attribute Index Extension (CD.AIE)', when: 'IDR0.S1P' },
    RES0_31_24: { bits: [31, 24], reserved: 'RES0' },
  },
);

/** Features, part 4: left to the implementation (IHI 0070 6.3.5). */
export const IDR4 = register(
  'IDR4',
  { offset: 0x010, width: 32, access: 'RO', section: '6.3.5', text: 'Features, part 4: IMPLEMENTATION DEFINED' },
  { IMPDEF_31_0: { bits: [31, 0], reserved: 'IMPDEF' } },
);

/** Features, part 5: granules and address sizes (IHI 0070 6.3.6). */
export const IDR5 = register(
  'IDR5',
  { offset: 0x014, width: 32, access: 'RO', section: '6.3.6', text: 'Features, part 5: granules, address sizes' },
  {
    OAS: {
      bits: [2, 0],
      values: { BITS_32: 0, BITS_36: 1, BITS_40: 2, BITS_42: 3, BITS_44: 4, BITS_48: 5, BITS_52: 6, BITS_56: 7 },
      text: 'output address size',
    },
    RES0_3: { bits: [3, 3], reserved: 'RES0' },
    GRAN4K: { bits: [4, 4], text: '4 KB granule' },
    GRAN16K: { bits: [5, 5], text: '16 KB granule' },
    GRAN64K: { bits: [6, 6], text: '64 KB granule' },
    DS: { bits: [7, 7], text: '52-bit sizes with the 4 KB and 16 KB granules' },
    D128: { bits: [8, 8], text: '128-bit descriptors' },
    RES0_9: { bits: [9, 9], reserved: 'RES0' },
    VAX: { bits: [11, 10], values: { BITS_48: 0, BITS_52: 1, BITS_56: 2 }, text: 'virtual address bits of a TTB' },
    RES0_15_12: { bits: [15, 12], reserved: 'RES0' },
    STALL_MAX: { bits: [31, 16], text: 'most stalled transactions outstanding' },
  },
);

/** Features, part 6: enhanced Command queues (IHI 0070 6.3.45). */
export const IDR6 = register(
  'IDR6',
  {
    offset: 0x190,
    width: 32,
    access: 'RO',
    section: '6.3.45',
    when: 'IDR1.ECMDQ',
    text: 'Features, part 6: enhanced Command queues',
  },
  {
    RES0_15_0: { bits: [15, 0], reserved: 'RES0' },
    CMDQ_CONTROL_PAGE_LOG2NUMQ: { bits: [19, 16], text: 'log2 of the queues in a control page, at most 8' },
    RES0_23_20: { bits: [23, 20], reserved: 'RES0' },
    CMDQ_CONTROL_PAGE_LOG2NUMP: { bits: [27, 24], text: 'log2 of the control pages, at most 8' },
    RES0_31_28: { bits: [31, 28], reserved: 'RES0' },
  },
);

/** Who made the SMMU, and which of theirs it is (IHI 0070 6.3.7). */
export const IIDR = register(
  'IIDR',
  { offset: 0x018, width: 32, access: 'RO', section: '6.3.7', text: 'Implementation identification' },
  {
    Implementer: { bits: [11, 0], values: { ARM: 0x43b }, text: 'JEP106 code: continuation 11:8, identity 6:0' },
    Revision: { bits: [15, 12] },
    Variant: { bits: [19, 16] },
    ProductID: {
      bits: [31, 20],
      values: { MMU_600: 0x483, MMU_700: 0x487, MMU_L1: 0x48a, MMU_S3: 0x498 },
      text: 'names are those of Arm products',
    },
  },
);

/** Which version of the architecture the SMMU implements (IHI 0070 6.3.8). */
export const AIDR = register(
  'AIDR',
  { offset: 0x01c, width: 32, access: 'RO', section: '6.3.8', text: 'Architecture identification' },
  {
    ArchMinorRev: { bits: [3, 0], values: { V3_0: 0, V3_1: 1, V3_2: 2, V3_3: 3, V3_4: 4 }, text: 'SMMUv3.x' },
    ArchMajorRev: { bits: [7, 4], values: { SMMUV3: 0 } },
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  },
);
