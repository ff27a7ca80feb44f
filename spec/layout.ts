/**
 * Layouts: a record of hardware (an STE, a command, a register) as a table of named bit fields.
 *
 * Everything that knows where a bit lies is made from these tables: decoder, encoder, slots for hot paths, masks,
 * printers. Bit numbers are absolute in the record, as the specification prints them.
 */

/** Highest and lowest bit of a contiguous run, both included, absolute in the record. */
export type BitRange = readonly [hi: number, lo: number];

/** Why a range of bits carries no defined meaning. SOFTWARE: hardware ignores it and software may use it. */
export type Reserved = 'RES0' | 'RES1' | 'IMPDEF' | 'SOFTWARE';

/**
 * The bits of a record in memory order: 32-bit words, least significant first. A 64-bit word i of the record is
 * `words[2 * i]` (low half) and `words[2 * i + 1]` (high half).
 */
export type Words = Uint32Array;

/** One field of a layout. */
export interface Field {
  /** Where the field lies. The parts of a split field are listed most significant first. */
  readonly bits: BitRange | readonly BitRange[];
  /** Named encodings. Values that are not listed are either numbers (no list) or reserved encodings. */
  readonly values?: Readonly<Record<string, number>>;
  /** Present for bits without a defined meaning; the field's name then only keeps it apart from others. */
  readonly reserved?: Reserved;
  /** The field holds an address without its low bits: address = value << `address`. */
  readonly address?: number;
  /**
   * Features the field needs, all of them: `IDR3.FWB` (non-zero), `IDR0.HTTU=3`, `!IDR5.D128`, `AIDR.ArchMinorRev>=1`.
   * Without them the field is RES0.
   */
  readonly when?: string | readonly string[];
  /** Section of the source, where it differs from the layout's own. */
  readonly section?: string;
  /** What the field says, in a few words. */
  readonly text?: string;
}

/** The fields of a layout by name. */
export type Fields = Readonly<Record<string, Field>>;

/** Facts about a whole layout. */
export interface LayoutInfo {
  /** Size of the record in bytes; a multiple of 4. */
  readonly bytes: number;
  /** Section of IHI 0070 (or of the named source) that defines the record. */
  readonly section: string;
  /** What the record is, in a few words. */
  readonly text?: string;
}

/** A field's place inside one 32-bit word: `(words[word] >>> shift) & mask` is its value. */
export interface Slot {
  readonly word: number;
  readonly shift: number;
  /** Not shifted; an unsigned 32-bit number. */
  readonly mask: number;
}

/** The value of a field through its slot: unsigned, for hot paths. Words outside the record read as zero. */
export function slotValue(words: Words, slot: Slot): number {
  return (((words[slot.word] ?? 0) >>> slot.shift) & slot.mask) >>> 0;
}

/** A piece of a field inside one 32-bit word; `at` is where it stands in the field's value. */
export interface Part extends Slot {
  readonly at: number;
}

/** What may be given for a field when encoding: a number, a bigint, or the name of one of its values. */
export type Encodable<F extends Field> =
  | bigint
  | number
  | (F['values'] extends Readonly<Record<string, number>> ? keyof F['values'] & string : never);

/** Field values as given to {@link Layout.encode}. */
export type Encoding<F extends Fields> = { readonly [K in keyof F]?: Encodable<F[K]> };

/** Field values as {@link Layout.decode} returns them: unsigned, right-aligned. */
export type Decoded<F extends Fields> = { readonly [K in keyof F]: bigint };

/** A value that does not fit the record it was meant for. */
export class LayoutError extends Error {
  override readonly name = 'LayoutError';
}

/** A range or overlap that {@link Layout.coverage} found. */
export interface CoverageFault {
  readonly bits: BitRange;
  /** No field: nobody owns the bits. Two or more: they overlap there. */
  readonly fields: readonly string[];
}

const rangesOf = (field: Field): readonly BitRange[] =>
  typeof field.bits[0] === 'number' ? [field.bits as BitRange] : (field.bits as readonly BitRange[]);

