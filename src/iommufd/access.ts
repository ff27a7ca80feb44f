/** In-kernel users of an IOAS: they pin its pages or copy through it (iommufd's device.c). */

import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { IOVA_LAST, type IoPageTable, type IoptArea, type TableAccess } from './io-pagetable.ts';
import { getIoas, type IoasObject } from './ioas.ts';
import { IommufdObject } from './object.ts';
import type { PinnedRun } from './pages.ts';
import { PAGE_SIZE } from './process.ts';

/** What an external access brings along. */
export interface AccessOps {
  /** It pins pages, so IOVAs and lengths must be page aligned. */
  readonly needsPinPages: boolean;
  /** Must unpin everything in the range before it returns. */
  unmap?(iova: bigint, length: bigint): void;
}

/** An access (struct iommufd_access). */
export class AccessObject extends IommufdObject implements TableAccess {
  readonly kind = 'ACCESS';
  readonly ctx: IommufdCtx;
  readonly iovaAlignment: bigint;
  ioas: IoasObject | null = null;
  /** Null: the core's own, for a HW_QUEUE; it locks areas instead of hearing of unmaps. */
  readonly ops: AccessOps | null;

  constructor(ctx: IommufdCtx, ops: AccessOps | null) {
    super();
    this.ctx = ctx;
    this.ops = ops;
    this.iovaAlignment = ops === null || ops.needsPinPages ? PAGE_SIZE : 1n;
  }

  unmap(iova: bigint, length: bigint): void {
    this.ops?.unmap?.(iova, length);
  }

  release(): void {
    this.detach();
    if (this.ops !== null) this.ctx.putFile();
  }

  /** @throws KernelError ENOENT, EINVAL (attached already), EADDRINUSE (areas are not aligned enough), ENOMEM */
  attach(ioasId: number): void {
    const ioas = getIoas(this.ctx, ioasId);
    try {
      if (this.ioas !== null) fail('EINVAL', 'the access is attached already');
      this.attachTo(ioas);
    } finally {
      this.ctx.objects.put(ioas);
    }
  }

  /** @throws KernelError EADDRINUSE, ENOMEM */
  attachTo(ioas: IoasObject): void {
    ioas.table.addAccess(this);
    ioas.users++;
    this.ioas = ioas;
  }

  /** Moves to another IOAS; pins must be gone by then. @throws KernelError as {@link attach}; ENOENT if not attached */
  replace(ioasId: number): void {
    const old = this.ioas;
    if (old === null) fail('ENOENT', 'the access is not attached');
    const ioas = getIoas(this.ctx, ioasId);
    try {
      if (ioas === old) return;
      ioas.table.addAccess(this);
      ioas.users++;
      this.#leave(old);
      this.ioas = ioas;
    } finally {
      this.ctx.objects.put(ioas);
    }
  }

  /** Leaves the IOAS. Kernel: iommufd_access_detach(). */
  detach(): void {
    const { ioas } = this;
    if (ioas === null) return;
    this.ioas = null;
    this.#leave(ioas);
  }

