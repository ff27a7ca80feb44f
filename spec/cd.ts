import {
  ADDRESS_SIZE,
  ENDIANNESS,
  GRANULE_TG0,
  GRANULE_TG1,
  SHAREABILITY,
  STAGE1_PERMISSIONS,
  WALK_CACHEABILITY,
} from './encodings.ts';
import { layout } from './layout.ts';

const PII = { values: STAGE1_PERMISSIONS, when: 'IDR3.S1PI' } as const;
const HWU = { when: 'IDR3.PBHA', text: 'the descriptor bit of this number has an IMPDEF use' } as const;
const HAD = { when: 'IDR3.HAD', text: 'hierarchical attributes are off' } as const;
const DISCH = { when: 'IDR5.D128', text: 'the Contiguous bit of the first level is taken as 0' } as const;
const E0PD = { when: 'IDR3.E0PD', text: 'unprivileged accesses are translation faults' } as const;
const SKL = { when: 'IDR5.D128', text: 'levels skipped by a VMSAv9-128 walk' } as const;
const SH_TEXT = 'shareability of walks; 1 behaves as NSH';

const CONTROL = {
  T0SZ: { bits: [5, 0], text: 'TTB0 covers 64 - T0SZ bits' },
  TG0: { bits: [7, 6], values: GRANULE_TG0, text: 'granule of TTB0' },
  IR0: { bits: [9, 8], values: WALK_CACHEABILITY, text: 'inner cacheability of walks' },
  OR0: { bits: [11, 10], values: WALK_CACHEABILITY, text: 'outer cacheability of walks' },
  SH0: { bits: [13, 12], values: SHAREABILITY, text: SH_TEXT },
  EPD0: { bits: [14, 14], text: 'TTB0 is off' },
  ENDI: { bits: [15, 15], values: ENDIANNESS, text: 'endianness of stage 1 tables' },
  T1SZ: { bits: [21, 16], text: 'TTB1 covers 64 - T1SZ bits' },
  TG1: { bits: [23, 22], values: GRANULE_TG1, text: 'granule of TTB1' },
  IR1: { bits: [25, 24], values: WALK_CACHEABILITY, text: 'inner cacheability of walks' },
  OR1: { bits: [27, 26], values: WALK_CACHEABILITY, text: 'outer cacheability of walks' },
  SH1: { bits: [29, 28], values: SHAREABILITY, text: SH_TEXT },
  EPD1: { bits: [30, 30], text: 'TTB1 is off' },
  V: { bits: [31, 31], text: 'valid; 0: C_BAD_CD' },
  IPS: { bits: [34, 32], values: ADDRESS_SIZE, text: 'output size of stage 1; effective at most OAS' },
  AFFD: { bits: [35, 35], text: 'a clear Access flag does not fault' },
  WXN: { bits: [36, 36], text: 'writable pages do not execute' },
  UWXN: { bits: [37, 37], text: 'pages writable by unprivileged code do not execute privileged; VMSAv8-32' },
  TBI0: { bits: [38, 38], text: 'top byte ignored, TTB0' },
  TBI1: { bits: [39, 39], text: 'top byte ignored, TTB1' },
  PAN: { bits: [40, 40], text: 'privileged access never' },
  AA64: {
    bits: [41, 41],
    values: { AARCH32: 0, AARCH64: 1 },
    text: 'stage 1 table format; 0 is VMSAv9-128 if IDR5.D128=1',
  },
  HD: { bits: [42, 42], text: 'hardware updates the dirty state; needs IDR0.HTTU of 2 or 3' },
  HA: { bits: [43, 43], text: 'hardware updates the Access flag; needs IDR0.HTTU' },
  S: { bits: [44, 44], text: 'faults stall' },
  R: { bits: [45, 45], text: 'faults are recorded' },
  A: { bits: [46, 46], values: { RAZ_WI: 0, ABORT: 1 }, text: 'how a terminated transaction ends' },
  ASET: { bits: [47, 47], values: { SHARED: 0, PRIVATE: 1 }, text: 'whether the ASID is in the set shared with CPUs' },
  ASID: { bits: [63, 48], text: 'ASID; 15:8 must be 0 without ASID16' },
} as const;

