/** Records from hexadecimal text, as people paste them: 64-bit words, 32-bit words, or bytes in memory order. */
import { fromQwords, type Words } from '../../spec/layout.ts';
import { count, InputError } from './error.ts';

/** What the records are. */
export interface WordsOptions {
  /** Bytes of one record; a multiple of 8. */
  readonly bytes: number;
  /** What one record is called in messages, with its article: "an STE". */
  readonly what: string;
  /** Width of a word in bits. Left out, it follows from the text. */
  readonly width?: 32 | 64 | undefined;
}

/** Longest text that is read, in characters. */
export const MAX_TEXT = 1 << 24;

/** Digits of a 64-bit and of a 32-bit word. */
const DIGITS = { 64: 16, 32: 8 } as const;

/** One piece of the text between separators. */
interface Token {
  readonly digits: string;
  /** As it was written, with its prefix. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let lineStart = 0;
  for (const found of text.matchAll(/\n|[^\s,]+/g)) {
    if (found[0] === '\n') {
      line++;
      lineStart = found.index + 1;
    } else {
      const digits = /^0x/i.test(found[0]) ? found[0].slice(2) : found[0];
      tokens.push({ digits, text: found[0], line, column: found.index - lineStart + 1 });
    }
  }
  return tokens;
}

const shown = (text: string): string => (text.length > 24 ? `${text.slice(0, 24)}...` : text);

/** Where a token stands: by line too, if the text has several. */
const place = (token: Token, lines: boolean): string =>
  lines ? `line ${token.line}, column ${token.column}` : `column ${token.column}`;

function sizeText({ what, bytes }: WordsOptions): string {
  return `${what} is ${count(bytes / 8, 'word')} of 64 bits, ${bytes / 4} of 32, or ${bytes} bytes`;
}

/** Bytes are meant if every token is longer than a word; in lines (`xxd -p`), the last may be shorter. */
function areBytes(tokens: readonly Token[]): boolean {
  const long = (token: Token): boolean => token.digits.length > DIGITS[64];
  const last = tokens.at(-1);
  const before = tokens.at(-2);
  if (last === undefined) return false;
  if (before === undefined || long(last)) return tokens.every(long);
  const inLines = tokens.every((token, i) => token.line === (tokens[0]?.line ?? 0) + i);
  return inLines && tokens.slice(0, -1).every((token) => long(token) && token.digits.length === before.digits.length);
}

function wordsOfBytes(tokens: readonly Token[], options: WordsOptions): Words {
  const digits = tokens.map((token) => token.digits).join('');
  if (digits.length % 2 !== 0)
    throw new InputError(
      `odd number of digits: ${digits.length}; a string longer than ${DIGITS[64]} digits is bytes, two digits each (${sizeText(options)})`,
    );
  if ((digits.length / 2) % options.bytes !== 0)
    throw new InputError(
      `${count(digits.length / 2, 'byte')} are not a whole number of records (${sizeText(options)})`,
    );
  const words = new Uint32Array(digits.length / 8);
  for (let i = 0; i < words.length; i++) {
    const memory = digits.slice(8 * i, 8 * i + 8);
    const value = memory.slice(6, 8) + memory.slice(4, 6) + memory.slice(2, 4) + memory.slice(0, 2);
    words[i] = Number.parseInt(value, 16);
  }
  return words;
}

function widthOf(tokens: readonly Token[], { width, bytes }: WordsOptions): 32 | 64 {
  if (width !== undefined) return width;
  const narrow = tokens.every((token) => token.digits.length === DIGITS[32]) && tokens.length % (bytes / 4) === 0;
  return narrow ? 32 : 64;
}

function wordsOfWords(tokens: readonly Token[], options: WordsOptions, lines: boolean): Words {
  const width = widthOf(tokens, options);
  for (const [i, token] of tokens.entries())
    if (token.digits.replace(/^0+/, '').length > DIGITS[width])
      throw new InputError(
        `word ${i + 1}, ${place(token, lines)}: '${shown(token.text)}' does not fit ${width} bits (${sizeText(options)})`,
      );
  const each = (options.bytes * 8) / width;
  if (tokens.length % each !== 0) {
    const many = tokens.length > each ? 'not a whole number of records' : 'too few';
    throw new InputError(`${count(tokens.length, 'word')} of ${width} bits: ${many} (${sizeText(options)})`);
  }
  const padded = tokens.map((token) => token.digits.padStart(DIGITS[width], '0').slice(-DIGITS[width]));
  const halves = padded.flatMap((digits) => (width === 32 ? [digits] : [digits.slice(8), digits.slice(0, 8)]));
  return Uint32Array.from(halves, (digits) => Number.parseInt(digits, 16));
}

/**
 * Records from text. Words are hexadecimal with or without 0x, separated by blanks or commas; 64 bits each, or 32 (low
 * half first) with `width: 32` or when each has exactly 8 digits and their number is a whole number of records at 32
 * bits. A single unbroken string longer than 16 digits is bytes in memory order (`xxd -p`, its lines too).
 * @throws InputError that names the word and column, and what was expected there.
 */
export function parseWords(text: string, options: WordsOptions): Words[] {
  if (text.length > MAX_TEXT)
    throw new InputError(`${text.length} characters of words; at most ${MAX_TEXT} are read at once`);
  const lines = text.trimEnd().includes('\n');
  const tokens = tokensOf(text);
  if (tokens.length === 0) throw new InputError(`no words (${sizeText(options)})`);
  for (const [i, token] of tokens.entries())
    if (!/^[0-9a-f]+$/i.test(token.digits))
      throw new InputError(
        `word ${i + 1}, ${place(token, lines)}: '${shown(token.text)}' is not hexadecimal (${sizeText(options)})`,
      );
  const words = areBytes(tokens) ? wordsOfBytes(tokens, options) : wordsOfWords(tokens, options, lines);
  const each = options.bytes / 4;
  return Array.from({ length: words.length / each }, (_, i) => words.slice(i * each, (i + 1) * each));
}

/** The inverse of {@link hexWords}. @throws LayoutError for a word outside 64 bits */
export const wordsOfHex = (hex: readonly string[]): Words => fromQwords(hex.map(BigInt));

/** A record's 64-bit words as the JSON output writes them: "0x..". */
export function hexWords(words: Words): string[] {
  const out: string[] = [];
  for (let i = 0; i < words.length; i += 2) {
    const high = words[i + 1] ?? 0;
    const low = words[i] ?? 0;
    out.push(high === 0 ? `0x${low.toString(16)}` : `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`);
  }
  return out;
}
