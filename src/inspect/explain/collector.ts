/** Records whose words are spread over lines: events, commands, STEs and CDs, with other lines in between. */
import type { Words } from '../../../spec/layout.ts';
import { bytesOfHexLine } from '../hexdump.ts';

/** Lines of other output that may stand between two words of a record. */
const PATIENCE = 64;

/** What is being put together. */
export interface Pending {
  readonly kind: 'event' | 'cmd' | 'ste' | 'cd';
  /** What the lines of the record begin with, if they say: the device's name. */
  readonly device: string;
  /** 1-based line where the record begins. */
  readonly line: number;
  /** 64-bit words that the record has. */
  readonly size: number;
}

const WORD = /(?<![0-9a-zA-Z_x])0x([0-9a-fA-F]{1,16})(?![0-9a-zA-Z_])/g;
const BARE = /(?<![0-9a-zA-Z_x])([0-9a-fA-F]{16})(?![0-9a-zA-Z_])/g;

/** A word with all its digits. */
const WHOLE = /(?<![0-9a-zA-Z_x])0x[0-9a-fA-F]{16}(?![0-9a-zA-Z_])/;

/** A word at the begin of a message, with something other than a blank behind it. */
const CUT = /^\s*0x([0-9a-fA-F]+)(?=$|[^0-9a-fA-F\s])/;

/** A line that holds words and nothing else but a time stamp. */
const ALONE = /^\s*(?:<\d+>)?(?:\[[^\]]*\]\s*)?(?:0x[0-9a-fA-F]{16}\s*)+$/;

/** A word of an STE or CD behind what says so, or behind its number. */
const LABELLED = /\b(?:ste|cd|[qd]?word)\b.*0x|(?:^|[\s\]])\[?\d\]?\s*[:=]\s*0x/i;

/** Digits of a word as drivers print them. */
const FULL = 16;

/** Words of one record as they come in. */
export class Collector {
  readonly pending: Pending;
  readonly #words: bigint[] = [];
  readonly #bytes: number[] = [];
  #partial = '';
  #patience = PATIENCE;

  constructor(pending: Pending) {
    this.pending = pending;
  }

  /** Drivers print these word by word, all digits, behind the device's name. */
  get #strict(): boolean {
    return this.pending.kind === 'event' || this.pending.kind === 'cmd';
  }

  /** Whether a line that does not name the device may belong to the record. */
  accepts(line: string): boolean {
    if (ALONE.test(line)) return true;
    return this.#strict ? this.#partial !== '' : LABELLED.test(line) || bytesOfHexLine(line) !== undefined;
  }

  /** Takes what a line holds of the record. Tells whether the line belongs to it. */
  take(line: string): boolean {
    const before = this.#words.length + this.#bytes.length + this.#partial.length;
    if (this.#partial !== '') this.#continue(line);
    else this.#read(line);
    const took = this.#words.length + this.#bytes.length + this.#partial.length !== before;
    this.#patience = took ? PATIENCE : this.#patience - 1;
    return took;
  }

  /** A line went to another record. Tells whether this one is lost now. */
  age(): boolean {
    this.#patience--;
    return this.lost;
  }

  /** No word has come for long. */
  get lost(): boolean {
    return this.#patience <= 0;
  }

  /** The record, once all its words are there. */
  get words(): Words | undefined {
    const { size } = this.pending;
    if (this.#bytes.length >= size * 8) return new Uint32Array(Uint8Array.from(this.#bytes.slice(0, size * 8)).buffer);
    if (this.#words.length < size) return undefined;
    const out = new Uint32Array(size * 2);
    for (let i = 0; i < size; i++) {
      out[2 * i] = Number((this.#words[i] ?? 0n) & 0xffffffffn);
      out[2 * i + 1] = Number((this.#words[i] ?? 0n) >> 32n);
    }
    return out;
  }

  /** The rest of a word that other output cut in two. */
  #continue(line: string): void {
    const wanted = FULL - this.#partial.length;
    const found = new RegExp(`^\\s*([0-9a-fA-F]{${wanted}})(?![0-9a-zA-Z])`).exec(line);
    if (found !== null) {
      this.#words.push(BigInt(`0x${this.#partial}${found[1]}`));
      this.#partial = '';
    } else if (WHOLE.test(line)) this.#patience = 0; // The rest of the word is gone, and with it the record.
  }

  #read(line: string): void {
    const { size } = this.pending;
    if (this.#strict) {
      this.#readStrict(line, size);
      return;
    }
    const bytes = this.#words.length === 0 ? bytesOfHexLine(line) : undefined;
    if (bytes !== undefined) {
      this.#bytes.push(...bytes);
      return;
    }
    const words = [...line.matchAll(WORD)];
    const found = words.length > 0 ? words : [...line.matchAll(BARE)];
    for (const [, digits = ''] of found.slice(0, size - this.#words.length)) this.#words.push(BigInt(`0x${digits}`));
  }

  /** A driver's words have all their digits; a shorter one at the begin of the message was cut by other output. */
  #readStrict(line: string, size: number): void {
    for (const [, digits = ''] of line.matchAll(WORD))
      if (digits.length === FULL && this.#words.length < size) this.#words.push(BigInt(`0x${digits}`));
    const cut = CUT.exec(line)?.[1];
    if (this.#words.length < size && cut !== undefined && cut.length < FULL) this.#partial = cut;
  }
}
