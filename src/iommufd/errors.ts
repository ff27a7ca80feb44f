/** What an ioctl of iommufd answers when it fails. */
import { type Errno, KernelError } from '../driver/kernel.ts';

/** Values of struct fields by their C names: 64-bit fields are bigints, narrower ones numbers. */
export type FieldValues = Readonly<Record<string, number | bigint>>;

/** A failed ioctl: the errno, a sentence saying which check failed, and what the kernel had copied back by then. */
export class IommufdError extends KernelError {
  override readonly name: string = 'IommufdError';
  /** The ioctl, for example "IOMMU_HWPT_ALLOC". */
  readonly ioctl: string;
  /** The whole struct as copied back before the failure; undefined if user memory was left as it was. */
  readonly outputs: FieldValues | undefined;

  constructor(cause: KernelError, ioctl: string, outputs?: FieldValues) {
    super(cause.errno, `${ioctl}: ${cause.why}`, cause);
    this.ioctl = ioctl;
    this.outputs = outputs;
  }
}

/** A freed object was used: a bug that the kernel would not see (KASAN would). */
export class UseAfterFree extends Error {
  override readonly name = 'UseAfterFree';
}

/** Throws. @throws KernelError always */
export function fail(errno: Errno, why: string): never {
  throw new KernelError(errno, why);
}

/** The errno of an error that the kernel may return; anything else is a defect and is thrown on. */
export function errnoOf(error: unknown): Errno {
  if (error instanceof KernelError) return error.errno;
  throw error;
}
