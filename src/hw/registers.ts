/**
 * The register pages: which register answers at which offset, access sizes, read-only and reserved bits. What a
 * register does is attached by the block that owns it.
 */
import { type Caps, featureMet, perCaps } from '../../spec/caps.ts';
import type { Register } from '../../spec/layout.ts';
import { MIN_FOOTPRINT, PAGE_BYTES, PAGE0_ALIASES, PAGE1, REGISTERS } from '../../spec/registers.ts';
import type { SmmuOptions } from './config.ts';
import type { Watch } from './observer.ts';

/** What a block attaches to a register. */
export interface Behaviour {
  /** The value read, where it is not the one stored. 32-bit registers only. */
  read?(): number;
  /** Bits that a write may change now (in each half); all by default. 0: the guard is closed. */
  open?(): number;
  /** Takes a write instead of storing it. 32-bit registers only. Returns why it had no effect, or ''. */
  write?(value: number): string;
  /** A stored value changed. */
  written?(): void;
}

/** One register's storage. Blocks read and change it directly; software comes through {@link RegisterFile}. */
export class Cell {
  readonly register: Register;
  lo = 0;
  hi = 0;
  /** Bits that software can write, by half. */
  readonly writableLo: number;
  readonly writableHi: number;
  behaviour: Behaviour = {};

  constructor(register: Register, writableLo: number, writableHi: number) {
    this.register = register;
    this.writableLo = writableLo;
    this.writableHi = writableHi;
  }
}

/** An address field of a physical address ends here; higher ones are input addresses (6.3.24, 6.3.39). */
const PA_TOP_BIT = 55;

/** Bits of a register that software can write: defined, present, and for physical addresses below OAS. */
export function writableBits(register: Register, caps: Caps): [lo: number, hi: number] {
  if (register.access === 'RO') return [0, 0];
  const masks: [number, number] = [0, 0];
  for (const name of register.names) {
    const field = register.field(name);
    if (field.reserved !== undefined || !featureMet(field.when, caps)) continue;
    const isPa = field.address !== undefined && register.bits(name).startsWith(`${PA_TOP_BIT}:`);
    for (const { word, shift, mask } of register.parts(name)) {
      let bits = (mask << shift) >>> 0;
      if (isPa && word === 1) bits &= 2 ** (caps.OAS - 32) - 1;
      masks[word === 0 ? 0 : 1] = ((masks[word === 0 ? 0 : 1] ?? 0) | bits) >>> 0;
    }
  }
  return masks;
}

/** What an SMMU makes of a register. */
interface Facts {
  readonly writable: readonly [lo: number, hi: number];
  /** The feature it needs is there. */
  readonly present: boolean;
}

/** Worked out once for SMMUs that can do the same. */
const knownFacts = perCaps(() => new Map<Register, Facts>());

function factsOf(register: Register, caps: Caps): Facts {
  const known = knownFacts(caps);
  let facts = known.get(register);
  if (facts === undefined) {
    facts = { writable: writableBits(register, caps), present: featureMet(register.info.when, caps) };
    known.set(register, facts);
  }
  return facts;
}

/** Whether an offset that leads to a cell means its high half: registers are aligned to their size. */
const isHigh = (cell: Cell, offset: number): boolean => cell.register.bytes === 8 && (offset & 4) !== 0;

const ALL = 0xffffffff;

/** See the module comment. Offsets are bytes from SMMU_BASE. */
export class RegisterFile {
  readonly caps: Caps;
  readonly options: SmmuOptions;
  readonly #smmu: string;
  readonly #watch: Watch;
  /** Where each offset leads. */
  readonly #places = new Map<number, Cell>();
  readonly #cells = new Map<Register, Cell>();
  readonly #all: Cell[] = [];
  /** Both halves of each of {@link #all} at power-on. */
  #initial: readonly (readonly [lo: number, hi: number])[] = [];
  /** High half of the last 64-bit read. */
  #readHi = 0;

