import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Caps,
  COMMANDS,
  capsOf,
  cdProblems,
  commandProblems,
  STE,
  steProblems,
  type Words,
} from '../../spec/index.ts';
import { idRegistersOf, linuxNesting, minimal, qemuVirt } from '../../src/hw/index.ts';
import {
  cdArbitraries,
  commandArbitraries,
  type RecordArbitraries,
  steArbitraries,
} from '../../src/testing/arbitraries/structures.ts';

const SMMUS = Object.entries({ linuxNesting, qemuVirt, minimal }).map(
  ([name, config]) => [name, capsOf(idRegistersOf(config))] as const,
);

/** The laws of one kind of record. */
function laws(arbitraries: RecordArbitraries, problems: (words: Words) => readonly unknown[]): void {
  const numRuns = 60;
  fc.assert(
    fc.property(arbitraries.legal, (words) => problems(words).length === 0),
    { numRuns },
  );
  fc.assert(
    fc.property(arbitraries.illegal, (words) => problems(words).length > 0),
    { numRuns },
  );
  fc.assert(
    fc.property(arbitraries.boundary, ({ legal, illegal, rules }) => {
      expect(problems(legal)).toEqual([]);
      expect(problems(illegal).length).toBe(rules.length);
      expect(rules.length).toBeGreaterThan(0);
    }),
    { numRuns },
  );
  const [first, second] = [1, 1].map((seed) => fc.sample(arbitraries.legal, { seed, numRuns: 5 }));
  expect(first).toEqual(second);
}

describe.each(SMMUS)(
  'records of %s: legal ones are legal, illegal ones are not, boundaries lie between',
  (_name, caps: Caps) => {
    test('STE (5.2)', () => laws(steArbitraries(caps), (words) => steProblems(words, caps)));
    test('CD (5.4)', () => laws(cdArbitraries(caps), (words) => cdProblems(words, caps)));
    test('every command that the SMMU knows (4.1)', () => {
      let known = 0;
      for (const name of Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]) {
        if (commandProblems(COMMANDS[name].encode(), caps).length > 0) {
          expect(() => commandArbitraries(name, caps)).toThrow(/^.* is illegal on this SMMU: /);
          continue;
        }
        known++;
        const { legal, illegal } = commandArbitraries(name, caps);
        fc.assert(
          fc.property(legal, (words) => commandProblems(words, caps).length === 0),
          { numRuns: 20 },
        );
        fc.assert(
          fc.property(illegal, (words) => commandProblems(words, caps).length > 0),
          { numRuns: 20 },
        );
      }
      expect(known).toBeGreaterThan(8);
    });
  },
);

test('legal STEs reach every Config, and illegal ones break many rules', () => {
  const caps = capsOf(idRegistersOf(linuxNesting));
  const { legal, illegal } = steArbitraries(caps);
  const configs = new Set(fc.sample(legal, { seed: 3, numRuns: 400 }).map((words) => STE.num(words, 'Config')));
  expect(configs.size).toBeGreaterThanOrEqual(5);
  const rules = new Set(
    fc.sample(illegal, { seed: 3, numRuns: 300 }).flatMap((words) => steProblems(words, caps).map(({ rule }) => rule)),
  );
  expect(rules.size).toBeGreaterThan(12);
  const cds = fc.sample(cdArbitraries(caps).legal, { seed: 3, numRuns: 100 });
  expect(new Set(cds.map((words) => words.join())).size).toBeGreaterThan(50);
});
