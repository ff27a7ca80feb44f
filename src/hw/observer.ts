/**
 * What hardware announces that it does. A block holds one nullable observer and tests it once for each act it
 * announces; without an observer nothing is built.
 *
 * Records (`words`, `transaction`) are the hardware's own scratch: valid during the call only. Copy what is to be kept.
 */
import type { Words } from '../../spec/layout.ts';
import type { TlbInvalidation, Transaction } from './transaction.ts';

/** A register access by a CPU. `ignored`: why a write had no effect, '' if it had. */
export interface RegisterAccess {
  readonly kind: 'register-read' | 'register-write';
  readonly smmu: string;
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  readonly hi: number;
  readonly lo: number;
  readonly ignored: string;
}

/** A command left a queue, or made it stop (`error` is the CERROR code, 0 for none). */
export interface CommandAct {
  readonly kind: 'command' | 'command-error';
  readonly smmu: string;
  /** 'cmdq', 'ecmdq3', 'vcmdq0.1' ... */
  readonly queue: string;
  /** Index and wrap bit as in CONS. */
  readonly index: number;
  /** As executed. */
  readonly words: Words;
  /** As the queue held it, where hardware may have replaced operands (a VCMDQ of a VM). */
  readonly fetched?: Words;
  readonly error: number;
  /** The legality rule that a CERROR_ILL broke, else ''. */
  readonly rule: string;
}

/** An invalidation took effect on the TLB. */
export interface TlbInvalidated {
  readonly kind: 'tlb-invalidated';
  readonly smmu: string;
  readonly invalidation: TlbInvalidation;
}

/** Cached configuration was dropped. `lastSid` is the end of the range, included. */
export interface ConfigInvalidated {
  readonly kind: 'config-invalidated';
  readonly smmu: string;
  readonly what: 'STE' | 'CD' | 'ALL' | 'VMS';
  readonly firstSid: number;
  readonly lastSid: number;
  /** SubstreamID of a single CD, else -1. */
  readonly SubstreamID: number;
  readonly leaf: boolean;
}

/** An event or PRI record was written, or why it was not. */
export interface RecordAct {
  readonly kind: 'event' | 'pri';
  readonly smmu: string;
  readonly words: Words;
  readonly result: 'written' | 'full' | 'disabled' | 'aborted' | 'overflow' | 'pending' | 'discarded' | 'merged';
}

/** Bits of GERROR that became active, or were acknowledged. */
export interface GlobalErrorAct {
  readonly kind: 'gerror' | 'gerror-acknowledged';
  readonly smmu: string;
  readonly bits: number;
}

/** Where an interrupt came from. */
export type InterruptSource = 'eventq' | 'priq' | 'gerror' | 'cmdsync';

/** An interrupt left: an edge on the wire, or an MSI write (`aborted`: nothing answered at the address). */
export interface InterruptAct {
  readonly kind: 'interrupt';
  readonly smmu: string;
  readonly source: InterruptSource | 'cmdqv';
  readonly how: 'wired' | 'msi' | 'event';
  readonly addrHi: number;
  readonly addrLo: number;
  readonly data: number;
  readonly aborted: boolean;
}

/** A client transaction went through translation. */
export interface TranslationAct {
  readonly kind: 'translation';
  readonly smmu: string;
  readonly transaction: Transaction;
}

/** A stalled transaction's life. */
export interface StallAct {
  readonly kind: 'stalled' | 'retried' | 'terminated';
  readonly smmu: string;
  readonly StreamID: number;
  readonly STAG: number;
}

/** A handshake field took effect: CR0, IRQ_CTRL or GBPA. */
export interface UpdateAct {
  readonly kind: 'update';
  readonly smmu: string;
  readonly register: 'CR0' | 'IRQ_CTRL' | 'GBPA' | 'GMPAM' | 'GBPMPAM';
  readonly before: number;
  readonly after: number;
}

