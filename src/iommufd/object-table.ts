/** Ids, counts and the ways an object comes and goes (drivers/iommu/iommufd/main.c). */
import type { IdAllocator, Kernel, Lock } from '../driver/kernel.ts';
import { fail } from './errors.ts';
import type { IommufdObject, ObjectType } from './object.ts';

/** Ids have 31 bits (xa_limit_31b); 0 is never one. */
const ID_MAX = 2 ** 31 - 1;

/** A slot whose id is taken but names nothing: not finalized yet, or left behind by an unbind. */
type Empty = 'reserved' | 'tombstone';

/** What a kernel-side destroy leaves in the slot. */
type Residue = 'nothing' | 'tombstone';

/** The id table of one context (struct iommufd_ctx.objects). Ids are the lowest free ones. */
export class ObjectTable {
  readonly #kernel: Kernel;
  readonly #ids: IdAllocator;
  /** By id: the lowest free id is given next, so the array stays dense. */
  readonly #slots: (IommufdObject | Empty | undefined)[] = [];
  #taken = 0;
  readonly #lock: Lock;
  #live = 0;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#ids = kernel.ids('iommufd:object', 1, ID_MAX, 'ENOSPC');
    this.#lock = kernel.lock('iommufd:objects');
  }

  /** Number of finalized objects. */
  get size(): number {
    return this.#live;
  }

  /** True if no id is taken: no object, no reservation, no tombstone. */
  get empty(): boolean {
    return this.#taken === 0;
  }

  /** Finalized objects in ascending id order, for inspection. */
  list(): IommufdObject[] {
    const out: IommufdObject[] = [];
    for (const slot of this.#slots) if (typeof slot === 'object') out.push(slot);
    return out;
  }

  /** Calls `visit` for the objects of {@link list}, without making one. */
  forEach(visit: (object: IommufdObject) => void): void {
    for (const slot of this.#slots) if (typeof slot === 'object') visit(slot);
  }

  /** The finalized object of an id without taking a count, for inspection. */
  peek(id: number): IommufdObject | undefined {
    const slot = this.#slot(id);
    return typeof slot === 'object' ? slot : undefined;
  }

  /** What an id, which may be any number, has. */
  #slot(id: number): IommufdObject | Empty | undefined {
    return id >= 0 && id < this.#slots.length ? this.#slots[id] : undefined;
  }

  /**
   * Reserves an id for a new object; nobody can look it up before {@link finalize}. Kernel: _iommufd_object_alloc().
   * @throws KernelError ENOMEM, ENOSPC
   */
  alloc<T extends IommufdObject>(object: T): T {
    this.#kernel.alloc(`iommufd:${object.kind}`);
    this.#kernel.withLock(this.#lock, () => {
      object.id = this.#ids.alloc();
      this.#slots[object.id] = 'reserved';
      this.#taken++;
    });
    return object;
  }

  /** Publishes the object. Cannot fail; from here on others may hold it. */
  finalize(object: IommufdObject): void {
    if (this.#slots[object.id] !== 'reserved') throw new Error(`${object.label} is finalized twice`);
    this.#slots[object.id] = object;
    this.#live++;
  }

  /** Gives up an object that nobody else has seen; its memory and id are gone. Kernel: iommufd_object_abort(). */
  abort(object: IommufdObject): void {
    if (this.#slots[object.id] !== 'reserved') throw new Error(`${object.label} is aborted after it was finalized`);
    this.#clear(object.id);
    if (object.users !== 1) this.#warn(`${object.label} is aborted with ${object.users} users`);
    object.users = 0;
    object.live = false;
  }

  /** Releases what the object already holds, then aborts it. Kernel: iommufd_object_abort_and_destroy(). */
  abortAndDestroy(object: IommufdObject): void {
    object.abortFile?.();
    if (object.abort !== undefined) object.abort();
    else object.release();
    this.abort(object);
  }

  /**
   * Looks an object up and takes both counts. Kernel: iommufd_get_object().
   * @param types the types that will do; none: any
   * @throws KernelError ENOENT for an unknown, reserved or tombstoned id, or another type
   */
  get(id: number, ...types: readonly ObjectType[]): IommufdObject {
    const slot = this.#slot(id);
    if (typeof slot !== 'object' || (types.length > 0 && !types.includes(slot.kind)) || !this.lockObj(slot))
      fail('ENOENT', types.length > 0 ? `id ${id} is not a ${types.join(' or ')}` : `id ${id} names no object`);
    return slot;
  }

  /** Takes both counts if the object is not on its way out. Kernel: iommufd_lock_obj(). */
  lockObj(object: IommufdObject): boolean {
    if (object.users === 0 || object.waitCnt === 0) return false;
    object.users++;
    object.waitCnt++;
    return true;
  }

  /** Gives both counts back. Kernel: iommufd_put_object(). */
  put(object: IommufdObject): void {
    this.dropUsers(object);
    object.waitCnt--;
  }

  /** Drops a count on `users` that is known not to be the last. */
  dropUsers(object: IommufdObject): void {
    object.use('put');
    object.users--;
    if (object.users <= 0) this.#warn(`${object.label}: users fell to ${object.users}`);
  }

  /**
   * User space's DESTROY: nothing is held, nothing waited for before the count was tested.
   * @param removed runs once the slot is clear, still under the table lock
   * @throws KernelError ENOENT, EBUSY
   */
  remove(id: number, removed?: (object: IommufdObject) => void): void {
    const object = this.#kernel.withLock(this.#lock, () => {
      const slot = this.#slots[id];
      if (typeof slot !== 'object') fail('ENOENT', `id ${id} names no object`);
      if (slot.users !== 1) fail('EBUSY', `${slot.label} has ${slot.users - 1} other users`);
      slot.users = 0;
      this.#unlink(slot, 'nothing');
      removed?.(slot);
      return slot;
    });
    object.waitCnt--;
    this.#awaitPuts(object);
    this.#free(object);
  }

  /**
   * A kernel user's destroy; the caller owns one count on `users`, and it is gone afterwards whatever the outcome.
   * False: somebody kept the object, which stays until close. Kernel: iommufd_object_destroy_user().
   */
  destroyUser(object: IommufdObject): boolean {
    return this.#removeOwned(object, 'nothing');
  }

  /** The same, but the id is never used again. Kernel: iommufd_object_tombstone_user(). */
  tombstoneUser(object: IommufdObject): boolean {
    return this.#removeOwned(object, 'tombstone');
  }

  /** Drops one count and destroys the object if only the table is left. Kernel: iommufd_object_put_and_try_destroy(). */
  putAndTryDestroy(object: IommufdObject): void {
    this.dropUsers(object);
    if (object.users !== 1 || this.#slots[object.id] !== object) return;
    object.users = 0;
    this.#unlink(object, 'nothing');
    object.waitCnt--;
    this.#awaitPuts(object);
    this.#free(object);
  }

  /**
   * Destroys everything, users before what they use, lowest id first in each pass. Kernel: iommufd_fops_release().
   * @returns objects whose counts never allowed it: each is a leak
   */
  closeAll(): IommufdObject[] {
    for (let progress = true; progress; ) {
      progress = false;
      for (const object of this.list()) {
        if (object.users !== 1) continue;
        object.users = 0;
        this.#unlink(object, 'nothing');
        object.waitCnt--;
        this.#free(object);
        progress = true;
      }
    }
    const leaked = this.list();
    for (const object of leaked) this.#warn(`${object.label} is leaked with ${object.users} users`);
    for (const [id, slot] of this.#slots.entries()) if (slot === 'tombstone') this.#clear(id);
    return leaked;
  }

  #removeOwned(object: IommufdObject, residue: Residue): boolean {
    object.use('destroy');
    object.waitCnt--;
    if (object.waitCnt > 0) object.preDestroy?.();
    if (!this.#awaitPuts(object)) {
      object.waitCnt++;
      this.dropUsers(object);
      return false;
    }
    this.dropUsers(object);
    if (object.users !== 1) {
      object.waitCnt++;
      this.#warn(`${object.label} is destroyed with ${object.users - 1} other users`);
      return false;
    }
    object.users = 0;
    this.#unlink(object, residue);
    this.#free(object);
    return true;
  }

  /** The kernel sleeps up to 60 s for the last put. */
  #awaitPuts(object: IommufdObject): boolean {
    if (object.waitCnt === 0 || this.#kernel.poll('iommufd:wait-cnt', () => object.waitCnt === 0)) return true;
    this.#warn(`timed out waiting for ${object.label} to become free`);
    return false;
  }

  #unlink(object: IommufdObject, residue: Residue): void {
    this.#live--;
    if (residue === 'tombstone') this.#slots[object.id] = 'tombstone';
    else this.#clear(object.id);
  }

  #clear(id: number): void {
    this.#slots[id] = undefined;
    this.#taken--;
    this.#ids.free(id);
  }

  #free(object: IommufdObject): void {
    object.release();
    object.live = false;
  }

  #warn(text: string): void {
    this.#kernel.log('warn', `iommufd: ${text}`);
  }
}
