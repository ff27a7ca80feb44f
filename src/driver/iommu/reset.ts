/** What a reset of an ATS-capable PCI device does to its attachments (pci_dev_reset_iommu_prepare and _done). */
import type { GroupDevice, IommuGroup } from './group.ts';
import { attachName, groupOf, PASID_OPERATION, removePasid } from './group.ts';
import { operation } from './notes.ts';
import type { Device } from './ops.ts';

/**
 * Blocks the RID and all PASIDs of a device that is about to be reset; the group's records stay. Until
 * {@link pciDevResetDone}, attach and replace in the group fail with EBUSY, while detach works on the records and on the
 * other devices. Resets may nest. A device without ATS is left alone. Kernel: pci_dev_reset_iommu_prepare().
 * @throws KernelError ENODEV; the driver's errors
 */
export function pciDevResetPrepare(dev: Device): void {
  const group = groupOf(dev);
  if (!pciAtsSupported(dev)) return;
  group.locked(() => {
    const gdev = group.member(dev);
    if (gdev.resetDepth === 0) block(group, gdev);
    gdev.resetDepth++;
  });
}

/**
 * Gives the device what the group has now. Kernel: pci_dev_reset_iommu_done(). @throws KernelError ENODEV
 */
export function pciDevResetDone(dev: Device): void {
  const group = groupOf(dev);
  if (!pciAtsSupported(dev)) return;
  group.locked(() => {
    const gdev = group.member(dev);
    if (gdev.resetDepth === 0) return;
    gdev.resetDepth--;
    if (gdev.resetDepth > 0) return;
    restore(group, gdev);
    group.recoveryCount--;
  });
}

function block(group: IommuGroup, { dev }: GroupDevice): void {
  const blocked = dev.iommu.ops.blockedDomain;
  const { domain, kernel } = group;
  if (domain !== null && domain !== blocked)
    operation(kernel, dev, attachName(dev, blocked), () => group.parts.attachDevice(blocked, dev, domain));
  if (dev.maxPasids > 0) {
    for (const pasid of group.pasids) {
      const entry = group.pasidArray.get(pasid);
      if (entry) removePasid(group, dev, pasid, entry.domain);
    }
  }
  group.recoveryCount++;
}

function restore(group: IommuGroup, { dev }: GroupDevice): void {
  const blocked = dev.iommu.ops.blockedDomain;
  const { domain, kernel } = group;
  attempt(group, dev, () => {
    if (domain !== null && domain !== blocked)
      operation(kernel, dev, attachName(dev, domain), () => group.parts.attachDevice(domain, dev, blocked));
  });
  if (dev.maxPasids === 0) return;
  for (const pasid of group.pasids) {
    attempt(group, dev, () => {
      const entry = group.pasidArray.get(pasid);
      if (entry) operation(kernel, dev, PASID_OPERATION, () => group.parts.setDevPasid(entry.domain, dev, pasid, null));
    });
  }
}

function attempt(group: IommuGroup, dev: Device, body: () => void): void {
  group.mustNotFail(`${dev.name} stays blocked after its reset`, body);
}

function pciAtsSupported(dev: Device): boolean {
  const { ops } = dev.iommu;
  return ops.pciAtsSupported?.(dev) ?? !ops.capable(dev, 'ats-not-supported');
}
