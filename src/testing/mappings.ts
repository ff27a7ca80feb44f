/** What the IO address spaces of a lab map, kept from what was asked for and granted: no code shared with iommufd. */
import { GUEST_PAGES } from './guest.ts';
import type { Operation, OperationResult } from './operation.ts';

/** Where an IPA page leads. */
export interface MappedPage {
  /** Number of the VM. */
  readonly vm: number;
  /** Page of the VM. */
  readonly page: number;
  readonly writable: boolean;
}

/** What an IOAS maps, by IPA page. */
export type Mapping = ReadonlyMap<number, MappedPage>;

/** A page that may be mapped as before or not at all: an unmap that fails has unmapped the areas before the one it stopped at. */
export type Doubtful = ReadonlySet<number>;

interface Space {
  readonly pages: Map<number, MappedPage>;
  readonly doubtful: Set<number>;
}

const NOTHING: ReadonlySet<number> = new Set();

/** Number of a VM, from its name. */
const vmNumber = (name: string): number => Number(name.replace(/^vm/, ''));

/** See the module comment. */
export class Mappings {
  readonly #spaces = new Map<string, Space>();
  readonly #vms: number;

  /** @param vms how many VMs have their memory mapped, each in a space of its own */
  constructor(vms: number) {
    this.#vms = vms;
    this.#begin();
  }

  /** Each VM's memory in its own space, and nothing else. */
  #begin(): void {
    const vms = this.#vms;
    this.#spaces.clear();
    for (let vm = 0; vm < vms; vm++) {
      const pages = new Map<number, MappedPage>();
      for (let page = 0; page < GUEST_PAGES; page++) pages.set(page, { vm, page, writable: true });
      this.#spaces.set(`a${vm}`, { pages, doubtful: new Set() });
    }
  }

  /** What an IOAS maps; undefined: there is none of that name. */
  of(ioas: string): Mapping | undefined {
    return this.#spaces.get(ioas)?.pages;
  }

  /** Pages of an IOAS of which it is not known whether they are still mapped. */
  doubtful(ioas: string): Doubtful {
    return this.#spaces.get(ioas)?.doubtful ?? NOTHING;
  }

  /** Takes note of an operation and how it ended. */
  apply(o: Operation, result: OperationResult): void {
    if (result.status === 'skipped') return;
    const done = result.status === 'ok';
    switch (o.op) {
      case 'map':
        if (done) this.#fill(o, (i) => ({ vm: vmNumber(o.vm), page: o.from + i, writable: o.readonly !== true }));
        return;
      case 'copy': {
        const source = this.#spaces.get(o.source)?.pages;
        if (done && source !== undefined)
          this.#fill(o, (i) => {
            const from = source.get(o.from + i);
            return from === undefined ? undefined : { ...from, writable: o.readonly !== true };
          });
        return;
      }
      case 'unmap':
        if (done) this.#fill(o, () => undefined);
        else this.#doubt(o.ioas, o.page, o.pages);
        return;
      case 'unmapAll':
        if (done) this.#fill({ ioas: o.ioas, page: 0, pages: GUEST_PAGES * 2 }, () => undefined);
        else this.#doubt(o.ioas, 0, GUEST_PAGES * 2);
        return;
      case 'kexec':
        if (done) this.#begin();
        return;
      case 'ioasAlloc':
        if (done) this.#spaces.set(o.as, { pages: new Map(), doubtful: new Set() });
        return;
      case 'destroy':
        if (done) this.#spaces.delete(o.name);
        return;
      default:
    }
  }

  #fill(
    { ioas, page, pages }: { readonly ioas: string; readonly page: number; readonly pages: number },
    what: (i: number) => MappedPage | undefined,
  ): void {
    const space = this.#spaces.get(ioas);
    if (space === undefined) return;
    for (let i = 0; i < pages; i++) {
      const to = what(i);
      if (to === undefined) space.pages.delete(page + i);
      else space.pages.set(page + i, to);
      space.doubtful.delete(page + i);
    }
  }

  #doubt(ioas: string, page: number, pages: number): void {
    const space = this.#spaces.get(ioas);
    for (let i = 0; i < pages; i++) space?.doubtful.add(page + i);
  }
}
