/** C structs of the kernel's user API as tables: little-endian, offsets and widths in bytes. */
import { LayoutError } from '../layout.ts';

/** One field of a struct. */
export interface StructField {
  /** Bytes from the start of the struct. */
  readonly offset: number;
  /** Bytes of one element. */
  readonly width: 1 | 2 | 4 | 8;
  /** Present for arrays: number of elements. */
  readonly count?: number;
  /** Two's complement. */
  readonly signed?: true;
  /** Lies over the field of this name (a C union). */
  readonly unionWith?: string;
  /** Named values, or named bits of a flags field. */
  readonly values?: Readonly<Record<string, number>>;
  /** Must be zero. */
  readonly reserved?: true;
  /** What the field says, in a few words. */
  readonly text?: string;
}

/** The fields of a struct by name, in C order. */
export type StructFields = Readonly<Record<string, StructField>>;

type Element<F extends StructField> = F['width'] extends 8 ? bigint : number;

/** What a field holds: a number, a bigint for 8 bytes, or an array of these. */
export type StructFieldValue<F extends StructField> = F extends { readonly count: number }
  ? readonly Element<F>[]
  : Element<F>;

/** All fields of a struct, as {@link Struct.decode} returns them. */
export type StructValue<F extends StructFields> = { readonly [K in keyof F]: StructFieldValue<F[K]> };

/** Facts about a struct. */
export interface StructInfo {
  /** Size of the C struct. */
  readonly bytes: number;
  /** Header that defines it. */
  readonly source: string;
  readonly text?: string;
}

/** Any struct, whatever its fields: for lists, printers and the ioctl dispatcher. */
export interface AnyStruct {
  readonly name: string;
  readonly bytes: number;
  readonly source: string;
  readonly text: string;
  readonly fields: StructFields;
  readonly names: readonly string[];
  endOf(name: string): number;
  decode(bytes: Uint8Array): Readonly<Record<string, bigint | number | readonly (bigint | number)[]>>;
  coverage(): readonly (readonly [first: number, last: number])[];
}

/** A C struct as a table of fields. Made by {@link struct}. */
export class Struct<F extends StructFields = StructFields> implements AnyStruct {
  readonly name: string;
  readonly bytes: number;
  readonly source: string;
  readonly text: string;
  readonly fields: F;

  constructor(name: string, info: StructInfo, fields: F) {
    this.name = name;
    this.bytes = info.bytes;
    this.source = info.source;
    this.text = info.text ?? '';
    this.fields = fields;
  }

  /** Names of all fields in table order. */
  get names(): string[] {
    return Object.keys(this.fields);
  }

  /** The table entry of a field. @throws LayoutError for an unknown name. */
  field(name: keyof F & string): StructField {
    if (!Object.hasOwn(this.fields, name)) throw new LayoutError(`${this.name} has no field ${name}`);
    return this.fields[name] as StructField;
  }

  /** First byte after a field, counted from the start of the struct: the kernel's offsetofend(). */
  endOf(name: keyof F & string): number {
    const { offset, width, count = 1 } = this.field(name);
    return offset + width * count;
  }

  /** A field's value. @throws LayoutError if the field does not lie inside `bytes`. */
  get<K extends keyof F & string>(bytes: Uint8Array, name: K): StructFieldValue<F[K]> {
    const field = this.field(name);
    const view = this.#view(bytes, name);
    const read = (index: number) => readElement(view, field, field.offset + index * field.width);
    const value = field.count === undefined ? read(0) : Array.from({ length: field.count }, (_, i) => read(i));
    return value as StructFieldValue<F[K]>;
  }

  /** Writes a field in place. @throws LayoutError if field or value do not fit, or an array has another length. */
  set<K extends keyof F & string>(bytes: Uint8Array, name: K, value: StructFieldValue<F[K]>): void {
    const field = this.field(name);
    const view = this.#view(bytes, name);
    const elements = (field.count === undefined ? [value] : value) as readonly (bigint | number)[];
    if (elements.length !== (field.count ?? 1))
      throw new LayoutError(`${this.name}.${name} has ${field.count} elements, not ${elements.length}`);
    const wide = elements.map((element) => this.#checked(name, field, element));
    for (const [i, element] of wide.entries()) writeElement(view, field, field.offset + i * field.width, element);
  }

  #view(bytes: Uint8Array, name: keyof F & string): DataView {
    if (this.endOf(name) > bytes.length)
      throw new LayoutError(`${this.name}.${name} ends at byte ${this.endOf(name)} of ${bytes.length}`);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  #checked(name: string, field: StructField, value: bigint | number): bigint {
    if (typeof value === 'number' && !Number.isSafeInteger(value))
      throw new LayoutError(`${this.name}.${name}: ${value} is not an integer`);
    const wide = BigInt(value);
    const bits = field.width * 8;
    const kept = field.signed ? BigInt.asIntN(bits, wide) : BigInt.asUintN(bits, wide);
    if (kept !== wide) throw new LayoutError(`${this.name}.${name} has ${field.width} bytes; ${wide} does not fit`);
    return wide;
  }

  /** A struct with the given fields, all other bytes zero. @throws LayoutError as {@link set}. */
  encode(values: Partial<StructValue<F>> = {}): Uint8Array {
    const bytes = new Uint8Array(this.bytes);
    for (const name of Object.keys(values) as (keyof F & string)[]) {
      const value = values[name];
      if (value !== undefined) this.set(bytes, name, value);
    }
    return bytes;
  }

  /** All fields. @throws LayoutError if `bytes` is shorter than the struct. */
  decode(bytes: Uint8Array): StructValue<F> {
    const out: Record<string, unknown> = {};
    for (const name of this.names as (keyof F & string)[]) out[name] = this.get(bytes, name);
    return out as StructValue<F>;
  }

  /** Bytes, [first, last], that no field or more than one covers; a union counts once. Empty for a sound table. */
  coverage(): (readonly [first: number, last: number])[] {
    const owners = new Array<number>(this.bytes).fill(0);
    const faults: (readonly [number, number])[] = [];
    for (const name of this.names as (keyof F & string)[]) {
      if (this.field(name).unionWith !== undefined) continue;
      for (let byte = this.field(name).offset; byte < this.endOf(name); byte++) owners[byte] = (owners[byte] ?? 0) + 1;
    }
    for (const [byte, count] of owners.entries()) if (count !== 1) faults.push([byte, byte]);
    return faults;
  }
}

function readElement(view: DataView, field: StructField, at: number): bigint | number {
  if (field.width === 8) return field.signed ? view.getBigInt64(at, true) : view.getBigUint64(at, true);
  if (field.width === 4) return field.signed ? view.getInt32(at, true) : view.getUint32(at, true);
  if (field.width === 2) return field.signed ? view.getInt16(at, true) : view.getUint16(at, true);
  return field.signed ? view.getInt8(at) : view.getUint8(at);
}

function writeElement(view: DataView, field: StructField, at: number, value: bigint): void {
  if (field.width === 8) view.setBigUint64(at, BigInt.asUintN(64, value), true);
  else if (field.width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
  else if (field.width === 2) view.setUint16(at, Number(BigInt.asUintN(16, value)), true);
  else view.setUint8(at, Number(BigInt.asUintN(8, value)));
}

/** Makes a struct; field names and widths stay known to the compiler. */
export function struct<const F extends StructFields>(name: string, info: StructInfo, fields: F): Struct<F> {
  return new Struct(name, info, fields);
}
