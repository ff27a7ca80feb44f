/** Commands that wait for a CMD_SYNC, decoded once when they are consumed. */
import {
  ATC_INV_SIZE_ALL,
  type Caps,
  CFGI_ALL_RANGE,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  opcodeOf,
  slotValue,
  type Words,
} from '../../spec/index.ts';
import { type Flush, flushOf } from './flush.ts';
import { unitOf } from './units.ts';

/** Configuration invalidated: STEs with their CDs. `last` is included. */
export interface CfgiSte {
  readonly kind: 'ste';
  readonly first: number;
  readonly last: number;
  readonly leaf: boolean;
  readonly all: boolean;
}

/** CDs invalidated. */
export interface CfgiCd {
  readonly kind: 'cd';
  readonly sid: number;
  /** -1: all of the stream. */
  readonly ssid: number;
  readonly leaf: boolean;
}

/** TLB entries invalidated. */
export interface Tlbi {
  readonly kind: 'tlbi';
  readonly flush: Flush;
}

/** An endpoint's cache invalidated. */
export interface AtcInv {
  readonly kind: 'atc';
  readonly sid: number;
  /** -1 without SubstreamID; -2: of every SubstreamID (Global). */
  readonly ssid: number;
  /** 4 KiB pages, [first, end). */
  readonly first: number;
  readonly end: number;
  readonly all: boolean;
}

/** Something that a CMD_SYNC completes. */
export type Maintenance = CfgiSte | CfgiCd | Tlbi | AtcInv;

const STE_SID = CMD_CFGI_STE.slot('StreamID');
const STE_LEAF = CMD_CFGI_STE.slot('Leaf');
const RANGE = CMD_CFGI_STE_RANGE.slot('Range');
const CD_SSID = CMD_CFGI_CD.slot('SubstreamID');
const CD_LEAF = CMD_CFGI_CD.slot('Leaf');
const ATC_SSV = CMD_ATC_INV.slot('SSV');
const ATC_GLOBAL = CMD_ATC_INV.slot('Global');
const ATC_SSID = CMD_ATC_INV.slot('SubstreamID');
const ATC_SIZE = CMD_ATC_INV.slot('Size');
const ATC_ADDRESS = CMD_ATC_INV.mask(['Address']);
const UNITS_OF_PAGE = 512;

/**
 * What a command maintains; undefined: nothing that a CMD_SYNC waits for.
 * @param vintfVmid what a VINTF puts in place of the VMID, or -1
 */
export function maintenanceOf(words: Words, caps: Caps, vintfVmid: number): Maintenance | undefined {
  const flush = flushOf(words, caps, vintfVmid);
  if (flush !== undefined) return { kind: 'tlbi', flush };
  const sid = slotValue(words, STE_SID);
  switch (opcodeOf(words)) {
    case CMD_CFGI_STE.opcode:
      return { kind: 'ste', first: sid, last: sid, leaf: slotValue(words, STE_LEAF) === 1, all: false };
    case CMD_CFGI_STE_RANGE.opcode:
      return rangeOf(sid, slotValue(words, RANGE));
    case CMD_CFGI_CD.opcode:
      return { kind: 'cd', sid, ssid: slotValue(words, CD_SSID), leaf: slotValue(words, CD_LEAF) === 1 };
    case CMD_CFGI_CD_ALL.opcode:
      return { kind: 'cd', sid, ssid: -1, leaf: false };
    case CMD_ATC_INV.opcode:
      return atcOf(words, sid);
    default:
      return undefined;
  }
}

function rangeOf(sid: number, range: number): CfgiSte {
  if (range === CFGI_ALL_RANGE) return { kind: 'ste', first: 0, last: 0xffffffff, leaf: false, all: true };
  const size = 2 ** (range + 1);
  const first = sid - (sid % size);
  return { kind: 'ste', first, last: first + size - 1, leaf: false, all: false };
}

function atcOf(words: Words, sid: number): AtcInv {
  const present = slotValue(words, ATC_SSV) === 1;
  const ssid = !present ? -1 : slotValue(words, ATC_GLOBAL) === 1 ? -2 : slotValue(words, ATC_SSID);
  const size = slotValue(words, ATC_SIZE);
  const at = Math.floor(
    unitOf((words[3] ?? 0) & (ATC_ADDRESS[3] ?? 0), (words[2] ?? 0) & (ATC_ADDRESS[2] ?? 0)) / UNITS_OF_PAGE,
  );
  const all = size >= ATC_INV_SIZE_ALL;
  const span = 2 ** Math.min(size, ATC_INV_SIZE_ALL);
  const first = all ? 0 : at - (at % span);
  return { kind: 'atc', sid, ssid, first, end: first + span, all };
}
