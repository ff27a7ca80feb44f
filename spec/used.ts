/**
 * Which fields of an STE or CD hardware uses, given what the record itself says: a change of an unused field is never
 * seen. By the specification (IHI 0070 5.2, 5.2.1, 5.4, 13.5) here; as Linux marks them, in `linux-used.ts`.
 *
 * For Non-secure streams. Without caps every feature is taken to be there. A field may be hinted at rather than used:
 * CONT of an aborting STE, S2T0SZ[5:4] with VMSAv8-32; the first counts as unused, the second as used.
 */
import { type Caps, featureMet } from './caps.ts';
import { CD, CD_D128 } from './cd.ts';
import { type Field, type Layout, LayoutError, type Slot, slotValue, type Words } from './layout.ts';
import type { CdContext } from './legality/cd.ts';
import { STE } from './ste.ts';
import { s1Enabled, s2Enabled, strwUsed, vmidUsed, vmsSupported } from './stream-world.ts';

/** An SMMU with everything that decides about STRW, S2VMID and VMSPtr. */
const FULL = { S1P: true, S2P: true, Hyp: true, MPAM: true, PARTID_MAX: 1 } as const;

const on = (words: Words, slot: Slot): boolean => slotValue(words, slot) !== 0;

/** Whether a field exists for Non-secure streams of an SMMU. */
function present(field: Field, caps: Caps | undefined): boolean {
  if (caps !== undefined) return featureMet(field.when, caps);
  const when = field.when === undefined ? [] : [field.when].flat();
  return when.every((one) => !one.startsWith('S_') && !one.startsWith('R_'));
}

const CONFIG = STE.slot('Config');
const CONFIGS = STE.fields.Config.values;
const S1CDMAX = STE.slot('S1CDMax');
const S1DSS = STE.slot('S1DSS');
const MTCFG = STE.slot('MTCFG');
const EATS = STE.slot('EATS');
const S1MPAM = STE.slot('S1MPAM');
const S2AA64 = STE.slot('S2AA64');
const S2TG = STE.slot('S2TG');
const S2DS = STE.slot('S2DS');
const S2HA = STE.slot('S2HA');
const S2PIE = STE.slot('S2PIE');
const S2POE = STE.slot('S2POE');
const TG = STE.fields.S2TG.values;

type Used = (ste: Words, caps: Caps | undefined) => boolean;

const active: Used = (ste) => slotValue(ste, CONFIG) >= CONFIGS.BYPASS;
const translates: Used = (ste) => slotValue(ste, CONFIG) > CONFIGS.BYPASS;
const nested: Used = (ste) => slotValue(ste, CONFIG) === CONFIGS.NESTED;
const never: Used = () => false;
const v128: Used = (ste, caps) => !on(ste, S2AA64) && caps?.D128 !== false;
const v32: Used = (ste, caps) => !on(ste, S2AA64) && caps?.D128 !== true;
const substreams: Used = (ste, caps) => s1Enabled(ste) && on(ste, S1CDMAX) && caps?.SSIDSIZE !== 0;
/** Some transactions skip stage 1: S1DSS=01 without a SubstreamID. */
const skipsS1: Used = (ste, caps) => substreams(ste, caps) && slotValue(ste, S1DSS) === STE.fields.S1DSS.values.BYPASS;
/** The incoming attributes of some transactions are not replaced by those of a stage 1 table. */
const incoming: Used = (ste, caps) => active(ste, caps) && (!s1Enabled(ste) || skipsS1(ste, caps));
const s2v64: Used = (ste) => s2Enabled(ste) && on(ste, S2AA64);
const s2ds: Used = (ste) => s2v64(ste, undefined) && slotValue(ste, S2TG) !== TG['64KB'];
const overlays: Used = (ste, caps) =>
  s2Enabled(ste) && on(ste, S2POE) && (on(ste, S2AA64) ? on(ste, S2PIE) : caps?.D128 !== false);

