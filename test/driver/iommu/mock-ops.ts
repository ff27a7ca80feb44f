/**
 * A driver without hardware: it knows what each device is attached to, refuses a wrong `old` domain, and fails on
 * demand. What it says is what a device would see; the tests compare it with what the core records.
 */
import { IommuCore } from '../../../src/driver/iommu/core.ts';
import type {
  Device,
  DomainOps,
  DomainType,
  IommuDevice,
  IommuDomain,
  IommuOps,
  IotlbGather,
  MmStruct,
  PageFault,
  PageFaultGroup,
  PageResponseCode,
  PagingFlags,
  ResvRegion,
} from '../../../src/driver/iommu/ops.ts';
import type { CoreParts } from '../../../src/driver/iommu/parts.ts';
import { type Errno, KernelError } from '../../../src/driver/kernel.ts';
import { LocalKernel } from '../../../src/driver/local-kernel.ts';
import type { Bus, DeviceNode } from '../../../src/hw/bus.ts';

/** A machine with nothing in it: the core must not touch it. */
function emptyBus(): Bus {
  const nothing = (): never => {
    throw new Error('the iommu core touched the machine');
  };
  return {
    readl: nothing,
    readlRelaxed: nothing,
    readq: nothing,
    readqRelaxed: nothing,
    writel: nothing,
    writelRelaxed: nothing,
    writeq: nothing,
    writeqRelaxed: nothing,
    load32: nothing,
    load64: nothing,
    store32: nothing,
    store64: nothing,
    loadBytes: nothing,
    storeBytes: nothing,
    loadPair: nothing,
    storePair: nothing,
    pairHi: 0,
    pairLo: 0,
    compareExchangePair: nothing,
    dmaWmb: nothing,
    dmaRmb: nothing,
    mb: () => {},
    cpuRelax: nothing,
    pciRead32: nothing,
    pciWrite32: nothing,
    onInterrupt: nothing,
    firmware: { ram: [], smmus: [], devices: [] },
  };
}

export interface MockDomain extends IommuDomain {
  readonly name: string;
  freed: boolean;
  /** Mapped pages by IOVA: where to, and how large. */
  readonly pages: Map<bigint, { readonly pa: bigint; readonly size: bigint }>;
}

interface Refusal {
  readonly dev: string | null;
  readonly domain: string | null;
  readonly errno: Errno;
  left: number;
}

export class MockDriver {
  readonly ops: IommuOps;
  readonly iommu: IommuDevice;
  readonly blocked: MockDomain;
  readonly identity: MockDomain;
  /** Calls in order: `attach A s2#1 <- blocked`, `pasid A 5 s1#2 <- none`, `free s1#2`, `respond A g3 invalid`. */
  readonly calls: string[] = [];
  /** What each known device's RID is on. */
  readonly rids = new Map<string, MockDomain>();
  /** What each PASID of a device is on, `A/5`. */
  readonly pasids = new Map<string, MockDomain>();
  readonly domains = new Set<MockDomain>();
  /** Off: the driver believes any `old` (after a failure that must not happen, the core's view may differ). */
  strict = true;
  resv: ResvRegion[] = [];
  ats = true;
  userPasidTable = true;
  readonly #refusals: Refusal[] = [];
  #serial = 0;

  constructor(name = 'mock', overrides: Partial<IommuOps> = {}) {
    this.blocked = this.#domain('blocked', 'blocked');
    this.identity = this.#domain('identity', 'identity');
    this.domains.clear();
    const self = this;
    this.ops = {
      name,
      capable: (_dev, cap) => cap === 'ats-not-supported' && !this.ats,
      identityDomain: this.identity,
      blockedDomain: this.blocked,
      defaultDomainType: 'dma',
      get userPasidTable() {
        return self.userPasidTable;
      },
      domainAllocPagingFlags: (_dev: Device, flags: PagingFlags) =>
        this.#domain(flags.nestParent ? 's2' : 's1', 'paging'),
      domainAllocSva: (_dev: Device, mm: MmStruct) => this.#domain(`sva-${mm.name}`, 'sva'),
      probeDevice: (dev) => {
        this.#refuse('probe', dev.name, null);
        this.calls.push(`probe ${dev.name}`);
        this.rids.set(dev.name, this.blocked);
      },
      releaseDevice: (dev) => {
        this.calls.push(`release ${dev.name}`);
        this.rids.delete(dev.name);
      },
      getResvRegions: () => this.resv,
      pageResponse: (dev: Device, fault: PageFault, code: PageResponseCode) => {
        this.calls.push(`respond ${dev.name} g${fault.grpid} ${code}`);
      },
      ...overrides,
    };
    this.iommu = { name: `${name}0`, ops: this.ops, live: true };
  }

