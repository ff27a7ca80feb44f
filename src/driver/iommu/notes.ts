/**
 * What the core says of its own doings to whoever listens to the kernel's notes (docs/sanitizer.md): which operation on
 * a device is under way, done or failed, and to whom its streams belong. Nothing else depends on it.
 */
import type { Kernel, OwnershipNote } from '../kernel.ts';
import type { Device } from './ops.ts';

function note(
  kernel: Kernel,
  dev: Device,
  what: OwnershipNote['what'],
  act: OwnershipNote['act'],
  owner: string,
): void {
  const { smmu, streamIds } = dev.node;
  for (const sid of streamIds) kernel.announce({ what, act, where: smmu, id: BigInt(sid), owner });
}

/** Calls `then` once the driver stands by what it did to the device. */
function settled(dev: Device, then: () => void): void {
  const { ops } = dev.iommu;
  if (ops.settled === undefined || dev.priv === null) then();
  else ops.settled(dev, then);
}

/** Says that something was done to each stream of a device, outside {@link operation}. */
export function doneTo(kernel: Kernel, dev: Device, name: string): void {
  settled(dev, () => note(kernel, dev, 'operation', 'done', name));
}

/**
 * Runs an operation on the streams of a device between its begin and its end, good or bad.
 * @param name what is done; "detach": the device must not reach anything afterwards
 */
export function operation<T>(kernel: Kernel, dev: Device, name: string, body: () => T): T {
  note(kernel, dev, 'operation', 'begin', name);
  let end: OwnershipNote['act'] = 'fail';
  try {
    const result = body();
    end = 'done';
    return result;
  } finally {
    const act = end;
    settled(dev, () => note(kernel, dev, 'operation', act, name));
  }
}

/** The streams of a blocked device pass to `owner`; null: back to the host. */
export function passTo(kernel: Kernel, dev: Device, owner: object | null): void {
  settled(dev, () => note(kernel, dev, 'stream', owner === null ? 'free' : 'give', nameOf(owner)));
}

const nameOf = (owner: object | null): string =>
  owner !== null && 'name' in owner && typeof owner.name === 'string' ? owner.name : 'user';
