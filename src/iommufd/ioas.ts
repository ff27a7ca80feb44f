/** IO address spaces: the object and its ioctls (iommufd's ioas.c). */
import { IOAS_MAP_FLAGS, iommu_iova_range, OPTION_OP } from '../../spec/uapi.ts';
import type { MapProt } from '../driver/iommu/ops.ts';
import type { Lock } from '../driver/kernel.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import type { HwptPaging } from './hwpt.ts';
import { DisjointIntervals, type Interval } from './intervals.ts';
import { IOVA_LAST, IoPageTable, type PagesPiece } from './io-pagetable.ts';
import { IommufdObject } from './object.ts';
import { IoptPages, type PageSource } from './pages.ts';
import { PAGE_SIZE } from './process.ts';
import type { Ucmd } from './ucmd.ts';

const MAP_FLAGS = IOAS_MAP_FLAGS.FIXED_IOVA | IOAS_MAP_FLAGS.WRITEABLE | IOAS_MAP_FLAGS.READABLE;
const RW_FLAGS = IOAS_MAP_FLAGS.WRITEABLE | IOAS_MAP_FLAGS.READABLE;

/** An IO address space (struct iommufd_ioas). */
export class IoasObject extends IommufdObject {
  readonly kind = 'IOAS';
  readonly table: IoPageTable;
  /** Held while a HWPT of the IOAS is made, from allocation to finalize. */
  readonly mutex: Lock;
  readonly hwpts = new Set<HwptPaging>();

  constructor(ctx: IommufdCtx) {
    super();
    this.table = new IoPageTable(ctx.kernel, ctx.maxAutoAlignment);
    this.mutex = ctx.kernel.lock('iommufd:ioas');
  }

  release(): void {
    this.table.unmap(0n, IOVA_LAST);
  }
}

/** An IOAS by id, both counts taken. @throws KernelError ENOENT */
export function getIoas(ctx: IommufdCtx, id: number): IoasObject {
  return ctx.objects.get(id, 'IOAS') as IoasObject;
}

/** Runs `body` with a looked-up IOAS. @throws KernelError ENOENT */
function withIoas<T>(ctx: IommufdCtx, id: number, body: (ioas: IoasObject) => T): T {
  const ioas = getIoas(ctx, id);
  try {
    return body(ioas);
  } finally {
    ctx.objects.put(ioas);
  }
}

/** IOMMU_IOAS_ALLOC. */
export function ioasAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags !== 0) fail('EOPNOTSUPP', 'flags is not 0');
  const ioas = ctx.objects.alloc(new IoasObject(ctx));
  cmd.out_ioas_id = ioas.id;
  try {
    ucmd.respond();
  } catch (error) {
    ctx.objects.abortAndDestroy(ioas);
    throw error;
  }
  ctx.objects.finalize(ioas);
}

/** IOMMU_IOAS_IOVA_RANGES. */
export function ioasIovaRanges(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_IOVA_RANGES'>>): void {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  withIoas(ctx, cmd.ioas_id, ({ table }) => {
    const capacity = cmd.num_iovas;
    const ranges = table.usable();
    const array = ucmd.pointer('allowed_iovas');
    for (const [i, { start, last }] of ranges.slice(0, capacity).entries())
      array.write(i * iommu_iova_range.bytes, iommu_iova_range.encode({ start, last }));
    cmd.num_iovas = ranges.length;
    cmd.out_iova_alignment = table.iovaAlignment;
    ucmd.respond();
    if (ranges.length > capacity) fail('EMSGSIZE', `${ranges.length} ranges, room for ${capacity}`);
  });
}

/** IOMMU_IOAS_ALLOW_IOVAS. */
export function ioasAllowIovas(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_ALLOW_IOVAS'>>): void {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  withIoas(ctx, cmd.ioas_id, ({ table }) => {
    const allowed = new DisjointIntervals<bigint, Interval<bigint>>();
    const array = ucmd.pointer('allowed_iovas');
    for (let i = 0; i < cmd.num_iovas; i++) {
      const { bytes } = iommu_iova_range;
      const { start, last } = iommu_iova_range.decode(array.read(i * bytes, bytes));
      if (start >= last) fail('EINVAL', `range ${i} is empty or of one byte`);
      if (allowed.first(start, last) !== undefined) fail('EINVAL', `range ${i} overlaps an earlier one`);
      ctx.kernel.alloc('iommufd:allowed');
      allowed.insert({ start, last });
    }
    table.setAllowed(allowed);
  });
}

