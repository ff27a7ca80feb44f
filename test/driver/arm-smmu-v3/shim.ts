/** What iommufd does around the driver, as far as a driver test needs it. */
import type { Words } from '../../../spec/index.ts';
import type {
  Device,
  IommuDomain,
  IommufdCallbacks,
  IommufdVdevice,
  IommufdViommu,
  UserArray,
  UserData,
} from '../../../src/driver/iommu/ops.ts';
import { KernelError } from '../../../src/driver/kernel.ts';
import type { Rig } from './rig.ts';

export function deviceAttach(rig: Rig, domain: IommuDomain, dev: Device): void {
  domain.ops.attachDev(domain, dev, rig.driver.blockedDomain);
  rig.kernel.runInterrupts();
}

export function deviceDetach(rig: Rig, dev: Device): void {
  deviceAttach(rig, rig.driver.blockedDomain, dev);
}

const bytesOf = (words: Words): Uint8Array => new Uint8Array(words.slice().buffer);

/** iommu_hwpt_arm_smmuv3. */
export function hwptData(vste: Words, type = 2): UserData {
  const bytes = bytesOf(vste);
  return {
    type,
    length: bytes.length,
    copy: (wanted, size, minLength) => {
      if (wanted !== type || bytes.length < minLength || bytes.length > size)
        throw new KernelError('EINVAL', 'user data');
      return bytes.slice();
    },
    copyBack: () => {},
  };
}

/** An array of commands as HWPT_INVALIDATE hands it over. */
export function invalidation(commands: readonly Words[], type = 1): UserArray {
  return {
    type,
    entryLength: 16,
    entryNum: commands.length,
    copyAll: () => commands.map(bytesOf),
  };
}

export interface ReportedEvent {
  readonly viommu: IommufdViommu;
  readonly type: number;
  readonly words: Uint32Array;
}

/** Keeps vDEVICEs and events. */
export class FakeIommufd {
  readonly events: ReportedEvent[] = [];
  readonly #vdevs = new Map<IommufdViommu, Map<bigint, Device>>();

  readonly callbacks: IommufdCallbacks = {
    reportEvent: (viommu, type, data) => {
      this.events.push({ viommu, type, words: new Uint32Array(data.slice().buffer) });
    },
    findDev: (viommu, virtId) => this.#vdevs.get(viommu)?.get(virtId),
    getVdevId: (viommu, dev) => {
      for (const [id, each] of this.#vdevs.get(viommu) ?? []) if (each === dev) return id;
      throw new KernelError('ENOENT', 'no vDEVICE');
    },
    allocMmap: () => 0n,
    destroyMmap: () => {},
    hwQueueDepend: () => {},
    hwQueueUndepend: () => {},
  };

  viommu(rig: Rig, dev: Device, parent: IommuDomain, vm?: string): IommufdViommu {
    const viommu: IommufdViommu = {
      type: 1,
      iommuDev: dev.iommu,
      parent,
      ops: null,
      priv: null,
      callbacks: this.callbacks,
      ...(vm === undefined ? {} : { vm }),
    };
    rig.driver.viommuInit(viommu, parent, null);
    return viommu;
  }

  nested(viommu: IommufdViommu, data: UserData): IommuDomain {
    const domain = viommu.ops?.allocDomainNested?.(viommu, {}, data);
    if (domain === undefined) throw new Error('no nested domain');
    return domain;
  }

  vdevice(viommu: IommufdViommu, dev: Device, virtId: bigint): { destroy(): void } {
    const vdev: IommufdVdevice = { viommu, dev, virtId, destroy: null, priv: null };
    viommu.ops?.vdeviceInit?.(vdev);
    const map = this.#vdevs.get(viommu) ?? new Map<bigint, Device>();
    this.#vdevs.set(viommu, map);
    map.set(virtId, dev);
    return {
      destroy: () => {
        map.delete(virtId);
        vdev.destroy?.(vdev);
      },
    };
  }
}
