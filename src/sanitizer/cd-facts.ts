/** What a CD image says about tags and tables, and when two images are the same to hardware. */
import {
  type Caps,
  CD,
  type CdContext,
  cdContext,
  cdUsed,
  firstCdProblem,
  type Problem,
  perCaps,
  RecordMemo,
  type StreamWorld,
  slotValue,
  type Words,
} from '../../spec/index.ts';
import type { RecordFacts } from './update.ts';

const V = CD.slot('V');
const ASID = CD.slot('ASID');

/** Fields that decide which fields are used. */
const CONTROL = CD.mask(['V', 'EPD0', 'EPD1', 'AA64', 'HA', 'PIE', 'TG0', 'TG1', 'HAD0', 'HAD1']);

/** What TLB entries do not hold of a CD (5.4.1): changing it needs no TLB invalidation. ASID and ASET are the tag. */
const NOT_CACHED = CD.mask(['V', 'A', 'R', 'S', 'PARTID', 'PMG', 'ASID', 'ASET']);

const NO_SAFE = CD.zero();

/** Judges the CDs of SMMUs that can do the same. */
export class CdFacts {
  /** Those of an SMMU. */
  static readonly of = perCaps((caps) => new CdFacts(caps));
  readonly caps: Caps;
  readonly #views = new Map<string, CdView>();

  private constructor(caps: Caps) {
    this.caps = caps;
  }

  /** As a stream with this STE sees its CDs. */
  through(ste: Words, e2h: boolean): CdView {
    const context = cdContext(ste, this.caps, e2h);
    const key = Object.values(context).join(' ');
    let view = this.#views.get(key);
    if (view === undefined) {
      view = new CdView(this.caps, context);
      this.#views.set(key, view);
    }
    return view;
  }
}

/** The CDs of an SMMU in the context of an STE. */
export class CdView implements RecordFacts {
  readonly world: StreamWorld | undefined;
  readonly #used: RecordMemo<Words>;
  readonly #problems: RecordMemo<Problem | undefined>;
  readonly #cachedKeys: RecordMemo<string>;
  readonly #control = CD.zero();

  constructor(caps: Caps, context: CdContext) {
    this.world = context.streamWorld;
    const words = CD.bytes / 4;
    this.#used = new RecordMemo(words, (cd) => cdUsed(cd, caps, context));
    this.#problems = new RecordMemo(words, (cd) => firstCdProblem(cd, caps, context));
    this.#cachedKeys = new RecordMemo(words, (cd) => this.#cachedKey(cd));
  }

  valid(words: Words): boolean {
    return slotValue(words, V) !== 0;
  }

  used(words: Words): Words {
    const control = this.#control;
    for (let i = 0; i < control.length; i++) control[i] = (words[i] ?? 0) & (CONTROL[i] ?? 0);
    return this.#used.of(control);
  }

  safe(): Words {
    return NO_SAFE;
  }

  problem(words: Words): Problem | undefined {
    return this.#problems.of(words);
  }

  /** ASID of an image; -1: the StreamWorld has none. */
  asid(words: Words): number {
    return this.world === 'NS-EL2' ? -1 : slotValue(words, ASID);
  }

  /** What TLB entries may hold of the configuration. */
  cachedKey(words: Words): string {
    return this.#cachedKeys.of(words);
  }

  #cachedKey(words: Words): string {
    const used = this.used(words);
    let key = '';
    for (let i = 0; i < words.length; i++)
      key += `${(((words[i] ?? 0) & (used[i] ?? 0) & ~(NOT_CACHED[i] ?? 0)) >>> 0).toString(16)}.`;
    return key;
  }
}
