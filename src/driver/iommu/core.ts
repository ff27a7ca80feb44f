/**
 * The registry of the iommu core: IOMMU instances, the devices behind them in the order of their probe, and their groups
 * (iommu_device_register, iommu_probe_device, iommu_release_device).
 */
import type { DeviceNode } from '../../hw/bus.ts';
import type { IdAllocator, Kernel } from '../kernel.ts';
import { KernelError } from '../kernel.ts';
import { createDirectMappings, domainFree, setupDefaultDomain } from './default-domain.ts';
import { deviceSetDomain, groupOf, IommuGroup, parkDevice } from './group.ts';
import type { Device, IommuDevice } from './ops.ts';
import type { CoreParts } from './parts.ts';
import { coreParts } from './parts.ts';
import { Sva } from './sva.ts';

/** See the module comment. */
export class IommuCore {
  readonly kernel: Kernel;
  readonly parts: CoreParts;
  readonly iommus: IommuDevice[] = [];
  readonly sva: Sva;
  readonly #devices = new Map<string, Device>();
  /** By what puts devices together: their alias, or their own name. */
  readonly #groups = new Map<string, IommuGroup>();
  readonly #groupIds: IdAllocator;

  constructor(kernel: Kernel, parts: CoreParts = coreParts()) {
    this.kernel = kernel;
    this.parts = parts;
    this.sva = new Sva(kernel, parts);
    this.#groupIds = kernel.ids('iommu-group', 0, 0x7fff_ffff);
  }

  /** Probed devices, oldest first. */
  get devices(): Device[] {
    return [...this.#devices.values()];
  }

  /** Groups with a device, oldest first. */
  get groups(): IommuGroup[] {
    return [...this.#groups.values()];
  }

  /** The device of a name. */
  device(name: string): Device | undefined {
    return this.#devices.get(name);
  }

  /**
   * Takes an IOMMU instance and probes the devices that firmware puts behind it: all are known to the driver before the
   * first one is attached. Kernel: iommu_device_register(), bus_iommu_probe().
   * @throws KernelError EBUSY (registered already), errors of {@link probeDevice}; then nothing of it stays
   */
  registerIommu(iommu: IommuDevice, nodes: readonly DeviceNode[] = []): Device[] {
    if (this.iommus.includes(iommu)) throw new KernelError('EBUSY', `${iommu.name} is registered`);
    this.kernel.alloc('iommu:device');
    this.iommus.push(iommu);
    iommu.live = true;
    const joined: Device[] = [];
    try {
      for (const node of nodes) joined.push(this.#join(node, iommu));
      for (const dev of joined) this.#firstDomain(dev);
    } catch (error) {
      for (const dev of joined.reverse()) this.releaseDevice(dev);
      this.#forget(iommu);
      throw error;
    }
    return joined;
  }

  /** Releases the devices of an instance, newest first, and forgets it. Kernel: iommu_device_unregister(). */
  unregisterIommu(iommu: IommuDevice): void {
    for (const dev of this.devices.reverse()) if (dev.iommu === iommu) this.releaseDevice(dev);
    this.#forget(iommu);
  }

  #forget(iommu: IommuDevice): void {
    const at = this.iommus.indexOf(iommu);
    if (at >= 0) this.iommus.splice(at, 1);
    iommu.live = false;
  }

  /**
   * Makes a device known to its driver, puts it in its group and attaches it: to the group's domain, or to a new
   * default domain. Kernel: iommu_probe_device().
   * @throws KernelError ENODEV (the instance is not registered), EEXIST (the name is taken), ENOMEM, EINVAL (1:1
   * mappings demanded in a group that is blocked), EBUSY (the group is in reset), the driver's errors
   */
  probeDevice(node: DeviceNode, iommu: IommuDevice): Device {
    const dev = this.#join(node, iommu);
    try {
      this.#firstDomain(dev);
    } catch (error) {
      this.#leave(dev);
      throw error;
    }
    return dev;
  }

  /**
   * The device goes away: it is blocked (or on the identity domain, where firmware demands 1:1 mappings), then the
   * driver forgets it. The last device of a group frees the default domain. Kernel: iommu_release_device().
   * @throws KernelError ENODEV; EBUSY if it is the last of a group that is owned or attached, or is in reset: the kernel
   * has unbound drivers before
   */
  releaseDevice(dev: Device): void {
    const group = groupOf(dev);
    const inUse = group.ownerCount > 0 || group.pasidArray.size > 0 || group.domain !== group.defaultDomain;
    if (group.size === 1 && inUse) throw new KernelError('EBUSY', `${dev.name} is in use`);
    if (group.member(dev).resetDepth > 0) throw new KernelError('EBUSY', `${dev.name} is in reset`);
    group.locked(() => parkDevice(group, group.member(dev)));
    this.#leave(dev);
  }

  /** Device, driver's part, group membership; no domain yet (`iommu_init_device`). */
  #join(node: DeviceNode, iommu: IommuDevice): Device {
    if (!this.iommus.includes(iommu)) throw new KernelError('ENODEV', `${iommu.name} is not registered`);
    if (this.#devices.has(node.name)) throw new KernelError('EEXIST', `${node.name} is probed`);
    this.kernel.alloc('iommu:dev');
    const dev: Device = {
      name: node.name,
      node,
      iommu,
      priv: null,
      maxPasids: node.ssidBits > 0 ? 2 ** node.ssidBits : 0,
      group: null,
    };
    iommu.ops.probeDevice(dev);
    try {
      const group = this.#groupFor(node);
      group.add(dev);
      dev.group = group;
    } catch (error) {
      iommu.ops.releaseDevice(dev);
      throw error;
    }
    this.#devices.set(node.name, dev);
    return dev;
  }

  #groupFor(node: DeviceNode): IommuGroup {
    const key = groupKey(node);
    const existing = this.#groups.get(key);
    this.kernel.alloc('iommu:group-device');
    if (existing !== undefined) return existing;
    this.kernel.alloc('iommu:group');
    const id = this.#groupIds.alloc();
    const group = new IommuGroup(id, node.groupAlias ?? node.name, this.kernel, this.parts);
    this.#groups.set(key, group);
    return group;
  }

  #firstDomain(dev: Device): void {
    const group = groupOf(dev);
    group.locked(() => {
      if (group.domain === null) return setupDefaultDomain(group);
      const gdev = group.member(dev);
      // A bus probe has attached the whole group with its first device.
      if (gdev.attached) return;
      if (group.defaultDomain !== null) createDirectMappings(gdev, group.defaultDomain);
      if (group.recoveryCount > 0) throw new KernelError('EBUSY', 'a device of the group is in reset');
      deviceSetDomain(group, gdev, group.domain, null, false);
    });
  }

  /** Undoes {@link #join}: the driver forgets the device, and an empty group goes. */
  #leave(dev: Device): void {
    const group = groupOf(dev);
    group.remove(dev);
    dev.iommu.ops.releaseDevice(dev);
    if (group.size === 0) {
      if (group.defaultDomain !== null) domainFree(dev, group.defaultDomain);
      group.defaultDomain = null;
      group.domain = null;
      this.#groups.delete(groupKey(dev.node));
      this.#groupIds.free(group.id);
    }
    dev.group = null;
    this.#devices.delete(dev.name);
  }
}

function groupKey(node: DeviceNode): string {
  return node.groupAlias === undefined ? `device ${node.name}` : `alias ${node.groupAlias}`;
}
