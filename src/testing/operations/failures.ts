/** Failures of what the kernel uses. */
import type { Performers, Texts } from './family.ts';

/** The nth use (1: the next) of a point of the kernel whose name begins so fails, if the next operation gets there. */
export interface FailureOperation {
  readonly op: 'fail';
  readonly point: string;
  readonly nth: number;
}

/** How it is carried out. */
export const performFailures: Performers<FailureOperation> = {
  fail: (lab, o) => {
    lab.kernel.failNth(o.nth, o.point);
    return undefined;
  },
};

/** How it is told. */
export const failureTexts: Texts<FailureOperation> = { fail: (o) => [`use ${o.nth} of ${o.point}`] };
