/** Arbitraries of what operations carry. */
import fc from 'fast-check';
import { FIRST_DATA_PAGE, GUEST_CDS, GUEST_PAGES, GUEST_SPACES } from '../guest.ts';

/** A page of data. */
export const page = fc.integer({ min: FIRST_DATA_PAGE, max: GUEST_PAGES - 1 });
/** How many pages. */
export const pages = fc.integer({ min: 1, max: 3 });
/** A vSID. */
export const vsid = fc.integer({ min: 0, max: 3 });
/** What a vSTE asks for. */
export const vsteMode = fc.constantFrom('bypass' as const, 'translate' as const, 'abort' as const);
/** Which CD a vSTE points at. */
export const cd = fc.integer({ min: 0, max: GUEST_CDS - 1 });
/** An address space of a guest's. */
export const space = fc.integer({ min: 0, max: GUEST_SPACES - 1 });
