/**
 * A driver without hardware: domains are maps, every operation can be told to fail, and what is alive is counted. It
 * implements the public contract (IommuOps, ViommuOps) and nothing else, as an out-of-tree driver would.
 */
import type {
  Device,
  DirtyOps,
  DomainOps,
  DomainType,
  IommuCap,
  IommuDevice,
  IommuDomain,
  IommufdHwQueue,
  IommufdVdevice,
  IommufdViommu,
  IommuOps,
  PageFault,
  PageResponseCode,
  PagingFlags,
  ResvRegion,
  UserArray,
  ViommuOps,
} from '../../src/driver/iommu/ops.ts';
import { HW_QUEUE_CORE_SIZE, VDEVICE_CORE_SIZE, VIOMMU_CORE_SIZE } from '../../src/driver/iommu/ops.ts';
import { type Errno, type Kernel, KernelError } from '../../src/driver/kernel.ts';

const PAGE = 4096n;

/** One page-table leaf. */
interface Leaf {
  readonly pa: bigint;
  readonly size: bigint;
  readonly write: boolean;
  dirty: boolean;
}

export interface MockDomain extends IommuDomain {
  readonly kindOf: string;
  readonly leaves: Map<bigint, Leaf>;
  readonly flags: PagingFlags;
  tracking: boolean;
}

/** What the driver offers; all on by default. */
export interface MockFeatures {
  readonly coherent?: boolean;
  readonly dirty?: boolean;
  readonly nestedOnParent?: boolean;
  readonly viommu?: boolean;
  readonly viommuSize?: number;
  readonly vdeviceSize?: number;
  readonly vdeviceInit?: boolean;
  readonly hwQueues?: boolean;
  readonly setOps?: boolean;
  readonly pgsizeBitmap?: bigint;
  readonly aperture?: { readonly start: bigint; readonly end: bigint };
  readonly hwInfoType?: number;
  readonly pasids?: boolean;
  readonly enforceCoherency?: boolean;
}

/** Data types of the mock; the numbers are Arm's so that the core's tests read as real ones. */
export const MOCK = { NESTED_DATA: 2, VIOMMU: 1, INVALIDATE: 1, HW_QUEUE: 1, BAD_COMMAND: 0xbad } as const;

export class MockDriver {
  readonly ops: IommuOps;
  readonly iommu: IommuDevice;
  readonly other: IommuDevice;
  readonly features: MockFeatures;
  readonly kernel: Kernel;
  /** Alive: domains, vIOMMUs, vDEVICEs, queues. */
  readonly live = new Set<object>();
  readonly calls: string[] = [];
  readonly blocked: MockDomain;
  readonly identity: MockDomain;
  /** What each device's RID is on. */
  readonly rids = new Map<string, IommuDomain>();
  resv: ResvRegion[] = [{ start: 0x800_0000n, length: 0x10_0000n, type: 'sw-msi' }];
  readonly #fail = new Map<string, Errno>();
  readonly #viommuOps: ViommuOps;

  constructor(kernel: Kernel, features: MockFeatures = {}) {
    this.kernel = kernel;
    this.features = features;
    this.blocked = this.#domain('blocked', 'blocked', {});
    this.identity = this.#domain('identity', 'identity', {});
    this.live.clear();
    this.#viommuOps = this.#makeViommuOps();
    this.ops = this.#makeOps();
    this.iommu = { name: 'mock0', ops: this.ops, live: true };
    this.other = { name: 'mock1', ops: this.ops, live: true };
  }

  /** The next call of `operation` fails. */
  fail(operation: string, errno: Errno): void {
    this.#fail.set(operation, errno);
  }

