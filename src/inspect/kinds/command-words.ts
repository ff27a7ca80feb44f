/** Commands in words: what each drops, answers or waits for (IHI 0070 chapter 4). */
import { ATC_INV_SIZE_ALL, CFGI_ALL_RANGE } from '../../../spec/commands.ts';
import { GEOMETRY, type Granule } from '../../../spec/descriptors.ts';
import { hex, type Meanings, named, SHAREABILITIES, sizeText, type View } from '../record.ts';

/** Granule of a TLBI by its TG; undefined for one address of any granule (4.4.1). */
const granuleOf = (view: View): Granule | undefined => {
  if (!view.has('TG')) return undefined;
  const byTG: Readonly<Record<number, Granule>> = { 1: '4k', 2: '16k', 3: '64k' };
  return byTG[view.num('TG')];
};

/** Bytes that a TLBI by address covers: (NUM + 1) * 2^SCALE granules, or undefined for one address (4.4.1.1). */
export function tlbiBytes(view: View): bigint | undefined {
  const granule = granuleOf(view);
  if (granule === undefined) return undefined;
  return (view.get('NUM') + 1n) << (view.get('SCALE') + BigInt(GEOMETRY[granule].shift));
}

const last = (first: bigint, bytes: bigint): string => hex((first + bytes - 1n) & ((1n << 64n) - 1n));

const addressOf = (view: View): bigint => view.layout.address(view.words, 'Address');

function tlbiRange(view: View): string {
  const bytes = tlbiBytes(view);
  if (bytes === undefined) return `the entries of ${view.address('Address')}`;
  return `${view.address('Address')} to ${last(addressOf(view), bytes)} (${sizeText(bytes)})`;
}

/** Bytes that CMD_ATC_INV covers, from an address aligned to them; undefined for all (4.5.1). */
const atcBytes = (view: View): bigint | undefined => {
  const size = view.num('Size');
  return size >= ATC_INV_SIZE_ALL ? undefined : 1n << BigInt(12 + size);
};

function atcRange(view: View): string {
  const bytes = atcBytes(view);
  if (bytes === undefined) return 'all addresses';
  const first = addressOf(view) & ~(bytes - 1n);
  return `${hex(first)} to ${last(first, bytes)} (${sizeText(bytes)})`;
}

function streams(view: View): string {
  const range = view.num('Range');
  if (range === CFGI_ALL_RANGE) return 'all streams';
  const many = 2n << BigInt(range);
  const first = view.get('StreamID') & ~(many - 1n);
  return `StreamID ${hex(first)} to ${hex(first + many - 1n)}`;
}

const tag = (view: View): string => {
  const parts: string[] = [];
  if (view.has('VMID')) parts.push(`VMID ${view.num('VMID')}`);
  if (view.has('ASID')) parts.push(`ASID ${view.num('ASID')}`);
  return parts.join(', ');
};

/** Meanings of command fields. */
export const COMMAND_MEANINGS: Meanings = {
  SSec: (view) => (view.num('SSec') === 0 ? 'Non-secure stream' : 'Secure stream: ILLEGAL on the Non-secure queue'),
  SSV: (view) => (view.num('SSV') === 1 ? 'SubstreamID is valid' : 'SubstreamID is not used'),
  StreamID: (view) => `StreamID ${view.num('StreamID')}`,
  Range: streams,
  Leaf: (view) => (view.num('Leaf') === 1 ? 'the last level only' : 'all levels'),
  VMID: (view) => `VMID ${view.num('VMID')}`,
  ASID: (view) => `ASID ${view.num('ASID')}`,
  NUM: (view) => {
    const bytes = tlbiBytes(view);
    return bytes === undefined ? 'not used with TG=0' : `(NUM+1) * 2^SCALE granules: ${sizeText(bytes)}`;
  },
  SCALE: (view) =>
    granuleOf(view) === undefined ? 'not used with TG=0' : `units of ${2 ** view.num('SCALE')} granules`,
  TTL: (view) =>
    granuleOf(view) === undefined
      ? 'not used with TG=0'
      : named({ ANY: 'leaf entries of any level' }, 'reserved')(view, 'TTL'),
  TG: named({ ANY: 'one address, entries of any granule' }, 'reserved'),
  Size: (view) => {
    if (!view.has('Global')) return `2^${view.num('Size')} addresses`;
    if (view.num('Size') > ATC_INV_SIZE_ALL) return `more than ${ATC_INV_SIZE_ALL}: unpredictable`;
    const bytes = atcBytes(view);
    return bytes === undefined ? 'all addresses' : sizeText(bytes);
  },
  Global: (view) => (view.num('Global') === 1 ? 'any PASID, if SSV=1' : 'this PASID only'),
  MSH: named(SHAREABILITIES, 'reserved, behaves as NSH'),
  MSIAttr: (view) => view.named('MSIAttr', 'reserved, behaves as DEVICE_nGnRnE'),
  MSIAddress: (view) => (view.get('MSIAddress') === 0n ? 'no MSI' : view.address('MSIAddress')),
  CS: named(
    {
      SIG_NONE: 'no signal',
      SIG_IRQ: 'interrupt, or an MSI write of MSIData to MSIAddress',
      SIG_SEV: 'wakes a CPU that waits for an event',
    },
    'reserved: ILLEGAL',
  ),
  Resp: (view) => view.named('Resp', 'reserved: ILLEGAL'),
  Ac: named({ TERMINATE: 'ends the transaction', RETRY: 'translates it again' }, 'reserved'),
  Ab: named({ RAZWI: 'reads zero, writes are dropped', ABORT: 'with an abort' }, 'reserved'),
};

