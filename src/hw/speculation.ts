/**
 * What an SMMU may do unasked (IHI 0070 3.21): fetch configuration and translations before they are needed, with the
 * words of a structure read at different times and in any order, and drop anything from its caches.
 */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Words } from '../../spec/layout.ts';
import { cdContext } from '../../spec/legality/cd.ts';
import { STE } from '../../spec/ste.ts';
import { CdEntry } from './context-descriptor.ts';
import type { Watch } from './observer.ts';
import type { Schedule, Speculator } from './schedule.ts';
import { SteEntry } from './stream-table.ts';
import { STEP_SIZE, Step, StreamWorld, Transaction } from './transaction.ts';
import type { Translator } from './translate.ts';

/** Transactions remembered as a source of things worth prefetching. */
const RECENT = 8;
/** Fetches under way at most. */
const IN_FLIGHT = 4;
/** Kinds of acts: see {@link Speculation.speculate}. */
const ACTS = 6;
/** Places of the TLB looked at for something to evict. */
const EVICT_TRIES = 32;

interface Recent {
  readonly StreamID: number;
  readonly SSV: boolean;
  readonly SubstreamID: number;
  readonly addrHi: number;
  readonly addrLo: number;
}

/** A structure of which some words have been read. */
interface Fetch {
  readonly kind: 'STE' | 'CD';
  readonly sid: number;
  /** Index of a CD. */
  readonly index: number;
  readonly hi: number;
  readonly lo: number;
  readonly words: Words;
  /** 64-bit words that are still to be read. */
  readonly left: number[];
}

/** See the module comment. Draws only in the `seeded` schedule. */
export class Speculation implements Speculator {
  readonly name: string;
  readonly #smmu: string;
  readonly #translator: Translator;
  readonly #caps: Caps;
  readonly #watch: Watch;
  readonly #recent: Recent[] = [];
  readonly #transaction = new Transaction();
  #fetches: Fetch[] = [];

  constructor(smmu: string, translator: Translator, caps: Caps, watch: Watch) {
    this.name = `${smmu}.speculation`;
    this.#smmu = smmu;
    this.#translator = translator;
    this.#caps = caps;
    this.#watch = watch;
  }

  /** A client's transaction, to be speculated about later. */
  note({ StreamID, SSV, SubstreamID, addrHi, addrLo }: Transaction): void {
    this.#recent.push({ StreamID, SSV, SubstreamID, addrHi, addrLo });
    if (this.#recent.length > RECENT) this.#recent.shift();
  }

  /** Configuration was invalidated: fetches under way are given up. */
  abandon(): void {
    this.#fetches = [];
  }

  speculate(schedule: Schedule): void {
    if (!this.#translator.regs.SMMUEN) this.abandon();
    switch (schedule.choose(this.name, 'act', ACTS)) {
      case 0:
        this.#prefetch(schedule);
        break;
      case 1:
        this.#begin(schedule, 'STE');
        break;
      case 2:
        this.#begin(schedule, 'CD');
        break;
      case 3:
        this.#continue(schedule);
        break;
      case 4:
        this.#evictTlb(schedule);
        break;
      case 5:
        this.#evictConfiguration(schedule);
    }
  }

  #one(schedule: Schedule): Recent | undefined {
    return this.#recent[schedule.choose(this.name, 'recent', this.#recent.length)];
  }

  /** A speculative read of a page that was used, or of one near it. */
  #prefetch(schedule: Schedule): void {
    const recent = this.#one(schedule);
    if (recent === undefined) return;
    const page = schedule.choose(this.name, 'page', 4) << 12;
    this.#translate(recent, (recent.addrLo + page) >>> 0);
    this.#announce('prefetch', `stream ${recent.StreamID}`);
  }

