/**
 * Memory from text: `xxd`, `hexdump`, `hexdump -C`, `od -A x -t x8`, crash's `rd`, QEMU's `xp` and gdb's `x`. A line is an
 * address, groups of hexadecimal digits, and perhaps the bytes as characters.
 */
import { InputError } from './error.ts';
import { bufferSource, ImageMemory } from './memory.ts';

/** Address, colon if there is one, and the rest. */
const LINE = /^\s*(?:0x)?([0-9a-fA-F]{6,16})(?:\s*<[^>]*>)?(:?)\s+(\S.*?)\s*$/;

/** `hexdump` and `od` end with the length alone. */
const END = /^\s*(?:0x)?[0-9a-fA-F]{6,16}:?\s*$/;

const GROUP = /^(?:0x)?([0-9a-fA-F]+)$/;

/** Bytes of one line. */
interface HexLine {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** Bytes of digits as they stand: two digits a byte. */
const inOrder = (digits: string): number[] =>
  Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));

const isPrintable = (byte: number): boolean => byte >= 0x20 && byte < 0x7f;

/** Whether text shows these bytes: printable ones as they are, others as a dot. */
const shows = (text: string, bytes: readonly number[]): boolean =>
  text.length === bytes.length && bytes.every((byte, i) => !isPrintable(byte) || text[i] === String.fromCharCode(byte));

/** Digits of a group by its width in bytes. */
const WIDTHS = [1, 2, 4, 8] as const;

/**
 * One line of a dump, or undefined if it is none. Groups of one width up to the characters; a last group may be cut short
 * by the end of the data (xxd). Groups are numbers, so their bytes are reversed, unless the dump shows bytes in order:
 * xxd (a colon and pairs of bytes), or characters that say so.
 */
function hexLine(line: string): HexLine | undefined {
  const found = LINE.exec(line);
  if (found === null) return undefined;
  const [, address = '', colon, rest = ''] = found;
  // `|....|` of hexdump -C; two blanks before the characters of xxd; crash's rd has three.
  const [body = '', ...tail] = rest.split(/\s{2,}(?=\S+$)|\s*\|/);
  const groups: string[] = [];
  let characters = tail.join('').replace(/\|$/, '');
  const tokens = body.split(/\s+/);
  for (const [i, token] of tokens.entries()) {
    const digits = GROUP.exec(token)?.[1];
    const width = groups[0]?.length ?? digits?.length ?? 0;
    if (digits === undefined || digits.length % 2 !== 0 || digits.length > width) {
      characters = tokens.slice(i).join(' ');
      break;
    }
    groups.push(digits);
  }
  const width = (groups[0]?.length ?? 0) / 2;
  if (!WIDTHS.some((one) => one === width)) return undefined;
  const straight = groups.flatMap(inOrder);
  const swapped = groups.flatMap((digits) => inOrder(digits).reverse());
  const inMemoryOrder =
    width === 1 ||
    (width === 2 && colon === ':') ||
    (characters !== '' && !shows(characters, swapped) && shows(characters, straight));
  return { address: BigInt(`0x${address}`), bytes: Uint8Array.from(inMemoryOrder ? straight : swapped) };
}

/** Bytes of a hexdump that stands somewhere in a line of a log, behind a time stamp and other words. */
export function bytesOfHexLine(line: string): Uint8Array | undefined {
  const found =
    /(?:^|[\s:\]])((?:0x[0-9a-fA-F]{6,16}:|[0-9a-fA-F]{6,16}:?)\s+(?:(?:0x)?[0-9a-fA-F]{2,16}\s*){2,}.*)$/.exec(line);
  const dumped = found?.[1] === undefined ? undefined : hexLine(found[1]);
  return dumped === undefined || dumped.bytes.length < 8 ? undefined : dumped.bytes;
}

/** Whether text looks like a dump: most of its first lines do. */
export function looksLikeHexdump(text: string): boolean {
  const lines = text
    .slice(0, 4096)
    .split('\n')
    .slice(0, 16)
    .filter((line) => line.trim() !== '');
  const good = lines.filter((line) => hexLine(line) !== undefined || line.trim() === '*' || END.test(line)).length;
  return lines.length > 0 && good * 2 > lines.length;
}

/** Most bytes that one `*` (the same line again) may stand for. */
const MAX_REPEAT = 1n << 30n;

/**
 * Memory of a text dump. Addresses count from `base`. Lines that are no part of a dump are passed over.
 * @throws InputError if no line is one, or two lines disagree.
 */
export function memoryOfHexdump(text: string, name: string, base: bigint): ImageMemory {
  const memory = new ImageMemory();
  const runs: { address: bigint; parts: Uint8Array[]; end: bigint }[] = [];
  let repeat = false;
  let last: HexLine | undefined;
  const add = ({ address, bytes }: HexLine): void => {
    const run = runs.at(-1);
    if (run !== undefined && run.end === address) {
      run.parts.push(bytes);
      run.end += BigInt(bytes.length);
    } else runs.push({ address, parts: [bytes], end: address + BigInt(bytes.length) });
  };
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '*') {
      repeat = true;
      continue;
    }
    const found = END.test(line)
      ? { address: BigInt(`0x${line.trim().replace(/^0x|:$/g, '')}`), bytes: new Uint8Array(0) }
      : hexLine(line);
    if (found === undefined) continue;
    if (repeat && last !== undefined && last.bytes.length > 0) {
      const gap = found.address - last.address - BigInt(last.bytes.length);
      if (gap < 0n || gap > MAX_REPEAT) throw new InputError(`${name}:${i + 1}: '*' stands for ${gap} bytes`);
      const fill = new Uint8Array(Number(gap));
      for (let at = 0; at < fill.length; at++) fill[at] = last.bytes[at % last.bytes.length] ?? 0;
      if (fill.length > 0) add({ address: last.address + BigInt(last.bytes.length), bytes: fill });
    }
    repeat = false;
    if (found.bytes.length === 0) continue;
    add(found);
    last = found;
  }
  if (runs.length === 0)
    throw new InputError(`${name}: no line is an address and bytes, as xxd, hexdump, rd or xp print them`);
  for (const { address, parts } of runs) {
    const bytes = Buffer.concat(parts);
    memory.add({ base: base + address, length: bytes.length, name, source: bufferSource(bytes), offset: 0 });
  }
  return memory;
}