const substream = (view: View): string =>
  view.num('SSV') === 1 ? `, SubstreamID ${hex(view.get('SubstreamID'))}` : '';
const sid = (view: View): string => `StreamID ${hex(view.get('StreamID'))}`;

const SUMMARIES: Readonly<Record<string, (view: View) => string>> = {
  CMD_PREFETCH_CONFIG: (view) => `hint: fetch the configuration of ${sid(view)}${substream(view)}`,
  CMD_PREFETCH_ADDR: (view) =>
    `hint: fetch translations of ${sid(view)}${substream(view)} from ${view.address('Address')}`,
  CMD_CFGI_STE: (view) => `drop the STE and CDs of ${sid(view)}${view.num('Leaf') === 1 ? '' : ', and its L1STD'}`,
  CMD_CFGI_STE_RANGE: (view) => `drop the configuration of ${streams(view)}`,
  CMD_CFGI_ALL: () => 'drop all cached configuration',
  CMD_CFGI_CD: (view) =>
    `drop CD ${hex(view.get('SubstreamID'))} of ${sid(view)}${view.num('Leaf') === 1 ? '' : ', and its L1CD'}`,
  CMD_CFGI_CD_ALL: (view) => `drop all CDs of ${sid(view)}`,
  CMD_CFGI_VMS_PIDM: (view) => `drop the PARTID map of VMID ${view.num('VMID')}`,
  CMD_TLBI_NSNH_ALL: () => 'drop all translations outside EL2',
  CMD_TLBI_EL2_ALL: () => 'drop all EL2 translations',
  CMD_ATC_INV: (view) => `ask the device behind ${sid(view)}${substream(view)} to drop ${atcRange(view)}`,
  CMD_PRI_RESP: (view) => `answer page request group ${view.num('PRGIndex')} of ${sid(view)}: ${view.named('Resp')}`,
  CMD_RESUME: (view) =>
    `${view.num('Ac') === 1 ? 'retry' : 'end'} the transaction of ${sid(view)} stalled with STAG ${hex(view.get('STAG'))}`,
  CMD_STALL_TERM: (view) => `end all stalled transactions of ${sid(view)}`,
  CMD_SYNC: (view) => `wait for earlier commands, then ${view.named('CS')}`,
  CMD_DPTI_PA: (view) => `drop DPT entries of ${view.address('Address')}`,
};

/** The levels a TLBI spares. */
const leafOnly = (view: View): string => (view.has('Leaf') && view.num('Leaf') === 1 ? ', last level only' : '');

/** A command in a sentence; name: as `commandOf` gives it. */
export function commandSummary(view: View, name: string): string {
  const special = SUMMARIES[name];
  if (special !== undefined) return special(view);
  if (!name.startsWith('CMD_TLBI_')) return view.layout.text;
  const where = view.has('Address') ? `: ${tlbiRange(view)}${leafOnly(view)}` : '';
  const tags = tag(view);
  return `drop ${view.layout.text}${tags === '' ? '' : ` (${tags})`}${where}`;
}
