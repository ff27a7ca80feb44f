/** One DMA operation of an endpoint: pieces inside pages, each translated, then made in memory. */
import { PRG_RESPONSE } from '../../spec/pri.ts';
import type { AtcEntry } from './atc.ts';
import type { AtsUnit } from './ats.ts';
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
  /** Goes through the endpoint's ATC with Translated transactions, while ATS is on in its configuration space. */
  readonly ats?: boolean;
  /** A Translated transaction to a physical address, whatever software has said: what only a device that cheats sends. */
  readonly translated?: boolean;
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

/** What was there before a write that does not ask. */
const NOTHING = new Uint8Array(0);

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
  /** Its ATS unit, if it has one. */
  readonly ats: AtsUnit | null;
  /** A moment at which hardware may move. */
  moment(): void;
}

/** Page requests that one piece makes at most: an answer of success does not mean that the page is there. */
const MAX_PAGE_REQUESTS = 8;

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
  /** Response to the page request under way; -1: none yet. */
  #response = -1;
  #asking = false;
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
  ) {
    this.#context = context;
    this.StreamID = StreamID;
    this.iova = iova;
    this.isWrite = isWrite;
    this.length = data.length;
    this.#options = options;
    this.#data = data;
    this.#old = options.atomic === true ? new Uint8Array(data.length) : NOTHING;
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
    const { transaction: t, smmu, canStall, ats } = this.#context;
    this.#context.moment();
    if (this.#options.ats === true && ats?.enabled === true) return this.#translatedPiece(ats);
    const access = this.#options.translated === true ? Access.Translated : Access.Untranslated;
    this.#send(t, access, this.#at);
    smmu.access(t, canStall && access === Access.Untranslated ? this : null);
    if (t.outcome === Outcome.Stall) return Outcome.Stall;
    if (t.outcome === Outcome.RazWi) this.#done += this.#size;
    else if (t.outcome !== Outcome.Ok || !this.#move(t)) return Outcome.Abort;
    return Outcome.Ok;
  }

  /** Through the ATC: ask for the translation, ask for the page if there is none, then access it Translated. */
  #translatedPiece(ats: AtsUnit): Outcome {
    for (let asked = 0; asked <= MAX_PAGE_REQUESTS; asked++) {
      const entry = this.#translation(ats);
      if (entry === null) return Outcome.Abort;
      if (this.#suffices(entry)) return this.#throughEntry(entry);
      this.#response = -1;
      this.#asking = true;
      const sent = ats.requestPage(this.#pageRequest, (code) => this.#answered(code));
      this.#asking = false;
      if (!sent) return Outcome.Abort;
      if (this.#response < 0) return Outcome.Stall;
      if (this.#response !== PRG_RESPONSE.Success) return Outcome.Abort;
    }
    return Outcome.Abort;
  }

  get #pasid(): number {
    return this.#options.SubstreamID ?? -1;
  }

  get #pageRequest() {
    return {
      StreamID: this.StreamID,
      SubstreamID: this.#pasid,
      address: this.#at - (this.#at % PAGE),
      read: !this.isWrite || this.#options.atomic === true,
      write: this.isWrite,
      execute: this.#options.instruction === true,
      privileged: this.#options.privileged === true,
    };
  }

  #translation(ats: AtsUnit): AtcEntry | null {
    const privileged = this.#options.privileged === true;
    const cached = ats.atc.lookup(this.#pasid, privileged, this.#at);
    if (cached !== undefined && this.#suffices(cached)) return cached;
    const completion = ats.translate({
      StreamID: this.StreamID,
      SubstreamID: this.#pasid,
      address: this.#at,
      privileged,
      execute: this.#options.instruction === true,
      noWrite: !this.isWrite,
    });
    return completion.status === 'success' ? completion.entry : null;
  }

  #suffices(entry: AtcEntry): boolean {
    if (this.isWrite) return entry.write && (this.#options.atomic !== true || entry.read);
    return entry.read && (this.#options.instruction !== true || this.#pasid < 0 || entry.execute);
  }

  #throughEntry(entry: AtcEntry): Outcome {
    const { transaction: t, smmu } = this.#context;
    this.#send(t, Access.Translated, entry.output + (this.#at - entry.base));
    smmu.access(t, null);
    return t.outcome === Outcome.Ok && this.#move(t) ? Outcome.Ok : Outcome.Abort;
  }

  /** The PRG Response to this operation's page request. */
  #answered(code: number): void {
    this.#response = code;
    if (this.#asking) return;
    if (code === PRG_RESPONSE.Success) this.retry();
    else this.finish('abort');
  }

  #send(t: Transaction, access: Access, at: bigint): void {
    const { SubstreamID, privileged, instruction, atomic } = this.#options;
    t.access = access;
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
