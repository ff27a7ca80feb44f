/** How an operation is carried out, and told: the families of operations/ joined. */
import { KernelError } from '../driver/kernel.ts';
import type { Lab } from './lab.ts';
import type { Operation, OperationName, OperationResult } from './operation.ts';
import { atsTexts, performAts } from './operations/ats.ts';
import { cmdqvTexts, performCmdqv } from './operations/cmdqv.ts';
import { deviceTexts, performDevices } from './operations/devices.ts';
import { failureTexts, performFailures } from './operations/failures.ts';
import { errorResult, type Performers, type Texts } from './operations/family.ts';
import { guestTexts, performGuests } from './operations/guests.ts';
import { handoverTexts, performHandover } from './operations/handover.ts';
import { objectTexts, performObjects } from './operations/objects.ts';
import { pasidTexts, performPasids } from './operations/pasids.ts';
import { performQueues, queueTexts } from './operations/queues.ts';
import { performSpaces, spaceTexts } from './operations/spaces.ts';
import { performSva, svaTexts } from './operations/sva.ts';

export type { DmaOutcome, Operation, OperationName, OperationResult } from './operation.ts';
export { WRITE_OFFSET } from './operations/devices.ts';
export type { GuestCommand } from './operations/guests.ts';

const PERFORM: Performers<Operation> = {
  ...performSpaces,
  ...performObjects,
  ...performDevices,
  ...performGuests,
  ...performAts,
  ...performPasids,
  ...performQueues,
  ...performCmdqv,
  ...performHandover,
  ...performSva,
  ...performFailures,
};

/** Names of all operations, family by family. */
export const OPERATION_NAMES = Object.keys(PERFORM) as OperationName[];

const TEXTS: Texts<Operation> = {
  ...spaceTexts,
  ...objectTexts,
  ...deviceTexts,
  ...guestTexts,
  ...atsTexts,
  ...pasidTexts,
  ...queueTexts,
  ...cmdqvTexts,
  ...handoverTexts,
  ...svaTexts,
  ...failureTexts,
};

const OK: OperationResult = { status: 'ok' };

/**
 * Carries an operation out. Errors of the kernel are results; anything else thrown is a defect, and is thrown on.
 * @throws CaseError for a device, VM or page that the lab does not have
 */
export function execute(lab: Lab, operation: Operation): OperationResult {
  if ('as' in operation && lab.handle(operation.as) !== undefined)
    return { status: 'skipped', why: `${operation.as} is there already` };
  try {
    const perform = PERFORM[operation.op] as (lab: Lab, o: Operation) => OperationResult | undefined;
    return perform(lab, operation) ?? OK;
  } catch (error) {
    if (error instanceof KernelError) return errorResult(error);
    throw error;
  } finally {
    if (operation.op !== 'fail') lab.kernel.clearFailures();
  }
}

/** An operation as one line, like a call: `v0 = viommuAlloc(d0, s0)`. */
export function operationText(o: Operation): string {
  const args = (TEXTS[o.op] as (o: Operation) => readonly (string | number | undefined)[])(o);
  return `${'as' in o ? `${o.as} = ` : ''}${o.op}(${args.filter((arg) => arg !== undefined).join(', ')})`;
}
