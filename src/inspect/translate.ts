/** One access on memory images: every step the hardware model takes, and how it ends. */

import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Granule, Level } from '../../spec/descriptors.ts';
import { MEMATTR, SHAREABILITY } from '../../spec/encodings.ts';
import { EVENT_BYTES, EVENTS } from '../../spec/events.ts';
import type { Words } from '../../spec/layout.ts';
import { cdContext } from '../../spec/legality/cd.ts';
import { effectivePS, TG0_GRANULE, TG1_GRANULE } from '../../spec/sizes.ts';
import { STE } from '../../spec/ste.ts';
import { fillEvent } from '../hw/event-record.ts';
import { Outcome, STEP_SIZE, Step, Transaction } from '../hw/transaction.ts';
import { decode } from './decode.ts';
import { e2hOf } from './dump.ts';
import type { ImageMemory } from './memory.ts';
import { addressOf, ImageModel } from './model.ts';
import { type DecodedRecord, hex, sizeText } from './record.ts';
import type { Registers } from './stream-table.ts';
import { hexWords } from './words.ts';

/** An access of a device. */
export interface AccessRequest {
  readonly sid: number;
  readonly ssid?: number | undefined;
  readonly iova: bigint;
  readonly write?: boolean | undefined;
  readonly instruction?: boolean | undefined;
  readonly privileged?: boolean | undefined;
}

/** One structure or descriptor that was read. */
export interface TranslationStep {
  readonly what: 'L1STD' | 'STE' | 'L1CD' | 'CD' | 'S1' | 'S2' | 'VMS';
  /** Stage and level of a descriptor. */
  readonly stage?: 1 | 2;
  readonly level?: number;
  readonly granule?: Granule;
  /** "0x..": where it was read. */
  readonly address: string;
  readonly words: readonly string[];
  readonly meaning: string;
}

/** How an access ended. `missing`: the images do not hold what the SMMU would read next. */
export type TranslationOutcome = 'ok' | 'abort' | 'razwi' | 'stall' | 'missing';

/** An access, step by step. */
export interface TranslationResult {
  readonly sid: number;
  readonly ssid?: number;
  readonly iova: string;
  readonly access: 'read' | 'write' | 'execute';
  readonly privileged: boolean;
  readonly outcome: TranslationOutcome;
  /** Output address, if it was translated. */
  readonly pa?: string;
  /** Bytes that this translation covers; absent in bypass. */
  readonly size?: string;
  /** What the translation permits to such a client: "rwx". */
  readonly permissions?: string;
  readonly attributes?: string;
  readonly vmid?: number;
  readonly asid?: number;
  /** What hardware records. */
  readonly event?: DecodedRecord & { readonly words: readonly string[]; readonly recorded: boolean };
  /** Why, in a sentence. */
  readonly reason: string;
  readonly steps: readonly TranslationStep[];
}

/** Names of the kinds of steps. */
const STEP_NAMES = {
  [Step.L1STD]: 'L1STD',
  [Step.STE]: 'STE',
  [Step.L1CD]: 'L1CD',
  [Step.CD]: 'CD',
  [Step.S1]: 'S1',
  [Step.S2]: 'S2',
  [Step.VMS]: 'VMS',
} as const;

const nameOf = (values: Readonly<Record<string, number>>, value: number): string =>
  Object.entries(values).find(([, one]) => one === value)?.[0] ?? `${value}`;

const SHARED: Readonly<Record<string, string>> = {
  NSH: 'non-shareable',
  OSH: 'outer shareable',
  ISH: 'inner shareable',
};

/** Memory type and shareability of an output. */
export const attributesOf = (t: Transaction): string =>
  `${nameOf(MEMATTR, t.memAttr)}, ${SHARED[nameOf(SHAREABILITY, t.SH)] ?? 'non-shareable'}`;

/** What the translation of `t` permits: "rw-". */
export const permissionsOf = (t: Transaction): string =>
  `${t.grantRead ? 'r' : '-'}${t.grantWrite ? 'w' : '-'}${t.grantExec ? 'x' : '-'}`;

/** Granule and format of the descriptors a step reads, as STE and CD say. */
export interface Formats {
  readonly granule: Granule;
  readonly ds: boolean;
  readonly pa52: boolean;
}

const formatOf = (granule: Granule | undefined, ds: boolean, ps: number, caps: Caps): Formats => ({
  granule: granule ?? '4k',
  ds: ds && caps.DS,
  pa52: effectivePS(ps, caps) >= 52,
});

/** Format of stage 2 descriptors, by an STE. */
export const stage2Format = (ste: Words, caps: Caps): Formats =>
  formatOf(TG0_GRANULE[STE.num(ste, 'S2TG')], STE.num(ste, 'S2DS') === 1, STE.num(ste, 'S2PS'), caps);

