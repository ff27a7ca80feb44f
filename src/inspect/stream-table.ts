/** The Stream table and CD tables in memory images: where each entry lies, without reading what is zero (IHI 0070 3.3). */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import { type Register, toQwords, type Words } from '../../spec/layout.ts';
import { STRTAB_BASE, STRTAB_BASE_CFG } from '../../spec/registers/queues.ts';
import { STE } from '../../spec/ste.ts';
import { InputError } from './error.ts';
import { CHUNK, type ImageMemory, wordsOf } from './memory.ts';
import { type DecodedProblem, hex } from './record.ts';

/** Register values by name. */
export type Registers = ReadonlyMap<string, bigint>;

/** Where the Stream table lies, and its shape, as STRTAB_BASE and STRTAB_BASE_CFG say. */
export interface StreamTable {
  readonly format: 'linear' | 'two-level';
  /** Address of the table, its alignment bits cleared as hardware does. */
  readonly base: bigint;
  /** STRTAB_BASE_CFG.LOG2SIZE. */
  readonly log2size: number;
  /** The smaller of LOG2SIZE and IDR1.SIDSIZE: what hardware indexes with. */
  readonly effectiveLog2size: number;
  /** STRTAB_BASE_CFG.SPLIT, of a two-level table. */
  readonly split?: number;
}

/** A register's value as its words. @throws InputError if it has more bits than the register. */
export function registerWords(register: Register, value: bigint): Words {
  if (value >> BigInt(register.bytes * 8) !== 0n)
    throw new InputError(`${register.name} = ${hex(value)} does not fit its ${register.bytes * 8} bits`);
  return Uint32Array.of(Number(value & 0xffffffffn), Number(value >> 32n)).subarray(0, register.bytes / 4);
}

function need(registers: Registers, register: Register): Words {
  const value = registers.get(register.name);
  if (value === undefined) throw new InputError(`no value of ${register.name}; the Stream table is found by it`);
  return registerWords(register, value);
}

/** SPLIT values other than these behave as the first (6.3.25). */
const SPLITS: readonly number[] = Object.values(STRTAB_BASE_CFG.fields.SPLIT.values);

/** The Stream table by its registers. @throws InputError if they are not there. */
export function streamTableOf(registers: Registers, caps: Caps | undefined): StreamTable {
  const cfg = need(registers, STRTAB_BASE_CFG);
  const address = STRTAB_BASE.address(need(registers, STRTAB_BASE), 'ADDR');
  const log2size = STRTAB_BASE_CFG.num(cfg, 'LOG2SIZE');
  const effectiveLog2size = Math.min(log2size, caps?.SIDSIZE ?? 32);
  const wanted = STRTAB_BASE_CFG.num(cfg, 'SPLIT');
  const split = SPLITS.includes(wanted) ? wanted : (SPLITS[0] ?? 0);
  const { FMT } = STRTAB_BASE_CFG.fields;
  const two = STRTAB_BASE_CFG.num(cfg, 'FMT') === FMT.values.TWO_LEVEL && caps?.ST_LEVEL !== 0;
  // Address bits that the table's own size makes zero are not looked at (6.3.24).
  const align = BigInt(two ? Math.max(6, log2size - split + 3) : log2size + 6);
  const shape = { base: (address >> align) << align, log2size, effectiveLog2size };
  return two ? { format: 'two-level', ...shape, split } : { format: 'linear', ...shape };
}

/** A structure found in a table. */
export interface Entry {
  /** StreamID or SubstreamID. */
  readonly id: number;
  readonly pa: bigint;
  readonly words: Words;
}

/** What a scan comes across: entries, and what it could not read or follow. */
export type Found = Entry | { readonly problem: DecodedProblem & { readonly sid?: number } };

/** Bytes that one scan reads at most, tables that are named more than once counted each time. */
export const MAX_SCAN = 2 ** 32;

/** Problems that one scan lists at most. */
const MAX_PROBLEMS = 1000;

/** What a scan has left to spend. */
export class Budget {
  #bytes = MAX_SCAN;
  #problems = MAX_PROBLEMS;

