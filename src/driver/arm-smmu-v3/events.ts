/** Event queue, PRI queue and global errors (kernel: `arm_smmu_evtq_thread`, `_priq_thread`, `_gerror_handler`). */
import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  EVENT_CLASS,
  eventOf,
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
  GERROR,
  GERRORN,
  isStopMarker,
  PRI_ENTRY,
  toQwords,
  type Words,
} from '../../../spec/index.ts';
import { VEVENTQ_TYPE } from '../../../spec/uapi/constants.ts';
import { reportDeviceFault } from '../iommu/io-pgfault.ts';
import type { Device, PageFault, PageResponseCode } from '../iommu/ops.ts';
import { KernelError } from '../kernel.ts';
import { issueAlone } from './command-batch.ts';
import { priDeny, resume } from './commands.ts';
import { disableSmmu } from './reset.ts';
import { type Master, registerAt, type Smmu } from './smmu.ts';

/** Events that are more than a line in the log. */
const HANDLED: ReadonlySet<number> = new Set(
  [C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD, F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION].map(
    (event) => event.number,
  ),
);

/** Handles every event in the queue, and those that arrive meanwhile (`arm_smmu_evtq_thread`). */
export function drainEvents(smmu: Smmu): void {
  const { evtq, kernel } = smmu;
  for (;;) {
    const overflowed = evtq.readProd();
    if (overflowed) kernel.log('err', `${smmu.name}: EVTQ overflow detected -- events lost`);
    let any = false;
    for (let words = evtq.take(); words !== undefined; words = evtq.take()) {
      any = true;
      handleEvent(smmu, words);
    }
    if (overflowed) evtq.acknowledgeOverflow();
    if (!any) return;
  }
}

function handleEvent(smmu: Smmu, words: Words): void {
  const number = F_TRANSLATION.num(words, 'EventNumber');
  try {
    if (!HANDLED.has(number)) throw new KernelError('EOPNOTSUPP', 'nobody handles this event');
    const sid = F_TRANSLATION.num(words, 'StreamID');
    const master = smmu.kernel.withLock(smmu.streamsLock, () => smmu.streams.get(sid)?.master);
    const stalls = F_TRANSLATION.num(words, 'Stall') === 1;
    if (master === undefined) {
      if (stalls) refuseStall(smmu, sid, words);
      throw new KernelError('EINVAL', `no device has StreamID 0x${sid.toString(16)}`);
    }
    if (stalls) reportStall(master, words);
    else forward(master, words);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    logEvent(smmu, words);
  }
}

/**
 * A stalled transaction in a stream that was adopted, and whose device has not been probed yet: nobody will answer it, and
 * it holds its STAG until somebody does (3.12.2). Linux adopts no stream whose events it reads.
 */
function refuseStall(smmu: Smmu, sid: number, words: Words): void {
  if (smmu.enabled) issueAlone(smmu, resume(sid, F_TRANSLATION.num(words, 'STAG'), 'abort'));
}

/** A stalled transaction waits for an answer (`arm_smmu_handle_event`). */
function reportStall(master: Master, words: Words): void {
  if (!master.smmu.enabled) throw new KernelError('ENODEV', 'all stalls ended when SMMUEN was cleared (6.3.9.6)');
  const STAG = F_TRANSLATION.num(words, 'STAG');
  const read = F_TRANSLATION.num(words, 'RnW') === 1;
  const pasid = F_TRANSLATION.num(words, 'SSV') === 1 ? F_TRANSLATION.num(words, 'SubstreamID') : undefined;
  const fault: PageFault = {
    addr: F_TRANSLATION.get(words, 'InputAddr'),
    pasid,
    grpid: STAG,
    lastPage: true,
    read,
    write: !read,
    exec: F_TRANSLATION.num(words, 'InD') === 1,
    priv: F_TRANSLATION.num(words, 'PnU') === 1,
  };
  master.stalls.set(STAG, { sid: F_TRANSLATION.num(words, 'StreamID'), fault });
  reportDeviceFault(master.dev, fault);
}

/** Ends a stall as the page-fault path decided (`arm_smmu_page_response`). */
export function pageResponse(dev: Device, fault: PageFault, code: PageResponseCode): void {
  const master = dev.priv as Master | null;
  if (master === null) return;
  // Not asked whether it may stall: an STE that was adopted may let it, where this driver would not.
  const stall = master.stalls.get(fault.grpid);
  // Ended already, when its domain was left: its tag may belong to another transaction by now.
  if (stall?.fault !== fault) return;
  master.stalls.delete(fault.grpid);
  issueAlone(master.smmu, resume(stall.sid, fault.grpid, code === 'success' ? 'retry' : 'abort'));
}

/** Tells the VM of an event in its own stage 1 (`arm_vmaster_report_event`). @throws KernelError EINVAL, EOPNOTSUPP, ENOMEM */
function forward(master: Master, words: Words): void {
  if (master.vmaster === null || F_TRANSLATION.num(words, 'S2') === 1)
    throw new KernelError('EOPNOTSUPP', "the event is the host kernel's");
  const { vsmmu, vsid } = master.vmaster;
  const out = words.slice();
  F_TRANSLATION.set(out, 'StreamID', BigInt.asUintN(F_TRANSLATION.width('StreamID'), vsid));
  vsmmu.viommu.callbacks.reportEvent(vsmmu.viommu, VEVENTQ_TYPE.ARM_SMMUV3, new Uint8Array(out.buffer));
}

const flag = (words: Words, name: 'PnU' | 'InD' | 'RnW' | 'S2', one: string, zero: string): string =>
  F_TRANSLATION.num(words, name) === 1 ? one : zero;

