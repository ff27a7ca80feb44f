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
import { IommufdContext, type IommufdParts, type UserMemory, VfioDevice } from '../iommufd/index.ts';
import { FIRST_DATA_PAGE, Guest } from './guest.ts';
import { CaseError, type LabConfig, labMachine } from './lab-config.ts';
import { LabHypervisor, TENANT, VmidLedger } from './ledger.ts';
import type { DmaOutcome } from './operation.ts';
import { Process } from './process.ts';
import { Processes } from './processes.ts';
import { StreamTables } from './streams.ts';
import { Windows } from './windows.ts';

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
  /** Replaces parts of iommufd. */
  readonly iommufdParts?: IommufdParts;
  readonly kernel?: LocalKernelOptions;
  /** Called with the kernel before anything runs on it: to listen, to plan failures, to act at points. */
  readonly withKernel?: (kernel: LocalKernel, machine: Machine) => void;
  readonly observer?: Observer;
  /** Called when a lab is complete, and again after each kexec. */
  readonly ready?: (lab: Lab) => void;
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

/** A vEVENTQ or fault queue whose descriptor is open. */
export interface OpenQueue {
  readonly fd: number;
  readonly ctx: IommufdContext;
  /** Fault groups that were read and not answered, oldest first. */
  readonly cookies: number[];
  /** Its events are errors of VCMDQs. */
  readonly cmdqv?: boolean;
}

/** An access that stalled, and how it stands. */
export interface StalledAccess {
  readonly dev: string;
  readonly page: number;
  readonly write: boolean;
  readonly pasid: number | undefined;
  /** Its end; undefined: it still waits. */
  end?: DmaOutcome;
}

/** A kernel and what runs on it: what a kexec replaces. */
interface System {
  readonly driver: ArmSmmuDriver | null;
  readonly ops: IommuOps;
  readonly core: IommuCore;
  readonly hypervisor: LabHypervisor | null;
  readonly ctx: IommufdContext;
  readonly contexts: readonly IommufdContext[];
  readonly devices: readonly LabDevice[];
  readonly guests: readonly Guest[];
  readonly processes: Processes;
  readonly baseline: { readonly pages: ReadonlySet<bigint>; readonly vmids: readonly string[] };
}

/** See the module comment. */
export class Lab {
  readonly config: LabConfig;
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  /** Who owns which VMID, as the driver announced it. */
  readonly ledger: VmidLedger;
  /** Event queues with an open descriptor, by name. */
  readonly queues = new Map<string, OpenQueue>();
  /** Accesses that stalled and nobody has asked after since they ended, oldest first. */
  readonly stalled: StalledAccess[] = [];
  /** What VMMs have mapped into VMs. */
  readonly windows: Windows;
  readonly #names = new Map<string, Handle>();
  readonly #extras: LabExtras;
  #system: System;
  #boots = 0;
  /** VMIDs of other tenants, by SMMU. */
  readonly #tenants = new Map<string, number[]>();
  #streams: StreamTables | undefined;

  /** @throws CaseError for a topology that is too large */
  constructor(config: LabConfig = {}, extras: LabExtras = {}) {
    this.config = config;
    this.machine = labMachine(config, extras.observer);
    this.windows = new Windows(this.machine);
    this.kernel = new LocalKernel(this.machine.bus, extras.kernel);
    this.ledger = new VmidLedger(this.kernel);
    extras.withKernel?.(this.kernel, this.machine);
    this.#extras = extras;
    this.#system = this.#boot('reset', true);
    extras.ready?.(this);
  }

  /** The shipped driver; null if another one was handed in. */
  get driver(): ArmSmmuDriver | null {
    return this.#system.driver;
  }

  get ops(): IommuOps {
    return this.#system.ops;
  }

  get core(): IommuCore {
    return this.#system.core;
  }

  /** The open /dev/iommu of the first VM, and of all if they share one. */
  get ctx(): IommufdContext {
    return this.#system.ctx;
  }

  /** One, or one for each VM. */
  get contexts(): readonly IommufdContext[] {
    return this.#system.contexts;
  }

  get devices(): readonly LabDevice[] {
    return this.#system.devices;
  }

  get guests(): readonly Guest[] {
    return this.#system.guests;
  }