function mapProt(flags: number): MapProt {
  return {
    read: (flags & IOAS_MAP_FLAGS.READABLE) !== 0,
    write: (flags & IOAS_MAP_FLAGS.WRITEABLE) !== 0,
    cache: true,
  };
}

function checkMap(flags: number, reserved: number, ...sizes: readonly bigint[]): void {
  if (flags & ~MAP_FLAGS || reserved !== 0) fail('EOPNOTSUPP', 'unknown flags, or __reserved is not 0');
  if (sizes.some((size) => size >= IOVA_LAST)) fail('EOVERFLOW', 'an address or length is U64_MAX');
  if ((flags & RW_FLAGS) === 0) fail('EINVAL', 'neither READABLE nor WRITEABLE');
}

/** Rounding up to pages must not overflow a size_t. Kernel: iopt_alloc_pages(). */
function checkLength(length: bigint): void {
  if (length === 0n || length > IOVA_LAST - PAGE_SIZE) fail('EINVAL', 'length is 0 or above SIZE_MAX - PAGE_SIZE');
}

/** Where a MAP or COPY wants to go: undefined without FIXED_IOVA. */
const target = (flags: number, iova: bigint): bigint | undefined =>
  flags & IOAS_MAP_FLAGS.FIXED_IOVA ? iova : undefined;

/** Maps pages and lets go of the pieces' references. */
function mapPieces(
  table: IoPageTable,
  pieces: readonly PagesPiece[],
  length: bigint,
  flags: number,
  iova: bigint,
): bigint {
  try {
    return table.map(pieces, length, target(flags, iova), mapProt(flags));
  } finally {
    for (const { pages } of pieces) pages.put();
  }
}

function mapSource(
  ctx: IommufdCtx,
  table: IoPageTable,
  source: PageSource,
  length: bigint,
  flags: number,
  iova: bigint,
) {
  const pages = new IoptPages(
    ctx.kernel,
    ctx.pins,
    ctx.rlimitMode,
    source,
    length,
    (flags & IOAS_MAP_FLAGS.WRITEABLE) !== 0,
  );
  return mapPieces(table, [{ pages, startByte: BigInt(pages.startOffset), length }], length, flags, iova);
}

/**
 * Answers a MAP or COPY. Linux 7.2 leaves the mapping in place when the answer cannot be copied, so that the caller does
 * not know of it; here it is undone.
 */
function respondOrUnmap<C>(ctx: IommufdCtx, ucmd: Ucmd<C>, table: IoPageTable, iova: bigint, length: bigint): void {
  try {
    ucmd.respond();
  } catch (error) {
    if (ctx.quirks !== 'linux-7.2') table.unmap(iova, iova + length - 1n);
    throw error;
  }
}

/** IOMMU_IOAS_MAP. */
export function ioasMap(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_MAP'>>): void {
  const { cmd } = ucmd;
  checkMap(cmd.flags, cmd.__reserved, cmd.iova, cmd.length);
  withIoas(ctx, cmd.ioas_id, ({ table }) => {
    if (cmd.user_va + cmd.length > IOVA_LAST) fail('EOVERFLOW', 'user_va and length overflow');
    checkLength(cmd.length);
    const source: PageSource = { kind: 'user', process: ctx.process, va: cmd.user_va };
    cmd.iova = mapSource(ctx, table, source, cmd.length, cmd.flags, cmd.iova);
    respondOrUnmap(ctx, ucmd, table, cmd.iova, cmd.length);
  });
}