/** The SMMU was reset (3.11); `caches`: whether TLB and configuration caches kept what they held. */
export interface ResetAct {
  readonly kind: 'reset';
  readonly smmu: string;
  readonly caches: 'kept' | 'lost';
}

/** A cache entry came or went without being asked: prefetch, eviction. */
export interface SpeculativeAct {
  readonly kind: 'prefetch' | 'evict';
  readonly smmu: string;
  readonly what: string;
}

/** An endpoint accessed memory with an address that came out of translation, or was refused there. */
export interface DmaAct {
  readonly kind: 'dma';
  readonly endpoint: string;
  readonly isWrite: boolean;
  readonly paHi: number;
  readonly paLo: number;
  readonly length: number;
  readonly aborted: boolean;
}

/** An ATS or PRI message between endpoint and SMMU. */
export interface AtsAct {
  readonly kind: 'ats';
  readonly endpoint: string;
  readonly message:
    | 'invalidate'
    | 'invalidate-timeout'
    | 'translation-request'
    | 'page-request'
    | 'page-response'
    | 'enabled'
    | 'disabled';
  /** -1 for the last two: software turned ATS on or off in configuration space, for all streams. */
  readonly StreamID: number;
  /** -1 without a PASID. */
  readonly SubstreamID: number;
}

/** An access to a Tegra241 CMDQV; the offset is from its own base. `ignored` as in {@link RegisterAccess}. */
export interface CmdqvAccess extends Omit<RegisterAccess, 'kind'> {
  readonly kind: 'cmdqv-read' | 'cmdqv-write';
}

/** A VINTF was enabled or disabled; VMID and HYP_OWN as in force. */
export interface VintfAct {
  readonly kind: 'vintf';
  readonly smmu: string;
  readonly vintf: number;
  readonly enabled: boolean;
  readonly VMID: number;
  readonly HYP_OWN: boolean;
}

/** A VCMDQ was mapped to a VINTF, began to consume, and so on; `vintf` is -1 if it is mapped to none. */
export interface VcmdqAct {
  readonly kind: 'vcmdq';
  readonly smmu: string;
  readonly vcmdq: number;
  readonly vintf: number;
  readonly lvcmdq: number;
  readonly act: 'mapped' | 'unmapped' | 'enabled' | 'disabled';
}

/** Software did what a CMDQV does not allow. `rule`: CMDQV-n where the rule has a number, else CMDQV-name. */
export interface CmdqvViolation {
  readonly kind: 'cmdqv-violation';
  readonly smmu: string;
  readonly rule: string;
  readonly what: string;
  /** The register is one that a VM may have before it, so it may be the VM's doing. */
  readonly maybeVm: boolean;
}

/** An access met a slot that no VCMDQ is mapped to. Allowed; on record. */
export interface CmdqvUnmapped {
  readonly kind: 'cmdqv-unmapped';
  readonly smmu: string;
  readonly what: string;
}

/** Everything that hardware announces. Later blocks add their own kinds. */
export type Announcement =
  | RegisterAccess
  | CommandAct
  | TlbInvalidated
  | ConfigInvalidated
  | RecordAct
  | GlobalErrorAct
  | InterruptAct
  | TranslationAct
  | StallAct
  | UpdateAct
  | ResetAct
  | SpeculativeAct
  | DmaAct
  | AtsAct
  | CmdqvAccess
  | VintfAct
  | VcmdqAct
  | CmdqvViolation
  | CmdqvUnmapped;

/** Listens to a machine. Must not call back into the hardware. */
export type Observer = (act: Announcement) => void;

/** The place of the observer that all blocks of one machine share. */
export interface Watch {
  observer: Observer | null;
  /** Told of each store that begins to wait in a CPU's store buffer: its address, halves. No object is made for it. */
  issued?: ((hi: number, lo: number) => void) | null;
  /**
   * Asked while a store becomes visible: whether an earlier one of the same CPU, to the `bytes` bytes at an address, is
   * still on its way. Absent: stores are visible at once.
   */
  overtakes?: (hi: number, lo: number, bytes: number) => boolean;
}
