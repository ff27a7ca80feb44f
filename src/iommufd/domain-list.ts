/** The domains of an IOAS in the kernel's order: a removed one's place is taken by the last. */
import type { IommuDomain } from '../driver/iommu/ops.ts';

const lowestBit = (n: bigint): bigint => n & -n;

/** See the module comment. Adding, removing and asking do not slow down with the number of domains. */
export class DomainList {
  readonly #items: IommuDomain[] = [];
  readonly #index = new Map<IommuDomain, number>();
  /** How many domains have each smallest page size. */
  readonly #pageSizes = new Map<bigint, number>();

  get size(): number {
    return this.#items.length;
  }

  /** The one that stores the pins of new areas. */
  get first(): IommuDomain | undefined {
    return this.#items[0];
  }

  [Symbol.iterator](): Iterator<IommuDomain> {
    return this.#items[Symbol.iterator]();
  }

  /** Largest of the domains' smallest page sizes; 1 without domains. */
  get alignment(): bigint {
    let largest = 1n;
    for (const size of this.#pageSizes.keys()) if (size > largest) largest = size;
    return largest;
  }

  /** Smallest page of a domain. */
  static pageSize(domain: IommuDomain): bigint {
    return lowestBit(domain.pgsizeBitmap);
  }

  add(domain: IommuDomain): void {
    this.#index.set(domain, this.#items.length);
    this.#items.push(domain);
    const size = DomainList.pageSize(domain);
    this.#pageSizes.set(size, (this.#pageSizes.get(size) ?? 0) + 1);
  }

  /** @throws Error if the domain is not in the list */
  remove(domain: IommuDomain): void {
    const at = this.#index.get(domain);
    const tail = this.#items.pop();
    if (at === undefined || tail === undefined) throw new Error('the domain is not in this IOAS');
    this.#index.delete(domain);
    if (tail !== domain) {
      this.#items[at] = tail;
      this.#index.set(tail, at);
    }
    const size = DomainList.pageSize(domain);
    const left = (this.#pageSizes.get(size) ?? 1) - 1;
    if (left === 0) this.#pageSizes.delete(size);
    else this.#pageSizes.set(size, left);
  }
}