/** IOMMU_IOAS_MAP_FILE. */
export function ioasMapFile(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_MAP_FILE'>>): void {
  const { cmd } = ucmd;
  checkMap(cmd.flags, 0, cmd.iova, cmd.length);
  withIoas(ctx, cmd.ioas_id, ({ table }) => {
    if (cmd.length === 0n) fail('EINVAL', 'length is 0');
    if (cmd.start + cmd.length - 1n > IOVA_LAST) fail('EOVERFLOW', 'start and length overflow');
    const file = ctx.process.file?.(cmd.fd);
    if (file === undefined) fail('EBADF', `descriptor ${cmd.fd} is not open`);
    checkLength(cmd.length);
    cmd.iova = mapSource(ctx, table, { kind: 'file', file, start: cmd.start }, cmd.length, cmd.flags, cmd.iova);
    respondOrUnmap(ctx, ucmd, table, cmd.iova, cmd.length);
  });
}

/** IOMMU_IOAS_COPY. */
export function ioasCopy(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_COPY'>>): void {
  const { cmd } = ucmd;
  checkMap(cmd.flags, 0, cmd.length, cmd.src_iova, cmd.dst_iova);
  const pieces = withIoas(ctx, cmd.src_ioas_id, ({ table }) => table.getPages(cmd.src_iova, cmd.length));
  let dst: IoasObject;
  try {
    dst = getIoas(ctx, cmd.dst_ioas_id);
  } catch (error) {
    for (const { pages } of pieces) pages.put();
    throw error;
  }
  try {
    cmd.dst_iova = mapPieces(dst.table, pieces, cmd.length, cmd.flags, cmd.dst_iova);
    respondOrUnmap(ctx, ucmd, dst.table, cmd.dst_iova, cmd.length);
  } finally {
    ctx.objects.put(dst);
  }
}

/** IOMMU_IOAS_UNMAP. Not atomic: what lies below an area that forbids it is gone, and length is not written back. */
export function ioasUnmap(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_UNMAP'>>): void {
  const { cmd } = ucmd;
  withIoas(ctx, cmd.ioas_id, ({ table }) => {
    cmd.length = unmapRange(table, cmd.iova, cmd.length);
    ucmd.respond();
  });
}

function unmapRange(table: IoPageTable, iova: bigint, length: bigint): bigint {
  if (iova === 0n && length === IOVA_LAST) return table.unmap(0n, IOVA_LAST);
  if (iova >= IOVA_LAST || length >= IOVA_LAST) fail('EOVERFLOW', 'iova or length is U64_MAX');
  if (length === 0n) fail('EINVAL', 'length is 0');
  if (iova + length - 1n > IOVA_LAST) fail('EOVERFLOW', 'iova and length overflow');
  const bytes = table.unmap(iova, iova + length - 1n);
  if (bytes === 0n) fail('ENOENT', 'nothing is mapped in the range');
  return bytes;
}

/** IOMMU_IOAS_CHANGE_PROCESS: only mappings of files can change hands. */
export function ioasChangeProcess(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_IOAS_CHANGE_PROCESS'>>): void {
  if (ucmd.cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  const areas = ctx.objects.list().flatMap((object) => (object instanceof IoasObject ? [...object.table.areas] : []));
  if (areas.some((area) => area.pages === null)) fail('EBUSY', 'an area is being mapped');
  if (areas.some((area) => area.pages?.source.kind !== 'file')) fail('EINVAL', 'a mapping is not of a file');
}

/** IOMMU_OPTION with HUGE_PAGES. */
export function ioasOptionHugePages(ctx: IommufdCtx, cmd: Command<'IOMMU_OPTION'>): void {
  withIoas(ctx, cmd.object_id, ({ table }) => {
    if (cmd.op === OPTION_OP.GET) cmd.val64 = table.disableLargePages ? 0n : 1n;
    else if (cmd.op !== OPTION_OP.SET) fail('EOPNOTSUPP', `unknown op ${cmd.op}`);
    else if (cmd.val64 === 0n) table.setDisableLargePages();
    else if (cmd.val64 === 1n) table.enableLargePages();
    else fail('EINVAL', `value ${cmd.val64}, expected 0 or 1`);
  });
}