/** Format of stage 1 descriptors for an address, by a CD. */
export function stage1Format(cd: Words, iova: bigint, caps: Caps): Formats {
  const second = ((iova >> 55n) & 1n) === 1n;
  const granule = second ? TG1_GRANULE[CD.num(cd, 'TG1')] : TG0_GRANULE[CD.num(cd, 'TG0')];
  return formatOf(granule, CD.num(cd, 'DS') === 1, CD.num(cd, 'IPS'), caps);
}

/** What the walk reads, put together: eight reads of an STE are one step. */
class StepReader {
  readonly steps: TranslationStep[] = [];
  #ste: Words = STE.zero();
  #cd: Words = CD.zero();
  readonly #caps: Caps;
  readonly #iova: bigint;
  readonly #e2h: boolean;

  constructor(caps: Caps, iova: bigint, e2h: boolean) {
    this.#caps = caps;
    this.#iova = iova;
    this.#e2h = e2h;
  }

  read(t: Transaction): void {
    for (let i = 0; i < t.stepCount; ) {
      const kind = t.steps[i * STEP_SIZE] ?? 0;
      const whole = kind === Step.STE ? STE.bytes / 8 : kind === Step.CD ? CD.bytes / 8 : 1;
      this.#one(t, i, kind, Math.min(whole, t.stepCount - i));
      i += whole;
    }
  }

