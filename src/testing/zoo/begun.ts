/** A bug that acts from the first attachment of a user on: what it does while the driver starts proves nothing. */
import type { Device } from '../../driver/iommu/ops.ts';
import type { BugParts } from './bug.ts';

/** Whether a device that somebody has claimed (it was blocked) has been attached to something, or a PASID of any. */
export function begun({ core }: BugParts): () => boolean {
  const { attachDevice, setDevPasid } = core;
  const claimed = new Set<Device>();
  let yes = false;
  core.attachDevice = (domain, dev, old) => {
    if (domain.type === 'blocked') claimed.add(dev);
    else yes ||= claimed.has(dev);
    attachDevice(domain, dev, old);
  };
  core.setDevPasid = (domain, dev, pasid, old) => {
    yes = true;
    setDevPasid(domain, dev, pasid, old);
  };
  return () => yes;
}
