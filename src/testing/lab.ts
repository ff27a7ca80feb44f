/**
 * The whole stack on one machine, put together from plain data: hardware, kernel, driver, iommu core, iommufd, and
 * virtual machines with memory of their own. Tests, `smmulab check`, scenarios and the demonstration all use this one.
 *
 * Everything has a short name, so that what a sequence of operations says does not depend on ids: devices `d0`, `d1` ...
 * (so many behind each SMMU), SMMUs `smmu0` ..., VMs `vm0` ..., the IO address space of each VM `a0` ...; what operations
 * make is named by them.
 */
import { ArmSmmuDriver, type DriverExtras, type DriverSettings } from '../driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../driver/iommu/core.ts';
import type { Device, IommuDevice, IommuOps } from '../driver/iommu/ops.ts';
import type { CoreParts } from '../driver/iommu/parts.ts';
import type { Kernel } from '../driver/kernel.ts';
import { LocalKernel, type LocalKernelOptions } from '../driver/local-kernel.ts';
import type { Firmware } from '../hw/bus.ts';
import type { Endpoint } from '../hw/endpoint.ts';
import type { Machine } from '../hw/machine.ts';
import type { Observer } from '../hw/observer.ts';
import { IommufdContext, type UserMemory, VfioDevice } from '../iommufd/index.ts';
import { FIRST_DATA_PAGE, Guest } from './guest.ts';
import { CaseError, type LabConfig, labMachine } from './lab-config.ts';
import { LabHypervisor, VmidLedger } from './ledger.ts';
import { StreamTables } from './streams.ts';

export { CaseError, LAB_LIMITS, LAB_PRESETS, type LabConfig, type LabPreset, POLICIES } from './lab-config.ts';

/**
 * Makes an IOMMU driver of one's own (the default export of a `--driver` module). It gets the kernel, through which it
 * reaches everything outside itself, and what firmware says of the machine; it brings its IOMMUs up and returns the
 * operations that serve all devices.
 */
export type DriverFactory = (kernel: Kernel, firmware: Firmware) => IommuOps;

/** What is not plain data: other drivers, wrapped parts, eyes. */
export interface LabExtras {
  /** A driver instead of the shipped one. */
  readonly driver?: DriverFactory;
  /** Further settings of the shipped driver (quirks, entryNum ...). */
  readonly settings?: DriverSettings;
  /** Wraps parts of the shipped driver. */
  readonly parts?: DriverExtras['parts'];
  /** Replaces parts of the iommu core. */
  readonly coreParts?: CoreParts;
  readonly kernel?: LocalKernelOptions;
  /** Called with the kernel before anything runs on it: to listen, to plan failures, to act at points. */
  readonly withKernel?: (kernel: LocalKernel, machine: Machine) => void;
  readonly observer?: Observer;
}

/** A device as tests hold it: where it is, its DMA, and VFIO's view of it. */
export interface LabDevice {
  readonly name: string;
  /** Name of its SMMU. */
  readonly smmu: string;
  readonly sid: number;
  readonly dev: Device;
  readonly endpoint: Endpoint;
  readonly vfio: VfioDevice;
  /** What it is bound to. */
  readonly ctx: IommufdContext;
}

/** What a name stands for. */
export interface Handle {
  readonly id: number;
  readonly ctx: IommufdContext;
}

/** See the module comment. */
export class Lab {
  readonly config: LabConfig;
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  /** The shipped driver; null if another one was handed in. */
  readonly driver: ArmSmmuDriver | null;
  readonly ops: IommuOps;
  readonly core: IommuCore;
  /** The open /dev/iommu of the first VM, and of all if they share one. */
  readonly ctx: IommufdContext;
  /** One, or one for each VM. */
  readonly contexts: readonly IommufdContext[];
  readonly devices: readonly LabDevice[];
  readonly guests: readonly Guest[];
  /** Who owns which VMID, as the driver announced it. */
  readonly ledger: VmidLedger;
  /** What was taken when the driver had started and nobody had bound anything: what remains after {@link close}. */
  readonly baseline: { readonly pages: ReadonlySet<bigint>; readonly vmids: readonly string[] };
  readonly #names = new Map<string, Handle>();
  #streams: StreamTables | undefined;

