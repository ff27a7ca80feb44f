/**
 * Translation of one client transaction, from StreamID and address to a physical address or a fault (IHI 0070 3.3, 3.4,
 * 3.9.1, 5.5, 7.3.22). There is one implementation: traces and explanations read what it leaves in the transaction.
 */
import type { Caps } from '../../spec/caps.ts';
import { STE } from '../../spec/ste.ts';
import {
  EATS,
  effectiveEats,
  forbid,
  grantRequest,
  passTranslated,
  refuseRequest,
  splitInput,
} from './ats-translation.ts';
import * as attributes from './attributes.ts';
import { type CachedStream, ConfigCache } from './config-cache.ts';
import { type CdEntry, ContextDescriptors } from './context-descriptor.ts';
import {
  C_BAD_STE,
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  configFault,
  F_PERMISSION,
  F_STREAM_DISABLED,
  isTranslationFault,
} from './faults.ts';
import { GlobalBypass } from './global-bypass.ts';
import type { Memory } from './memory.ts';
import { Mpam } from './mpam.ts';
import * as permissions from './permissions.ts';
import { Stage1Walker } from './stage1-walker.ts';
import { Stage2Walker } from './stage2-walker.ts';
import { Stages } from './stages.ts';
import type { SteEntry } from './stream-table.ts';
import * as streams from './stream-table.ts';
import { Tlb } from './tlb.ts';
import { Access, Outcome, type Transaction, type TranslationRegs } from './transaction.ts';
import { DEFAULT_TRANSLATOR, type TranslationChoices, type TranslatorOptions } from './translation-options.ts';

// Local constants: an import is looked up anew at every use, and a walk uses these dozens of times.
const { allocOf, combineAlloc, pack, RA, shOf, typeOf, WA } = attributes;
const { R, S2_UX, UNPRIVILEGED_SHIFT, W, X } = permissions;
const { NO_STAGE1, REFUSED } = streams;
const OK = Outcome.Ok;
const { Untranslated, Translated } = Access;

const S1DSS = STE.fields.S1DSS.values;
const PRIVCFG = STE.fields.PRIVCFG.values;
const INSTCFG = STE.fields.INSTCFG.values;

/** log2 of the size that a request is answered with where nothing is granted: the smallest page. */
const SMALLEST_SIZE = 12;

/** See the module comment. */
export class Translator {
  readonly memory: Memory;
  readonly caps: Caps;
  readonly regs: TranslationRegs;
  readonly tlb: Tlb;
  readonly configCache: ConfigCache;
  readonly choices: TranslationChoices;
  readonly #streams: streams.StreamTable;
  readonly #cds: ContextDescriptors;
  readonly #stages: Stages;
  readonly #bypass: GlobalBypass;
  readonly #mpam: Mpam | null;

  /** @throws RangeError for cache shapes that cannot be built ({@link TlbArray}) */
  constructor(memory: Memory, caps: Caps, regs: TranslationRegs, options: TranslatorOptions = {}) {
    this.memory = memory;
    this.caps = caps;
    this.regs = regs;
    this.choices = { ...DEFAULT_TRANSLATOR.choices, ...options.choices };
    this.tlb = new Tlb(options.tlb ?? DEFAULT_TRANSLATOR.tlb, caps);
    this.configCache = new ConfigCache(options.configCache ?? DEFAULT_TRANSLATOR.configCache);
    const stage2 = new Stage2Walker(memory, this.tlb, caps);
    const stage1 = new Stage1Walker(memory, this.tlb, stage2);
    this.#stages = new Stages(caps, this.tlb, stage1, stage2, this.choices.tlbConflict === 'fault');
    this.#streams = new streams.StreamTable(memory, caps, regs, this.configCache, this.tlb, this.choices);
    this.#cds = new ContextDescriptors(memory, caps, this.configCache, stage2, this.tlb, this.choices);
    this.#bypass = new GlobalBypass(caps, regs);
    this.#mpam = caps.MPAM ? new Mpam(memory, caps, regs, this.configCache) : null;
  }

  /** Translates what the client asked; everything found out stands in `t` afterwards. Never throws. */
  translate(t: Transaction): void {
    t.reset();
    if (!this.regs.SMMUEN) {
      this.#bypass.apply(t);
      this.#mpam?.bypass(t);
      return;
    }
    if (t.access === Translated && !this.regs.ATSCHK) {
      this.#passTranslated(t);
      this.#mpam?.bypass(t);
      return;
    }
    const stream = this.#streams.find(t);
    if (stream === null) {
      this.#configEnd(t);
      return;
    }
    const ste = stream.ste;
    t.MEV = ste.MEV;
    if (ste.rule !== '') {
      configFault(t, C_BAD_STE, ste.rule);
      this.#configEnd(t);
      return;
    }
    if (ste.abort) {
      // Config = 0xx: no event (5.2 Config).
      if (t.access === Access.TranslationRequest) t.outcome = Outcome.AtsUr;
      return;
    }
    t.streamWorld = ste.world;
    t.VMID = ste.VMID;
    if (t.access === Untranslated) this.#untranslated(t, stream);
    else this.#ats(t, stream);
  }

