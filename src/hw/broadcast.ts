/** Broadcast TLB maintenance: a CPU's TLBI instruction reaches every SMMU that takes part (IHI 0070 3.17). */
import type { Caps } from '../../spec/caps.ts';
import * as commands from '../../spec/commands.ts';
import type { TlbInvalidation, TranslationRegs } from './transaction.ts';

/** What TLBI does on a CPU, by the instruction's name, and the command that does the same (4.4). */
const OPERATIONS = {
  VMALLE1: { opcode: commands.CMD_TLBI_NH_ALL.opcode, Leaf: false },
  ASIDE1: { opcode: commands.CMD_TLBI_NH_ASID.opcode, Leaf: false },
  VAE1: { opcode: commands.CMD_TLBI_NH_VA.opcode, Leaf: false },
  VALE1: { opcode: commands.CMD_TLBI_NH_VA.opcode, Leaf: true },
  VAAE1: { opcode: commands.CMD_TLBI_NH_VAA.opcode, Leaf: false },
  VAALE1: { opcode: commands.CMD_TLBI_NH_VAA.opcode, Leaf: true },
  VMALLS12E1: { opcode: commands.CMD_TLBI_S12_VMALL.opcode, Leaf: false },
  IPAS2E1: { opcode: commands.CMD_TLBI_S2_IPA.opcode, Leaf: false },
  IPAS2LE1: { opcode: commands.CMD_TLBI_S2_IPA.opcode, Leaf: true },
  ALLE1: { opcode: commands.CMD_TLBI_NSNH_ALL.opcode, Leaf: false },
  ALLE2: { opcode: commands.CMD_TLBI_EL2_ALL.opcode, Leaf: false },
  VAE2: { opcode: commands.CMD_TLBI_EL2_VA.opcode, Leaf: false },
  VALE2: { opcode: commands.CMD_TLBI_EL2_VA.opcode, Leaf: true },
} as const;

/** A TLBI ...IS instruction. Under HCR_EL2.E2H the host's EL1 instructions act on EL2&0: `regime` 'EL2-E2H'. */
export interface BroadcastTlbi {
  readonly op: keyof typeof OPERATIONS;
  /** Default: EL1 for the ...E1 operations, EL2 for the ...E2 ones. */
  readonly regime?: 'EL1' | 'EL2' | 'EL2-E2H';
  /** 8 or 16 bits. */
  readonly VMID?: number;
  readonly ASID?: number;
  /** Virtual or intermediate address. */
  readonly address?: bigint;
  /** A range, TLBI R...: granule (1 4K, 2 16K, 3 64K), (NUM + 1) * 2^(5 * SCALE + 1) granules, level (TTL, 0 any). */
  readonly range?: { readonly TG: number; readonly NUM: number; readonly SCALE: number; readonly TTL: number };
}

/** What an EL1 operation is called in the EL2&0 regime (4.4). */
const E2H_OPCODES: ReadonlyMap<number, number> = new Map([
  [commands.CMD_TLBI_NH_ALL.opcode, commands.CMD_TLBI_EL2_ALL.opcode],
  [commands.CMD_TLBI_NH_ASID.opcode, commands.CMD_TLBI_EL2_ASID.opcode],
  [commands.CMD_TLBI_NH_VA.opcode, commands.CMD_TLBI_EL2_VA.opcode],
  [commands.CMD_TLBI_NH_VAA.opcode, commands.CMD_TLBI_EL2_VAA.opcode],
]);

const STAGE2_OPCODES: ReadonlySet<number> = new Set([
  commands.CMD_TLBI_S12_VMALL.opcode,
  commands.CMD_TLBI_S2_IPA.opcode,
]);

/** An SMMU as a broadcast reaches it. */
export interface BroadcastTarget {
  readonly caps: Caps;
  readonly regs: Pick<TranslationRegs, 'PTM' | 'VMW' | 'E2H'>;
  readonly caches: { tlb(invalidation: TlbInvalidation, E2H?: boolean): void };
}

/**
 * Brings a broadcast to one SMMU. It is done when this returns; a CPU's DSB waits for no more. An SMMU without
 * IDR0.BTM, or with CR2.PTM, takes no part. Numbers wider than the SMMU's match nothing (3.17.4); without stage 2 only
 * VMID 0 matches (3.17).
 */
export function receiveBroadcast({ caps, regs, caches }: BroadcastTarget, tlbi: BroadcastTlbi): void {
  const { op, VMID = 0, ASID = 0, address = 0n, range } = tlbi;
  if (!caps.BTM || regs.PTM) return;
  const { opcode, Leaf } = OPERATIONS[op];
  const regime = tlbi.regime ?? (op.endsWith('E2') ? 'EL2' : 'EL1');
  const el2 = regime !== 'EL1';
  if (el2 && !caps.Hyp) return;
  if (STAGE2_OPCODES.has(opcode) && !caps.S2P) return;
  if (ASID >= 2 ** caps.asidBits || VMID >= 2 ** caps.vmidBits || (!caps.S2P && VMID !== 0)) return;
  const { TG, NUM, SCALE, TTL } = range ?? { TG: 0, NUM: 0, SCALE: 0, TTL: 0 };
  // An instruction counts in units of two granules times powers of 32, a command in granules times powers of two.
  const ranged = TG === 0 ? { TG, NUM: 0, SCALE: 0, TTL: 0 } : { TG, NUM, SCALE: 5 * SCALE + 1, TTL };
  const addrHi = Number((address >> 32n) & 0xffffffffn);
  const addrLo = Number(address & 0xfffff000n);
  const target = el2 ? (E2H_OPCODES.get(opcode) ?? opcode) : opcode;
  caches.tlb({ opcode: target, VMID, ASID, addrHi, addrLo, Leaf, ...ranged, broadcast: true }, regime === 'EL2-E2H');
}

/** Refuses what no TLBI instruction can say. @throws RangeError */
export function checkBroadcast({ VMID = 0, ASID = 0, address = 0n, range }: BroadcastTlbi): void {
  const fits = (name: string, value: number, bits: number): void => {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits)
      throw new RangeError(`TLBI ${name} = ${value} does not fit ${bits} bits`);
  };
  fits('VMID', VMID, 16);
  fits('ASID', ASID, 16);
  if (address < 0n || address >> 64n !== 0n) throw new RangeError(`TLBI address ${address} does not fit 64 bits`);
  if (range === undefined) return;
  fits('TG', range.TG, 2);
  fits('NUM', range.NUM, 5);
  fits('SCALE', range.SCALE, 2);
  fits('TTL', range.TTL, 2);
}
