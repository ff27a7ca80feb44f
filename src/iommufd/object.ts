/** The object that every id of an iommufd context names (struct iommufd_object). */
import { UseAfterFree } from './errors.ts';

/** Kinds of object, named after enum iommufd_object_type. */
export type ObjectType =
  | 'DEVICE'
  | 'HWPT_PAGING'
  | 'HWPT_NESTED'
  | 'IOAS'
  | 'ACCESS'
  | 'FAULT'
  | 'VIOMMU'
  | 'VDEVICE'
  | 'VEVENTQ'
  | 'HW_QUEUE';

/**
 * An object with the kernel's two counts. `users` starts at 1, owned by the id table; whoever else needs the object
 * adds 1, and only an object with exactly 1 can be destroyed. `waitCnt` starts at 1 too and is taken together with
 * `users` by whoever holds the object for a short time or can be told to let go (`preDestroy`).
 */
export abstract class IommufdObject {
  abstract readonly kind: ObjectType;
  /** 31 bits; 0 until the table gave one. */
  id = 0;
  users = 1;
  waitCnt = 1;
  /** False once the memory would be gone. A handle that outlives its object finds this. */
  live = true;

  /** Releases what the object holds. Must also work on a half-built object. */
  abstract release(): void;
  /** Like `release`, for types whose clean-up needs a lock that the caller of an aborted allocation already holds. */
  abort?(): void;
  /** Asks the holders of `waitCnt` to let go. */
  preDestroy?(): void;
  /** The final put of an event queue's file when its allocation fails. */
  abortFile?(): void;

  /** For log lines: "VIOMMU 4". */
  get label(): string {
    return `${this.kind} ${this.id}`;
  }

  /** Guards an entry point. @throws UseAfterFree if the object was freed */
  use(entry: string): void {
    if (!this.live) throw new UseAfterFree(`${entry}: ${this.label} was freed`);
  }
}
