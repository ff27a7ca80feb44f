/**
 * The whole stack on one machine, put together from plain data: hardware, kernel, driver, iommu core, iommufd, and
 * virtual machines with memory of their own. Tests, `smmulab check`, scenarios and the demonstration all use this one.
 *
 * Everything has a short name, so that what a sequence of operations says does not depend on ids: devices `d0`, `d1` ...
 * (so many behind each SMMU), SMMUs `smmu0` ..., VMs `vm0` ..., the IO address space of each VM `a0` ...; what operations
 * make is named by them.
 */
import {
  ArmSmmuDriver,
  type DriverExtras,
  type DriverSettings,
  type QuirkChoice,
  type VmidPolicyName,
} from '../driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../driver/iommu/core.ts';
import type { Device, IommuDevice, IommuOps } from '../driver/iommu/ops.ts';
import type { CoreParts } from '../driver/iommu/parts.ts';
import type { Kernel } from '../driver/kernel.ts';
import { LocalKernel, type LocalKernelOptions } from '../driver/local-kernel.ts';
import type { Firmware } from '../hw/bus.ts';
import type { SmmuConfig } from '../hw/config.ts';
import type { Endpoint } from '../hw/endpoint.ts';
import { createMachine, type EndpointSetup, type Machine, VIRT } from '../hw/machine.ts';
import type { Observer } from '../hw/observer.ts';
import { linuxNesting, qemuVirt, smallVmid } from '../hw/presets.ts';
import { FOOTPRINT } from '../hw/registers.ts';
import type { ScheduleConfig } from '../hw/schedule.ts';
import { type HoldPolicyName, IommufdContext, type UserMemory, VfioDevice } from '../iommufd/index.ts';
import { FIRST_DATA_PAGE, Guest } from './guest.ts';
import { LabHypervisor, VmidLedger } from './ledger.ts';

/** SMMUs a lab can be made of. */
export const LAB_PRESETS = { linuxNesting, qemuVirt, smallVmid } as const;
/** Names of {@link LAB_PRESETS}. */
export type LabPreset = keyof typeof LAB_PRESETS;
/** All VMID policies of the shipped driver. */
export const POLICIES: readonly VmidPolicyName[] = ['at-attach', 'viommu-only', 'at-domain-alloc', 'external'];

/** What a lab is made from: plain data, so that a case can be printed, saved and made again. */
export interface LabConfig {
  /** What each SMMU is. Default 'linuxNesting'; queues and caches are cut, so that making a lab is cheap. */
  readonly preset?: LabPreset;
  /** SMMUs, 1 to {@link LAB_LIMITS}.smmus. Default 2. */
  readonly smmus?: number;
  /** Devices behind each SMMU. Default 2. */
  readonly devices?: number;
  /** Virtual machines, each with memory and an IO address space. Default 2. */
  readonly vms?: number;
  /** 'linear': 64 streams; 'two-level': 16 bits of StreamID, which is the PCI requester id. Default 'two-level'. */
  readonly streamTable?: 'linear' | 'two-level';
  /** What a device does before anybody binds it. Default 'dma': the DMA API's own domain. */
  readonly defaultDomain?: 'dma' | 'identity';
  /** Width of a VMID. Default: the preset's. */
  readonly vmidBits?: 8 | 16;
  /** Where the driver takes VMIDs from. Default 'at-attach'. */
  readonly policy?: VmidPolicyName;
  /** When hardware moves. Default eager. */
  readonly schedule?: ScheduleConfig;
  /** Devices have ATS. Default false. */
  readonly ats?: boolean;
  /** Bits of a PASID that each device has. Default 0: none. */
  readonly pasidBits?: number;
  /** Linux 7.2's deviations of the driver that are on. Default: none. */
  readonly quirks?: QuirkChoice;
  /** Policy 'at-domain-alloc' too makes nested domains without a vIOMMU. Default false, as Linux 7.2. */
  readonly nestedWithoutViommu?: boolean;
  /** How a vIOMMU holds its physical IOMMU. Default 'raw', as Linux 7.2. */
  readonly iommuHold?: HoldPolicyName;
}

/** A case that names what its lab does not have, or asks for a lab that cannot be. */
export class CaseError extends RangeError {
  override readonly name = 'CaseError';
}

/** Largest topology. */
export const LAB_LIMITS = { smmus: 8, devices: 16, vms: 8 } as const;

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
}

/** Entries of a lab's queues, as log2. */
const QUEUE_LOG2 = 8;
/** StreamID bits with a linear table. */
const LINEAR_SIDSIZE = 6;
const cache = (entries: number) => ({ entries, ways: 4, replacement: 'round-robin' }) as const;
/** Caches of a lab's SMMUs: large enough that nothing is evicted by a few devices. */
const TLB = { va: cache(128), ipa: cache(128), s1Tables: cache(64), s2Tables: cache(64) } as const;

/** One object for each kind of SMMU: what is derived from it is derived once. */
const configs = new Map<string, SmmuConfig>();

