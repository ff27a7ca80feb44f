/** What devices with ATS do: they ask for translations and keep them, and answer invalidations of what they keep. */
import { PRG_RESPONSE } from '../../../spec/pri.ts';
import type { AtsUnit } from '../../hw/ats.ts';
import { guestAddress } from '../guest.ts';
import { CaseError, type Lab } from '../lab.ts';
import type { DmaOutcome, OperationResult } from '../operation.ts';
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
  | { readonly op: 'atcHang'; readonly dev: string; readonly on: boolean }
  /** A device whose ATS is off asks for a translation all the same, and sends a Translated transaction to memory of a VM. */
  | { readonly op: 'forge'; readonly dev: string; readonly page: number }
  /** A page request (PRI), which nobody has asked the device to make. What it is answered. */
  | {
      readonly op: 'pageRequest';
      readonly dev: string;
      readonly page: number;
      readonly write?: boolean;
      readonly pasid?: number;
    };

/** Bytes that an access reads. */
const READ_BYTES = 8;

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

/** 'ok': it was granted something, or reached memory. */
function forge(lab: Lab, { dev, page }: Extract<AtsOperation, { op: 'forge' }>): OperationResult {
  const ats = atsOf(lab, dev);
  if (ats.enabled) return { status: 'skipped', why: `ATS of ${dev} is on` };
  const { endpoint, sid } = lab.device(dev);
  const completion = ats.translate({
    StreamID: sid,
    SubstreamID: -1,
    address: guestAddress(page),
    privileged: false,
    execute: false,
    noWrite: false,
  });
  const granted = completion.status === 'success' && (completion.entry.read || completion.entry.write);
  const target = lab.guests[0]?.pageAt(page) ?? guestAddress(page);
  const { status } = endpoint.read(target, READ_BYTES, { translated: true });
  lab.kernel.runInterrupts();
  return { status: 'ok', dma: { status: granted ? 'ok' : status } };
}

function pageRequest(lab: Lab, o: Extract<AtsOperation, { op: 'pageRequest' }>): OperationResult {
  const ats = atsOf(lab, o.dev);
  const before = ats.responses.at(-1);
  ats.send({
    StreamID: lab.device(o.dev).sid,
    SubstreamID: o.pasid ?? -1,
    PRGIndex: 0,
    address: guestAddress(o.page),
    read: true,
    write: o.write === true,
    execute: false,
    privileged: false,
    last: true,
  });
  lab.kernel.runInterrupts();
  const answer = ats.responses.at(-1);
  const name = Object.entries(PRG_RESPONSE).find(([, code]) => code === answer?.code)?.[0];
  return { status: 'ok', saw: answer === before || name === undefined ? 'no answer' : name };
}

/** How each is carried out. */
export const performAts: Performers<AtsOperation> = {
  translate: (lab, o) => ({ status: 'ok', dma: translate(lab, o) }),
  atcHang: (lab, o) => {
    atsOf(lab, o.dev).hang = o.on;
    return undefined;
  },
  forge,
  pageRequest,
};

/** How each is told. */
export const atsTexts: Texts<AtsOperation> = {
  translate: (o) => [
    o.dev,
    `${o.write ? 'write' : 'read'} page ${o.page}`,
    o.pasid === undefined ? undefined : `PASID ${o.pasid}`,
  ],
  atcHang: (o) => [o.dev, o.on ? 'answers no invalidation' : 'answers'],
  forge: (o) => [o.dev, `page ${o.page}`],
  pageRequest: (o) => [
    o.dev,
    `${o.write ? 'write' : 'read'} page ${o.page}`,
    o.pasid === undefined ? undefined : `PASID ${o.pasid}`,
  ],
};
