/**
 * The last things that happened, in a ring of bounded size. Entries are numbers; text is made only for those that a
 * finding shows.
 */
import { commandOf, type Words } from '../../spec/index.ts';
import type { Clock } from './clock.ts';
import type { Subject } from './finding.ts';
import { showUnit, unitOfPa } from './units.ts';

/** Numbers of an entry: time, kind, SMMU, and five more. */
const WIDTH = 8;
/** Entries kept; room for fewer at first. */
const CAPACITY = 4096;
const FIRST_CAPACITY = 256;
/** Lines that a finding shows at most. */
const LINES = 24;

const Kind = { Store: 1, Command: 2, CommandError: 3, Register: 4, Dma: 5, Text: 6 } as const;

/** What a history line is chosen by. */
export interface Relevance {
  readonly subject: Subject;
  /** Address ranges in 64-bit units, [first, end). */
  readonly units: readonly (readonly [first: number, end: number])[];
}

/** Operands of a command that say whom it is about. */
const SID_COMMANDS = new Set([
  'CMD_CFGI_STE',
  'CMD_CFGI_CD',
  'CMD_CFGI_CD_ALL',
  'CMD_ATC_INV',
  'CMD_RESUME',
  'CMD_STALL_TERM',
]);

/** See the module comment. */
export class History {
  readonly #clock: Clock;
  #ring = new Float64Array(FIRST_CAPACITY * WIDTH);
  #capacity = FIRST_CAPACITY;
  #count = 0;
  readonly #names: string[] = [];
  readonly #ids = new Map<string, number>();
  /** The same for queues: by SMMU, then by queue. */
  readonly #queues = new Map<string, Map<string, number>>();
  readonly #texts = new Map<number, { readonly text: string; readonly subject: Partial<Subject> }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  #id(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = this.#names.push(name) - 1;
      this.#ids.set(name, id);
    }
    return id;
  }

  /** A queue by its SMMU and its name; the text is put together once. */
  #queueId(smmu: string, queue: string): number {
    let ids = this.#queues.get(smmu);
    if (ids === undefined) {
      ids = new Map();
      this.#queues.set(smmu, ids);
    }
    let id = ids.get(queue);
    if (id === undefined) {
      id = this.#id(`${smmu} ${queue}`);
      ids.set(queue, id);
    }
    return id;
  }

  #push(kind: number, who: number, a: number, b: number, c: number, d: number, e: number): void {
    if (this.#count === this.#capacity && this.#capacity < CAPACITY) this.#grow();
    const slot = this.#count++ % this.#capacity;
    const at = slot * WIDTH;
    const ring = this.#ring;
    if (ring[at + 1] === Kind.Text) this.#texts.delete(slot);
    ring[at] = this.#clock.now;
    ring[at + 1] = kind;
    ring[at + 2] = who;
    ring[at + 3] = a;
    ring[at + 4] = b;
    ring[at + 5] = c;
    ring[at + 6] = d;
    ring[at + 7] = e;
  }

  /** Doubles the ring before it wraps for the first time. */
  #grow(): void {
    this.#capacity *= 2;
    const ring = new Float64Array(this.#capacity * WIDTH);
    ring.set(this.#ring);
    this.#ring = ring;
  }

  /** A store to a watched unit. */
  store(unit: number, hi: number, lo: number): void {
    this.#push(Kind.Store, this.#id(''), unit, hi >>> 0, lo >>> 0, 0, 0);
  }

  /** A command was consumed, or stopped its queue with `error`. */
  command(smmu: string, queue: string, words: Words, error: number): void {
    this.#push(
      error === 0 ? Kind.Command : Kind.CommandError,
      this.#queueId(smmu, queue),
      words[0] ?? 0,
      words[1] ?? 0,
      words[2] ?? 0,
      words[3] ?? 0,
      error,
    );
  }

  /** A register was written. */
  register(smmu: string, offset: number, hi: number, lo: number): void {
    this.#push(Kind.Register, this.#id(smmu), offset, hi >>> 0, lo >>> 0, 0, 0);
  }

  /** A transaction of a stream. */
  dma(smmu: string, sid: number, isWrite: boolean, hi: number, lo: number): void {
    this.#push(Kind.Dma, this.#id(smmu), sid, hi >>> 0, lo >>> 0, isWrite ? 1 : 0, 0);
  }

  /** Anything else, rare. */
  text(smmu: string, text: string, subject: Partial<Subject>): void {
    this.#push(Kind.Text, this.#id(smmu), 0, 0, 0, 0, 0);
    this.#texts.set((this.#count - 1) % this.#capacity, { text, subject });
  }

  /** The lines that concern a finding, oldest first. */
  lines(about: Relevance): string[] {
    const out: string[] = [];
    const first = Math.max(0, this.#count - this.#capacity);
    for (let n = this.#count - 1; n >= first && out.length < LINES; n--) {
      const slot = n % this.#capacity;
      const text = this.#relevant(slot, about, out);
      if (text !== undefined) out.push(`${this.#ring[slot * WIDTH]}: ${text}`);
    }
    return out.reverse();
  }

  #relevant(slot: number, about: Relevance, later: readonly string[]): string | undefined {
    const [, kind = 0, who = 0, a = 0, b = 0, c = 0, d = 0, e = 0] = this.#ring.subarray(
      slot * WIDTH,
      (slot + 1) * WIDTH,
    );
    const name = this.#names[who] ?? '';
    const { subject, units } = about;
    const here = name === '' || name.split(' ')[0] === subject.smmu;
    switch (kind) {
      case Kind.Store:
        return units.some(([first, end]) => a >= first && a < end)
          ? `store ${showUnit(a)} = 0x${hex16(b)}${hex16(c)}`
          : undefined;
      case Kind.Command:
      case Kind.CommandError: {
        const words = Uint32Array.of(a, b, c, d);
        if (!here || !concerns(words, subject, later)) return undefined;
        return `${name}: ${showCommand(words)}${kind === Kind.CommandError ? ` stopped the queue, error ${e}` : ''}`;
      }
      case Kind.Register:
        return here ? `${name}: register 0x${a.toString(16)} = 0x${b === 0 ? '' : hex16(b)}${hex16(c)}` : undefined;
      case Kind.Dma:
        return here && a === subject.StreamID
          ? `${name}: ${d === 1 ? 'write' : 'read'} by stream 0x${a.toString(16)} at 0x${hex16(b)}${hex16(c)}`
          : undefined;
      default: {
        const note = this.#texts.get(slot);
        return note !== undefined && here && matches(note.subject, subject) ? note.text : undefined;
      }
    }
  }
}

