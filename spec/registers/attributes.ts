/** Encodings that several registers and commands share (IHI 0070 5.2, 6.3.11). */

/** Shareability. 1 is reserved and acts as NSH. */
export const SHAREABILITY = { NSH: 0, OSH: 2, ISH: 3 } as const;

/** Cacheability of structure and queue accesses in CR1. 3 is reserved and acts as NC. */
export const CACHEABILITY = { NC: 0, WB: 1, WT: 2 } as const;

/**
 * Memory type as in STE.MemAttr: Device types, or outer (O) and inner (I) cacheability of Normal memory.
 * 4, 8 and 12 are reserved and act as Device_nGnRnE.
 */
export const MEM_ATTR = {
  Device_nGnRnE: 0,
  Device_nGnRE: 1,
  Device_nGRE: 2,
  Device_GRE: 3,
  ONC_INC: 5,
  ONC_IWT: 6,
  ONC_IWB: 7,
  OWT_INC: 9,
  OWT_IWT: 10,
  OWT_IWB: 11,
  OWB_INC: 13,
  OWB_IWT: 14,
  OWB_IWB: 15,
} as const;
