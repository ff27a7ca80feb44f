/**
 * Attach in three parts: prepare, which may fail and then leaves nothing; the writes of CD and STE; commit, which
 * cannot fail (kernel: `arm_smmu_attach_prepare`, `arm_smmu_attach_commit`; linux-driver 6).
 */
import { linuxSteSafe, linuxSteUsed, STE, type Words } from '../../../spec/index.ts';
import { KernelError } from '../kernel.ts';
import { CommandBatch, issueAlone, issueWithSync } from './command-batch.ts';
import { atcInvAll, cfgiSte, prefetchConfig, resume, stallTerm } from './commands.ts';
import { NestedDomain, PagingDomain, type SmmuDomain, SvaDomain, trackerOf } from './domains.ts';
import { drainEvents } from './events.ts';
import { type InvKey, isTag } from './invalidation.ts';
import { disableAts, enableAts } from './pci.ts';
import { hearsEvents } from './reset.ts';
import { type Master, type MasterDomain, onTimeout, type Vmaster } from './smmu.ts';

/** What is being attached to what. */
export interface AttachRequest {
  readonly master: Master;
  readonly domain: SmmuDomain;
  /** The domain that this RID or PASID leaves; null: none. */
  readonly old: SmmuDomain | null;
  readonly ssid: number;
  /** A CD table must stay in place, for PASIDs, whatever the RID's domain. */
  readonly cdNeedsAts: boolean;
  /** The VM did not turn ATS on. */
  readonly disableAts: boolean;
}

/** Between prepare and commit (`struct arm_smmu_attach_state`). */
export interface AttachState extends AttachRequest {
  readonly ats: boolean;
  readonly record: MasterDomain | null;
  readonly vmaster: Vmaster | null;
  /** ASID or VMID of the new attachment; 0: it has none. */
  readonly tag: number;
}

/** The part; a test or the bug zoo wraps its steps. */
export interface AttachPart {
  /** @throws KernelError; then nothing has changed */
  prepare(request: AttachRequest): AttachState;
  /** Writes the STE of every stream (`arm_smmu_install_ste_for_dev`). */
  installSte(master: Master, ste: Words): void;
  commit(state: AttachState): void;
}

/** Tag of a domain on a master's SMMU and what an attachment adds to its array (`arm_smmu_master_build_invs`). */
function buildInvs(request: AttachRequest, ats: boolean): { readonly invs: InvKey[]; readonly fresh: boolean } {
  const { master, domain, ssid } = request;
  const { smmu } = master;
  const { vmidPolicy } = smmu.parts;
  // Identity and blocked need no list: attaching them cannot fail.
  if (trackerOf(domain) === null) return { invs: [], fresh: false };
  smmu.kernel.alloc('invs-build');
  const atsKeys = (full: boolean): InvKey[] =>
    ats
      ? master.streams.map(({ sid }) => ({ smmu, type: full ? 'ATS_FULL' : 'ATS', id: sid, ssid: full ? 0 : ssid }))
      : [];
  if (domain instanceof SvaDomain || (domain instanceof PagingDomain && domain.kind === 's1'))
    return { invs: [{ smmu, type: 'S1_ASID', id: domain.asid, ssid: 0 }, ...atsKeys(false)], fresh: false };
  if (!(domain instanceof PagingDomain) && !(domain instanceof NestedDomain)) return { invs: [], fresh: false };
  const { type, vmid, fresh } = vmidPolicy.tagFor(domain, smmu);
  const clears = vmidPolicy.clearsStage1(domain);
  const clear: InvKey[] = clears ? [{ smmu, type: 'S2_VMID_S1_CLEAR', id: vmid, ssid: 0 }] : [];
  return { invs: [{ smmu, type, id: vmid, ssid: 0 }, ...clear, ...atsKeys(clears)], fresh };
}

/** The vDEVICE's vSID, for events (`arm_smmu_attach_prepare_vmaster`). @throws KernelError ENOENT, ENOMEM */
function findVmaster(master: Master, domain: SmmuDomain): Vmaster | null {
  if (!(domain instanceof NestedDomain) || domain.vsmmu === null) return null;
  let vsid: bigint;
  try {
    vsid = domain.vsmmu.vsidOf(master.dev);
  } catch (error) {
    // Abort and bypass need no vSID: that is how a VM without an STE for the device runs (its GBPA).
    const translating = master.smmu.parts.nested.translates(domain.vste);
    if (error instanceof KernelError && error.errno === 'ENOENT' && !translating) return null;
    throw error;
  }
  master.smmu.kernel.alloc('vmaster');
  return { vsmmu: domain.vsmmu, vsid };
}

