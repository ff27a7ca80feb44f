/** Shapes of what steps carry. */
import { z } from 'zod';
import { FIRST_DATA_PAGE, GUEST_PAGES } from '../../testing/guest.ts';

/** A name of a device, a VM or an object. */
export const name = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,31}$/, 'expected a name: a letter, then letters, digits and dashes');
/** An integer of a range, both ends included. */
export const small = (min: number, max: number) => {
  const error = `expected an integer, ${min} to ${max}`;
  return z.number(error).int(error).min(min, error).max(max, error);
};
/** A page of a VM. */
export const page = small(0, GUEST_PAGES - 1);
/** A page of data of a VM. */
export const dataPage = small(FIRST_DATA_PAGE, GUEST_PAGES - 1);
/** How many pages. */
export const pages = small(1, GUEST_PAGES);
/** A PASID, as a SubstreamID: 20 bits. */
export const pasid = small(0, 0xfffff);
/** 32 bits. */
export const word32 = small(0, 0xffffffff);

/** What each operation of a family takes. */
export type Shapes<O extends { readonly op: string }> = Readonly<Record<O['op'], z.ZodRawShape>>;
