/** Whether a change of an STE or CD could be seen half done (IHI 0070 3.21.3; rules CFG-2 to CFG-5). */
import type { Problem, Words } from '../../spec/index.ts';
import type { Candidates } from './candidates.ts';

/** What has to be known of a kind of record. */
export interface RecordFacts {
  /** V of an image. */
  valid(words: Words): boolean;
  /** Ones in the bits that hardware uses of an image. */
  used(words: Words): Words;
  /** Bits whose order of change does not matter. */
  safe(from: Words, to: Words): Words;
  problem(words: Words): Problem | undefined;
}

/** What {@link judgeUpdate} found. */
export interface Verdict {
  /** A valid image that is neither the old nor the new record. */
  readonly torn: Words | null;
  /** An ILLEGAL image, and why. */
  readonly illegal: Problem | null;
  /** Too many images to look at each. */
  readonly capped: boolean;
  readonly wasValid: boolean;
  readonly isValid: boolean;
  /** An image with V=0 was there on the way. */
  readonly passedInvalid: boolean;
}

/** Whether two images are the same to hardware. */
export function sameToHardware(a: Words, b: Words, facts: RecordFacts, safe: Words | null): boolean {
  const usedA = facts.used(a);
  const usedB = facts.used(b);
  for (let i = 0; i < a.length; i++)
    if ((((a[i] ?? 0) ^ (b[i] ?? 0)) & ((usedA[i] ?? 0) | (usedB[i] ?? 0)) & ~(safe?.[i] ?? 0)) !== 0) return false;
  return true;
}

/** Looks at every image that a cache may hold between `since` and now. Null: only one word changed, or none. */
export function judgeUpdate(candidates: Candidates, since: number, facts: RecordFacts, bytes: number): Verdict | null {
  if (candidates.open(since) < 2) return null;
  const from = candidates.oldest(since, new Uint32Array(bytes / 4));
  const to = candidates.newest(new Uint32Array(bytes / 4));
  const safe = facts.safe(from, to);
  let torn: Words | null = null;
  let illegal: Problem | null = null;
  let passedInvalid = false;
  const complete = candidates.images(since, new Uint32Array(bytes / 4), (image) => {
    if (!facts.valid(image)) {
      passedInvalid = true;
      return;
    }
    if (torn !== null || sameToHardware(image, from, facts, safe) || sameToHardware(image, to, facts, safe)) return;
    const problem = facts.problem(image);
    if (problem === undefined) torn = image.slice();
    else illegal ??= problem;
  });
  return {
    torn,
    illegal,
    capped: !complete,
    wasValid: facts.valid(from),
    isValid: facts.valid(to),
    passedInvalid,
  };
}

/** Whether a cache may hold something that is not what memory says now. */
export function unsettled(candidates: Candidates, since: number, facts: RecordFacts, bytes: number): boolean {
  if (candidates.open(since) === 0) return false;
  const now = candidates.newest(new Uint32Array(bytes / 4));
  let differs = false;
  const complete = candidates.images(since, new Uint32Array(bytes / 4), (image) => {
    differs ||= !sameToHardware(image, now, facts, null);
  });
  return differs || !complete;
}
