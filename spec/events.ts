/** Records of the Event queue (IHI 0070 7.3). */
import { type Encoding, type Fields, Layout, type Words } from './layout.ts';

/** Bytes of an event record (7.3). */
export const EVENT_BYTES = 32;

/** Facts about an event. */
export interface EventInfo {
  /** Bits 7:0. */
  readonly number: number;
  readonly section: string;
  /** The transaction may be stalled instead of terminated (3.12). */
  readonly stallable?: boolean;
  readonly text: string;
}

/** The first 8 bits of every record. */
const NUMBER = { EventNumber: { bits: [7, 0] } } as const;

/** A 32-byte event record. {@link encode} writes the event number by itself. */
export class EventLayout<F extends Fields = Fields> extends Layout<F & typeof NUMBER> {
  readonly number: number;
  readonly stallable: boolean;

  constructor(name: string, info: EventInfo, fields: F) {
    super(name, { bytes: EVENT_BYTES, section: info.section, text: info.text }, { ...NUMBER, ...fields });
    this.number = info.number;
    this.stallable = info.stallable ?? false;
  }

  /** The record with the given fields, all others zero, its number set. @throws LayoutError as Layout.set. */
  override encode(values: Encoding<F & typeof NUMBER> = {}): Words {
    const words = super.encode(values);
    if (values.EventNumber === undefined) this.set(words, 'EventNumber', this.number);
    return words;
  }
}

/** Makes an event; field names and value names stay known to the compiler. */
function event<const F extends Fields>(name: string, info: EventInfo, fields: F): EventLayout<F> {
  return new EventLayout(name, info, fields);
}

/** What the SMMU was doing when it faulted (7.3.12). */
export const EVENT_CLASS = { CD: 0, TT: 1, IN: 2 } as const;

const SSV = { bits: [11, 11], text: 'SubstreamID is valid' } as const;
const SUBSTREAM_ID = { bits: [31, 12] } as const;
const STREAM_ID = { bits: [63, 32] } as const;
const REASON_16 = { bits: [79, 64], reserved: 'IMPDEF', text: 'implementation defined reason' } as const;
const REASON_32 = { bits: [95, 64], reserved: 'IMPDEF', text: 'implementation defined reason' } as const;
const GPCF = { bits: [80, 80], when: 'IDR0.RME_IMPL', text: 'by the granule protection check' } as const;
const PNU = { bits: [97, 97], text: 'privileged' } as const;
const IND = { bits: [98, 98], text: 'instruction; 0 for writes' } as const;
const RNW = { bits: [99, 99], text: 'read' } as const;
const NSIPA = { bits: [102, 102], text: 'Secure queue only' } as const;
const S2 = { bits: [103, 103], text: 'at stage 2' } as const;
const CLASS = {
  bits: [105, 104],
  values: EVENT_CLASS,
  text: 'CD: CD fetch; TT: stage 1 table fetch; IN: input address',
} as const;
const INPUT_ADDR = { bits: [191, 128] } as const;
const INPUT_PAGE = { bits: [191, 140], address: 12 } as const;
const IPA = { bits: [247, 204], address: 12 } as const;
const FETCH_ADDR = { bits: [247, 195], address: 3 } as const;

/** Bits 63:0 of a record with SSV. */
const STREAM = {
  RES0_10_8: { bits: [10, 8], reserved: 'RES0' },
  SSV,
  SubstreamID: SUBSTREAM_ID,
  StreamID: STREAM_ID,
} as const;

/** A record of which nothing but the stream is known. */
const STREAM_ONLY = { ...STREAM, RES0_255_64: { bits: [255, 64], reserved: 'RES0' } } as const;

/** A structure that could not be fetched. */
const FETCH = {
  ...STREAM,
  Reason: REASON_16,
  GPCF,
  RES0_194_81: { bits: [194, 81], reserved: 'RES0' },
  FetchAddr: FETCH_ADDR,
  RES0_255_248: { bits: [255, 248], reserved: 'RES0' },
} as const;

