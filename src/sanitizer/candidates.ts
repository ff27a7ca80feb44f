/**
 * What hardware may have cached of a record: for each 64-bit word every value it had since the last completed
 * invalidation (IHI 0070 3.21.3: words are fetched in any order and at different times). An image is one choice of a
 * value for each word.
 */
import type { Words } from '../../spec/layout.ts';

/** A value that a word had. */
interface Value {
  readonly hi: number;
  readonly lo: number;
  /** When another value took its place; Infinity: it stands in memory. */
  until: number;
}

/** Images looked at for one record at most; what exceeds it is counted, not judged. */
export const MAX_IMAGES = 512;

/** See the module comment. Words are 32-bit halves as in {@link Words}. */
export class Candidates {
  readonly #qwords: Value[][] = [];
  /** Moment of the last change. */
  changed = 0;

  /** @param words the record as it stands in memory */
  constructor(words: Words) {
    for (let i = 0; i < words.length; i += 2)
      this.#qwords.push([
        { lo: (words[i] ?? 0) >>> 0, hi: (words[i + 1] ?? 0) >>> 0, until: Number.POSITIVE_INFINITY },
      ]);
  }

  /** A word of 64 bits takes a new value. */
  store(qword: number, hi: number, lo: number, now: number): void {
    const values = this.#qwords[qword];
    const last = values?.at(-1);
    if (values === undefined || last === undefined) return;
    last.until = now;
    values.push({ hi: hi >>> 0, lo: lo >>> 0, until: Number.POSITIVE_INFINITY });
    this.changed = now;
  }

  /** Everything that was replaced at `time` or before is in no cache any more. */
  prune(time: number): void {
    for (let i = 0; i < this.#qwords.length; i++) {
      const values = this.#qwords[i] as Value[];
      let gone = 0;
      while (gone < values.length - 1 && (values[gone] as Value).until <= time) gone++;
      if (gone > 0) values.splice(0, gone);
    }
  }

  /** Words with more than one value that was there after `since`. */
  open(since: number): number {
    let open = 0;
    for (let i = 0; i < this.#qwords.length; i++) {
      const values = this.#qwords[i] as Value[];
      if (values.length > 1 && (values[values.length - 2] as Value).until > since) open++;
    }
    return open;
  }

  /** The record as it stands in memory. */
  newest(into: Words): Words {
    for (let i = 0; i < this.#qwords.length; i++) {
      const values = this.#qwords[i] as Value[];
      put(into, i, values[values.length - 1]);
    }
    return into;
  }

  /** The record as it stood in memory at `since`. */
  oldest(since: number, into: Words): Words {
    for (const [i, values] of this.#qwords.entries())
      put(
        into,
        i,
        values.find(({ until }) => until > since),
      );
    return into;
  }

  /**
   * Calls `visit` with each image, in `scratch`. False if there are more than {@link MAX_IMAGES}: then none is visited.
   */
  images(since: number, scratch: Words, visit: (image: Words) => void): boolean {
    this.newest(scratch);
    if (this.open(since) === 0) {
      visit(scratch);
      return true;
    }
    const varying: number[] = [];
    const choices: Value[][] = [];
    let count = 1;
    for (let qword = 0; qword < this.#qwords.length; qword++) {
      const values = this.#qwords[qword] as Value[];
      if (values.length < 2) continue;
      const several = distinct(values, since);
      if (several.length < 2) continue;
      varying.push(qword);
      choices.push(several);
      count *= several.length;
      if (count > MAX_IMAGES) return false;
    }
    for (let n = 0; n < count; n++) {
      let rest = n;
      for (let i = 0; i < varying.length; i++) {
        const values = choices[i] as Value[];
        put(scratch, varying[i] as number, values[rest % values.length]);
        rest = Math.floor(rest / values.length);
      }
      visit(scratch);
    }
    return true;
  }
}

function distinct(values: readonly Value[], since: number): Value[] {
  const out: Value[] = [];
  for (const value of values) if (value.until > since && !has(out, value)) out.push(value);
  return out;
}

function has(values: readonly Value[], { hi, lo }: Value): boolean {
  for (const value of values) if (value.hi === hi && value.lo === lo) return true;
  return false;
}

function put(words: Words, qword: number, value: Value | undefined): void {
  words[2 * qword] = value?.lo ?? 0;
  words[2 * qword + 1] = value?.hi ?? 0;
}
