/** Stalled transactions and page requests of streams (rules DET-1, DET-3, ATS-13). */
import {
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  opcodeOf,
  PRI_ENTRY,
  slotValue,
  type Words,
} from '../../spec/index.ts';
import { type Context, hex } from './context.ts';

const SID = CMD_RESUME.slot('StreamID');
const STAG = CMD_RESUME.slot('STAG');
const PRG = CMD_PRI_RESP.slot('PRGIndex');

/** The SMMU's own Command queue, as acts name it. */
export const OWN_QUEUE = 'cmdq';

/** A stream got another owner while commands were in queues: what they answer is answered. */
interface Given {
  readonly sid: number;
  readonly how: string;
  readonly since: number;
  /** Of these commands, by queue. */
  readonly left: Map<string, number>;
}

/** See the module comment. */
export class Stalled {
  readonly #context: Context;
  readonly #smmu: string;
  /** STAGs by stream with the time of the stall, until a command that answers them is consumed. */
  readonly #stags = new Map<number, Map<number, number>>();
  /** Those that SMMUEN=0 ended, while commands that were sent before are still in the queue; and how many these are. */
  #ended = new Map<number, Map<number, number>>();
  #sentBefore = 0;
  /** Page request groups by stream with the time of the last request, until the response. */
  readonly #groups = new Map<number, Map<number, number>>();
  #given: Given[] = [];

  constructor(context: Context, smmu: string) {
    this.#context = context;
    this.#smmu = smmu;
  }

  /** A transaction stalls; without a STAG (-1) hardware retries it by itself. */
  stalled(sid: number, stag: number): void {
    if (stag < 0) return;
    this.#context.history.text(this.#smmu, `a transaction of StreamID ${hex(sid)} stalls, STAG ${stag}`, {
      StreamID: sid,
    });
    const known = this.#stags.get(sid);
    if (known === undefined) this.#stags.set(sid, new Map([[stag, this.#context.clock.now]]));
    else known.set(stag, this.#context.clock.now);
  }

  /** SMMUEN went to 0: hardware ends all stalled transactions. @param queued commands that were sent before, and wait */
  switchedOff(queued: number): void {
    this.#ended = new Map(queued === 0 ? [] : this.#stags);
    this.#sentBefore = queued;
    this.#stags.clear();
    if (queued === 0) this.#judgeGiven(() => true);
  }

  /** A command was consumed, and {@link consumed} has been told of it. */
  took(queue: string): void {
    if (queue === OWN_QUEUE && this.#sentBefore > 0 && --this.#sentBefore === 0) this.#ended.clear();
    this.#judgeGiven(({ left }) => {
      const before = left.get(queue) ?? 0;
      if (before > 1) left.set(queue, before - 1);
      return before === 1 && left.delete(queue) && left.size === 0;
    });
  }

  /** A VCMDQ was disabled: what it held comes to nothing. */
  stopped(queue: string): void {
    this.#judgeGiven(({ left }) => left.delete(queue) && left.size === 0);
  }

  /** A PRI record was written. */
  requested(words: Words): void {
    if (PRI_ENTRY.num(words, 'Last') === 0) return;
    const sid = PRI_ENTRY.num(words, 'StreamID');
    const known = this.#groups.get(sid) ?? new Map<number, number>();
    known.set(PRI_ENTRY.num(words, 'PRGIndex'), this.#context.clock.now);
    this.#groups.set(sid, known);
  }

  /** A command was consumed. */
  consumed(words: Words): void {
    const sid = slotValue(words, SID);
    const opcode = opcodeOf(words);
    if (opcode === CMD_STALL_TERM.opcode) this.#stags.delete(sid);
    else if (opcode === CMD_PRI_RESP.opcode) this.#groups.get(sid)?.delete(slotValue(words, PRG));
    else if (opcode === CMD_RESUME.opcode && !this.#answered(sid, slotValue(words, STAG)))
      this.#report(
        'DET-3',
        sid,
        `CMD_RESUME names STAG ${slotValue(words, STAG)}, which no stalled transaction of StreamID ${hex(sid)} has`,
      );
  }

  /** Whether a STAG was there to be answered, now or when SMMUEN=0 overtook the answer (4.7.1: that has no effect). */
  #answered(sid: number, stag: number): boolean {
    return this.#stags.get(sid)?.delete(stag) === true || this.#ended.get(sid)?.delete(stag) === true;
  }

  /**
   * A stream is detached, or gets another domain: no stall of the old one may be left.
   * @param before stalls before this moment count
   */
  leaves(sid: number, how: string, before: number): void {
    const stags = [...(this.#stags.get(sid) ?? [])].filter(([, time]) => time < before).map(([stag]) => stag);
    if (stags.length > 0)
      this.#report(
        'DET-1',
        sid,
        `StreamID ${hex(sid)} ${how} with ${stags.length} stalled transactions (STAG ${stags.join(', ')})`,
      );
  }

  /** A stream gets another owner: nothing of the old one may be left. @param waiting commands that were sent before, by queue */
  given(sid: number, how: string, waiting: Iterable<readonly [queue: string, commands: number]>): void {
    const left = new Map([...waiting].filter(([, commands]) => commands > 0));
    const one: Given = { sid, how, since: this.#context.clock.now, left };
    if (left.size === 0) this.#judge(one);
    else this.#given.push(one);
  }

  #judgeGiven(due: (one: Given) => boolean): void {
    if (this.#given.length === 0) return;
    const now = this.#given.filter(due);
    this.#given = this.#given.filter((one) => !now.includes(one));
    for (const one of now) this.#judge(one);
  }

  #judge({ sid, how, since }: Given): void {
    this.leaves(sid, how, since);
    const groups = [...(this.#groups.get(sid) ?? [])].filter(([, time]) => time <= since).map(([group]) => group);
    if (groups.length > 0)
      this.#report(
        'ATS-13',
        sid,
        `StreamID ${hex(sid)} ${how} with page request groups ${groups.join(', ')} unanswered`,
      );
  }

  #report(rule: string, sid: number, what: string): void {
    this.#context.report(rule, `${this.#smmu}: ${what}`, { smmu: this.#smmu, StreamID: sid });
  }
}
