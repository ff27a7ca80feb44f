/**
 * Records in words: STE, CD, level 1 descriptors, commands, events and translation table descriptors, each field with
 * its bits, value and meaning, what is ignored marked, what is illegal named by rule and section.
 */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import { COMMAND_BYTES, commandOf, IMPDEF_OPCODES, opcodeOf } from '../../spec/commands.ts';
import { DESCRIPTOR_TYPE, descriptorKind, type Granule, type Level, pte1, pte2 } from '../../spec/descriptors.ts';
import { EVENT_BYTES, eventNumber, eventOf, IMPDEF_EVENTS } from '../../spec/events.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import { type Layout, LayoutError, layout, type Words } from '../../spec/layout.ts';
import { type CdContext, cdProblems } from '../../spec/legality/cd.ts';
import { commandProblems } from '../../spec/legality/command.ts';
import { l1cdProblems } from '../../spec/legality/l1cd.ts';
import { l1stdProblems } from '../../spec/legality/l1std.ts';
import { steProblems } from '../../spec/legality/ste.ts';
import { STE } from '../../spec/ste.ts';
import { cdFieldIgnored, cdLayout, steFieldIgnored } from '../../spec/used.ts';
import { CD_MEANINGS, cdSummary } from './cd-words.ts';
import { COMMAND_MEANINGS, commandSummary } from './command-words.ts';
import { descriptorSummary, PTE1_MEANINGS, PTE2_MEANINGS } from './descriptor-words.ts';
import { EVENT_MEANINGS, eventSummary } from './event-words.ts';
import {
  type DecodedField,
  type DecodedProblem,
  type DecodedRecord,
  hex,
  type Meanings,
  meaningOf,
  type RecordKind,
  View,
} from './record.ts';
import { STE_MEANINGS, steSummary } from './ste-words.ts';

/** What, besides its words, decides what a record means. */
export interface DecodeOptions {
  /** The SMMU. Without it, only what is illegal on every SMMU is a problem. */
  readonly caps?: Caps | undefined;
  /** Granule of pte1 and pte2; default 4k. */
  readonly granule?: Granule | undefined;
  /** Level of pte1 and pte2; default 3. */
  readonly level?: Level | undefined;
  /** CD.DS or STE.S2DS for pte1 and pte2: 52-bit sizes with 4 KB and 16 KB granules. */
  readonly ds?: boolean | undefined;
  /** The effective output size is 52 bits, for pte1 and pte2 with the 64 KB granule. */
  readonly pa52?: boolean | undefined;
  /** What is known of the STE through which a CD is used. */
  readonly cdContext?: CdContext | undefined;
  /** Effective STRTAB_BASE_CFG.SPLIT, for l1std. */
  readonly split?: number | undefined;
}

/** Bytes of a record, by kind. */
export const RECORD_BYTES: Readonly<Record<RecordKind, number>> = {
  ste: STE.bytes,
  cd: CD.bytes,
  l1std: L1STD.bytes,
  l1cd: L1CD.bytes,
  cmd: COMMAND_BYTES,
  event: EVENT_BYTES,
  pte1: DESCRIPTOR_TYPE.bytes,
  pte2: DESCRIPTOR_TYPE.bytes,
};

/** What a record is called in a sentence, by kind. */
export const RECORD_NAMES: Readonly<Record<RecordKind, string>> = {
  ste: 'an STE',
  cd: 'a CD',
  l1std: 'an L1STD',
  l1cd: 'an L1CD',
  cmd: 'a command',
  event: 'an event',
  pte1: 'a stage 1 descriptor',
  pte2: 'a stage 2 descriptor',
};

const UNKNOWN_COMMAND = layout(
  'reserved command',
  { bytes: COMMAND_BYTES, section: '4.1.1', text: 'a command of no known meaning' },
  { Opcode: { bits: [7, 0] }, Operands_63_8: { bits: [63, 8] }, Operands_127_64: { bits: [127, 64] } },
);

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

/** How one kind is decoded: the parts that differ. */
interface Reading {
  readonly name: string;
  readonly layout: Layout;
  readonly valid: boolean;
  readonly meanings: Meanings;
  readonly summary: (view: View) => string;
  readonly ignored?: (name: string) => boolean;
  readonly problems: readonly DecodedProblem[];
}

const within = (value: number, [first, last]: readonly [number, number]): boolean => value >= first && value <= last;

function readSte(words: Words, { caps }: DecodeOptions): Reading {
  const valid = STE.num(words, 'V') === 1;
  return {
    name: STE.name,
    layout: STE,
    valid,
    meanings: STE_MEANINGS,
    summary: steSummary,
    ignored: (name) => steFieldIgnored(name, words, caps),
    problems: valid ? steProblems(words, caps) : [],
  };
}

function readCd(words: Words, { caps, cdContext }: DecodeOptions): Reading {
  const valid = CD.num(words, 'V') === 1;
  return {
    name: CD.name,
    layout: cdLayout(caps),
    valid,
    meanings: CD_MEANINGS,
    summary: cdSummary,
    ignored: (name) => cdFieldIgnored(name, words, caps, cdContext),
    problems: valid ? cdProblems(words, caps, cdContext) : [],
  };
}

const L1STD_MEANINGS: Meanings = {
  Span: (view) => {
    const span = view.num('Span');
    if (span === 0) return 'no STEs: C_BAD_STREAMID';
    return span > 11 ? 'reserved, behaves as 0: C_BAD_STREAMID' : `${2 ** (span - 1)} STEs`;
  },
};

