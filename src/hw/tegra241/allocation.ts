/** CMDQ_ALLOC: which LVCMDQ of which VINTF each VCMDQ is, and in which order that may change. */
import { CMDQV_CMDQ_ALLOC } from '../../../spec/tegra241.ts';
import { writableBits } from '../registers.ts';
import { type CmdqvContext, type Ignored, violation } from './context.ts';
import type { Vcmdq } from './vcmdq.ts';
import type { Vintf } from './vintf.ts';

const ALLOCATED = CMDQV_CMDQ_ALLOC.bit('ALLOCATED');
const PLACE = CMDQV_CMDQ_ALLOC.bit('VINTF', 'LVCMDQ');

/** See the module comment. Broken order is rule CMDQV-9. */
export class Allocation {
  readonly #context: CmdqvContext;
  readonly #queues: readonly Vcmdq[];
  readonly #vintfs: readonly Vintf[];
  readonly #values: Uint32Array;
  readonly #mask: number;

  constructor(context: CmdqvContext, queues: readonly Vcmdq[], vintfs: readonly Vintf[]) {
    this.#context = context;
    this.#queues = queues;
    this.#vintfs = vintfs;
    this.#values = new Uint32Array(queues.length);
    this.#mask = writableBits(CMDQV_CMDQ_ALLOC, context.target.caps)[0];
  }

  reset(): void {
    this.#values.fill(0);
  }

  read(q: number): number {
    return this.#values[q] ?? 0;
  }

  /** Writes CMDQ_ALLOC(q): maps, unmaps or keeps. */
  write(q: number, written: number): Ignored {
    const queue = this.#queues[q];
    if (queue === undefined) return 'undefined offset';
    const value = (written & this.#mask) >>> 0;
    const before = this.read(q);
    const { options } = this.#context;
    const allocated = (value & ALLOCATED) !== 0;
    if (allocated && (before & ALLOCATED) === 0) {
      const problem = this.#problem(value);
      if (problem !== '') {
        this.#broken(queue, problem);
        if (options.allocOutOfOrder === 'write-ignored') return 'out of order';
      }
      this.#values[q] = value;
      if (problem === '' || (options.allocOutOfOrder === 'mapped' && this.#free(value))) this.#map(queue, value);
      return '';
    }
    this.#values[q] = value;
    if (!allocated && (before & ALLOCATED) !== 0) this.#unmap(queue);
    else if (allocated && ((value ^ before) & PLACE) !== 0) this.#move(queue, value);
    return '';
  }

  #broken(queue: Vcmdq, what: string): void {
    violation(this.#context, 'CMDQV-9', `VCMDQ ${queue.q}: ${what}`);
  }

  /** The VINTF and LVCMDQ that a value names; undefined: there is no such VINTF. */
  #place(value: number): { readonly vintf: Vintf; readonly l: number } | undefined {
    const vintf = this.#vintfs[CMDQV_CMDQ_ALLOC.of(value, 'VINTF')];
    return vintf === undefined ? undefined : { vintf, l: CMDQV_CMDQ_ALLOC.of(value, 'LVCMDQ') };
  }

  #free(value: number): boolean {
    const place = this.#place(value);
    return place !== undefined && !place.vintf.slots.has(place.l);
  }

  /** Why a mapping must not be made, or ''. */
  #problem(value: number): string {
    const place = this.#place(value);
    if (place === undefined) return `there is no VINTF ${CMDQV_CMDQ_ALLOC.of(value, 'VINTF')}`;
    const { vintf, l } = place;
    const taken = vintf.slots.get(l);
    if (taken !== undefined) return `LVCMDQ ${l} of VINTF ${vintf.index} is VCMDQ ${taken.q}`;
    if (l > 0 && !vintf.slots.has(l - 1)) return `LVCMDQ ${l} of VINTF ${vintf.index} mapped before ${l - 1}`;
    return '';
  }

  #map(queue: Vcmdq, value: number): void {
    const place = this.#place(value);
    if (place === undefined) return;
    place.vintf.slots.set(place.l, queue);
    queue.map(place.vintf, place.l);
  }

  #unmap(queue: Vcmdq): void {
    const { owner } = queue;
    // ALLOCATED without a mapping: it was out of order.
    if (owner === null || owner.slots.get(queue.lvcmdq) !== queue) return;
    if (owner.slots.has(queue.lvcmdq + 1))
      this.#broken(queue, `LVCMDQ ${queue.lvcmdq} of VINTF ${owner.index} unmapped before ${queue.lvcmdq + 1}`);
    const keep = queue.enabled && this.#context.options.unmapRunning === 'keep-running';
    if (queue.enabled) {
      this.#broken(queue, 'unmapped while enabled');
      if (!keep) queue.stop();
    }
    owner.slots.delete(queue.lvcmdq);
    queue.announce('unmapped');
    if (!keep) queue.owner = null;
  }

  #move(queue: Vcmdq, value: number): void {
    violation(this.#context, 'CMDQV-ALLOC', `VCMDQ ${queue.q}: VINTF or LVCMDQ rewritten while allocated`);
    if (this.#context.options.allocRewrite !== 'takes-effect' || this.#problem(value) !== '') return;
    this.#unmap(queue);
    this.#map(queue, value);
  }
}