  #untranslated(t: Transaction, stream: CachedStream): void {
    const ste = stream.ste;
    if (t.isSpeculative && (t.isWrite || t.isAtomic)) return; // no event (3.14)
    this.#effective(t, ste, t.PnU, t.InD);
    if (this.#mpam?.fetch(t, ste) === false) {
      this.#configEnd(t);
      return;
    }
    const index = this.#substream(t, ste);
    if (index === REFUSED) {
      this.#configEnd(t);
      return;
    }
    const need = t.isAtomic ? R | W : t.isWrite ? W : t.eventInD ? X : R;
    let cd: CdEntry | null = null;
    if (index !== NO_STAGE1) {
      cd = this.#cds.find(t, stream, index);
      if (cd === null) {
        this.#stageEnd(t, ste, null);
        return;
      }
      t.ASID = cd.ASID;
    }
    const stages = this.#stages;
    const done =
      cd === null
        ? stages.withoutStage1(t, ste, need, need & W)
        : stages.withStage1(t, ste, cd, need, need & W, R | W | X);
    t.tlbHit = stages.hit;
    if (done) this.#done(t, ste, cd);
    else {
      if (t.event === F_PERMISSION) this.#grants(t);
      // A size fault of a stage 1 that takes no part is not a CD's or S2R's business (3.4).
      if (cd === null && !t.S2) this.#configEnd(t);
      else this.#stageEnd(t, ste, cd);
    }
  }

  /** InD and PnU after the STE's overrides (13.1.2, 5.2). */
  #effective(t: Transaction, ste: SteEntry, PnU: boolean, InD: boolean): void {
    t.eventPnU = ste.PRIVCFG < PRIVCFG.UNPRIVILEGED ? PnU : ste.PRIVCFG === PRIVCFG.PRIVILEGED;
    if (t.isWrite || t.isAtomic) t.eventInD = false;
    else t.eventInD = ste.INSTCFG < INSTCFG.DATA ? InD : ste.INSTCFG === INSTCFG.INSTRUCTION;
  }

  /** Which CD the transaction uses (7.3.7, 7.3.9); {@link NO_STAGE1}; or {@link REFUSED}, with the fault in `t`. */
  #substream(t: Transaction, ste: SteEntry): number {
    if (t.SSV) {
      const ssid = t.SubstreamID >>> 0;
      if (!ste.s1 || ste.S1CDMax === 0 || ssid >= 2 ** ste.S1CDMax) {
        configFault(t, C_BAD_SUBSTREAMID);
        return REFUSED;
      }
      if (ssid !== 0 || ste.S1DSS !== S1DSS.SSID0) return ssid;
      configFault(t, F_STREAM_DISABLED);
      return REFUSED;
    }
    if (ste.plain === REFUSED) configFault(t, F_STREAM_DISABLED);
    return ste.plain;
  }

  #ats(t: Transaction, stream: CachedStream): void {
    const eats = effectiveEats(stream.ste, this.regs);
    if (t.access === Access.TranslationRequest) {
      if (eats === EATS.OFF) refuseRequest(t);
      else this.#request(t, stream, eats);
    } else if (eats === EATS.OFF) forbid(t);
    else this.#translated(t, stream, eats);
  }

  #request(t: Transaction, stream: CachedStream, eats: number): void {
    const ste = stream.ste;
    // Without a PASID a request has neither Privileged nor Execute (13.7).
    if (!t.SSV) t.PnU = t.InD = false;
    this.#effective(t, ste, t.PnU, t.InD);
    if (this.#mpam?.fetch(t, ste) === false) {
      this.#configEnd(t);
      return;
    }
    const index = this.#substream(t, ste);
    const cd = index >= 0 ? this.#cds.find(t, stream, index) : null;
    if (index === REFUSED || (index !== NO_STAGE1 && cd === null)) {
      this.#stageEnd(t, ste, null);
      return;
    }
    t.ASID = cd?.ASID ?? -1;
    const stages = this.#stages;
    const granted = grantRequest(t, stages, ste, cd);
    t.tlbHit = stages.hit;
    if (!granted) {
      this.#stageEnd(t, ste, cd);
      return;
    }
    const { grantRead, grantWrite, grantExec } = t;
    this.#done(t, ste, cd);
    t.grantRead = grantRead;
    t.grantWrite = grantWrite;
    t.grantExec = grantExec;
    if (!grantRead && !grantWrite) this.#nothingGranted(t);
    else if (eats === EATS.SPLIT) {
      t.paHi = stages.ipaHi;
      t.paLo = stages.ipaLo;
    }
  }

  /** Success with R = W = 0: nothing is said about the address. */
  #nothingGranted(t: Transaction): void {
    t.outcome = Outcome.Ok;
    t.paHi = t.paLo = 0;
    t.sizeLog2 = SMALLEST_SIZE;
    t.grantRead = t.grantWrite = t.grantExec = false;
    t.record = false;
  }

  #passTranslated(t: Transaction): void {
    passTranslated(t, this.caps, this.choices.translatedBeyondOas === 'truncate');
  }

  #translated(t: Transaction, stream: CachedStream, eats: number): void {
    const ste = stream.ste;
    const withPasid = this.caps.PASIDTT && t.SSV;
    if (!withPasid) {
      t.SSV = false;
      t.PnU = t.InD = false;
    }
    this.#effective(t, ste, t.PnU, t.InD);
    if (withPasid) {
      const index = this.#substream(t, ste);
      if (index === REFUSED || (index >= 0 && this.#cds.find(t, stream, index) === null)) {
        this.#stageEnd(t, ste, null);
        return;
      }
    }
    if (eats === EATS.FULL) this.#passWithIds(t, ste);
    else if (!splitInput(t, this.caps)) this.#faultedTranslated(t);
    else this.#secondHalf(t, ste);
  }

  #passWithIds(t: Transaction, ste: SteEntry): void {
    this.#passTranslated(t);
    this.#mpam?.assign(t, ste, null);
  }

  /** The second half of a split-stage translation: stage 2 of an intermediate address (3.9.1). */
  #secondHalf(t: Transaction, ste: SteEntry): void {
    const need = t.isAtomic ? R | W : t.isWrite ? W : t.eventInD ? X : R;
    const done = this.#stages.withoutStage1(t, ste, need, need & W);
    t.tlbHit = this.#stages.hit;
    if (done) this.#done(t, ste, null);
    else {
      if (t.event === F_PERMISSION) this.#grants(t);
      if (t.S2) this.#stageEnd(t, ste, null);
      else this.#faultedTranslated(t);
    }
  }

  /** An address fault of a Translated transaction is recorded as an ordinary one (3.9.1.3). */
  #faultedTranslated(t: Transaction): void {
    t.outcome = Outcome.Abort;
    t.record = true;
  }

  /** Permissions for the transaction's privilege. */
  #grants(t: Transaction): void {
    const { perm1, perm2 } = this.#stages;
    const one = t.eventPnU ? perm1 : perm1 >> UNPRIVILEGED_SHIFT;
    const both = one & perm2;
    t.grantRead = (both & R) !== 0;
    t.grantWrite = (both & W) !== 0;
    t.grantExec = (one & X) !== 0 && (perm2 & (t.eventPnU ? X : S2_UX)) !== 0;
  }

  #done(t: Transaction, ste: SteEntry, cd: CdEntry | null): void {
    const stages = this.#stages;
    t.outcome = OK;
    t.paHi = stages.paHi;
    t.paLo = stages.paLo;
    t.sizeLog2 = stages.sizeLog2;
    this.#grants(t);
    let attributes = stages.attributes;
    // Hints of a stage 1 translation combine with those of the client or the STE (13.5).
    if (cd !== null) {
      const alloc = ste.alloc < 0 ? t.inAlloc : ste.alloc;
      if (alloc !== (RA | WA))
        attributes = pack(typeOf(attributes), shOf(attributes), combineAlloc(allocOf(attributes), alloc));
    }
    t.memAttr = typeOf(attributes);
    t.SH = shOf(attributes);
    t.alloc = allocOf(attributes);
    this.#mpam?.assign(t, ste, cd);
  }

  /** Ends with a fault that A, R and S have no say in (5.5): recorded, unless ATS or CR2 say otherwise (3.9.1). */
  #configEnd(t: Transaction): void {
    const { RECINVSID, REC_CFG_ATS } = this.regs;
    const unknownStream = t.event === C_BAD_STREAMID;
    switch (t.access) {
      case Access.TranslationRequest:
        t.outcome = Outcome.AtsCa;
        t.record = REC_CFG_ATS && (!unknownStream || RECINVSID);
        return;
      case Access.Translated:
        t.outcome = Outcome.Abort;
        t.record = REC_CFG_ATS;
        return;
      default:
        t.outcome = Outcome.Abort;
        t.record = !t.isSpeculative && (!unknownStream || RECINVSID);
    }
  }

  /** Ends with a fault of a stage, by that stage's own rules (5.5). */
  #stageEnd(t: Transaction, ste: SteEntry, cd: CdEntry | null): void {
    if (!isTranslationFault(t.event) || t.isSpeculative) {
      this.#configEnd(t);
      return;
    }
    if (t.access === Access.TranslationRequest) {
      this.#nothingGranted(t);
      return;
    }
    const stall = t.S2 ? ste.S2S : cd?.S === true;
    const abort = t.S2 || cd?.A === true;
    t.record = stall || (t.S2 ? ste.S2R : cd?.R === true);
    t.outcome = stall ? Outcome.Stall : abort ? Outcome.Abort : Outcome.RazWi;
  }
}
