/** Translation as the rest of the SMMU sees it: one transaction at a time, and maintenance of what it caches. */

import type { Caps } from '../../spec/caps.ts';
import { slotValue } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import type { CacheMaintenance } from './commands/context.ts';
import type { SmmuOptions } from './config.ts';
import type { ControlRegisters } from './control-registers.ts';
import { EntryInUse } from './erratum.ts';
import { C_BAD_STE, C_BAD_STREAMID, F_STE_FETCH } from './faults.ts';
import type { Memory } from './memory.ts';
import type { Watch } from './observer.ts';
import type { Schedule, Speculator } from './schedule.ts';
import { Speculation } from './speculation.ts';
import { Access, type TlbInvalidation, Transaction } from './transaction.ts';
import { Translator } from './translate.ts';
import type { VmidHolder } from './vmid.ts';

/** Translates, and keeps caches. */
export interface TranslationUnit extends CacheMaintenance {
  /** What it may do unasked. */
  readonly speculators: readonly Speculator[];
  /** Fills in the transaction's outcome. */
  translate(t: Transaction): void;
  /** Remembers a client's transaction as something worth speculating about. */
  note(t: Transaction): void;
  /** SMMUEN went to 0: nothing that is under way may enter the caches any more. */
  quiesce(): void;
  /** Power is gone: every cache loses what it holds. */
  lose(): void;
  /** STE.PPAR of a stream; null if its STE is not usable: the event stands in `t`. */
  ppar(StreamID: number, t: Transaction): boolean | null;
  /** What in the caches names a VMID. */
  vmidHolders(VMID: number): VmidHolder[];
}

/** What an SMMU hands to its translation. */
export interface TranslationContext {
  readonly name: string;
  readonly caps: Caps;
  readonly options: SmmuOptions;
  readonly regs: ControlRegisters;
  readonly memory: Memory;
  readonly watch: Watch;
  readonly schedule: Schedule;
}

/** Translates nothing: for register and queue tests. */
export class NoTranslation implements TranslationUnit {
  readonly speculators: readonly Speculator[] = [];
  translate(t: Transaction): void {
    t.reset();
  }
  note(): void {}
  quiesce(): void {}
  lose(): void {}
  ppar(): boolean | null {
    return null;
  }
  vmidHolders(): VmidHolder[] {
    return [];
  }
  tlb(): void {}
  ste(): void {}
  steRange(): void {}
  allConfig(): void {}
  cd(): void {}
  allCds(): void {}
  vms(): void {}
  prefetch(): void {}
}

const PPAR = STE.slot('PPAR');

const hexId = (id: number): string => `0x${id.toString(16)}`;

/** The real one: a {@link Translator}, its maintenance announced. */
export class Translation implements TranslationUnit {
  readonly translator: Translator;
  readonly #name: string;
  readonly #watch: Watch;
  readonly #prefetch = new Transaction();
  /** Null where nothing is drawn. */
  readonly speculation: Speculation | null;
  readonly #inUse: EntryInUse | null;

  constructor({ name, caps, options, regs, memory, watch, schedule }: TranslationContext) {
    this.#name = name;
    this.#watch = watch;
    this.translator = new Translator(memory, caps, regs, options);
    const seeded = schedule.mode === 'seeded';
    this.speculation = seeded ? new Speculation(name, this.translator, caps, watch) : null;
    const erratum = seeded && options.erratumInvalidationMayMissEntryInUse;
    this.#inUse = erratum ? new EntryInUse(name, this.translator.tlb, schedule) : null;
  }

  translate(t: Transaction): void {
    this.translator.translate(t);
  }

  note(t: Transaction): void {
    if (t.access === Access.Untranslated) this.speculation?.note(t);
    this.#inUse?.note(t);
  }

  quiesce(): void {
    this.speculation?.abandon();
  }

  lose(): void {
    this.translator.tlb.clear();
    this.translator.configCache.invalidateAll();
    this.speculation?.abandon();
  }

  get speculators(): Speculator[] {
    return this.speculation === null ? [] : [this.speculation];
  }