  /** @throws CaseError for a topology that is too large */
  constructor(config: LabConfig = {}, extras: LabExtras = {}) {
    this.config = config;
    this.machine = labMachine(config, extras.observer);
    this.kernel = new LocalKernel(this.machine.bus, extras.kernel);
    this.ledger = new VmidLedger(this.kernel);
    extras.withKernel?.(this.kernel, this.machine);
    const { firmware } = this.machine;
    this.driver = extras.driver === undefined ? this.#shippedDriver(extras) : null;
    this.ops = this.driver ?? foreignOps(extras.driver, this.kernel, firmware);
    this.core = new IommuCore(this.kernel, extras.coreParts);
    for (const node of firmware.smmus) {
      const iommu: IommuDevice = this.driver?.probe(node) ?? { name: node.name, ops: this.ops, live: true };
      const behind = firmware.devices.filter((dev) => dev.smmu === node.name);
      this.core.registerIommu(iommu, behind);
    }
    this.guests = Array.from({ length: config.vms ?? 2 }, (_, i) => new Guest(`vm${i}`, i, this.kernel, this.machine));
    this.baseline = { pages: new Set(this.kernel.pagesTaken), vmids: this.ledger.list() };
    const count = config.contexts === 'per-vm' ? this.guests.length : 1;
    const options = {
      kernel: this.kernel,
      process: { memory: userMemory(this.guests) },
      ...(config.iommuHold === undefined ? {} : { iommuHold: config.iommuHold }),
    };
    this.ctx = new IommufdContext(options);
    this.contexts = [this.ctx, ...Array.from({ length: count - 1 }, () => new IommufdContext(options))];
    this.devices = this.machine.endpoints.map((endpoint, i) => this.#device(endpoint, this.contextOf(i)));
    for (const [i, guest] of this.guests.entries()) this.#addSpace(`a${i}`, guest, this.contextOf(i));
  }

  /** The Stream tables in memory, watched from the first use on. */
  get streams(): StreamTables {
    this.#streams ??= new StreamTables(this.machine);
    return this.#streams;
  }

  #shippedDriver(extras: LabExtras): ArmSmmuDriver {
    const vmidPolicy = this.config.policy ?? 'at-attach';
    const { defaultDomain = 'dma', quirks = [], nestedWithoutViommu = false } = this.config;
    const settings = { defaultDomain, quirks, nestedWithoutViommu, ...extras.settings, vmidPolicy };
    const hypervisor = vmidPolicy === 'external' ? { hypervisor: new LabHypervisor(this.kernel) } : {};
    return new ArmSmmuDriver(
      this.kernel,
      { ...settings, ...hypervisor },
      extras.parts === undefined ? {} : { parts: extras.parts },
    );
  }

  #device(endpoint: Endpoint, ctx: IommufdContext): LabDevice {
    const { name } = endpoint;
    const dev = this.core.device(name);
    if (dev === undefined) throw new Error(`the core does not know ${name}`);
    const vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
    vfio.bind(ctx);
    return { ctx, name, smmu: dev.iommu.name, sid: endpoint.streamIds[0] ?? 0, dev, endpoint, vfio };
  }

  /** The IO address space of a VM, its memory mapped at `GUEST_BASE`: tables in one piece, data page by page. */
  #addSpace(name: string, guest: Guest, ctx: IommufdContext): void {
    const id = ctx.ioasAlloc().out_ioas_id;
    this.name(name, id, ctx);
    ctx.ioasMap(guest.mapping(id, 0, 0, FIRST_DATA_PAGE));
    for (let page = FIRST_DATA_PAGE; page < guest.pages; page++) ctx.ioasMap(guest.mapping(id, page, page, 1));
  }

  /** The context of the VM, or the device, of a number. */
  contextOf(index: number): IommufdContext {
    return this.contexts[index % this.contexts.length] ?? this.ctx;
  }

  /** Gives an iommufd object a name. @throws RangeError if it is taken */
  name(name: string, id: number, ctx: IommufdContext = this.ctx): void {
    if (this.#names.has(name)) throw new RangeError(`${name} is taken`);
    this.#names.set(name, { id, ctx });
  }

  /** Id and context behind a name; undefined: nothing has it. */
  handle(name: string): Handle | undefined {
    return this.#names.get(name);
  }

  /** Names in use, in the order in which they were given. */
  get names(): string[] {
    return [...this.#names.keys()];
  }

  /** The object of a name is gone. */
  unname(name: string): void {
    this.#names.delete(name);
  }

  /** Forgets the names of objects that went with another one. */
  forgetDead(): void {
    for (const [name, { id, ctx }] of this.#names) if (ctx.objects.peek(id) === undefined) this.#names.delete(name);
  }

  /** A device by name. @throws CaseError for an unknown one */
  device(name: string): LabDevice {
    const found = this.devices.find((one) => one.name === name);
    if (found === undefined) throw new CaseError(`no device ${name}; there are d0 to d${this.devices.length - 1}`);
    return found;
  }

  /** A VM by name. @throws CaseError for an unknown one */
  guest(name: string): Guest {
    const found = this.guests.find((one) => one.name === name);
    if (found === undefined) throw new CaseError(`no VM ${name}; there are vm0 to vm${this.guests.length - 1}`);
    return found;
  }

  /** Closes every device and the context: what a VMM's exit does. */
  close(): void {
    for (const { vfio } of this.devices) vfio.close();
    for (const ctx of this.contexts) if (!ctx.closed) ctx.close();
    this.#names.clear();
  }
}

function foreignOps(factory: DriverFactory | undefined, kernel: LocalKernel, firmware: Firmware): IommuOps {
  const ops = factory?.(kernel, firmware);
  if (ops === undefined) throw new TypeError('the driver factory returned no IommuOps');
  return ops;
}

/** The memory of the process that runs all VMs: each VM's memory at {@link Guest.userVa}. */
function userMemory(guests: readonly Guest[]): UserMemory {
  const at = (va: bigint): Guest | undefined => guests.find((guest) => guest.holds(va));
  return {
    read: (va, length) => guestAt(at(va), va).read(va, length),
    write: (va, bytes) => guestAt(at(va), va).write(va, bytes),
    lookup: (va, maxPages) => at(va)?.lookup(va, maxPages),
  };
}

function guestAt(guest: Guest | undefined, va: bigint): Guest {
  if (guest === undefined) throw new RangeError(`no VM has memory at user address 0x${va.toString(16)}`);
  return guest;
}
