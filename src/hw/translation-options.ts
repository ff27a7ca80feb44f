/** What the architecture leaves open in translation. Each choice is listed in docs/impdef.md. */
import { type ConfigCacheOptions, DEFAULT_CONFIG_CACHE } from './config-cache.ts';
import { DEFAULT_TLB, type TlbOptions } from './tlb.ts';

/** CONSTRAINED and IMPLEMENTATION DEFINED choices of translation. */
export interface TranslationChoices {
  /** More than one matching entry: one of them is used, or F_TLB_CONFLICT (3.20.1). */
  readonly tlbConflict: 'use-one' | 'fault';
  /** The Contiguous bit makes one entry of a run. */
  readonly contiguous: boolean;
  /** A Translated transaction beyond OAS with CR0.ATSCHK = 0 or EATS = 01 (3.9.1). */
  readonly translatedBeyondOas: 'abort' | 'truncate';
  /** A Stream table address beyond OAS (3.4.3). */
  readonly streamTableBeyondOas: 'fault' | 'truncate';
  /** STE.ALLOCCFG has an effect although MTCFG = 0 (5.2 ALLOCCFG). */
  readonly alloccfgWithoutMtcfg: boolean;
  /** Hardware updates of descriptors whose walks are Non-cacheable or Write-through (5.2 S2IR0, 3.15). */
  readonly httuUncached: 'atomic' | 'abort';
  /** With stage 2 on, a S1ContextPtr beyond IAS: an ILLEGAL STE, or the CD fetch faults at stage 2 (3.4.3; QEMU). */
  readonly s1ContextPtrBeyondIas: 'ill' | 'stage2';
  /** S1CDMax above 0 without SubstreamIDs: IGNORED (5.2 S1CDMax), or an ILLEGAL STE as in QEMU, which is a deviation. */
  readonly s1CdMaxWithoutSubstreams: 'ignored' | 'ill';
  /** Stage 2 alone, input beyond IAS: a stage 1 address size fault (3.4), or left to stage 2 as in QEMU, a deviation. */
  readonly stage2InputBeyondIas: 'address-size' | 'stage2';
}

/** The first value of each choice. */
export const DEFAULT_CHOICES: TranslationChoices = {
  tlbConflict: 'use-one',
  contiguous: true,
  translatedBeyondOas: 'abort',
  streamTableBeyondOas: 'fault',
  alloccfgWithoutMtcfg: true,
  httuUncached: 'atomic',
  s1ContextPtrBeyondIas: 'ill',
  s1CdMaxWithoutSubstreams: 'ignored',
  stage2InputBeyondIas: 'address-size',
};

/** What a translator is made with. What is left out has its default. */
export interface TranslatorOptions {
  readonly tlb?: TlbOptions;
  readonly configCache?: ConfigCacheOptions;
  readonly choices?: Partial<TranslationChoices>;
}

/** Defaults of all options. */
export const DEFAULT_TRANSLATOR = {
  tlb: DEFAULT_TLB,
  configCache: DEFAULT_CONFIG_CACHE,
  choices: DEFAULT_CHOICES,
} as const;
