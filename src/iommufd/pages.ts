/** User memory behind one or more mappings, pinned while a domain or an access needs it (iommufd's pages.c). */
import type { IommuDomain } from '../driver/iommu/ops.ts';
import type { Kernel, OwnershipNote } from '../driver/kernel.ts';
import { fail } from './errors.ts';
import type { Interval, Span } from './intervals.ts';
import { spans } from './intervals.ts';
import type { LockedPages, Process, UserFile } from './process.ts';
import { PAGE_BYTES, PAGE_SIZE } from './process.ts';

/** Most runs of contiguous pages that one batch holds: 64 KiB of 12-byte entries. */
const BATCH_RUNS = 5461;
/** Most pages asked of user memory at once: 64 KiB of pointers. */
const PIN_PAGES = 8192;

/** Contiguous pages: page numbers `pfn`, `pfn` + 1, ... stand behind indices `index`, `index` + 1, ... */
export interface PinnedRun {
  readonly index: number;
  readonly pfn: number;
  readonly count: number;
}

/** Pages read for mapping: runs from index `start` on, `count` pages in all. */
export interface Batch {
  readonly start: number;
  readonly count: number;
  readonly runs: readonly PinnedRun[];
}

/** Where the memory comes from. */
export type PageSource =
  | { readonly kind: 'user'; readonly process: Process; readonly va: bigint }
  | { readonly kind: 'file'; readonly file: UserFile; readonly start: bigint };

/** One in-kernel user of a range of pages (struct iopt_pages_access). */
interface PagesAccess extends Interval<number> {
  users: number;
}

/** A range of pages that a domain holds; io-pagetable's areas are such. */
export interface StoredRange {
  /** First and last page index. */
  readonly firstIndex: number;
  readonly lastIndex: number;
}

/** An unmap whose invalidation may be lost: the pages [start, last] go back once it is made good. */
interface Doubt extends Interval<number> {
  readonly waiting: (() => void)[];
}

/** Counts pinned pages of a context, and of whoever RLIMIT_MEMLOCK is counted against. */
export class PinAccount {
  /** Pages that this context has pinned. */
  pinned = 0;
  /** Memory that has some of them: a page that is mapped twice is pinned twice. */
  readonly holders = new Set<IoptPages>();
  readonly #process: Process;
  readonly #user: LockedPages;
  readonly #mm: LockedPages;

  constructor(process: Process) {
    this.#process = process;
    this.#user = process.userLocked ?? { count: 0 };
    this.#mm = process.processLocked ?? { count: 0 };
  }

  /** The counter that RLIMIT_MODE chooses. */
  counter(mode: 0 | 1): LockedPages {
    return mode === 0 ? this.#user : this.#mm;
  }

  /** @throws KernelError ENOMEM above the limit, unless the process has CAP_IPC_LOCK */
  check({ count }: LockedPages): void {
    const limit = this.#process.memlockPages ?? Number.POSITIVE_INFINITY;
    if (count > limit && this.#process.capable?.('ipc-lock') === false)
      fail('ENOMEM', `${count} pinned pages exceed the memlock limit ${limit}`);
  }
}

/** What of `count` page frames from `pfn` on none of the holders has pinned. */
function unpinned(
  holders: ReadonlySet<IoptPages>,
  pfn: number,
  count: number,
): readonly { readonly pfn: number; readonly count: number }[] {
  let left = [{ pfn, count }];
  for (const { runs } of holders)
    for (const { pfn: first, count: many } of runs)
      left = left.flatMap((part) => {
        const end = part.pfn + part.count;
        const before = Math.min(part.count, Math.max(0, first - part.pfn));
        const after = Math.min(part.count, Math.max(0, end - (first + many)));
        if (before + after >= part.count) return [part];
        const parts = [
          { pfn: part.pfn, count: before },
          { pfn: end - after, count: after },
        ];
        return parts.filter((one) => one.count > 0);
      });
  return left;
}

/** A slice of user memory shared by all areas made from one MAP (struct iopt_pages). */
export class IoptPages {
  readonly source: PageSource;
  /** Bytes before the mapping's first byte in the first page. */
  readonly startOffset: number;
  readonly npages: number;
  readonly writable: boolean;
  /** Areas and lists that refer to it (kref). */
  refs = 1;
  /** Areas whose storage domain keeps these pages pinned. */
  readonly stored = new Set<StoredRange>();
  readonly #kernel: Kernel;
  readonly #account: PinAccount;
  readonly #locked: LockedPages;
  readonly #accesses: PagesAccess[] = [];
  /** Sorted by index, never overlapping. */
  readonly #runs: PinnedRun[] = [];
  readonly #doubts = new Set<Doubt>();

