/** What a CD image says about tags and tables, and when two images are the same to hardware. */
import {
  type Caps,
  CD,
  type CdContext,
  cdContext,
  cdUsed,
  firstCdProblem,
  type Problem,
  type StreamWorld,
  slotValue,
  type Words,
} from '../../spec/index.ts';
import type { RecordFacts } from './update.ts';

const V = CD.slot('V');
const ASID = CD.slot('ASID');

/** Fields that decide which fields are used. */
const CONTROL = CD.mask(['V', 'EPD0', 'EPD1', 'AA64', 'HA', 'PIE', 'TG0', 'TG1', 'HAD0', 'HAD1']);
const CONTROL_WORDS = [...CONTROL.keys()].filter((i) => CONTROL[i] !== 0);

/** What TLB entries do not hold of a CD (5.4.1): changing it needs no TLB invalidation. ASID and ASET are the tag. */
const NOT_CACHED = CD.mask(['V', 'A', 'R', 'S', 'PARTID', 'PMG', 'ASID', 'ASET']);

const NO_SAFE = CD.zero();

/** Judges the CDs of one SMMU. */
export class CdFacts {
  readonly caps: Caps;
  readonly #used = new Map<string, Words>();

  constructor(caps: Caps) {
    this.caps = caps;
  }

  /** As a stream with this STE sees its CDs. */
  through(ste: Words, e2h: boolean): CdView {
    const context = { ...cdContext(ste, this.caps, e2h) };
    return new CdView(this.caps, context, this.#used);
  }
}

/** The CDs of an SMMU in the context of an STE. */
export class CdView implements RecordFacts {
  readonly world: StreamWorld | undefined;
  readonly #caps: Caps;
  readonly #context: CdContext;
  readonly #masks: Map<string, Words>;
  readonly #key: string;

  constructor(caps: Caps, context: CdContext, masks: Map<string, Words>) {
    this.#caps = caps;
    this.#context = context;
    this.#masks = masks;
    this.world = context.streamWorld;
    this.#key = `${context.streamWorld} ${context.S1PIE} ${context.S1MPAM} `;
  }

  valid(words: Words): boolean {
    return slotValue(words, V) !== 0;
  }

  used(words: Words): Words {
    let key = this.#key;
    for (const i of CONTROL_WORDS) key += `${((words[i] ?? 0) & (CONTROL[i] ?? 0)) >>> 0},`;
    let used = this.#masks.get(key);
    if (used === undefined) {
      used = cdUsed(words, this.#caps, this.#context);
      this.#masks.set(key, used);
    }
    return used;
  }

  safe(): Words {
    return NO_SAFE;
  }

  problem(words: Words): Problem | undefined {
    return firstCdProblem(words, this.#caps, this.#context);
  }

  /** ASID of an image; -1: the StreamWorld has none. */
  asid(words: Words): number {
    return this.world === 'NS-EL2' ? -1 : slotValue(words, ASID);
  }

  /** What TLB entries may hold of the configuration. */
  cachedKey(words: Words): string {
    const used = this.used(words);
    let key = '';
    for (let i = 0; i < words.length; i++)
      key += `${(((words[i] ?? 0) & (used[i] ?? 0) & ~(NOT_CACHED[i] ?? 0)) >>> 0).toString(16)}.`;
    return key;
  }
}
