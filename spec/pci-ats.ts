/** Address Translation Services in PCI configuration space (PCI Express 5.0, 7.6.3 and 10.5.1). */
import { layout } from './layout.ts';

/** First byte of the extended configuration space: where the list of extended capabilities begins. */
export const PCI_EXT_CONFIG_START = 0x100;

/** Extended capability ID of ATS. */
export const PCI_EXT_CAPABILITY_ATS = 0x000f;

/** Header of an extended capability. */
export const PCI_EXT_CAPABILITY = layout(
  'PCI_EXT_CAPABILITY',
  { bytes: 4, section: 'PCIe 5.0, 7.6.3', text: 'header of an extended capability' },
  {
    CapabilityID: { bits: [15, 0] },
    Version: { bits: [19, 16] },
    Next: { bits: [31, 20], text: 'byte offset of the next one; 0: the last' },
  },
);

/** The registers after the header of the ATS capability: capability (15:0) and control (31:16). */
export const PCI_ATS = layout(
  'PCI_ATS',
  { bytes: 4, section: 'PCIe 5.0, 10.5.1', text: 'ATS capability and control' },
  {
    InvalidateQueueDepth: { bits: [4, 0], text: '0: 32 requests' },
    PageAlignedRequest: { bits: [5, 5] },
    GlobalInvalidateSupported: { bits: [6, 6] },
    RelaxedOrdering: { bits: [7, 7] },
    RES0_15_8: { bits: [15, 8], reserved: 'RES0' },
    STU: { bits: [20, 16], text: 'smallest translation unit: 2^(12+STU) bytes' },
    RES0_30_21: { bits: [30, 21], reserved: 'RES0' },
    Enable: { bits: [31, 31] },
  },
);
