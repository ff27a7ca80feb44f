/** A bug that acts from the first attachment of a user on: what it does while the driver starts proves nothing. */
import type { DomainType } from '../../driver/iommu/ops.ts';
import type { BugParts } from './bug.ts';

/** Domains that nobody but a user of iommufd attaches. */
const USERS: ReadonlySet<DomainType> = new Set(['paging', 'nested', 'sva']);

/** Whether a user's domain has begun to be attached to any device, or to a PASID. */
export function begun({ core }: BugParts): () => boolean {
  const { attachDevice, setDevPasid } = core;
  let yes = false;
  core.attachDevice = (domain, dev, old) => {
    yes ||= USERS.has(domain.type);
    attachDevice(domain, dev, old);
  };
  core.setDevPasid = (domain, dev, pasid, old) => {
    yes ||= USERS.has(domain.type);
    setDevPasid(domain, dev, pasid, old);
  };
  return () => yes;
}
