/** Shared virtual addressing: the driver's part (kernel: arm-smmu-v3-sva.c). */
import type { DomainOps, IommuOps, MmNotifier, MmStruct } from '../iommu/ops.ts';
import { KernelError } from '../kernel.ts';
import { SvaDomain } from './domains.ts';
import type { Smmu } from './smmu.ts';

/** What a driver lends: where ASIDs come from and go. */
export interface AsidSource {
  alloc(smmu: Smmu): number;
  free(smmu: Smmu, asid: number): void;
}

const notifiers = new WeakMap<SvaDomain, MmNotifier>();

/**
 * A domain on a process's address space (`arm_smmu_sva_domain_alloc`).
 * @throws KernelError EOPNOTSUPP (the SMMU cannot walk the CPU's tables), EBUSY (no ASID left), ENOMEM
 */
export function allocSvaDomain(
  smmu: Smmu,
  mm: MmStruct,
  asids: AsidSource,
  ops: DomainOps,
  owner: IommuOps,
): SvaDomain {
  if (!smmu.features.sva) throw new KernelError('EOPNOTSUPP', `${smmu.name} cannot walk the CPU's tables`);
  smmu.kernel.alloc('sva-domain');
  const domain = new SvaDomain(smmu, ops, owner, mm, asids.alloc(smmu));
  const notifier: MmNotifier = {
    invalidateRange: (start, end) => void domain.invRange(start, end - start),
    release: () => endSva(domain),
  };
  notifiers.set(domain, notifier);
  mm.notifiers.add(notifier);
  return domain;
}

/** The address space ends: CDs stay valid and translate nothing (`arm_smmu_mm_release`). */
function endSva(domain: SvaDomain): void {
  domain.released = true;
  for (const { master, ssid } of domain.devices)
    master.cdTable.write(ssid, domain.smmu.parts.makers.svaCd(master, null, domain.asid));
  domain.invRange(0n, 0n);
}

/** `arm_smmu_sva_domain_free`. The last detach has cleaned the ASID. */
export function freeSvaDomain(domain: SvaDomain, asids: AsidSource): void {
  const notifier = notifiers.get(domain);
  if (notifier !== undefined) domain.mm.notifiers.delete(notifier);
  notifiers.delete(domain);
  domain.invRange(0n, 0n);
  asids.free(domain.smmu, domain.asid);
}