  /**
   * Kernel: iopt_alloc_user_pages(), iopt_alloc_file_pages().
   * @throws KernelError EINVAL, EOVERFLOW, ENOMEM
   */
  constructor(kernel: Kernel, account: PinAccount, mode: 0 | 1, source: PageSource, length: bigint, writable: boolean) {
    kernel.alloc('iommufd:pages');
    const address = source.kind === 'user' ? source.va : source.start;
    const aligned = address & ~(PAGE_SIZE - 1n);
    this.source = source.kind === 'user' ? { ...source, va: aligned } : { ...source, start: aligned };
    this.startOffset = Number(address - aligned);
    this.npages = Number((length + BigInt(this.startOffset) + PAGE_SIZE - 1n) / PAGE_SIZE);
    this.writable = writable;
    this.#kernel = kernel;
    this.#account = account;
    this.#locked = account.counter(mode);
  }

  /** Pages pinned now. */
  get pinned(): number {
    return this.#runs.reduce((sum, run) => sum + run.count, 0);
  }

  /** Runs that are pinned now. */
  get runs(): readonly PinnedRun[] {
    return this.#runs;
  }

  /** Drops a reference; the last one must find nothing pinned. */
  put(): void {
    this.refs--;
    if (this.refs === 0 && (this.#runs.length > 0 || this.stored.size > 0))
      this.#kernel.log('warn', `iommufd: pages freed with ${this.pinned} of them pinned`);
  }

  /** Which of [first, last] is held by other areas or by accesses. */
  held(first: number, last: number): Span<number>[] {
    const holders: Interval<number>[] = [...this.#accesses];
    for (const area of this.stored) holders.push({ start: area.firstIndex, last: area.lastIndex });
    return spans(holders, first, last, 1);
  }

  /**
   * The pages [first, last] in batches, pinning those that are not. After an error the caller undoes what it did with
   * earlier batches and calls {@link unpinUnheld}.
   * @throws KernelError EFAULT, EINVAL (file range past its end), ENOMEM
   */
  *batches(first: number, last: number): Generator<Batch> {
    const capacity = Math.min(last - first + 1, BATCH_RUNS);
    for (let at = first; at <= last; ) {
      this.#kernel.alloc('iommufd:pfn-batch');
      const start = at;
      const runs: PinnedRun[] = [];
      while (at <= last) {
        const run = this.#runFrom(at, last);
        if (!append(runs, run, capacity)) break;
        at += run.count;
      }
      yield { start, count: at - start, runs };
    }
    this.#account.check(this.#locked);
  }

  /** Pinned runs of [first, last]; all of it must be pinned. */
  *runsOf(first: number, last: number): Generator<PinnedRun> {
    for (let at = first; at <= last; ) {
      const run = this.#pinnedAt(at, last);
      if (run === undefined) throw new Error(`page ${at} is not pinned`);
      yield run;
      at += run.count;
    }
  }

  /** Unpins what nobody holds in [first, last]; nothing if the range is empty. */
  unpinUnheld(first: number, last: number): void {
    if (first > last) return;
    for (const span of this.held(first, last)) if (!span.used) this.unpin(span.start, span.last);
  }

  /** An unmap of input addresses begins: says so, and returns how to say that nothing is left of it. */
  unmapping(iova: bigint, size: bigint): () => void {
    const unmap = { what: 'operation', where: '', id: iova, owner: 'unmap', bytes: Number(size) } as const;
    const begun: OwnershipNote = { ...unmap, act: 'begin' };
    this.#kernel.announce(begun);
    return () => this.#kernel.announce({ ...unmap, act: 'done', begun });
  }

  /**
   * `domain` has unmapped the pages [first, last]; `done` is called when that is certain. After a CMD_SYNC that timed out, its SMMU may still reach them: they
   * are not handed back before it cannot.
   */
  unmapped(domain: IommuDomain, first: number, last: number, done: () => void): void {
    if (domain.ops.retire === undefined) {
      done();
      return;
    }
    const doubt: Doubt = { start: first, last, waiting: [] };
    this.#doubts.add(doubt);
    domain.ops.retire(domain, 'user pages', () => {
      this.#doubts.delete(doubt);
      done();
      for (const release of doubt.waiting) release();
    });
  }

  /** Unpins [first, last]; pages that are not pinned are skipped. */
  unpin(first: number, last: number): void {
    let i = this.#position(first);
    while (i < this.#runs.length) {
      const run = this.#runs[i];
      if (run === undefined || run.index > last) return;
      const end = run.index + run.count - 1;
      const parts: PinnedRun[] = [];
      if (run.index < first) parts.push({ index: run.index, pfn: run.pfn, count: first - run.index });
      if (end > last) parts.push({ index: last + 1, pfn: run.pfn + last + 1 - run.index, count: end - last });
      this.#runs.splice(i, 1, ...parts);
      i += parts.length;
      const [from, to] = [Math.max(run.index, first), Math.min(end, last)];
      this.#handBack({ index: from, pfn: run.pfn + from - run.index, count: to - from + 1 });
    }
  }

  #announceGiven(pfn: number, count: number): void {
    const bytes = count * PAGE_BYTES;
    this.#kernel.announce({ what: 'page', act: 'give', where: '', id: BigInt(pfn) * PAGE_SIZE, owner: 'user', bytes });
  }

  /** Gives pages back to their owner as soon as no unmap of them is in doubt. */
  #handBack({ index, pfn, count }: PinnedRun): void {
    const release = (): void => {
      this.#account.pinned -= count;
      this.#locked.count -= count;
      if (this.#runs.length === 0) this.#account.holders.delete(this);
      const owner = this.source.kind === 'file' ? this.source.file : this.source.process.memory;
      const pa = BigInt(pfn) * PAGE_SIZE;
      for (const part of unpinned(this.#account.holders, pfn, count)) this.#announceGiven(part.pfn, part.count);
      owner.unpin?.({ pa, pages: count });
    };
    let left = 0;
    for (const doubt of this.#doubts) {
      if (doubt.start > index + count - 1 || doubt.last < index) continue;
      left++;
      doubt.waiting.push(() => {
        left--;
        if (left === 0) release();
      });
    }
    if (left === 0) release();
  }

  /**
   * Pins [first, last] for an in-kernel user. Kernel: iopt_area_add_access().
   * @throws KernelError EPERM, EFAULT, EINVAL, ENOMEM
   */
  addAccess(first: number, last: number, write: boolean): PinnedRun[] {
    if (write && !this.writable) fail('EPERM', 'write access to pages that were mapped without WRITEABLE');
    const known = this.#accesses.find((a) => a.start === first && a.last === last);
    if (known !== undefined) {
      known.users++;
      return [...this.runsOf(first, last)];
    }
    this.#kernel.alloc('iommufd:pages-access');
    const runs: PinnedRun[] = [];
    try {
      for (const batch of this.batches(first, last)) runs.push(...batch.runs);
    } catch (error) {
      this.unpinUnheld(first, last);
      throw error;
    }
    this.#accesses.push({ start: first, last, users: 1 });
    return runs;
  }

  /** Kernel: iopt_area_remove_access(). */
  removeAccess(first: number, last: number): void {
    const i = this.#accesses.findIndex((a) => a.start === first && a.last === last);
    const access = this.#accesses[i];
    if (access === undefined) throw new Error('no such access');
    if (--access.users > 0) return;
    this.#accesses.splice(i, 1);
    this.unpinUnheld(first, last);
  }

  /** The run at `at`, pinned now if it was not, cut at `last`. */
  #runFrom(at: number, last: number): PinnedRun {
    return this.#pinnedAt(at, last) ?? this.#pin(at, last);
  }

  #pinnedAt(at: number, last: number): PinnedRun | undefined {
    const run = this.#runs[this.#position(at)];
    if (run === undefined || run.index > at) return undefined;
    const skip = at - run.index;
    return { index: at, pfn: run.pfn + skip, count: Math.min(run.count - skip, last - at + 1) };
  }

  #pin(at: number, last: number): PinnedRun {
    const next = this.#runs[this.#position(at)];
    const end = next === undefined ? last : Math.min(last, next.index - 1);
    const found = this.#lookup(at, Math.min(end - at + 1, PIN_PAGES));
    const run: PinnedRun = { index: at, pfn: Number(found.pa / PAGE_SIZE), count: found.pages };
    this.#runs.splice(this.#position(at), 0, run);
    this.#account.holders.add(this);
    this.#account.pinned += run.count;
    this.#locked.count += run.count;
    return run;
  }

  #lookup(at: number, maxPages: number): { pa: bigint; pages: number } {
    this.#kernel.userCopy('iommufd:pin-pages');
    const offset = BigInt(at) * PAGE_SIZE;
    if (this.source.kind === 'file') {
      const found = this.source.file.lookup(this.source.start + offset, maxPages);
      if (found === undefined)
        fail('EINVAL', `file offset 0x${(this.source.start + offset).toString(16)} is past its end`);
      return found;
    }
    const va = this.source.va + offset;
    const found = this.source.process.memory.lookup(va, maxPages, this.writable);
    if (found === undefined)
      fail('EFAULT', `user address 0x${va.toString(16)} is not mapped${this.writable ? ' for writing' : ''}`);
    return found;
  }