  /** The next `times` attaches of `domain` (null: any) to `dev` (null: any) fail. */
  refuse(dev: string | null, domain: string | null, errno: Errno, times = 1): void {
    this.#refusals.push({ dev, domain, errno, left: times });
  }

  /** Takes the planned refusals back that have not happened. */
  clearRefusals(): void {
    this.#refusals.length = 0;
  }

  /** A paging or nested domain as iommufd would have it. */
  alloc(kind: 's1' | 's2' | 'nested', type: DomainType = kind === 'nested' ? 'nested' : 'paging'): MockDomain {
    const domain = this.#domain(kind, type);
    domain.owner = this.ops;
    return domain;
  }

  /** Calls since the last look. */
  take(): string[] {
    return this.calls.splice(0);
  }

  #refuse(what: string, dev: string, domain: string | null): void {
    const found = this.#refusals.find(
      (r) => r.left > 0 && (r.dev === null || r.dev === dev) && (r.domain === null || r.domain === domain),
    );
    if (found === undefined) return;
    found.left--;
    this.calls.push(`${what} ${dev} ${domain ?? ''} refused`);
    throw new KernelError(found.errno, `${dev} refuses`);
  }

  #domain(kind: string, type: DomainType): MockDomain {
    const name = kind === 'blocked' || kind === 'identity' ? kind : `${kind}#${++this.#serial}`;
    const domain: MockDomain = {
      name,
      type,
      owner: null,
      ops: this.#domainOps(kind),
      pgsizeBitmap: type === 'paging' ? 0x4020_1000n : 0n,
      aperture: { start: 0n, end: 0xffff_ffff_ffffn },
      iopfHandler: null,
      freed: false,
      pages: new Map(),
    };
    this.domains.add(domain);
    return domain;
  }

  #domainOps(kind: string): DomainOps {
    const ops: DomainOps = {
      attachDev: (domain, dev, old) => this.#attach(domain, dev, old),
      free: (domain) => this.#free(domain),
    };
    if (kind === 'nested') return ops;
    return {
      ...ops,
      setDevPasid: (domain, dev, pasid, old) => this.#setPasid(domain, dev, pasid, old),
      mapPages: (domain, iova, pa, size, count) => this.#map(domain, iova, pa, size, count),
      unmapPages: (domain, iova, size, count, gather) => this.#unmap(domain, iova, size, count, gather),
      iotlbSync: (_domain, gather) => this.calls.push(`sync ${gather.start.toString(16)}-${gather.end.toString(16)}`),
      iovaToPhys: (domain, iova) => this.#known(domain).pages.get(iova)?.pa,
    };
  }

  #known(domain: IommuDomain): MockDomain {
    for (const each of [this.blocked, this.identity, ...this.domains]) if (each === domain) return each;
    throw new Error("a domain that is not this driver's, or is freed");
  }

  #attach(domain: IommuDomain, dev: Device, old: IommuDomain): void {
    const next = this.#known(domain);
    this.#refuse('attach', dev.name, next.name);
    const before = this.#known(old);
    this.calls.push(`attach ${dev.name} ${next.name} <- ${before.name}`);
    if (this.strict && this.rids.get(dev.name) !== before) throw new Error(`${dev.name} is not on ${before.name}`);
    this.rids.set(dev.name, next);
  }

  #setPasid(domain: IommuDomain, dev: Device, pasid: number, old: IommuDomain | null): void {
    const next = this.#known(domain);
    if (next !== this.blocked) this.#refuse(`pasid ${pasid}`, dev.name, next.name);
    const before = old === null ? null : this.#known(old);
    const key = `${dev.name}/${pasid}`;
    this.calls.push(`pasid ${dev.name} ${pasid} ${next.name} <- ${before?.name ?? 'none'}`);
    if (this.strict && (this.pasids.get(key) ?? null) !== before) throw new Error(`${key} is not on ${before?.name}`);
    if (next === this.blocked) this.pasids.delete(key);
    else this.pasids.set(key, next);
  }

  #map(domain: IommuDomain, iova: bigint, pa: bigint, size: bigint, count: number): bigint {
    const table = this.#known(domain);
    this.calls.push(`map ${iova.toString(16)} ${size.toString(16)} x${count}`);
    this.#refuse('map', table.name, table.name);
    for (let i = 0n; i < count; i++) table.pages.set(iova + i * size, { pa: pa + i * size, size });
    return size * BigInt(count);
  }

  #unmap(domain: IommuDomain, iova: bigint, size: bigint, count: number, gather: IotlbGather): bigint {
    const table = this.#known(domain);
    this.calls.push(`unmap ${iova.toString(16)} ${size.toString(16)} x${count}`);
    let done = 0n;
    for (let i = 0n; i < count; i++) {
      if (!table.pages.delete(iova + i * size)) break;
      done += size;
    }
    if (done > 0n) {
      gather.start = gather.empty ? iova : gather.start;
      gather.end = iova + done - 1n;
      gather.empty = false;
    }
    return done;
  }

  #free(domain: IommuDomain): void {
    const gone = this.#known(domain);
    if (gone === this.blocked || gone === this.identity) throw new Error('a static domain was freed');
    for (const [who, on] of [...this.rids, ...this.pasids]) {
      if (on === gone) throw new Error(`${gone.name} is freed, but ${who} is still on it`);
    }
    this.calls.push(`free ${gone.name}`);
    gone.freed = true;
    this.domains.delete(gone);
  }
}

