/** All properties that `smmulab check` runs. */
import type { Property } from '../property.ts';
import { adoptedKept } from './adopted-kept.ts';
import { dirtyReported } from './dirty-reported.ts';
import { dmaContained } from './dma-contained.ts';
import { failureChangesNothing } from './failure-changes-nothing.ts';
import { guestCommands } from './guest-commands.ts';
import { guestTables } from './guest-tables.ts';
import { hitless } from './hitless.ts';
import { iommuHeld } from './iommu-held.ts';
import { isolation } from './isolation.ts';
import { nothingLeft } from './nothing-left.ts';
import { publishedLast } from './published-last.ts';
import { rulesKept } from './rules-kept.ts';
import { s2vmidOwned } from './s2vmid-owned.ts';
import { svaShared } from './sva-shared.ts';
import { vcmdqConfined } from './vcmdq-confined.ts';
import { vmidCounted } from './vmid-counted.ts';
import { vmidFree } from './vmid-free.ts';
import { vsidMeansOneDevice } from './vsid-means-one-device.ts';

/** In the order in which they run. */
export const PROPERTIES: readonly Property[] = [
  s2vmidOwned,
  vmidFree,
  vmidCounted,
  nothingLeft,
  failureChangesNothing,
  dmaContained,
  dirtyReported,
  guestCommands,
  guestTables,
  vsidMeansOneDevice,
  hitless,
  vcmdqConfined,
  adoptedKept,
  iommuHeld,
  publishedLast,
  svaShared,
  rulesKept,
  isolation,
];

export {
  adoptedKept,
  dirtyReported,
  dmaContained,
  failureChangesNothing,
  guestCommands,
  guestTables,
  hitless,
  iommuHeld,
  isolation,
  nothingLeft,
  publishedLast,
  rulesKept,
  s2vmidOwned,
  svaShared,
  vcmdqConfined,
  vmidCounted,
  vmidFree,
  vsidMeansOneDevice,
};
