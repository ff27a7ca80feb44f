/**
 * PCI Express extended capabilities that an IOMMU driver sets: ATS, PRI and PASID. Source: PCI Express Base
 * Specification 5.0, 7.6.3, 7.8.8, 10.5.1, 10.5.2.
 */
import { layout } from './layout.ts';

/** Where extended capabilities begin. */
export const PCI_EXT_CAPS = 0x100;

/** Extended capability ids. */
export const PCI_EXT_CAP = { ATS: 0x000f, PRI: 0x0013, PASID: 0x001b } as const;

/** Header of an extended capability (7.6.3). */
export const PCI_EXT_CAP_HEADER = layout(
  'PCI_EXT_CAP_HEADER',
  { bytes: 4, section: '7.6.3' },
  {
    ID: { bits: [15, 0], values: PCI_EXT_CAP },
    Version: { bits: [19, 16] },
    Next: { bits: [31, 20], text: 'offset of the next; 0: the last' },
  },
);

/** ATS capability and control, word at +4 (10.5.1). */
export const PCI_ATS = layout(
  'PCI_ATS',
  { bytes: 4, section: '10.5.1' },
  {
    InvalidateQueueDepth: { bits: [4, 0] },
    PageAlignedRequest: { bits: [5, 5] },
    GlobalInvalidate: { bits: [6, 6] },
    RES0_15_7: { bits: [15, 7], reserved: 'RES0' },
    STU: { bits: [20, 16], text: 'smallest translation unit: 2^(12+STU) bytes' },
    RES0_30_21: { bits: [30, 21], reserved: 'RES0' },
    Enable: { bits: [31, 31] },
  },
);

/** PRI control and status, word at +4 (10.5.2). */
export const PCI_PRI = layout(
  'PCI_PRI',
  { bytes: 4, section: '10.5.2' },
  {
    Enable: { bits: [0, 0] },
    Reset: { bits: [1, 1] },
    RES0_15_2: { bits: [15, 2], reserved: 'RES0' },
    ResponseFailure: { bits: [16, 16] },
    UnexpectedIndex: { bits: [17, 17] },
    RES0_23_18: { bits: [23, 18], reserved: 'RES0' },
    Stopped: { bits: [24, 24] },
    RES0_30_25: { bits: [30, 25], reserved: 'RES0' },
    ResponsePasidRequired: { bits: [31, 31] },
  },
);

/** Offset of the outstanding page request capacity and allocation inside the PRI capability (10.5.2). */
export const PCI_PRI_CAPACITY = 0x08;
export const PCI_PRI_ALLOCATION = 0x0c;

/** PASID capability and control, word at +4 (7.8.8). */
export const PCI_PASID = layout(
  'PCI_PASID',
  { bytes: 4, section: '7.8.8' },
  {
    RES0_0: { bits: [0, 0], reserved: 'RES0' },
    Execute: { bits: [1, 1], text: 'execute permission supported' },
    Privileged: { bits: [2, 2], text: 'privileged mode supported' },
    RES0_7_3: { bits: [7, 3], reserved: 'RES0' },
    MaxWidth: { bits: [12, 8], text: 'PASID bits' },
    RES0_15_13: { bits: [15, 13], reserved: 'RES0' },
    Enable: { bits: [16, 16] },
    ExecuteEnable: { bits: [17, 17] },
    PrivilegedEnable: { bits: [18, 18] },
    RES0_31_19: { bits: [31, 19], reserved: 'RES0' },
  },
);

/** Offset of the word with the control bits inside each extended capability. */
export const PCI_CAP_CONTROL = 0x04;