  tlb(invalidation: TlbInvalidation, E2H?: boolean): void {
    const passed = this.#inUse?.before() ?? null;
    const { regs, tlb } = this.translator;
    tlb.invalidate(invalidation, E2H === undefined ? regs : { VMW: regs.VMW, E2H });
    if (passed !== null) this.#inUse?.after(passed);
    this.#watch.observer?.({ kind: 'tlb-invalidated', smmu: this.#name, invalidation });
  }

  ste(StreamID: number, leaf: boolean): void {
    this.translator.configCache.invalidateSte(StreamID, leaf);
    this.#announce('STE', StreamID, StreamID, -1, leaf);
  }

  steRange(StreamID: number, range: number): void {
    this.translator.configCache.invalidateSteRange(StreamID, range);
    const size = 2 ** (range + 1);
    const first = StreamID - (StreamID % size);
    this.#announce('STE', first, first + size - 1, -1, false);
  }

  allConfig(): void {
    this.translator.configCache.invalidateAll();
    this.#announce('ALL', 0, 0xffffffff, -1, false);
  }

  cd(StreamID: number, SubstreamID: number, leaf: boolean): void {
    this.translator.configCache.invalidateCd(StreamID, SubstreamID, leaf);
    this.#announce('CD', StreamID, StreamID, SubstreamID, leaf);
  }

  allCds(StreamID: number): void {
    this.translator.configCache.invalidateCdAll(StreamID);
    this.#announce('CD', StreamID, StreamID, -1, false);
  }

  vms(VMID: number): void {
    this.translator.configCache.invalidateVmsPidm(VMID);
    this.#announce('VMS', 0, 0xffffffff, -1, false);
  }

  /** A speculative read: what it finds stays cached, faults leave no trace (4.2). */
  prefetch(StreamID: number, SubstreamID: number, address: { hi: number; lo: number } | null): void {
    const t = this.#prefetch;
    t.StreamID = StreamID;
    t.SSV = SubstreamID >= 0;
    t.SubstreamID = Math.max(SubstreamID, 0);
    t.addrHi = address?.hi ?? 0;
    t.addrLo = address?.lo ?? 0;
    t.isSpeculative = true;
    this.translator.translate(t);
    this.#watch.observer?.({ kind: 'prefetch', smmu: this.#name, what: `stream ${hexId(StreamID)}` });
  }

  ppar(StreamID: number, t: Transaction): boolean | null {
    t.access = Access.Untranslated;
    t.StreamID = StreamID;
    t.SSV = false;
    t.isSpeculative = true;
    this.translator.translate(t);
    if (t.event === C_BAD_STREAMID || t.event === F_STE_FETCH || t.event === C_BAD_STE) return null;
    const ste = this.translator.configCache.stream(StreamID)?.ste;
    return ste !== undefined && slotValue(ste.words, PPAR) !== 0;
  }

  vmidHolders(VMID: number): VmidHolder[] {
    const { configCache, tlb } = this.translator;
    return [
      ...configCache.holdersOf(VMID).map((sid): VmidHolder => ({ kind: 'cached-ste', what: hexId(sid) })),
      ...(configCache.vms(VMID) === null ? [] : [{ kind: 'cached-vms', what: 'PARTID map' } as const]),
      ...tlb.holdersOf(VMID).map(
        ({ cache, address, ASID, level }): VmidHolder => ({
          kind: cache === 'va' || cache === 'ipa' ? 'tlb' : 'walk-cache',
          what: `${cache} 0x${address.toString(16)} level ${level}${ASID < 0 ? '' : ` ASID ${ASID}`}`,
        }),
      ),
    ];
  }

  #announce(
    what: 'STE' | 'CD' | 'ALL' | 'VMS',
    firstSid: number,
    lastSid: number,
    SubstreamID: number,
    leaf: boolean,
  ): void {
    this.speculation?.abandon();
    this.#watch.observer?.({
      kind: 'config-invalidated',
      smmu: this.#name,
      what,
      firstSid,
      lastSid,
      SubstreamID,
      leaf,
    });
  }
}

/** The translation of a machine's SMMU. */
export const makeTranslation = (context: TranslationContext): TranslationUnit => new Translation(context);
