/** Commands towards devices and stalled transactions (IHI 0070 4.5, 4.7.1, 4.7.2). */
import {
  ATC_INV_SIZE_ALL,
  CMD_ATC_INV,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  PRI_RESP,
} from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import { PRG_RESPONSE } from '../../../spec/pri.ts';
import type { CommandTarget, Execute } from './context.ts';

const RETRY = CMD_RESUME.field('Ac').values?.RETRY;
const ABORT = CMD_RESUME.field('Ab').values?.ABORT;
const PAGE_SHIFT = CMD_ATC_INV.field('Address').address ?? 12;
/** What goes over the wire for each CMD_PRI_RESP.Resp (4.5.2, 8.1). */
const RESPONSE_CODES: readonly (number | undefined)[] = Object.keys(PRG_RESPONSE).reduce<number[]>((codes, name) => {
  codes[PRI_RESP[name as keyof typeof PRI_RESP]] = PRG_RESPONSE[name as keyof typeof PRG_RESPONSE];
  return codes;
}, []);

/** SubstreamID of a command with SSV, -1 for none; undefined: the command has no effect (4.1.7, 4.5). */
function substream(ssv: number, id: number, { caps, options }: CommandTarget): number | undefined {
  if (ssv === 0) return -1;
  if (caps.SSIDSIZE === 0) return options.ssvWithoutSubstreams === 'as-ssv0' ? -1 : undefined;
  return id < 2 ** caps.SSIDSIZE ? id : undefined;
}

/** CMD_ATC_INV. An endpoint that does not answer makes the next CMD_SYNC fail, not this command (3.9.1.4). */
export const atcInv: Execute = (words, target, stream) => {
  if (!target.regs.SMMUEN) return 0;
  const ssid = substream(CMD_ATC_INV.num(words, 'SSV'), CMD_ATC_INV.num(words, 'SubstreamID'), target);
  const StreamID = CMD_ATC_INV.num(words, 'StreamID');
  if (ssid === undefined || StreamID >= 2 ** target.caps.SIDSIZE) return 0;
  const size = CMD_ATC_INV.num(words, 'Size');
  const address = CMD_ATC_INV.address(words, 'Address');
  const answer = target.endpoints.atcInvalidate({
    StreamID,
    SubstreamID: ssid,
    global: ssid >= 0 && CMD_ATC_INV.num(words, 'Global') === 1,
    addrHi: Number(address >> 32n),
    addrLo: Number(address & 0xffffffffn),
    spanLog2: PAGE_SHIFT + Math.min(size, ATC_INV_SIZE_ALL),
  });
  if (answer === 'timeout') stream.atcTimeout = true;
  return 0;
};

export const priResp: Execute = (words: Words, target) => {
  if (!target.regs.SMMUEN) return 0;
  const ssid = substream(CMD_PRI_RESP.num(words, 'SSV'), CMD_PRI_RESP.num(words, 'SubstreamID'), target);
  const code = RESPONSE_CODES[CMD_PRI_RESP.num(words, 'Resp')];
  if (ssid === undefined || code === undefined) return 0;
  target.endpoints.pageResponse(CMD_PRI_RESP.num(words, 'StreamID'), ssid, CMD_PRI_RESP.num(words, 'PRGIndex'), code);
  return 0;
};

/** CMD_RESUME. With IDR0.TERM_MODEL every termination is an abort (4.7.1). */
export const resume: Execute = (words, { stalls, caps }) => {
  const abort = caps.TERM_MODEL || CMD_RESUME.num(words, 'Ab') === ABORT;
  const action = CMD_RESUME.num(words, 'Ac') === RETRY ? 'retry' : abort ? 'abort' : 'razwi';
  stalls.resume(CMD_RESUME.num(words, 'StreamID'), CMD_RESUME.num(words, 'STAG'), action);
  return 0;
};

export const stallTerm: Execute = (words, { stalls }) => {
  stalls.terminateStream(CMD_STALL_TERM.num(words, 'StreamID'));
  return 0;
};
