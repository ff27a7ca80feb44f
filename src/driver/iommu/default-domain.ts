/**
 * The domain of a group that nobody owns: its allocation, the 1:1 regions that firmware demands in it, and the change of
 * its type (iommu_setup_default_domain, iommu_create_device_direct_mappings, iommu_group_store_type).
 */
import { KernelError } from '../kernel.ts';
import type { DefaultDomainType, GroupDevice, IommuGroup } from './group.ts';
import { deviceSetDomain, groupSetDomain, groupSetDomainNofail, parkDevice } from './group.ts';
import { iommuMap, iovaToPhys, pageSizes } from './map.ts';
import type { Device, IommuDomain, MapProt, PagingFlags } from './ops.ts';

const DIRECT_PROT: MapProt = { read: true, write: true, cache: true };

/**
 * A paging domain of the device's driver. Kernel: iommu_paging_domain_alloc_flags().
 * @throws KernelError EOPNOTSUPP without the op; the driver's errors
 */
export function pagingDomainAllocFlags(dev: Device, flags: PagingFlags = {}): IommuDomain {
  const { ops } = dev.iommu;
  if (!ops.domainAllocPagingFlags) throw new KernelError('EOPNOTSUPP', `${ops.name} has no paging domains`);
  const domain = ops.domainAllocPagingFlags(dev, flags, null);
  domain.owner = ops;
  return domain;
}

/** Frees a domain unless it is one of the driver's static ones (`iommu_domain_free`). */
export function domainFree(dev: Device, domain: IommuDomain): void {
  const { ops } = dev.iommu;
  if (domain !== ops.identityDomain && domain !== ops.blockedDomain) domain.ops.free(domain);
}

/**
 * Gives a group the default domain of a type: allocates it, maps the 1:1 regions of every device, and attaches it. On
 * an error the group keeps what it had. Under the group's mutex. Kernel: iommu_setup_default_domain().
 * @throws KernelError EINVAL (a 1:1 region and a type without mappings), EBUSY, ENOMEM, the driver's errors
 */
export function setupDefaultDomain(group: IommuGroup, type?: DefaultDomainType): void {
  const { first } = group;
  const wanted = type ?? group.ops.defaultDomainType;
  const domain = wanted === 'identity' ? group.ops.identityDomain : allocDmaDomain(first);
  if (domain === group.defaultDomain) return;
  const old = group.defaultDomain;
  const oldType = group.defaultDomainType;
  let directFailed = false;
  for (const gdev of group.devices) {
    if (!tryDirectMappings(group, gdev, domain)) directFailed = true;
  }
  group.defaultDomain = domain;
  group.defaultDomainType = wanted;
  try {
    if (group.domain === null) firstAttach(group, domain);
    else groupSetDomain(group, domain);
    // A driver may need the attach before it can map; then the region was not mapped all the time.
    if (directFailed) for (const gdev of group.devices) createDirectMappings(gdev, domain);
  } catch (error) {
    group.defaultDomain = old;
    group.defaultDomainType = oldType;
    if (group.domain === domain) undoAttach(group, old);
    domainFree(first, domain);
    throw error;
  }
  if (old !== null) domainFree(first, old);
}

function allocDmaDomain(dev: Device): IommuDomain {
  const domain = pagingDomainAllocFlags(dev);
  if (domain.pgsizeBitmap > 0n) return domain;
  domainFree(dev, domain);
  throw new KernelError('EINVAL', 'the DMA domain has no page size');
}

/** The first attach of a group. A device that fails makes its probe fail; those before it are parked again. */
function firstAttach(group: IommuGroup, domain: IommuDomain): void {
  group.domain = domain;
  try {
    for (const gdev of group.devices) deviceSetDomain(group, gdev, domain, null, true);
  } catch (error) {
    undoAttach(group, null);
    throw error;
  }
}

function undoAttach(group: IommuGroup, old: IommuDomain | null): void {
  if (old !== null) {
    groupSetDomainNofail(group, old);
    return;
  }
  for (const gdev of group.devices) parkDevice(group, gdev);
  group.domain = null;
}

function tryDirectMappings(group: IommuGroup, gdev: GroupDevice, domain: IommuDomain): boolean {
  return group.mustNotFail(`a 1:1 region of ${gdev.dev.name} is not mapped before the attach`, () =>
    createDirectMappings(gdev, domain),
  );
}

/**
 * Maps the direct regions of a device one to one, leaving out pages that are mapped already, and notes whether it
 * must never be blocked. Under the group's mutex. Kernel: iommu_create_device_direct_mappings().
 * @throws KernelError of the map
 */
export function createDirectMappings(gdev: GroupDevice, domain: IommuDomain): void {
  const { dev } = gdev;
  const static_ = domain === dev.iommu.ops.identityDomain || domain === dev.iommu.ops.blockedDomain;
  for (const region of dev.iommu.ops.getResvRegions(dev)) {
    if (region.type === 'direct') gdev.requireDirect = true;
    if (static_ || (region.type !== 'direct' && region.type !== 'direct-relaxable')) continue;
    mapOneToOne(domain, region.start, region.length, region.prot ?? DIRECT_PROT);
  }
}

function mapOneToOne(domain: IommuDomain, from: bigint, length: bigint, prot: MapProt): void {
  const page = pageSizes(domain.pgsizeBitmap)[0];
  if (page === undefined) throw new KernelError('EINVAL', 'the domain has no page size');
  const up = (address: bigint) => (address + page - 1n) & ~(page - 1n);
  const end = up(from + length);
  let start = up(from);
  for (let address = start; address <= end; address += page) {
    if (address < end && iovaToPhys(domain, address) === undefined) continue;
    if (address > start) iommuMap(domain, start, start, address - start, prot);
    start = address + page;
  }
}

/**
 * Changes the type of a group's default domain; nobody may use the group. 'auto' is the driver's choice. From 'dma' to
 * 'dma-fq' the domain stays. Kernel: iommu_group_store_type().
 * @throws KernelError EPERM (owned, a kernel driver bound, or no device), EBUSY, the driver's errors
 */
export function groupStoreType(group: IommuGroup, type: DefaultDomainType | 'auto'): void {
  group.locked(() => {
    if (type === 'dma-fq' && group.defaultDomainType === 'dma') {
      group.defaultDomainType = 'dma-fq';
      return;
    }
    if (group.size === 0 || group.ownerCount > 0) {
      throw new KernelError('EPERM', 'the group is in use, or has no device');
    }
    if (group.domain !== group.defaultDomain) throw new KernelError('EBUSY', 'the group is not on its default domain');
    setupDefaultDomain(group, type === 'auto' ? undefined : type);
  });
}
