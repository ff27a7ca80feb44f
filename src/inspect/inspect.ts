/** Everything that memory images say of an SMMU: tables, CDs behind stage 2 too, mappings, queues, tags. */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { s1Enabled, s2Enabled } from '../../spec/stream-world.ts';
import { STEP_SIZE, Step } from '../hw/transaction.ts';
import {
  capsFromRegisters,
  cdsOfScan,
  type Dump,
  type DumpCd,
  type DumpOptions,
  type DumpProblem,
  type DumpStream,
  dump,
  e2hOf,
  RecordCache,
} from './dump.ts';
import type { ImageMemory } from './memory.ts';
import { addressOf, ImageModel } from './model.ts';
import { type QueueDump, queuesOf } from './queues.ts';
import { MAX_TRIES, type MappedRange, mapRange, type Tries } from './ranges.ts';
import { hex } from './record.ts';
import { Budget, cdTableOf, type Registers, scanArray } from './stream-table.ts';
import { type TagUse, tagsOf } from './tags.ts';
import { transactionOf } from './translate.ts';
import { wordsOfHex } from './words.ts';

/** What one set of translation tables maps. */
export interface TableDump {
  /** Streams and substreams that translate through the tables. */
  readonly users: readonly { readonly sid: number; readonly ssid?: number }[];
  /** "0x..": start tables, as CD and STE name them. */
  readonly ttb0?: string;
  readonly ttb1?: string;
  readonly s2ttb?: string;
  /** Mapped ranges, and those that fault for another reason than having no translation. */
  readonly ranges: readonly MappedRange[];
  /** The search was given up: the tables map more. */
  readonly incomplete?: true;
}

/** A dump with all that follows from it. */
export interface Inspection extends Dump {
  readonly queues: readonly QueueDump[];
  readonly vmids: TagUse['vmids'];
  readonly asids: TagUse['asids'];
  /** Empty if the SMMU is not known. */
  readonly tables: readonly TableDump[];
}

/** What to look at, and how far. */
export interface InspectOptions extends DumpOptions {
  /** Leave out what the tables map. */
  readonly brief?: boolean | undefined;
}

/** CDs of one page of a CD table. */
const CDS_PER_PAGE = 0x1000 / CD.bytes;

/** A transaction that leads to a CD by its index, whatever S1DSS says. */
function requestOf(ste: Words, sid: number, index: number) {
  const dss = STE.fields.S1DSS.values;
  const alone = STE.num(ste, 'S1CDMax') === 0 || (index === 0 && STE.num(ste, 'S1DSS') === dss.SSID0);
  return { sid, ...(alone ? {} : { ssid: index }) };
}

/** CDs of a nested stream: each page of the table is found through stage 2. */
function nestedCds(
  memory: ImageMemory,
  registers: Registers,
  caps: Caps,
  stream: DumpStream,
  all: boolean,
  problems: DumpProblem[],
): DumpCd[] {
  const ste = wordsOfHex(stream.words);
  const { sid } = stream;
  const model = new ImageModel(memory, registers, caps);
  const table = cdTableOf(ste, caps);
  const total = 2 ** table.log2size;
  const budget = new Budget();
  const looking = { records: new RecordCache(), memory, caps, e2h: e2hOf(registers), all, problems };
  const cds: DumpCd[] = [];
  const leaf = table.leaf === undefined ? 0 : 2 ** table.leaf;
  for (let index = 0; index < total; index += CDS_PER_PAGE) {
    const t = transactionOf({ ...requestOf(ste, sid, index), iova: 0n });
    const missing = model.translate(t);
    const at = Array.from({ length: t.stepCount }, (_, i) => i).find((i) => t.steps[i * STEP_SIZE] === Step.CD);
    if (at === undefined) {
      const reached = missing === undefined ? 'stage 2 does not map them' : `no image has ${hex(missing)}`;
      const invalidLeaf = leaf > 0 && t.rule === 'V' && missing === undefined;
      if (!invalidLeaf && budget.problem())
        problems.push({
          rule: 'DUMP-CDTAB',
          section: '3.3.2',
          message: `StreamID ${hex(sid)}: the CDs from SubstreamID ${hex(index)}: ${reached}`,
          sid,
        });
      if (!invalidLeaf && leaf === 0) return cds;
      if (leaf > CDS_PER_PAGE) index += leaf - CDS_PER_PAGE;
      continue;
    }
    const pa = addressOf(t.steps[at * STEP_SIZE + 2] ?? 0, t.steps[at * STEP_SIZE + 3] ?? 0);
    const count = BigInt(Math.min(CDS_PER_PAGE, total - index));
    const scan = scanArray(memory, { pa, count, bytes: CD.bytes, first: index }, budget, all, (first, last, gap) => ({
      problem: {
        rule: 'DUMP-CDTAB',
        section: '3.3.2',
        message: `StreamID ${hex(sid)}: the CDs of SubstreamID ${hex(first)} to ${hex(last)} at ${hex(gap)} are in no image`,
        sid,
      },
    }));
    cds.push(...cdsOfScan(looking, sid, ste, scan));
  }
  return cds;
}

