/**
 * The one context through which driver, iommu core and iommufd reach everything outside themselves. Each use has a
 * name, so that one place injects failures, offers preemption points and announces ownership.
 */
import type { Bus, Pa } from '../hw/bus.ts';

/** Kernel errno names that this project's code returns. */
export type Errno =
  | 'E2BIG'
  | 'EADDRINUSE'
  | 'EBADF'
  | 'EBUSY'
  | 'EDEADLOCK'
  | 'EEXIST'
  | 'EFAULT'
  | 'EINVAL'
  | 'EIO'
  | 'EMFILE'
  | 'EMSGSIZE'
  | 'ENODEV'
  | 'ENOENT'
  | 'ENOMEM'
  | 'ENOSPC'
  | 'ENOTTY'
  | 'ENXIO'
  | 'EOPNOTSUPP'
  | 'EOVERFLOW'
  | 'EPERM'
  | 'ERANGE'
  | 'ESPIPE'
  | 'ETIMEDOUT';

/** A kernel function's error return: the errno and a sentence saying which check failed. */
export class KernelError extends Error {
  override readonly name: string = 'KernelError';
  readonly errno: Errno;
  /** The sentence alone. */
  readonly why: string;
  /** @param cause the error that this one passes on */
  constructor(errno: Errno, why: string, cause?: KernelError) {
    // Errors are ordinary results here, and a stack is most of what one costs: the cause has it already.
    const limit = Error.stackTraceLimit;
    if (cause !== undefined) Error.stackTraceLimit = 0;
    super(`${errno}: ${why}`, cause === undefined ? undefined : { cause });
    Error.stackTraceLimit = limit;
    this.errno = errno;
    this.why = why;
  }
}

/** A mutex. Taking it twice in one call chain is a deadlock and throws. */
export interface Lock {
  readonly name: string;
  readonly held: boolean;
}

/** An id allocator (ida, xarray limit): lowest free first. */
export interface IdAllocator {
  readonly name: string;
  /** The lowest free id in [min, max]. @throws KernelError ENOSPC (or the errno given at creation); ENOMEM injected. */
  alloc(): number;
  /** Keeps an id that is in use already from {@link alloc}. False: it is taken, or outside the range. */
  reserve(id: number): boolean;
  /** @throws Error on an id that is not allocated: a bug of the caller. */
  free(id: number): void;
  has(id: number): boolean;
  readonly used: number;
}

/**
 * Who owns an id, a page or a stream now, and what is done; the sanitizer listens (docs/sanitizer.md says what each
 * means there).
 */
export interface OwnershipNote {
  readonly what: 'vmid' | 'asid' | 'page' | 'stream' | 'operation' | 'driver';
  readonly act: 'alloc' | 'free' | 'give' | 'begin' | 'done' | 'fail';
  /** SMMU name for vmid, stream, and an operation on one stream; else ''. */
  readonly where: string;
  readonly id: bigint;
  readonly owner: string;
  /** Size of a page, default 4096; of the range of input addresses from `id` on that an unmap takes away. */
  readonly bytes?: number;
  /** Of the end of an unmap: the note of its beginning. Several of one range may be under way, on several domains. */
  readonly begun?: OwnershipNote;
}

/** Names a place where the kernel may fail, be preempted or be watched: `cmdq:poll`, `alloc:cd-table`, `lock:asid`. */
export type Point = string;

/** See the module comment. `LocalKernel` is the implementation; tests and the bug zoo wrap it. */
export interface Kernel {
  readonly bus: Bus;

  /** Physically contiguous zeroed memory, naturally aligned to its size (rounded up to 4 KiB). @throws KernelError ENOMEM */
  allocPages(what: string, bytes: number): Pa;
  /** Gives memory of {@link allocPages} back. @throws Error on memory that is not allocated: a bug of the caller. */
  freePages(what: string, pa: Pa): void;
  /** Counts an allocation of kernel memory that needs no address (kmalloc). @throws KernelError ENOMEM when injected. */
  alloc(what: string): void;
  ids(name: string, min: number, max: number, exhausted?: Errno): IdAllocator;

  lock(name: string): Lock;
  /** Runs `body` with the lock held; its release drains the CPU's store buffer. */
  withLock<T>(lock: Lock, body: () => T): T;

  /** MMIO with a name; ordered unless the name of the method says otherwise. */
  read32(point: Point, addr: Pa): number;
  read64(point: Point, addr: Pa): bigint;
  write32(point: Point, addr: Pa, value: number): void;
  write64(point: Point, addr: Pa, value: bigint): void;
  write32Relaxed(point: Point, addr: Pa, value: number): void;
  write64Relaxed(point: Point, addr: Pa, value: bigint): void;

  /** `dma_wmb`, `dma_rmb`, `mb`, named so that a test can leave one out. */
  dmaWmb(point: Point): void;
  dmaRmb(point: Point): void;
  mb(point: Point): void;

  /** Polls until `done()` is true. False: it timed out (after a fixed number of turns; there is no clock). */
  poll(point: Point, done: () => boolean): boolean;

  /** Copies between user memory and the kernel pass here so that they can be made to fail. @throws KernelError EFAULT */
  userCopy(point: Point): void;

  /**
   * Runs `handler` for each edge of `irq`. A threaded handler (the default) never runs while a lock is held: at the
   * next release or {@link runInterrupts}. A hard one also runs inside {@link poll}, whatever is locked: it takes no
   * lock itself.
   */
  requestIrq(name: string, irq: number, handler: () => void, kind?: 'hard' | 'threaded'): void;
  /** Runs handlers of noted edges now. Called at the end of every entry point. */
  runInterrupts(): void;

  /** A preemption point with a name and nothing else. */
  point(point: Point): void;
  log(level: 'err' | 'warn' | 'info', text: string): void;
  announce(note: OwnershipNote): void;
}
