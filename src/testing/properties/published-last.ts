/**
 * While an object is being made nobody can find it: it has no id that can be looked up before its allocation has
 * succeeded, the copy of the answer to user space included, and a vSID leads to no device before the driver's init has.
 * Looked at wherever the call may still fail, and another thread run: allocations, copies, polls.
 */
import { ViommuObject } from '../../iommufd/viommu.ts';
import type { Operation } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'published-last';

/** Operations that make one object. */
const MAKING: ReadonlySet<Operation['op']> = new Set(['hwptAlloc', 'viommuAlloc', 'nestedAlloc', 'vdeviceAlloc']);
/** What may fail: everything of the kind comes before an object is finished. */
const FALLIBLE = /^(alloc|ids|copy|poll):/;
/** Between the driver's init and the answer a vSID may be found already. */
const ANSWER = /^copy:to-user/;

class PublishedLast implements Monitor {
  readonly #watched: Watched;
  #unwatch: (() => void) | null = null;
  #broken: string | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before({ op }: Operation): void {
    if (!MAKING.has(op)) return;
    const objects = this.#objects();
    const vsids = this.#vsids();
    let answered = false;
    this.#unwatch = this.#watched.lab.kernel.onPoint((point) => {
      if (answered || this.#broken !== null || !FALLIBLE.test(point)) return;
      // The last step that may fail: from here on the object is there, and others may use it.
      answered = ANSWER.test(point);
      if (this.#objects() !== objects)
        this.#broken = `during ${op}, at ${point}, the object can be looked up that is not finished`;
      else if (op === 'vdeviceAlloc' && !ANSWER.test(point) && this.#vsids() !== vsids)
        this.#broken = `during ${op}, at ${point}, an invalidation finds the vDEVICE before its init has succeeded`;
    });
  }

  after(): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    return this.#broken === null ? null : { rule: RULE, message: this.#broken };
  }

  #objects(): number {
    return this.#watched.lab.contexts.reduce((sum, { objects }) => sum + objects.size, 0);
  }

  /** vSIDs that lead to a device. */
  #vsids(): number {
    let found = 0;
    for (const { objects } of this.#watched.lab.contexts)
      for (const object of objects.list())
        if (object instanceof ViommuObject) for (const vdev of object.vdevs.values()) if (vdev !== null) found++;
    return found;
  }
}

/** See the module comment. */
export const publishedLast: Property = {
  name: 'published-last',
  title: 'an object that is being made can be found by nobody, nor a vDEVICE by its vSID before its init succeeded',
  foreign: true,
  monitor: (watched) => new PublishedLast(watched),
};
