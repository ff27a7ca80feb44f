/** What commands act on. */
import type { Caps } from '../../../spec/caps.ts';
import type { Words } from '../../../spec/layout.ts';
import type { SmmuOptions } from '../config.ts';
import type { TlbInvalidation, TranslationRegs } from '../transaction.ts';

/** Invalidation of what translation caches. StreamIDs and SubstreamIDs are numbers of up to 32 and 20 bits. */
export interface CacheMaintenance {
  /** @param E2H which kind of EL2 entries; by default what CR2.E2H says */
  tlb(invalidation: TlbInvalidation, E2H?: boolean): void;
  /** The STE of a stream, all CDs fetched through it and, unless `leaf`, the L1STD used to reach it. */
  ste(StreamID: number, leaf: boolean): void;
  /** The same, L1STDs included, for the aligned block of 2^(range + 1) StreamIDs that holds this one. */
  steRange(StreamID: number, range: number): void;
  allConfig(): void;
  cd(StreamID: number, SubstreamID: number, leaf: boolean): void;
  allCds(StreamID: number): void;
  vms(VMID: number): void;
  /** Fetches a stream's configuration, and the translation of an address unless it is null. No trace but in caches. */
  prefetch(StreamID: number, SubstreamID: number, address: { hi: number; lo: number } | null): void;
}

/** An ATS Invalidate, as CMD_ATC_INV sends it. */
export interface AtcInvalidation {
  readonly StreamID: number;
  /** -1 without a PASID. */
  readonly SubstreamID: number;
  readonly global: boolean;
  readonly addrHi: number;
  readonly addrLo: number;
  /** log2 of the span in bytes: 12 + Size; 64 is everything. */
  readonly spanLog2: number;
}

/** How an endpoint answered an ATS Invalidate. */
export type AtcAnswer = 'done' | 'unsupported' | 'timeout';

/** The endpoints behind an SMMU. */
export interface EndpointPort {
  atcInvalidate(invalidation: AtcInvalidation): AtcAnswer;
  /** @param SubstreamID -1 without a PASID */
  pageResponse(StreamID: number, SubstreamID: number, PRGIndex: number, ResponseCode: number): void;
}

/** Stalled transactions, as commands reach them. */
export interface StallControl {
  resume(StreamID: number, STAG: number, action: 'retry' | 'abort' | 'razwi'): void;
  terminateStream(StreamID: number): void;
}

/** Signals of a CMD_SYNC. */
export interface SyncSignals {
  sync(addrHi: number, addrLo: number, data: number): void;
  wakeUp(): void;
}

/** Everything that commands act on. */
export interface CommandTarget {
  readonly caps: Caps;
  readonly options: SmmuOptions;
  readonly regs: TranslationRegs;
  readonly caches: CacheMaintenance;
  readonly endpoints: EndpointPort;
  readonly stalls: StallControl;
  readonly signals: SyncSignals;
  /** Takes an invalidation to do later; false: it has to be done now. */
  defer(words: Words, stream: CommandStream): boolean;
  /** Finishes everything that a CMD_SYNC waits for: commands of this queue and events of earlier transactions. */
  settle(stream: CommandStream): void;
}

/** The queue that commands come from: what its next CMD_SYNC has to know. */
export interface CommandStream {
  /** 'cmdq', 'ecmdq3' ... */
  readonly name: string;
  /** A CMD_ATC_INV since the last CMD_SYNC timed out. */
  atcTimeout: boolean;
  /** Invalidations consumed and not yet done. Empty unless the schedule delays them. */
  readonly pending: Words[];
}

/** Code in CMDQ_CONS.ERR; 0: the command was consumed. */
export type CommandError = number;

/** What one command does. Its words are legal for this SMMU. */
export type Execute = (words: Words, target: CommandTarget, stream: CommandStream) => CommandError;