  constructor(smmu: string, caps: Caps, options: SmmuOptions, watch: Watch) {
    this.#smmu = smmu;
    this.caps = caps;
    this.options = options;
    this.#watch = watch;
    for (const register of REGISTERS)
      if (register.info.repeat === undefined && (register.page === 'page0' || register.page === 'page1'))
        this.add(register, register.page === 'page1' ? PAGE1 : 0);
    if (options.page0QueueAlias === 'alias') for (const offset of PAGE0_ALIASES) this.#alias(offset, PAGE1 + offset);
    if (options.page1Undefined === 'alias')
      for (const offset of [...this.#places.keys()]) if (offset < PAGE_BYTES) this.#alias(PAGE1 + offset, offset);
  }

  /** Places a register `page` bytes from SMMU_BASE, if its feature is present. */
  add(register: Register, page: number): Cell {
    const {
      writable: [lo, hi],
      present,
    } = factsOf(register, this.caps);
    const cell = new Cell(register, lo, hi);
    this.#cells.set(register, cell);
    this.#all.push(cell);
    const unknown = this.options.unknownReset;
    const reset = this.options.reset[register.name];
    cell.lo = reset === undefined ? (unknown & lo) >>> 0 : Number(reset & 0xffffffffn);
    cell.hi = reset === undefined ? (unknown & hi) >>> 0 : Number((reset >> 32n) & 0xffffffffn);
    if (!present) return cell;
    this.#places.set(page + register.offset, cell);
    if (register.bytes === 8) this.#places.set(page + register.offset + 4, cell);
    return cell;
  }

  /** The SMMU is complete: what registers hold now is what {@link reset} brings back. */
  poweredOn(): void {
    this.#initial = this.#all.map(({ lo, hi }) => [lo, hi]);
  }

  /** Every register to what it held at power-on, bits that are UNKNOWN after a reset included. */
  reset(): void {
    for (const [i, cell] of this.#all.entries()) {
      const [lo, hi] = this.#initial[i] ?? [0, 0];
      cell.lo = lo;
      cell.hi = hi;
    }
  }

  #alias(offset: number, target: number): void {
    const cell = this.#places.get(target);
    if (cell !== undefined && !this.#places.has(offset)) this.#places.set(offset, cell);
  }

  /** A register's storage. @throws RangeError for one that this SMMU does not place in pages 0 and 1 */
  cell(register: Register): Cell {
    const cell = this.#cells.get(register);
    if (cell === undefined) throw new RangeError(`${register.name} is not on pages 0 and 1`);
    return cell;
  }

  /** Attaches what a register does. */
  attach(register: Register, behaviour: Behaviour): Cell {
    const cell = this.cell(register);
    cell.behaviour = behaviour;
    return cell;
  }

  /** Reads 32 bits. An undefined or misaligned offset reads 0 (6.2). */
  read32(offset: number): number {
    const cell = this.#places.get(offset);
    const value = cell === undefined ? 0 : readHalf(cell, isHigh(cell, offset));
    if (this.#watch.observer !== null) this.#announce('register-read', offset, 4, 0, value, '');
    return value;
  }

  /** Reads 64 bits; a pair of 32-bit registers as the options say. Misaligned: 0. */
  read64(offset: number): bigint {
    const lo = this.#readPair(offset);
    if (this.#watch.observer !== null) this.#announce('register-read', offset, 8, this.#readHi, lo, '');
    return (BigInt(this.#readHi) << 32n) | BigInt(lo);
  }

  #readPair(offset: number): number {
    const low = this.#places.get(offset);
    const high = this.#places.get(offset + 4);
    this.#readHi = 0;
    if (offset % 8 !== 0 || this.#refusedPair(low, high)) return 0;
    const lo = low === undefined ? 0 : readHalf(low, false);
    this.#readHi = high === undefined ? 0 : readHalf(high, isHigh(high, offset + 4));
    return lo;
  }

  #refusedPair(low: Cell | undefined, high: Cell | undefined): boolean {
    return this.options.wideOverPair === 'razwi' && (low === undefined || low !== high);
  }

  /** Writes 32 bits. */
  write32(offset: number, value: number): void {
    const cell = this.#places.get(offset);
    let ignored = 'undefined offset';
    if (cell !== undefined)
      ignored = isHigh(cell, offset) ? write(cell, 0, 0, value, ALL) : write(cell, value, ALL, 0, 0);
    if (this.#watch.observer !== null) this.#announce('register-write', offset, 4, 0, value, ignored);
  }

  /** Writes 64 bits; a 64-bit register takes them at once, a pair of 32-bit registers low half first. */
  write64(offset: number, value: bigint): void {
    const lo = Number(value & 0xffffffffn);
    const hi = Number((value >> 32n) & 0xffffffffn);
    const ignored = this.#writePair(offset, lo, hi);
    if (this.#watch.observer !== null) this.#announce('register-write', offset, 8, hi, lo, ignored);
  }

  #writePair(offset: number, lo: number, hi: number): string {
    const low = this.#places.get(offset);
    const high = this.#places.get(offset + 4);
    if (offset % 8 !== 0) return 'misaligned';
    if (this.#refusedPair(low, high)) return 'two registers';
    if (low !== undefined && low === high) return write(low, lo, ALL, hi, ALL);
    const first = low === undefined ? 'undefined offset' : write(low, lo, ALL, 0, 0);
    const second = high === undefined ? 'undefined offset' : write(high, hi, ALL, 0, 0);
    return first === '' || second === '' ? '' : first;
  }

  #announce(
    kind: 'register-read' | 'register-write',
    offset: number,
    size: number,
    hi: number,
    lo: number,
    ignored: string,
  ): void {
    this.#watch.observer?.({ kind, smmu: this.#smmu, offset, size, hi, lo, ignored });
  }
}

function readHalf(cell: Cell, high: boolean): number {
  if (cell.behaviour.read !== undefined) return cell.behaviour.read() >>> 0;
  return high ? cell.hi : cell.lo;
}

/** Stores the bits of a write that are writable, selected by the access (`sel`), and let through by the guard. */
function write(cell: Cell, lo: number, selLo: number, hi: number, selHi: number): string {
  const { behaviour } = cell;
  if (cell.register.access === 'RO') return 'read-only';
  if (behaviour.write !== undefined) return behaviour.write((lo & cell.writableLo) >>> 0);
  const open = behaviour.open === undefined ? ALL : behaviour.open();
  const maskLo = cell.writableLo & selLo & open;
  const maskHi = cell.writableHi & selHi & open;
  cell.lo = ((cell.lo & ~maskLo) | (lo & maskLo)) >>> 0;
  cell.hi = ((cell.hi & ~maskHi) | (hi & maskHi)) >>> 0;
  if (open === 0) return 'guard';
  behaviour.written?.();
  return '';
}

/** Bytes of register space that are decoded: pages 0 and 1. */
export const FOOTPRINT = MIN_FOOTPRINT;
