/**
 * The translation behind GATOS and VATOS (IHI 0070 9.1): the same stages as any transaction's, without caches, without
 * the overrides of the STE, and one stage alone if that is what was asked.
 */
import type { Caps } from '../../spec/caps.ts';
import { ATOS_FAULTCODE, GATOS_ADDR } from '../../spec/registers.ts';
import { allocOf, isDevice, pack, RA, shOf, TRANSIENT, throughStage2, typeOf, WA } from './attributes.ts';
import type { SmmuOptions } from './config.ts';
import { ConfigCache, NO_CONFIG_CACHE } from './config-cache.ts';
import { type CdEntry, ContextDescriptors } from './context-descriptor.ts';
import {
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  F_CD_FETCH,
  F_STREAM_DISABLED,
  F_WALK_EABT,
  isTranslationFault,
} from './faults.ts';
import type { Memory } from './memory.ts';
import { R, W, X } from './permissions.ts';
import { Stage1Walker } from './stage1-walker.ts';
import { Stage2Walker } from './stage2-walker.ts';
import { Stages } from './stages.ts';
import { NO_STAGE1, REFUSED, type SteEntry, StreamTable } from './stream-table.ts';
import { NO_TLB, Tlb } from './tlb.ts';
import { FaultClass, type Transaction, type TranslationRegs } from './transaction.ts';
import { DEFAULT_CHOICES } from './translation-options.ts';

/** What goes into PAR: a fault, or address, size, a MAIR byte and shareability. */
export type AtosAnswer =
  | { readonly code: number; readonly reason?: 'NONE' | 'S2_CD' | 'S2_TT' | 'S2_IN'; readonly address?: bigint }
  | { readonly address: bigint; readonly sizeLog2: number; readonly attributes: number; readonly SH: number };

const TYPE = GATOS_ADDR.fields.TYPE.values;
const REASONS = { [FaultClass.CD]: 'S2_CD', [FaultClass.TT]: 'S2_TT', [FaultClass.IN]: 'S2_IN' } as const;
/** Sizes above tell nothing: no table limits the translation. */
const MAX_SIZE_LOG2 = 52;
const PAGE_LOG2 = 12;

const wide = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** One half of a MAIR byte for Normal memory: 01 NC, WT and WB with their hints (Arm ARM, MAIR_EL1). */
function mairNibble(cacheability: number, alloc: number): number {
  if (cacheability === 1) return 0b0100;
  const hints = ((alloc & RA) !== 0 ? 2 : 0) | ((alloc & WA) !== 0 ? 1 : 0);
  const writeBack = cacheability === 3;
  const transient = (alloc & TRANSIENT) !== 0;
  return (transient ? (writeBack ? 0b0100 : 0b0000) : writeBack ? 0b1100 : 0b1000) | hints;
}

/** The MAIR byte of packed attributes. */
export function mairByte(packed: number): number {
  const type = typeOf(packed);
  if (isDevice(type)) return type << 2;
  const alloc = allocOf(packed);
  return (mairNibble(type >>> 2, alloc) << 4) | mairNibble(type & 3, alloc);
}

/** See the module comment. */
export class AtosTranslation {
  readonly #streams: StreamTable;
  readonly #cds: ContextDescriptors;
  readonly #stages: Stages;
  readonly #stage2: Stage2Walker;

  constructor(memory: Memory, caps: Caps, regs: TranslationRegs, options: SmmuOptions) {
    const tlb = new Tlb(NO_TLB, caps);
    const cache = new ConfigCache(NO_CONFIG_CACHE);
    const choices = { ...DEFAULT_CHOICES, ...options.choices };
    this.#stage2 = new Stage2Walker(memory, tlb, caps);
    this.#stages = new Stages(caps, tlb, new Stage1Walker(memory, tlb, this.#stage2), this.#stage2, false);
    this.#streams = new StreamTable(memory, caps, regs, cache, tlb, choices);
    this.#cds = new ContextDescriptors(memory, caps, cache, this.#stage2, tlb, choices);
  }

