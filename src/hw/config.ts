/**
 * What an SMMU is: its ID registers and the choices that the architecture leaves open. Plain data; outside input goes
 * through `parseSmmuConfig` (config-schema.ts).
 */
import { AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IDR6, IIDR } from '../../spec/id-registers.ts';
import type { Encoding, Fields, Register } from '../../spec/layout.ts';
import { MPAMIDR } from '../../spec/registers.ts';
import { type ConfigCacheOptions, DEFAULT_CONFIG_CACHE } from './config-cache.ts';
import { DEFAULT_TLB, type TlbOptions } from './tlb.ts';
import type { TranslationChoices } from './translation-options.ts';

/** ID registers by name: what software reads, and what `when` conditions of the tables are answered from. */
export interface IdRegisters {
  readonly IDR0: number;
  readonly IDR1: number;
  readonly IDR2: number;
  readonly IDR3: number;
  readonly IDR4: number;
  readonly IDR5: number;
  readonly IDR6: number;
  readonly IIDR: number;
  readonly AIDR: number;
  /** With IDR3.MPAM only. */
  readonly MPAMIDR: number;
}

/** The tables of the ID registers. */
export const ID_REGISTERS = { IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IDR6, IIDR, AIDR, MPAMIDR } as const;

/**
 * Choices that are CONSTRAINED or IMPLEMENTATION DEFINED. The first value of each list in docs/impdef.md is the
 * default; what is not here is fixed and listed there too.
 */
export interface SmmuOptions {
  /** Writes to a guarded register while its guard is closed, before v3.2 (6.3.21 to 6.3.29). From v3.2: ignored. */
  readonly guardedWrites: 'ignored' | 'taken';
  /** A field of CR0 or IRQ_CTRL written again before its update completed (6.3.9): keep the first, or abandon. */
  readonly handshakeRewrite: 'first' | 'cease-if-reverted';
  /** A 64-bit access across two 32-bit registers (6.2). */
  readonly wideOverPair: 'both' | 'razwi';
  /** EVENTQ and PRIQ indices at their page 0 offsets (6.2.1). */
  readonly page0QueueAlias: 'alias' | 'razwi';
  /** Undefined offsets of page 1 (6.2). */
  readonly page1Undefined: 'res0' | 'alias';
  /** What registers with an UNKNOWN reset value read, as 32-bit halves; writable bits only. */
  readonly unknownReset: number;
  /** Reset values of single registers, by name, where they are not the table's. */
  readonly reset: Readonly<Record<string, bigint>>;
  /** Non-zero reserved bits in a command (4.1.5). */
  readonly reservedCommandBits: 'ignored' | 'ill';
  /** Architected commands that need a feature the ID registers lack (4.1.3). QEMU takes them without effect. */
  readonly unsupportedCommands: 'ill' | 'ignored';
  /** CMD_ATC_INV with Size above 52 (4.5.1). */
  readonly atcInvOversize: 'ill' | 'all';
  /** A command with SSV = 1 on an SMMU without SubstreamIDs (4.2, 4.5). */
  readonly ssvWithoutSubstreams: 'as-ssv0' | 'no-effect';
  /** CMD_PREFETCH_* (4.2). */
  readonly prefetch: 'done' | 'ignored';
  /** An aborted write to the Event or PRI queue (7.2.2, 8.2). */
  readonly queueWriteAbort: 'synchronous' | 'asynchronous' | 'unreported';
  /**
   * Similar events are merged into the newest record while software has not read it: never, always, or when the
   * schedule draws so, which in `eager` is never (3.5.5, STE.MEV).
   */
  readonly eventMerging: 'never' | 'unread' | 'drawn';
  /** Wired interrupt outputs exist (3.18). */
  readonly wiredInterrupts: boolean;
  /** Stalled transactions that can hold a STAG at once, where IDR5.STALL_MAX does not say less. */
  readonly stags: number;
  /** An invalidation may pass an entry that a transaction is using (a Tegra264 erratum). `seeded` schedule only. */
  readonly erratumInvalidationMayMissEntryInUse: boolean;
  /** Shapes of the TLB's caches. */
  readonly tlb: TlbOptions;
  /** Sizes of the configuration cache. */
  readonly configCache: ConfigCacheOptions;
  /** Choices inside translation. */
  readonly choices: Partial<TranslationChoices>;
}