  /** Position of the first run that ends at or after index `at`. */
  #position(at: number): number {
    let lo = 0;
    let hi = this.#runs.length;
    while (lo < hi) {
      const mid = (lo + hi) >>> 1;
      const run = this.#runs[mid];
      if (run !== undefined && run.index + run.count - 1 < at) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }
}

/** Adds a run, merging it with the one before where the pages go on. False: the batch is full. */
function append(runs: PinnedRun[], run: PinnedRun, capacity: number): boolean {
  const before = runs.at(-1);
  if (before !== undefined && before.pfn + before.count === run.pfn) {
    runs[runs.length - 1] = { index: before.index, pfn: before.pfn, count: before.count + run.count };
    return true;
  }
  if (runs.length === capacity) return false;
  runs.push(run);
  return true;
}

/** How many pages from `first` on one unmap batch takes before it is full, up to `last`. */
export function batchPages(pages: IoptPages, first: number, last: number, carried: boolean): number {
  let room = Math.min(last + 1, BATCH_RUNS) - (carried ? 1 : 0);
  let count = 0;
  let nextPfn = -1;
  for (const run of pages.runsOf(first, last)) {
    if (run.pfn !== nextPfn) {
      if (room === 0) break;
      room--;
    }
    count += run.count;
    nextPfn = run.pfn + run.count;
  }
  return count;
}

/** How many pages after index `after` continue its physical run, up to `last`. */
export function contiguousAfter(pages: IoptPages, after: number, last: number): number {
  const [own] = pages.runsOf(after, after);
  let count = 0;
  let nextPfn = (own?.pfn ?? 0) + 1;
  for (const run of pages.runsOf(after + 1, last)) {
    if (run.pfn !== nextPfn) break;
    count += run.count;
    nextPfn = run.pfn + run.count;
  }
  return count;
}
