/** A machine with a small CMDQV, the driver, iommufd and a VM; and eyes on the CMDQV's registers. */
import * as spec from '../../../spec/tegra241.ts';
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE, IOAS_MAP_FLAGS } from '../../../spec/uapi.ts';
import {
  ArmSmmuDriver,
  type DriverExtras,
  type DriverSettings,
  IommuCore,
  LocalKernel,
  type OwnershipNote,
  Tegra241Cmdqv,
} from '../../../src/driver/index.ts';
import {
  type Announcement,
  type Bus,
  type CmdqvConfig,
  GRACE,
  grace,
  type Machine,
  type ScheduleConfig,
  SMALL_PARAM,
  type SmmuConfig,
} from '../../../src/hw/index.ts';
import { IommufdContext, VfioDevice } from '../../../src/iommufd/index.ts';
import { DemoVm } from '../../../src/lab/demo/vm.ts';

export interface LabOptions {
  readonly cmdqv?: CmdqvConfig;
  readonly settings?: DriverSettings;
  readonly extras?: DriverExtras;
  readonly schedule?: ScheduleConfig;
  readonly pollTurns?: number;
  /** What the driver sees of the machine's bus. */
  readonly bus?: (bus: Bus) => Bus;
  readonly smmus?: number;
  readonly config?: SmmuConfig;
}

export const GPA = 0x8000_0000n;
export const VM_BYTES = 0x40_0000;

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** Name of a register by offset, written with the numbers of the reference: tables of sections 2, 3, 5 and 6. */
export function nameOf(offset: number): string {
  if (offset >= 0x30000) {
    const v = (offset - 0x30000) >> 17;
    const page1 = ((offset - 0x30000) >> 16) & 1;
    const l = (offset & 0xffff) >> 7;
    const at = offset & 0x7f;
    const page0Names: Record<number, string> = {
      0: 'CONS',
      4: 'PROD',
      8: 'CONFIG',
      12: 'STATUS',
      16: 'GERROR',
      20: 'GERRORN',
    };
    const page1Names: Record<number, string> = { 0: 'BASE', 8: 'CONS_INDX_BASE' };
    return `L${v}.${l}.${(page1 === 1 ? page1Names : page0Names)[at] ?? hex(at)}`;
  }
  if (offset >= 0x1000 && offset < 0x5000) {
    const v = (offset - 0x1000) >> 8;
    const at = offset & 0xff;
    if (at >= 0x40 && at < 0x80) return `V${v}.SID_MATCH${(at - 0x40) / 4}`;
    if (at >= 0x80 && at < 0xc0) return `V${v}.SID_REPLACE${(at - 0x80) / 4}`;
    if (at >= 0xc0) return `V${v}.LVCMDQ_ERR_MAP${(at - 0xc0) / 4}`;
    return `V${v}.${{ 0: 'CONFIG', 4: 'STATUS' }[at] ?? hex(at)}`;
  }
  if (offset >= 0x200 && offset < 0x400) return `ALLOC${(offset - 0x200) / 4}`;
  if (offset === 0x14 || offset === 0x18) return `VINTF_ERR_MAP${(offset - 0x14) / 4}`;
  if (offset >= 0x24 && offset < 0x34) return `CMDQ_ERR_MAP${(offset - 0x24) / 4}`;
  return { 0: 'CONFIG', 4: 'PARAM', 8: 'STATUS' }[offset] ?? hex(offset);
}

/** See the module comment. The first SMMU, `smmu0`, is looked at. */
export class Lab {
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  readonly driver: ArmSmmuDriver;
  readonly core: IommuCore;
  readonly notes: OwnershipNote[] = [];
  readonly violations: string[] = [];
  /** Register writes, CMD_SYNCs of the SMMU's own queue ('SYNC'), and reads where asked for. */
  log: string[] = [];
  reads = false;
  /** Commands executed: queue and words. */
  commands: { queue: string; words: Uint32Array }[] = [];

  constructor(options: LabOptions = {}) {
    this.machine = grace({
      smmus: options.smmus ?? 1,
      cmdqv: options.cmdqv ?? { param: SMALL_PARAM },
      observer: (act) => this.#observe(act),
      ...(options.config === undefined ? {} : { config: options.config }),
      ...(options.schedule === undefined ? {} : { schedule: options.schedule }),
    });
    const { bus } = this.machine;
    this.kernel = new LocalKernel(options.bus?.(bus) ?? bus, { pollTurns: options.pollTurns ?? 200 });
    this.kernel.onNote((note) => this.notes.push(note));
    this.driver = new ArmSmmuDriver(this.kernel, options.settings, options.extras);
    this.core = new IommuCore(this.kernel);
  }

