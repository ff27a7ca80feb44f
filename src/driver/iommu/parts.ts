/**
 * The steps of the core at which it calls a driver. They are handed in, so that a test or the bug zoo can wrap one of
 * them; nothing in this directory calls those driver operations by another way.
 */
import type { IommuGroup } from './group.ts';
import { flushHandleFaults } from './io-pgfault.ts';
import type { AttachHandle, Device, IommuDomain } from './ops.ts';
import type { SvaHandle } from './sva.ts';

/** See the module comment. {@link coreParts} makes the shipped ones. */
export interface CoreParts {
  /** One device's RID leaves `old` for `domain` (`__iommu_attach_device`). @throws KernelError of the driver */
  attachDevice(domain: IommuDomain, dev: Device, old: IommuDomain): void;
  /** One PASID of one device goes to `domain`; `old` is null if it had none. @throws KernelError of the driver */
  setDevPasid(domain: IommuDomain, dev: Device, pasid: number, old: IommuDomain | null): void;
  /** One PASID of one device is blocked (`iommu_remove_dev_pasid`). Must not fail. */
  removeDevPasid(domain: IommuDomain, dev: Device, pasid: number): void;
  /** The attachment of `handle` begins: readers may find it from now on. */
  beginHandle(handle: AttachHandle): void;
  /** Answers the page faults that are pending on `handle`, whose attachment ends. */
  flushHandle(group: IommuGroup, handle: AttachHandle): void;
  /** The attachment of `handle` ends: no reader finds it any more. */
  endHandle(handle: AttachHandle): void;
  /** A further bind of a device and an address space that have a bond: which bond it gets (`iommu_sva_bind_device`). */
  shareBond(bond: SvaHandle): SvaHandle;
}

/** The parts as shipped. */
export function coreParts(): CoreParts {
  return {
    attachDevice: (domain, dev, old) => domain.ops.attachDev(domain, dev, old),
    setDevPasid: (domain, dev, pasid, old) => domain.ops.setDevPasid?.(domain, dev, pasid, old),
    removeDevPasid: (domain, dev, pasid) => {
      const blocked = dev.iommu.ops.blockedDomain;
      blocked.ops.setDevPasid?.(blocked, dev, pasid, domain);
    },
    beginHandle: (handle) => {
      handle.live = true;
    },
    flushHandle: flushHandleFaults,
    endHandle: (handle) => {
      handle.live = false;
    },
    shareBond: (bond) => {
      bond.users++;
      return bond;
    },
  };
}
