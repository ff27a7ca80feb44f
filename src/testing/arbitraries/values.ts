/** Arbitraries of what operations carry. */
import fc from 'fast-check';
import { FIRST_DATA_PAGE, GUEST_CDS, GUEST_PAGES, GUEST_SPACES } from '../guest.ts';

/** A page of data. */
export const page = fc.integer({ min: FIRST_DATA_PAGE, max: GUEST_PAGES - 1 });
/** A PASID of a device, or SubstreamID of a guest. */
export const pasid = fc.integer({ min: 1, max: 3 });
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

/** One in so many has something besides. */
const SELDOM = 8;

/** Mostly a plain one; now and then with one of some members besides. */
export const seldom = <T, const M extends readonly object[]>(
  one: fc.Arbitrary<T>,
  ...more: M
): fc.Arbitrary<T & Partial<M[number]>> =>
  fc
    .tuple(one, fc.nat({ max: SELDOM - 1 }), fc.nat({ max: Math.max(0, more.length - 1) }))
    .map(
      ([value, plain, which]) =>
        (plain === SELDOM - 1 ? { ...value, ...more[which] } : value) as T & Partial<M[number]>,
    );
