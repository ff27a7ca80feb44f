/**
 * What the driver's operations cost: attach and detach with few and many devices, map and unmap of a page with its
 * invalidation. `node dist/bench/driver.bench.js`.
 */
import {
  attachGroupHandle,
  detachGroupHandle,
  deviceClaimDmaOwner,
  deviceReleaseDmaOwner,
  groupOf,
  iommuMap,
  iommuUnmap,
  newAttachHandle,
} from '../src/driver/iommu/index.ts';
import type { Device, IommuDomain } from '../src/driver/iommu/ops.ts';
import { line, nanoseconds, type Stack, stack } from './stack.ts';

const OWNER = {};
const PAGE = 4096n;
const RW = { read: true, write: true, cache: true };

/** Attach and detach of one device, while all others stay attached to domains of their own or to a shared one. */
function attachCost({ driver, devices }: Stack, shared: boolean): number {
  const make = (dev: Device): IommuDomain => driver.domainAllocPagingFlags(dev, { nestParent: true }, null);
  const [first, ...others] = devices;
  if (first === undefined) throw new Error('no device');
  const one = make(first);
  deviceClaimDmaOwner(first, OWNER);
  for (const dev of others) {
    deviceClaimDmaOwner(dev, OWNER);
    const domain = shared ? one : make(dev);
    attachGroupHandle(domain, groupOf(dev), newAttachHandle(domain, null));
  }
  const group = groupOf(first);
  const cost = nanoseconds(9, 200, () => {
    attachGroupHandle(one, group, newAttachHandle(one, null));
    detachGroupHandle(one, group);
  });
  for (const dev of others) {
    const { domain } = groupOf(dev);
    if (domain === null) throw new Error(`${dev.name} has no domain`);
    detachGroupHandle(domain, groupOf(dev));
    if (!shared) domain.ops.free(domain);
    deviceReleaseDmaOwner(dev);
  }
  deviceReleaseDmaOwner(first);
  one.ops.free(one);
  return cost;
}

const few = stack(10);
const many = stack(10_000);
for (const shared of [false, true]) {
  const [a, b] = [attachCost(few, shared), attachCost(many, shared)];
  const what = shared ? 'on one shared domain' : 'each on a domain of its own';
  line(`attach + detach, 10 devices ${what}`, `${(a / 1000).toFixed(1)} us`);
  line(`attach + detach, 10,000 devices ${what}`, `${(b / 1000).toFixed(1)} us`, `${(b / a).toFixed(2)} x, bar 3.00`);
}

const { driver, devices } = stack(1);
const [dev] = devices;
if (dev === undefined) throw new Error('no device');
for (const [name, flags] of [
  ['stage 1', {}],
  ['stage 2, nest parent', { nestParent: true }],
] as const) {
  const domain = driver.domainAllocPagingFlags(dev, flags, null);
  deviceClaimDmaOwner(dev, OWNER);
  attachGroupHandle(domain, groupOf(dev), newAttachHandle(domain, null));
  const cost = nanoseconds(9, 2000, (i) => {
    const iova = 0x1000_0000n + BigInt(i % 4096) * PAGE;
    iommuMap(domain, iova, 0x8000_0000n, PAGE, RW);
    iommuUnmap(domain, iova, PAGE);
  });
  line(`map + unmap of one page, ${name}`, `${Math.round(1e9 / cost).toLocaleString('en')} /s`, 'bar 50,000 /s each');
  detachGroupHandle(domain, groupOf(dev));
  deviceReleaseDmaOwner(dev);
  domain.ops.free(domain);
}
