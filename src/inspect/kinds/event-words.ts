/** Event records in words: what was asked, what refused it, what became of it (IHI 0070 7.3). */
import { hex, type Meanings, named, type View } from '../record.ts';

const CLASS: Readonly<Record<string, string>> = {
  CD: 'while fetching a CD',
  TT: 'while fetching a stage 1 table entry',
  IN: 'on the input address',
};

/** Meanings of event fields. */
export const EVENT_MEANINGS: Meanings = {
  SSV: (view) => (view.num('SSV') === 1 ? 'SubstreamID is valid' : 'no SubstreamID'),
  StreamID: (view) => `StreamID ${view.num('StreamID')}`,
  Stall: (view) => (view.num('Stall') === 1 ? 'the transaction waits for CMD_RESUME' : 'the transaction was ended'),
  PnU: (view) => (view.num('PnU') === 1 ? 'privileged' : 'unprivileged'),
  InD: (view) => (view.num('InD') === 1 ? 'instruction' : 'data'),
  RnW: (view) => (view.num('RnW') === 1 ? 'read' : 'write'),
  S2: (view) => (view.num('S2') === 1 ? 'stage 2' : 'stage 1'),
  CLASS: named(CLASS, 'reserved'),
  InputAddr: (view) => view.address('InputAddr'),
};

/** StreamID and SubstreamID of a record. */
function who(view: View): string {
  const substream = view.has('SubstreamID') && (!view.has('SSV') || view.num('SSV') === 1);
  const ssid = substream ? `, SubstreamID ${hex(view.get('SubstreamID'))}` : '';
  return `StreamID ${hex(view.get('StreamID'))}${ssid}`;
}

function access(view: View): string {
  const privilege = view.has('PnU') ? (view.num('PnU') === 1 ? 'privileged ' : 'unprivileged ') : '';
  const instruction = view.has('InD') && view.num('InD') === 1 ? 'instruction ' : '';
  const kind = view.has('RnW') ? (view.num('RnW') === 1 ? 'read' : 'write') : 'access';
  return `${privilege}${instruction}${kind}`;
}

/** Where a translation fault arose, with the IPA where the record holds one. */
function fault(view: View): string {
  const stage = view.num('S2') === 1 ? 'stage 2' : 'stage 1';
  const cls = view.has('CLASS') ? view.named('CLASS') : 'IN';
  if (stage === 'stage 1') return cls === 'TT' ? 'at stage 1, while fetching a table entry' : 'at stage 1';
  const ipa = view.has('IPA') ? ` of IPA ${view.address('IPA')}` : '';
  if (cls === 'CD') return `at stage 2${ipa}, while fetching the CD`;
  return cls === 'TT' ? `at stage 2${ipa}, while fetching a stage 1 table entry` : `at stage 2${ipa}`;
}

const REASONS: Readonly<Record<string, string>> = {
  F_TRANSLATION: 'has no translation',
  F_ADDR_SIZE: 'leads to an address out of range',
  F_ACCESS: 'meets a clear Access flag',
  F_PERMISSION: 'is not permitted',
  F_WALK_EABT: 'failed: a table access was aborted',
  F_TLB_CONFLICT: 'matched more than one TLB entry',
};

function faultSummary(view: View, reason: string): string {
  const fetched = view.has('FetchAddr') ? `, fetching ${view.address('FetchAddr')}` : '';
  const end = view.has('Stall') && view.num('Stall') === 1 ? `; stalled, STAG ${hex(view.get('STAG'))}` : '; aborted';
  return `${who(view)}: ${access(view)} of ${view.address('InputAddr')} ${reason} ${fault(view)}${fetched}${end}`;
}

/** An event in a sentence. */
export function eventSummary(view: View): string {
  const { name } = view.layout;
  const reason = REASONS[name];
  if (reason !== undefined) return faultSummary(view, reason);
  const at = view.has('FetchAddr') ? ` at ${view.address('FetchAddr')}` : '';
  const input = view.has('InputAddr') ? `, address ${view.address('InputAddr')}` : '';
  return `${who(view)}: ${view.layout.text}${at}${input}`;
}
