import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toQwords } from '../../spec/layout.ts';
import { InputError } from '../../src/inspect/error.ts';
import { hexWords, parseWords } from '../../src/inspect/words.ts';

const STE = { bytes: 64, what: 'an STE' } as const;
const PTE = { bytes: 8, what: 'a stage 1 descriptor' } as const;
const CMD = { bytes: 16, what: 'a command' } as const;

const qwords = (text: string, options: Parameters<typeof parseWords>[1]): bigint[][] =>
  parseWords(text, options).map(toQwords);

describe('words of records [JSON contract of issue 2]', () => {
  test('hexadecimal with or without 0x, separated by blanks or commas', () => {
    const wanted = [[0x44a1700bn, 0xd6n, 0n, 0n, 0n, 0n, 0n, 0xffn]];
    expect(qwords('0x44a1700b 0xd6 0 0 0 0 0 0xff', STE)).toEqual(wanted);
    expect(qwords('44a1700b,d6,0,0,0,0,0,FF', STE)).toEqual(wanted);
    expect(qwords('0X44A1700B, 0xD6,\t0 0\n0 0 0 ff\n', STE)).toEqual(wanted);
  });

  test('64 bits a word unless told', () => {
    expect(qwords('0123456789abcdef', PTE)).toEqual([[0x0123456789abcdefn]]);
  });

  test('32 bits, low half first, with width 32', () => {
    expect(qwords('89abcdef 1234567', { ...PTE, width: 32 })).toEqual([[0x0123456789abcdefn]]);
  });

  test('32 bits when each word has 8 digits and their number is whole at 32 bits', () => {
    expect(qwords('89abcdef 01234567', PTE)).toEqual([[0x0123456789abcdefn]]);
    expect(qwords('0x89abcdef,0x01234567', PTE)).toEqual([[0x0123456789abcdefn]]);
  });

  test('64 bits when each word has 8 digits but their number is not whole at 32 bits', () => {
    expect(qwords(Array(8).fill('89abcdef').join(' '), STE)).toEqual([Array(8).fill(0x89abcdefn)]);
    expect(qwords('89abcdef', PTE)).toEqual([[0x89abcdefn]]);
  });

  test('64 bits when told, although each word has 8 digits', () => {
    expect(qwords('89abcdef 01234567', { ...PTE, width: 64 })).toEqual([[0x89abcdefn], [0x01234567n]]);
  });

  test('a single unbroken string longer than 16 digits is bytes in memory order', () => {
    expect(qwords('0b70a144000000000000000000000000', CMD)).toEqual([[0x44a1700bn, 0n]]);
    expect(qwords('efcdab8967452301', PTE)).toEqual([[0xefcdab8967452301n]]);
    expect(qwords('efcdab8967452301efcdab8967452301', PTE)).toEqual([[0x0123456789abcdefn], [0x0123456789abcdefn]]);
  });

  test('lines of xxd -p are one string', () => {
    const bytes = Array.from({ length: 64 }, (_, i) => i.toString(16).padStart(2, '0')).join('');
    const lines = `${bytes.slice(0, 60)}\n${bytes.slice(60, 120)}\n${bytes.slice(120)}\n`;
    expect(qwords(lines, STE)).toEqual(qwords(bytes, STE));
    expect(qwords(bytes, STE)[0]?.[0]).toBe(0x0706050403020100n);
  });

  test('several records give a list', () => {
    expect(qwords('46 0 30 0', CMD)).toEqual([
      [0x46n, 0n],
      [0x30n, 0n],
    ]);
  });
});

describe('bad words [issue 2, bad input]', () => {
  const refused = (text: string, options: Parameters<typeof parseWords>[1], message: RegExp): void => {
    expect(() => parseWords(text, options)).toThrow(InputError);
    expect(() => parseWords(text, options)).toThrow(message);
  };

  test('not hexadecimal: names the word and the column', () => {
    refused('0x1 zz 0 0 0 0 0 0', STE, /^word 2, column 5: 'zz' is not hexadecimal \(an STE is 8 words of 64 bits/);
    refused('0 0\n0 0 0x', CMD, /^word 5, line 2, column 5: '0x' is not hexadecimal/);
    refused('-1 0', CMD, /'-1' is not hexadecimal/);
  });

  test('an odd number of digits in a string of bytes', () => {
    refused('0b70a14400000000000000000000000', CMD, /^odd number of digits: 31; .*\(a command is 2 words/);
  });

  test('a string of bytes that is not a whole number of records', () => {
    refused('0b70a1440000000000', CMD, /^9 bytes are not a whole number of records \(a command is .* or 16 bytes\)/);
  });

  test('too few words, and a number that is not whole', () => {
    refused('1 2 3', STE, /^3 words of 64 bits: too few \(an STE is 8 words of 64 bits, 16 of 32, or 64 bytes\)/);
    refused('1 2 3', CMD, /^3 words of 64 bits: not a whole number of records/);
    refused('', CMD, /^no words/);
    refused(' , ', CMD, /^no words/);
  });

  test('a word out of range', () => {
    refused('0x10000000000000000 0', CMD, /^word 1, column 1: '0x10000000000000000' does not fit 64 bits/);
    refused('0 0 0x100000000 0', { ...CMD, width: 32 }, /^word 3, column 5: '0x100000000' does not fit 32 bits/);
  });

  test('leading zeros do not make a word too long', () => {
    expect(qwords('0x00000000000000000001 0', CMD)).toEqual([[1n, 0n]]);
  });
});

test('what hexWords prints, parseWords reads', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      const words = new Uint32Array(bytes.slice().buffer);
      expect(parseWords(hexWords(words).join(' '), { ...CMD, width: 64 })).toEqual([words]);
    }),
  );
});

test('any text gives records or an InputError', () => {
  const character = fc.constantFrom(...'0123456789abcdefxXzg ,\n@-');
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 200 }), fc.constantFrom(8, 16, 32, 64), (text, bytes) => {
      try {
        for (const record of parseWords(text, { bytes, what: 'a record' })) expect(record.length).toBe(bytes / 4);
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
    }),
    { numRuns: 500 },
  );
});