const maskOfWidth = (width: number): number => (width >= 32 ? 0xffffffff : (1 << width) - 1) >>> 0;

function partsOf(field: Field): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const [hi, lo] of rangesOf(field).toReversed()) {
    for (let bit = lo; bit <= hi; ) {
      const word = bit >>> 5;
      const shift = bit & 31;
      const width = Math.min(hi - bit + 1, 32 - shift);
      parts.push({ word, shift, mask: maskOfWidth(width), at });
      at += width;
      bit += width;
    }
  }
  return parts;
}

const putPart = (words: Words, { word, shift, mask }: Slot, value: number): void => {
  words[word] = (((words[word] ?? 0) & ~(mask << shift)) | (value << shift)) >>> 0;
};

/** What a layout works out about a field once. */
interface Place {
  readonly field: Field;
  readonly parts: readonly Part[];
  /** The only part, if there is one. */
  readonly only: Part | undefined;
  /** Number of bits. */
  readonly width: number;
}

function placeOf(field: Field): Place {
  const parts = partsOf(field);
  const width = rangesOf(field).reduce((sum, [hi, lo]) => sum + hi - lo + 1, 0);
  return { field, parts, only: parts.length === 1 ? parts[0] : undefined, width };
}

/** A record as a table of fields. Made by {@link layout} or {@link register}. */
export class Layout<F extends Fields = Fields> {
  readonly name: string;
  readonly bytes: number;
  readonly section: string;
  readonly text: string;
  readonly fields: F;
  readonly #places = new Map<string, Place>();

  constructor(name: string, info: LayoutInfo, fields: F) {
    this.name = name;
    this.bytes = info.bytes;
    this.section = info.section;
    this.text = info.text ?? '';
    this.fields = fields;
  }

  /**
   * Names of all fields, reserved ones included, in table order. Typed as strings: a list of keyof F would keep an STE's
   * layout from being passed where any `Layout` is wanted.
   */
  get names(): string[] {
    return Object.keys(this.fields);
  }

  /** A fresh record of zeros. */
  zero(): Words {
    return new Uint32Array(this.bytes / 4);
  }

  /** The pieces of a field, least significant first. @throws LayoutError for an unknown name. */
  parts(name: keyof F & string): readonly Part[] {
    return this.#place(name).parts;
  }

