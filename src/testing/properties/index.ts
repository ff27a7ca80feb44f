/** All properties that `smmulab check` runs. */
import type { Property } from '../property.ts';
import { s2vmidOwned } from './s2vmid-owned.ts';

/** In the order in which they run. */
export const PROPERTIES: readonly Property[] = [s2vmidOwned];