/** Conditions on the STE itself, for fields whose features are there. Fields not named here: see {@link steFieldUsed}. */
const STE_USED: Readonly<Record<string, Used>> = {
  V: () => true,
  Config: () => true,
  CONT: active,
  S1Fmt: substreams,
  S1ContextPtr: s1Enabled,
  S1CDMax: s1Enabled,
  S1DSS: substreams,
  S1CIR: s1Enabled,
  S1COR: s1Enabled,
  S1CSH: s1Enabled,
  S1STALLD: s1Enabled,
  S1PIE: s1Enabled,
  S1MPAM: s1Enabled,
  STRW: (ste, caps) => strwUsed(ste, caps ?? FULL),
  EATS: translates,
  MEV: active,
  DRE: translates,
  DCP: translates,
  PPAR: (ste, caps) => active(ste, caps) && caps?.PPS !== true,
  MTCFG: active,
  MemAttr: (ste, caps) => incoming(ste, caps) && on(ste, MTCFG),
  ALLOCCFG: active,
  SHCFG: incoming,
  NSCFG: never,
  PRIVCFG: active,
  INSTCFG: active,
  S2VMID: (ste, caps) => vmidUsed(ste, caps ?? FULL),
  S2SL0: (ste, caps) => s2Enabled(ste) && (on(ste, S2AA64) || caps?.D128 !== true),
  S2TG: (ste, caps) => s2Enabled(ste) && (on(ste, S2AA64) || v128(ste, caps)),
  S2PS: (ste, caps) => s2Enabled(ste) && (on(ste, S2AA64) || v128(ste, caps)),
  S2AFFD: (ste) => s2Enabled(ste) && !on(ste, S2HA),
  S2PTW: nested,
  S2PIE: (ste, caps) => s2Enabled(ste) && (on(ste, S2AA64) || v32(ste, caps)),
  S2HWU59: s2v64,
  S2HWU60: s2v64,
  S2HWU61: s2v64,
  S2HWU62: s2v64,
  DPT_VMATCH: (ste, caps) => translates(ste, caps) && slotValue(ste, EATS) === STE.fields.EATS.values.FULL_DPT,
  S2DS: s2ds,
  S2SL0_2: (ste) => s2v64(ste, undefined) && on(ste, S2DS) && slotValue(ste, S2TG) === TG['4KB'],
  S2SKL: (ste, caps) => s2Enabled(ste) && v128(ste, caps),
  AssuredOnly: s2v64,
  PARTID: active,
  PMG: active,
  VMSPtr: (ste, caps) => nested(ste, caps) && on(ste, S1MPAM) && vmsSupported(caps ?? FULL),
};

/** Whether hardware uses a field of a valid STE; fields of stage 2 without a condition of their own need only stage 2. */
function steFieldUsed(name: keyof typeof STE.fields, ste: Words, caps: Caps | undefined): boolean {
  const field: Field = STE.fields[name];
  if (field.reserved !== undefined || !present(field, caps)) return false;
  if (name.startsWith('S2POI')) return overlays(ste, caps);
  return (STE_USED[name] ?? s2Enabled)(ste, caps);
}

const STE_V = STE.slot('V');
const STE_NAMES = STE.names as (keyof typeof STE.fields)[];

/** Whether hardware does not look at a field of this STE. @throws LayoutError for an unknown name. */
export function steFieldIgnored(name: string, ste: Words, caps?: Caps): boolean {
  if (!isName(STE, name)) throw new LayoutError(`STE has no field ${name}`);
  if (name === 'V') return false;
  return !on(ste, STE_V) || !steFieldUsed(name, ste, caps);
}

const isName = <F extends Layout['fields']>(table: Layout<F>, name: string): name is keyof F & string =>
  Object.hasOwn(table.fields, name);

/** Ones in the bits of an STE that hardware uses. With V=0 that is V alone. */
export function steUsed(ste: Words, caps?: Caps): Words {
  return STE.mask(STE_NAMES.filter((name) => !steFieldIgnored(name, ste, caps)));
}

const CD_V = CD.slot('V');
const EPD0 = CD.slot('EPD0');
const EPD1 = CD.slot('EPD1');
const AA64 = CD.slot('AA64');
const HA = CD.slot('HA');
const PIE = CD.slot('PIE');
const TG0 = CD.slot('TG0');
const TG1 = CD.slot('TG1');
const HAD0 = CD.slot('HAD0');
const HAD1 = CD.slot('HAD1');

/** What the conditions of a CD's fields look at, worked out once for a record. */
interface CdView {
  readonly cd: Words;
  readonly v64: boolean;
  /** VMSAv8-32 for sure, VMSAv9-128 for sure; neither if the SMMU is not known. */
  readonly v32: boolean;
  readonly v128: boolean;
  /** No EL2 regime: ASIDs, two TTBs, unprivileged accesses. */
  readonly el1: boolean;
  readonly ttb0: boolean;
  readonly ttb1: boolean;
  readonly indirect: boolean;
  readonly mpam: boolean;
}