  #place(name: keyof F & string): Place {
    let place = this.#places.get(name);
    if (place === undefined) {
      if (!Object.hasOwn(this.fields, name)) throw new LayoutError(`${this.name} has no field ${name}`);
      place = placeOf(this.fields[name] as Field);
      this.#places.set(name, place);
    }
    return place;
  }

  /** The table entry of a field. @throws LayoutError for an unknown name. */
  field(name: keyof F & string): Field {
    return this.#place(name).field;
  }

  /** A field's only slot. @throws LayoutError if the field does not lie inside one 32-bit word. */
  slot(name: keyof F & string): Slot {
    const { only } = this.#place(name);
    if (only === undefined) throw new LayoutError(`${this.name}.${name} does not lie inside one 32-bit word`);
    return only;
  }

  /** Number of bits of a field. */
  width(name: keyof F & string): number {
    return this.#place(name).width;
  }

  /** Bits as the specification prints them: "143:128", "0:0", parts joined by a comma, most significant first. */
  bits(name: keyof F & string): string {
    return rangesOf(this.field(name))
      .map(([hi, lo]) => `${hi}:${lo}`)
      .join(',');
  }

  /** A field's value, unsigned and right-aligned. */
  get(words: Words, name: keyof F & string): bigint {
    let value = 0n;
    for (const { word, shift, mask, at } of this.parts(name))
      value |= BigInt((((words[word] ?? 0) >>> shift) & mask) >>> 0) << BigInt(at);
    return value;
  }

  /** A field's value as a number. @throws LayoutError for a field wider than 53 bits. */
  num(words: Words, name: keyof F & string): number {
    const { only, parts } = this.#place(name);
    if (only !== undefined) return slotValue(words, only);
    let value = 0;
    for (const { word, shift, mask, at } of parts) {
      if (at > 31 && mask > 0x1fffff) throw new LayoutError(`${this.name}.${name} is too wide for a number`);
      value += ((((words[word] ?? 0) >>> shift) & mask) >>> 0) * 2 ** at;
    }
    return value;
  }

  /** The address a pointer field names (its value with the low bits it leaves out). */
  address(words: Words, name: keyof F & string): bigint {
    return this.get(words, name) << BigInt(this.field(name).address ?? 0);
  }

  /** Writes a field in place. @throws LayoutError if the value does not fit, or names no encoding. */
  set(words: Words, name: keyof F & string, value: bigint | number | string): void {
    const { field, only, parts, width } = this.#place(name);
    const named = typeof value === 'string' ? field.values?.[value] : value;
    // Most fields are numbers inside one word: no bigint is made for them.
    if (
      only !== undefined &&
      typeof named === 'number' &&
      Number.isInteger(named) &&
      named >= 0 &&
      named <= only.mask
    ) {
      putPart(words, only, named);
      return;
    }
    const wide = this.#wide(name, value, named, width);
    for (const part of parts) putPart(words, part, Number((wide >> BigInt(part.at)) & BigInt(part.mask)));
  }

  #wide(name: string, value: bigint | number | string, named: bigint | number | undefined, width: number): bigint {
    if (named === undefined) throw new LayoutError(`${this.name}.${name} has no encoding called ${value}`);
    if (typeof named === 'number' && !Number.isSafeInteger(named))
      throw new LayoutError(`${this.name}.${name}: ${named} is not an integer`);
    const wide = BigInt(named);
    if (wide < 0n || wide >> BigInt(width) !== 0n)
      throw new LayoutError(`${this.name}.${name} has ${width} bits; ${wide} does not fit`);
    return wide;
  }

  /** A record with the given fields, all others zero. @throws LayoutError as {@link set}. */
  encode(values: Encoding<F>): Words {
    const words = this.zero();
    for (const name in values) {
      const value = values[name];
      if (value !== undefined) this.set(words, name, value as bigint | number | string);
    }
    return words;
  }

  /** All fields of a record, reserved ones included. */
  decode(words: Words): Decoded<F> {
    const out: Record<string, bigint> = {};
    for (const name of this.names) out[name] = this.get(words, name);
    return out as Decoded<F>;
  }

  /** Ones where the named fields lie. */
  mask(names: Iterable<keyof F & string>): Words {
    const words = this.zero();
    for (const name of names)
      for (const { word, shift, mask } of this.parts(name)) words[word] = ((words[word] ?? 0) | (mask << shift)) >>> 0;
    return words;
  }

  /** The name of a field's value, if its table lists one. */
  valueName(name: keyof F & string, value: bigint): string | undefined {
    for (const [known, encoding] of Object.entries(this.field(name).values ?? {}))
      if (BigInt(encoding) === value) return known;
    return undefined;
  }

  /** Bits that belong to no field, or to more than one. Empty for a sound table. */
  coverage(): CoverageFault[] {
    const owners: string[][] = Array.from({ length: this.bytes * 8 }, () => []);
    const faults: CoverageFault[] = [];
    for (const name of this.names)
      for (const [hi, lo] of rangesOf(this.field(name)))
        for (let bit = lo; bit <= hi; bit++) {
          const owner = owners[bit];
          if (owner === undefined) faults.push({ bits: [bit, bit], fields: [name] });
          else owner.push(name);
        }
    for (let lo = 0; lo < owners.length; ) {
      const here = owners[lo] ?? [];
      let hi = lo;
      while (hi + 1 < owners.length && (owners[hi + 1] ?? []).join() === here.join()) hi++;
      if (here.length !== 1) faults.push({ bits: [hi, lo], fields: here });
      lo = hi + 1;
    }
    return faults;
  }
}

