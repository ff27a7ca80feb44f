/** What devices with ATS do: they ask for translations and keep them, and answer invalidations of what they keep. */
import type { AtsUnit } from '../../hw/ats.ts';
import { guestAddress } from '../guest.ts';
import { CaseError, type Lab } from '../lab.ts';
import type { DmaOutcome } from '../operation.ts';
import type { Performers, Texts } from './family.ts';

/** See the module comment. */
export type AtsOperation =
  /** A Translation Request; what it gives stays in the ATC. 'ok': it gives what was asked for. */
  | {
      readonly op: 'translate';
      readonly dev: string;
      readonly page: number;
      readonly write?: boolean;
      readonly pasid?: number;
    }
  /** From now on the device does not answer ATS Invalidates (CMD_ATC_INV times out), or answers again. */
  | { readonly op: 'atcHang'; readonly dev: string; readonly on: boolean };

function atsOf(lab: Lab, dev: string): AtsUnit {
  const { ats } = lab.device(dev).endpoint;
  if (ats === null) throw new CaseError(`${dev} has no ATS; a machine with "ats: true" has`);
  return ats;
}

function translate(lab: Lab, o: Extract<AtsOperation, { op: 'translate' }>): DmaOutcome {
  const { dev, page, write = false, pasid = -1 } = o;
  const ats = atsOf(lab, dev);
  // A function whose ATS is off sends no Translation Requests.
  if (!ats.enabled) return { status: 'abort' };
  const completion = ats.translate({
    StreamID: lab.device(dev).sid,
    SubstreamID: pasid,
    address: guestAddress(page),
    privileged: false,
    execute: false,
    noWrite: !write,
  });
  lab.kernel.runInterrupts();
  const granted = completion.status === 'success' && (write ? completion.entry.write : completion.entry.read);
  return { status: granted ? 'ok' : 'abort' };
}

/** How each is carried out. */
export const performAts: Performers<AtsOperation> = {
  translate: (lab, o) => ({ status: 'ok', dma: translate(lab, o) }),
  atcHang: (lab, o) => {
    atsOf(lab, o.dev).hang = o.on;
    return undefined;
  },
};

/** How each is told. */
export const atsTexts: Texts<AtsOperation> = {
  translate: (o) => [
    o.dev,
    `${o.write ? 'write' : 'read'} page ${o.page}`,
    o.pasid === undefined ? undefined : `PASID ${o.pasid}`,
  ],
  atcHang: (o) => [o.dev, o.on ? 'answers no invalidation' : 'answers'],
};
