/** Devices: bound, attached, and doing DMA. */
import { pciDevResetDone, pciDevResetPrepare } from '../../driver/iommu/reset.ts';
import type { DmaResult } from '../../hw/dma.ts';
import { guestAddress, readMark } from '../guest.ts';
import { CaseError, type Lab, type StalledAccess } from '../lab.ts';
import { STAYS_BLOCKED } from '../model.ts';
import type { DmaOutcome, OperationResult } from '../operation.ts';
import { FIRST_PROCESS } from '../process.ts';
import { idOf, type Performers, type Texts, within } from './family.ts';

/** See the module comment. */
export type DeviceOperation =
  /** Attaches a device, or moves it if it is attached. */
  | { readonly op: 'attach'; readonly dev: string; readonly to: string }
  | { readonly op: 'detach'; readonly dev: string }
  | { readonly op: 'bind'; readonly dev: string }
  /** Detach and unbind: close() of the device, or its hot-unplug. */
  | { readonly op: 'unbind'; readonly dev: string }
  /** The device accesses 8 bytes of a page: reads what the page says of itself, or writes beside it. */
  | ({ readonly op: 'dma' } & DmaAccess)
  /** What became of the oldest access of the device that stalled. */
  | { readonly op: 'settle'; readonly dev: string }
  /** The PCI core begins to reset the device: it is blocked until the reset ends. A device without ATS is left alone. */
  | { readonly op: 'resetBegin'; readonly dev: string }
  | { readonly op: 'resetEnd'; readonly dev: string };

/** An access by a device. */
export interface DmaAccess {
  readonly dev: string;
  readonly page: number;
  readonly write?: boolean;
  /** Through its ATC, with Translated transactions, while software has ATS on. Default false. */
  readonly ats?: boolean;
  /** PASID, as a SubstreamID. Default: none. */
  readonly pasid?: number;
  /** Which of its StreamIDs. Default 0. */
  readonly stream?: number;
  /** How often, before the kernel hears of it, up to {@link MOST_ACCESSES}; the last one counts. Default 1. */
  readonly times?: number;
  /** The kernel hears of it, and of what it faults, only when something lets interrupts run. Default: at once. */
  readonly unheard?: boolean;
}

/** Accesses of one operation: enough for any Event queue of a lab. */
export const MOST_ACCESSES = 1000;

/** Where a DMA write of 8 bytes goes inside its page: beside the mark. */
export const WRITE_OFFSET = 8;

const ONES = new Uint8Array(8).fill(0xff);

function outcome(lab: Lab, result: DmaResult, write: boolean): DmaOutcome {
  if (result.status !== 'ok' || write) return { status: result.status };
  const mark = readMark(result.data);
  if (mark === undefined) return { status: 'ok' };
  const { vm, page, boot } = mark;
  const whose = vm < FIRST_PROCESS ? { vm } : { mm: vm - FIRST_PROCESS };
  return { status: 'ok', ...whose, page, ...(boot === lab.boots ? {} : { old: true }) };
}

function dma(lab: Lab, access: DmaAccess): DmaOutcome {
  const { times = 1, unheard = false, ...rest } = access;
  within('times', times, 1, MOST_ACCESSES);
  for (let i = 1; i < times; i++) dmaOnce(lab, rest);
  const result = dmaOnce(lab, rest);
  if (!unheard) lab.kernel.runInterrupts();
  return typeof result === 'function' ? result() : result;
}

/** What became of an access, or how to find out when the kernel has heard of it. */
function dmaOnce(
  lab: Lab,
  { dev, page, write = false, ats, pasid, stream }: DmaAccess,
): DmaOutcome | (() => DmaOutcome) {
  const { endpoint } = lab.device(dev);
  if (stream !== undefined && stream >= endpoint.streamIds.length)
    throw new CaseError(`${dev} has ${endpoint.streamIds.length} StreamIDs; ${stream} is none`);
  const options = {
    ...(ats === undefined ? {} : { ats }),
    ...(pasid === undefined ? {} : { SubstreamID: pasid }),
    ...(stream === undefined ? {} : { stream }),
  };
  const at = guestAddress(page);
  const result = write ? endpoint.write(at + BigInt(WRITE_OFFSET), ONES, options) : endpoint.read(at, 8, options);
  if (result.status !== 'stall') return outcome(lab, result, write);
  const access: StalledAccess = { dev, page, write, pasid };
  lab.stalled.push(access);
  result.pending.onDone = (end) => {
    access.end = outcome(lab, end, write);
  };
  return () => {
    if (access.end === undefined) return { status: 'stall' };
    lab.stalled.splice(lab.stalled.indexOf(access), 1);
    return access.end;
  };
}

/** An access that has ended is told once. */
function settle(lab: Lab, dev: string): OperationResult {
  const { name } = lab.device(dev);
  const at = lab.stalled.findIndex((one) => one.dev === name);
  const access = lab.stalled[at];
  if (access === undefined) return { status: 'skipped', why: `no access of ${dev} has stalled` };
  if (access.end !== undefined) lab.stalled.splice(at, 1);
  return { status: 'ok', dma: access.end ?? { status: 'stall' } };
}

/** How each is carried out. */
export const performDevices: Performers<DeviceOperation> = {
  attach: (lab, o) => {
    const { vfio, ctx } = lab.device(o.dev);
    vfio.attach(idOf(lab, o.to, ctx));
    return undefined;
  },
  detach: (lab, o) => {
    lab.device(o.dev).vfio.detach();
    return undefined;
  },
  bind: (lab, o) => {
    const { vfio, ctx } = lab.device(o.dev);
    vfio.bind(ctx);
    return undefined;
  },
  unbind: (lab, o) => {
    lab.device(o.dev).vfio.close();
    // Its vDEVICE went with it.
    lab.forgetDead();
    return undefined;
  },
  dma: (lab, o) => ({ status: 'ok', dma: dma(lab, o) }),
  settle: (lab, o) => settle(lab, o.dev),
  resetBegin: (lab, o) => {
    pciDevResetPrepare(lab.device(o.dev).dev);
    return undefined;
  },
  resetEnd: (lab, o) => {
    const before = lab.kernel.messages.length;
    pciDevResetDone(lab.device(o.dev).dev);
    const blocked = lab.kernel.messages.slice(before).some(({ text }) => text.includes(STAYS_BLOCKED));
    return blocked ? { status: 'ok', saw: STAYS_BLOCKED } : undefined;
  },
};

/** How each is told. */
export const deviceTexts: Texts<DeviceOperation> = {
  attach: (o) => [o.dev, o.to],
  detach: (o) => [o.dev],
  bind: (o) => [o.dev],
  unbind: (o) => [o.dev],
  dma: (o) => [
    o.dev,
    `${o.write ? 'write' : 'read'} page ${o.page}`,
    o.pasid === undefined ? undefined : `PASID ${o.pasid}`,
    o.stream === undefined ? undefined : `stream ${o.stream}`,
    o.ats === true ? 'through its ATC' : undefined,
    o.times === undefined ? undefined : `${o.times} times`,
    o.unheard === true ? 'unheard' : undefined,
  ],
  settle: (o) => [o.dev],
  resetBegin: (o) => [o.dev],
  resetEnd: (o) => [o.dev],
};