  #one(t: Transaction, first: number, kind: number, count: number): void {
    const what = STEP_NAMES[kind as keyof typeof STEP_NAMES];
    if (what === undefined) return;
    const words = new Uint32Array(count * 2);
    for (let i = 0; i < count; i++) {
      words[2 * i] = t.steps[(first + i) * STEP_SIZE + 5] ?? 0;
      words[2 * i + 1] = t.steps[(first + i) * STEP_SIZE + 4] ?? 0;
    }
    const at = first * STEP_SIZE;
    const address = hex(addressOf(t.steps[at + 2] ?? 0, t.steps[at + 3] ?? 0));
    if (what === 'S1' || what === 'S2') {
      const level = ((t.steps[at + 1] ?? 0) << 24) >> 24;
      this.#descriptor(what, level, address, words);
      return;
    }
    if (what === 'STE' && count * 8 === STE.bytes) this.#ste = words;
    if (what === 'CD' && count * 8 === CD.bytes) this.#cd = words;
    this.steps.push({ what, address, words: hexWords(words), meaning: this.#meaning(what, words) });
  }

  #meaning(what: 'L1STD' | 'STE' | 'L1CD' | 'CD' | 'VMS', words: Words): string {
    const caps = this.#caps;
    if (what === 'VMS' || (words.length !== STE.bytes / 4 && (what === 'STE' || what === 'CD'))) return 'read in part';
    const kind = what === 'STE' ? 'ste' : what === 'CD' ? 'cd' : what === 'L1STD' ? 'l1std' : 'l1cd';
    const context = cdContext(this.#ste, caps, this.#e2h);
    const { summary, problems } = decode(kind, words, { caps, cdContext: context });
    const [problem] = problems;
    return problem === undefined ? summary : `${summary}; ILLEGAL: ${problem.message} [${problem.rule}]`;
  }

  #descriptor(what: 'S1' | 'S2', level: number, address: string, words: Words): void {
    const stage = what === 'S1' ? 1 : 2;
    const format = stage === 1 ? stage1Format(this.#cd, this.#iova, this.#caps) : stage2Format(this.#ste, this.#caps);
    const { summary } = decode(stage === 1 ? 'pte1' : 'pte2', words, {
      caps: this.#caps,
      level: level as Level,
      ...format,
    });
    this.steps.push({ what, stage, level, granule: format.granule, address, words: hexWords(words), meaning: summary });
  }
}

/** The transaction that a request is. */
export function transactionOf(request: AccessRequest): Transaction {
  const t = new Transaction();
  t.StreamID = request.sid;
  t.SSV = request.ssid !== undefined;
  t.SubstreamID = request.ssid ?? 0;
  t.addrHi = Number(request.iova >> 32n) | 0;
  t.addrLo = Number(request.iova & 0xffffffffn) | 0;
  t.isWrite = request.write === true;
  t.InD = request.instruction === true && request.write !== true;
  t.PnU = request.privileged === true;
  return t;
}

const OUTCOMES: Readonly<Record<number, TranslationOutcome>> = {
  [Outcome.Ok]: 'ok',
  [Outcome.Abort]: 'abort',
  [Outcome.RazWi]: 'razwi',
  [Outcome.Stall]: 'stall',
};

function eventOf(t: Transaction): TranslationResult['event'] {
  if (t.event === 0) return undefined;
  const words = new Uint32Array(EVENT_BYTES / 4);
  fillEvent(words, t, t.outcome === Outcome.Stall ? { STAG: 0 } : null);
  return { ...decode('event', words), words: hexWords(words), recorded: t.record };
}

/** What the last step says about a fault of a stage. */
function walkReason(t: Transaction, last: TranslationStep | undefined): string {
  const name = Object.values(EVENTS).find(({ number }) => number === t.event)?.name ?? '';
  const stage = t.S2 ? 'stage 2' : 'stage 1';
  const entry = last?.level === undefined ? undefined : `the level ${last.level} descriptor at ${last.address}`;
  const walked = entry !== undefined && last?.stage === (t.S2 ? 2 : 1);
  if (name === 'F_TRANSLATION')
    return walked
      ? `nothing is mapped there: ${entry} is ${last?.words[0] === '0x0' ? 'zero' : 'not valid'} (${stage})`
      : `the address is out of the range that ${stage} translates, or its half is off`;
  if (name === 'F_PERMISSION')
    return `${stage} does not permit it: ${walked ? `${entry} says ${last?.meaning}` : permissionsOf(t)}`;
  if (name === 'F_ACCESS') return `${entry ?? stage}: the Access flag is clear, and hardware does not set it`;
  if (name === 'F_ADDR_SIZE')
    return walked
      ? `${entry} leads to an address beyond the output size`
      : 'the address is beyond what the SMMU can pass on';
  return '';
}

function reasonOf(
  t: Transaction,
  result: { outcome: TranslationOutcome; steps: readonly TranslationStep[]; missing: bigint | undefined },
): string {
  const last = result.steps.at(-1);
  if (result.missing !== undefined) return `the images do not hold ${hex(result.missing)}, which the SMMU reads next`;
  if (result.outcome === 'ok') {
    const size = t.sizeLog2 >= 64 ? 'without translation' : `in a ${sizeText(1n << BigInt(t.sizeLog2))} translation`;
    return `the access goes to ${hex(addressOf(t.paHi, t.paLo))} ${size}`;
  }
  if (t.event === 0)
    return last?.what === 'STE'
      ? `the STE says abort: no event is recorded`
      : 'the SMMU is off and aborts (GBPA.ABORT)';
  const quiet = t.record ? '' : '; no event is recorded';
  const name = Object.values(EVENTS).find(({ number }) => number === t.event);
  const walk = walkReason(t, last);
  if (walk !== '') return `${walk}${quiet}`;
  const rule = t.rule === '' || t.rule === 'V' ? '' : ` [${t.rule}]`;
  return `${name?.text ?? 'refused'}${rule}${last === undefined ? '' : `: ${last.what} at ${last.address}: ${last.meaning}`}${quiet}`;
}

/**
 * Runs one access through the hardware model.
 * @throws InputError if the registers do not say where the Stream table lies.
 */
export function translateOnImage(
  images: ImageMemory,
  registers: Registers,
  caps: Caps,
  request: AccessRequest,
): TranslationResult {
  const model = new ImageModel(images, registers, caps);
  const t = transactionOf(request);
  const missing = missingOf(model, t, model.translate(t));
  const reader = new StepReader(caps, request.iova, e2hOf(registers));
  reader.read(t);
  const outcome = missing === undefined ? (OUTCOMES[t.outcome] ?? 'abort') : 'missing';
  const event = missing === undefined ? eventOf(t) : undefined;
  const ok = outcome === 'ok';
  return {
    sid: request.sid,
    ...(request.ssid === undefined ? {} : { ssid: request.ssid }),
    iova: hex(request.iova),
    access: request.write === true ? 'write' : request.instruction === true ? 'execute' : 'read',
    privileged: request.privileged === true,
    outcome,
    ...(ok ? { pa: hex(addressOf(t.paHi, t.paLo)), permissions: permissionsOf(t), attributes: attributesOf(t) } : {}),
    ...(ok && t.sizeLog2 < 64 ? { size: hex(1n << BigInt(t.sizeLog2)) } : {}),
    ...(t.VMID < 0 ? {} : { vmid: t.VMID }),
    ...(t.ASID < 0 ? {} : { asid: t.ASID }),
    ...(event === undefined ? {} : { event }),
    reason: reasonOf(t, { outcome, steps: reader.steps, missing }),
    steps: reader.steps,
  };
}

/** The address that the images lack: asked for in vain, or read as zero beside an image that ends inside a page. */
export function missingOf(model: ImageModel, t: Transaction, asked: bigint | undefined): bigint | undefined {
  if (asked !== undefined) return asked;
  for (let i = 0; i < t.stepCount; i++) {
    if (t.steps[i * STEP_SIZE] === Step.TLB) continue;
    const at = addressOf(t.steps[i * STEP_SIZE + 2] ?? 0, t.steps[i * STEP_SIZE + 3] ?? 0);
    if (!model.has(at, 8)) return at;
  }
  return undefined;
}
