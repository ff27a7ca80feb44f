/** Logs with answers: what is recognised is explained in place, everything else passes through untouched. */
import { decode } from '../decode.ts';
import { type DecodedRecord, hex } from '../record.ts';
import { hexWords } from '../words.ts';
import { type Advice, EVENT_ADVICE, LINE_ADVICE } from './causes.ts';
import { Collector, type Pending } from './collector.ts';
import type { LineMeaning } from './line-rule.ts';
import { lineMeaning } from './lines.ts';

/** Something that was recognised. */
export interface Finding {
  /** 1-based number of the line after which it is explained. */
  readonly line: number;
  /** `event`, `cmd`, `ste`, `cd`, or the kind of line. */
  readonly kind: string;
  /** Name of the event or command. */
  readonly name?: string;
  readonly summary: string;
  readonly likely: readonly string[];
  readonly next: readonly string[];
  /** Not for a record or trace that is no error. */
  readonly error: boolean;
  readonly sid?: number;
  readonly ssid?: number;
  readonly iova?: string;
  readonly words?: readonly string[];
}

/** Events of one kind and stream, counted. */
export interface EventSummary {
  readonly name: string;
  readonly sid: number;
  readonly ssid?: number;
  readonly access: string;
  readonly count: number;
  /** Lowest and highest address, where the events have one. */
  readonly from?: string;
  readonly to?: string;
  readonly firstLine: number;
  readonly lastLine: number;
}

/** Findings that are kept at most; what comes after is still explained and counted. */
export const MAX_FINDINGS = 100_000;

/** What may begin something to explain; a line without it is not looked at. */
const TRIGGER =
  /smmu|SMMU|event: |event 0x|cmdqv|CMDQV|CMDQ |EVTQ|PRIQ|CMD_SYNC|\bSTE\b|\bste\b|\bCD\b|\bcd\b|VINTF|vintf_map/g;

/** Characters of a line that are looked at: the last ones, where a message that broke into other output stands. */
const LOOKED_AT = 1 << 14;

const HEADER = /(\S{1,256}): event (0x[0-9a-fA-F]{2}) received:(.*)$/;
const COMMAND = /(\S{1,256}): skipping command in error state:(.*)$/;
/** Newer kernels; what follows the SubstreamID depends on the event. */
const DECODED =
  /event: (\S+) client: (.*?) sid: (0x[0-9a-fA-F]+) ssid: (0x[0-9a-fA-F]+)(?: iova: (0x[0-9a-fA-F]+)| fetch_addr: (0x[0-9a-fA-F]+))?/;