  /** What was taken when the driver had started and nobody had bound anything: what remains after {@link close}. */
  get baseline(): { readonly pages: ReadonlySet<bigint>; readonly vmids: readonly string[] } {
    return this.#system.baseline;
  }

  /** Processes of the host, and bonds of devices with them. */
  get processes(): Processes {
    return this.#system.processes;
  }

  /** The hypervisor that owns the VMIDs; null in other policies. */
  get hypervisor(): LabHypervisor | null {
    return this.#system.hypervisor;
  }

  /** Kernels that have run on the machine before this one. */
  get boots(): number {
    return this.#boots;
  }

  /** Everything above the hardware, up to a VM's memory in its IO address space. @param bind bind the devices too */
  #boot(adopt: DriverSettings['adopt'] & string, bind: boolean): System {
    const { config, machine, kernel } = this;
    const extras = this.#extras;
    const { firmware } = machine;
    const hypervisor =
      config.policy === 'external'
        ? new LabHypervisor(kernel, (smmu) => 2 ** machine.smmu(smmu).caps.vmidBits - 1)
        : null;
    const driver = extras.driver === undefined ? this.#shippedDriver(extras, hypervisor, adopt) : null;
    const ops = driver ?? foreignOps(extras.driver, kernel, firmware);
    const core = new IommuCore(kernel, extras.coreParts);
    for (const node of firmware.smmus) {
      const iommu: IommuDevice = driver?.probe(node) ?? { name: node.name, ops, live: true };
      core.registerIommu(
        iommu,
        firmware.devices.filter((dev) => dev.smmu === node.name),
      );
    }
    const guests = Array.from(
      { length: config.vms ?? 2 },
      (_, i) => new Guest(`vm${i}`, i, kernel, machine, this.#boots),
    );
    const boots = this.#boots;
    const processes = new Processes(core, config.processes ?? 0, (i) => new Process(i, kernel, boots));
    const baseline = { pages: new Set(kernel.pagesTaken), vmids: this.ledger.list() };
    const count = config.contexts === 'per-vm' ? guests.length : 1;
    const options = {
      kernel,
      process: {
        memory: userMemory(guests),
        file: (fd: number) => guests.find((guest) => guest.fd === fd)?.file,
      },
      ...(config.iommuHold === undefined ? {} : { iommuHold: config.iommuHold }),
      ...(extras.iommufdParts === undefined ? {} : { parts: extras.iommufdParts }),
    };
    const ctx = new IommufdContext(options);
    const contexts = [ctx, ...Array.from({ length: count - 1 }, () => new IommufdContext(options))];
    const contextOf = (i: number): IommufdContext => contexts[i % contexts.length] ?? ctx;
    const devices = machine.endpoints.map((endpoint, i) => labDevice(endpoint, core, contextOf(i)));
    if (bind) for (const { vfio, ctx: to } of devices) vfio.bind(to);
    for (const [i, guest] of guests.entries()) this.#addSpace(`a${i}`, guest, contextOf(i));
    return { driver, ops, core, hypervisor, ctx, contexts, devices, guests, processes, baseline };
  }

  /**
   * Another kernel takes the machine over: driver, core and iommufd are new, the VMs are others, and no device is bound.
   * The one before was shut down in order, or hardware is on and its Stream table lives.
   * @returns false if the driver is not the shipped one, which does not know how
   */
  kexec(how: 'orderly' | 'kexec' | 'kdump'): boolean {
    if (this.driver === null) return false;
    if (how === 'orderly') for (const { name } of this.driver.smmus) this.driver.shutdown(name);
    this.kernel.handOver();
    this.windows.forget();
    this.queues.clear();
    this.#names.clear();
    this.#tenants.clear();
    this.kernel.announce({ what: 'driver', act: 'give', where: '', id: 0n, owner: how });
    this.#boots++;
    this.#system = this.#boot(how === 'orderly' ? 'reset' : how, false);
    this.#extras.ready?.(this);
    return true;
  }