function smmuConfig({ preset = 'linuxNesting', vmidBits, streamTable }: LabConfig): SmmuConfig {
  const key = `${preset} ${vmidBits} ${streamTable}`;
  const known = configs.get(key);
  if (known !== undefined) return known;
  const config: SmmuConfig = LAB_PRESETS[preset];
  const linear = streamTable === 'linear';
  const made: SmmuConfig = {
    ...config,
    IDR0: {
      ...config.IDR0,
      ...(vmidBits === undefined ? {} : { VMID16: vmidBits === 8 ? 'BITS_8' : 'BITS_16' }),
      ...(linear ? { ST_LEVEL: 'LINEAR' } : {}),
    },
    IDR1: {
      ...config.IDR1,
      CMDQS: QUEUE_LOG2,
      EVENTQS: QUEUE_LOG2,
      ...('PRIQS' in config.IDR1 ? { PRIQS: QUEUE_LOG2 } : {}),
      ...(linear ? { SIDSIZE: LINEAR_SIDSIZE } : {}),
    },
    options: { ...config.options, tlb: { ...config.options?.tlb, ...TLB } },
  };
  configs.set(key, made);
  return made;
}

/** Devices of one SMMU sit on one bus of their own. */
function endpoints(config: LabConfig): EndpointSetup[] {
  const { smmus = 2, devices = 2, ats = false, pasidBits = 0, streamTable } = config;
  return Array.from({ length: smmus * devices }, (_, i) => {
    const smmu = Math.floor(i / devices);
    const slot = (i % devices) + 1;
    const bdf = (smmu << 8) | (slot << 3);
    const sid = streamTable === 'linear' ? slot : bdf;
    return { name: `d${i}`, streamIds: [sid], bdf, smmu, canWbs: true, ats, ssidBits: pasidBits };
  });
}

function checkConfig(config: LabConfig): void {
  for (const name of ['smmus', 'devices', 'vms'] as const) {
    const value = config[name] ?? 2;
    if (!Number.isInteger(value) || value < 1 || value > LAB_LIMITS[name])
      throw new CaseError(`${name}: ${value}, expected 1 to ${LAB_LIMITS[name]}`);
  }
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
  readonly ctx: IommufdContext;
  readonly devices: readonly LabDevice[];
  readonly guests: readonly Guest[];
  /** Who owns which VMID, as the driver announced it. */
  readonly ledger: VmidLedger;
  /** What was taken when the driver had started and nobody had bound anything: what remains after {@link close}. */
  readonly baseline: { readonly pages: ReadonlySet<bigint>; readonly vmids: readonly string[] };
  readonly #ids = new Map<string, number>();

  /** @throws CaseError for a topology that is too large */
  constructor(config: LabConfig = {}, extras: LabExtras = {}) {
    checkConfig(config);
    this.config = config;
    this.machine = makeMachine(config, extras);
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
    this.ctx = new IommufdContext({
      kernel: this.kernel,
      process: { memory: userMemory(this.guests) },
      ...(config.iommuHold === undefined ? {} : { iommuHold: config.iommuHold }),
    });
    this.devices = this.machine.endpoints.map((endpoint) => this.#device(endpoint));
    for (const [i, guest] of this.guests.entries()) this.#addSpace(`a${i}`, guest);
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

  #device(endpoint: Endpoint): LabDevice {
    const { name } = endpoint;
    const dev = this.core.device(name);
    if (dev === undefined) throw new Error(`the core does not know ${name}`);
    const vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
    vfio.bind(this.ctx);
    return { name, smmu: dev.iommu.name, sid: endpoint.streamIds[0] ?? 0, dev, endpoint, vfio };
  }

  /** The IO address space of a VM, its memory mapped at `GUEST_BASE`: tables in one piece, data page by page. */
  #addSpace(name: string, guest: Guest): void {
    const id = this.ctx.ioasAlloc().out_ioas_id;
    this.name(name, id);
    this.ctx.ioasMap(guest.mapping(id, 0, 0, FIRST_DATA_PAGE));
    for (let page = FIRST_DATA_PAGE; page < guest.pages; page++) this.ctx.ioasMap(guest.mapping(id, page, page, 1));
  }

  /** Gives an iommufd object a name. @throws RangeError if it is taken */
  name(name: string, id: number): void {
    if (this.#ids.has(name)) throw new RangeError(`${name} is taken`);
    this.#ids.set(name, id);
  }

  /** The id behind a name; undefined: nothing has it. */
  id(name: string): number | undefined {
    return this.#ids.get(name);
  }

  /** Names in use, in the order in which they were given. */
  get names(): string[] {
    return [...this.#ids.keys()];
  }

  /** The object of a name is gone. */
  unname(name: string): void {
    this.#ids.delete(name);
  }

  /** Forgets the names of objects that went with another one. */
  forgetDead(): void {
    for (const [name, id] of this.#ids) if (this.ctx.objects.peek(id) === undefined) this.#ids.delete(name);
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
    if (!this.ctx.closed) this.ctx.close();
    this.#ids.clear();
  }
}

function makeMachine(config: LabConfig, { observer }: LabExtras): Machine {
  const setup = smmuConfig(config);
  return createMachine({
    smmus: Array.from({ length: config.smmus ?? 2 }, (_, i) => ({
      config: setup,
      base: VIRT.smmu + BigInt(i * FOOTPRINT),
    })),
    endpoints: endpoints(config),
    ram: [VIRT.ram],
    ...(config.schedule === undefined ? {} : { schedule: config.schedule }),
    ...(observer === undefined ? {} : { observer }),
  });
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
