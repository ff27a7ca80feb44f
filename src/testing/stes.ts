/**
 * The Stream table as hardware would find it now: through STRTAB_BASE and STRTAB_BASE_CFG, in memory. No driver state is
 * looked at, and nothing is disturbed: registers are peeked at, not read.
 */
import { L1STD } from '../../spec/l1std.ts';
import { slotValue, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { s1Enabled, s2Enabled } from '../../spec/stream-world.ts';
import type { Memory } from '../hw/memory.ts';
import type { Smmu } from '../hw/smmu.ts';

const V = STE.slot('V');
const SPAN = L1STD.slot('Span');
const STE_LOG2 = Math.log2(STE.bytes);
const L1STD_LOG2 = Math.log2(L1STD.bytes);
const LOW = 0xffffffffn;

/** Gets an STE: its words are one buffer for the whole scan, valid during the visit. */
export type SteVisitor = (sid: number, ste: Words) => void;

/** An address with its low `log2` bits cleared. */
const aligned = (address: bigint, log2: number): bigint => (address >> BigInt(log2)) << BigInt(log2);

/** Gets a table that was looked through, as address (halves) and bytes. */
export type TableVisitor = (hi: number, lo: number, bytes: number) => void;

/**
 * Calls `visit` for each STE with V=1 and a stage that is on, which the registers of `smmu` reach, in order of StreamID.
 * @param table called for each table before it is read
 */
export function forEachTranslatingSte(memory: Memory, smmu: Smmu, visit: SteVisitor, table?: TableVisitor): void {
  const { regs, caps } = smmu;
  const base = (BigInt(regs.strtabHi >>> 0) << 32n) | BigInt(regs.strtabLo >>> 0);
  const size = Math.min(regs.LOG2SIZE, caps.SIDSIZE);
  const words: Words = new Uint32Array(STE.bytes / 4);
  if (!regs.twoLevel || caps.ST_LEVEL === 0) {
    scan(memory, aligned(base, regs.LOG2SIZE + STE_LOG2), 0, 2 ** size, words, visit, table);
    return;
  }
  const { SPLIT } = regs;
  const l1 = aligned(base, Math.max(STE_LOG2, regs.LOG2SIZE - SPLIT + L1STD_LOG2));
  const l1std: Words = new Uint32Array(L1STD.bytes / 4);
  const hi = Number(l1 >> 32n);
  const lo = Number(l1 & LOW);
  const count = 2 ** Math.max(0, size - SPLIT);
  table?.(hi, lo, count * L1STD.bytes);
  for (let i = 0; i < count; i++) {
    if (!memory.load64(hi, lo + i * L1STD.bytes)) return;
    l1std[0] = memory.lo;
    l1std[1] = memory.hi;
    const span = slotValue(l1std, SPAN);
    if (span === 0 || span > SPLIT + 1) continue;
    const l2 = aligned(L1STD.address(l1std, 'L2Ptr'), STE_LOG2 + span - 1);
    scan(memory, l2, i * 2 ** SPLIT, 2 ** (span - 1), words, visit, table);
  }
}

/** Where the STE of a StreamID lies, as the registers of `smmu` say; undefined: hardware finds none. */
export function steAddress(memory: Memory, smmu: Smmu, sid: number): bigint | undefined {
  const { regs, caps } = smmu;
  const base = (BigInt(regs.strtabHi >>> 0) << 32n) | BigInt(regs.strtabLo >>> 0);
  const size = Math.min(regs.LOG2SIZE, caps.SIDSIZE);
  if (sid >= 2 ** size) return undefined;
  if (!regs.twoLevel || caps.ST_LEVEL === 0) return aligned(base, regs.LOG2SIZE + STE_LOG2) + BigInt(sid * STE.bytes);
  const { SPLIT } = regs;
  const at =
    aligned(base, Math.max(STE_LOG2, regs.LOG2SIZE - SPLIT + L1STD_LOG2)) + BigInt((sid >>> SPLIT) * L1STD.bytes);
  if (!memory.load64(Number(at >> 32n), Number(at & LOW))) return undefined;
  const l1std: Words = Uint32Array.of(memory.lo, memory.hi);
  const span = slotValue(l1std, SPAN);
  const index = sid % 2 ** SPLIT;
  if (span === 0 || span > SPLIT + 1 || index >= 2 ** (span - 1)) return undefined;
  return aligned(L1STD.address(l1std, 'L2Ptr'), STE_LOG2 + span - 1) + BigInt(index * STE.bytes);
}

/** One array of STEs. It is aligned to its size, so only the low half of addresses changes inside it. */
function scan(
  memory: Memory,
  table: bigint,
  first: number,
  count: number,
  words: Words,
  visit: SteVisitor,
  seen: TableVisitor | undefined,
): void {
  const hi = Number(table >> 32n);
  const base = Number(table & LOW);
  seen?.(hi, base, count * STE.bytes);
  for (let i = 0; i < count; i++) {
    const lo = base + i * STE.bytes;
    if (!memory.load64(hi, lo)) return;
    words[0] = memory.lo;
    words[1] = memory.hi;
    if (slotValue(words, V) === 0 || !(s1Enabled(words) || s2Enabled(words))) continue;
    for (let word = 2; word < words.length; word += 2) {
      if (!memory.load64(hi, lo + 4 * word)) return;
      words[word] = memory.lo;
      words[word + 1] = memory.hi;
    }
    visit(first + i, words);
  }
}