/** One way in which a stream translates, and through which tables. */
interface Walk {
  readonly key: string;
  readonly sid: number;
  readonly ssid?: number;
  readonly ste: Words;
  readonly cd: Words | undefined;
}

function walksOf(stream: DumpStream): Walk[] {
  const ste = wordsOfHex(stream.words);
  if (!stream.ste.valid || stream.ste.problems.length > 0) return [];
  const { sid } = stream;
  const s2 = s2Enabled(ste) ? stream.words.slice(2, 4).join() : '-';
  if (!s1Enabled(ste)) return s2Enabled(ste) ? [{ key: s2, sid, ste, cd: undefined }] : [];
  return (stream.cds ?? [])
    .filter(({ cd }) => cd.valid && cd.problems.length === 0)
    .map(({ ssid, words }) => {
      const cd = wordsOfHex(words);
      const same = ['T0SZ', 'TG0', 'EPD0', 'TTB0', 'T1SZ', 'TG1', 'EPD1', 'TTB1', 'IPS', 'AA64'] as const;
      const key = `${s2} ${same.map((name) => CD.get(cd, name)).join()}`;
      return { key, ...requestOf(ste, sid, ssid), ste, cd };
    });
}

/** First and last address of each half that is on. */
function halvesOf(walk: Walk): readonly (readonly [bigint, bigint])[] {
  if (walk.cd === undefined) return [[0n, (1n << BigInt(64 - STE.num(walk.ste, 'S2T0SZ'))) - 1n]];
  const low: (readonly [bigint, bigint])[] = [];
  if (CD.num(walk.cd, 'EPD0') === 0) low.push([0n, (1n << BigInt(64 - CD.num(walk.cd, 'T0SZ'))) - 1n]);
  if (CD.num(walk.cd, 'EPD1') === 0)
    low.push([(1n << 64n) - (1n << BigInt(64 - CD.num(walk.cd, 'T1SZ'))), (1n << 64n) - 1n]);
  return low;
}

const NOT_MAPPED = 'F_TRANSLATION';

function tableDump(
  memory: ImageMemory,
  registers: Registers,
  caps: Caps,
  walks: readonly Walk[],
  first: Walk,
  tries: Tries,
): TableDump {
  const { sid, ssid, ste, cd } = first;
  const found = halvesOf(first).map(([from, to]) => mapRange(memory, registers, caps, { sid, ssid, from, to }, tries));
  const half = (n: 0 | 1) =>
    cd !== undefined && CD.num(cd, `EPD${n}`) === 0 ? { [`ttb${n}`]: hex(CD.address(cd, `TTB${n}`)) } : {};
  return {
    users: walks.map((walk) => ({ sid: walk.sid, ...(walk.ssid === undefined ? {} : { ssid: walk.ssid }) })),
    ...half(0),
    ...half(1),
    ...(s2Enabled(ste) ? { s2ttb: hex(STE.address(ste, 'S2TTB')) } : {}),
    ranges: found.flatMap(({ ranges }) => ranges.filter(({ fault }) => fault !== NOT_MAPPED)),
    ...(found.every(({ complete }) => complete) ? {} : { incomplete: true as const }),
  };
}

function tablesOf(memory: ImageMemory, registers: Registers, caps: Caps, streams: readonly DumpStream[]): TableDump[] {
  const byKey = new Map<string, Walk[]>();
  for (const walk of streams.flatMap(walksOf)) {
    const known = byKey.get(walk.key);
    if (known === undefined) byKey.set(walk.key, [walk]);
    else known.push(walk);
  }
  const tries = { left: MAX_TRIES };
  return [...byKey.values()].flatMap((walks) => {
    const [first] = walks;
    return first === undefined ? [] : [tableDump(memory, registers, caps, walks, first, tries)];
  });
}

/**
 * All that an image says: {@link dump}, with the CDs of nested streams, queues, tags and mapped ranges.
 * @throws InputError if the registers do not say where the Stream table lies.
 */
export function inspect(memory: ImageMemory, registers: Registers, options: InspectOptions = {}): Inspection {
  const caps = options.caps ?? capsFromRegisters(registers);
  const plain = dump(memory, registers, { ...options, caps });
  const problems = [...plain.problems];
  const streams = plain.streams.map((stream) => {
    // Hardware follows no pointer of an illegal STE, and its sizes may be absurd.
    const legal = stream.ste.valid && stream.ste.problems.length === 0;
    const nested = caps !== undefined && legal && stream.cds !== undefined && s2Enabled(wordsOfHex(stream.words));
    return nested
      ? { ...stream, cds: nestedCds(memory, registers, caps, stream, options.all === true, problems) }
      : stream;
  });
  const { vmids, asids, problems: conflicts } = tagsOf(streams, caps, e2hOf(registers));
  return {
    ...plain,
    streams,
    problems: [...problems, ...conflicts],
    queues: queuesOf(memory, registers, caps),
    vmids,
    asids,
    tables: caps === undefined || options.brief === true ? [] : tablesOf(memory, registers, caps, streams),
  };
}