/** Bits 105:0 of a translation fault. */
const FAULT_LOW = {
  ...STREAM,
  STAG: { bits: [79, 64], text: 'stall tag for CMD_RESUME' },
  RES0_94_80: { bits: [94, 80], reserved: 'RES0' },
  Stall: { bits: [95, 95], text: 'the transaction waits for CMD_RESUME' },
  RES0_96: { bits: [96, 96], reserved: 'RES0' },
  PnU: PNU,
  InD: IND,
  RnW: RNW,
  RES0_101_100: { bits: [101, 100], reserved: 'RES0' },
  NSIPA,
  S2,
  CLASS,
} as const;

/** Bits 255:112 of a translation fault. */
const FAULT_HIGH = {
  IMPDEF_127_112: { bits: [127, 112], reserved: 'IMPDEF' },
  InputAddr: INPUT_ADDR,
  RES0_203_192: { bits: [203, 192], reserved: 'RES0' },
  IPA,
  RES0_255_248: { bits: [255, 248], reserved: 'RES0' },
} as const;

const FAULT = { ...FAULT_LOW, RES0_111_106: { bits: [111, 106], reserved: 'RES0' }, ...FAULT_HIGH } as const;

/** Unsupported client transaction (7.3.2). */
export const F_UUT = event(
  'F_UUT',
  { number: 0x01, section: '7.3.2', text: 'unsupported client transaction' },
  {
    ...STREAM,
    Reason: REASON_16,
    RES0_96_80: { bits: [96, 80], reserved: 'RES0' },
    PnU: PNU,
    InD: IND,
    RnW: RNW,
    RES0_127_100: { bits: [127, 100], reserved: 'RES0' },
    InputAddr: INPUT_ADDR,
    RES0_255_192: { bits: [255, 192], reserved: 'RES0' },
  },
);

/** StreamID outside the Stream table (7.3.3). Recorded only with CR2.RECINVSID. */
export const C_BAD_STREAMID = event(
  'C_BAD_STREAMID',
  { number: 0x02, section: '7.3.3', text: 'StreamID outside the Stream table' },
  STREAM_ONLY,
);

/** STE or L1STD fetch aborted (7.3.4). */
export const F_STE_FETCH = event(
  'F_STE_FETCH',
  { number: 0x03, section: '7.3.4', text: 'STE or L1STD fetch aborted' },
  FETCH,
);

/** STE invalid or ILLEGAL (7.3.5). */
export const C_BAD_STE = event(
  'C_BAD_STE',
  { number: 0x04, section: '7.3.5', text: 'STE invalid or ILLEGAL' },
  STREAM_ONLY,
);

/** ATS Translation Request where ATS is not enabled (7.3.6). */
export const F_BAD_ATS_TREQ = event(
  'F_BAD_ATS_TREQ',
  { number: 0x05, section: '7.3.6', text: 'ATS Translation Request where ATS is not enabled' },
  {
    ...STREAM,
    Span: { bits: [67, 64], text: 'size of the request in STUs' },
    RES0_91_68: { bits: [91, 68], reserved: 'RES0' },
    P: { bits: [92, 92], text: 'privileged' },
    X: { bits: [93, 93], text: 'execute' },
    W: { bits: [94, 94], text: 'write' },
    R: { bits: [95, 95], text: 'read' },
    RES0_139_96: { bits: [139, 96], reserved: 'RES0' },
    InputAddr: INPUT_PAGE,
    RES0_255_192: { bits: [255, 192], reserved: 'RES0' },
  },
);

/** Substream use that STE.S1DSS forbids (7.3.7). */
export const F_STREAM_DISABLED = event(
  'F_STREAM_DISABLED',
  { number: 0x06, section: '7.3.7', text: 'transaction that STE.S1DSS forbids' },
  {
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
    StreamID: STREAM_ID,
    RES0_255_64: { bits: [255, 64], reserved: 'RES0' },
  },
);

/** ATS Translated transaction refused (7.3.8). */
export const F_TRANSL_FORBIDDEN = event(
  'F_TRANSL_FORBIDDEN',
  { number: 0x07, section: '7.3.8', text: 'ATS Translated transaction refused' },
  {
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
    StreamID: STREAM_ID,
    RES0_98_64: { bits: [98, 64], reserved: 'RES0' },
    RnW: RNW,
    RES0_127_100: { bits: [127, 100], reserved: 'RES0' },
    InputAddr: INPUT_ADDR,
    RES0_255_192: { bits: [255, 192], reserved: 'RES0' },
  },
);

