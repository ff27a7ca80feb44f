/** Time as the sanitizer counts it: each thing observed is a later moment than the one before. */
export class Clock {
  now = 0;
  /** The next moment. */
  tick(): number {
    return ++this.now;
  }
}