  #translate(recent: Recent, addrLo: number): Transaction {
    const t = this.#transaction;
    Object.assign(t, recent);
    t.addrLo = addrLo;
    t.isSpeculative = true;
    this.#translator.translate(t);
    return t;
  }

  /** Starts to fetch a structure anew: where it lies is learnt from a walk that finds nothing cached. */
  #begin(schedule: Schedule, kind: Fetch['kind']): void {
    const recent = this.#one(schedule);
    if (recent === undefined || !this.#translator.regs.SMMUEN || this.#fetches.length >= IN_FLIGHT) return;
    const { configCache } = this.#translator;
    if (kind === 'STE') configCache.invalidateSte(recent.StreamID, true);
    else configCache.invalidateCd(recent.StreamID, recent.SubstreamID, true);
    const { steps, stepCount } = this.#translate(recent, recent.addrLo);
    for (let i = 0; i < stepCount; i++) {
      const at = i * STEP_SIZE;
      // The first 64-bit word of the structure.
      if (steps[at] !== Step[kind] || ((steps[at + 1] ?? 0) & 0xff) !== 0) continue;
      const bytes = kind === 'STE' ? STE.bytes : CD.bytes;
      this.#fetches.push({
        kind,
        sid: recent.StreamID,
        index: recent.SSV ? recent.SubstreamID : 0,
        hi: steps[at + 2] ?? 0,
        lo: steps[at + 3] ?? 0,
        words: new Uint32Array(bytes / 4),
        left: Array.from({ length: bytes / 8 }, (_, word) => word),
      });
      return;
    }
  }

  /** Reads some words of a structure; when it has all of them, the structure is cached as it was read. */
  #continue(schedule: Schedule): void {
    const at = schedule.choose(this.name, 'fetch', this.#fetches.length);
    const fetch = this.#fetches[at];
    if (fetch === undefined) return;
    const count = 1 + schedule.choose(this.name, 'words', fetch.left.length);
    const { memory } = this.#translator;
    for (let i = 0; i < count; i++) {
      const [word = 0] = fetch.left.splice(schedule.choose(this.name, 'word', fetch.left.length), 1);
      if (!memory.load64(fetch.hi, fetch.lo + 8 * word)) {
        this.#fetches.splice(at, 1);
        return;
      }
      fetch.words[2 * word] = memory.lo;
      fetch.words[2 * word + 1] = memory.hi;
    }
    if (fetch.left.length > 0) return;
    this.#fetches.splice(at, 1);
    if (fetch.kind === 'STE') this.#keepSte(fetch);
    else this.#keepCd(fetch);
    this.#announce('prefetch', `${fetch.kind} of stream ${fetch.sid}`);
  }

  #keepSte({ sid, words }: Fetch): void {
    const { configCache, regs, tlb, choices } = this.#translator;
    configCache.keep(sid, new SteEntry(words, this.#caps, regs.E2H, tlb, choices));
  }

  #keepCd({ sid, index, words }: Fetch): void {
    const { configCache, tlb, choices } = this.#translator;
    const stream = configCache.stream(sid);
    if (stream === null || stream.ste.group === null || !stream.ste.s1) return;
    const { ste } = stream;
    if (stream.ste.generation !== tlb.groups.generation || ste.group === null) return;
    const context = cdContext(ste.words, this.#caps, ste.world === StreamWorld.NsEl2E2h);
    configCache.keepCd(stream, index, new CdEntry(words, ste, ste.group, context, this.#caps, tlb, choices));
  }

  #evictTlb(schedule: Schedule): void {
    const { tlb } = this.#translator;
    if (tlb.places === 0) return;
    const first = schedule.choose(this.name, 'place', tlb.places);
    if (tlb.evictFrom(first, EVICT_TRIES)) this.#announce('evict', 'TLB entry');
  }

  #evictConfiguration(schedule: Schedule): void {
    const recent = this.#one(schedule);
    if (recent === undefined) return;
    const { configCache } = this.#translator;
    if (schedule.choose(this.name, 'what', 2) === 0)
      configCache.invalidateSte(recent.StreamID, schedule.choose(this.name, 'leaf', 2) === 0);
    else configCache.invalidateCd(recent.StreamID, recent.SubstreamID, false);
    this.#announce('evict', `configuration of stream ${recent.StreamID}`);
  }

  #announce(kind: 'prefetch' | 'evict', what: string): void {
    this.#watch.observer?.({ kind, smmu: this.#smmu, what });
  }
}
