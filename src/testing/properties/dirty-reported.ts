/**
 * What a VMM copies while its VM runs: a page that a device has written through a HWPT is in the next dirty bitmap of it
 * (no page is clean that is not: its TLB entry had to go before the bitmap was given), and once it was read it is clean
 * until something writes it again. A page is dirty from its mapping on, as the driver maps it writable; a bitmap ends at
 * the first page that is not mapped.
 */
import { GUEST_PAGES } from '../guest.ts';
import { Mappings } from '../mappings.ts';
import type { DmaOutcome, Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'dirty-reported';

type Access = Extract<Operation, { op: 'dma' | 'translate' }>;

/** A HWPT with dirty tracking. */
interface Tracked {
  readonly ioas: string;
  /** A VMM has asked for it. */
  on: boolean;
  /** Pages that devices have written since they were last clean. */
  readonly written: Set<number>;
  /** Pages that may be dirty. */
  readonly perhaps: Set<number>;
  /** A transaction waits, and may write at any time. */
  waiting: boolean;
}

const allPages = (): number[] => Array.from({ length: GUEST_PAGES }, (_, page) => page);

class DirtyReported implements Monitor {
  readonly #watched: Watched;
  readonly #mappings: Mappings;
  readonly #tracked = new Map<string, Tracked>();
  /** What the next operation does may end half-way. */
  #armed = false;
  /** An invalidation was not seen to complete: from then on devices may hold what should be gone. */
  #unheard = false;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#mappings = new Mappings(watched.lab.guests.length);
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#mappings.apply(o, result);
    const armed = this.#armed;
    this.#armed = o.op === 'fail';
    if ((o.op === 'fail' && o.point.startsWith('poll:')) || o.op === 'atcHang') this.#unheard = true;
    if (o.op === 'kexec') this.#tracked.clear();
    else if (o.op === 'hwptAlloc' || o.op === 'destroy') this.#object(o, result);
    else if (o.op === 'map' || o.op === 'copy') this.#perhaps(o.ioas, o.page, o.pages);
    else if (o.op === 'unmap') this.#forget(o.ioas, o.page, o.pages, result);
    else if (o.op === 'unmapAll') this.#forget(o.ioas, 0, GUEST_PAGES, result);
    else if (o.op === 'dma' || o.op === 'translate') this.#access(o, result);
    else if (o.op === 'dirtyTracking') this.#switch(o.hwpt, o.on, armed, result);
    else if (o.op === 'dirtyRead') return this.#read(o.hwpt, armed, result);
    return null;
  }

  #object(o: Extract<Operation, { op: 'hwptAlloc' | 'destroy' }>, { status }: OperationResult): void {
    if (status !== 'ok') return;
    if (o.op === 'destroy') this.#tracked.delete(o.name);
    else if (o.dirty === true) {
      const { as, ioas } = o;
      // What is mapped already is mapped into it, and dirty.
      this.#tracked.set(as, { ioas, on: false, written: new Set(), perhaps: new Set(allPages()), waiting: false });
    }
  }

  #on(ioas: string): Tracked[] {
    return [...this.#tracked.values()].filter((one) => one.ioas === ioas);
  }

  #perhaps(ioas: string, page: number, pages: number): void {
    for (const { perhaps } of this.#on(ioas)) for (let i = 0; i < pages; i++) perhaps.add(page + i);
  }

  /** What is unmapped is written no more; what may be mapped still, may be dirty. */
  #forget(ioas: string, page: number, pages: number, { status }: OperationResult): void {
    for (const { written, perhaps } of this.#on(ioas))
      for (let i = page; i < page + pages; i++) {
        if (status !== 'ok' && written.has(i)) perhaps.add(i);
        written.delete(i);
      }
  }

  #access(o: Access, result: OperationResult): void {
    const { model, lab } = this.#watched;
    if (o.write !== true || result.status !== 'ok') return;
    // A device that keeps translations writes without asking, until it is told to forget.
    for (const one of this.#tracked.values()) if (o.op === 'translate' || o.ats === true) one.perhaps.add(o.page);
    const name = model.pagingOf(o.dev, o.pasid);
    const one = name === null ? undefined : this.#tracked.get(name);
    if (one === undefined || model.offOf(lab.device(o.dev).smmu) !== undefined) return;
    this.#wrote(one, o, result.dma);
  }

  #wrote(one: Tracked, { op, page }: Access, dma: DmaOutcome | undefined): void {
    one.perhaps.add(page);
    if (dma?.status === 'stall') one.waiting = true;
    const mapped = this.#mappings.of(one.ioas)?.get(page)?.writable === true;
    if (op === 'dma' && dma?.status === 'ok' && mapped) one.written.add(page);
  }

  /** Tracking begins: nothing is dirty, as far as one may read it. */
  #switch(hwpt: string, on: boolean, armed: boolean, { status }: OperationResult): void {
    const one = this.#tracked.get(hwpt);
    if (one === undefined) return;
    if (status === 'ok') one.on = on;
    if (!on) return;
    const pages = [...one.written];
    one.written.clear();
    if (status === 'ok' && !armed) one.perhaps.clear();
    else for (const page of pages) one.perhaps.add(page);
  }

  /** How many pages from the first on are mapped: the bitmap ends there. */
  #reach(ioas: string): number {
    const mapping = this.#mappings.of(ioas);
    const doubtful = this.#mappings.doubtful(ioas);
    const end = allPages().find((page) => mapping?.has(page) !== true || doubtful.has(page));
    return end ?? GUEST_PAGES;
  }

  #read(hwpt: string, armed: boolean, result: OperationResult): Violation | null {
    const one = this.#tracked.get(hwpt);
    if (one === undefined || result.status !== 'ok') return null;
    const said = new Set(result.dirty ?? []);
    const sure = one.on && !armed && !this.#unheard;
    const reach = this.#reach(one.ioas);
    const wrong = sure ? wrongPage(one, said, reach) : null;
    for (let page = 0; page < reach; page++) {
      one.written.delete(page);
      if (sure) one.perhaps.delete(page);
    }
    return wrong === null ? null : { rule: RULE, message: `the dirty bitmap of ${hwpt} ${wrong}` };
  }
}

/** What a bitmap says wrong of pages before `reach`; null: nothing. */
function wrongPage({ written, perhaps, waiting }: Tracked, said: ReadonlySet<number>, reach: number): string | null {
  for (const page of written)
    if (page < reach && !said.has(page)) return `says that page ${page} is clean; a device has written it`;
  if (waiting) return null;
  for (const page of said)
    if (!perhaps.has(page)) return `says that page ${page} is dirty; nothing has written it since it was read`;
  return null;
}

/** See the module comment. */
export const dirtyReported: Property = {
  name: 'dirty-reported',
  title: 'a page that a device has written is in the next dirty bitmap, and then clean until it is written again',
  foreign: true,
  monitor: (watched) => new DirtyReported(watched),
};
