/** The bug zoo: bugs that were made, or nearly made, each put into the shipped driver by wrapping its parts. */
import { ATS_BUGS, QUIRK_BUGS } from './ats.ts';
import type { Bug } from './bug.ts';
import { CMDQV_BUGS } from './cmdqv.ts';
import { DIRTY_BUGS } from './dirty.ts';
import { ENTRY_BUGS } from './entries.ts';
import { GUEST_BUGS } from './guests.ts';
import { HANDLE_BUGS } from './handles.ts';
import { HANDOVER_BUGS } from './handover.ts';
import { INVALIDATION_BUGS } from './invalidation.ts';
import { ISOLATION_BUGS } from './isolation.ts';
import { LIFETIME_BUGS } from './lifetime.ts';
import { SVA_BUGS } from './sva.ts';
import { TEARDOWN_BUGS } from './teardown.ts';
import { VMID_BUGS } from './vmid.ts';

export * from './bug.ts';
export * from './hunt.ts';

/** All bugs, family by family. */
export const ZOO: readonly Bug[] = [
  ...VMID_BUGS,
  ...TEARDOWN_BUGS,
  ...INVALIDATION_BUGS,
  ...ENTRY_BUGS,
  ...GUEST_BUGS,
  ...HANDLE_BUGS,
  ...ATS_BUGS,
  ...CMDQV_BUGS,
  ...ISOLATION_BUGS,
  ...LIFETIME_BUGS,
  ...HANDOVER_BUGS,
  ...DIRTY_BUGS,
  ...SVA_BUGS,
  ...QUIRK_BUGS,
];
