import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  CATALOG_KINDS,
  catalog,
  catalogEntry,
  commandProblems,
  eventOf,
  fromQwords,
  unknownFields,
  type Words,
} from '../../spec/index.ts';

const layouts = catalog().flatMap((entry) => (entry.kind === 'uapi' ? [] : [entry]));

const record = (bytes: number): fc.Arbitrary<Words> => fc.uint32Array({ minLength: bytes / 4, maxLength: bytes / 4 });

test('names are unique, and kinds come in order', () => {
  const names = catalog().map(({ name }) => name.toLowerCase());
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  const kinds = catalog().map(({ kind }) => CATALOG_KINDS.indexOf(kind));
  expect(kinds).toEqual(kinds.toSorted((a, b) => a - b));
  expect(new Set(kinds).size).toBe(CATALOG_KINDS.length);
});

test('every name is one word that a command line takes', () => {
  expect(catalog().filter(({ name }) => !/^[\w-]+$/.test(name))).toEqual([]);
});

test('an entry is found by its name in any case, and a struct by its ioctl', () => {
  expect(catalogEntry('ste')?.name).toBe('STE');
  expect(catalogEntry('cmd_cfgi_all')).toMatchObject({ layout: { name: 'CMD_CFGI_STE_RANGE' } });
  expect(catalogEntry('IOMMU_GET_HW_INFO')?.name).toBe('iommu_hw_info');
  expect(catalogEntry('toString')).toBeUndefined();
});

describe('a field read bit by bit is the field that get, num, slot, decode and encode know', () => {
  for (const { name, layout } of layouts)
    test(name, () =>
      fc.assert(
        fc.property(record(layout.bytes), (words) => {
          const whole = words.reduceRight((sum, word) => (sum << 32n) | BigInt(word), 0n);
          const decoded = layout.decode(words);
          for (const field of layout.names) {
            const { bits } = layout.field(field);
            const ranges = (typeof bits[0] === 'number' ? [bits] : bits) as readonly (readonly [number, number])[];
            const value = ranges.reduce(
              (sum, [hi, lo]) =>
                (sum << BigInt(hi - lo + 1)) | ((whole >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n)),
              0n,
            );
            expect(decoded[field]).toBe(value);
            if (layout.width(field) <= 53) expect(layout.num(words, field)).toBe(Number(value));
            const [part, more] = layout.parts(field);
            if (part !== undefined && more === undefined)
              expect((((words[part.word] ?? 0) >>> part.shift) & part.mask) >>> 0).toBe(Number(value));
          }
          expect(layout.encode(decoded)).toEqual(words);
        }),
        { numRuns: 10 },
      ),
    );
});

test('any 16 bytes can be asked whether they are a legal command', () =>
  fc.assert(fc.property(record(16), (words) => Array.isArray(commandProblems(words)))));

test('of any 32 bytes, the meaningless fields are fields of the event', () =>
  fc.assert(
    fc.property(record(32), fc.constantFrom(0x01, 0x03, 0x0b, 0x10, 0x13, 0x14, 0x20, 0xe0), (words, number) => {
      words[0] = ((words[0] ?? 0) & ~0xff) | number;
      const names = eventOf(words)?.names ?? [];
      for (const name of unknownFields(words)) expect(names).toContain(name);
    }),
  ));

test('records of the wrong kind do not reach tables by accident', () => {
  expect(eventOf(fromQwords([0n, 0n, 0n, 0n]))).toBeUndefined();
});
