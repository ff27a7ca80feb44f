/**
 * Operations over the whole stack as plain data. Objects are named, never numbered: an operation that is taken out of a
 * sequence leaves the meaning of the others alone, so sequences shrink well. A name that nothing has stands for an id that
 * nothing has, and the answer is the kernel's.
 *
 * Each family has a file in operations/: its type, how each operation is carried out, how it is told.
 */
import type { Errno } from '../driver/kernel.ts';
import type { DeviceOperation } from './operations/devices.ts';
import type { FailureOperation } from './operations/failures.ts';
import type { GuestOperation } from './operations/guests.ts';
import type { ObjectOperation } from './operations/objects.ts';
import type { SpaceOperation } from './operations/spaces.ts';

/** What an operation does. `as` names what it makes; `dev`, `ioas`, `parent`, `on`, `to`, `viommu` name what it uses. */
export type Operation = SpaceOperation | ObjectOperation | DeviceOperation | GuestOperation | FailureOperation;

/** Names of the operations. */
export type OperationName = Operation['op'];

/** Where a DMA ended up. `vm` and `page`: whose page was read; undefined for a write or a page that is no VM's data. */
export interface DmaOutcome {
  readonly status: 'ok' | 'abort' | 'stall';
  readonly vm?: number;
  readonly page?: number;
}

/** How an operation ended. `skipped`: it was not tried, because the name it gives is taken. */
export type OperationResult =
  | { readonly status: 'ok'; readonly dma?: DmaOutcome }
  | { readonly status: 'error'; readonly errno: Errno; readonly why: string }
  | { readonly status: 'skipped'; readonly why: string };
