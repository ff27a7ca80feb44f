/**
 * Operations over the whole stack as plain data. Objects are named, never numbered: an operation that is taken out of a
 * sequence leaves the meaning of the others alone, so sequences shrink well. A name that nothing has stands for an id that
 * nothing has, and the answer is the kernel's.
 *
 * Each family has a file in operations/: its type, how each operation is carried out, how it is told.
 */
import type { Errno } from '../driver/kernel.ts';
import type { AtsOperation } from './operations/ats.ts';
import type { CmdqvOperation } from './operations/cmdqv.ts';
import type { DeviceOperation } from './operations/devices.ts';
import type { FailureOperation } from './operations/failures.ts';
import type { GuestOperation } from './operations/guests.ts';
import type { HandoverOperation } from './operations/handover.ts';
import type { ObjectOperation } from './operations/objects.ts';
import type { PasidOperation } from './operations/pasids.ts';
import type { QueueOperation } from './operations/queues.ts';
import type { SpaceOperation } from './operations/spaces.ts';
import type { SvaOperation } from './operations/sva.ts';

/** What an operation does. `as` names what it makes; `dev`, `ioas`, `parent`, `on`, `to`, `viommu` name what it uses. */
export type Operation =
  | SpaceOperation
  | ObjectOperation
  | DeviceOperation
  | GuestOperation
  | AtsOperation
  | PasidOperation
  | QueueOperation
  | CmdqvOperation
  | HandoverOperation
  | SvaOperation
  | FailureOperation;

/** Names of the operations. */
export type OperationName = Operation['op'];

/** Where a DMA ended up. `vm` or `mm`, and `page`: whose page was read; undefined for a write or a page that is no data. */
export interface DmaOutcome {
  readonly status: 'ok' | 'abort' | 'stall';
  readonly vm?: number;
  /** Number of a process of the host. */
  readonly mm?: number;
  readonly page?: number;
  /** The VM, or process, is one of a kernel that ran before this one. */
  readonly old?: true;
}

/** A record of a vEVENTQ: an event's name and the vSID that it is about; LVCMDQs in error; or that events were lost. */
export type VeventRecord =
  | { readonly event: string; readonly vsid: number }
  | { readonly event: 'VCMDQ_ERROR'; readonly errors: string }
  | { readonly event: 'lost' };

/** What a successful operation gave. */
export interface OkResult {
  readonly status: 'ok';
  readonly dma?: DmaOutcome;
  /** What a guest or its VMM found, a word or two. */
  readonly saw?: string;
  /** Commands of a guest that the kernel says it has handled (entry_num). */
  readonly entries?: number;
  /** What was read from a vEVENTQ. */
  readonly events?: readonly VeventRecord[];
  /** Pages that the dirty bitmap names. */
  readonly dirty?: readonly number[];
}

/** How an operation ended. `skipped`: it was not tried, because the name it gives is taken or there is nothing to try on. */
export type OperationResult =
  | OkResult
  | { readonly status: 'error'; readonly errno: Errno; readonly why: string; readonly entries?: number }
  | { readonly status: 'skipped'; readonly why: string };
