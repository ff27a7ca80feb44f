/** Commands towards devices, stalled transactions, and CMD_SYNC (IHI 0070 4.5, 4.7). */
import { MEMATTR, SHAREABILITY } from '../encodings.ts';
import { command } from './command-layout.ts';

const STREAM_ID = { bits: [63, 32] } as const;
const SSEC = { bits: [10, 10], text: 'Secure stream; must be 0 on the Non-secure queue' } as const;

/** Largest CMD_ATC_INV Size: the whole address space (4.5.1). */
export const ATC_INV_SIZE_ALL = 52;

/** Invalidate translations that a device caches (4.5.1). */
export const CMD_ATC_INV = command(
  'CMD_ATC_INV',
  { opcode: 0x40, nonSecure: true, when: 'IDR0.ATS', section: '4.5.1', text: 'ATS Invalidate Request' },
  {
    RES0_8: { bits: [8, 8], reserved: 'RES0' },
    Global: { bits: [9, 9], text: 'any PASID; needs SSV' },
    RES0_10: { bits: [10, 10], reserved: 'RES0' },
    SSV: { bits: [11, 11], text: 'SubstreamID is valid' },
    SubstreamID: { bits: [31, 12] },
    StreamID: STREAM_ID,
    Size: { bits: [69, 64], text: '4096 * 2^Size bytes; 52: all' },
    RES0_75_70: { bits: [75, 70], reserved: 'RES0' },
    Address: { bits: [127, 76], address: 12 },
  },
);

/** CMD_PRI_RESP.Resp (4.5.2). 3 is ILLEGAL. */
export const PRI_RESP = { ResponseFailure: 0, InvalidRequest: 1, Success: 2 } as const;

/** Answer a page request group (4.5.2). */
export const CMD_PRI_RESP = command(
  'CMD_PRI_RESP',
  { opcode: 0x41, nonSecure: true, when: 'IDR0.PRI', section: '4.5.2', text: 'PRG Response' },
  {
    RES0_10_8: { bits: [10, 8], reserved: 'RES0' },
    SSV: { bits: [11, 11], text: 'SubstreamID is valid' },
    SubstreamID: { bits: [31, 12] },
    StreamID: STREAM_ID,
    PRGIndex: { bits: [72, 64] },
    RES0_75_73: { bits: [75, 73], reserved: 'RES0' },
    Resp: { bits: [77, 76], values: PRI_RESP },
    RES0_127_78: { bits: [127, 78], reserved: 'RES0' },
  },
);

/** Retry or terminate one stalled transaction (4.7.1). */
export const CMD_RESUME = command(
  'CMD_RESUME',
  {
    opcode: 0x44,
    nonSecure: true,
    when: '!IDR0.STALL_MODEL=1',
    section: '4.7.1',
    text: 'retry or terminate a stalled transaction',
  },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_11: { bits: [11, 11], reserved: 'RES0' },
    Ac: { bits: [12, 12], values: { TERMINATE: 0, RETRY: 1 }, text: 'action' },
    Ab: { bits: [13, 13], values: { RAZWI: 0, ABORT: 1 }, text: 'how to terminate' },
    RES0_31_14: { bits: [31, 14], reserved: 'RES0' },
    StreamID: STREAM_ID,
    STAG: { bits: [79, 64], text: 'stall tag of the event' },
    RES0_127_80: { bits: [127, 80], reserved: 'RES0' },
  },
);

/** Terminate all stalled transactions of a stream (4.7.2). */
export const CMD_STALL_TERM = command(
  'CMD_STALL_TERM',
  {
    opcode: 0x45,
    nonSecure: true,
    when: '!IDR0.STALL_MODEL=1',
    section: '4.7.2',
    text: 'abort all stalled transactions of a stream',
  },
  {
    RES0_9_8: { bits: [9, 8], reserved: 'RES0' },
    SSec: SSEC,
    RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
    StreamID: STREAM_ID,
    RES0_127_64: { bits: [127, 64], reserved: 'RES0' },
  },
);

/** CMD_SYNC.CS, the completion signal (4.7.3). 3 is ILLEGAL. */
export const SYNC_CS = { SIG_NONE: 0, SIG_IRQ: 1, SIG_SEV: 2 } as const;

/** Wait for the earlier commands of this queue, then signal (4.7.3). */
export const CMD_SYNC = command(
  'CMD_SYNC',
  { opcode: 0x46, nonSecure: true, section: '4.7.3', text: 'wait for earlier commands of this queue' },
  {
    RES0_11_8: { bits: [11, 8], reserved: 'RES0' },
    CS: { bits: [13, 12], values: SYNC_CS, text: 'completion signal' },
    RES0_21_14: { bits: [21, 14], reserved: 'RES0' },
    MSH: { bits: [23, 22], values: SHAREABILITY },
    MSIAttr: { bits: [27, 24], values: MEMATTR },
    RES0_31_28: { bits: [31, 28], reserved: 'RES0' },
    MSIData: { bits: [63, 32] },
    RES0_65_64: { bits: [65, 64], reserved: 'RES0' },
    MSIAddress: { bits: [119, 66], address: 2, text: '0: no MSI' },
    RES0_126_120: { bits: [126, 120], reserved: 'RES0' },
    MSI_NS: { bits: [127, 127], reserved: 'RES0', text: 'Realm queue only' },
  },
);
