/** Event records. */
import { EVENT_BYTES, eventNumber, eventOf, IMPDEF_EVENTS } from '../../../spec/events.ts';
import { layout, type Words } from '../../../spec/layout.ts';
import { hex } from '../record.ts';
import { EVENT_MEANINGS, eventSummary } from './event-words.ts';
import type { Reader, Reading } from './reader.ts';

const UNKNOWN_EVENT = layout(
  'reserved event',
  { bytes: EVENT_BYTES, section: '7.3', text: 'an event of no known meaning' },
  {
    EventNumber: { bits: [7, 0] },
    Data_63_8: { bits: [63, 8] },
    Data_127_64: { bits: [127, 64] },
    Data_191_128: { bits: [191, 128] },
    Data_255_192: { bits: [255, 192] },
  },
);

function readEvent(words: Words): Reading {
  const event = eventOf(words);
  if (event === undefined) {
    const name =
      eventNumber(words) >= IMPDEF_EVENTS[0] && eventNumber(words) <= IMPDEF_EVENTS[1]
        ? 'implementation defined event'
        : UNKNOWN_EVENT.name;
    const number = `event ${hex(eventNumber(words))}: ${name}`;
    return {
      name,
      layout: UNKNOWN_EVENT,
      valid: true,
      meanings: { EventNumber: () => name },
      summary: () => number,
      problems: [],
    };
  }
  return {
    name: event.name,
    layout: event,
    valid: true,
    meanings: { ...EVENT_MEANINGS, EventNumber: () => `${event.name}: ${event.text}` },
    summary: (view) => `${event.name}: ${eventSummary(view)}`,
    problems: [],
  };
}

/** Reads event records. */
export const reader: Reader = { kind: 'event', bytes: EVENT_BYTES, what: 'an event', read: readEvent };
