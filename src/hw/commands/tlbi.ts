/** TLB invalidation (IHI 0070 4.4). Decoded here; what it hits is the TLB's business. */
import { CMD_TLBI_NH_VA, CMD_TLBI_S2_IPA, COMMANDS, opcodeOf } from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import { effectiveScale, effectiveTtl } from '../../../spec/legality/command.ts';
import type { TlbInvalidation } from '../transaction.ts';
import type { Execute } from './context.ts';

const VMID = CMD_TLBI_NH_VA.slot('VMID');
const ASID = CMD_TLBI_NH_VA.slot('ASID');
const LEAF = CMD_TLBI_NH_VA.slot('Leaf');
const TTL = CMD_TLBI_NH_VA.slot('TTL');
const TG = CMD_TLBI_NH_VA.slot('TG');
const NUM = CMD_TLBI_NH_VA.slot('NUM');
const SCALE = CMD_TLBI_NH_VA.slot('SCALE');
const VA = CMD_TLBI_NH_VA.mask(['Address']);
const IPA = CMD_TLBI_S2_IPA.mask(['Address']);

const has = (field: string): ReadonlySet<number> =>
  new Set(
    Object.values(COMMANDS)
      .filter((layout) => Object.hasOwn(layout.fields, field))
      .map((layout) => layout.opcode),
  );

/** Opcodes of commands that have these fields; in others the bits are reserved. */
const WITH_VMID = has('VMID');
const WITH_ASID = has('ASID');

const read = (words: Words, slot: { word: number; shift: number; mask: number }): number =>
  (((words[slot.word] ?? 0) >>> slot.shift) & slot.mask) >>> 0;

/** One object for all commands; the TLB reads it and keeps nothing. */
const scratch: TlbInvalidation = {
  opcode: 0,
  VMID: 0,
  ASID: 0,
  addrHi: 0,
  addrLo: 0,
  Leaf: false,
  TTL: 0,
  TG: 0,
  NUM: 0,
  SCALE: 0,
  broadcast: false,
};

/** Every CMD_TLBI_*: all have their fields at the same places, as far as they have them. */
export const tlbi: Execute = (words, { caches, caps }) => {
  const inv = scratch;
  inv.opcode = opcodeOf(words);
  inv.VMID = caps.S2P && WITH_VMID.has(inv.opcode) ? read(words, VMID) : 0;
  inv.ASID = WITH_ASID.has(inv.opcode) ? read(words, ASID) : 0;
  const mask = inv.opcode === CMD_TLBI_S2_IPA.opcode ? IPA : VA;
  inv.addrLo = ((words[2] ?? 0) & (mask[2] ?? 0)) >>> 0;
  inv.addrHi = ((words[3] ?? 0) & (mask[3] ?? 0)) >>> 0;
  inv.Leaf = read(words, LEAF) === 1;
  inv.TG = caps.RIL ? read(words, TG) : 0;
  const ranged = inv.TG !== 0;
  inv.TTL = ranged ? effectiveTtl(read(words, TTL), inv.TG, caps) : 0;
  inv.NUM = ranged ? read(words, NUM) : 0;
  inv.SCALE = ranged ? effectiveScale(read(words, SCALE), caps) : 0;
  // An operand with bits that this SMMU's tags do not have hits nothing (4.4).
  if (inv.VMID >= 2 ** caps.vmidBits || inv.ASID >= 2 ** caps.asidBits) return 0;
  caches.tlb(inv);
  return 0;
};