const CLASS_NAMES = new Map(Object.entries(EVENT_CLASS).map(([name, value]) => [value as number, name]));

/** The raw words and what they say (`arm_smmu_dump_event`). */
function logEvent(smmu: Smmu, words: Words): void {
  const name = eventOf(words)?.name ?? 'UNKNOWN';
  const number = F_TRANSLATION.num(words, 'EventNumber');
  const sid = F_TRANSLATION.num(words, 'StreamID');
  const client = smmu.streams.get(sid)?.master.dev.name ?? '(unassigned sid)';
  const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
  smmu.kernel.log('info', `${smmu.name}: event 0x${number.toString(16).padStart(2, '0')} received:`);
  for (const qword of toQwords(words))
    smmu.kernel.log('info', `${smmu.name}: \t0x${qword.toString(16).padStart(16, '0')}`);
  const ssid = F_TRANSLATION.num(words, 'SSV') === 1 ? ` ssid: ${hex(F_TRANSLATION.num(words, 'SubstreamID'))}` : '';
  smmu.kernel.log(
    'info',
    `${smmu.name}: event: ${name} client: ${client} sid: ${hex(sid)}${ssid} iova: ${hex(F_TRANSLATION.get(words, 'InputAddr'))} ipa: ${hex(F_TRANSLATION.address(words, 'IPA'))}`,
  );
  smmu.kernel.log(
    'info',
    `${smmu.name}: ${flag(words, 'PnU', 'priv', 'unpriv')} ${flag(words, 'InD', 'inst', 'data')} ${flag(words, 'RnW', 'read', 'write')} ${flag(words, 'S2', 's2', 's1')} "${CLASS_NAMES.get(F_TRANSLATION.num(words, 'CLASS')) ?? '?'}" stag: ${hex(F_TRANSLATION.num(words, 'STAG'))}`,
  );
}

/** Page requests are not served: the last of each group is refused (`arm_smmu_handle_ppr`). */
export function drainPageRequests(smmu: Smmu): void {
  const { priq, kernel } = smmu;
  if (priq === null) return;
  for (;;) {
    const overflowed = priq.readProd();
    if (overflowed) kernel.log('err', `${smmu.name}: PRIQ overflow detected -- requests lost`);
    let any = false;
    for (let words = priq.take(); words !== undefined; words = priq.take()) {
      any = true;
      refuse(smmu, words);
    }
    if (overflowed) priq.acknowledgeOverflow();
    if (!any) return;
  }
}

function refuse(smmu: Smmu, words: Words): void {
  const entry = PRI_ENTRY.decode(words);
  const sid = Number(entry.StreamID);
  const ssid = entry.SSV === 1n ? Number(entry.SubstreamID) : undefined;
  smmu.kernel.log('info', `${smmu.name}: unexpected PRI request received: sid 0x${sid.toString(16)}`);
  // A Stop Marker ends a PASID's requests and wants no answer (8.1).
  if (entry.Last === 1n && !isStopMarker(words)) issueAlone(smmu, priDeny(sid, ssid, Number(entry.PRGIndex)));
}

const GERROR_TEXT = {
  PRIQ_ABT_ERR: 'PRIQ write aborted -- events may have been lost',
  EVENTQ_ABT_ERR: 'EVTQ write aborted -- events may have been lost',
  MSI_GERROR_ABT_ERR: 'GERROR MSI write aborted',
  MSI_PRIQ_ABT_ERR: 'PRIQ MSI write aborted',
  MSI_EVENTQ_ABT_ERR: 'EVTQ MSI write aborted',
  MSI_CMDQ_ABT_ERR: 'CMDQ MSI write aborted',
} as const;

/** An interrupt handler has nobody to give an error to: a failing SMMU that does not switch off is logged. */
function switchOff(smmu: Smmu): void {
  try {
    disableSmmu(smmu);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    smmu.kernel.log('err', error.message);
  }
}

/** Reads and acknowledges global errors (`arm_smmu_gerror_handler`). Takes no lock: it runs inside polls. */
export function handleGlobalErrors(smmu: Smmu): void {
  const { kernel } = smmu;
  const gerror = kernel.read32('gerror:GERROR', registerAt(smmu, GERROR));
  const gerrorn = kernel.read32('gerror:GERRORN', registerAt(smmu, GERRORN));
  const active = (gerror ^ gerrorn) >>> 0;
  if ((active & ERRORS) === 0) return;
  kernel.log('warn', `${smmu.name}: unexpected global error reported (0x${active.toString(16).padStart(8, '0')})`);
  if ((active & GERROR.bit('SFM_ERR')) !== 0) {
    kernel.log('err', `${smmu.name}: device has entered Service Failure Mode!`);
    switchOff(smmu);
  }
  for (const [name, text] of Object.entries(GERROR_TEXT))
    if ((active & GERROR.bit(name as keyof typeof GERROR_TEXT)) !== 0) kernel.log('warn', `${smmu.name}: ${text}`);
  if ((active & GERROR.bit('CMDQ_ERR')) !== 0) smmu.cmdq.skipError();
  kernel.write32('gerror:GERRORN', registerAt(smmu, GERRORN), gerror);
}

/** Errors the driver knows (GERROR_ERR_MASK without CMDQP_ERR and DPT_ERR). */
const ERRORS = GERROR.bit(
  'SFM_ERR',
  'MSI_GERROR_ABT_ERR',
  'MSI_PRIQ_ABT_ERR',
  'MSI_EVENTQ_ABT_ERR',
  'MSI_CMDQ_ABT_ERR',
  'PRIQ_ABT_ERR',
  'EVENTQ_ABT_ERR',
  'CMDQ_ERR',
);