  /** Whether another `bytes` may be read. */
  take(bytes: number): boolean {
    this.#bytes -= bytes;
    return this.#bytes >= 0;
  }

  /** Whether another problem may be listed. */
  problem(): boolean {
    return this.#problems-- > 0;
  }
}

const isZero = (words: Uint32Array, from: number, to: number): boolean => {
  for (let i = from; i < to; i++) if (words[i] !== 0) return false;
  return true;
};

/**
 * Entries of an array, those of zeros left out unless `all`. Reads in chunks, whatever the size of the array.
 * first: id of the entry at `pa`. outside: what to say of a part that no image has.
 */
export function* scanArray(
  memory: ImageMemory,
  array: { readonly pa: bigint; readonly count: bigint; readonly bytes: number; readonly first: number },
  budget: Budget,
  all: boolean,
  outside: (first: number, last: number, pa: bigint) => Found,
): Generator<Found> {
  const { pa, count, bytes, first } = array;
  const idOf = (at: bigint): number => first + Number((at - pa) / BigInt(bytes));
  for (const part of memory.parts(pa, count * BigInt(bytes))) {
    if (!part.present) {
      if (budget.problem()) yield outside(idOf(part.pa), idOf(part.pa + part.length - 1n), part.pa);
      continue;
    }
    // An image may begin or end inside an entry: that entry is read only if it is whole.
    const whole = BigInt(bytes);
    let from = pa + ((part.pa - pa + whole - 1n) / whole) * whole;
    const to = pa + ((part.pa + part.length - pa) / whole) * whole;
    while (from < to) {
      const length = Number(to - from < BigInt(CHUNK) ? to - from : BigInt(CHUNK));
      if (!budget.take(length)) {
        if (budget.problem())
          yield {
            problem: { rule: 'DUMP-LIMIT', section: '3.3', message: `stopped after ${MAX_SCAN} bytes of tables` },
          };
        return;
      }
      const read = memory.read(from, length);
      if (read === undefined) return;
      const words = wordsOf(read);
      const step = bytes / 4;
      for (let i = 0; i + step <= words.length; i += step)
        if (all || !isZero(words, i, i + step)) {
          const at = from + BigInt(4 * i);
          yield { id: idOf(at), pa: at, words: words.slice(i, i + step) };
        }
      from += BigInt(length);
    }
  }
}

const range = (first: number, last: number): string => (first === last ? hex(first) : `${hex(first)} to ${hex(last)}`);

const outsideStes = (first: number, last: number, pa: bigint): Found => ({
  problem: {
    rule: 'DUMP-STRTAB',
    section: '3.3.1',
    message: `the STEs of StreamID ${range(first, last)} at ${hex(pa)} are in no image`,
    sid: first,
  },
});

/** STEs of a Stream table in order of StreamID; those of zeros left out unless `all`. */
export function* scanStreamTable(memory: ImageMemory, table: StreamTable, all: boolean): Generator<Found> {
  const budget = new Budget();
  const entries = 1n << BigInt(table.effectiveLog2size);
  if (table.split === undefined) {
    yield* scanArray(memory, { pa: table.base, count: entries, bytes: STE.bytes, first: 0 }, budget, all, outsideStes);
    return;
  }
  const { split } = table;
  const sids = 2 ** split;
  const count = entries >> BigInt(split);
  const l1 = { pa: table.base, count: count > 0n ? count : 1n, bytes: L1STD.bytes, first: 0 };
  const outside = (first: number, last: number, pa: bigint): Found => ({
    problem: {
      rule: 'DUMP-STRTAB',
      section: '3.3.1',
      message: `the L1STDs of StreamID ${range(first * sids, (last + 1) * sids - 1)} at ${hex(pa)} are in no image`,
      sid: first * sids,
    },
  });
  for (const found of scanArray(memory, l1, budget, false, outside)) {
    if ('problem' in found) {
      yield found;
      continue;
    }
    const span = L1STD.num(found.words, 'Span');
    if (span === 0) continue;
    const first = found.id * sids;
    if (span > split + 1) {
      const message = `StreamID ${range(first, first + sids - 1)}: L1STD.Span (bits 4:0) = ${span}, legal 0..${split + 1} (SPLIT ${split})`;
      if (budget.problem()) yield { problem: { rule: 'L1STD-SPAN', section: '5.1', message, sid: first } };
      continue;
    }
    const align = BigInt(span - 1) + 6n;
    const pa = (L1STD.address(found.words, 'L2Ptr') >> align) << align;
    const reach = Math.min(2 ** (span - 1), Number(entries));
    yield* scanArray(memory, { pa, count: BigInt(reach), bytes: STE.bytes, first }, budget, all, outsideStes);
  }
}

