/** What a decoded record is, and how a field gets its meaning. */
import { ADDRESS_BITS, type Caps, featureMet } from '../../spec/caps.ts';
import type { Field, Layout, Words } from '../../spec/layout.ts';

/** Kinds of records that {@link decode} reads. */
export const KINDS = ['ste', 'cd', 'l1std', 'l1cd', 'cmd', 'event', 'pte1', 'pte2'] as const;

/** A kind of record. */
export type RecordKind = (typeof KINDS)[number];

/** One field of a decoded record. */
export interface DecodedField {
  readonly name: string;
  /** "hi:lo", absolute in the record; parts of a split field joined by a comma, most significant first. */
  readonly bits: string;
  /** "0x..": the field's own bits, right-aligned. */
  readonly value: string;
  /** Name of the encoding, address of a pointer, size in words, and which feature is missing. */
  readonly meaning?: string;
  /** Hardware does not look at the field in this configuration. */
  readonly ignored?: true;
}

/** A broken rule. */
export interface DecodedProblem {
  readonly rule: string;
  readonly section: string;
  readonly message: string;
  readonly fields?: readonly string[];
}

/** A record in words. */
export interface DecodedRecord {
  readonly kind: RecordKind;
  /** Name of the command, event or descriptor variant; else of the structure. */
  readonly name: string;
  /** V or type bit; true for kinds without one. */
  readonly valid: boolean;
  /** The whole record in a sentence. */
  readonly summary: string;
  readonly fields: readonly DecodedField[];
  readonly problems: readonly DecodedProblem[];
}

/** A record under decoding: its table, its words, and the SMMU it belongs to, if known. */
export class View {
  readonly layout: Layout;
  readonly words: Words;
  readonly caps: Caps | undefined;

  constructor(layout: Layout, words: Words, caps: Caps | undefined) {
    this.layout = layout;
    this.words = words;
    this.caps = caps;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.layout.fields, name);
  }

  /** A field of at most 53 bits. */
  num(name: string): number {
    return this.layout.num(this.words, name);
  }

  get(name: string): bigint {
    return this.layout.get(this.words, name);
  }

  /** The address of a pointer field: "0x..". */
  address(name: string): string {
    return hex(this.layout.address(this.words, name));
  }

  /** A field's named encoding, or `unnamed`. */
  named(name: string, unnamed = 'reserved'): string {
    return this.layout.valueName(name, this.get(name)) ?? unnamed;
  }
}

/** Meaning of a field whose table does not say enough. Undefined: the general meaning. */
export type Meanings = Readonly<Record<string, (view: View, name: string) => string | undefined>>;

/** "0x..". */
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

const UNITS = ['bytes', 'KB', 'MB', 'GB', 'TB', 'PB'] as const;

/** A power-of-two size in words: 65536 is "64 KB". */
export function sizeText(bytes: bigint): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024n && value % 1024n === 0n && unit < UNITS.length - 1) {
    value /= 1024n;
    unit++;
  }
  return `${value} ${value === 1n && unit === 0 ? 'byte' : UNITS[unit]}`;
}

/** What an output size field stands for: "48-bit output", and the limit by OAS if the SMMU is known. */
export function outputSize(encoding: number, caps: Caps | undefined): string {
  const bits = ADDRESS_BITS[encoding & 7] ?? 56;
  return `${bits}-bit output${caps !== undefined && caps.OAS < bits ? `; ${caps.OAS} bits by OAS` : ''}`;
}

/** A cacheability name of spec/encodings.ts in words. */
export const CACHEABILITY: Readonly<Record<string, string>> = {
  NC: 'non-cacheable',
  WB_RA: 'write-back, read-allocate',
  WT_RA: 'write-through, read-allocate',
  WB_NO_RA: 'write-back, no read-allocate',
  WB_RA_WA: 'write-back, read- and write-allocate',
  WB_RA_NO_WA: 'write-back, read-allocate only',
};

/** A shareability name of spec/encodings.ts in words. */
export const SHAREABILITIES: Readonly<Record<string, string>> = {
  NSH: 'non-shareable',
  OSH: 'outer shareable',
  ISH: 'inner shareable',
};

/** "NAME: words" of a named encoding. */
export const named =
  (words: Readonly<Record<string, string>>, unnamed: string) =>
  (view: View, name: string): string => {
    const found = view.layout.valueName(name, view.get(name));
    if (found === undefined) return unnamed;
    const text = words[found];
    return text === undefined ? found : `${found}: ${text}`;
  };

const needs = (field: Field): string =>
  (typeof field.when === 'string' ? [field.when] : (field.when ?? []))
    .map((one) => one.replace(/^!/, 'not '))
    .join(', ');

/** What is missing for a field to have its meaning, or undefined. */
function missing(field: Field, caps: Caps | undefined): string | undefined {
  if (field.when === undefined) return undefined;
  if (caps === undefined) return `needs ${needs(field)}`;
  return featureMet(field.when, caps) ? undefined : `RES0 here: needs ${needs(field)}`;
}

function generalMeaning(view: View, name: string, field: Field): string | undefined {
  const value = view.get(name);
  if (field.address !== undefined) return view.address(name);
  if (field.values !== undefined) return view.layout.valueName(name, value) ?? 'reserved encoding';
  if (view.layout.width(name) === 1) return value === 0n ? 'off' : (field.text ?? 'on');
  return value < 10n ? undefined : `${value}`;
}

/** A field's meaning by the list of its structure, else by its table, with the features it lacks. */
export function meaningOf(view: View, name: string, meanings: Meanings): string | undefined {
  const field = view.layout.field(name);
  if (field.reserved !== undefined)
    return field.reserved === 'SOFTWARE'
      ? 'free for software'
      : field.reserved === 'IMPDEF'
        ? 'implementation defined'
        : `reserved, ${field.reserved}`;
  const meaning = meanings[name]?.(view, name) ?? generalMeaning(view, name, field);
  const lack = missing(field, view.caps);
  return meaning === undefined ? lack : lack === undefined ? meaning : `${meaning}; ${lack}`;
}
