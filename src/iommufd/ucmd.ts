/** One ioctl under way: its command, its way back to user space, and the object it may make (struct iommufd_ucmd). */
import type { Kernel } from '../driver/kernel.ts';
import { fail } from './errors.ts';
import type { IommufdObject } from './object.ts';
import type { UserMemory } from './process.ts';

/** Memory that a pointer field of a command names. */
export interface UserPointer {
  /** The field holds 0. */
  readonly isNull: boolean;
  /** @throws KernelError EFAULT */
  read(offset: number, length: number): Uint8Array;
  /** Writes; on a fault the bytes before it are already written. @throws KernelError EFAULT */
  write(offset: number, bytes: Uint8Array): void;
}

/** How outputs get back to the caller; the front ends make it. */
export interface Responder {
  /** Copies the whole command back. @throws KernelError EFAULT */
  whole(): void;
  /** Copies one field back. @throws KernelError EFAULT */
  field(name: string): void;
  /** The memory behind a pointer field. */
  pointer(name: string): UserPointer;
}

/** A command on its way through a handler. `C` mirrors the C struct field for field. */
export class Ucmd<C> {
  readonly cmd: C;
  /** Made by the handler; the dispatcher finalizes or aborts it. */
  newObject: IommufdObject | undefined;
  readonly #responder: Responder;

  constructor(cmd: C, responder: Responder) {
    this.cmd = cmd;
    this.#responder = responder;
  }

  /** Copies the whole command back (iommufd_ucmd_respond). @throws KernelError EFAULT */
  respond(): void {
    this.#responder.whole();
  }

  /** Copies one field back (put_user). @throws KernelError EFAULT */
  respondField(name: keyof C & string): void {
    this.#responder.field(name);
  }

  /** The memory behind a pointer field. */
  pointer(name: keyof C & string): UserPointer {
    return this.#responder.pointer(name);
  }
}

/** A pointer into a process's memory. */
export function pointerTo(kernel: Kernel, memory: UserMemory, va: bigint, what: string): UserPointer {
  return {
    isNull: va === 0n,
    read: (offset, length) => {
      kernel.userCopy(`from-user:${what}`);
      return memory.read(va + BigInt(offset), length);
    },
    write: (offset, bytes) => {
      kernel.userCopy(`to-user:${what}`);
      memory.write(va + BigInt(offset), bytes);
    },
  };
}

/** A pointer to a buffer handed in with a typed call; past its end nothing is mapped. */
export function pointerInto(kernel: Kernel, buffer: Uint8Array, what: string): UserPointer {
  return {
    isNull: false,
    read: (offset, length) => {
      kernel.userCopy(`from-user:${what}`);
      if (offset + length > buffer.length) fail('EFAULT', `${what}: the buffer has only ${buffer.length} bytes`);
      return buffer.slice(offset, offset + length);
    },
    write: (offset, bytes) => {
      kernel.userCopy(`to-user:${what}`);
      buffer.set(bytes.subarray(0, Math.max(0, buffer.length - offset)), Math.min(offset, buffer.length));
      if (offset + bytes.length > buffer.length) fail('EFAULT', `${what}: the buffer has only ${buffer.length} bytes`);
    },
  };
}

/** Bytes of a user struct that are looked at in one piece. */
const TAIL_CHUNK = 4096;

/**
 * `size` bytes of a struct of which user space has `userSize`: a missing tail reads as zero, a larger one must be zero.
 * Kernel: copy_struct_from_user(). @throws KernelError EFAULT, E2BIG
 */
export function copyStructFromUser(pointer: UserPointer, at: number, userSize: number, size: number): Uint8Array {
  for (let offset = size; offset < userSize; offset += TAIL_CHUNK) {
    const tail = pointer.read(at + offset, Math.min(TAIL_CHUNK, userSize - offset));
    if (tail.some((byte) => byte !== 0)) fail('E2BIG', `bytes beyond the ${size} known ones are not zero`);
  }
  const known = pointer.read(at, Math.min(size, userSize));
  if (known.length === size) return known;
  const bytes = new Uint8Array(size);
  bytes.set(known);
  return bytes;
}