/** Defaults of {@link SmmuOptions}. */
export const DEFAULT_OPTIONS: SmmuOptions = {
  guardedWrites: 'ignored',
  handshakeRewrite: 'first',
  wideOverPair: 'both',
  page0QueueAlias: 'alias',
  page1Undefined: 'res0',
  unknownReset: 0,
  reset: {},
  reservedCommandBits: 'ignored',
  unsupportedCommands: 'ill',
  atcInvOversize: 'ill',
  ssvWithoutSubstreams: 'as-ssv0',
  prefetch: 'done',
  queueWriteAbort: 'synchronous',
  eventMerging: 'never',
  wiredInterrupts: true,
  stags: 0x10000,
  erratumInvalidationMayMissEntryInUse: false,
  tlb: DEFAULT_TLB,
  configCache: DEFAULT_CONFIG_CACHE,
  choices: {},
};

/** ID register fields by name; fields left out are 0. */
export interface SmmuConfig {
  readonly IDR0: Encoding<typeof IDR0.fields>;
  readonly IDR1: Encoding<typeof IDR1.fields>;
  readonly IDR2?: Encoding<typeof IDR2.fields>;
  readonly IDR3?: Encoding<typeof IDR3.fields>;
  readonly IDR4?: Encoding<typeof IDR4.fields>;
  readonly IDR5: Encoding<typeof IDR5.fields>;
  readonly IDR6?: Encoding<typeof IDR6.fields>;
  readonly IIDR?: Encoding<typeof IIDR.fields>;
  readonly AIDR?: Encoding<typeof AIDR.fields>;
  readonly MPAMIDR?: Encoding<typeof MPAMIDR.fields>;
  readonly options?: Partial<SmmuOptions>;
}

/** The ID registers of a configuration. @throws LayoutError for a value that does not fit its field */
export function idRegistersOf(config: SmmuConfig): IdRegisters {
  return {
    IDR0: IDR0.value(config.IDR0),
    IDR1: IDR1.value(config.IDR1),
    IDR2: IDR2.value(config.IDR2 ?? {}),
    IDR3: IDR3.value(config.IDR3 ?? {}),
    IDR4: IDR4.value(config.IDR4 ?? {}),
    IDR5: IDR5.value(config.IDR5),
    IDR6: IDR6.value(config.IDR6 ?? {}),
    IIDR: IIDR.value(config.IIDR ?? {}),
    AIDR: AIDR.value(config.AIDR ?? {}),
    MPAMIDR: MPAMIDR.value(config.MPAMIDR ?? {}),
  };
}

const fieldsOf = <F extends Fields>(table: Register<F>, value: number | undefined): Encoding<F> =>
  table.decode(Uint32Array.of(value ?? 0)) as Encoding<F>;

/** A configuration from ID register values: the way back from {@link idRegistersOf}. Registers left out are 0. */
export function configFromIds(ids: Partial<IdRegisters>, options: Partial<SmmuOptions> = {}): SmmuConfig {
  return {
    IDR0: fieldsOf(IDR0, ids.IDR0),
    IDR1: fieldsOf(IDR1, ids.IDR1),
    IDR2: fieldsOf(IDR2, ids.IDR2),
    IDR3: fieldsOf(IDR3, ids.IDR3),
    IDR4: fieldsOf(IDR4, ids.IDR4),
    IDR5: fieldsOf(IDR5, ids.IDR5),
    IDR6: fieldsOf(IDR6, ids.IDR6),
    IIDR: fieldsOf(IIDR, ids.IIDR),
    AIDR: fieldsOf(AIDR, ids.AIDR),
    MPAMIDR: fieldsOf(MPAMIDR, ids.MPAMIDR),
    options,
  };
}