const hex16 = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');

/** Whether what is known of a note agrees with the subject in everything both name. */
function matches(note: Partial<Subject>, subject: Subject): boolean {
  for (const key of ['StreamID', 'VMID', 'ASID', 'address'] as const)
    if (note[key] !== undefined && note[key] === subject[key]) return true;
  return Object.keys(note).length === 0;
}

/** Whether a command says something about the subject; a CMD_SYNC does if it follows one that does. */
function concerns(words: Words, subject: Subject, later: readonly string[]): boolean {
  const match = commandOf(words);
  if (match === undefined) return false;
  if (match.name === 'CMD_SYNC') return !(later.at(-1) ?? '').includes('CMD_SYNC');
  if (SID_COMMANDS.has(match.name)) return words[1] === subject.StreamID;
  if (Object.hasOwn(match.layout.fields, 'VMID'))
    return subject.VMID === undefined || Number(match.layout.get(words, 'VMID' as never)) === subject.VMID;
  return match.name.startsWith('CMD_CFGI') || match.name.startsWith('CMD_TLBI');
}

/** A command with its operands that are not zero. */
export function showCommand(words: Words): string {
  const match = commandOf(words);
  if (match === undefined) return `opcode 0x${((words[0] ?? 0) & 0xff).toString(16)}`;
  const { layout } = match;
  const operands = layout.names
    .filter((name) => name !== 'Opcode' && layout.field(name as never).reserved === undefined)
    .map((name) => [name, layout.get(words, name as never)] as const)
    .filter(([, value]) => value !== 0n);
  return [match.name, ...operands.map(([name, value]) => `${name}=0x${value.toString(16)}`)].join(' ');
}

/** The unit range of a record at a physical address. */
export const unitsOf = (pa: bigint, bytes: number): readonly [number, number] => {
  const first = unitOfPa(pa);
  return [first, first + Math.ceil(bytes / 8)];
};
