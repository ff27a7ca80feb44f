/** Encodings that several structures share. Source: IHI 0070 5.2, 5.4. */

/** Cacheability of structure fetches: STE.S1CIR, S1COR (IHI 0070 5.2). */
export const FETCH_CACHEABILITY = { NC: 0, WB_RA: 1, WT_RA: 2, WB_NO_RA: 3 } as const;

/** Cacheability of translation table walks: IR0, OR0, S2IR0, S2OR0 (IHI 0070 5.2, 5.4). */
export const WALK_CACHEABILITY = { NC: 0, WB_RA_WA: 1, WT_RA: 2, WB_RA_NO_WA: 3 } as const;

/** Shareability; encoding 1 is reserved and behaves as NSH (IHI 0070 5.2, 5.4). */
export const SHAREABILITY = { NSH: 0, OSH: 2, ISH: 3 } as const;

/** Physical address sizes: STE.S2PS, CD.IPS; effective is the smaller of this and OAS (IHI 0070 5.2, 5.4). */
export const ADDRESS_SIZE = {
  BITS_32: 0,
  BITS_36: 1,
  BITS_40: 2,
  BITS_42: 3,
  BITS_44: 4,
  BITS_48: 5,
  BITS_52: 6,
  BITS_56: 7,
} as const;

/** Granule encodings of CD.TG0, STE.S2TG and STE.S_S2TG; 3 is reserved (IHI 0070 5.2, 5.4). */
export const GRANULE_TG0 = { '4KB': 0, '64KB': 1, '16KB': 2 } as const;

/** Granule encodings of CD.TG1; 0 is reserved (IHI 0070 5.4). */
export const GRANULE_TG1 = { '16KB': 1, '4KB': 2, '64KB': 3 } as const;

/** Endianness of translation tables (IHI 0070 5.2, 5.4). */
export const ENDIANNESS = { LITTLE: 0, BIG: 1 } as const;

/** Memory types of STE.MemAttr and GBPA.MemAttr; 4, 8 and 12 are reserved, as Device-nGnRnE (IHI 0070 5.2). */
export const MEMATTR = {
  DEVICE_nGnRnE: 0,
  DEVICE_nGnRE: 1,
  DEVICE_nGRE: 2,
  DEVICE_GRE: 3,
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

/** Stage 2 permissions of one overlay or indirection index; 1 and 5 are reserved (IHI 0070 5.2 S2POI, 6.3.17). */
export const STAGE2_PERMISSIONS = {
  NONE: 0,
  MRO: 2,
  MRO_TL1: 3,
  WO: 4,
  MRO_TL0: 6,
  MRO_TL01: 7,
  RO: 8,
  RO_UX: 9,
  RO_PX: 10,
  RO_PUX: 11,
  RW: 12,
  RW_UX: 13,
  RW_PX: 14,
  RW_PUX: 15,
} as const;

/** Stage 1 permissions of one indirection index; 4 and 6 are reserved (IHI 0070 5.4 PIIU, PIIP). */
export const STAGE1_PERMISSIONS = { NONE: 0, R: 1, X: 2, RX: 3, RW: 5, RWX: 7 } as const;
