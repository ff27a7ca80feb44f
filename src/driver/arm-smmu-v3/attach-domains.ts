/** Attaching each kind of domain to a device's RID (kernel: the `attach_dev` operations). */
import type { Words } from '../../../spec/index.ts';
import type { Device, IommuDomain } from '../iommu/ops.ts';
import { KernelError, type Lock } from '../kernel.ts';
import { commitVmaster } from './attach.ts';
import type { NestedDomain, PagingDomain, StaticDomain } from './domains.ts';
import type { Master, Smmu } from './smmu.ts';
import type { S1Dss } from './ste.ts';

/** The driver's part of a device. @throws KernelError ENOENT if the device was never probed */
export function masterOf(dev: Device): Master {
  if (dev.priv === null) throw new KernelError('ENOENT', `${dev.name} has no firmware description`);
  return dev.priv as Master;
}

/** Whether an SMMU can use a domain made for another one (`arm_smmu_domain_can_share`). */
export function canShare(domain: PagingDomain, smmu: Smmu): boolean {
  const { table } = domain;
  const { features } = smmu;
  return (
    (domain.kind === 's1' ? features.stage1 && domain.asid < 2 ** features.asidBits : features.stage2) &&
    (domain.pgsizeBitmap & ~features.pgsizeBitmap) === 0n &&
    table.config.oas <= features.oas &&
    (!table.config.coherent || features.coherent) &&
    (!table.config.s2fwb || features.s2fwb)
  );
}

/** @throws KernelError EINVAL if the domain cannot serve the SMMU */
export function checkSmmu(domain: PagingDomain, smmu: Smmu): void {
  const fits = domain.smmu === smmu || (smmu.parts.vmidPolicy.shares && canShare(domain, smmu));
  if (!fits) throw new KernelError('EINVAL', `${domain.name} belongs to ${domain.smmu.name}, not ${smmu.name}`);
}

/** Attaches a stage 1 or stage 2 domain (`arm_smmu_attach_dev`). @throws KernelError ENOENT, EINVAL, EBUSY, ENOMEM, ENOSPC */
export function attachPaging(asidLock: Lock, master: Master, domain: PagingDomain): void {
  const { smmu, cdTable } = master;
  const { attach, makers } = smmu.parts;
  checkSmmu(domain, smmu);
  if (domain.kind === 's1') cdTable.alloc(0);
  else if (cdTable.usedSsids > 0)
    throw new KernelError('EBUSY', 'a PASID is attached: stage 2 on the RID would cover it');
  smmu.kernel.withLock(asidLock, () => {
    const request = { master, domain, old: master.current, ssid: 0, cdNeedsAts: false, disableAts: false };
    const state = attach.prepare(request);
    if (domain.kind === 's1') {
      cdTable.write(0, makers.s1Cd(master, domain, state.tag));
      attach.installSte(master, makers.cdTableSte(master, state.ats, 'SSID0'));
    } else {
      attach.installSte(master, makers.s2DomainSte(master, domain, state.tag, state.ats));
      cdTable.clear(0);
    }
    attach.commit(state);
  });
}

/** Attaches identity or blocked (`arm_smmu_attach_dev_ste`). Cannot fail. */
export function attachStatic(asidLock: Lock, master: Master, domain: StaticDomain): void {
  const { smmu, cdTable } = master;
  const { attach, makers } = smmu.parts;
  const pasids = cdTable.usedSsids > 0;
  const s1dss: S1Dss = domain.kind === 'identity' ? 'BYPASS' : 'TERMINATE';
  if (smmu.options.quirks.has('events-not-drained')) commitVmaster(master, null);
  smmu.kernel.withLock(asidLock, () => {
    const request = { master, domain, old: master.current, ssid: 0, cdNeedsAts: pasids, disableAts: false };
    const state = attach.prepare(request);
    const plain = domain.kind === 'identity' ? makers.bypassSte(smmu) : makers.abortSte();
    attach.installSte(master, pasids ? makers.cdTableSte(master, state.ats, s1dss) : plain);
    // The STE still names the table, and SubstreamID 0 reaches CD 0 (IHI 0070 7.3.9): what the commit flushes would
    // come back.
    if (pasids && !smmu.options.quirks.has('cd0-after-tlbi')) cdTable.clear(0);
    attach.commit(state);
  });
  // Without PASIDs no STE leads to it any more.
  cdTable.clear(0);
}

/** The STE of a nested domain (`arm_smmu_make_nested_domain_ste`). */
function nestedSte(master: Master, domain: NestedDomain, vmid: number, ats: boolean): Words {
  const { makers, nested } = master.smmu.parts;
  switch (nested.mode(domain.vste)) {
    case 'translate':
      return makers.nestedCdTableSte(master, domain.parent, vmid, domain.vste, ats);
    case 'bypass':
      return makers.s2DomainSte(master, domain.parent, vmid, ats);
    case 'abort':
      return makers.abortSte();
  }
}

/** Attaches a VM's stage 1 (`arm_smmu_attach_dev_nested`). @throws KernelError EINVAL, EBUSY, ENOENT, ENOMEM, ENOSPC */
export function attachNested(asidLock: Lock, master: Master, domain: NestedDomain): void {
  const { smmu, cdTable } = master;
  const { attach, nested } = smmu.parts;
  if (domain.vsmmu !== null && domain.vsmmu.smmu !== smmu)
    throw new KernelError('EINVAL', `the vIOMMU is on ${domain.vsmmu.smmu.name}, the device on ${smmu.name}`);
  if (domain.vsmmu === null) checkSmmu(domain.parent, smmu);
  if (cdTable.usedSsids > 0) throw new KernelError('EBUSY', 'a PASID is attached');
  const mode = nested.mode(domain.vste);
  // ATC_INV comes from the guest: ATS is on only where the guest's EATS expects it.
  const disableAts =
    (mode === 'translate' && !domain.enableAts) ||
    (mode === 'abort' && !smmu.options.quirks.has('abort-vste-keeps-ats'));
  smmu.kernel.withLock(asidLock, () => {
    const request = { master, domain, old: master.current, ssid: 0, cdNeedsAts: false, disableAts };
    const state = attach.prepare(request);
    attach.installSte(master, nestedSte(master, domain, state.tag, state.ats));
    attach.commit(state);
  });
}

/** Narrowing for the operations tables. */
export type AttachDev = (domain: IommuDomain, dev: Device, old: IommuDomain) => void;
