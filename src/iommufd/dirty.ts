/** Dirty tracking of paging HWPTs (hw_pagetable.c, io_pagetable.c). */
import { HWPT_GET_DIRTY_FLAGS, HWPT_SET_DIRTY_FLAGS } from '../../spec/uapi.ts';
import { iotlbSync, newGather } from '../driver/iommu/map.ts';
import type { DirtyOps, IommuDomain } from '../driver/iommu/ops.ts';
import { KernelError } from '../driver/kernel.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { getHwptPaging } from './hwpt.ts';
import { IOVA_LAST, type IoPageTable } from './io-pagetable.ts';
import type { Ucmd, UserPointer } from './ucmd.ts';

/** IOMMU_HWPT_SET_DIRTY_TRACKING. */
export function hwptSetDirtyTracking(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_HWPT_SET_DIRTY_TRACKING'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags & ~HWPT_SET_DIRTY_FLAGS.ENABLE) fail('EOPNOTSUPP', 'unknown flags');
  const hwpt = getHwptPaging(ctx, cmd.hwpt_id);
  try {
    const domain = hwpt.liveDomain;
    const { dirtyOps } = domain;
    if (dirtyOps === undefined) fail('EOPNOTSUPP', `${hwpt.label} was made without DIRTY_TRACKING`);
    const enable = (cmd.flags & HWPT_SET_DIRTY_FLAGS.ENABLE) !== 0;
    // What was dirty before is not reported after.
    hwpt.ioas.table.locked(() => {
      if (enable) clearAll(hwpt.ioas.table, domain, dirtyOps);
      dirtyOps.setDirtyTracking(domain, enable);
    });
  } finally {
    ctx.objects.put(hwpt);
  }
}

function clearAll(table: IoPageTable, domain: IommuDomain, ops: DirtyOps): void {
  const gather = newGather();
  for (const area of table.areas)
    if (area.pages !== null) ops.readAndClearDirty(domain, area.start, area.length, false, () => undefined, gather);
  iotlbSync(domain, gather);
}

/** IOMMU_HWPT_GET_DIRTY_BITMAP. Errors met while walking (a hole, an unwritable bitmap) are dropped, as 7.2 does. */
export function hwptGetDirtyBitmap(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_HWPT_GET_DIRTY_BITMAP'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags & ~HWPT_GET_DIRTY_FLAGS.NO_CLEAR || cmd.__reserved !== 0)
    fail('EOPNOTSUPP', 'unknown flags, or __reserved is not 0');
  const hwpt = getHwptPaging(ctx, cmd.hwpt_id);
  try {
    const { table } = hwpt.ioas;
    const domain = hwpt.liveDomain;
    checkRange(table, cmd);
    const { dirtyOps } = domain;
    if (dirtyOps === undefined) fail('EOPNOTSUPP', `${hwpt.label} was made without DIRTY_TRACKING`);
    const bitmap = new UserBitmap(ucmd.pointer('data'), cmd.iova, cmd.page_size);
    try {
      table.locked(() => readDirty(table, domain, dirtyOps, cmd, bitmap));
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
    }
  } finally {
    ctx.objects.put(hwpt);
  }
}

/** Kernel: iommufd_check_iova_range(). */
function checkRange(table: IoPageTable, cmd: Command<'IOMMU_HWPT_GET_DIRTY_BITMAP'>): void {
  const { iova, length, page_size: pageSize } = cmd;
  // A length of 0 wraps, and so overflows with any IOVA but 0.
  const last = iova + BigInt.asUintN(64, length - 1n);
  if (last > IOVA_LAST) fail('EOVERFLOW', 'iova and length overflow');
  const mask = table.iovaAlignment - 1n;
  if ((iova & mask) !== 0n || ((last + 1n) & mask) !== 0n)
    fail('EINVAL', `the range is not aligned to 0x${table.iovaAlignment.toString(16)}`);
  if (pageSize === 0n) fail('EINVAL', 'page_size is 0');
  if ((iova & (pageSize - 1n)) !== 0n || ((last + 1n) & (pageSize - 1n)) !== 0n)
    fail('EINVAL', `the range is not aligned to page_size 0x${pageSize.toString(16)}`);
}

/** Area after area, as far as they follow each other without a hole. Kernel: __iommu_read_and_clear_dirty(). */
function readDirty(
  table: IoPageTable,
  domain: IommuDomain,
  ops: DirtyOps,
  cmd: Command<'IOMMU_HWPT_GET_DIRTY_BITMAP'>,
  bitmap: UserBitmap,
): void {
  const noClear = (cmd.flags & HWPT_GET_DIRTY_FLAGS.NO_CLEAR) !== 0;
  const gather = newGather();
  const mark = (iova: bigint, length: bigint): void => bitmap.set(iova, length);
  try {
    for (const { first, end } of table.contiguous(cmd.iova, BigInt.asUintN(64, cmd.iova + cmd.length - 1n)))
      ops.readAndClearDirty(domain, first, end - first + 1n, noClear, mark, gather);
  } finally {
    if (!noClear) {
      iotlbSync(domain, gather);
      dirtyRead(table, domain, cmd);
    }
  }
}

/** Says that pages reported clean are: a write to one of them is seen again. */
function dirtyRead({ kernel }: IoPageTable, domain: IommuDomain, cmd: Command<'IOMMU_HWPT_GET_DIRTY_BITMAP'>): void {
  const { iova, length } = cmd;
  const say = (): void =>
    kernel.announce({
      what: 'operation',
      act: 'done',
      where: '',
      id: iova,
      owner: 'dirty read',
      bytes: Number(length),
    });
  if (domain.ops.retire === undefined) say();
  else domain.ops.retire(domain, '', say);
}

/** Bit i of user memory stands for page i from the first IOVA on. Bits are only ever set. */
class UserBitmap {
  readonly #pointer: UserPointer;
  readonly #base: bigint;
  readonly #pageSize: bigint;

  constructor(pointer: UserPointer, base: bigint, pageSize: bigint) {
    this.#pointer = pointer;
    this.#base = base;
    // The kernel takes the lowest set bit of whatever it is given.
    this.#pageSize = pageSize & -pageSize;
  }

  set(iova: bigint, length: bigint): void {
    if (length === 0n) return;
    const first = Number((iova - this.#base) / this.#pageSize);
    const last = Number((iova + length - 1n - this.#base) / this.#pageSize);
    const [from, to] = [first >>> 3, last >>> 3];
    const bytes = this.#pointer.read(from, to - from + 1);
    for (let bit = first; bit <= last; bit++) {
      const at = (bit >>> 3) - from;
      bytes[at] = (bytes[at] ?? 0) | (1 << (bit & 7));
    }
    this.#pointer.write(from, bytes);
  }
}
