/** What iommufd needs of the process that calls it: its memory, its files, its capabilities. */
import type { Pa } from '../hw/bus.ts';
import { fail } from './errors.ts';

/** Bytes of a page; user memory is pinned and mapped in these units. */
export const PAGE_SIZE = 4096n;
/** The same as a number. */
export const PAGE_BYTES = 4096;

/** A physically contiguous stretch of pages. */
export interface PageRun {
  /** Address of the first page. */
  readonly pa: Pa;
  /** Pages, at least 1. */
  readonly pages: number;
}

/** A process's address space, supplied by the caller. */
export interface UserMemory {
  /** The bytes at [va, va + length). @throws KernelError EFAULT */
  read(va: bigint, length: number): Uint8Array;
  /** Writes; on a fault the bytes before it are already written. @throws KernelError EFAULT */
  write(va: bigint, bytes: Uint8Array): void;
  /**
   * The physically contiguous run that starts at the page `va` (page aligned), at most `maxPages` long; what a page
   * fault would bring in is brought in. Undefined: nothing is mapped there, or not writable and `write` asked for.
   * The pages are pinned: devices may use them until `unpin`.
   */
  lookup(va: bigint, maxPages: number, write: boolean): PageRun | undefined;
  /** Pages of a {@link lookup}, perhaps only some of its run, are not used any more. */
  unpin?(run: PageRun): void;
}

/** A file whose pages can be mapped (memfd). */
export interface UserFile {
  /** Bytes. */
  readonly size: bigint;
  /** As {@link UserMemory.lookup}, by page-aligned offset. */
  lookup(offset: bigint, maxPages: number): PageRun | undefined;
  /** As {@link UserMemory.unpin}. */
  unpin?(run: PageRun): void;
}

/** Capabilities that iommufd asks for. */
export type Capability = 'sys-resource' | 'ipc-lock';

/** Pages that somebody has locked: a counter that processes may share. */
export interface LockedPages {
  count: number;
}

/** The calling process. */
export interface Process {
  readonly memory: UserMemory;
  /** The file behind a descriptor; undefined: not open. */
  file?(fd: number): UserFile | undefined;
  /** Default: it has all. */
  capable?(capability: Capability): boolean;
  /** Highest file descriptor (RLIMIT_NOFILE - 1). Default 1023. */
  readonly maxFd?: number;
  /** Pages that may be pinned (RLIMIT_MEMLOCK), where the process lacks CAP_IPC_LOCK. Default: no limit. */
  readonly memlockPages?: number;
  /** What its user has locked, over all processes: RLIMIT_MODE 0, the default, counts here. Default: its own counter. */
  readonly userLocked?: LockedPages;
  /** What the process has locked: RLIMIT_MODE 1 counts here. Default: its own counter. */
  readonly processLocked?: LockedPages;
}

const efault = (va: bigint): never => fail('EFAULT', `user address 0x${va.toString(16)} is not mapped`);

/** Memory in which nothing is mapped: for contexts whose callers hand in all data with the typed calls. */
export const NO_MEMORY: UserMemory = {
  read: (va, length) => (length === 0 ? new Uint8Array(0) : efault(va)),
  write: (va, bytes) => (bytes.length === 0 ? undefined : efault(va)),
  lookup: () => undefined,
};
