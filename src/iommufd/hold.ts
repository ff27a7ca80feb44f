/**
 * How a vIOMMU keeps its physical IOMMU without keeping the device that named it. Linux 7.2 has a raw pointer; the other
 * five are the choices that were discussed, each with its weakness.
 */
import type { IommuDevice } from '../driver/iommu/ops.ts';
import type { Kernel } from '../driver/kernel.ts';
import type { DeviceObject } from './device.ts';
import { fail } from './errors.ts';
import type { ViommuObject } from './viommu.ts';

/**
 * - raw: nothing is held. A removed IOMMU is used after free; here it is reported.
 * - users: a count on the creating device. Its unbind fails while the vIOMMU lives.
 * - wait-cnt: a revocable count on the creating device. Its unbind orphans the vIOMMU for all other devices.
 * - driver-count: the driver counts vIOMMUs of its instance. Removal blocks on user space; after a time-out it is as raw.
 * - device-ref: a reference on the IOMMU's struct device. The memory stays, the hardware does not; no check sees it.
 * - revoke: removal marks the vIOMMU dead. Every entry point has to ask.
 */
export type HoldPolicyName = 'raw' | 'users' | 'wait-cnt' | 'driver-count' | 'device-ref' | 'revoke';

/** A call through a vIOMMU into an instance that was removed: what the kernel could not see. */
export interface HoldReport {
  readonly kind: 'use-after-free' | 'stale-hardware';
  readonly viommu: string;
  readonly iommu: string;
  readonly entry: string;
}

/** What a vIOMMU holds under its policy. */
export interface Hold {
  /** The creating device, while it is held. */
  device: DeviceObject | null;
  /** The vIOMMU lost its IOMMU and must not be used. */
  revoked: boolean;
}

/** vIOMMUs of each instance: the driver's count, and the list that a revoke walks. */
const viommusOf = new WeakMap<IommuDevice, Set<ViommuObject>>();

function registered(iommu: IommuDevice): Set<ViommuObject> {
  let set = viommusOf.get(iommu);
  if (set === undefined) {
    set = new Set();
    viommusOf.set(iommu, set);
  }
  return set;
}

/** Takes the hold at VIOMMU_ALLOC. */
export function takeHold(viommu: ViommuObject, idev: DeviceObject): void {
  registered(viommu.iommuDev).add(viommu);
  const policy = viommu.ctx.iommuHold;
  if (policy !== 'users' && policy !== 'wait-cnt') return;
  idev.users++;
  if (policy === 'wait-cnt') idev.waitCnt++;
  idev.heldBy.add(viommu);
  viommu.hold.device = idev;
}

/** Gives the hold back when the vIOMMU goes, or when the device takes it away. */
export function dropHold(viommu: ViommuObject): void {
  registered(viommu.iommuDev).delete(viommu);
  const { device } = viommu.hold;
  if (device === null) return;
  viommu.hold.device = null;
  device.heldBy.delete(viommu);
  device.users--;
  if (viommu.ctx.iommuHold === 'wait-cnt') device.waitCnt--;
}

/** The device is being unbound: revocable holds end, and their vIOMMUs are orphans. */
export function revokeHolds(idev: DeviceObject): void {
  for (const viommu of [...idev.heldBy])
    if (viommu.ctx.iommuHold === 'wait-cnt') {
      viommu.hold.revoked = true;
      dropHold(viommu);
    }
}

/**
 * Asked before a vIOMMU's driver is called. @throws KernelError ENODEV where the policy knows that the IOMMU is gone
 */
export function checkIommu(viommu: ViommuObject, entry: string): void {
  if (viommu.hold.revoked) fail('ENODEV', `${viommu.label} has lost ${viommu.iommuDev.name}`);
  if (viommu.iommuDev.live) return;
  const kind = viommu.ctx.iommuHold === 'device-ref' ? 'stale-hardware' : 'use-after-free';
  viommu.ctx.holdReports.push({ kind, viommu: viommu.label, iommu: viommu.iommuDev.name, entry });
}

/**
 * The physical IOMMU is pulled out from under everything, with what the kernel can do about it first.
 * @returns false if the driver stopped waiting for user space ('driver-count') and removed it all the same
 */
export function removeIommu(kernel: Kernel, iommu: IommuDevice): boolean {
  const users = registered(iommu);
  const counted = [...users].some((viommu) => viommu.ctx.iommuHold === 'driver-count');
  const quiet = !counted || kernel.poll('iommufd:iommu-users', () => users.size === 0);
  if (!quiet) kernel.log('warn', `iommufd: ${iommu.name} is removed while ${users.size} vIOMMUs use it`);
  for (const viommu of users) if (viommu.ctx.iommuHold === 'revoke') viommu.hold.revoked = true;
  iommu.live = false;
  return quiet;
}
