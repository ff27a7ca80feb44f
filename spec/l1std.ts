import { layout } from './layout.ts';

/**
 * Level 1 Stream Table Descriptor: 8 bytes, names a level 2 array of 2^(Span - 1) STEs (IHI 0070 5.1).
 * Span 0 and 12 to 31, and any Span above SPLIT + 1, make every StreamID of the descriptor invalid.
 */
export const L1STD = layout(
  'L1STD',
  { bytes: 8, section: '5.1', text: 'Level 1 Stream Table Descriptor' },
  {
    Span: { bits: [4, 0], text: '0: invalid; n: 2^(n-1) STEs, at most SPLIT + 1; 12 to 31 behave as 0' },
    RES0_5: { bits: [5, 5], reserved: 'RES0' },
    L2Ptr: { bits: [55, 6], address: 6, text: 'level 2 array, aligned to its size; physical' },
    RES0_63_56: { bits: [63, 56], reserved: 'RES0' },
  },
);