  /**
   * Another tenant of the host takes VMIDs of an SMMU until `left` are free, or gives them back until so many are.
   * @returns false if the driver is not the shipped one
   */
  tenants(smmu: string, left: number): boolean {
    const found = this.driver?.smmu(smmu);
    if (found === undefined) return false;
    const taken = this.#tenants.get(smmu) ?? [];
    this.#tenants.set(smmu, taken);
    const used = (): number => this.hypervisor?.used(smmu) ?? found.vmids.used;
    while (found.vmids.max - used() > left) {
      const tenant = `${TENANT} ${taken.length + 1}`;
      taken.push(this.hypervisor?.pinVmid(tenant, smmu) ?? found.vmids.alloc(tenant));
      if (this.hypervisor === null) this.#announceTenant('alloc', smmu, taken.at(-1) ?? 0, tenant);
    }
    while (taken.length > 0 && found.vmids.max - used() < left) {
      const tenant = `${TENANT} ${taken.length}`;
      const vmid = taken.pop() ?? 0;
      if (this.hypervisor !== null) this.hypervisor.unpinVmid(tenant, smmu);
      else {
        this.#announceTenant('free', smmu, vmid, tenant);
        found.vmids.free(vmid, tenant);
      }
    }
    return true;
  }

  #announceTenant(act: 'alloc' | 'free', where: string, vmid: number, owner: string): void {
    this.kernel.announce({ what: 'vmid', act, where, id: BigInt(vmid), owner });
  }

  /** The Stream tables in memory, watched from the first use on. */
  get streams(): StreamTables {
    this.#streams ??= new StreamTables(this.machine);
    return this.#streams;
  }

  #shippedDriver(
    extras: LabExtras,
    hypervisor: LabHypervisor | null,
    adopt: DriverSettings['adopt'] & string,
  ): ArmSmmuDriver {
    const vmidPolicy = this.config.policy ?? 'at-attach';
    const { defaultDomain = 'dma', quirks = [], nestedWithoutViommu = false, entryNum = 'kernel' } = this.config;
    const settings = { defaultDomain, quirks, nestedWithoutViommu, entryNum, adopt, ...extras.settings, vmidPolicy };
    return new ArmSmmuDriver(
      this.kernel,
      hypervisor === null ? settings : { ...settings, hypervisor },
      extras.parts === undefined ? {} : { parts: extras.parts },
    );
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

  /** The name of an object; undefined: it has none. */
  nameOf(id: number, ctx: IommufdContext): string | undefined {
    for (const [name, handle] of this.#names) if (handle.id === id && handle.ctx === ctx) return name;
    return undefined;
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

  /**
   * Closes every device and the context: what a VMM's exit does. Where a vIOMMU counts on the device that made it
   * (`users`), the VMM destroys what it has made before: if it is killed instead, the device cannot be unbound, and with
   * the file that it keeps everything stays for good.
   */
  close(): void {
    // A failure that was planned for a step that never came is none.
    this.kernel.clearFailures();
    for (const { name, suspended } of this.driver?.smmus ?? []) if (suspended) this.driver?.resume(name);
    this.windows.closeAll();
    this.processes.close();
    if (this.config.iommuHold === 'users') this.#destroyAll();
    for (const { vfio } of this.devices) vfio.close();
    this.#closeQueues();
    for (const ctx of this.contexts) if (!ctx.closed) ctx.close();
    for (const smmu of [...this.#tenants.keys()]) this.tenants(smmu, Number.POSITIVE_INFINITY);
    this.#names.clear();
  }

  #closeQueues(): void {
    for (const { ctx, fd } of this.queues.values()) ctx.closeFd(fd);
    this.queues.clear();
  }

  /** DESTROY of everything that a VMM can destroy, users before what they use; devices stay bound. */
  #destroyAll(): void {
    this.#closeQueues();
    for (const { vfio } of this.devices) vfio.detachAll();
    for (const ctx of this.contexts)
      for (let progress = true; progress; ) {
        progress = false;
        for (const { id, users } of ctx.objects.list()) {
          // Destroyed meanwhile with another one, or in use.
          if (users !== 1 || ctx.objects.peek(id) === undefined) continue;
          ctx.destroy({ id });
          progress = true;
        }
      }
  }
}

/** A device as the core knows it now; not bound. */
function labDevice(endpoint: Endpoint, core: IommuCore, ctx: IommufdContext): LabDevice {
  const { name } = endpoint;
  const dev = core.device(name);
  if (dev === undefined) throw new Error(`the core does not know ${name}`);
  const vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
  return { ctx, name, smmu: dev.iommu.name, sid: endpoint.streamIds[0] ?? 0, dev, endpoint, vfio };
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
