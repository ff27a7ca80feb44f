/**
 * DMA reaches only what is mapped now: pages of the VM whose IO address space the device is attached to, and of those
 * only the ones that IOAS maps at this moment. Once an unmap has returned no TLB entry of any VMID of that S2 translates
 * the range; once a detach has returned the device reaches nothing. A guest's own tables may be stale; what stage 2 takes
 * away may not. Where no guest table is in between, DMA must also work.
 */
import { FIRST_DATA_PAGE, GUEST_PAGES } from '../guest.ts';
import type { Operation, OperationResult } from '../operations.ts';
import { WRITE_OFFSET } from '../operations.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'dma-contained';

/** What an IOAS maps: by IPA page, the guest's page. */
type Mapping = Map<number, number>;

class DmaContained implements Monitor {
  readonly #watched: Watched;
  readonly #spaces = new Map<string, Mapping>();

  constructor(watched: Watched) {
    this.#watched = watched;
    const all = Array.from({ length: GUEST_PAGES }, (_, i) => [i, i] as const);
    for (const { index } of watched.lab.guests) this.#spaces.set(`a${index}`, new Map(all));
  }

  after(o: Operation, result: OperationResult): Violation | null {
    if (result.status !== 'ok') return null;
    if (o.op === 'map') {
      for (let i = 0; i < o.pages; i++) this.#spaces.get(o.ioas)?.set(o.page + i, o.from + i);
    } else if (o.op === 'unmap') {
      for (let i = 0; i < o.pages; i++) this.#spaces.get(o.ioas)?.delete(o.page + i);
    } else if (o.op === 'ioasAlloc') this.#spaces.set(o.as, new Map());
    else if (o.op === 'destroy') this.#spaces.delete(o.name);
    else if (o.op === 'dma') return this.#dma(o, result);
    return null;
  }

  #dma(o: Extract<Operation, { op: 'dma' }>, result: OperationResult & { status: 'ok' }): Violation | null {
    const reached = o.write === true ? this.#written() : result.dma?.vm === undefined ? [] : [result.dma];
    const ioas = this.#watched.model.ioasOf(o.dev);
    const mapping = ioas === null ? undefined : this.#spaces.get(ioas);
    const what = `the ${o.write === true ? 'write' : 'read'} of ${o.dev} at page ${o.page}`;
    for (const { vm, page } of reached) {
      const where = `${what} reached page ${page} of vm${vm}`;
      if (ioas === null) return { rule: RULE, message: `${where}; it is attached to nothing` };
      if (ioas !== `a${vm}`) return { rule: RULE, message: `${where}; it is attached to ${ioas}` };
      if (![...(mapping ?? new Map<number, number>()).values()].includes(page ?? -1))
        return { rule: RULE, message: `${where}, which ${ioas} does not map` };
    }
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

  /** Pages of VMs that a DMA has written since the last look. */
  #written(): { vm: number; page: number }[] {
    const { lab } = this.#watched;
    const out: { vm: number; page: number }[] = [];
    for (const guest of lab.guests)
      for (let page = FIRST_DATA_PAGE; page < GUEST_PAGES; page++) {
        const at = guest.pageAt(page) + BigInt(WRITE_OFFSET);
        if (lab.machine.memory.read64(at) === 0n) continue;
        lab.machine.memory.write64(at, 0n);
        out.push({ vm: guest.index, page });
      }
    return out;
  }
}

/** See the module comment. */
export const dmaContained: Property = {
  name: 'dma-contained',
  title: 'DMA reaches only pages that the IOAS of its attachment maps now',
  foreign: true,
  weights: {
    hwptAlloc: 3,
    viommuAlloc: 3,
    vdeviceAlloc: 3,
    nestedAlloc: 4,
    attach: 8,
    detach: 3,
    destroy: 3,
    map: 3,
    unmap: 4,
    dma: 20,
    guestMap: 3,
    invalidate: 3,
    unbind: 1,
    bind: 1,
  },
  monitor: (watched) => new DmaContained(watched),
};