  /**
   * @param type GATOS_ADDR.TYPE, valid for this SMMU
   * @param vmid VATOS_SEL.VMID, or -1 for GATOS
   * @param inhibit HTTUI: dirty state is not updated
   */
  translate(t: Transaction, type: number, vmid: number, inhibit: boolean): AtosAnswer {
    t.reset();
    const stream = this.#streams.find(t);
    if (stream === null) return { code: t.event };
    const { ste } = stream;
    if (ste.rule !== '') return { code: C_BAD_STE };
    if (vmid >= 0 && ste.VMID !== vmid) return { code: C_BAD_STE };
    const wants1 = type !== TYPE.STAGE2;
    const wants2 = type !== TYPE.STAGE1;
    if ((wants1 && !ste.s1) || (wants2 && !ste.s2)) return { code: ATOS_FAULTCODE.INV_STAGE };
    t.eventPnU = t.PnU;
    t.eventInD = t.InD && !t.isWrite;
    const index = wants1 ? this.#substream(t, ste) : NO_STAGE1;
    if (index === REFUSED) return { code: t.event };
    const cd = index === NO_STAGE1 ? null : this.#cds.find(t, stream, index);
    if (cd === null && index !== NO_STAGE1) return this.#fault(t, type);
    return this.#address(t, type, ste, cd, inhibit);
  }

  #substream(t: Transaction, ste: SteEntry): number {
    if (!t.SSV) {
      if (ste.plain === REFUSED) t.event = F_STREAM_DISABLED;
      return ste.plain;
    }
    if (ste.S1CDMax === 0 || t.SubstreamID >= 2 ** ste.S1CDMax) {
      t.event = C_BAD_SUBSTREAMID;
      return REFUSED;
    }
    // With S1DSS = 10, CD 0 belongs to transactions without a SubstreamID.
    if (t.SubstreamID !== 0 || ste.plain !== 0) return t.SubstreamID;
    t.event = F_STREAM_DISABLED;
    return REFUSED;
  }

  #address(t: Transaction, type: number, ste: SteEntry, cd: CdEntry | null, inhibit: boolean): AtosAnswer {
    const stages = this.#stages;
    const need = t.isWrite ? W : t.eventInD ? X : R;
    const update = inhibit ? 0 : need & W;
    if (cd === null) {
      // Stage 1 takes no part although it is on: it gives the input back (9.1.3).
      if (type === TYPE.STAGE1)
        return {
          address: wide(t.addrHi, t.addrLo),
          sizeLog2: PAGE_LOG2,
          ...described(pack(t.inMemAttr, t.inSH, RA | WA)),
        };
      if (!stages.withoutStage1(t, ste, need, update) || ste.stage2 === null) return this.#fault(t, type);
      const { memAttr, SH } = this.#stage2;
      const packed = throughStage2(pack(t.inMemAttr, t.inSH, RA | WA), ste.stage2.types, memAttr, SH);
      return { address: wide(stages.paHi, stages.paLo), sizeLog2: limited(stages.sizeLog2), ...described(packed) };
    }
    // Nothing wanted of stage 2: what stage 1 gives is the answer.
    const wanted = type === TYPE.STAGE1 ? 0 : R | W | X;
    if (!stages.withStage1(t, ste, cd, need, update, wanted)) return this.#fault(t, type);
    const both = type === TYPE.BOTH;
    const address = both ? wide(stages.paHi, stages.paLo) : wide(stages.ipaHi, stages.ipaLo);
    return { address, sizeLog2: limited(stages.sizeLog2), ...described(stages.attributes) };
  }

  /** REASON and FADDR of a fault (9.1.4). */
  #fault(t: Transaction, type: number): AtosAnswer {
    const code = t.event;
    if (!t.S2) return { code };
    if (type === TYPE.STAGE1) return { code: t.CLASS === FaultClass.CD ? F_CD_FETCH : F_WALK_EABT };
    if (type === TYPE.STAGE2) return { code, reason: 'S2_IN' };
    const address = isTranslationFault(code) ? wide(t.ipaHi, t.ipaLo) : 0n;
    return { code, reason: REASONS[t.CLASS], address };
  }
}

const limited = (sizeLog2: number): number => (sizeLog2 > MAX_SIZE_LOG2 ? PAGE_LOG2 : sizeLog2);

const described = (packed: number): { attributes: number; SH: number } => ({
  attributes: mairByte(packed),
  SH: shOf(packed),
});
