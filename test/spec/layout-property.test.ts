import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CD, CD_D128 } from '../../spec/cd.ts';
import { descriptorVariants } from '../../spec/descriptors.ts';
import * as idRegisters from '../../spec/id-registers.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import { type BitRange, type Layout, slotValue, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';

const LAYOUTS: readonly Layout[] = [
  STE,
  CD,
  CD_D128,
  L1STD,
  L1CD,
  ...Object.values(idRegisters),
  ...descriptorVariants(),
];

/** The record as one number, and a field out of it by nothing but shifts: the slow way that all others must agree with. */
const whole = (words: Words): bigint => words.reduceRight((sum, word) => (sum << 32n) | BigInt(word), 0n);
const plain = (table: Layout, name: string, record: bigint): bigint => {
  const { bits } = table.field(name);
  const ranges = (typeof bits[0] === 'number' ? [bits] : bits) as readonly BitRange[];
  return ranges.reduce((sum, [hi, lo]) => {
    const width = BigInt(hi - lo + 1);
    return (sum << width) | ((record >> BigInt(lo)) & ((1n << width) - 1n));
  }, 0n);
};

describe('slot, parts, get, decode, encode and plain arithmetic agree on any record', () => {
  for (const table of LAYOUTS)
    test(table.name, () => {
      const size = table.bytes / 4;
      const records = fc.uint32Array({ minLength: size, maxLength: size });
      fc.assert(
        fc.property(records, (array) => {
          const words = Uint32Array.from(array);
          const record = whole(words);
          const decoded = table.decode(words);
          for (const name of table.names) {
            const expected = plain(table, name, record);
            expect(decoded[name], name).toBe(expected);
            const parts = table.parts(name);
            const summed = parts.reduce((sum, part) => sum + (BigInt(slotValue(words, part)) << BigInt(part.at)), 0n);
            expect(summed, name).toBe(expected);
            if (parts.length === 1) expect(BigInt(slotValue(words, table.slot(name))), name).toBe(expected);
            if (table.width(name) <= 53) expect(BigInt(table.num(words, name)), name).toBe(expected);
          }
          expect(table.encode(decoded)).toEqual(words);
        }),
        { numRuns: 20 },
      );
    });
});