/** Makes a layout; field names and value names stay known to the compiler. */
export function layout<const F extends Fields>(name: string, info: LayoutInfo, fields: F): Layout<F> {
  return new Layout(name, info, fields);
}

/** RW: written value reads back. RO: writes are ignored. W0C: a write with the bit 0 clears the register. */
export type Access = 'RO' | 'RW' | 'W0C';

/** Facts about a register. */
export interface RegisterInfo {
  /** Byte offset inside its page (or block, for registers that repeat). */
  readonly offset: number;
  /** Width in bits. */
  readonly width: 32 | 64;
  readonly access: Access;
  readonly section: string;
  /** Which page or block the offset counts from: 'page0' (default), 'page1', 'vatos', 'ecmdq', 'vintf', ... */
  readonly page?: string;
  /** Features it needs; absent, its offset is RES0. As {@link Field.when}. */
  readonly when?: string | readonly string[];
  /** Registers that repeat: how many at most, and how many bytes apart. */
  readonly repeat?: { readonly count: number; readonly stride: number };
  readonly text?: string;
}

/** A register: a layout of 4 or 8 bytes with a place in a register page. */
export class Register<F extends Fields = Fields> extends Layout<F> {
  readonly offset: number;
  readonly access: Access;
  readonly page: string;
  readonly info: RegisterInfo;

  constructor(name: string, info: RegisterInfo, fields: F) {
    super(
      name,
      { bytes: info.width / 8, section: info.section, ...(info.text === undefined ? {} : { text: info.text }) },
      fields,
    );
    this.offset = info.offset;
    this.access = info.access;
    this.page = info.page ?? 'page0';
    this.info = info;
  }

  /** The named fields' bits as one unsigned number. For 32-bit registers. @throws LayoutError on a 64-bit register. */
  bit(...names: (keyof F & string)[]): number {
    if (this.bytes !== 4) throw new LayoutError(`${this.name} has 64 bits`);
    return this.mask(names)[0] ?? 0;
  }

  /** A field of a 32-bit register value. @throws LayoutError on a 64-bit register. */
  of(value: number, name: keyof F & string): number {
    const { shift, mask } = this.slot(name);
    if (this.bytes !== 4) throw new LayoutError(`${this.name} has 64 bits`);
    return ((value >>> shift) & mask) >>> 0;
  }

  /** A 32-bit register value with the given fields, all others zero. @throws LayoutError as {@link Layout.set}. */
  value(values: Encoding<F>): number {
    if (this.bytes !== 4) throw new LayoutError(`${this.name} has 64 bits`);
    return this.encode(values)[0] ?? 0;
  }

  /** As {@link value}, for registers of any width. */
  value64(values: Encoding<F>): bigint {
    const words = this.encode(values);
    return (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0);
  }
}

/** Makes a register; field names and value names stay known to the compiler. */
export function register<const F extends Fields>(name: string, info: RegisterInfo, fields: F): Register<F> {
  return new Register(name, info, fields);
}

/** A record's 64-bit words, word 0 first, from its 32-bit words. */
export function toQwords(words: Words): bigint[] {
  const out: bigint[] = [];
  for (let i = 0; i < words.length; i += 2) out.push((BigInt(words[i + 1] ?? 0) << 32n) | BigInt(words[i] ?? 0));
  return out;
}

/** A record's 32-bit words from its 64-bit words. @throws LayoutError for a word outside 64 bits. */
export function fromQwords(qwords: readonly bigint[]): Words {
  const words = new Uint32Array(qwords.length * 2);
  for (const [i, qword] of qwords.entries()) {
    if (qword < 0n || qword >> 64n !== 0n) throw new LayoutError(`word ${i} does not fit 64 bits`);
    words[2 * i] = Number(qword & 0xffffffffn);
    words[2 * i + 1] = Number(qword >> 32n);
  }
  return words;
}
