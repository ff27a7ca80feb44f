/** Domains (kernel: `struct arm_smmu_domain`, `arm_smmu_domain_alloc_paging_flags`, `arm_smmu_domain_finalise`). */
import type { Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import { iotlbGatherAddPage } from '../iommu/map.ts';
import type {
  DirtyOps,
  DomainOps,
  DomainType,
  IommuDomain,
  IommuOps,
  IotlbGather,
  MapProt,
  MmStruct,
  PageFaultGroup,
  PagingFlags,
} from '../iommu/ops.ts';
import { KernelError } from '../kernel.ts';
import type { Inv, InvRange } from './invalidation.ts';
import { chooseGranule, GRANULE_PAGES, type IoPageTable, type TableConfig } from './io-pgtable.ts';
import type { MasterDomain, Smmu } from './smmu.ts';
import type { Vsmmu } from './vsmmu.ts';

/** What every domain of this driver says of itself. */
interface SmmuDomainBase extends IommuDomain {
  readonly kind: 'identity' | 'blocked' | 's1' | 's2' | 'nested' | 'sva';
}

/** A domain that keeps track of its devices and of what to invalidate. */
export interface TrackingDomain extends SmmuDomainBase {
  readonly smmu: Smmu;
  /** Replaced as a whole; readers take it once. */
  invs: Inv[];
  readonly devices: Set<MasterDomain>;
}

/** Identity and blocked: one of each for a driver, without state. */
export interface StaticDomain extends SmmuDomainBase {
  readonly kind: 'identity' | 'blocked';
}

/** Any domain of this driver. */
export type SmmuDomain = StaticDomain | PagingDomain | NestedDomain | SvaDomain;

/** The domain whose array and device list an attachment of `domain` uses; null: none. */
export function trackerOf(domain: SmmuDomain): PagingDomain | SvaDomain | null {
  if (domain instanceof NestedDomain) return domain.parent;
  return domain instanceof PagingDomain || domain instanceof SvaDomain ? domain : null;
}

/** All of an address space of `bits` bits. */
const aperture = (bits: number): { start: bigint; end: bigint } => ({ start: 0n, end: (1n << BigInt(bits)) - 1n });

const ANY_ADDRESS = aperture(64);

/** A stage 1 or stage 2 domain with its own page table. */
export class PagingDomain implements TrackingDomain {
  type: DomainType = 'paging';
  owner: IommuOps | null;
  readonly ops: DomainOps;
  readonly kind: 's1' | 's2';
  readonly smmu: Smmu;
  readonly nestParent: boolean;
  readonly table: IoPageTable;
  readonly pgsizeBitmap: bigint;
  /** log2 of the smallest page. */
  readonly #tg: number;
  readonly aperture: { readonly start: bigint; readonly end: bigint };
  readonly name: string;
  readonly dirtyOps?: DirtyOps;
  iopfHandler: ((group: PageFaultGroup) => void) | null = null;
  invs: Inv[] = [];
  readonly devices = new Set<MasterDomain>();
  /** Stage 1; 0 before it is allocated. */
  asid = 0;
  /** Stage 2 in policy at-domain-alloc; 0 in the others. */
  vmid = 0;
  /** SMMUs on which it was ever attached, and the one it was made for. */
  readonly usedOn = new Set<Smmu>();
  /** Stage 2: vIOMMUs that live on it, by SMMU. */
  readonly vsmmus = new Map<Smmu, number>();
  /** Stage 2 in policy external: the virtual machine it belongs to. */
  vm: string;
  /** Some device may make non-snooped accesses unless the table forces it (`enforce_cache_coherency`). */
  enforceCoherency = false;

  constructor(smmu: Smmu, ops: DomainOps, owner: IommuOps, kind: 's1' | 's2', flags: PagingFlags, dirtyOps: DirtyOps) {
    this.smmu = smmu;
    this.usedOn.add(smmu);
    this.ops = ops;
    this.owner = owner;
    this.kind = kind;
    this.nestParent = flags.nestParent === true;
    this.name = smmu.label(`${kind}-domain`);
    this.vm = flags.vm ?? this.name;
    const config = tableConfig(smmu, kind, flags);
    this.pgsizeBitmap = config.pgsizeBitmap;
    this.#tg = Math.log2(Number(config.pgsizeBitmap & -config.pgsizeBitmap));
    this.aperture = aperture(config.ias);
    this.table = smmu.parts.pageTable(smmu.kernel, config, {
      flushWalk: (iova, size, granule) => void this.invRange({ iova, size, granule, leaf: false }),
      addPages: (gather, iova, size, count) => iotlbGatherAddPage(this, gather, iova, size, count),
      retire: (what, release) => smmu.quarantine.retire(this.smmus, what, release),
    });
    if (config.dirty) this.dirtyOps = dirtyOps;
  }

  /** SMMUs whose hardware may have used the table. */
  get smmus(): Smmu[] {
    return [...this.usedOn];
  }

  /** Invalidates a range on every SMMU and device (`arm_smmu_domain_inv_range`). False: timed out. */
  invRange(range: Omit<InvRange, 'tg'>): boolean {
    const { iova, size, granule, leaf } = range;
    return this.smmu.parts.invalidation.invRange(this.smmu.kernel, this.invs, {
      iova,
      size,
      granule,
      leaf,
      tg: this.#tg,
    });
  }
}

/** IAS, OAS, granule and attributes of a domain's table (`arm_smmu_domain_finalise`). */
function tableConfig(smmu: Smmu, kind: 's1' | 's2', flags: PagingFlags): TableConfig {
  const { features, options } = smmu;
  const granule = chooseGranule(features.pgsizeBitmap, options.cpu.pageSize);
  const widest = granule === '64k' ? 52 : 48;
  const cap = (bits: number): number => Math.min(bits, widest);
  const ias = kind === 's1' ? Math.min(features.vax ? 52 : 48, options.cpu.vaBits) : features.oas;
  return {
    stage: kind === 's1' ? 1 : 2,
    granule,
    ias: cap(ias),
    oas: cap(features.oas),
    pgsizeBitmap: features.pgsizeBitmap & GRANULE_PAGES[granule],
    coherent: features.coherent,
    s2fwb: kind === 's2' && flags.nestParent === true && features.s2fwb,
    dirty: kind === 's1' && flags.dirtyTracking === true,
  };
}

/** A VM's stage 1 over a nesting parent (`struct arm_smmu_nested_domain`). */
export class NestedDomain implements SmmuDomainBase {
  readonly type = 'nested';
  readonly kind = 'nested';
  owner: IommuOps | null;
  readonly ops: DomainOps;
  readonly pgsizeBitmap = 0n;
  readonly aperture = ANY_ADDRESS;
  iopfHandler: ((group: PageFaultGroup) => void) | null = null;
  readonly parent: PagingDomain;
  /** The vIOMMU whose VMID and vSIDs it uses; null: it uses the parent's VMID and has no vSIDs. */
  readonly vsmmu: Vsmmu | null;
  /** Both words of the vSTE as halves, EATS stripped. */
  readonly vste: Words;
  readonly enableAts: boolean;

  constructor(
    ops: DomainOps,
    owner: IommuOps,
    parent: PagingDomain,
    vsmmu: Vsmmu | null,
    vste: Words,
    enableAts: boolean,
  ) {
    this.ops = ops;
    this.owner = owner;
    this.parent = parent;
    this.vsmmu = vsmmu;
    this.vste = vste;
    this.enableAts = enableAts;
  }
}

/** A process's address space (`arm_smmu_sva_domain_alloc`). */
export class SvaDomain implements TrackingDomain {
  readonly type = 'sva';
  readonly kind = 'sva';
  owner: IommuOps | null;
  readonly ops: DomainOps;
  readonly smmu: Smmu;
  readonly mm: MmStruct;
  readonly asid: number;
  readonly pgsizeBitmap: bigint;
  readonly aperture: { readonly start: bigint; readonly end: bigint };
  iopfHandler: ((group: PageFaultGroup) => void) | null = null;
  invs: Inv[] = [];
  readonly devices = new Set<MasterDomain>();
  /** The address space has ended: CDs have EPD0 set. */
  released = false;

  constructor(smmu: Smmu, ops: DomainOps, owner: IommuOps, mm: MmStruct, asid: number) {
    this.smmu = smmu;
    this.ops = ops;
    this.owner = owner;
    this.mm = mm;
    this.asid = asid;
    this.pgsizeBitmap = BigInt(smmu.options.cpu.pageSize);
    this.aperture = aperture(smmu.options.cpu.vaBits);
  }

  /** Process pages changed: nothing is known of levels, so no leaf hint. */
  invRange(iova: bigint, size: bigint): boolean {
    const granule = this.pgsizeBitmap;
    const tg = granule.toString(2).length - 1;
    return this.smmu.parts.invalidation.invRange(this.smmu.kernel, this.invs, { iova, size, granule, leaf: false, tg });
  }
}

/** A domain this driver made, out of any. @throws KernelError EINVAL for a stranger */
export function ours(domain: IommuDomain): SmmuDomain {
  if (domain instanceof PagingDomain || domain instanceof NestedDomain || domain instanceof SvaDomain) return domain;
  if ('kind' in domain && (domain.kind === 'identity' || domain.kind === 'blocked')) return domain as StaticDomain;
  throw new KernelError('EINVAL', `the ${domain.type} domain is another driver's`);
}

/** @throws KernelError EINVAL unless it is a paging domain of this driver */
export function paging(domain: IommuDomain): PagingDomain {
  if (domain instanceof PagingDomain) return domain;
  throw new KernelError('EINVAL', `the ${domain.type} domain has no page table of this driver`);
}

/** Which stage a paging domain is (`arm_smmu_domain_alloc_paging_flags`). @throws KernelError EOPNOTSUPP */
export function stageFor(smmu: Smmu, flags: PagingFlags): 's1' | 's2' {
  const { features } = smmu;
  const stage1Flags = flags.dirtyTracking === true || flags.pasid === true;
  if (flags.nestParent === true) {
    if (stage1Flags) throw new KernelError('EOPNOTSUPP', 'a nesting parent has neither dirty tracking nor PASIDs');
    if (!features.nesting) throw new KernelError('EOPNOTSUPP', `${smmu.name} does not nest`);
    return 's2';
  }
  if (stage1Flags && !features.stage1) throw new KernelError('EOPNOTSUPP', `${smmu.name} has no stage 1`);
  return features.stage1 ? 's1' : 's2';
}

/** Page-table operations of paging domains. */
export const pagingTableOps = {
  mapPages: (domain: IommuDomain, iova: bigint, pa: Pa, pgsize: bigint, count: number, prot: MapProt): bigint =>
    paging(domain).table.mapPages(iova, pa, pgsize, count, prot),
  unmapPages: (domain: IommuDomain, iova: bigint, pgsize: bigint, count: number, gather: IotlbGather): bigint =>
    paging(domain).table.unmapPages(iova, pgsize, count, gather),
  iotlbSync: (domain: IommuDomain, gather: IotlbGather): void => {
    if (gather.pgsize === 0n) return;
    const size = gather.end - gather.start + 1n;
    paging(domain).invRange({ iova: gather.start, size, granule: gather.pgsize, leaf: true });
  },
  flushIotlbAll: (domain: IommuDomain): void => {
    paging(domain).invRange({ iova: 0n, size: 0n, granule: 0n, leaf: false });
  },
  retire: (domain: IommuDomain, what: string, release: () => void): void => {
    const { smmu, smmus } = paging(domain);
    smmu.quarantine.retire(smmus, what, release);
  },
  iovaToPhys: (domain: IommuDomain, iova: bigint): Pa | undefined => paging(domain).table.iovaToPhys(iova),
  enforceCacheCoherency: (domain: IommuDomain): boolean => enforceCoherency(paging(domain)),
} as const;

/** `arm_smmu_enforce_cache_coherency`: only if no attached device can get round it. */
function enforceCoherency(domain: PagingDomain): boolean {
  for (const { master } of domain.devices) if (!master.node.canWbs) return false;
  domain.enforceCoherency = true;
  return true;
}

/** Dirty tracking is always on; the bit map is cleared before (`arm_smmu_dirty_ops`). */
export const dirtyOps: DirtyOps = {
  setDirtyTracking: () => {},
  readAndClearDirty: (domain, iova, length, noClear, dirty, gather) => {
    const { table } = paging(domain);
    table.readAndClearDirty(iova, length, noClear, (at, size) => {
      dirty(at, size);
      // A clean leaf is only clean once the TLB has forgotten the writable one.
      if (!noClear) iotlbGatherAddPage(domain, gather, at, size);
    });
  },
};