const QEMU_EVENT = /smmuv3_(?:record|propagate)_event (?:sec_sid=\d+ )?(?:SMMU_EVT_)?(\w+) sid=(0x[0-9a-fA-F]+|\d+)/;
const QEMU_FAILED = /translation failed for iova=(0x[0-9a-fA-F]+) ?\((?:SMMU_EVT_)?(\w+)\)/;
const ENTRY = /\b(STE|ste|CD|cd)\b(?:\s*(?:entry|words?|\[?\d+\]?|for|sid|SID)\b[^:=]*)?\s*[:=[]/;

/** 64-bit words of an STE and of a CD. */
const ENTRY_WORDS = 8;

const field = (record: DecodedRecord, name: string): bigint | undefined => {
  const found = record.fields.find((one) => one.name === name);
  return found === undefined ? undefined : BigInt(found.value);
};

interface Group {
  readonly name: string;
  readonly sid: number;
  readonly ssid: number | undefined;
  readonly access: string;
  count: number;
  from: bigint | undefined;
  to: bigint | undefined;
  readonly firstLine: number;
  lastLine: number;
}

/** What is known of an event. */
interface EventFacts {
  readonly name: string;
  readonly summary: string;
  readonly sid: number | undefined;
  readonly ssid: number | undefined;
  readonly iova: bigint | undefined;
  readonly access: string;
  readonly words?: readonly string[];
}

/**
 * Explains a log as it comes in. Text in, annotated text out; each character stands for one byte (latin1), so that what
 * is not recognised comes out as it went in.
 */
export class LogExplainer {
  readonly findings: Finding[] = [];
  /** Whether an error was recognised. */
  failed = false;
  readonly #groups = new Map<string, Group>();
  readonly #told = new Map<string, number>();
  #collectors: Collector[] = [];
  #lastEvent: EventFacts | undefined;
  #rest = '';
  #line = 0;

  /** Takes a piece of the log, gives the lines that are whole, with their explanations. */
  push(text: string): string {
    const all = this.#rest + text;
    const end = all.lastIndexOf('\n') + 1;
    this.#rest = all.slice(end);
    return end === 0 ? '' : this.#lines(all.slice(0, end));
  }

  /** The last line, if it had no end. */
  end(): string {
    const last = this.#rest;
    this.#rest = '';
    return last === '' ? '' : this.#lines(last);
  }

  #lines(text: string): string {
    const out: string[] = [];
    let copied = 0;
    let at = 0;
    let counted = 0;
    while (at < text.length) {
      if (this.#collectors.length === 0) {
        TRIGGER.lastIndex = at;
        const found = TRIGGER.exec(text);
        if (found === null) break;
        at = text.lastIndexOf('\n', found.index) + 1;
      }
      const newline = text.indexOf('\n', at);
      const end = newline < 0 ? text.length : newline + 1;
      this.#line += countLines(text, counted, at) + 1;
      counted = end;
      const notes = this.#one(text.slice(at, newline < 0 ? text.length : newline));
      if (notes.length > 0) {
        out.push(text.slice(copied, end), newline < 0 ? '\n' : '', ...notes.map((note) => `${note}\n`));
        copied = end;
      }
      at = end;
    }
    this.#line += countLines(text, counted, text.length);
    out.push(text.slice(copied));
    return out.join('');
  }

  /** One line; gives the lines that explain it. */
  #one(raw: string): string[] {
    const line = raw.slice(-LOOKED_AT).replace(INVISIBLE, '');
    const header = HEADER.exec(line);
    if (header !== null)
      return this.#begin({ kind: 'event', device: header[1] ?? '', line: this.#line, size: 4 }, header[3] ?? '');
    const command = COMMAND.exec(line);
    if (command !== null)
      return this.#begin({ kind: 'cmd', device: command[1] ?? '', line: this.#line, size: 2 }, command[2] ?? '');
    const decoded = DECODED.exec(line);
    if (decoded !== null) return this.#decoded(decoded);
    const qemu = QEMU_EVENT.exec(line);
    if (qemu !== null)
      return this.#event({
        name: qemu[1] ?? '',
        summary: `${qemu[1]}: StreamID ${hex(Number(qemu[2]))}`,
        sid: Number(qemu[2]),
        ssid: undefined,
        iova: undefined,
        access: '',
      });
    const failed = QEMU_FAILED.exec(line);
    if (failed !== null)
      return this.#event({
        name: failed[2] ?? '',
        summary: `${failed[2]}: access to ${failed[1]} failed`,
        sid: undefined,
        ssid: undefined,
        iova: BigInt(failed[1] ?? 0),
        access: '',
      });
    const meaning = lineMeaning(line);
    if (meaning !== undefined) return this.#alone(meaning);
    const entry = ENTRY.exec(line);
    const whole = entry !== null && (line.match(/0x[0-9a-fA-F]+/g)?.length ?? 0) >= ENTRY_WORDS;
    const taken = whole ? undefined : this.#collect(line);
    if (taken !== undefined) return taken;
    if (entry === null) return [];
    const kind = entry[1]?.toLowerCase() === 'ste' ? 'ste' : 'cd';
    return this.#begin(
      { kind, device: '', line: this.#line, size: ENTRY_WORDS },
      line.slice(entry.index + entry[0].length - 1),
    );
  }

  #begin(pending: Pending, rest: string): string[] {
    this.#collectors = this.#collectors.filter(
      (one) => one.pending.device !== pending.device || one.pending.kind !== pending.kind,
    );
    const collector = new Collector(pending);
    collector.take(rest);
    if (collector.words === undefined) {
      this.#collectors.push(collector);
      return [];
    }
    return this.#complete(collector);
  }

  /** Gives a line to the record it belongs to: that of the same device, else the one that began last. */
  #collect(line: string): string[] | undefined {
    const order = this.#collectors.toReversed();
    const named = order.find(({ pending }) => pending.device !== '' && line.includes(`${pending.device}:`));
    const owner = named ?? order.find((one) => one.accepts(line));
    for (const one of order) if (one !== owner && one.age()) this.#drop(one);
    if (owner === undefined) return undefined;
    const took = owner.take(this.#afterDevice(line, owner.pending.device));
    if (owner.lost) this.#drop(owner);
    if (!took) return undefined;
    if (owner.words === undefined) return [];
    this.#drop(owner);
    return this.#complete(owner);
  }

  #afterDevice(line: string, device: string): string {
    const at = device === '' ? -1 : line.indexOf(`${device}:`);
    return at < 0 ? line : line.slice(at + device.length + 1);
  }

  #drop(collector: Collector): void {
    this.#collectors = this.#collectors.filter((one) => one !== collector);
  }

  #complete(collector: Collector): string[] {
    const { words, pending } = collector;
    if (words === undefined) return [];
    const record = decode(pending.kind, words);
    if (pending.kind === 'event') return this.#event(factsOf(record, hexWords(words)));
    const [problem] = record.problems;
    const summary = `${record.summary.includes(record.name) ? '' : `${record.name}: `}${record.summary}`;
    const illegal = problem === undefined ? '' : `; ILLEGAL: ${problem.message} [${problem.rule}]`;
    const error = pending.kind === 'cmd' || problem !== undefined;
    this.#keep({
      line: this.#line,
      kind: pending.kind,
      name: record.name,
      summary: summary + illegal,
      likely: [],
      next: [],
      error,
      words: hexWords(words),
    });
    return note(`${summary}${illegal}`);
  }

  #decoded([, name = '', , sid = '0', ssid = '0', iova, fetched]: RegExpExecArray): string[] {
    const substream = Number(ssid) === 0 ? undefined : Number(ssid);
    const input = iova === undefined ? undefined : BigInt(iova);
    // The line repeats the record whose words stand above it.
    if (repeats(this.#lastEvent, name, Number(sid), input)) return [];
    const who = `StreamID ${sid}${substream === undefined ? '' : `, SubstreamID ${ssid}`}`;
    const what =
      iova !== undefined ? `: access to ${iova}` : fetched !== undefined ? `: the fetch of ${fetched} failed` : '';
    return this.#event({
      name,
      summary: `${name}: ${who}${what}`,
      sid: Number(sid),
      ssid: substream,
      iova: input,
      access: '',
    });
  }

  #event(facts: EventFacts): string[] {
    const { name, summary, sid, ssid, iova, access } = facts;
    this.#lastEvent = facts;
    this.#count(facts);
    const advice = filled(EVENT_ADVICE[name], facts);
    this.#keep({
      line: this.#line,
      kind: 'event',
      name,
      summary,
      ...advice,
      error: true,
      ...place(sid, ssid, iova),
      ...(facts.words === undefined ? {} : { words: facts.words }),
    });
    return this.#tell(`event ${name} ${sid} ${ssid} ${access}`, summary, advice);
  }

  #alone({ kind, summary, info, sid, ssid, iova }: LineMeaning): string[] {
    const error = info !== true;
    if (!error && this.#told.has(kind)) return [];
    const advice = filled(LINE_ADVICE[kind], { sid, ssid, iova, access: '' });
    this.#keep({ line: this.#line, kind, summary, ...advice, error, ...place(sid, ssid, iova) });
    return this.#tell(kind, summary, advice);
  }

  /** The explanation; causes only the first time. */
  #tell(key: string, summary: string, { likely, next }: Advice): string[] {
    const times = (this.#told.get(key) ?? 0) + 1;
    this.#told.set(key, times);
    if (times > 1) return note(`${summary} (number ${times} of its kind)`);
    return [
      ...note(summary),
      ...likely.flatMap((cause, i) => note(`${i === 0 ? 'likely: ' : '        '}${i + 1}. ${cause}`)),
      ...next.flatMap((step, i) => note(`${i === 0 ? 'next:   ' : '        '}${step}`)),
    ];
  }

  #keep(finding: Finding): void {
    if (finding.error) this.failed = true;
    if (this.findings.length < MAX_FINDINGS) this.findings.push(finding);
  }

  #count({ name, sid, ssid, iova, access }: EventFacts): void {
    if (sid === undefined) return;
    const key = `${name} ${sid} ${ssid} ${access}`;
    const group = this.#groups.get(key);
    if (group === undefined) {
      this.#groups.set(key, {
        name,
        sid,
        ssid,
        access,
        count: 1,
        from: iova,
        to: iova,
        firstLine: this.#line,
        lastLine: this.#line,
      });
      return;
    }
    group.count++;
    group.lastLine = this.#line;
    if (iova === undefined) return;
    if (group.from === undefined || iova < group.from) group.from = iova;
    if (group.to === undefined || iova > group.to) group.to = iova;
  }

  /** Events by kind and stream, most frequent first. */
  get summary(): EventSummary[] {
    return [...this.#groups.values()]
      .map(({ ssid, from, to, ...group }) => ({
        ...group,
        ...(ssid === undefined ? {} : { ssid }),
        ...(from === undefined ? {} : { from: hex(from) }),
        ...(to === undefined ? {} : { to: hex(to) }),
      }))
      .sort((a, b) => b.count - a.count || a.firstLine - b.firstLine);
  }
}

