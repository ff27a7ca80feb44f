/** What a stream's addresses lead to, as merged ranges: the hardware model is asked entry by entry, not page by page. */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import { type Level, levelGeometry } from '../../spec/descriptors.ts';
import { EVENTS } from '../../spec/events.ts';
import { fromQwords, type Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { Outcome, STEP_SIZE, Step, type Transaction } from '../hw/transaction.ts';
import { type ImageMemory, lesser } from './memory.ts';
import { addressOf, ImageModel } from './model.ts';
import { hex } from './record.ts';
import type { Registers } from './stream-table.ts';
import {
  attributesOf,
  permissionsOf,
  stage1Format,
  stage2Format,
  transactionOf,
  translateOnImage,
} from './translate.ts';

/** A run of addresses that are treated alike. */
export interface MappedRange {
  /** "0x..": first and last address, both included. */
  readonly from: string;
  readonly to: string;
  /** Output address of the first, if it is mapped. */
  readonly pa?: string;
  /** What is permitted to an unprivileged client: "rw-"; with `p` behind it, to a privileged one only. */
  readonly permissions?: string;
  readonly attributes?: string;
  /** Which event an access meets, if it is not mapped; or that the images lack the table. */
  readonly fault?: string;
}

/** Ranges, and whether all of them were found. */
export interface RangeResult {
  readonly ranges: readonly MappedRange[];
  readonly complete: boolean;
}

/** Which addresses of which stream. */
export interface RangeRequest {
  readonly sid: number;
  readonly ssid?: number | undefined;
  /** First and last address, both included. */
  readonly from: bigint;
  readonly to: bigint;
}

/** Accesses that may still be tried; shared by requests that belong together. */
export interface Tries {
  left: number;
}

/** Accesses tried for one request at most, unless its caller says otherwise. */
export const MAX_TRIES = 1 << 20;

const LAST = (1n << 64n) - 1n;

/** The end of the run of addresses that the size fields treat as one: the next power of two, from below or above. */
function nextBoundary(at: bigint): bigint {
  if (at === 0n) return 0xfffn;
  const above = (1n << BigInt(at.toString(2).length)) - 1n;
  const rest = (1n << 64n) - at;
  const power = 1n << BigInt(rest.toString(2).length - 1);
  const upper = at + (rest === power ? power / 2n : rest - power) - 1n;
  return at >> 63n === 0n ? above : upper > at ? upper : LAST;
}

const eventNames = new Map<number, string>(Object.values(EVENTS).map(({ number, name }) => [number, name]));

/** The level of the last step of a kind, or undefined. */
function lastLevel(t: Transaction, kind: number): Level | undefined {
  for (let i = t.stepCount - 1; i >= 0; i--)
    if (t.steps[i * STEP_SIZE] === kind) return (((t.steps[i * STEP_SIZE + 1] ?? 0) << 24) >> 24) as Level;
  return undefined;
}

/** Asks for one stream's addresses. */
class Explorer {
  readonly #model: ImageModel;
  readonly #caps: Caps;
  readonly #ste: Words;
  readonly #cd: Words;

  constructor(images: ImageMemory, registers: Registers, caps: Caps, request: RangeRequest) {
    this.#caps = caps;
    this.#model = new ImageModel(images, registers, caps, { cached: true });
    const { steps } = translateOnImage(images, registers, caps, { ...request, iova: request.from });
    const words = (what: string, none: Words): Words => {
      const step = steps.find((one) => one.what === what);
      return step === undefined ? none : fromQwords(step.words.map(BigInt));
    };
    this.#ste = words('STE', STE.zero());
    this.#cd = words('CD', CD.zero());
  }

  /** log2 of the bytes that one descriptor of the given stage and level covers. */
  #covers(stage: 1 | 2, level: Level, iova: bigint): number {
    const format = stage === 1 ? stage1Format(this.#cd, iova, this.#caps) : stage2Format(this.#ste, this.#caps);
    return levelGeometry(format.granule, level).shift;
  }

  /** log2 of the bytes around an address that fail as it does; undefined: all that the size fields treat alike. */
  #failsLog2(t: Transaction, iova: bigint): number | undefined {
    const s1 = lastLevel(t, Step.S1);
    const s2 = lastLevel(t, Step.S2);
    const sizes: number[] = [];
    if (s1 !== undefined) sizes.push(this.#covers(1, s1, iova));
    // Stage 2 of a table address says nothing about how far the fault reaches, stage 2 of the address itself does.
    const own = t.CLASS === 2 && t.S2;
    if (s2 !== undefined && (own || s1 === undefined)) sizes.push(this.#covers(2, s2, iova));
    return sizes.length === 0 ? undefined : Math.min(...sizes);
  }

  /** The range that begins at `from`, as far as one look can tell. */
  look(request: RangeRequest, from: bigint): { range: MappedRange; to: bigint; pa: bigint | undefined } {
    const ask = (privileged: boolean): { t: Transaction; missing: bigint | undefined } => {
      const t = transactionOf({ ...request, iova: from, privileged });
      return { t, missing: this.#model.translate(t) };
    };
    let { t, missing } = ask(false);
    let suffix = '';
    if (t.event === EVENTS.F_PERMISSION.number) {
      const again = ask(true);
      if (again.t.outcome === Outcome.Ok || again.t.grantWrite || again.t.grantExec) {
        ({ t, missing } = again);
        suffix = 'p';
      }
    }
    const end = (log2: number | undefined): bigint =>
      log2 === undefined ? nextBoundary(from) : from | ((1n << BigInt(log2)) - 1n);
    if (missing === undefined && t.outcome === Outcome.Ok) {
      const to = end(t.sizeLog2 >= 64 ? undefined : t.sizeLog2);
      const pa = addressOf(t.paHi, t.paLo);
      const range = {
        from: hex(from),
        to: hex(to),
        pa: hex(pa),
        permissions: `${permissionsOf(t)}${suffix}`,
        attributes: attributesOf(t),
      };
      return { range, to, pa };
    }
    const to = end(this.#failsLog2(t, from));
    const event = eventNames.get(t.event);
    const granted = t.event === EVENTS.F_PERMISSION.number ? { permissions: `${permissionsOf(t)}${suffix}` } : {};
    const fault = missing !== undefined ? `no image has ${hex(missing)}` : (event ?? 'aborted');
    return { range: { from: hex(from), to: hex(to), ...granted, fault }, to, pa: undefined };
  }
}

/** Whether `b` goes on where `a` ends, in the same way. */
function joins(a: MappedRange, b: MappedRange, bytes: bigint): boolean {
  if (a.fault !== b.fault || a.permissions !== b.permissions || a.attributes !== b.attributes) return false;
  if (a.pa === undefined || b.pa === undefined) return a.pa === b.pa;
  return BigInt(a.pa) + bytes === BigInt(b.pa);
}

/**
 * Maps a range of addresses of a stream. Stops when no tries are left; `complete` says whether it had to.
 * @throws InputError if the registers do not say where the Stream table lies.
 */
export function mapRange(
  images: ImageMemory,
  registers: Registers,
  caps: Caps,
  request: RangeRequest,
  tries: Tries = { left: MAX_TRIES },
): RangeResult {
  const explorer = new Explorer(images, registers, caps, request);
  const ranges: MappedRange[] = [];
  let from = request.from;
  while (from <= request.to) {
    if (tries.left-- <= 0) return { ranges, complete: false };
    const look = explorer.look(request, from);
    const to = lesser(look.to, request.to);
    const last = ranges.at(-1);
    if (last !== undefined && joins(last, look.range, from - BigInt(last.from)))
      ranges[ranges.length - 1] = { ...last, to: hex(to) };
    else ranges.push({ ...look.range, to: hex(to) });
    from = to + 1n;
  }
  return { ranges, complete: true };
}
