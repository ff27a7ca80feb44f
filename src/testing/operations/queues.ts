/** Queues that a VMM reads: page faults of stalled transactions, which it answers, and events of a vIOMMU's streams. */
import { EVENT_BYTES, eventOf, F_TRANSLATION } from '../../../spec/index.ts';
import { PAGE_RESPONSE_CODE, VEVENTQ_FLAGS, VEVENTQ_TYPE } from '../../../spec/uapi/constants.ts';
import {
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  iommu_vevent_tegra241_cmdqv,
  iommufd_vevent_header,
} from '../../../spec/uapi.ts';
import { KernelError } from '../../driver/kernel.ts';
import type { Lab, OpenQueue } from '../lab.ts';
import type { OperationResult, VeventRecord } from '../operation.ts';
import { boundOf, handleOf, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type QueueOperation =
  /** A fault queue, in the context of a device. */
  | { readonly op: 'faultQueueAlloc'; readonly as: string; readonly dev: string }
  /** Reads all page faults that wait. */
  | { readonly op: 'faultRead'; readonly on: string }
  /** Answers the oldest group that was read: its transactions are sent again, or end. */
  | { readonly op: 'faultRespond'; readonly on: string; readonly code: 'success' | 'invalid' }
  /** `type` tegra241-cmdqv: errors of the VM's VCMDQs. Default arm-smmuv3: events of its streams. */
  | {
      readonly op: 'veventqAlloc';
      readonly as: string;
      readonly viommu: string;
      readonly depth: number;
      readonly type?: 'arm-smmuv3' | 'tegra241-cmdqv';
    }
  /** Reads all events that wait. */
  | { readonly op: 'veventRead'; readonly on: string }
  /** Closes the descriptor of a queue; the object stays. */
  | { readonly op: 'queueClose'; readonly on: string };

const HEADER = iommufd_vevent_header.bytes;
const CMDQV_EVENT_BYTES = iommu_vevent_tegra241_cmdqv.bytes;
/** Records that one read has room for. */
const ROOM = 1000;

/** A cookie that the kernel has never given. */
const NO_COOKIE = 0xffff_fffe;

/** The open queue of a name. @throws KernelError EBADF */
function openQueue(lab: Lab, name: string): OpenQueue {
  const queue = lab.queues.get(name);
  if (queue === undefined) throw new KernelError('EBADF', `${name} is no open queue`);
  return queue;
}

function faultRead(lab: Lab, name: string): OperationResult {
  const queue = openQueue(lab, name);
  lab.kernel.runInterrupts();
  const bytes = queue.ctx.read(queue.fd, ROOM * iommu_hwpt_pgfault.bytes);
  let faults = 0;
  for (let at = 0; at < bytes.length; at += iommu_hwpt_pgfault.bytes) {
    const { cookie } = iommu_hwpt_pgfault.decode(bytes.subarray(at, at + iommu_hwpt_pgfault.bytes));
    if (!queue.cookies.includes(cookie)) queue.cookies.push(cookie);
    faults++;
  }
  return { status: 'ok', saw: `faults ${faults}` };
}

function faultRespond(lab: Lab, name: string, code: 'success' | 'invalid'): undefined {
  const queue = openQueue(lab, name);
  // The kernel may have answered it meanwhile, where the attachment has ended: the cookie is then unknown.
  const cookie = queue.cookies.shift() ?? NO_COOKIE;
  const answer = code === 'success' ? PAGE_RESPONSE_CODE.SUCCESS : PAGE_RESPONSE_CODE.INVALID;
  try {
    queue.ctx.write(queue.fd, iommu_hwpt_page_response.encode({ cookie, code: answer }));
  } finally {
    lab.kernel.runInterrupts();
  }
}

function veventRead(lab: Lab, name: string): OperationResult {
  const queue = openQueue(lab, name);
  lab.kernel.runInterrupts();
  const bytes = queue.ctx.read(queue.fd, ROOM * (HEADER + EVENT_BYTES));
  const events: VeventRecord[] = [];
  for (let at = 0; at < bytes.length; ) {
    const { flags } = iommufd_vevent_header.decode(bytes.subarray(at, at + HEADER));
    at += HEADER;
    if ((flags & VEVENTQ_FLAGS.LOST_EVENTS) !== 0) {
      events.push({ event: 'lost' });
      continue;
    }
    if (queue.cmdqv === true) {
      const { lvcmdq_err_map } = iommu_vevent_tegra241_cmdqv.decode(bytes.subarray(at, at + CMDQV_EVENT_BYTES));
      at += CMDQV_EVENT_BYTES;
      events.push({ event: 'VCMDQ_ERROR', errors: lvcmdq_err_map.map((map) => `0x${map.toString(16)}`).join(' ') });
      continue;
    }
    const words = new Uint32Array(bytes.slice(at, at + EVENT_BYTES).buffer);
    at += EVENT_BYTES;
    events.push({ event: eventOf(words)?.name ?? 'unknown', vsid: F_TRANSLATION.num(words, 'StreamID') });
  }
  const texts = events.map((one) =>
    'vsid' in one ? `${one.event}@${one.vsid}` : 'errors' in one ? `${one.event} ${one.errors}` : one.event,
  );
  return { status: 'ok', events, saw: texts.join(' ') || 'no events' };
}

/** How each is carried out. */
export const performQueues: Performers<QueueOperation> = {
  faultQueueAlloc: (lab, o) => {
    const { ctx } = boundOf(lab, o.dev);
    const made = ctx.faultQueueAlloc();
    lab.name(o.as, made.out_fault_id, ctx);
    lab.queues.set(o.as, { fd: made.out_fault_fd, ctx, cookies: [] });
    return undefined;
  },
  faultRead: (lab, o) => faultRead(lab, o.on),
  faultRespond: (lab, o) => faultRespond(lab, o.on, o.code),
  veventqAlloc: (lab, o) => {
    const { ctx, id: viommu_id } = handleOf(lab, o.viommu);
    const cmdqv = o.type === 'tegra241-cmdqv';
    const type = cmdqv ? VEVENTQ_TYPE.TEGRA241_CMDQV : VEVENTQ_TYPE.ARM_SMMUV3;
    const made = ctx.veventqAlloc({ viommu_id, type, veventq_depth: o.depth });
    lab.name(o.as, made.out_veventq_id, ctx);
    lab.queues.set(o.as, { fd: made.out_veventq_fd, ctx, cookies: [], cmdqv });
    return undefined;
  },
  veventRead: (lab, o) => veventRead(lab, o.on),
  queueClose: (lab, o) => {
    const { ctx, fd } = openQueue(lab, o.on);
    lab.queues.delete(o.on);
    ctx.closeFd(fd);
    return undefined;
  },
};

/** How each is told. */
export const queueTexts: Texts<QueueOperation> = {
  faultQueueAlloc: (o) => [o.dev],
  faultRead: (o) => [o.on],
  faultRespond: (o) => [o.on, o.code],
  veventqAlloc: (o) => [o.viommu, `depth ${o.depth}`, o.type],
  veventRead: (o) => [o.on],
  queueClose: (o) => [o.on],
};