/** Whether the attachment counts among those that want page faults. @throws KernelError EOPNOTSUPP */
function wantsIopf(master: Master, domain: SmmuDomain): boolean {
  if (domain.iopfHandler === null || !master.stallEnabled) return false;
  if (master.streams.length > 1)
    throw new KernelError('EOPNOTSUPP', `${master.dev.name} has several streams: a stall could not be told apart`);
  return true;
}

/** From the first attachment that wants page faults on, the device may report them (`arm_smmu_enable_iopf`). @throws KernelError ENODEV, ENOMEM */
function enableIopf(master: Master): void {
  if (master.iopfUsers === 0) master.smmu.iopf.addDevice(master.dev);
  master.iopfUsers++;
}

/** `arm_smmu_disable_iopf`. */
function disableIopf(master: Master): void {
  master.iopfUsers--;
  if (master.iopfUsers === 0) master.smmu.iopf.removeDevice(master.dev);
}

function prepare(request: AttachRequest): AttachState {
  const { master, domain, ssid } = request;
  const { smmu } = master;
  const { kernel, parts } = smmu;
  const tracker = trackerOf(domain);
  const ats =
    (tracker !== null || request.cdNeedsAts) && !request.disableAts && master.atsSupported && !master.atcBroken;
  const { invs, fresh } = buildInvs(request, ats);
  const [tag] = invs;
  let record: MasterDomain | null = null;
  let vmaster: Vmaster | null = null;
  try {
    const merged = tracker === null ? null : parts.invalidation.merge(kernel, tracker.invs, invs);
    vmaster = findVmaster(master, domain);
    if (tracker !== null && merged !== null) {
      kernel.alloc('master-domain');
      record = { domain, master, ssid, invs, usesIopf: wantsIopf(master, domain) };
      if (tracker instanceof PagingDomain && tracker.enforceCoherency && !master.node.canWbs)
        throw new KernelError('EINVAL', `${master.dev.name} can make non-coherent accesses`);
      if (record.usesIopf) enableIopf(master);
      tracker.devices.add(record);
      if (tracker instanceof PagingDomain) tracker.usedOn.add(smmu);
      // From here the new domain invalidates for this device too.
      tracker.invs = merged;
    }
  } catch (error) {
    if (fresh && tag !== undefined && tracker instanceof PagingDomain) parts.vmidPolicy.tagUnused(tracker, tag);
    throw error;
  }
  if (!ats && master.atsEnabled) {
    disableAts(master);
    if (!smmu.options.quirks.has('ats-off-after-ste')) atcInvMaster(master, 0);
  }
  const { old, cdNeedsAts } = request;
  return {
    master,
    domain,
    old,
    ssid,
    cdNeedsAts,
    disableAts: request.disableAts,
    ats,
    record,
    vmaster,
    tag: tag?.id ?? 0,
  };
}

/** Everything a device caches, of a PASID or of requests without one (`arm_smmu_atc_inv_master`). False: timed out. */
export function atcInvMaster(master: Master, ssid: number): boolean {
  const batch = new CommandBatch(master.smmu);
  for (const { sid } of master.streams) batch.add(atcInvAll(sid, ssid));
  return batch.submit();
}

function installSte(master: Master, ste: Words): void {
  endInheritedStalls(master);
  writeSte(master, ste);
}

function writeSte(master: Master, ste: Words): void {
  const { kernel, parts, strtab } = master.smmu;
  master.cdTable.inSte = STE.num(ste, 'Config') === STE.fields.Config.values.S1_TRANS;
  master.steAts = STE.num(ste, 'EATS') !== 0;
  for (const { sid } of master.streams) {
    const rules = { used: linuxSteUsed, safe: linuxSteSafe, onTimeout: onTimeout(master.smmu) } as const;
    parts.entryWriter.write(kernel, strtab.steOf(sid), ste, rules, () =>
      issueWithSync(master.smmu, cfgiSte(sid, true)),
    );
    issueAlone(master.smmu, prefetchConfig(sid));
  }
}

/**
 * The STE of the driver before is about to go. What it stalled waits for that driver, whose records nobody has: first the
 * stream terminates all that comes, and the records that this driver has are answered, then CMD_STALL_TERM ends the rest
 * (IHI 0070 4.7.2.1).
 */
function endInheritedStalls(master: Master): void {
  const { smmu, node } = master;
  const mayStall = smmu.enabled && ((node.canStall && smmu.features.stalls) || smmu.features.stallForce);
  if (!mayStall || !smmu.inherited.holds(master)) return;
  writeSte(master, smmu.parts.makers.abortSte());
  if (hearsEvents(smmu)) drainEvents(smmu);
  issueWithSync(smmu, ...master.streams.map(({ sid }) => stallTerm(sid)));
}

