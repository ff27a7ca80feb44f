/** A context on the mock driver, with devices and user memory. */
import { type Device, IommuCore } from '../../src/driver/iommu/index.ts';
import { KernelError } from '../../src/driver/kernel.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { createMachine, type DeviceNode, minimal, VIRT } from '../../src/hw/index.ts';
import { type ContextOptions, IommufdContext, IommufdError, type Process } from '../../src/iommufd/index.ts';
import { AddressSpace, PageList } from '../../src/lab/vmm/address-space.ts';
import { MockDriver, type MockFeatures } from './mock-driver.ts';

/** Where the process has 16 MiB of read-write memory, and 64 KiB read-only. */
export const RW = 0x4000_0000_00n;
export const RO = 0x4100_0000_00n;
export const NOTHING = 0x5000_0000_00n;
export const FILE = 7;

export interface LabOptions extends MockFeatures {
  readonly context?: Omit<ContextOptions, 'kernel'>;
  /** Physically contiguous user memory. Default false: no page follows the one before it. */
  readonly contiguous?: boolean;
  readonly aliases?: boolean;
  readonly ssidBits?: number;
  /** RLIMIT_MEMLOCK, RLIMIT_NOFILE - 1, capabilities. */
  readonly memlockPages?: number;
  readonly maxFd?: number;
  readonly incapable?: boolean;
  /** {@link Lab.mapped} also maps 8 bytes. */
  readonly unaligned?: boolean;
}

export class Lab {
  readonly kernel: LocalKernel;
  readonly core: IommuCore;
  readonly driver: MockDriver;
  readonly space = new AddressSpace();
  readonly a: Device;
  readonly b: Device;
  /** Behind another instance. */
  readonly c: Device;
  readonly ctx: IommufdContext;
  readonly rw: PageList;
  readonly file: PageList;
  readonly options: LabOptions;

  constructor(options: LabOptions = {}) {
    this.options = options;
    const machine = createMachine({ smmus: [{ config: minimal, base: VIRT.smmu }], ram: [VIRT.ram] });
    this.kernel = new LocalKernel(machine.bus, { pollTurns: 10 });
    this.core = new IommuCore(this.kernel);
    this.driver = new MockDriver(this.kernel, options);
    const [a, b] = this.core.registerIommu(this.driver.iommu, [this.#node('a'), this.#node('b')]);
    const [c] = this.core.registerIommu(this.driver.other, [this.#node('c')]);
    if (a === undefined || b === undefined || c === undefined) throw new Error('no devices');
    [this.a, this.b, this.c] = [a, b, c];
    this.rw = this.#pages(4096);
    this.file = this.#pages(64);
    this.space.map({ va: RW, pages: this.rw, writable: true });
    this.space.map({ va: RO, pages: this.#pages(16), writable: false });
    this.ctx = this.open();
  }

  #node(name: string): DeviceNode {
    const shared = this.options.aliases && name !== 'c';
    return {
      name,
      smmu: 'mock',
      streamIds: [name.charCodeAt(0)],
      canWbs: true,
      canStall: true,
      ssidBits: this.options.ssidBits ?? 0,
      ...(shared ? { groupAlias: 'ab' } : {}),
    };
  }

  #pages(count: number): PageList {
    const first = this.kernel.allocPages('user', count * 4096);
    const at = (i: number): bigint => first + BigInt(this.options.contiguous ? i : count - 1 - i) * 4096n;
    return new PageList(
      this.kernel.bus,
      Array.from({ length: count }, (_, i) => at(i)),
    );
  }

  /** One more context of the same process. */
  open(): IommufdContext {
    const { memlockPages, maxFd, incapable } = this.options;
    const process: Process = {
      memory: this.space,
      file: (fd: number) => (fd === FILE ? this.file : undefined),
      capable: (what) => (what === 'ipc-lock' ? memlockPages === undefined : incapable !== true),
      ...(memlockPages === undefined ? {} : { memlockPages }),
      ...(maxFd === undefined ? {} : { maxFd }),
    };
    return new IommufdContext({ kernel: this.kernel, process, ...this.options.context });
  }

  /** An IOAS with 1 MiB mapped at 0x80000000, read-write. */
  mapped(length = 0x10_0000n): number {
    const { out_ioas_id: ioas } = this.ctx.ioasAlloc();
    this.ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length, iova: 0x8000_0000n });
    if (this.options.unaligned) this.ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 8n, iova: 0n });
    return ioas;
  }

  /** A device bound, an IOAS, a nesting parent, a vIOMMU. */
  nested(): { dev: number; ioas: number; parent: number; viommu: number } {
    const dev = this.ctx.bind(this.a).id;
    const ioas = this.mapped();
    const parent = this.ctx.hwptAlloc({ flags: 1, dev_id: dev, pt_id: ioas }).out_hwpt_id;
    const viommu = this.ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: parent }).out_viommu_id;
    return { dev, ioas, parent, viommu };
  }
}

/** The errno that a call fails with; 'ok' if it does not. */
export function errno(call: () => unknown): string {
  try {
    call();
    return 'ok';
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
}

/** The error of a call that must fail as an ioctl. */
export function failure(call: () => unknown): IommufdError {
  try {
    call();
  } catch (error) {
    if (error instanceof IommufdError) return error;
    throw error;
  }
  throw new Error('the call did not fail');
}

/** A vSTE that the mock takes. */
export const VSTE = new Uint8Array(16);

/** The device object behind an id. */
export const users = (ctx: IommufdContext, id: number): number => ctx.objects.peek(id)?.users ?? -1;
