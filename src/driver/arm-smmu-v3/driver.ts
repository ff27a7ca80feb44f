/** The driver, put together from its parts (kernel: `arm_smmu_ops`, arm-smmu-v3.c). */
import { AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR } from '../../../spec/index.ts';
import { HW_INFO_TYPE } from '../../../spec/uapi/constants.ts';
import type { SmmuNode } from '../../hw/bus.ts';
import type {
  Device,
  DomainOps,
  IommuCap,
  IommuDevice,
  IommuDomain,
  IommufdViommu,
  IommuOps,
  MmStruct,
  PageFault,
  PageResponseCode,
  PagingFlags,
  ResvRegion,
  UserData,
  ViommuOps,
} from '../iommu/ops.ts';
import { type Kernel, KernelError, type Lock } from '../kernel.ts';
import { tegra241Impl } from '../tegra241/cmdqv.ts';
import { attachNested, attachPaging, attachStatic, masterOf } from './attach-domains.ts';
import {
  dirtyOps,
  NestedDomain,
  ours,
  PagingDomain,
  paging,
  pagingTableOps,
  type StaticDomain,
  SvaDomain,
  stageFor,
} from './domains.ts';
import { pageResponse } from './events.ts';
import { InheritedAsids, reserveAsids } from './inherited.ts';
import type { LiveView } from './live-table.ts';
import { type DriverOptions, type DriverSettings, optionsOf } from './options.ts';
import { type DriverParts, driverParts } from './parts.ts';
import { clearPasid, setPasidDomain } from './pasid.ts';
import { resumeSmmu, stopAts, suspendSmmu } from './power.ts';
import { probeFeatures } from './probe.ts';
import { Quarantine, type Quarantined } from './quarantine.ts';
import { disableSmmu, resetSmmu } from './reset.ts';
import { registerAt, type Smmu, type SmmuImpl } from './smmu.ts';
import { freeStructures, probeMaster, probeSmmu, releaseMaster } from './smmu-probe.ts';
import { type AsidSource, allocSvaDomain, freeSvaDomain } from './sva.ts';
import {
  allocDomainNested,
  allocNestedOnParent,
  cacheInvalidate,
  getViommuSize,
  vdeviceInit,
  viommuInit,
  vsmmuDestroy,
  vsmmuOf,
} from './vsmmu.ts';

/** Where iommufd maps the MSI doorbell page (`MSI_IOVA_BASE`, `MSI_IOVA_LENGTH`). */
const MSI_IOVA = { start: 0x800_0000n, length: 0x10_0000n, type: 'sw-msi' } as const;

/** What a driver is made of besides its settings. */
export interface DriverExtras {
  /** Replaces or wraps parts. */
  readonly parts?: (shipped: DriverParts) => DriverParts;
  /** The companion of an SMMU (`arm_smmu_impl_probe`); null: none. Default: the Tegra241 CMDQV that firmware names. */
  readonly impl?: (kernel: Kernel, node: SmmuNode) => SmmuImpl | null;
}

/** See the module comment. One driver serves all SMMUs of a machine. */
export class ArmSmmuDriver implements IommuOps {
  readonly name = 'arm-smmu-v3';
  readonly kernel: Kernel;
  readonly options: DriverOptions;
  readonly parts: DriverParts;
  readonly identityDomain: StaticDomain;
  readonly blockedDomain: StaticDomain;
  /** A VM's PASID table is its own: a nested RID's handler gets all its PASIDs' faults. */
  readonly userPasidTable = true;
  /** Absent where a nested domain needs a vIOMMU, as in Linux 7.2: the core tests for the op before all else. */
  readonly domainAllocNested?: NonNullable<IommuOps['domainAllocNested']>;
  readonly #impl: (kernel: Kernel, node: SmmuNode) => SmmuImpl | null;
  readonly #smmus = new Map<string, Smmu>();
  readonly #quarantine: Quarantine;
  #inheritedAsids: InheritedAsids | null = null;
  readonly #asidLock: Lock;
  readonly #pagingOps: DomainOps;
  readonly #svaOps: DomainOps;
  readonly #nestedOps: DomainOps;
  readonly #nestedDirectOps: DomainOps;
  readonly #viommuOps: ViommuOps;
  readonly #serials = new Map<string, number>();