/** SubstreamID without a CD (7.3.9). SubstreamID is always valid. */
export const C_BAD_SUBSTREAMID = event(
  'C_BAD_SUBSTREAMID',
  { number: 0x08, section: '7.3.9', text: 'SubstreamID outside the CD table' },
  {
    RES0_11_8: { bits: [11, 8], reserved: 'RES0' },
    SubstreamID: SUBSTREAM_ID,
    StreamID: STREAM_ID,
    RES0_255_64: { bits: [255, 64], reserved: 'RES0' },
  },
);

/** CD or L1CD fetch aborted (7.3.10). */
export const F_CD_FETCH = event(
  'F_CD_FETCH',
  { number: 0x09, section: '7.3.10', text: 'CD or L1CD fetch aborted' },
  FETCH,
);

/** CD invalid or ILLEGAL (7.3.11). */
export const C_BAD_CD = event(
  'C_BAD_CD',
  { number: 0x0a, section: '7.3.11', text: 'CD invalid or ILLEGAL' },
  STREAM_ONLY,
);

/** Translation table access aborted (7.3.12). */
export const F_WALK_EABT = event(
  'F_WALK_EABT',
  { number: 0x0b, section: '7.3.12', text: 'translation table access aborted' },
  {
    ...STREAM,
    Reason: REASON_16,
    GPCF,
    RES0_96_81: { bits: [96, 81], reserved: 'RES0' },
    PnU: PNU,
    InD: IND,
    RnW: RNW,
    RES0_102_100: { bits: [102, 100], reserved: 'RES0' },
    S2,
    CLASS,
    RES0_127_106: { bits: [127, 106], reserved: 'RES0' },
    InputAddr: INPUT_ADDR,
    RES0_194_192: { bits: [194, 192], reserved: 'RES0' },
    FetchAddr: FETCH_ADDR,
    RES0_255_248: { bits: [255, 248], reserved: 'RES0' },
  },
);

/** No translation (7.3.13). */
export const F_TRANSLATION = event(
  'F_TRANSLATION',
  { number: 0x10, section: '7.3.13', stallable: true, text: 'no translation' },
  FAULT,
);

/** Output address out of range (7.3.14). */
export const F_ADDR_SIZE = event(
  'F_ADDR_SIZE',
  { number: 0x11, section: '7.3.14', stallable: true, text: 'address out of range' },
  FAULT,
);

/** Access flag clear (7.3.15). */
export const F_ACCESS = event(
  'F_ACCESS',
  { number: 0x12, section: '7.3.15', stallable: true, text: 'Access flag clear' },
  FAULT,
);

/** Permission denied (7.3.16). */
export const F_PERMISSION = event(
  'F_PERMISSION',
  { number: 0x13, section: '7.3.16', stallable: true, text: 'permission denied' },
  {
    ...FAULT_LOW,
    RES0_107_106: { bits: [107, 106], reserved: 'RES0' },
    TTRnW: { bits: [108, 108], text: 'with CLASS TT: the table access was a read' },
    RES0_111_109: { bits: [111, 109], reserved: 'RES0' },
    ...FAULT_HIGH,
  },
);

/** More than one TLB entry matched (7.3.17). */
export const F_TLB_CONFLICT = event(
  'F_TLB_CONFLICT',
  { number: 0x20, section: '7.3.17', text: 'more than one TLB entry matched' },
  {
    ...STREAM,
    Reason: REASON_32,
    RES0_96: { bits: [96, 96], reserved: 'RES0' },
    PnU: PNU,
    InD: IND,
    RnW: RNW,
    RES0_101_100: { bits: [101, 100], reserved: 'RES0' },
    NSIPA,
    S2,
    RES0_127_104: { bits: [127, 104], reserved: 'RES0' },
    InputAddr: INPUT_ADDR,
    RES0_203_192: { bits: [203, 192], reserved: 'RES0' },
    IPA,
    RES0_255_248: { bits: [255, 248], reserved: 'RES0' },
  },
);

/** More than one configuration cache entry matched (7.3.18). */
export const F_CFG_CONFLICT = event(
  'F_CFG_CONFLICT',
  { number: 0x21, section: '7.3.18', text: 'more than one cached configuration matched' },
  { ...STREAM, Reason: REASON_32, RES0_255_96: { bits: [255, 96], reserved: 'RES0' } },
);