function commitAts(state: AttachState): void {
  const { master, ats, ssid } = state;
  if (ats && !master.atsEnabled) {
    atcInvMaster(master, 0);
    // An SMMU that is off allows none: the resume turns it on (3.9.2).
    if (master.smmu.enabled) enableAts(master);
  } else if (ats) atcInvMaster(master, ssid);
  else if (master.atsEnabled && master.smmu.options.quirks.has('ats-off-after-ste')) atcInvMaster(master, 0);
  master.atsEnabled = ats;
}

/** Changes who gets the device's events (`arm_smmu_attach_commit_vmaster`). */
export function commitVmaster(master: Master, vmaster: Vmaster | null): void {
  const { smmu, vmaster: old } = master;
  const same = old === null || (old.vsmmu === vmaster?.vsmmu && old.vsid === vmaster.vsid);
  if (!same && !smmu.options.quirks.has('events-not-drained')) drainEvents(smmu);
  smmu.kernel.withLock(smmu.streamsLock, () => {
    master.vmaster = vmaster;
  });
}

/** Whether the new STE ends every transaction of the stream: nothing can stall from now on. */
const terminatesAll = ({ master, domain, cdNeedsAts }: AttachState): boolean =>
  (domain.kind === 'blocked' && !cdNeedsAts) ||
  (domain instanceof NestedDomain && master.smmu.parts.nested.mode(domain.vste) === 'abort');

/**
 * Stalled transactions of the old domain must not be retried in the new one (IHI 0070 3.12.2.2). STE and CD are in place.
 *
 * Each is answered on its own. CMD_STALL_TERM is for a stream that terminates all that comes: elsewhere it may end, or
 * hide, what stalls in the new domain (4.7.2), and the driver would answer it once more. There it ends what has no record.
 */
function endStalls(state: AttachState): void {
  const { master, old, domain, ssid } = state;
  const { smmu } = master;
  if (!master.stallEnabled || old === null || old === domain || smmu.options.quirks.has('stalls-on-detach')) return;
  if (trackerOf(old) === null) return;
  // Retries that were asked for are under way, and all records of before are in the queue (4.7.3). An STE that stays as
  // it is, because both domains want the same, has had no CMD_SYNC.
  issueWithSync(smmu, ...master.streams.map(({ sid }) => cfgiSte(sid, true)));
  drainEvents(smmu);
  const batch = new CommandBatch(smmu);
  for (const [STAG, { sid, fault }] of master.stalls) {
    const pasid = fault.pasid ?? 0;
    // Of a PASID that stays as it is.
    if (pasid !== ssid && master.records.has(pasid)) continue;
    batch.add(resume(sid, STAG, 'abort'));
    master.stalls.delete(STAG);
  }
  if (terminatesAll(state)) for (const { sid } of master.streams) batch.add(stallTerm(sid));
  if (!batch.empty) batch.submit();
}

/**
 * The old attachment of a RID or PASID ends and `record` takes its place. The old domain no longer invalidates for it; a
 * tag that nobody uses is cleaned (`arm_smmu_install_old_domain_invs`).
 */
export function leaveDomain(master: Master, ssid: number, record: MasterDomain | null): void {
  const old = master.records.get(ssid);
  master.records.delete(ssid);
  if (record !== null) master.records.set(ssid, record);
  const tracker = old === undefined ? null : trackerOf(old.domain);
  if (old === undefined || tracker === null) return;
  const { invalidation, vmidPolicy } = master.smmu.parts;
  tracker.devices.delete(old);
  if (old.usesIopf) disableIopf(master);
  const gone = invalidation.unref(tracker.invs, old.invs);
  const tag = gone.find(isTag);
  if (tag !== undefined) invalidation.flushTag(tag);
  else {
    // The VMID lives on without a nested stream: no unmap will remove its stage 1 entries from now on.
    const clear = gone.find((inv) => inv.type === 'S2_VMID_S1_CLEAR');
    if (clear !== undefined) invalidation.flushStage1(clear);
  }
  tracker.invs = invalidation.purge(master.smmu.kernel, tracker.invs);
  if (tag !== undefined && tracker instanceof PagingDomain) vmidPolicy.tagUnused(tracker, tag);
}

function commit(state: AttachState): void {
  const { master, ssid } = state;
  if (ssid === 0) commitVmaster(master, state.vmaster);
  endStalls(state);
  commitAts(state);
  leaveDomain(master, ssid, state.record);
  if (ssid === 0) master.current = state.domain;
  master.smmu.inherited.claim(master);
}

/** The kernel's. */
export const attachPart: AttachPart = { prepare, installSte, commit };