  #may(operation: string): void {
    this.calls.push(operation);
    this.kernel.alloc(`mock:${operation}`);
    const errno = this.#fail.get(operation);
    if (errno === undefined) return;
    this.#fail.delete(operation);
    throw new KernelError(errno, `${operation} was told to fail`);
  }

  #domain(kindOf: string, type: DomainType, flags: PagingFlags, parent?: IommuDomain): MockDomain {
    const nested = type === 'nested';
    const domain: MockDomain = {
      kindOf,
      type,
      flags,
      owner: null,
      ops: this.#domainOps(nested),
      pgsizeBitmap: type === 'paging' ? (this.features.pgsizeBitmap ?? 0x20_1000n) : 0n,
      aperture: this.features.aperture ?? { start: 0n, end: (1n << 48n) - 1n },
      iopfHandler: null,
      leaves: new Map(),
      tracking: false,
      ...(flags.dirtyTracking ? { dirtyOps: this.#dirtyOps() } : {}),
      ...(parent === undefined ? {} : { parent }),
    };
    this.live.add(domain);
    return domain;
  }

  #domainOps(nested: boolean): DomainOps {
    const mock = (domain: IommuDomain): MockDomain => domain as MockDomain;
    const common: DomainOps = {
      attachDev: (domain, dev) => {
        if (domain.type !== 'blocked' && domain.type !== 'identity') this.#may(`attach-${mock(domain).kindOf}`);
        this.calls.push(`${dev.name} on ${mock(domain).kindOf}`);
        this.rids.set(dev.name, domain);
      },
      free: (domain) => void this.live.delete(domain),
      ...(this.features.pasids === false ? {} : { setDevPasid: (domain) => this.#may(`pasid-${mock(domain).kindOf}`) }),
    };
    if (nested) {
      if (this.features.nestedOnParent === false) return common;
      return { ...common, cacheInvalidateUser: (_domain, array) => this.#invalidate(array) };
    }
    return {
      ...common,
      mapPages: (domain, iova, pa, pgsize, count, prot) => {
        this.#may('map');
        for (let i = 0n; i < BigInt(count); i++)
          mock(domain).leaves.set(iova + i * pgsize, {
            pa: pa + i * pgsize,
            size: pgsize,
            write: prot.write,
            dirty: false,
          });
        return BigInt(count) * pgsize;
      },
      unmapPages: (domain, iova, pgsize, count, gather) => {
        let done = 0n;
        while (done < BigInt(count) * pgsize) {
          const leaf = mock(domain).leaves.get(iova + done);
          if (leaf === undefined) break;
          mock(domain).leaves.delete(iova + done);
          done += leaf.size;
        }
        gather.empty = false;
        return done;
      },
      iotlbSync: (domain) => void this.calls.push(`sync ${mock(domain).kindOf}`),
      enforceCacheCoherency: () => this.features.enforceCoherency !== false,
    };
  }

  #dirtyOps(): DirtyOps {
    return {
      setDirtyTracking: (domain, enable) => {
        this.#may('set-dirty');
        (domain as MockDomain).tracking = enable;
      },
      readAndClearDirty: (domain, iova, length, noClear, dirty) => {
        for (const [at, leaf] of (domain as MockDomain).leaves) {
          if (at + leaf.size <= iova || at >= iova + length || !leaf.dirty) continue;
          dirty(at, leaf.size);
          if (!noClear) leaf.dirty = false;
        }
      },
    };
  }

  #invalidate(array: UserArray): void {
    const given = array.entryNum;
    array.entryNum = 0;
    const entries = given === 0 ? [] : array.copyAll(MOCK.INVALIDATE, 16);
    for (const entry of entries) {
      const word = new DataView(entry.buffer, entry.byteOffset).getUint32(0, true);
      if (word === MOCK.BAD_COMMAND) throw new KernelError('EIO', 'bad command');
      this.calls.push(`invalidate 0x${word.toString(16)}`);
      array.entryNum++;
    }
  }

  #capable(cap: IommuCap): boolean {
    if (cap === 'cache-coherency') return this.features.coherent !== false;
    if (cap === 'dirty-tracking') return this.features.dirty !== false;
    return (
      cap === 'ats-not-supported' || (cap === 'enforce-cache-coherency' && this.features.enforceCoherency !== undefined)
    );
  }

  #makeOps(): IommuOps {
    const { features } = this;
    return {
      name: 'mock',
      capable: (_dev, cap) => this.#capable(cap),
      hwInfo: (_dev, type) => {
        if (type !== 0 && type !== 2) throw new KernelError('EOPNOTSUPP', 'unknown type');
        return { type: features.hwInfoType ?? 2, data: Uint8Array.from({ length: 40 }, (_, i) => i + 1) };
      },
      identityDomain: this.identity,
      blockedDomain: this.blocked,
      defaultDomainType: 'identity',
      userPasidTable: true,
      domainAllocPagingFlags: (_dev, flags, data) => {
        this.#may('alloc-paging');
        if (data !== null) throw new KernelError('EOPNOTSUPP', 'no data');
        return this.#domain(flags.nestParent ? 's2' : 's1', 'paging', flags);
      },
      ...(features.nestedOnParent === false
        ? {}
        : {
            domainAllocNested: (_dev: Device, parent: IommuDomain, flags: PagingFlags, data) => {
              this.#may('alloc-nested');
              if (flags.pasid) throw new KernelError('EOPNOTSUPP', 'no PASIDs');
              data.copy(MOCK.NESTED_DATA, 16, 16);
              return this.#domain('nested', 'nested', flags, parent);
            },
          }),
      probeDevice: () => {},
      releaseDevice: () => {},
      getResvRegions: () => this.resv,
      pageResponse: (dev: Device, fault: PageFault, code: PageResponseCode) =>
        void this.calls.push(`respond ${dev.name} g${fault.grpid} ${code}`),
      ...(features.viommu === false
        ? {}
        : {
            getViommuSize: (_dev: Device, type: number) =>
              type === MOCK.VIOMMU ? (features.viommuSize ?? VIOMMU_CORE_SIZE + 64) : 0,
            viommuInit: (viommu: IommufdViommu, parent: IommuDomain) => this.#viommuInit(viommu, parent),
          }),
    };
  }

  #viommuInit(viommu: IommufdViommu, parent: IommuDomain): void {
    this.#may('viommu-init');
    if ((parent as MockDomain).kindOf !== 's2') throw new KernelError('EINVAL', 'not a stage 2');
    if (this.features.setOps === false) return;
    const priv = { mmap: 0n };
    priv.mmap = viommu.callbacks.allocMmap(viommu, 0x1000_0000n, 0x1_0000n);
    viommu.priv = priv;
    this.live.add(priv);
    viommu.ops = this.#viommuOps;
  }

  #makeViommuOps(): ViommuOps {
    const { features } = this;
    return {
      destroy: (viommu) => {
        this.calls.push('viommu-destroy');
        viommu.callbacks.destroyMmap(viommu, (viommu.priv as { mmap: bigint }).mmap);
        this.live.delete(viommu.priv as object);
      },
      allocDomainNested: (viommu, flags, data) => {
        this.#may('alloc-nested');
        if (flags.pasid) throw new KernelError('EOPNOTSUPP', 'no PASIDs');
        data.copy(MOCK.NESTED_DATA, 16, 16);
        return this.#domain('nested', 'nested', flags, viommu.parent);
      },
      cacheInvalidate: (_viommu, array) => this.#invalidate(array),
      vdeviceSize: features.vdeviceSize ?? VDEVICE_CORE_SIZE,
      ...(features.vdeviceInit === false ? {} : { vdeviceInit: (vdev: IommufdVdevice) => this.#vdeviceInit(vdev) }),
      ...(features.hwQueues === false
        ? {}
        : {
            getHwQueueSize: (_viommu: IommufdViommu, type: number) =>
              type === MOCK.HW_QUEUE ? HW_QUEUE_CORE_SIZE + 16 : 0,
            hwQueueInitPhys: (queue: IommufdHwQueue, index: number, pa: bigint) => this.#queueInit(queue, index, pa),
          }),
    };
  }

  #vdeviceInit(vdev: IommufdVdevice): void {
    this.#may('vdevice-init');
    this.live.add(vdev);
    vdev.destroy = (gone) => {
      this.calls.push('vdevice-destroy');
      this.live.delete(gone);
    };
  }

  readonly #queues = new Map<IommufdViommu, IommufdHwQueue[]>();

  /** Queue n keeps queue n - 1 alive, as Tegra241 does. */
  #queueInit(queue: IommufdHwQueue, index: number, pa: bigint): void {
    this.#may('queue-init');
    const { viommu } = queue;
    const queues = this.#queues.get(viommu) ?? [];
    this.#queues.set(viommu, queues);
    if (queues[index] !== undefined) throw new KernelError('EEXIST', 'index in use');
    const before = queues[index - 1];
    if (index > 0 && before === undefined) throw new KernelError('EIO', 'index - 1 is missing');
    if (before !== undefined) viommu.callbacks.hwQueueDepend(queue, before);
    queues[index] = queue;
    this.live.add(queue);
    this.calls.push(`queue ${index} at 0x${pa.toString(16)}`);
    queue.destroy = () => {
      queues.splice(index, 1);
      this.live.delete(queue);
      if (before !== undefined) viommu.callbacks.hwQueueUndepend(queue, before);
    };
  }

  /** The device writes through its domain. False: refused. */
  dma(dev: Device, iova: bigint): bigint | undefined {
    let domain = this.rids.get(dev.name) as MockDomain | undefined;
    if (domain?.parent !== undefined) domain = domain.parent as MockDomain;
    for (const [at, leaf] of domain?.leaves ?? [])
      if (iova >= at && iova < at + leaf.size) {
        if (!leaf.write) return undefined;
        if (domain?.tracking) leaf.dirty = true;
        return leaf.pa + (iova - at);
      }
    return undefined;
  }
}

/** Bytes of a page, as a bigint. */
export const PAGE_BYTES = PAGE;