const L1CD_MEANINGS: Meanings = {
  V: (view) => (view.num('V') === 1 ? 'valid' : 'invalid: C_BAD_SUBSTREAMID, the rest is ignored'),
};

const readL1std = (words: Words, { caps, split }: DecodeOptions): Reading => ({
  name: L1STD.name,
  layout: L1STD,
  valid: true,
  meanings: L1STD_MEANINGS,
  summary: (view) =>
    view.num('Span') === 0 ? 'no STEs' : `${L1STD_MEANINGS.Span?.(view, 'Span')} at ${view.address('L2Ptr')}`,
  ignored: (name) => name === 'L2Ptr' && L1STD.num(words, 'Span') === 0,
  problems: l1stdProblems(words, caps, { SPLIT: split }),
});

function readL1cd(words: Words, { caps, cdContext }: DecodeOptions): Reading {
  const valid = L1CD.num(words, 'V') === 1;
  return {
    name: L1CD.name,
    layout: L1CD,
    valid,
    meanings: L1CD_MEANINGS,
    summary: (view) => (valid ? `leaf table at ${view.address('L2Ptr')}` : 'invalid'),
    ignored: (name) => !valid && name !== 'V',
    problems: valid ? l1cdProblems(words, caps, { s2Enabled: cdContext?.s2Enabled }) : [],
  };
}

function readCommand(words: Words, { caps }: DecodeOptions): Reading {
  const problems = commandProblems(words, caps);
  const match = commandOf(words);
  if (match === undefined) {
    const name = within(opcodeOf(words), IMPDEF_OPCODES) ? 'implementation defined command' : UNKNOWN_COMMAND.name;
    const opcode = `opcode ${hex(opcodeOf(words))}: ${name}`;
    return {
      name,
      layout: UNKNOWN_COMMAND,
      valid: true,
      meanings: { Opcode: () => name },
      summary: () => opcode,
      problems,
    };
  }
  const { name, layout } = match;
  return {
    name,
    layout,
    valid: true,
    meanings: { ...COMMAND_MEANINGS, Opcode: () => `${name}: ${layout.text}` },
    summary: (view) => `${name}: ${commandSummary(view, name)}`,
    problems,
  };
}

function readEvent(words: Words): Reading {
  const event = eventOf(words);
  if (event === undefined) {
    const name = within(eventNumber(words), IMPDEF_EVENTS) ? 'implementation defined event' : UNKNOWN_EVENT.name;
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

function readDescriptor(stage: 1 | 2, words: Words, options: DecodeOptions): Reading {
  const granule = options.granule ?? '4k';
  const level = options.level ?? 3;
  const format = { ds: options.ds === true, pa52: options.pa52 === true };
  const kind = descriptorKind(words, granule, level, format);
  const layout = (stage === 1 ? pte1 : pte2)(granule, level, kind, format);
  const valid = DESCRIPTOR_TYPE.num(words, 'Valid') === 1;
  const type = level === 3 ? 'bits 1:0 = 01 are reserved' : 'a block may not stand';
  return {
    name: layout.name,
    layout,
    valid,
    meanings: stage === 1 ? PTE1_MEANINGS : PTE2_MEANINGS,
    summary: descriptorSummary,
    ignored: (name) => kind === 'invalid' && name !== 'Valid',
    problems:
      valid && kind === 'invalid'
        ? [
            {
              rule: 'PTE-TYPE',
              section: 'DDI 0487 D8.3',
              message: `${type} at level ${level} of the ${granule} granule: F_TRANSLATION`,
              fields: ['Type'],
            },
          ]
        : [],
  };
}

const READERS: Readonly<Record<RecordKind, (words: Words, options: DecodeOptions) => Reading>> = {
  ste: readSte,
  cd: readCd,
  l1std: readL1std,
  l1cd: readL1cd,
  cmd: readCommand,
  event: readEvent,
  pte1: (words, options) => readDescriptor(1, words, options),
  pte2: (words, options) => readDescriptor(2, words, options),
};

function fieldsOf(view: View, { meanings, ignored }: Reading): DecodedField[] {
  const out: DecodedField[] = [];
  for (const name of view.layout.names) {
    const value = view.get(name);
    if (view.layout.field(name).reserved !== undefined && value === 0n) continue;
    const meaning = meaningOf(view, name, meanings);
    out.push({
      name,
      bits: view.layout.bits(name),
      value: hex(value),
      ...(meaning === undefined ? {} : { meaning }),
      ...(ignored?.(name) === true ? { ignored: true as const } : {}),
    });
  }
  return out;
}

/**
 * One record in words.
 * @param words the record's 32-bit words, as many as its kind has
 * @throws LayoutError for a wrong number of words, or a level that the granule does not have.
 */
export function decode(kind: RecordKind, words: Words, options: DecodeOptions = {}): DecodedRecord {
  if (words.length * 4 !== RECORD_BYTES[kind])
    throw new LayoutError(`${RECORD_NAMES[kind]} is ${RECORD_BYTES[kind]} bytes, not ${words.length * 4}`);
  const reading = READERS[kind](words, options);
  const view = new View(reading.layout, words, options.caps);
  return {
    kind,
    name: reading.name,
    valid: reading.valid,
    summary: reading.summary(view),
    fields: fieldsOf(view, reading),
    problems: reading.problems,
  };
}