export interface Fixture {
  readonly kernel: LocalKernel;
  readonly core: IommuCore;
  readonly driver: MockDriver;
}

/** A core with one registered mock driver. */
export function fixture(overrides: Partial<IommuOps> = {}, parts?: CoreParts): Fixture {
  const kernel = new LocalKernel(emptyBus());
  const core = new IommuCore(kernel, parts);
  const driver = new MockDriver('mock', overrides);
  core.registerIommu(driver.iommu);
  return { kernel, core, driver };
}

/** A device's firmware node; `groupAlias` puts devices together. */
export function node(name: string, extra: Partial<DeviceNode> = {}): DeviceNode {
  return { name, smmu: 'mock0', streamIds: [0], canWbs: false, canStall: false, ssidBits: 4, ...extra };
}

/** Probes devices A, B, C ... of one group and forgets the calls made for that. */
export function probeGroup({ core, driver }: Fixture, ...names: string[]): Device[] {
  const devices = names.map((name) => core.probeDevice(node(name, { groupAlias: 'g' }), driver.iommu));
  driver.take();
  return devices;
}

/** One page request; the last of its group unless said otherwise. */
export function pageFault(grpid: number, extra: Partial<PageFault> = {}): PageFault {
  return {
    addr: 0x1000n,
    pasid: undefined,
    grpid,
    lastPage: true,
    read: true,
    write: false,
    exec: false,
    priv: false,
    ...extra,
  };
}

/** Collects the groups that a domain's handler gets. */
export function collectFaults(domain: IommuDomain): PageFaultGroup[] {
  const groups: PageFaultGroup[] = [];
  domain.iopfHandler = (group) => {
    groups.push(group);
  };
  return groups;
}

/** The errno that `body` fails with; 'none' if it succeeds. */
export function errnoOf(body: () => unknown): Errno | 'none' {
  try {
    body();
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
  return 'none';
}