const TTB0_TAIL = {
  E0PD0: { bits: [66, 66], ...E0PD },
  HAFT: { bits: [67, 67], when: 'IDR0.HTTU=3', text: 'Access flag of Table descriptors is updated' },
  TTB0: { bits: [119, 68], address: 4, text: 'start table 0; 55:52 are 0 unless VMSAv9-128' },
  RES0_121_120: { bits: [121, 120], reserved: 'RES0' },
  PnCH: { bits: [122, 122], when: 'IDR3.THE', text: 'descriptor bit 52 is Protected, not Contiguous' },
  EPAN: { bits: [123, 123], when: 'IDR3.EPAN', text: 'PAN covers unprivileged-executable pages' },
  HWU059: { bits: [124, 124], ...HWU },
  HWU060: { bits: [125, 125], ...HWU },
} as const;

const TTB1_TAIL = {
  E0PD1: { bits: [130, 130], ...E0PD },
  AIE: { bits: [131, 131], when: 'IDR3.AIE', text: 'AttrIndx has 4 bits' },
  TTB1: { bits: [183, 132], address: 4, text: 'start table 1; 55:52 are 0 unless VMSAv9-128' },
  RES0_185_184: { bits: [185, 184], reserved: 'RES0' },
  DS: { bits: [186, 186], when: 'IDR5.DS', text: '52-bit sizes with the 4 KB and 16 KB granules' },
  PIE: { bits: [187, 187], when: 'IDR3.S1PI', text: 'stage 1 permission indirection; needs STE.S1PIE' },
  HWU159: { bits: [188, 188], ...HWU },
  HWU160: { bits: [189, 189], ...HWU },
} as const;

const ATTRIBUTES = {
  MAIR0: { bits: [223, 192], text: 'memory attributes 0 to 3, a byte each' },
  MAIR1: { bits: [255, 224], text: 'memory attributes 4 to 7, a byte each' },
  AMAIR0: { bits: [287, 256], text: 'auxiliary attributes, IMPLEMENTATION DEFINED' },
  AMAIR1: { bits: [319, 288], text: 'auxiliary attributes, IMPLEMENTATION DEFINED' },
  IMPDEF_351_320: { bits: [351, 320], reserved: 'IMPDEF' },
  PARTID: { bits: [367, 352], when: 'IDR3.MPAM', text: 'MPAM PARTID; virtual if nested; needs STE.S1MPAM' },
  PMG: { bits: [375, 368], when: 'IDR3.MPAM', text: 'MPAM performance monitoring group' },
  RES0_383_376: { bits: [383, 376], reserved: 'RES0' },
  PIIU0: { bits: [386, 384], ...PII, text: 'unprivileged permissions of index 0' },
  PIIU1: { bits: [389, 387], ...PII, text: 'unprivileged permissions of index 1' },
  PIIU2: { bits: [392, 390], ...PII, text: 'unprivileged permissions of index 2' },
  PIIU3: { bits: [395, 393], ...PII, text: 'unprivileged permissions of index 3' },
  PIIU4: { bits: [398, 396], ...PII, text: 'unprivileged permissions of index 4' },
  PIIU5: { bits: [401, 399], ...PII, text: 'unprivileged permissions of index 5' },
  PIIU6: { bits: [404, 402], ...PII, text: 'unprivileged permissions of index 6' },
  PIIU7: { bits: [407, 405], ...PII, text: 'unprivileged permissions of index 7' },
  PIIU8: { bits: [410, 408], ...PII, text: 'unprivileged permissions of index 8' },
  PIIU9: { bits: [413, 411], ...PII, text: 'unprivileged permissions of index 9' },
  PIIU10: { bits: [416, 414], ...PII, text: 'unprivileged permissions of index 10' },
  PIIU11: { bits: [419, 417], ...PII, text: 'unprivileged permissions of index 11' },
  PIIU12: { bits: [422, 420], ...PII, text: 'unprivileged permissions of index 12' },
  PIIU13: { bits: [425, 423], ...PII, text: 'unprivileged permissions of index 13' },
  PIIU14: { bits: [428, 426], ...PII, text: 'unprivileged permissions of index 14' },
  PIIU15: { bits: [431, 429], ...PII, text: 'unprivileged permissions of index 15' },
  RES0_447_432: { bits: [447, 432], reserved: 'RES0' },
  PIIP0: { bits: [450, 448], ...PII, text: 'privileged permissions of index 0' },
  PIIP1: { bits: [453, 451], ...PII, text: 'privileged permissions of index 1' },
  PIIP2: { bits: [456, 454], ...PII, text: 'privileged permissions of index 2' },
  PIIP3: { bits: [459, 457], ...PII, text: 'privileged permissions of index 3' },
  PIIP4: { bits: [462, 460], ...PII, text: 'privileged permissions of index 4' },
  PIIP5: { bits: [465, 463], ...PII, text: 'privileged permissions of index 5' },
  PIIP6: { bits: [468, 466], ...PII, text: 'privileged permissions of index 6' },
  PIIP7: { bits: [471, 469], ...PII, text: 'privileged permissions of index 7' },
  PIIP8: { bits: [474, 472], ...PII, text: 'privileged permissions of index 8' },
  PIIP9: { bits: [477, 475], ...PII, text: 'privileged permissions of index 9' },
  PIIP10: { bits: [480, 478], ...PII, text: 'privileged permissions of index 10' },
  PIIP11: { bits: [483, 481], ...PII, text: 'privileged permissions of index 11' },
  PIIP12: { bits: [486, 484], ...PII, text: 'privileged permissions of index 12' },
  PIIP13: { bits: [489, 487], ...PII, text: 'privileged permissions of index 13' },
  PIIP14: { bits: [492, 490], ...PII, text: 'privileged permissions of index 14' },
  PIIP15: { bits: [495, 493], ...PII, text: 'privileged permissions of index 15' },
  RES0_511_496: { bits: [511, 496], reserved: 'RES0' },
} as const;

