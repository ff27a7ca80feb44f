/**
 * DMA reaches only what is mapped now: pages of the VM whose IO address space the device is attached to, and of those
 * only the ones that IOAS maps at this moment. Once an unmap has returned no TLB entry of any VMID of that S2 translates
 * the range; once a detach has returned the device reaches nothing. A guest's own tables may be stale; what stage 2 takes
 * away may not. Where no guest table is in between, DMA must also work.
 *
 * What is reached is what the device's accesses to memory say, whatever lies there.
 */
import type { Observer } from '../../hw/observer.ts';
import { GUEST_PAGES } from '../guest.ts';
import type { Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'dma-contained';

const PAGE_SHIFT = 12n;

/** What an IOAS maps: by IPA page, the guest's page. */
type Mapping = Map<number, number>;

class DmaContained implements Monitor {
  readonly #watched: Watched;
  readonly #spaces = new Map<string, Mapping>();
  /** Pages of each IOAS that an unmap may have taken away before it failed: areas go one by one, as in the kernel. */
  readonly #doubtful = new Map<string, Set<number>>();
  /** Where the DMA under way accessed memory. */
  #reached: bigint[] = [];
  #unwatch: (() => void) | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
    const all = Array.from({ length: GUEST_PAGES }, (_, i) => [i, i] as const);
    for (const { index } of watched.lab.guests) this.#spaces.set(`a${index}`, new Map(all));
  }

  before(o: Operation): void {
    if (o.op !== 'dma') return;
    this.#reached = [];
    const { watch } = this.#watched.lab.machine;
    const before = watch.observer;
    const both: Observer = (act) => {
      before?.(act);
      if (act.kind === 'dma' && act.endpoint === o.dev && !act.aborted)
        this.#reached.push((BigInt(act.paHi >>> 0) << 32n) | BigInt(act.paLo >>> 0));
    };
    watch.observer = both;
    this.#unwatch = () => {
      if (watch.observer === both) watch.observer = before;
    };
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    if (o.op === 'unmap' && result.status === 'error') this.#doubt(o);
    if (result.status !== 'ok') return null;
    if (o.op === 'map') {
      this.#settle(o, (mapping, i) => mapping.set(o.page + i, o.from + i));
    } else if (o.op === 'unmap') this.#settle(o, (mapping, i) => mapping.delete(o.page + i));
    else if (o.op === 'ioasAlloc') this.#spaces.set(o.as, new Map());
    else if (o.op === 'destroy') {
      this.#spaces.delete(o.name);
      this.#doubtful.delete(o.name);
    } else if (o.op === 'dma') return this.#dma(o, result);
    return null;
  }

  #doubt({ ioas, page, pages }: Extract<Operation, { op: 'unmap' }>): void {
    const doubtful = this.#doubtful.get(ioas) ?? new Set();
    for (let i = 0; i < pages; i++) doubtful.add(page + i);
    this.#doubtful.set(ioas, doubtful);
  }

  /** What each page of a range is mapped to is known again. */
  #settle(
    { ioas, page, pages }: Extract<Operation, { op: 'map' | 'unmap' }>,
    change: (mapping: Mapping, i: number) => void,
  ): void {
    const mapping = this.#spaces.get(ioas);
    if (mapping === undefined) return;
    for (let i = 0; i < pages; i++) {
      change(mapping, i);
      this.#doubtful.get(ioas)?.delete(page + i);
    }
  }

  #dma(o: Extract<Operation, { op: 'dma' }>, result: OperationResult & { status: 'ok' }): Violation | null {
    const { lab, model } = this.#watched;
    const ioas = model.ioasOf(o.dev);
    const mapping = ioas === null ? undefined : this.#spaces.get(ioas);
    const what = `the ${o.write === true ? 'write' : 'read'} of ${o.dev} at page ${o.page}`;
    // A device that nobody has bound is the host's.
    if (ioas === null && !lab.device(o.dev).vfio.bound) return null;
    for (const pa of this.#reached) {
      const guest = lab.guests.find((one) => one.holdsPa(pa));
      const page = guest === undefined ? -1 : Number((pa - guest.pa) >> PAGE_SHIFT);
      const where = `${what} reached ${guest === undefined ? `0x${pa.toString(16)}, memory of no VM` : `page ${page} of ${guest.name}`}`;
      if (ioas === null) return { rule: RULE, message: `${where}; it is attached to nothing` };
      if (ioas !== `a${guest?.index}`) return { rule: RULE, message: `${where}; it is attached to ${ioas}` };
      if (![...(mapping ?? new Map<number, number>()).values()].includes(page))
        return { rule: RULE, message: `${where}, which ${ioas} does not map` };
    }
    if (ioas !== null && this.#doubtful.get(ioas)?.has(o.page) === true) return null;
    return this.#mustWork(o, result, mapping, what);
  }

  /** Without a guest's tables in between the answer is known. */
  #mustWork(
    { dev, page, write }: Extract<Operation, { op: 'dma' }>,
    { dma }: OperationResult & { status: 'ok' },
    mapping: Mapping | undefined,
    what: string,
  ): Violation | null {
    const direct = this.#watched.model.reachesDirectly(dev);
    if (!direct || write === true || mapping === undefined) return null;
    const wanted = mapping.get(page);
    if (wanted === dma?.page) return null;
    const got = dma?.page === undefined ? (dma?.status ?? 'nothing') : `page ${dma.page}`;
    return {
      rule: RULE,
      message: `${what} gave ${got}, expected ${wanted === undefined ? 'abort' : `page ${wanted}`}`,
    };
  }
}

/** See the module comment. */
export const dmaContained: Property = {
  name: 'dma-contained',
  title: 'DMA reaches only pages that the IOAS of its attachment maps now',
  foreign: true,
  monitor: (watched) => new DmaContained(watched),
};
