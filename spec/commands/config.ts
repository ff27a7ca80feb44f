/** Prefetch and configuration invalidation (IHI 0070 4.2, 4.3). */
import { command } from './command-layout.ts';

/** CMD_CFGI_STE_RANGE with this Range is CMD_CFGI_ALL (4.3.2). */
export const CFGI_ALL_RANGE = 31;

const SSEC = { bits: [10, 10], text: 'Secure stream; must be 0 on the Non-secure queue' } as const;
const STREAM_ID = { bits: [63, 32] } as const;
const LEAF_STE = { bits: [64, 64], text: 'keep the L1STD' } as const;

/** Hint: fetch the configuration of a stream (4.2.1). */
export const CMD_PREFETCH_CONFIG = command(
  'CMD_PREFETCH_CONFIG',
  { opcode: 0x01, nonSecure: true, section: '4.2.1', text: 'hint: fetch configuration' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    SSV: { bits: [11, 11], text: 'SubstreamID is valid' },
    SubstreamID: { bits: [31, 12] },
    StreamID: STREAM_ID,
    RES0_127_64: { bits: [127, 64], reserved: 'RES0' },
  },
);

/** Hint: fetch configuration and translations of addresses (4.2.2). */
export const CMD_PREFETCH_ADDR = command(
  'CMD_PREFETCH_ADDR',
  { opcode: 0x02, nonSecure: true, section: '4.2.2', text: 'hint: fetch translations' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    SSV: { bits: [11, 11], text: 'SubstreamID is valid' },
    SubstreamID: { bits: [31, 12] },
    StreamID: STREAM_ID,
    Size: { bits: [68, 64], text: '2^Size addresses' },
    Stride: { bits: [73, 69], when: 'AIDR.ArchMinorRev>=1', text: '2^(12+Stride) bytes apart' },
    RES0_74: { bits: [74, 74], reserved: 'RES0' },
    NS: { bits: [75, 75], reserved: 'RES0', text: 'Secure queue only' },
    Address: { bits: [127, 76], address: 12 },
  },
);

/** Drop a stream's cached configuration (4.3.1). */
export const CMD_CFGI_STE = command(
  'CMD_CFGI_STE',
  { opcode: 0x03, nonSecure: true, section: '4.3.1', text: 'drop the cached STE and CDs of a stream' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
    StreamID: STREAM_ID,
    Leaf: LEAF_STE,
    RES0_127_65: { bits: [127, 65], reserved: 'RES0' },
  },
);

/** Drop the cached configuration of 2^(Range+1) aligned streams; with Range 31, CMD_CFGI_ALL (4.3.2, 4.3.6). */
export const CMD_CFGI_STE_RANGE = command(
  'CMD_CFGI_STE_RANGE',
  { opcode: 0x04, nonSecure: true, section: '4.3.2', text: 'drop the cached configuration of a range of streams' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
    StreamID: STREAM_ID,
    Range: { bits: [68, 64], text: '2^(Range+1) streams; 31: all' },
    RES0_127_69: { bits: [127, 69], reserved: 'RES0' },
  },
);

/** Drop one cached CD (4.3.3). */
export const CMD_CFGI_CD = command(
  'CMD_CFGI_CD',
  { opcode: 0x05, nonSecure: true, when: 'IDR0.S1P', section: '4.3.3', text: 'drop a cached CD' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_11: { bits: [11, 11], reserved: 'RES0' },
    SubstreamID: { bits: [31, 12] },
    StreamID: STREAM_ID,
    Leaf: { bits: [64, 64], text: 'keep the L1CD' },
    RES0_127_65: { bits: [127, 65], reserved: 'RES0' },
  },
);

/** Drop every cached CD of a stream (4.3.4). */
export const CMD_CFGI_CD_ALL = command(
  'CMD_CFGI_CD_ALL',
  { opcode: 0x06, nonSecure: true, when: 'IDR0.S1P', section: '4.3.4', text: 'drop all cached CDs of a stream' },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
    StreamID: STREAM_ID,
    RES0_127_64: { bits: [127, 64], reserved: 'RES0' },
  },
);

/** Drop the PARTID map cached for a VMID (4.3.5). */
export const CMD_CFGI_VMS_PIDM = command(
  'CMD_CFGI_VMS_PIDM',
  {
    opcode: 0x07,
    nonSecure: true,
    when: ['IDR3.MPAM', 'MPAMIDR.PARTID_MAX', 'IDR0.S1P', 'IDR0.S2P'],
    section: '4.3.5',
    text: 'drop the PARTID map cached for a VMID',
  },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
    VMID: { bits: [47, 32] },
    RES0_127_48: { bits: [127, 48], reserved: 'RES0' },
  },
);
