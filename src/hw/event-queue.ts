/** The Event queue (IHI 0070 3.5, 7.2, 7.4). */
import { EVENT_BYTES } from '../../spec/events.ts';
import type { Words } from '../../spec/layout.ts';
import { CR0, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, GERROR } from '../../spec/registers.ts';
import type { SmmuOptions } from './config.ts';
import type { ControlRegisters } from './control-registers.ts';
import { similar } from './event-merge.ts';
import type { GlobalErrors } from './gerror.ts';
import type { Memory } from './memory.ts';
import type { RecordAct, Watch } from './observer.ts';
import { attachQueue } from './queue-registers.ts';
import type { RegisterFile } from './registers.ts';
import type { Ring } from './ring.ts';
import type { Agent, Schedule } from './schedule.ts';

const EVENTQEN = CR0.bit('EVENTQEN');
const EVENTQ_ABT_ERR = GERROR.bit('EVENTQ_ABT_ERR');
const OVFLG = EVENTQ_PROD.bit('OVFLG');
const OVACKFLG = EVENTQ_CONS.bit('OVACKFLG');

/** How a record fared. */
export type RecordResult = RecordAct['result'];

/** Stores a record at a ring's PROD. False: external abort. */
export function storeRecord(memory: Memory, ring: Ring, words: Words): boolean {
  ring.locate(ring.prod);
  for (let i = 0; i < words.length; i += 2)
    if (!memory.store64(ring.paHi, ring.paLo + 4 * i, words[i + 1] ?? 0, words[i] ?? 0)) return false;
  return true;
}

/** Records that may wait to be written; a further one pushes the oldest out. */
const CAPACITY = 16;

/**
 * See the module comment. Except in an `eager` machine a record waits until its turn comes, and at the latest until a
 * CMD_SYNC (3.12); a stall's record is written at once.
 */
export class EventQueue implements Agent {
  readonly name: string;
  readonly ring: Ring;
  readonly #schedule: Schedule;
  readonly #waiting: Words[] = [];
  readonly #smmu: string;
  readonly #control: ControlRegisters;
  readonly #errors: GlobalErrors;
  readonly #memory: Memory;
  readonly #abort: SmmuOptions['queueWriteAbort'];
  readonly #watch: Watch;
  readonly #notEmpty: () => void;
  readonly #merging: SmmuOptions['eventMerging'];
  /** The record written last, and PROD after it. */
  #last: Words | null = null;
  #lastProd = 0;

  /** @param notEmpty called when the queue went from empty to non-empty, after PROD shows it */
  constructor(
    smmu: string,
    file: RegisterFile,
    control: ControlRegisters,
    errors: GlobalErrors,
    memory: Memory,
    watch: Watch,
    schedule: Schedule,
    notEmpty: () => void,
  ) {
    this.name = `${smmu}.eventq`;
    this.#schedule = schedule;
    this.#smmu = smmu;
    this.#control = control;
    this.#errors = errors;
    this.#memory = memory;
    this.#abort = file.options.queueWriteAbort;
    this.#merging = file.options.eventMerging;
    this.#watch = watch;
    this.#notEmpty = notEmpty;
    this.ring = attachQueue(file, control, {
      base: EVENTQ_BASE,
      prod: EVENTQ_PROD,
      cons: EVENTQ_CONS,
      entryBytes: EVENT_BYTES,
      max: file.caps.EVENTQS,
      enable: EVENTQEN,
      owned: 'prod',
    });
  }

  /** A record could be written now (7.2.1). An unacknowledged overflow does not hinder. */
  get writable(): boolean {
    return this.#control.enabled(EVENTQEN) && !this.ring.full && (this.#errors.active & EVENTQ_ABT_ERR) === 0;
  }

  /**
   * Writes a record, or drops it. A record without stall that is dropped because the queue is full sets OVFLG (7.4).
   * @param stall the record's transaction waits: it must be {@link writable} now
   * @param mergeable it may be merged into a similar one ({@link mayMerge})
   */
  record(words: Words, stall: boolean, mergeable = false): void {
    if (mergeable && !stall && this.#merges(words)) {
      this.#watch.observer?.({ kind: 'event', smmu: this.#smmu, words, result: 'merged' });
      return;
    }
    if (stall || this.#schedule.mode === 'eager') {
      this.#commit(words, stall);
      return;
    }
    this.#waiting.push(words.slice());
    if (this.#waiting.length > CAPACITY) this.act();
  }

  /** A similar record, the newest of all, waits to be written or to be read: this one is part of it (3.5.5). */
  #merges(words: Words): boolean {
    if (this.#merging === 'never' || !this.#control.enabled(EVENTQEN)) return false;
    const newest = this.#waiting.at(-1) ?? this.#unread;
    if (newest === null || !similar(newest, words)) return false;
    return this.#merging === 'unread' || this.#schedule.choose(this.name, 'merge', 2) === 1;
  }

  /** The newest record in the queue, unless software may have read it. */
  get #unread(): Words | null {
    return !this.ring.empty && this.ring.consistent && this.ring.prod === this.#lastProd ? this.#last : null;
  }

  /** A record waits to be written. */
  get ready(): boolean {
    return this.#waiting.length > 0;
  }

  /** Writes, or drops, the oldest record that waits. */
  act(): void {
    const words = this.#waiting.shift();
    if (words !== undefined) this.#commit(words, false);
  }

  /** CMD_SYNC: every record of an earlier transaction is visible, or gone for good (4.7.3). */
  settle(): void {
    while (this.ready) this.act();
  }

  /** Records that were not written are lost. */
  reset(): void {
    this.#waiting.length = 0;
    this.#last = null;
  }

  #commit(words: Words, stall: boolean): void {
    const result = this.writable ? this.#write(words) : this.#drop(stall);
    this.#watch.observer?.({ kind: 'event', smmu: this.#smmu, words, result });
  }

  #write(words: Words): RecordResult {
    const { ring } = this;
    if (!storeRecord(this.#memory, ring, words)) {
      if (this.#abort !== 'unreported') this.#errors.raise(EVENTQ_ABT_ERR);
      if (this.#abort === 'synchronous') return 'aborted';
      ring.prod = ring.next(ring.prod);
      return 'aborted';
    }
    const wasEmpty = ring.empty;
    ring.prod = ring.next(ring.prod);
    if (this.#merging !== 'never') {
      this.#last = words.slice();
      this.#lastProd = ring.prod;
    }
    if (wasEmpty) this.#notEmpty();
    return 'written';
  }

  #drop(stall: boolean): RecordResult {
    if (!this.#control.enabled(EVENTQEN)) return 'disabled';
    if ((this.#errors.active & EVENTQ_ABT_ERR) !== 0) return 'aborted';
    const { prodCell, consCell } = this.ring;
    const overflowing = ((prodCell.lo & OVFLG) === 0) !== ((consCell.lo & OVACKFLG) === 0);
    if (!stall && !overflowing) prodCell.lo = (prodCell.lo ^ OVFLG) >>> 0;
    return 'full';
  }
}
