/** Who in an SMMU, or in the memory it reads, names a VMID. For tests, sanitizer and inspection. */
import type { Caps } from '../../spec/caps.ts';
import { COMMAND_BYTES, commandOf } from '../../spec/commands.ts';
import { L1STD } from '../../spec/l1std.ts';
import { slotValue, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { vmidUsed } from '../../spec/stream-world.ts';
import { fetchEntry } from './command-queue.ts';
import type { Memory } from './memory.ts';
import type { Ring } from './ring.ts';
import type { TranslationRegs } from './transaction.ts';
import type { VmidHolder } from './vmid.ts';

const V = STE.slot('V');
const S2VMID = STE.slot('S2VMID');
const SPAN = L1STD.slot('Span');

/** Visits [StreamID of the first STE, address, number of STEs] of every piece of the Stream table in force. */
function pieces(memory: Memory, caps: Caps, regs: TranslationRegs): [sid: number, address: bigint, count: number][] {
  const size = Math.min(regs.LOG2SIZE, caps.SIDSIZE);
  const base = (BigInt(regs.strtabHi >>> 0) << 32n) | BigInt(regs.strtabLo >>> 0);
  const aligned = (address: bigint, log2: number): bigint => (address >> BigInt(log2)) << BigInt(log2);
  const steLog2 = Math.log2(STE.bytes);
  if (!regs.twoLevel || caps.ST_LEVEL === 0) return [[0, aligned(base, regs.LOG2SIZE + steLog2), 2 ** size]];
  const out: [number, bigint, number][] = [];
  const l1 = aligned(base, Math.max(steLog2, regs.LOG2SIZE - regs.SPLIT + Math.log2(L1STD.bytes)));
  // Aligned to its size, the table does not cross a 4 GiB boundary.
  const hi = Number(l1 >> 32n);
  const lo = Number(l1 & 0xffffffffn);
  const words: Words = new Uint32Array(L1STD.bytes / 4);
  for (let i = 0; i < 2 ** Math.max(0, size - regs.SPLIT); i++) {
    if (!memory.load64(hi, lo + i * L1STD.bytes)) break;
    words[0] = memory.lo;
    words[1] = memory.hi;
    const span = slotValue(words, SPAN);
    if (span === 0 || span > regs.SPLIT + 1) continue;
    out.push([i * 2 ** regs.SPLIT, aligned(L1STD.address(words, 'L2Ptr'), steLog2 + span - 1), 2 ** (span - 1)]);
  }
  return out;
}

/** STEs in memory, as far as the Stream table registers reach, that are valid and tag translations with a VMID. */
export function stesNaming(VMID: number, memory: Memory, caps: Caps, regs: TranslationRegs): VmidHolder[] {
  const out: VmidHolder[] = [];
  // The words that say whether the VMID counts, and the VMID.
  const words: Words = new Uint32Array(STE.bytes / 4);
  const used = S2VMID.word - (S2VMID.word % 2) + 2;
  // In units of an STE a 56-bit address is exact as a double.
  const perHalf = 2 ** 32 / STE.bytes;
  for (const [first, address, count] of pieces(memory, caps, regs)) {
    const base = Number(address / BigInt(STE.bytes));
    for (let i = 0; i < count; i++) {
      const hi = Math.floor((base + i) / perHalf);
      const lo = ((base + i) % perHalf) * STE.bytes;
      if (!memory.load64(hi, lo)) break;
      words[0] = memory.lo;
      words[1] = memory.hi;
      if (slotValue(words, V) === 0) continue;
      for (let word = 2; word < used && memory.load64(hi, lo + 4 * word); word += 2) {
        words[word] = memory.lo;
        words[word + 1] = memory.hi;
      }
      if (slotValue(words, S2VMID) === VMID && vmidUsed(words, caps))
        out.push({ kind: 'ste', what: `0x${(first + i).toString(16)}` });
    }
  }
  return out;
}

/** The command's name, if it names a VMID. */
function naming(VMID: number, words: Words): string | undefined {
  const command = commandOf(words);
  if (command === undefined || !Object.hasOwn(command.layout.fields, 'VMID')) return undefined;
  return command.layout.num(words, 'VMID' as never) === VMID ? command.name : undefined;
}

/** Commands of a queue that name a VMID: between CONS and PROD, or consumed and not yet done. */
export function commandsNaming(
  VMID: number,
  memory: Memory,
  { name, ring, pending }: { readonly name: string; readonly ring: Ring; readonly pending: readonly Words[] },
): VmidHolder[] {
  const out: VmidHolder[] = [];
  const words: Words = new Uint32Array(COMMAND_BYTES / 4);
  const note = (command: string | undefined, where: string): void => {
    if (command !== undefined) out.push({ kind: 'command', what: `${name} ${where} ${command}` });
  };
  for (const waiting of pending) note(naming(VMID, waiting), 'pending');
  if (!ring.consistent) return out;
  for (let index = ring.cons; index !== ring.prod; index = ring.next(index)) {
    if (!fetchEntry(memory, ring, index, words)) break;
    note(naming(VMID, words), `${index}`);
  }
  return out;
}
