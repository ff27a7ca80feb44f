/** Descriptors that iommufd hands out: event queues, read and written through the context. */
import type { IdAllocator, Kernel } from '../driver/kernel.ts';
import { fail } from './errors.ts';

/** Standard input, output, error and /dev/iommu itself. */
const FIRST_FD = 4;

/** What poll() says. */
export interface PollState {
  readonly readable: boolean;
  readonly writable: boolean;
}

/** An open file of iommufd's. */
export interface EventFile {
  /** Up to `count` bytes of whole records. @throws KernelError ESPIPE, EINVAL, EFAULT */
  read(count: number, copy: (bytes: Uint8Array, at: number) => void): number;
  /** Returns the bytes taken. @throws KernelError ESPIPE, EINVAL, EFAULT */
  write(bytes: Uint8Array): number;
  poll(): PollState;
  /** The last descriptor is closed. */
  close(): void;
}

/** The process's descriptors for files of this context. Lowest free number first, as the kernel does. */
export class FileTable {
  readonly #ids: IdAllocator;
  readonly #files = new Map<number, EventFile>();
  /** Calls under way on a file, and whether its descriptor is closed: the last one out releases it. */
  readonly #inUse = new Map<EventFile, { calls: number; closed: boolean }>();

  constructor(kernel: Kernel, maxFd: number) {
    this.#ids = kernel.ids('iommufd:fd', FIRST_FD, Math.max(FIRST_FD, maxFd), 'EMFILE');
  }

  /** Open files. */
  get size(): number {
    return this.#files.size;
  }

  /** Reserves a number; nothing is open under it yet. @throws KernelError EMFILE, ENOMEM */
  reserve(): number {
    return this.#ids.alloc();
  }

  /** Gives a reserved number up. */
  unreserve(fd: number): void {
    this.#ids.free(fd);
  }

  /** Opens a reserved number. */
  install(fd: number, file: EventFile): void {
    this.#files.set(fd, file);
  }

  #get(fd: number): EventFile {
    return this.#files.get(fd) ?? fail('EBADF', `descriptor ${fd} is not open`);
  }

  /** Runs a call on an open file, which stays open until it returns. @throws KernelError EBADF */
  use<T>(fd: number, call: (file: EventFile) => T): T {
    const file = this.#get(fd);
    const state = this.#inUse.get(file) ?? { calls: 0, closed: false };
    this.#inUse.set(file, state);
    state.calls++;
    try {
      return call(file);
    } finally {
      state.calls--;
      if (state.calls === 0) this.#inUse.delete(file);
      if (state.calls === 0 && state.closed) file.close();
    }
  }

  /** @throws KernelError EBADF */
  close(fd: number): void {
    const file = this.#get(fd);
    this.#files.delete(fd);
    this.#ids.free(fd);
    const state = this.#inUse.get(file);
    if (state === undefined) file.close();
    else state.closed = true;
  }
}
