/** What a family of operations brings, and what all of them need to carry one out. */
import type { KernelError } from '../../driver/kernel.ts';
import { type IommufdContext, IommufdError } from '../../iommufd/index.ts';
import { CaseError, type Handle, type Lab } from '../lab.ts';
import type { OperationResult } from '../operation.ts';

/** How each operation of a family is carried out. Nothing returned: it went well. Errors of the kernel are thrown. */
export type Performers<O extends { readonly op: string }> = {
  readonly [N in O['op']]: (lab: Lab, o: Extract<O, { readonly op: N }>) => OperationResult | undefined;
};

/** What each operation of a family takes, as the arguments of a call; undefined: nothing. */
export type Texts<O extends { readonly op: string }> = {
  readonly [N in O['op']]: (o: Extract<O, { readonly op: N }>) => readonly (string | number | undefined)[];
};

/** What an error of the kernel is as a result. */
export function errorResult(error: KernelError): Extract<OperationResult, { readonly status: 'error' }> {
  const text = error.message.slice(error.errno.length + 2);
  const why = error instanceof IommufdError ? text.slice(text.indexOf(': ') + 2) : text;
  return { status: 'error', errno: error.errno, why };
}

/** An id that nothing ever has: the last one. */
export const NO_ID = 0x7fff_ffff;

/** Bytes of a page. */
export const PAGE = 4096n;

/** The id of a name in a context: an object of another context is nothing in this one. */
export function idOf(lab: Lab, name: string, ctx: IommufdContext): number {
  const handle = lab.handle(name);
  return handle?.ctx === ctx ? handle.id : NO_ID;
}

/** What a name stands for. */
export const handleOf = (lab: Lab, name: string): Handle => lab.handle(name) ?? { id: NO_ID, ctx: lab.ctx };

/** The id of a bound device, and its context. @throws CaseError for an unknown device */
export function boundOf(lab: Lab, name: string): { readonly ctx: IommufdContext; readonly dev_id: number } {
  const { vfio, ctx } = lab.device(name);
  return { ctx, dev_id: vfio.bound ? vfio.idev.id : NO_ID };
}

/** @throws CaseError for a number outside [first, last] */
export function within(what: string, value: number, first: number, last: number): void {
  if (!Number.isInteger(value) || value < first || value > last)
    throw new CaseError(`${what} ${value}, expected ${first} to ${last}`);
}