/** Whether the kernel's own words say what the record above them said: they leave out what it does not know. */
const repeats = (last: EventFacts | undefined, name: string, sid: number, iova: bigint | undefined): boolean =>
  last?.words !== undefined &&
  last.sid === sid &&
  (last.name === name || Object.hasOwn(EVENT_ADVICE, name) === false) &&
  (iova === undefined || iova === (last.iova ?? 0n));

/** Colours of a terminal, and other bytes that print nothing. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
const INVISIBLE = /\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]/g;

/** What a finding says of where it happened. */
const place = (
  sid: number | undefined,
  ssid: number | undefined,
  iova: bigint | undefined,
): Pick<Finding, 'sid' | 'ssid' | 'iova'> => ({
  ...(sid === undefined ? {} : { sid }),
  ...(ssid === undefined ? {} : { ssid }),
  ...(iova === undefined ? {} : { iova: hex(iova) }),
});

const note = (text: string): string[] => [`    | ${text}`];

function countLines(text: string, from: number, to: number): number {
  let lines = 0;
  for (let at = text.indexOf('\n', from); at >= 0 && at < to; at = text.indexOf('\n', at + 1)) lines++;
  return lines;
}

function factsOf(record: DecodedRecord, words: readonly string[]): EventFacts {
  const sid = field(record, 'StreamID');
  const valid = field(record, 'SSV') !== 0n;
  const ssid = valid ? field(record, 'SubstreamID') : undefined;
  const input = record.fields.find(({ name }) => name === 'InputAddr');
  const read = field(record, 'RnW');
  return {
    name: record.name,
    summary: record.summary,
    sid: sid === undefined ? undefined : Number(sid),
    ssid: ssid === undefined ? undefined : Number(ssid),
    iova: input?.meaning === undefined ? undefined : BigInt(/0x[0-9a-f]+/.exec(input.meaning)?.[0] ?? 0),
    access: read === undefined ? '' : read === 1n ? 'read' : 'write',
    words,
  };
}

/** Advice with what the record says put in. */
function filled(
  advice: Advice | undefined,
  { sid, ssid, iova, access }: Pick<EventFacts, 'sid' | 'ssid' | 'iova' | 'access'>,
): Advice {
  const put = (text: string): string =>
    text
      .replace('{sid}', sid === undefined ? 'SID' : hex(sid))
      .replace('{ssid}', ssid === undefined ? '' : ` --ssid ${hex(ssid)}`)
      .replace('{iova}', iova === undefined ? 'ADDRESS' : hex(iova))
      .replace('{access}', access === 'write' ? ' --write' : '');
  return { likely: advice?.likely ?? [], next: (advice?.next ?? []).map(put) };
}