/** Hint from a client that a page will be needed (7.3.19). */
export const E_PAGE_REQUEST = event(
  'E_PAGE_REQUEST',
  { number: 0x24, section: '7.3.19', text: 'hint that a page will be needed' },
  {
    ...STREAM,
    RES0_96_64: { bits: [96, 64], reserved: 'RES0' },
    uX: { bits: [97, 97], text: 'unprivileged execute' },
    uW: { bits: [98, 98], text: 'unprivileged write' },
    uR: { bits: [99, 99], text: 'unprivileged read' },
    RES0_100: { bits: [100, 100], reserved: 'RES0' },
    pX: { bits: [101, 101], text: 'privileged execute' },
    pW: { bits: [102, 102], text: 'privileged write' },
    pR: { bits: [103, 103], text: 'privileged read' },
    RES0_107_104: { bits: [107, 104], reserved: 'RES0' },
    Span: { bits: [115, 108], text: 'pages of 4 KB' },
    RES0_139_116: { bits: [139, 116], reserved: 'RES0' },
    InputAddr: INPUT_PAGE,
    RES0_255_192: { bits: [255, 192], reserved: 'RES0' },
  },
);

/** VMS fetch aborted (7.3.20). */
export const F_VMS_FETCH = event('F_VMS_FETCH', { number: 0x25, section: '7.3.20', text: 'VMS fetch aborted' }, FETCH);

/** Every event by name, in order of number. */
export const EVENTS = {
  F_UUT,
  C_BAD_STREAMID,
  F_STE_FETCH,
  C_BAD_STE,
  F_BAD_ATS_TREQ,
  F_STREAM_DISABLED,
  F_TRANSL_FORBIDDEN,
  C_BAD_SUBSTREAMID,
  F_CD_FETCH,
  C_BAD_CD,
  F_WALK_EABT,
  F_TRANSLATION,
  F_ADDR_SIZE,
  F_ACCESS,
  F_PERMISSION,
  F_TLB_CONFLICT,
  F_CFG_CONFLICT,
  E_PAGE_REQUEST,
  F_VMS_FETCH,
} as const;

/** Names of events. */
export type EventName = keyof typeof EVENTS;

/** Numbers that an implementation may define, first and last (7.3). */
export const IMPDEF_EVENTS = [0xe0, 0xef] as const;

const byNumber: ReadonlyMap<number, EventLayout> = new Map(
  Object.values(EVENTS).map((layout) => [layout.number, layout as EventLayout]),
);

/** The number of a record, bits 7:0. */
export const eventNumber = (words: Words): number => EVENTS.F_UUT.num(words, 'EventNumber');

/** Which event these 8 words are. Undefined for a reserved or implementation defined number. */
export function eventOf(words: Words): EventLayout | undefined {
  return byNumber.get(eventNumber(words));
}

/** Whether the event of this name may stall its transaction (3.12). */
export const stallable = (name: EventName): boolean => EVENTS[name].stallable;

/**
 * Fields of a record whose value means nothing, so that comparisons leave them out: those the specification calls
 * UNKNOWN (7.3) or implementation defined, and STAG where nothing stalls. Empty for a record without a table.
 */
export function unknownFields(words: Words): string[] {
  const layout = eventOf(words);
  if (layout === undefined) return [];
  const is = (name: string, value: number): boolean =>
    Object.hasOwn(layout.fields, name) && layout.num(words, name) === value;
  const meaningless: Readonly<Record<string, boolean>> = {
    SubstreamID: is('SSV', 0),
    STAG: is('Stall', 0),
    IPA: is('S2', 0),
    TTRnW: !is('CLASS', EVENT_CLASS.TT),
  };
  return layout.names.filter((name) => layout.field(name).reserved === 'IMPDEF' || meaningless[name] === true);
}

/** Ones where a record means something: everything but {@link unknownFields}. RES0 bits count. */
export function knownBits(words: Words): Words {
  const layout = eventOf(words);
  const known = new Uint32Array(words.length).fill(0xffffffff);
  if (layout === undefined) return known;
  const unknown = layout.mask(unknownFields(words));
  return known.map((bits, i) => (bits & ~(unknown[i] ?? 0)) >>> 0);
}
