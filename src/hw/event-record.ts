/** Event records made from a transaction (IHI 0070 7.3). Which field an event has is in its table; this fills them. */
import { EVENTS, type EventLayout } from '../../spec/events.ts';
import { LayoutError, type Part, type Words } from '../../spec/layout.ts';
import type { Transaction } from './transaction.ts';

/** What a stall adds to a record. */
export interface StallTag {
  readonly STAG: number;
}

/** A number, or the halves of an address, for a field of the record. */
type Source =
  | ((t: Transaction, stall: StallTag | null) => number)
  | readonly [hi: (t: Transaction) => number, lo: (t: Transaction) => number];

const bit = (value: boolean): number => (value ? 1 : 0);

const INPUT: Source = [(t) => t.addrHi, (t) => t.addrLo];

/**
 * RnW is that of the client's access. An atomic access shows as a write, unless only its read was refused (13.1.1):
 * write is checked first, so F_PERMISSION with write granted means the read.
 */
const rnw = (t: Transaction): number =>
  bit(t.isAtomic ? t.event === EVENTS.F_PERMISSION.number && t.grantWrite : !t.isWrite);

const SOURCES: Readonly<Record<string, Source>> = {
  EventNumber: (t) => t.event,
  SSV: (t) => bit(t.SSV),
  SubstreamID: (t) => (t.SSV ? t.SubstreamID : 0),
  StreamID: (t) => t.StreamID,
  STAG: (_, stall) => stall?.STAG ?? 0,
  Stall: (_, stall) => bit(stall !== null),
  PnU: (t) => bit(t.event === EVENTS.F_UUT.number ? t.PnU : t.eventPnU),
  InD: (t) => bit(t.event === EVENTS.F_UUT.number ? t.InD && !t.isWrite : t.eventInD),
  RnW: rnw,
  S2: (t) => bit(t.S2),
  CLASS: (t) => t.CLASS,
  TTRnW: (t) => bit(t.TTRnW),
  P: (t) => bit(t.PnU),
  X: (t) => bit(t.InD),
  W: (t) => bit(!t.noWrite),
  R: () => 1,
  // A request asks for one smallest translation unit.
  Span: () => 1,
  InputAddr: INPUT,
  IPA: [(t) => t.ipaHi, (t) => t.ipaLo],
  FetchAddr: [(t) => t.fetchHi, (t) => t.fetchLo],
};

/** One field of one event: its pieces and where its value comes from. */
interface Filler {
  readonly parts: readonly Part[];
  readonly source: Source;
}

/** Fields that stay 0 here: of the Secure queue, and of RME. */
const ZERO_FIELDS = new Set(['NSIPA', 'GPCF']);

function fillersOf(layout: EventLayout): Filler[] {
  const fillers: Filler[] = [];
  for (const name of layout.names as string[]) {
    const field = layout.field(name as never);
    const source = SOURCES[name];
    if (field.reserved !== undefined || ZERO_FIELDS.has(name)) continue;
    if (source === undefined) throw new LayoutError(`${layout.name}.${name} has no source`);
    const parts = layout.parts(name as never);
    const at = ((parts[0]?.word ?? 0) & 1) * 32 + (parts[0]?.shift ?? 0);
    if (typeof source !== 'function' && at !== (field.address ?? 0))
      throw new LayoutError(`${layout.name}.${name} does not stand at its place in a 64-bit word`);
    fillers.push({ parts, source });
  }
  return fillers;
}

/** By event number. E_PAGE_REQUEST is no outcome of a transaction. */
const FILLERS: ReadonlyMap<number, readonly Filler[]> = new Map(
  Object.values(EVENTS)
    .filter((layout) => layout.name !== 'E_PAGE_REQUEST')
    .map((layout) => [layout.number, fillersOf(layout as unknown as EventLayout)]),
);

/**
 * Fills `words` (8 of them) with the record of a transaction's event.
 * @throws RangeError for an event that no table describes
 */
export function fillEvent(words: Words, t: Transaction, stall: StallTag | null): void {
  const fillers = FILLERS.get(t.event);
  if (fillers === undefined) throw new RangeError(`event 0x${t.event.toString(16)} has no record`);
  words.fill(0);
  for (const { parts, source } of fillers) {
    if (typeof source === 'function') {
      const value = source(t, stall);
      for (const { word, shift, mask, at } of parts)
        words[word] = (words[word] ?? 0) | (((value >>> at) & mask) << shift);
    } else {
      const hi = source[0](t);
      const lo = source[1](t);
      for (const { word, shift, mask } of parts)
        words[word] = (words[word] ?? 0) | (((word & 1) === 0 ? lo : hi) & (mask << shift));
    }
  }
}
