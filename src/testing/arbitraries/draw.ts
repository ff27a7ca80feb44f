/** Drawing one value of an arbitrary from a seed, and shrinking it: what fc.check does, without what it does around it. */
import fc from 'fast-check';
import { hashString } from '../../hw/schedule.ts';

/** Doty-Humphrey's sfc32: 128 bits of state, of which the last is a counter. */
class Sfc32 {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  constructor(a: number, b: number, c: number, counter: number) {
    this.#a = a;
    this.#b = b;
    this.#c = c;
    this.#counter = counter;
  }

  next(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out;
  }

  clone(): Sfc32 {
    return new Sfc32(this.#a, this.#b, this.#c, this.#counter);
  }

  getState(): readonly number[] {
    return [this.#a, this.#b, this.#c, this.#counter];
  }
}

/** Draws until the three words that the seed gives have mixed, as its author advises. */
const WARM_UP = 12;

/** One value of an arbitrary: the same for the same text. Without fast-check's bias, which is for the first runs of many. */
export function draw<T>(arbitrary: fc.Arbitrary<T>, seed: string): fc.Value<T> {
  const generator = new Sfc32(hashString(seed), hashString(`${seed} b`), hashString(`${seed} c`), 1);
  for (let i = 0; i < WARM_UP; i++) generator.next();
  return arbitrary.generate(new fc.Random(generator), undefined);
}

/** The last of the ever simpler values that still fail. @param fails whether one does; `start` does */
export function shrink<T>(arbitrary: fc.Arbitrary<T>, start: fc.Value<T>, fails: (value: T) => boolean): T {
  let least = start;
  for (let next: fc.Value<T> | undefined = start; next !== undefined; ) {
    least = next;
    next = undefined;
    for (const simpler of arbitrary.shrink(least.value_, least.context))
      if (fails(simpler.value)) {
        next = simpler;
        break;
      }
  }
  return least.value;
}
