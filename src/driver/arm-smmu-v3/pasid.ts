/** PASIDs: a CD of their own in the device's table (kernel: `arm_smmu_set_pasid`, `arm_smmu_blocking_set_dev_pasid`). */
import type { Words } from '../../../spec/index.ts';
import { KernelError, type Lock } from '../kernel.ts';
import { atcInvMaster, leaveDomain } from './attach.ts';
import { checkSmmu } from './attach-domains.ts';
import { PagingDomain, type SmmuDomain, SvaDomain } from './domains.ts';
import type { Master } from './smmu.ts';
import type { S1Dss } from './ste.ts';

/** How a stream without PASID behaves beside PASIDs, by the RID's domain. */
const dssOf = (current: SmmuDomain | null): S1Dss =>
  current?.kind === 'identity' ? 'BYPASS' : current?.kind === 's1' ? 'SSID0' : 'TERMINATE';

/** The CD of a domain on a PASID. */
function cdOf(master: Master, domain: PagingDomain | SvaDomain, asid: number): Words {
  const { makers } = master.smmu.parts;
  return domain instanceof SvaDomain
    ? makers.svaCd(master, domain.released ? null : domain.mm, asid)
    : makers.s1Cd(master, domain, asid);
}

/** @throws KernelError EINVAL, EOPNOTSUPP if the domain cannot be on this PASID */
function check(master: Master, domain: SmmuDomain, ssid: number): asserts domain is PagingDomain | SvaDomain {
  const { smmu, current, cdTable } = master;
  if (ssid === 0 || ssid >= 2 ** master.ssidBits)
    throw new KernelError('EINVAL', `PASID ${ssid} is outside the device's ${master.ssidBits} bits`);
  if (domain instanceof SvaDomain) {
    if (!smmu.features.sva) throw new KernelError('EOPNOTSUPP', `${smmu.name} cannot walk the CPU's tables`);
    if (domain.released) throw new KernelError('EINVAL', 'the address space has ended');
    if (domain.smmu !== smmu) throw new KernelError('EINVAL', `the SVA domain belongs to ${domain.smmu.name}`);
  } else if (domain instanceof PagingDomain && domain.kind === 's1') checkSmmu(domain, smmu);
  else throw new KernelError('EINVAL', `a ${domain.kind} domain cannot be attached to a PASID`);
  const plain = current?.kind === 'identity' || current?.kind === 'blocked';
  if (!plain && !cdTable.inSte)
    throw new KernelError('EINVAL', 'the RID is translated by stage 2: there is no place for a CD table of the host');
}

/**
 * Attaches or replaces a PASID (`arm_smmu_set_pasid`).
 * @throws KernelError EINVAL, EOPNOTSUPP, ENOMEM
 */
export function setPasidDomain(
  asidLock: Lock,
  master: Master,
  domain: SmmuDomain,
  ssid: number,
  old: SmmuDomain | null,
): void {
  check(master, domain, ssid);
  const { smmu, cdTable } = master;
  const { attach, makers } = smmu.parts;
  cdTable.alloc(ssid);
  smmu.kernel.withLock(asidLock, () => {
    const state = attach.prepare({ master, domain, old, ssid, cdNeedsAts: true, disableAts: false });
    cdTable.write(ssid, cdOf(master, domain, state.tag));
    if (!cdTable.inSte || master.steAts !== state.ats)
      attach.installSte(master, makers.cdTableSte(master, state.ats, dssOf(master.current)));
    attach.commit(state);
  });
}

/** Takes a PASID away (`arm_smmu_blocking_set_dev_pasid`). Cannot fail. */
export function clearPasid(asidLock: Lock, master: Master, ssid: number, reattach: () => void): void {
  const { smmu, cdTable } = master;
  if (!master.records.has(ssid)) return;
  smmu.kernel.withLock(asidLock, () => {
    cdTable.clear(ssid);
    if (master.atsEnabled) atcInvMaster(master, ssid);
    leaveDomain(master, ssid, null);
  });
  // Without PASIDs a RID that is not translated needs no CD table.
  if (cdTable.usedSsids === 0 && (master.current?.kind === 'identity' || master.current?.kind === 'blocked'))
    reattach();
}