  #leave(ioas: IoasObject): void {
    this.ops?.unmap?.(0n, IOVA_LAST);
    ioas.table.removeAccess(this);
    ioas.users--;
  }

  #attached(): IoasObject {
    this.use('access');
    return this.ioas ?? fail('ENOENT', 'the access is not attached');
  }

  /**
   * Pins the pages of [iova, iova + length). Kernel: iommufd_access_pin_pages().
   * @throws KernelError EINVAL (length 0; not page aligned; an unmap is under way), EOVERFLOW, ENOENT, EPERM, EFAULT
   */
  pinPages(iova: bigint, length: bigint, write: boolean): PinnedRun[] {
    if (this.iovaAlignment !== PAGE_SIZE || (this.ops !== null && this.ops.unmap === undefined))
      fail('EINVAL', 'the access cannot pin: it takes no unmap calls');
    const last = rangeEnd(iova, length);
    const { table } = this.#attached();
    return table.locked(() => this.#pin(table, iova, last, write));
  }

  #pin(table: IoPageTable, iova: bigint, last: bigint, write: boolean): PinnedRun[] {
    const done: { area: IoptArea; first: number; last: number }[] = [];
    const runs: PinnedRun[] = [];
    try {
      for (const { area, pages, first, end } of table.contiguous(iova, last)) {
        if (area.preventAccess) fail('EINVAL', 'the area is being unmapped');
        checkSeam(area, end < last, first > iova);
        if (write ? !area.prot.write : !area.prot.read)
          fail('EPERM', `the area is not ${write ? 'WRITEABLE' : 'READABLE'}`);
        const [from, to] = [area.indexOf(first), area.indexOf(end)];
        runs.push(...pages.addAccess(from, to, write));
        area.numAccesses++;
        if (this.ops === null) area.numLocks++;
        done.push({ area, first: from, last: to });
      }
    } catch (error) {
      for (const each of done) this.#unpin(each.area, each.first, each.last);
      throw error;
    }
    return runs;
  }

  #unpin(area: IoptArea, first: number, last: number): void {
    area.pages?.removeAccess(first, last);
    area.numAccesses--;
    if (this.ops === null) area.numLocks--;
  }

  /** Undoes {@link pinPages} of exactly the same range. Kernel: iommufd_access_unpin_pages(). */
  unpinPages(iova: bigint, length: bigint): void {
    const { table } = this.#attached();
    table.locked(() => {
      for (const { area, first, end } of table.contiguous(iova, rangeEnd(iova, length)))
        this.#unpin(area, area.indexOf(first), area.indexOf(end));
    });
  }

  /**
   * Copies between `data` and [iova, iova + data.length). Kernel: iommufd_access_rw().
   * @throws KernelError EINVAL (length 0), EOVERFLOW, ENOENT (a hole, after what lies before it), EPERM, EFAULT
   */
  rw(iova: bigint, data: Uint8Array, write: boolean): void {
    const last = rangeEnd(iova, BigInt(data.length));
    const { table } = this.#attached();
    table.locked(() => this.#copyAreas(table, iova, last, data, write));
  }

  #copyAreas(table: IoPageTable, iova: bigint, last: bigint, data: Uint8Array, write: boolean): void {
    for (const { area, pages, first, end } of table.contiguous(iova, last)) {
      if (area.preventAccess) fail('EINVAL', 'the area is being unmapped');
      if (write ? !area.prot.write : !area.prot.read)
        fail('EPERM', `the area is not ${write ? 'WRITEABLE' : 'READABLE'}`);
      if (write && !pages.writable) fail('EPERM', 'the pages were mapped without WRITEABLE');
      const at = Number(first - iova);
      const part = data.subarray(at, at + Number(end - first) + 1);
      this.#copy(pages, area.startByte(first), part, write);
    }
  }

  #copy(pages: IoptArea['pages'], startByte: bigint, data: Uint8Array, write: boolean): void {
    if (pages === null) return;
    const [from, to] = [Number(startByte / PAGE_SIZE), Number((startByte + BigInt(data.length) - 1n) / PAGE_SIZE)];
    const { bus } = this.ctx.kernel;
    try {
      let done = 0;
      let offset = startByte % PAGE_SIZE;
      for (const batch of pages.batches(from, to))
        for (const run of batch.runs) {
          const bytes = Math.min(data.length - done, run.count * Number(PAGE_SIZE) - Number(offset));
          const pa = BigInt(run.pfn) * PAGE_SIZE + offset;
          if (write) bus.storeBytes(pa, data.subarray(done, done + bytes));
          else data.set(bus.loadBytes(pa, bytes), done);
          done += bytes;
          offset = 0n;
        }
    } finally {
      pages.unpinUnheld(from, to);
    }
  }
}

/** Where two areas meet inside a pinned range, both must be page aligned. */
function checkSeam(area: IoptArea, goesOn: boolean, continues: boolean): void {
  const endAligned = ((area.startByte(area.last) + 1n) & (PAGE_SIZE - 1n)) === 0n;
  if ((goesOn && !endAligned) || (continues && area.pageOffset !== 0)) fail('EINVAL', 'areas meet inside a page');
}

function rangeEnd(iova: bigint, length: bigint): bigint {
  if (length === 0n) fail('EINVAL', 'length is 0');
  const last = iova + length - 1n;
  if (last > IOVA_LAST) fail('EOVERFLOW', 'iova and length overflow');
  return last;
}

/** Makes an access for a kernel driver. Kernel: iommufd_access_create(). @throws KernelError ENOMEM */
export function accessCreate(ctx: IommufdCtx, ops: AccessOps): AccessObject {
  const access = ctx.objects.alloc(new AccessObject(ctx, ops));
  // The calling driver is a user until destroy.
  access.users++;
  ctx.getFile();
  ctx.objects.finalize(access);
  return access;
}

/** Makes the core's own access; it goes with its HW_QUEUE. Kernel: iommufd_access_create_internal(). @throws KernelError ENOMEM */
export function accessCreateInternal(ctx: IommufdCtx): AccessObject {
  const access = ctx.objects.alloc(new AccessObject(ctx, null));
  access.users++;
  ctx.objects.finalize(access);
  return access;
}

/** Kernel: iommufd_access_destroy(). */
export function accessDestroy(ctx: IommufdCtx, access: AccessObject): void {
  ctx.objects.destroyUser(access);
}