  #observe(act: Announcement): void {
    if (act.kind === 'cmdqv-violation') this.violations.push(`${act.rule} ${act.what}`);
    if (act.kind === 'cmdqv-write' && act.smmu === 'smmu0') {
      const value = (BigInt(act.hi) << 32n) | BigInt(act.lo);
      this.log.push(`${nameOf(act.offset)}=${hex(value)}`);
    }
    if (act.kind === 'cmdqv-read' && act.smmu === 'smmu0' && this.reads)
      this.log.push(`${nameOf(act.offset)}?${act.size === 8 ? '64' : ''}`);
    if (act.kind !== 'command' || act.smmu !== 'smmu0') return;
    this.commands.push({ queue: act.queue, words: act.words.slice() });
    if (act.queue === 'cmdq' && ((act.words[0] ?? 0) & 0xff) === 0x46) this.log.push('SYNC');
  }

  /** The log since the last call. */
  take(): string[] {
    const { log } = this;
    this.log = [];
    return log;
  }

  boot(): this {
    const { smmus, devices } = this.machine.firmware;
    for (const node of smmus)
      this.core.registerIommu(
        this.driver.probe(node),
        devices.filter((dev) => dev.smmu === node.name),
      );
    this.take();
    return this;
  }

  get impl(): Tegra241Cmdqv {
    const { impl } = this.driver.smmu('smmu0');
    if (impl instanceof Tegra241Cmdqv) return impl;
    throw new Error('smmu0 has no CMDQV');
  }

  /** A register of the first CMDQV, without a moment for hardware. */
  peek(offset: number): number {
    return this.machine.cmdqv('smmu0').mmioRead32(offset);
  }

  vintfConfig(v: number): number {
    return this.peek(spec.vintfBlock(v));
  }

  /** Errno of a call that must fail. */
  errno(body: () => unknown): string {
    try {
      body();
    } catch (error) {
      return (error as { errno?: string }).errno ?? String(error);
    }
    return 'no error';
  }
}

/** A VM over iommufd: its memory mapped 1:1 from GPA, an S2, devices bound. */
export class Vm {
  readonly lab: Lab;
  readonly ram: DemoVm;
  readonly ctx: IommufdContext;
  readonly ioas: number;
  readonly s2: number;
  readonly devices: { readonly vfio: VfioDevice; readonly id: number }[];

  /** @param names devices; by default the first behind smmu0 */
  constructor(lab: Lab, names: readonly string[] = ['0000:00:01.0']) {
    this.lab = lab;
    this.ram = new DemoVm(lab.kernel, GPA, VM_BYTES);
    this.ctx = new IommufdContext({ kernel: lab.kernel, process: { memory: this.ram.memory } });
    this.devices = names.map((name) => {
      const dev = lab.core.device(name);
      if (dev === undefined) throw new Error(`no device ${name}`);
      const endpoint = lab.machine.endpoint(name);
      const vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
      return { vfio, id: vfio.bind(this.ctx) };
    });
    this.ioas = this.ctx.ioasAlloc().out_ioas_id;
    const flags = IOAS_MAP_FLAGS.FIXED_IOVA | IOAS_MAP_FLAGS.READABLE | IOAS_MAP_FLAGS.WRITEABLE;
    this.ctx.ioasMap({ ioas_id: this.ioas, flags, user_va: this.ram.userVa, length: BigInt(VM_BYTES), iova: GPA });
    this.s2 = this.ctx.hwptAlloc({
      dev_id: this.id(),
      pt_id: this.ioas,
      flags: HWPT_ALLOC_FLAGS.NEST_PARENT,
    }).out_hwpt_id;
  }

  id(n = 0): number {
    return this.devices[n]?.id ?? -1;
  }

  /** IOMMU_VIOMMU_ALLOC of type TEGRA241_CMDQV (2). */
  viommu(n = 0): { readonly id: number; readonly offset: bigint; readonly length: bigint } {
    const data = new Uint8Array(16);
    const { out_viommu_id } = this.ctx.viommuAlloc({
      type: 2,
      dev_id: this.id(n),
      hwpt_id: this.s2,
      data_len: data.length,
      data_uptr: data,
    });
    const view = new DataView(data.buffer);
    return { id: out_viommu_id, offset: view.getBigUint64(0, true), length: view.getBigUint64(8, true) };
  }

  vdevice(viommu: number, virt_id: bigint, n = 0): number {
    return this.ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: this.id(n), virt_id }).out_vdevice_id;
  }

  /** IOMMU_HW_QUEUE_ALLOC of type TEGRA241_CMDQV (1). */
  queue(viommu: number, index: number, iova: bigint, length: bigint, type = 1): number {
    return this.ctx.hwQueueAlloc({ viommu_id: viommu, type, index, nesting_parent_iova: iova, length }).out_hw_queue_id;
  }

  nested(viommu: number, vste: Uint8Array, n = 0): number {
    return this.ctx.hwptAlloc({
      dev_id: this.id(n),
      pt_id: viommu,
      data_type: HWPT_DATA_TYPE.ARM_SMMUV3,
      data_len: vste.length,
      data_uptr: vste,
    }).out_hwpt_id;
  }

  /** Pages of guest memory in a row, aligned to their size; the first page's GPA. */
  pages(count: number): bigint {
    let first = this.ram.page();
    while ((first - GPA) % (4096n * BigInt(count)) !== 0n) first = this.ram.page();
    for (let i = 1; i < count; i++) this.ram.page();
    return first;
  }
}

/** Base of the first CMDQV. */
export const CMDQV = GRACE.cmdqv;