/** Index bits of a leaf of a two-level CD table, by S1Fmt (5.2). */
const LEAF_BITS: Readonly<Record<number, number>> = { 1: 6, 2: 10 };

/** Where the CDs of a stream lie, as its STE says. */
export interface CdTable {
  readonly base: bigint;
  /** log2 of the number of CDs: effective S1CDMax. */
  readonly log2size: number;
  /** Index bits of a leaf, of a two-level table. */
  readonly leaf?: number;
}

/** The CD table of an STE with stage 1 on. */
export function cdTableOf(ste: Words, caps: Caps | undefined): CdTable {
  const log2size = caps?.SSIDSIZE === 0 ? 0 : STE.num(ste, 'S1CDMax');
  const leaf = log2size === 0 ? undefined : LEAF_BITS[STE.num(ste, 'S1Fmt')];
  const pointer = STE.address(ste, 'S1ContextPtr');
  // Pointer bits that the table's size makes RES0 are taken as zero, one of the choices of 5.2 S1Fmt.
  const align = BigInt(leaf === undefined ? log2size + 6 : Math.max(6, log2size - leaf + 3));
  const shape = { base: (pointer >> align) << align, log2size };
  return leaf === undefined ? shape : { ...shape, leaf };
}

/**
 * CDs of a table in order of SubstreamID; those of zeros left out unless `all`.
 * Addresses are taken as physical ones: for a nested stream see `inspect`.
 */
export function* scanCdTable(
  memory: ImageMemory,
  table: CdTable,
  sid: number,
  all: boolean,
  budget: Budget,
): Generator<Found> {
  const outside =
    (what: string, scale: number) =>
    (first: number, last: number, pa: bigint): Found => ({
      problem: {
        rule: 'DUMP-CDTAB',
        section: '3.3.2',
        message: `StreamID ${hex(sid)}: the ${what} of SubstreamID ${range(first * scale, (last + 1) * scale - 1)} at ${hex(pa)} are in no image`,
        sid,
      },
    });
  if (table.leaf === undefined) {
    const array = { pa: table.base, count: 1n << BigInt(table.log2size), bytes: CD.bytes, first: 0 };
    yield* scanArray(memory, array, budget, all, outside('CDs', 1));
    return;
  }
  const leaf = 2 ** table.leaf;
  const l1 = {
    pa: table.base,
    count: 1n << BigInt(Math.max(0, table.log2size - table.leaf)),
    bytes: L1CD.bytes,
    first: 0,
  };
  for (const found of scanArray(memory, l1, budget, false, outside('L1CDs', leaf))) {
    if ('problem' in found) yield found;
    else if (L1CD.num(found.words, 'V') === 1) {
      const align = BigInt(table.leaf) + 6n;
      const pa = (L1CD.address(found.words, 'L2Ptr') >> align) << align;
      const count = BigInt(Math.min(leaf, 2 ** table.log2size));
      yield* scanArray(memory, { pa, count, bytes: CD.bytes, first: found.id * leaf }, budget, all, outside('CDs', 1));
    }
  }
}

const ABORT = toQwords(STE.encode({ V: 1, Config: 'ABORT' })).join();

/** Whether an STE says nothing but "abort": what a driver fills unused entries with. */
export const isDefaultSte = (words: Words): boolean => toQwords(words).join() === ABORT;
