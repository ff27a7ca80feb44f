import { layout } from './layout.ts';

/** Level 1 Context Descriptor: 8 bytes, names a leaf table of CDs (IHI 0070 5.3). */
export const L1CD = layout(
  'L1CD',
  { bytes: 8, section: '5.3', text: 'Level 1 Context Descriptor' },
  {
    V: { bits: [0, 0], text: 'valid; 0: C_BAD_SUBSTREAMID' },
    RES0_11_1: { bits: [11, 1], reserved: 'RES0' },
    L2Ptr: { bits: [55, 12], address: 12, text: 'leaf table; an IPA if stage 2 is on. 15:12 are 0 for 64 KB leaves' },
    RES0_63_56: { bits: [63, 56], reserved: 'RES0' },
  },
);
