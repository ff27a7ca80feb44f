import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LowestFree } from '../../src/driver/lowest-free.ts';

test('hands out what a scan from the bottom would, whatever was given back in between', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(30), { freq: 2 }), { maxLength: 200 }), fc.nat(5), (steps, min) => {
      const ids = new LowestFree(min);
      const taken = new Set<number>();
      for (const step of steps) {
        if (step === null) {
          let lowest = min;
          while (taken.has(lowest)) lowest++;
          expect(ids.peek()).toBe(lowest);
          expect(ids.take()).toBe(lowest);
          taken.add(lowest);
        } else expect(ids.give(step)).toBe(taken.delete(step));
        expect(ids.used).toBe(taken.size);
      }
      for (let n = 0; n < 40; n++) expect(ids.has(n)).toBe(taken.has(n));
    }),
  );
});
