/**
 * Invalidations that were consumed and are not done yet. Consuming one promises nothing (IHI 0070 4.8): it is done at
 * some later moment, in any order among others, and at the latest when a CMD_SYNC of its queue is consumed.
 */
import { COMMANDS, opcodeOf } from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import type { Agent, Schedule } from '../schedule.ts';
import type { CommandStream } from './context.ts';

/** Opcodes that a CMD_SYNC has to wait for and that act on the SMMU's own caches. */
const DEFERRABLE: ReadonlySet<number> = new Set(
  Object.entries(COMMANDS)
    .filter(([name]) => name.startsWith('CMD_CFGI') || name.startsWith('CMD_TLBI'))
    .map(([, layout]) => layout.opcode),
);

/** Invalidations of one queue that may wait; a further one pushes one out. */
const CAPACITY = 32;

/** See the module comment. Nothing waits in an `eager` machine. */
export class PendingInvalidations implements Agent {
  readonly name: string;
  readonly #schedule: Schedule;
  readonly #perform: (words: Words, stream: CommandStream) => void;
  readonly #streams = new Set<CommandStream>();

  constructor(smmu: string, schedule: Schedule, perform: (words: Words, stream: CommandStream) => void) {
    this.name = `${smmu}.invalidations`;
    this.#schedule = schedule;
    this.#perform = perform;
  }

  /** Takes a legal command to do later. False: it has to be done now. */
  defer(words: Words, stream: CommandStream): boolean {
    if (this.#schedule.mode === 'eager' || !DEFERRABLE.has(opcodeOf(words))) return false;
    this.#streams.add(stream);
    stream.pending.push(words.slice());
    if (stream.pending.length > CAPACITY) this.#one(stream);
    return true;
  }

  get ready(): boolean {
    if (this.#streams.size === 0) return false;
    for (const { pending } of this.#streams) if (pending.length > 0) return true;
    return false;
  }

  act(): void {
    const waiting = [...this.#streams].filter(({ pending }) => pending.length > 0);
    const stream = waiting[this.#schedule.choose(this.name, 'queue', waiting.length)];
    if (stream !== undefined) this.#one(stream);
  }

  #one(stream: CommandStream): void {
    const pick = this.#schedule.choose(this.name, 'invalidation', stream.pending.length);
    const [words] = stream.pending.splice(pick, 1);
    if (words !== undefined) this.#perform(words, stream);
  }

  /** CMD_SYNC: does all of a queue. */
  settle(stream: CommandStream): void {
    while (stream.pending.length > 0) this.#one(stream);
  }
}
