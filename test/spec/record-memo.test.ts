import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { capsOf, firstSteProblem, perCaps, RecordMemo, STE, steProblems } from '../../spec/index.ts';
import { idRegistersOf } from '../../src/hw/config.ts';
import { linuxNesting, smallVmid } from '../../src/hw/presets.ts';

/** A sum that tells any two of the records below apart. */
const weigh = (record: Uint32Array): string => [...record].join(',');

describe('a function with a memory of its latest results', () => {
  test('answers as the function does, whatever came before', () => {
    // Small values in few words: records come back, and far more of them than the memory holds.
    const record = fc.array(fc.constantFrom(0, 1, 2, 0x8000_0000, 0xffff_ffff), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(fc.array(record, { minLength: 1, maxLength: 400 }), (records) => {
        const memo = new RecordMemo(4, weigh);
        for (const words of records) expect(memo.of(Uint32Array.from(words))).toBe(words.join(','));
      }),
      { numRuns: 50 },
    );
  });

  test('asks the function once for records that are equal, and does not keep the record itself', () => {
    let asked = 0;
    const memo = new RecordMemo(2, (record) => {
      asked++;
      return weigh(record);
    });
    const scratch = Uint32Array.of(7, 0xffff_ffff);
    expect(memo.of(scratch)).toBe('7,4294967295');
    expect(memo.of(Uint32Array.of(7, 0xffff_ffff))).toBe('7,4294967295');
    expect(asked).toBe(1);
    scratch[0] = 8;
    expect(memo.of(scratch)).toBe('8,4294967295');
    expect(memo.of(Uint32Array.of(7, 0xffff_ffff))).toBe('7,4294967295');
  });
});

describe('what follows from the ID registers alone', () => {
  const wide = capsOf(idRegistersOf(linuxNesting));
  const narrow = capsOf(idRegistersOf(smallVmid));

  test('equal registers give the same capabilities, which nobody can change', () => {
    expect(capsOf(idRegistersOf(linuxNesting))).toBe(wide);
    expect(narrow).not.toBe(wide);
    expect(Object.isFrozen(wide)).toBe(true);
  });

  test('a function of the capabilities is worked out once for each', () => {
    let made = 0;
    const bits = perCaps((caps) => {
      made++;
      return caps.vmidBits;
    });
    expect([bits(wide), bits(narrow), bits(wide)]).toEqual([16, 8, 16]);
    expect(made).toBe(2);
  });

  test('the first problem of an STE is the first of all its problems, on either SMMU, asked in any order (5.2)', () => {
    const config = fc.constantFrom('ABORT', 'BYPASS', 'S1_TRANS', 'S2_TRANS', 'NESTED');
    const ste = fc
      .record({ Config: config, S2VMID: fc.constantFrom(1, 0xff, 0x100), S2T0SZ: fc.constantFrom(0, 16, 24, 63) })
      .map((fields) => STE.encode({ V: 1, S2AA64: 'AARCH64', S2PS: 'BITS_44', ...fields } as never));
    const seen = new Set<string | undefined>();
    fc.assert(
      fc.property(ste, fc.constantFrom(wide, narrow), (words, caps) => {
        const first = firstSteProblem(words, caps);
        seen.add(first?.rule);
        expect(first).toEqual(steProblems(words, caps)[0]);
      }),
      { numRuns: 500 },
    );
    expect(seen.size).toBeGreaterThan(2);
  });
});
