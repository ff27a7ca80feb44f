/** One SMMU instance and one device behind it, as the driver keeps them (`struct arm_smmu_device`, `arm_smmu_master`). */
import { PAGE1, type Words } from '../../../spec/index.ts';
import type { DeviceNode, Pa, SmmuNode } from '../../hw/bus.ts';
import type { VmidAllocator } from '../../hw/vmid.ts';
import type { IopfQueue } from '../iommu/io-pgfault.ts';
import type { Device, IommuDevice, IommufdViommu, PageFault, UserData, ViommuOps } from '../iommu/ops.ts';
import type { Kernel, Lock } from '../kernel.ts';
import type { CdTable } from './cd-table.ts';
import type { CommandQueue, CommandSink } from './command-queue.ts';
import type { SmmuDomain } from './domains.ts';
import type { HardwareQueue } from './event-queue.ts';
import type { Inherited } from './inherited.ts';
import type { InvKey } from './invalidation.ts';
import type { DriverOptions } from './options.ts';
import type { DriverParts } from './parts.ts';
import type { Features } from './probe.ts';
import type { Quarantine, Settling } from './quarantine.ts';
import type { StreamTable } from './stream-table.ts';
import type { Vsmmu } from './vsmmu.ts';

/** What a companion of the SMMU (Tegra241 CMDQV) adds (`struct arm_smmu_impl_ops`). */
export interface SmmuImpl {
  readonly name: string;
  /** Allocates its queues; before the first reset. A failure fails the probe. */
  initStructures?(smmu: Smmu): void;
  /** Last step of a reset. */
  deviceReset?(smmu: Smmu): void;
  /** Before the SMMU is switched off. */
  deviceRemove?(smmu: Smmu): void;
  /** Before power may go: everything off in order. */
  deviceSuspend?(smmu: Smmu): void;
  /** Its registers may be at their reset values: nothing of it is on as far as the driver knows. */
  deviceLost?(smmu: Smmu): void;
  /** Gives its memory back; the SMMU is off. */
  freeStructures?(smmu: Smmu): void;
  /** A queue for a list that begins with this command; null: the SMMU's own. */
  getSecondaryQueue?(smmu: Smmu, first: Words): CommandSink | null;
  /** Queues besides the SMMU's own, and what else has to be quiet before something given up is reused. */
  readonly queues?: readonly Settling[];
  /** Hardware information of another type than ARM_SMMUV3; null: unknown type. */
  hwInfo?(smmu: Smmu, type: number): { readonly type: number; readonly data: Uint8Array } | null;
  /** vIOMMU type beside ARM_SMMUV3, the bytes of its struct, and how to make one. */
  readonly viommuType?: number;
  getViommuSize?(smmu: Smmu): number;
  /** Sets `viommu.ops`, built on those that all vIOMMUs share; undoes its own work on error. */
  vsmmuInit?(vsmmu: Vsmmu, viommu: IommufdViommu, userData: UserData | null, shared: ViommuOps): void;
}

/** A StreamID and the device that owns it. */
export interface Stream {
  readonly sid: number;
  readonly master: Master;
}

/** See the module comment. */
export interface Smmu {
  readonly name: string;
  /** Order of probe: sorts invalidation arrays. */
  readonly index: number;
  readonly node: SmmuNode;
  readonly kernel: Kernel;
  readonly options: DriverOptions;
  readonly parts: DriverParts;
  readonly features: Features;
  readonly device: IommuDevice;
  readonly vmids: VmidAllocator;
  readonly quarantine: Quarantine;
  /** What the driver before left in use. */
  readonly inherited: Inherited;
  /** The SMMU's own queue. */
  cmdq: CommandQueue;
  evtq: HardwareQueue;
  priq: HardwareQueue | null;
  strtab: StreamTable;
  impl: SmmuImpl | null;
  /** Where devices report page faults. */
  readonly iopf: IopfQueue;
  /** SMMUEN is on: structures are reachable. */
  enabled: boolean;
  /** Switched off until {@link resumeSmmu}; registers and caches may be lost meanwhile. */
  suspended: boolean;
  readonly streams: Map<number, Stream>;
  readonly streamsLock: Lock;
  readonly queues: readonly Settling[];
  /** Devices behind these streams did not answer a CMD_ATC_INV. */
  atcTimedOut(sids: readonly number[]): void;
  /** A name that no other object of the driver has: "s2-domain:3". */
  label(kind: string): string;
  /** The queue for a list that begins with `first` (`arm_smmu_get_cmdq`). */
  queueFor(first: Words): CommandSink;
}

/** One attachment of a master: RID (ssid 0) or PASID (`struct arm_smmu_master_domain`). */
export interface MasterDomain {
  readonly domain: SmmuDomain;
  readonly master: Master;
  readonly ssid: number;
  /** What the attachment put into the domain's invalidation array. */
  readonly invs: readonly InvKey[];
  /** The attachment counts among those that want page faults. */
  readonly usesIopf: boolean;
}

/** vSID of a master on a vIOMMU (`struct arm_smmu_vmaster`). */
export interface Vmaster {
  readonly vsmmu: Vsmmu;
  readonly vsid: bigint;
}

/** A stalled transaction, as it was reported. */
export interface ReportedStall {
  readonly sid: number;
  readonly fault: PageFault;
}

/** A device's driver part (`struct arm_smmu_master`). */
export interface Master {
  readonly smmu: Smmu;
  readonly dev: Device;
  readonly node: DeviceNode;
  /** Ascending, each StreamID once. */
  readonly streams: readonly Stream[];
  readonly cdTable: CdTable;
  readonly ssidBits: number;
  /** The device may stall, and the SMMU lets it. */
  readonly stallEnabled: boolean;
  /** ATS in device, root complex and SMMU. */
  readonly atsSupported: boolean;
  /** Where the ATS capability lies in configuration space. */
  readonly atsOffset: number | undefined;
  atsEnabled: boolean;
  /** EATS of the STE as written last. */
  steAts: boolean;
  vmaster: Vmaster | null;
  /** The domain of the RID; null before the first attach. */
  current: SmmuDomain | null;
  /** Records by SSID; identity and blocked keep none. */
  readonly records: Map<number, MasterDomain>;
  /** Attachments that want page faults. */
  iopfUsers: number;
  /** Stalls reported and not answered, by STAG. */
  readonly stalls: Map<number, ReportedStall>;
  /** A CMD_ATC_INV was never answered: the device may still use old translations. */
  atcBroken: boolean;
}

/** How the entry writer takes a lost CMD_SYNC. */
export const onTimeout = (smmu: Smmu): 'continue' | 'invalidate' =>
  smmu.options.quirks.has('sync-timeout-ignored') ? 'continue' : 'invalidate';

/** Physical address of a register of page 0. */
export const registerAt = (
  smmu: Pick<Smmu, 'node'>,
  register: { readonly offset: number; readonly page: string },
): Pa => smmu.node.base + BigInt(register.offset) + (register.page === 'page1' ? PAGE1_OFFSET : 0n);

/** Page 1 lies 64 KiB above page 0 (IHI 0070 6.1). */
const PAGE1_OFFSET = BigInt(PAGE1);
