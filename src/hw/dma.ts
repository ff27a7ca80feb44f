/** One DMA operation of an endpoint: pieces inside pages, each translated, then made in memory. */
import type { Memory } from './memory.ts';
import type { Watch } from './observer.ts';
import type { StallClient, Termination } from './stall.ts';
import { Access, Outcome, type Transaction } from './transaction.ts';

/** Attributes of an access as the client sends it. */
export interface DmaOptions {
  /** Absent: no SubstreamID (PASID). */
  readonly SubstreamID?: number;
  /** PnU. Default false. */
  readonly privileged?: boolean;
  /** InD of a read. Default false. */
  readonly instruction?: boolean;
  /** A write that also returns what was there before (an atomic swap); needs read and write permission. */
  readonly atomic?: boolean;
  /** Which of the endpoint's StreamIDs; default the first. */
  readonly stream?: number;
}

/**
 * How an access ended. `ok`: `data` is what was read (for an atomic, the old contents; for a write, empty). `abort`: from
 * `at` on, nothing was done; everything before it was. `stall`: it waits, see {@link Dma}.
 */
export type DmaResult =
  | { readonly status: 'ok'; readonly data: Uint8Array }
  | { readonly status: 'abort'; readonly at: bigint }
  | { readonly status: 'stall'; readonly pending: Dma };

/** Pieces never cross a boundary of the smallest granule. */
const PAGE = 4096n;

/** The SMMU in front of an endpoint. */
export interface TranslationPort {
  access(t: Transaction, client: StallClient | null): void;
}

/** What an endpoint needs to run its operations. */
export interface DmaContext {
  readonly name: string;
  readonly smmu: TranslationPort;
  readonly memory: Memory;
  readonly watch: Watch;
  /** May be stalled by the SMMU. */
  readonly canStall: boolean;
  /** One transaction object for all operations of the endpoint. */
  readonly transaction: Transaction;
  /** A moment at which hardware may move. */
  moment(): void;
}

/** See the module comment. Stays alive while stalled: hardware resumes it. */
export class Dma implements StallClient {
  readonly StreamID: number;
  readonly iova: bigint;
  readonly isWrite: boolean;
  readonly length: number;
  readonly #context: DmaContext;
  readonly #options: DmaOptions;
  readonly #data: Uint8Array;
  readonly #old: Uint8Array;
  readonly #translated: boolean;
  #done = 0;
  #result: DmaResult;
  /** Called when an operation that stalled has ended. */
  onDone: ((result: DmaResult) => void) | null = null;

  /** @param data what is written, or where a read goes to */
  constructor(
    context: DmaContext,
    StreamID: number,
    iova: bigint,
    data: Uint8Array,
    isWrite: boolean,
    options: DmaOptions,
    translated = false,
  ) {
    this.#context = context;
    this.StreamID = StreamID;
    this.iova = iova;
    this.isWrite = isWrite;
    this.length = data.length;
    this.#options = options;
    this.#data = data;
    this.#old = options.atomic === true ? new Uint8Array(data.length) : new Uint8Array(0);
    this.#translated = translated;
    this.#result = { status: 'stall', pending: this };
  }

  /** How it stands: `stall` until it ends. */
  get result(): DmaResult {
    return this.#result;
  }

  /** Goes on from where it is, until it ends or stalls. */
  run(): DmaResult {
    this.#result = { status: 'stall', pending: this };
    while (this.#done < this.length) {
      const outcome = this.#piece();
      if (outcome === Outcome.Stall) return this.#result;
      if (outcome === Outcome.Abort) return this.#end({ status: 'abort', at: this.#at });
    }
    return this.#end({ status: 'ok', data: this.isWrite ? this.#old : this.#data });
  }

  get #at(): bigint {
    return BigInt.asUintN(64, this.iova + BigInt(this.#done));
  }

  #end(result: DmaResult): DmaResult {
    this.#result = result;
    return result;
  }

  /** Bytes of the piece that begins here. */
  get #size(): number {
    return Math.min(this.length - this.#done, Number(PAGE - (this.#at % PAGE)));
  }

  #piece(): Outcome {
    const { transaction: t, smmu, canStall } = this.#context;
    this.#context.moment();
    this.#send(t);
    smmu.access(t, canStall ? this : null);
    if (t.outcome === Outcome.Stall) return Outcome.Stall;
    if (t.outcome === Outcome.RazWi) this.#done += this.#size;
    else if (t.outcome !== Outcome.Ok || !this.#move(t)) return Outcome.Abort;
    return Outcome.Ok;
  }

  #send(t: Transaction): void {
    const { SubstreamID, privileged, instruction, atomic } = this.#options;
    const at = this.#at;
    t.access = this.#translated ? Access.Translated : Access.Untranslated;
    t.StreamID = this.StreamID;
    t.SSV = SubstreamID !== undefined;
    t.SubstreamID = SubstreamID ?? 0;
    t.addrHi = Number(at >> 32n);
    t.addrLo = Number(at & 0xffffffffn);
    t.isWrite = this.isWrite;
    t.InD = instruction === true;
    t.PnU = privileged === true;
    t.isAtomic = this.isWrite && atomic === true;
    t.isSpeculative = false;
    t.noWrite = false;
  }

  /** Makes the access in memory. False: nothing answers there, an abort that the SMMU does not record (3.12). */
  #move(t: Transaction): boolean {
    const { memory, watch, name } = this.#context;
    const size = this.#size;
    const pa = (BigInt(t.paHi >>> 0) << 32n) | BigInt(t.paLo >>> 0);
    const here = memory.covers(pa, size);
    if (here) {
      const piece = this.#data.subarray(this.#done, this.#done + size);
      if (t.isAtomic) this.#old.set(memory.readBytes(pa, size), this.#done);
      if (this.isWrite) memory.writeBytes(pa, piece);
      else piece.set(memory.readBytes(pa, size));
      this.#done += size;
    }
    const { paHi, paLo } = t;
    watch.observer?.({ kind: 'dma', endpoint: name, isWrite: this.isWrite, paHi, paLo, length: size, aborted: !here });
    return here;
  }

  /** The SMMU lets it try again. */
  retry(): void {
    this.#tell(this.run());
  }

  /** The SMMU ends it: with an abort, or this piece reads zero (is not written) and the rest goes on. */
  finish(how: Termination): void {
    if (how === 'abort') this.#tell(this.#end({ status: 'abort', at: this.#at }));
    else {
      this.#done += this.#size;
      this.#tell(this.run());
    }
  }

  #tell(result: DmaResult): void {
    if (result.status !== 'stall') this.onDone?.(result);
  }
}
