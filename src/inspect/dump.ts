/** What an SMMU was told: Stream table and CD tables of a memory image, decoded. */
import { type Caps, capsOf } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Words } from '../../spec/layout.ts';
import { type CdContext, cdContext } from '../../spec/legality/cd.ts';
import { CR2 } from '../../spec/registers/control.ts';
import { STE } from '../../spec/ste.ts';
import { s1Enabled, s2Enabled } from '../../spec/stream-world.ts';
import { decode } from './decode.ts';
import type { ImageMemory } from './memory.ts';
import { type DecodedProblem, type DecodedRecord, hex } from './record.ts';
import {
  Budget,
  cdTableOf,
  type Found,
  isDefaultSte,
  type Registers,
  registerWords,
  scanCdTable,
  scanStreamTable,
  streamTableOf,
} from './stream-table.ts';
import { hexWords } from './words.ts';

/** A problem of a dump; sid and ssid where it belongs to one stream. */
export interface DumpProblem extends DecodedProblem {
  readonly sid?: number;
  readonly ssid?: number;
}

/** A CD of a stream. */
export interface DumpCd {
  readonly ssid: number;
  /** "0x..": where the CD lies. */
  readonly pa: string;
  readonly cd: DecodedRecord;
  readonly words: readonly string[];
}

/** An STE, and the CDs it leads to. */
export interface DumpStream {
  readonly sid: number;
  /** "0x..": where the STE lies. */
  readonly pa: string;
  readonly ste: DecodedRecord;
  readonly words: readonly string[];
  /** Of streams with stage 1. */
  readonly cds?: readonly DumpCd[];
}

/** What one image says. */
export interface Dump {
  readonly phase?: string;
  readonly strtab: {
    readonly format: 'linear' | 'two-level';
    readonly base: string;
    readonly log2size: number;
    readonly split?: number;
  };
  readonly streams: readonly DumpStream[];
  readonly problems: readonly DumpProblem[];
}

/** What to look at, and what to show. */
export interface DumpOptions {
  readonly phase?: string | undefined;
  /** The SMMU; default: what the registers say. */
  readonly caps?: Caps | undefined;
  /** Invalid and all-default entries too. */
  readonly all?: boolean | undefined;
}

/** What the ID registers among `registers` say, or undefined if one of IDR0, IDR1, IDR3, IDR5 is missing. */
export function capsFromRegisters(registers: Registers): Caps | undefined {
  const value = (name: string): number | undefined => {
    const found = registers.get(name);
    return found === undefined ? undefined : Number(BigInt.asUintN(32, found));
  };
  const [IDR0, IDR1, IDR3, IDR5] = ['IDR0', 'IDR1', 'IDR3', 'IDR5'].map(value);
  if (IDR0 === undefined || IDR1 === undefined || IDR3 === undefined || IDR5 === undefined) return undefined;
  return capsOf({ IDR0, IDR1, IDR3, IDR5, IDR6: value('IDR6'), AIDR: value('AIDR'), MPAMIDR: value('MPAMIDR') });
}

/** Records that {@link RecordCache} remembers. */
const REMEMBERED = 1 << 14;

/** Decodes records; equal ones, of which tables are full, once. */
export class RecordCache {
  readonly #known = new Map<string, Decoded>();

  /** The record of some words. context: what else decides what it means. */
  decode(kind: 'ste' | 'cd', words: Words, caps: Caps | undefined, context?: CdContext): Decoded {
    const key = `${words.join()} ${context === undefined ? '' : JSON.stringify(context)}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.#known.size === REMEMBERED) this.#known.clear();
    const made = { record: decode(kind, words, { caps, cdContext: context }), words: hexWords(words) };
    this.#known.set(key, made);
    return made;
  }
}

/** A decoded record and its words. */
interface Decoded {
  readonly record: DecodedRecord;
  readonly words: readonly string[];
}

/** What entries are decoded with, and where their problems go. */
export interface Looking {
  readonly records: RecordCache;
  readonly memory: ImageMemory;
  readonly caps: Caps | undefined;
  readonly e2h: boolean;
  readonly all: boolean;
  readonly problems: DumpProblem[];
}

/** The CDs among what a scan found; their problems are kept. */
export function cdsOfScan(looking: Looking, sid: number, ste: Words, scan: Iterable<Found>): DumpCd[] {
  const { records, caps, e2h, all, problems } = looking;
  const cds: DumpCd[] = [];
  // Without a known SMMU, all that the STE's own bits say of the stream is taken.
  const context = cdContext(ste, caps ?? { S1P: true, Hyp: true }, e2h);
  for (const found of scan) {
    if ('problem' in found) problems.push(found.problem);
    else if (all || CD.num(found.words, 'V') === 1) {
      const { record: cd, words } = records.decode('cd', found.words, caps, context);
      problems.push(...cd.problems.map((problem) => ({ ...problem, sid, ssid: found.id })));
      cds.push({ ssid: found.id, pa: hex(found.pa), cd, words });
    }
  }
  return cds;
}

/** CDs of a stream. With stage 2 on their addresses are IPAs: see `inspect`, which asks the hardware model. */
function cdsOf(looking: Looking, sid: number, ste: Words): DumpCd[] {
  if (s2Enabled(ste)) return [];
  const { memory, caps, all } = looking;
  return cdsOfScan(looking, sid, ste, scanCdTable(memory, cdTableOf(ste, caps), sid, all, new Budget()));
}

/** CR2.E2H. */
export function e2hOf(registers: Registers): boolean {
  const cr2 = registers.get(CR2.name);
  return cr2 !== undefined && CR2.num(registerWords(CR2, cr2), 'E2H') === 1;
}

/**
 * The Stream table and every CD table of an image.
 * @throws InputError if the registers do not say where the Stream table lies.
 */
export function dump(memory: ImageMemory, registers: Registers, options: DumpOptions = {}): Dump {
  const caps = options.caps ?? capsFromRegisters(registers);
  const table = streamTableOf(registers, caps);
  const all = options.all === true;
  const e2h = e2hOf(registers);
  const problems: DumpProblem[] = [];
  const records = new RecordCache();
  const looking = { records, memory, caps, e2h, all, problems };
  const streams: DumpStream[] = [];
  for (const found of scanStreamTable(memory, table, all)) {
    if ('problem' in found) {
      problems.push(found.problem);
      continue;
    }
    const { id: sid, words } = found;
    const valid = STE.num(words, 'V') === 1;
    if (!all && (!valid || isDefaultSte(words))) continue;
    const { record: ste, words: shown } = records.decode('ste', words, caps);
    for (const problem of ste.problems) problems.push({ ...problem, sid });
    const cds = valid && s1Enabled(words) ? { cds: cdsOf(looking, sid, words) } : {};
    streams.push({ sid, pa: hex(found.pa), ste, words: shown, ...cds });
  }
  const { format, base, log2size, split } = table;
  return {
    ...(options.phase === undefined ? {} : { phase: options.phase }),
    strtab: { format, base: hex(base), log2size, ...(split === undefined ? {} : { split }) },
    streams,
    problems,
  };
}
