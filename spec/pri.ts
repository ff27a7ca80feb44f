/** Messages of the PRI queue and answers to them (IHI 0070 chapter 8). */
import { layout, type Words } from './layout.ts';

/** Bytes of a PRI queue entry (8.1). */
export const PRI_BYTES = 16;

/** A page request as it lies in the PRI queue (8.1). */
export const PRI_ENTRY = layout(
  'PRI_ENTRY',
  { bytes: PRI_BYTES, section: '8', text: 'page request' },
  {
    StreamID: { bits: [31, 0], text: 'its low 16 bits are the RequesterID' },
    SubstreamID: { bits: [51, 32], text: 'valid with SSV' },
    RES0_57_52: { bits: [57, 52], reserved: 'RES0' },
    Priv: { bits: [58, 58], text: 'privileged; 0 without SSV' },
    X: { bits: [59, 59], text: 'execute; 0 without SSV' },
    R: { bits: [60, 60], text: 'read' },
    W: { bits: [61, 61], text: 'write' },
    Last: { bits: [62, 62], text: 'last message of its group' },
    SSV: { bits: [63, 63], text: 'SubstreamID is valid' },
    PRGIndex: { bits: [72, 64], text: 'page request group' },
    RES0_75_73: { bits: [75, 73], reserved: 'RES0' },
    PageAddress: { bits: [127, 76], address: 12 },
  },
);

/** Response codes of a PRG Response message on PCIe (8.1, PCIe ATS). */
export const PRG_RESPONSE = { Success: 0x0, InvalidRequest: 0x1, ResponseFailure: 0xf } as const;

/** Whether a message is a Stop Marker: with SSV, Last and neither R nor W (8.1). It gets no response. */
export function isStopMarker(words: Words): boolean {
  const { SSV, Last, R, W } = PRI_ENTRY.decode(words);
  return SSV === 1n && Last === 1n && R === 0n && W === 0n;
}
