/** Stalled transactions (IHI 0070 3.12, 4.7.1, 4.7.2). */
import { EVENT_BYTES } from '../../spec/events.ts';
import type { Words } from '../../spec/layout.ts';
import type { StallControl } from './commands/context.ts';
import type { EventQueue } from './event-queue.ts';
import { fillEvent } from './event-record.ts';
import type { Watch } from './observer.ts';
import type { Agent } from './schedule.ts';
import type { Transaction } from './transaction.ts';

/** How a stalled transaction ends without a retry. */
export type Termination = 'abort' | 'razwi';

/** Whose transaction stalls. */
export interface StallClient {
  /** The transaction may be sent again, as a new one. */
  retry(): void;
  /** The transaction is over. */
  finish(how: Termination): void;
}

interface Entry {
  readonly StreamID: number;
  /** -1: held back without a record, because no STAG was free or the Event queue could take none. */
  readonly STAG: number;
  readonly client: StallClient;
}

/** Transactions held at once, recorded or not. */
const MAX_HELD = 4096;

/**
 * Holds stalled transactions. One that cannot be recorded yet has no STAG; it is sent again when it can (7.2.1), so that
 * its record never shows configuration older than an invalidation that was waited for.
 */
export class Stalls implements StallControl, Agent {
  readonly name: string;
  readonly #smmu: string;
  readonly #queue: EventQueue;
  readonly #watch: Watch;
  readonly #limit: number;
  readonly #words: Words = new Uint32Array(EVENT_BYTES / 4);
  readonly #stalled = new Map<number, Entry>();
  #held: Entry[] = [];
  #marked: { readonly entry: Entry; readonly action: 'retry' | Termination }[] = [];

  /** @param limit most STAGs in use at once */
  constructor(smmu: string, queue: EventQueue, limit: number, watch: Watch) {
    this.name = `${smmu}.stalls`;
    this.#smmu = smmu;
    this.#queue = queue;
    this.#limit = limit;
    this.#watch = watch;
  }

  /** No more transactions can be held: a further one is terminated instead (3.12 lets an implementation do so). */
  get crowded(): boolean {
    return this.#stalled.size + this.#held.length >= MAX_HELD;
  }

  /** Stalls a transaction and records its event, now or when that becomes possible. */
  stall(t: Transaction, client: StallClient): void {
    const recordable = this.#queue.writable && this.#stalled.size < this.#limit;
    const STAG = recordable ? this.#freeTag() : -1;
    const entry: Entry = { StreamID: t.StreamID, STAG, client };
    this.#announce('stalled', entry);
    if (!recordable) {
      this.#held.push(entry);
      return;
    }
    this.#stalled.set(STAG, entry);
    fillEvent(this.#words, t, entry);
    // A record lost to an abort leaves its transaction stalled (7.2.2).
    this.#queue.record(this.#words, true);
  }

  /** The lowest STAG that is free. */
  #freeTag(): number {
    let tag = 0;
    while (this.#stalled.has(tag)) tag++;
    return tag;
  }

  /** CMD_RESUME. Nothing happens unless the STAG belongs to a stalled transaction of this stream (4.7.1). */
  resume(StreamID: number, STAG: number, action: 'retry' | Termination): void {
    const entry = this.#stalled.get(STAG);
    if (entry === undefined || entry.StreamID !== StreamID) return;
    this.#stalled.delete(STAG);
    this.#marked.push({ entry, action });
  }

  /** CMD_STALL_TERM: all stalled transactions of a stream that exist now (4.7.2). */
  terminateStream(StreamID: number): void {
    this.#terminate((entry) => entry.StreamID === StreamID);
  }

  /** SMMUEN went from 1 to 0 (6.3.9.6). */
  terminateAll(): void {
    this.#terminate(() => true);
  }

  #terminate(which: (entry: Entry) => boolean): void {
    const gone = [...this.#stalled.values(), ...this.#held].filter(which);
    for (const entry of gone) this.#stalled.delete(entry.STAG);
    this.#held = this.#held.filter((entry) => !which(entry));
    for (const entry of gone) this.#marked.push({ entry, action: 'abort' });
  }

  get ready(): boolean {
    return (
      this.#marked.length > 0 || (this.#held.length > 0 && this.#queue.writable && this.#stalled.size < this.#limit)
    );
  }

  act(): void {
    const marked = this.#marked.shift();
    if (marked !== undefined) {
      const { entry, action } = marked;
      this.#announce(action === 'retry' ? 'retried' : 'terminated', entry);
      if (action === 'retry') entry.client.retry();
      else entry.client.finish(action);
      return;
    }
    const held = this.#held.shift();
    if (held === undefined) return;
    this.#announce('retried', held);
    held.client.retry();
  }

  #announce(kind: 'stalled' | 'retried' | 'terminated', { StreamID, STAG }: Entry): void {
    this.#watch.observer?.({ kind, smmu: this.#smmu, StreamID, STAG });
  }

  /** STAGs in use, ascending, with their StreamIDs. */
  get stalled(): { readonly STAG: number; readonly StreamID: number }[] {
    return [...this.#stalled.values()]
      .map(({ STAG, StreamID }) => ({ STAG, StreamID }))
      .sort((a, b) => a.STAG - b.STAG);
  }
}