  /** @throws RangeError for settings that contradict each other */
  constructor(kernel: Kernel, settings: DriverSettings = {}, extras: DriverExtras = {}) {
    this.kernel = kernel;
    this.options = optionsOf(settings);
    const shipped = driverParts(kernel, this.options);
    this.parts = extras.parts?.(shipped) ?? shipped;
    this.#impl = extras.impl ?? tegra241Impl();
    this.#quarantine = new Quarantine(this.options.quirks.has('sync-timeout-ignored'));
    this.#asidLock = kernel.lock('asid');
    this.identityDomain = this.#staticDomain('identity');
    this.blockedDomain = this.#staticDomain('blocked');
    this.#pagingOps = {
      ...pagingTableOps,
      attachDev: (domain, dev) => attachPaging(this.#asidLock, masterOf(dev), paging(domain)),
      setDevPasid: (domain, dev, pasid, old) => this.#setPasid(domain, dev, pasid, old),
      free: (domain) => this.#freePaging(paging(domain)),
    };
    this.#svaOps = {
      attachDev: () => {
        throw new KernelError('EINVAL', 'an SVA domain is attached to a PASID only');
      },
      setDevPasid: (domain, dev, pasid, old) => this.#setPasid(domain, dev, pasid, old),
      free: (domain) => {
        if (domain instanceof SvaDomain) freeSvaDomain(domain, this.#asids);
      },
    };
    this.#nestedOps = {
      attachDev: (domain, dev) => attachNested(this.#asidLock, masterOf(dev), nestedOf(domain)),
      free: () => {},
    };
    this.#nestedDirectOps = {
      ...this.#nestedOps,
      cacheInvalidateUser: (domain, array) => this.#invalidateDirect(nestedOf(domain), array),
    };
    if (this.parts.vmidPolicy.nestedWithoutViommu)
      this.domainAllocNested = (dev, parent, flags, data) => this.#allocNestedOnParent(dev, parent, flags, data);
    this.#viommuOps = {
      destroy: vsmmuDestroy,
      allocDomainNested: (viommu, flags, data) => allocDomainNested(viommu, flags, data, this.#nestedOps, this),
      cacheInvalidate: (viommu, array) => {
        const vsmmu = vsmmuOf(viommu);
        cacheInvalidate({ smmu: vsmmu.smmu, vmid: vsmmu.vmid, sidOf: (vsid) => vsmmu.sidOf(vsid) }, array);
      },
      vdeviceInit,
    };
  }

  /** The kind of default domain that the settings ask for. */
  get defaultDomainType(): 'dma' | 'dma-fq' | 'identity' {
    return this.options.defaultDomain;
  }

  /** All SMMUs, in the order of their probe. */
  get smmus(): Smmu[] {
    return [...this.#smmus.values()];
  }

  /** An SMMU by name. @throws KernelError ENODEV */
  smmu(name: string): Smmu {
    const found = this.#smmus.get(name);
    if (found === undefined) throw new KernelError('ENODEV', `there is no SMMU ${name}`);
    return found;
  }

  /** What waits for hardware to confirm an invalidation that timed out. */
  quarantined(): Quarantined[] {
    return this.#quarantine.list();
  }

  /** Brings up one SMMU (`arm_smmu_device_probe`). @throws KernelError ENXIO, ENOMEM, ETIMEDOUT, EEXIST */
  probe(node: SmmuNode): IommuDevice {
    if (this.#smmus.has(node.name)) throw new KernelError('EEXIST', `${node.name} is probed`);
    const device: IommuDevice = { name: node.name, ops: this, live: true };
    const context = {
      kernel: this.kernel,
      options: this.options,
      parts: this.parts,
      quarantine: this.#quarantine,
      label: (kind: string) => this.#label(kind),
      inheritedAsids: this.#foreignAsids(),
    };
    const smmu = probeSmmu(context, node, this.#smmus.size, device, this.#impl(this.kernel, node));
    this.#smmus.set(node.name, smmu);
    this.kernel.runInterrupts();
    return device;
  }

  /** ASIDs that live tables name, reserved at the first probe. */
  #foreignAsids(): InheritedAsids {
    if (this.#inheritedAsids !== null) return this.#inheritedAsids;
    const inherited = new InheritedAsids();
    this.#inheritedAsids = inherited;
    if (this.options.adopt === 'reset') return inherited;
    const views = this.kernel.bus.firmware.smmus.flatMap((node): LiveView[] => {
      try {
        const features = probeFeatures(this.kernel, node, this.options);
        return [{ name: node.name, node, kernel: this.kernel, features, vmids: { max: 2 ** features.vmidBits - 1 } }];
      } catch (error) {
        if (error instanceof KernelError) return [];
        throw error;
      }
    });
    reserveAsids(views, this.parts, inherited);
    return inherited;
  }

  /** Brings up every SMMU of the firmware. @throws KernelError as {@link probe} */
  probeAll(): IommuDevice[] {
    return this.kernel.bus.firmware.smmus.map((node) => this.probe(node));
  }

  /** Resets an SMMU in operation (`arm_smmu_device_reset`). @throws KernelError ETIMEDOUT */
  reset(name: string): void {
    resetSmmu(this.smmu(name));
  }

  /** Switches an SMMU off until {@link resume}; see {@link suspendSmmu}. @throws KernelError ENODEV, ETIMEDOUT */
  suspend(name: string): void {
    suspendSmmu(this.smmu(name));
    this.kernel.runInterrupts();
  }

  /** Brings an SMMU back that was suspended, or lost its state; see {@link resumeSmmu}. @throws KernelError ENODEV, ETIMEDOUT */
  resume(name: string): void {
    resumeSmmu(this.smmu(name));
    this.kernel.runInterrupts();
  }

  /** The companion of an SMMU has lost its registers, and the SMMU has not: it is set up anew. @throws KernelError ENODEV, ETIMEDOUT */
  resetCompanion(name: string): void {
    const smmu = this.smmu(name);
    if (smmu.suspended) return;
    smmu.impl?.deviceLost?.(smmu);
    smmu.impl?.deviceReset?.(smmu);
    this.kernel.runInterrupts();
  }

  /** Switches an SMMU off; its devices were released before (`arm_smmu_device_remove`). @throws KernelError EBUSY, ETIMEDOUT */
  remove(name: string): void {
    const smmu = this.smmu(name);
    if (smmu.streams.size > 0) throw new KernelError('EBUSY', `${name} has devices`);
    smmu.impl?.deviceRemove?.(smmu);
    disableSmmu(smmu);
    freeStructures(smmu);
    smmu.device.live = false;
    this.#smmus.delete(name);
  }

  /** The machine goes down: ATS off in the endpoints, then the SMMU (`arm_smmu_device_shutdown`). @throws KernelError ENODEV, ETIMEDOUT */
  shutdown(name: string): void {
    const smmu = this.smmu(name);
    if (smmu.enabled) stopAts(smmu);
    disableSmmu(smmu);
  }

  settled(dev: Device, then: () => void): void {
    this.#quarantine.settled([masterOf(dev).smmu], then);
  }

  #label(kind: string): string {
    const serial = (this.#serials.get(kind) ?? 0) + 1;
    this.#serials.set(kind, serial);
    return `${kind}:${serial}`;
  }

  #staticDomain(kind: 'identity' | 'blocked'): StaticDomain {
    const domain: StaticDomain = {
      type: kind,
      kind,
      owner: null,
      pgsizeBitmap: 0n,
      aperture: { start: 0n, end: 0n },
      iopfHandler: null,
      ops: {
        attachDev: (_domain, dev) => attachStatic(this.#asidLock, masterOf(dev), domain),
        ...(kind === 'blocked' ? { setDevPasid: (_domain, dev, pasid) => this.#clearPasid(dev, pasid) } : {}),
        free: () => {},
      },
    };
    return domain;
  }

  capable(dev: Device, cap: IommuCap): boolean {
    const { smmu, node, atsSupported } = masterOf(dev);
    const { features } = smmu;
    switch (cap) {
      case 'cache-coherency':
        return features.coherent;
      case 'enforce-cache-coherency':
        return node.canWbs;
      case 'dirty-tracking':
        return features.hd && features.coherent;
      case 'noexec':
        return true;
      case 'ats-not-supported':
        return !atsSupported;
    }
  }

  hwInfo(dev: Device, type: number): { readonly type: number; readonly data: Uint8Array } {
    const { smmu } = masterOf(dev);
    if (type !== HW_INFO_TYPE.NONE && type !== HW_INFO_TYPE.ARM_SMMUV3) {
      const info = smmu.impl?.hwInfo?.(smmu, type) ?? null;
      if (info === null) throw new KernelError('EOPNOTSUPP', `no hardware information of type ${type}`);
      return info;
    }
    return { type: HW_INFO_TYPE.ARM_SMMUV3, data: this.#idRegisters(smmu) };
  }

  /** `struct iommu_hw_info_arm_smmuv3`: flags, reserved, IDR0 to IDR5, IIDR, AIDR (`arm_smmu_hw_info`). */
  #idRegisters(smmu: Smmu): Uint8Array {
    const values = [IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR, AIDR].map((register) =>
      this.kernel.read32(`hw-info:${register.name}`, registerAt(smmu, register)),
    );
    const words = [0, 0, ...values];
    const data = new Uint8Array(4 * words.length);
    const view = new DataView(data.buffer);
    for (const [i, word] of words.entries()) view.setUint32(4 * i, word, true);
    return data;
  }

  domainAllocPagingFlags(dev: Device, flags: PagingFlags, userData: UserData | null): IommuDomain {
    if (userData !== null) throw new KernelError('EOPNOTSUPP', 'paging domains take no driver data');
    const { smmu } = masterOf(dev);
    const stage = stageFor(smmu, flags);
    this.kernel.alloc('domain');
    const domain = new PagingDomain(smmu, this.#pagingOps, this, stage, flags, dirtyOps);
    try {
      if (stage === 's1') domain.asid = this.#allocAsid(smmu);
      else this.parts.vmidPolicy.s2Alloc(domain);
    } catch (error) {
      domain.table.free();
      throw error;
    }
    return domain;
  }

  domainAllocSva(dev: Device, mm: MmStruct): IommuDomain {
    return allocSvaDomain(masterOf(dev).smmu, mm, this.#asids, this.#svaOps, this);
  }

  #setPasid(domain: IommuDomain, dev: Device, pasid: number, old: IommuDomain | null): void {
    setPasidDomain(this.#asidLock, masterOf(dev), ours(domain), pasid, old === null ? null : ours(old));
  }

  #clearPasid(dev: Device, pasid: number): void {
    const master = masterOf(dev);
    clearPasid(this.#asidLock, master, pasid, () => {
      const domain = master.current?.kind === 'identity' ? this.identityDomain : this.blockedDomain;
      attachStatic(this.#asidLock, master, domain);
    });
  }

  readonly #asids: AsidSource = {
    alloc: (smmu) => this.#allocAsid(smmu),
    free: (smmu, asid) => this.#freeAsid([smmu], asid),
  };

  #freeAsid(smmus: readonly Smmu[], asid: number): void {
    this.#quarantine.retire(smmus, `ASID ${asid}`, () => this.parts.asids.free(asid));
  }

  #allocAsid(smmu: Smmu): number {
    return this.kernel.withLock(this.#asidLock, () => {
      const asid = this.parts.asids.alloc();
      if (asid < 2 ** smmu.features.asidBits) return asid;
      this.parts.asids.free(asid);
      throw new KernelError('EBUSY', `${smmu.name} has no ASID left`);
    });
  }

  /** Tables, then the tag: the last detach has cleaned it (`arm_smmu_domain_free_paging`). */
  #freePaging(domain: PagingDomain): void {
    domain.table.free();
    this.parts.vmidPolicy.s2Free(domain);
    const { asid } = domain;
    domain.asid = 0;
    if (asid !== 0) this.#freeAsid(domain.smmus, asid);
  }

  #allocNestedOnParent(dev: Device, parent: IommuDomain, flags: PagingFlags, userData: UserData): IommuDomain {
    const { smmu, node } = masterOf(dev);
    return allocNestedOnParent(smmu, parent, node.canWbs, flags, userData, this.#nestedDirectOps, this);
  }

  /** User invalidation on a nested domain without vIOMMU: TLBI commands only, under the parent's VMID on that SMMU. */
  #invalidateDirect(domain: NestedDomain, array: Parameters<typeof cacheInvalidate>[1]): void {
    const given = array.entryNum;
    const tags = domain.parent.invs.filter((inv) => inv.type === 'S2_VMID' && inv.users > 0);
    const targets =
      domain.parent.vmid !== 0
        ? [{ smmu: domain.parent.smmu, vmid: domain.parent.vmid }]
        : tags.map(({ smmu, id }) => ({ smmu, vmid: id }));
    const [first = { smmu: domain.parent.smmu, vmid: undefined }, ...rest] = targets;
    for (const target of [first, ...rest]) {
      array.entryNum = given;
      cacheInvalidate({ ...target, sidOf: () => undefined }, array);
    }
  }

  probeDevice(dev: Device): void {
    dev.priv = probeMaster(this.smmu(dev.iommu.name), dev);
  }

  releaseDevice(dev: Device): void {
    const master = masterOf(dev);
    const live = master.current === null ? master.smmu.inherited.holds(master) : master.current.kind !== 'blocked';
    if (live) attachStatic(this.#asidLock, master, this.blockedDomain);
    releaseMaster(master);
    dev.priv = null;
  }

  /** Its DMA may be under way through an STE that was adopted (`arm_smmu_is_attach_deferred`). */
  isAttachDeferred(dev: Device): boolean {
    const master = masterOf(dev);
    return master.smmu.inherited.holds(master);
  }

  getResvRegions(dev: Device): readonly ResvRegion[] {
    return [MSI_IOVA, ...(dev.node.reserved ?? [])];
  }

  pageResponse(dev: Device, fault: PageFault, code: PageResponseCode): void {
    pageResponse(dev, fault, code);
  }

  getViommuSize(dev: Device, type: number): number {
    return getViommuSize(dev, type);
  }

  viommuInit(viommu: IommufdViommu, parent: IommuDomain, userData: UserData | null): void {
    viommuInit(this.smmu(viommu.iommuDev.name), viommu, parent, userData, this.#viommuOps);
  }
}

function nestedOf(domain: IommuDomain): NestedDomain {
  if (domain instanceof NestedDomain) return domain;
  throw new KernelError('EINVAL', `the ${domain.type} domain is no nested domain of this driver`);
}