function viewOf(cd: Words, caps: Caps | undefined, context: CdContext | undefined): CdView {
  const el1 = context?.streamWorld !== 'NS-EL2';
  const v64 = on(cd, AA64);
  const v128 = !v64 && caps?.D128 === true;
  return {
    cd,
    v64,
    v32: !v64 && caps?.D128 === false,
    v128,
    el1,
    ttb0: !el1 || !on(cd, EPD0),
    ttb1: el1 && !on(cd, EPD1),
    indirect: v128 || (v64 && on(cd, PIE) && context?.S1PIE !== false && caps?.S1PI !== false),
    mpam: context?.S1MPAM !== false,
  };
}

type CdUsed = (view: CdView) => boolean;

const ttb0: CdUsed = (view) => view.ttb0;
const ttb1: CdUsed = (view) => view.ttb1;
const el1: CdUsed = (view) => view.el1;

const CD_USED: Readonly<Record<string, CdUsed>> = {
  T0SZ: ttb0,
  TG0: (view) => view.ttb0 && !view.v32,
  IR0: ttb0,
  OR0: ttb0,
  SH0: ttb0,
  TTB0: ttb0,
  SKL0: (view) => view.ttb0 && view.v128,
  DisCH0: (view) => view.ttb0 && view.v128,
  T1SZ: ttb1,
  TG1: (view) => view.ttb1 && !view.v32,
  IR1: ttb1,
  OR1: ttb1,
  SH1: ttb1,
  TTB1: ttb1,
  SKL1: (view) => view.ttb1 && view.v128,
  DisCH1: (view) => view.ttb1 && view.v128,
  HAD1: el1,
  EPD0: el1,
  EPD1: el1,
  TBI1: el1,
  PAN: el1,
  ASID: el1,
  ENDI: (view) => view.ttb0 || view.ttb1,
  IPS: (view) => !view.v32,
  AFFD: (view) => !on(view.cd, HA),
  UWXN: (view) => view.el1 && !view.v64 && !view.v128,
  HA: (view) => !view.v32,
  HD: (view) => !view.v32,
  HAFT: (view) => !view.v32,
  E0PD0: (view) => view.el1 && view.v64,
  E0PD1: (view) => view.el1 && view.v64,
  PnCH: (view) => view.v64,
  EPAN: (view) => view.el1 && !view.v32 && !view.indirect,
  HWU059: (view) => on(view.cd, HAD0) && !view.v128,
  HWU060: (view) => on(view.cd, HAD0) && !view.v128,
  HWU061: (view) => on(view.cd, HAD0) && !view.v128,
  HWU062: (view) => on(view.cd, HAD0) && !view.v128,
  HWU159: (view) => view.el1 && on(view.cd, HAD1) && !view.v128,
  HWU160: (view) => view.el1 && on(view.cd, HAD1) && !view.v128,
  HWU161: (view) => view.el1 && on(view.cd, HAD1) && !view.v128,
  HWU162: (view) => view.el1 && on(view.cd, HAD1) && !view.v128,
  DS: (view) =>
    view.v64 &&
    ((view.ttb0 && slotValue(view.cd, TG0) !== CD.fields.TG0.values['64KB']) ||
      (view.ttb1 && slotValue(view.cd, TG1) !== CD.fields.TG1.values['64KB'])),
  PARTID: (view) => view.mpam,
  PMG: (view) => view.mpam,
};

function cdFieldUsed(name: string, field: Field, view: CdView, caps: Caps | undefined, context?: CdContext): boolean {
  if (field.reserved !== undefined || !present(field, caps)) return false;
  if (name === 'PIE') return view.v64 && context?.S1PIE !== false;
  if (name.startsWith('PIIU')) return view.indirect && view.el1;
  if (name.startsWith('PIIP')) return view.indirect;
  return CD_USED[name]?.(view) ?? true;
}

/** The layout of the CDs of an SMMU. */
export const cdLayout = (caps: Caps | undefined): Layout => (caps?.D128 === true ? CD_D128 : CD);

/** Whether hardware does not look at a field of this CD. @throws LayoutError for an unknown name. */
export function cdFieldIgnored(name: string, cd: Words, caps?: Caps, context?: CdContext): boolean {
  const field = cdLayout(caps).field(name);
  if (name === 'V') return false;
  return !on(cd, CD_V) || !cdFieldUsed(name, field, viewOf(cd, caps, context), caps, context);
}

/** Ones in the bits of a CD that hardware uses. With V=0 that is V alone. context: as far as the STE is known. */
export function cdUsed(cd: Words, caps?: Caps, context?: CdContext): Words {
  const table = cdLayout(caps);
  return table.mask(table.names.filter((name) => !cdFieldIgnored(name, cd, caps, context)));
}