/**
 * Context Descriptor: 64 bytes, stage 1 of one stream or substream (IHI 0070 5.4).
 * This is the layout of an SMMU with IDR5.D128=0; {@link CD_D128} is that of one with D128=1.
 */
export const CD = layout(
  'CD',
  { bytes: 64, section: '5.4', text: 'Context Descriptor' },
  {
    ...CONTROL,
    NSCFG0: { bits: [64, 64], when: 'S_IDR1.SECURE_IMPL', text: 'NS of the first fetch through TTB0; Secure only' },
    HAD0: { bits: [65, 65], ...HAD },
    ...TTB0_TAIL,
    HWU061: { bits: [126, 126], ...HWU },
    HWU062: { bits: [127, 127], ...HWU },
    NSCFG1: { bits: [128, 128], when: 'S_IDR1.SECURE_IMPL', text: 'NS of the first fetch through TTB1; Secure only' },
    HAD1: { bits: [129, 129], ...HAD },
    ...TTB1_TAIL,
    HWU161: { bits: [190, 190], ...HWU },
    HWU162: { bits: [191, 191], ...HWU },
    ...ATTRIBUTES,
  },
);

/** Context Descriptor of an SMMU with IDR5.D128=1: six bits of {@link CD} have another meaning (IHI 0070 5.4). */
export const CD_D128 = layout(
  'CD_D128',
  { bytes: 64, section: '5.4', text: 'Context Descriptor, IDR5.D128=1' },
  {
    ...CONTROL,
    NSCFG0: { bits: [64, 64], when: 'S_IDR1.SECURE_IMPL', text: 'NS of the first fetch through TTB0; Secure only' },
    DisCH0: { bits: [65, 65], ...DISCH },
    ...TTB0_TAIL,
    SKL0: { bits: [127, 126], ...SKL },
    NSCFG1: { bits: [128, 128], when: 'S_IDR1.SECURE_IMPL', text: 'NS of the first fetch through TTB1; Secure only' },
    DisCH1: { bits: [129, 129], ...DISCH },
    ...TTB1_TAIL,
    SKL1: { bits: [191, 190], ...SKL },
    ...ATTRIBUTES,
  },
);
