/** A machine: memory, SMMUs, endpoints, one address map, one schedule. */
import { AddressMap } from './address-map.ts';
import { AtsUnit } from './ats.ts';
import { type BroadcastTlbi, checkBroadcast, receiveBroadcast } from './broadcast.ts';
import type { Bus, DeviceNode, Firmware, Pa, SmmuNode } from './bus.ts';
import type { EndpointPort } from './commands/context.ts';
import type { SmmuConfig } from './config.ts';
import { Endpoint } from './endpoint.ts';
import type { InterruptPort } from './interrupts.ts';
import { LocalBus } from './local-bus.ts';
import { Memory } from './memory.ts';
import type { InterruptSource, Observer, Watch } from './observer.ts';
import { PciBus, PciFunction, PciIommuCapabilities } from './pci.ts';
import { linuxNesting, qemuVirt } from './presets.ts';
import { FOOTPRINT } from './registers.ts';
import { Conductor, Schedule, type ScheduleConfig } from './schedule.ts';
import { Smmu } from './smmu.ts';
import { Cmdqv } from './tegra241/cmdqv.ts';
import { type CmdqvConfig, HOST_PARAM } from './tegra241/config.ts';
import { Transaction } from './transaction.ts';
import { makeTranslation, type TranslationContext, type TranslationUnit } from './translation-unit.ts';
import type { VmidHolder } from './vmid.ts';

/** An SMMU of a machine. */
export interface SmmuSetup {
  readonly config: SmmuConfig;
  /** SMMU_BASE; 64 KiB aligned. */
  readonly base: Pa;
  /** Default: smmu0, smmu1 ... */
  readonly name?: string;
  /** Interrupt numbers of the wires; default: {@link FIRST_IRQ} and up. */
  readonly irqs?: { readonly eventq: number; readonly priq: number; readonly gerror: number; readonly cmdsync: number };
  /** The Tegra241 CMDQV beside it. */
  readonly cmdqv?: CmdqvSetup;
}

/** A Tegra241 CMDQV of a machine. */
export interface CmdqvSetup {
  /** 64 KiB aligned. */
  readonly base: Pa;
  /** Default: the fifth interrupt of its SMMU's. */
  readonly irq?: number;
  /** Default: {@link HOST_PARAM}. */
  readonly config?: CmdqvConfig;
}

/** A device of a machine. What is left out is what a plain PCI function has. */
export interface EndpointSetup extends Omit<Partial<DeviceNode>, 'smmu'> {
  readonly name: string;
  readonly streamIds: readonly number[];
  /** Name or number of its SMMU; default 0. */
  readonly smmu?: string | number;
  /** Has ATS (and so an ATC). Needs `bdf`: software turns it on in configuration space. */
  readonly ats?: boolean;
  /** Has PRI. Needs `ats`. */
  readonly pri?: boolean;
}

/** What {@link createMachine} builds. */
export interface MachineConfig {
  readonly smmus: readonly SmmuSetup[];
  readonly endpoints?: readonly EndpointSetup[];
  readonly ram: readonly { readonly base: Pa; readonly size: bigint; readonly backing?: ArrayBuffer }[];
  readonly schedule?: ScheduleConfig;
  readonly observer?: Observer;
}

/** Identification of the endpoints' PCI functions: QEMU's iommu-testdev. */
const ENDPOINT_ID = { VendorID: 0x1b36, DeviceID: 0x0005 } as const;

/** First interrupt of the SMMU in QEMU's virt machine: Event queue; PRI queue, CMD_SYNC and GERROR follow. */
export const FIRST_IRQ = 74;
/** Interrupts reserved for each SMMU and what stands beside it. */
const IRQS_EACH = 8;

/** See the module comment. Made by {@link createMachine}. */
export class Machine {
  readonly memory = new Memory();
  readonly map = new AddressMap();
  readonly watch: Watch;
  readonly conductor: Conductor;
  readonly smmus: readonly Smmu[];
  /** By the name of the SMMU beside it. */
  readonly cmdqvs = new Map<string, Cmdqv>();
  readonly endpoints: readonly Endpoint[];
  readonly firmware: Firmware;
  /** The CPU that host code is. */
  readonly bus: Bus;
  readonly pci = new PciBus();
  readonly #byStream = new Map<string, Endpoint>();
  readonly #handlers = new Map<number, (() => void)[]>();
  /** WFE wake-up events sent so far. */
  wakeUps = 0;

  constructor(config: MachineConfig, translation: (context: TranslationContext) => TranslationUnit) {
    this.watch = { observer: config.observer ?? null };
    this.conductor = new Conductor(new Schedule(config.schedule));
    for (const { base, size, backing } of config.ram) this.memory.addRegion(base, size, backing);
    const nodes = config.smmus.map((setup, i) => smmuNode(setup, i));
    this.smmus = config.smmus.map((setup, i) => this.#addSmmu(setup, i, nodes, translation));
    const setups = config.endpoints ?? [];
    const devices = setups.map((setup) => deviceNode(setup, nodes));
    this.endpoints = devices.map((node, i) => this.#addEndpoint(node, setups[i] ?? node));
    this.firmware = { ram: config.ram.map(({ base, size }) => ({ base, size })), smmus: nodes, devices };
    this.bus = new LocalBus(this, 'cpu0');
  }

  #addSmmu(
    setup: SmmuSetup,
    index: number,
    nodes: readonly SmmuNode[],
    translation: (context: TranslationContext) => TranslationUnit,
  ): Smmu {
    const name = nodes[index]?.name ?? '';
    const interrupts = this.#interruptPort(setup.irqs ?? defaultIrqs(index));
    const endpoints = this.#endpointPort(name);
    const smmu = new Smmu(
      name,
      setup.config,
      { memory: this.memory, interrupts, endpoints, watch: this.watch, schedule: this.conductor.schedule },
      translation,
    );
    this.map.add(setup.base, BigInt(smmu.bytes), smmu);
    this.conductor.add(smmu.agents, smmu.busy);
    this.conductor.addSpeculator(...smmu.caches.speculators);
    if (setup.cmdqv !== undefined) this.#addCmdqv(smmu, setup.cmdqv, setup.cmdqv.irq ?? defaultIrqs(index).cmdqv);
    return smmu;
  }

  #addCmdqv(smmu: Smmu, { base, config = { param: HOST_PARAM } }: CmdqvSetup, irq: number): void {
    const { memory, watch, conductor } = this;
    const cmdqv = new Cmdqv(smmu.name, config, {
      memory,
      watch,
      target: smmu,
      commandQueue: smmu.commandQueue,
      edge: () => this.raise(irq),
      choose: (agent, kind, n) => conductor.schedule.choose(agent, kind, n),
    });
    this.cmdqvs.set(smmu.name, cmdqv);
    this.map.add(base, BigInt(cmdqv.footprint), cmdqv);
    conductor.add(cmdqv.agents);
    smmu.holders.push((VMID) => cmdqv.holders(VMID));
    smmu.syncs.push((stream) => cmdqv.synced(stream));
  }

  #interruptPort(irqs: Record<InterruptSource, number>): InterruptPort {
    return {
      edge: (source) => this.raise(irqs[source]),
      msi: (hi, lo, data) => this.memory.store32(hi, lo, data),
      wakeUp: () => {
        this.wakeUps++;
      },
    };
  }

  /** A StreamID behind an SMMU belongs to at most one endpoint. */
  #endpointPort(smmu: string): EndpointPort {
    const find = (StreamID: number): Endpoint | undefined => this.#byStream.get(`${smmu} ${StreamID}`);
    return {
      atcInvalidate: (invalidation) => find(invalidation.StreamID)?.ats?.invalidate(invalidation) ?? 'unsupported',
      pageResponse: (StreamID, SubstreamID, PRGIndex, code) =>
        find(StreamID)?.ats?.respond(StreamID, SubstreamID, PRGIndex, code),
    };
  }

  #addEndpoint(node: DeviceNode, setup: EndpointSetup): Endpoint {
    const { name, canStall } = node;
    const { watch, memory } = this;
    const smmu = this.smmu(node.smmu);
    const transaction = new Transaction();
    const ats = this.#addFunction(node, setup, smmu, transaction);
    const moment = (): void => this.conductor.moment();
    const endpoint = new Endpoint(node.streamIds, { name, smmu, memory, watch, canStall, transaction, ats, moment });
    for (const StreamID of node.streamIds) {
      const key = `${node.smmu} ${StreamID}`;
      if (this.#byStream.has(key)) throw new RangeError(`two endpoints behind ${node.smmu} have StreamID ${StreamID}`);
      this.#byStream.set(key, endpoint);
    }
    return endpoint;
  }

  #addFunction(node: DeviceNode, setup: EndpointSetup, smmu: Smmu, transaction: Transaction): AtsUnit | null {
    if (node.bdf === undefined) {
      if (setup.ats === true) throw new RangeError(`endpoint ${node.name} has ATS and no bdf to turn it on with`);
      return null;
    }
    const fn = new PciFunction(ENDPOINT_ID.VendorID, ENDPOINT_ID.DeviceID);
    this.pci.add(node.bdf, fn);
    const capabilities = { ats: setup.ats === true, pri: setup.pri === true, pasidBits: node.ssidBits };
    let unit: AtsUnit | null = null;
    const state = new PciIommuCapabilities(fn, capabilities, () => unit?.controlChanged());
    if (capabilities.ats) unit = new AtsUnit(node.name, smmu, transaction, state, this.watch);
    return unit;
  }

  /** One more CPU, with stores of its own: a guest's. `name` tells it from others in the schedule's choices. */
  addCpu(name: string): Bus {
    return new LocalBus(this, name);
  }

  /** An SMMU by name. @throws RangeError for an unknown one */
  smmu(name: string): Smmu {
    const smmu = this.smmus.find((one) => one.name === name);
    if (smmu === undefined)
      throw new RangeError(`no SMMU ${name}; there are ${this.smmus.map((s) => s.name).join(', ')}`);
    return smmu;
  }

  /** The CMDQV beside an SMMU. @throws RangeError if there is none */
  cmdqv(smmu: string): Cmdqv {
    const cmdqv = this.cmdqvs.get(smmu);
    if (cmdqv === undefined) throw new RangeError(`no CMDQV beside ${smmu}`);
    return cmdqv;
  }

  /**
   * Resets an SMMU, and the CMDQV beside it: power-cycled with its caches, or warm with what they hold. Memory, endpoints
   * and their ATCs keep their state.
   * @throws RangeError for an unknown one
   */
  resetSmmu(name: string, caches: 'kept' | 'lost' = 'lost'): void {
    const smmu = this.smmu(name);
    this.cmdqvs.get(name)?.powerLoss();
    smmu.reset(caches);
    this.conductor.moment();
  }

  /** Who names a VMID in any SMMU, each with the SMMU's name. VMIDs of different SMMUs are different numbers. */
  vmidHolders(VMID: number): (VmidHolder & { readonly smmu: string })[] {
    return this.smmus.flatMap((smmu) => smmu.vmidHolders(VMID).map((holder) => ({ ...holder, smmu: smmu.name })));
  }

  /** An endpoint by name. @throws RangeError for an unknown one */
  endpoint(name: string): Endpoint {
    const endpoint = this.endpoints.find((one) => one.name === name);
    if (endpoint === undefined)
      throw new RangeError(`no endpoint ${name}; there are ${this.endpoints.map((e) => e.name).join(', ')}`);
    return endpoint;
  }

  /**
   * A CPU's TLBI to the inner shareable domain: reaches every SMMU with IDR0.BTM and CR2.PTM = 0, and is done when this
   * returns.
   * @throws RangeError for a VMID or ASID outside 16 bits, an address outside 64 bits, or range fields that do not fit
   */
  broadcastTlbi(tlbi: BroadcastTlbi): void {
    checkBroadcast(tlbi);
    for (const smmu of this.smmus) receiveBroadcast(smmu, tlbi);
    this.conductor.moment();
  }

  /**
   * One more CPU of the machine, with its own store buffer in a seeded schedule: a guest's. Firmware and interrupts are
   * the machine's.
   * @param name names the CPU in the schedule's choices
   */
  cpu(name: string): Bus {
    return new LocalBus(this, name);
  }

  /** Says which operation is under way: the schedule's draws depend on it from now on. */
  operation(id: string): void {
    this.conductor.schedule.operation(id);
  }

  /** One act of hardware, in `stepped`: of the named agent, or of the first that has something to do. False: none. */
  step(agent?: string): boolean {
    return this.conductor.step(agent);
  }

  /** Lets hardware go on until nothing is left to do, whatever the schedule. */
  drain(): void {
    this.conductor.drain();
  }

  /** Registers for edges of an interrupt. */
  onInterrupt(irq: number, edge: () => void): void {
    const handlers = this.#handlers.get(irq);
    if (handlers === undefined) this.#handlers.set(irq, [edge]);
    else handlers.push(edge);
  }

  /** An edge of an interrupt. */
  raise(irq: number): void {
    for (const edge of this.#handlers.get(irq) ?? []) edge();
  }
}

function defaultIrqs(index: number): Record<'eventq' | 'priq' | 'cmdsync' | 'gerror' | 'cmdqv', number> {
  const first = FIRST_IRQ + index * IRQS_EACH;
  return { eventq: first, priq: first + 1, cmdsync: first + 2, gerror: first + 3, cmdqv: first + 4 };
}

function smmuNode(setup: SmmuSetup, index: number): SmmuNode {
  const { eventq, priq, gerror } = setup.irqs ?? defaultIrqs(index);
  return {
    name: setup.name ?? `smmu${index}`,
    base: setup.base,
    coherent: setup.config.IDR0.COHACC === 1 || setup.config.IDR0.COHACC === 1n,
    irqs: { eventq, priq, gerror },
    ...(setup.cmdqv === undefined
      ? {}
      : { cmdqv: { base: setup.cmdqv.base, irq: setup.cmdqv.irq ?? defaultIrqs(index).cmdqv } }),
  };
}

function deviceNode(setup: EndpointSetup, smmus: readonly SmmuNode[]): DeviceNode {
  const { ats: _, pri: __, smmu: behind = 0, ...node } = setup;
  const smmu = typeof behind === 'string' ? behind : smmus[behind]?.name;
  if (smmu === undefined) throw new RangeError(`endpoint ${setup.name} is behind SMMU ${behind}, which is not there`);
  const { canWbs = false, canStall = false, ssidBits = 0 } = setup;
  return { ...node, smmu, canWbs, canStall, ssidBits };
}

/** Builds a machine. @throws RangeError for overlapping ranges, unknown names, an endpoint without a StreamID */
export function createMachine(
  config: MachineConfig,
  translation: (context: TranslationContext) => TranslationUnit = makeTranslation,
): Machine {
  return new Machine(config, translation);
}

/** RAM and SMMU where QEMU's virt machine has them. */
export const VIRT = { ram: { base: 0x4000_0000n, size: 0x8000_0000n }, smmu: 0x0905_0000n } as const;

/** What {@link virt} lets vary. */
export interface VirtOptions {
  readonly config?: SmmuConfig;
  readonly endpoints?: readonly EndpointSetup[];
  readonly schedule?: ScheduleConfig;
  readonly observer?: Observer;
}

/** A plain PCI function; its StreamID is its bus, device and function number. */
export const pciFunction = (bus: number, device: number, fn: number): EndpointSetup => {
  const bdf = (bus << 8) | (device << 3) | fn;
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return { name: `0000:${hex(bus)}:${hex(device)}.${fn}`, streamIds: [bdf], bdf };
};

/** QEMU's virt machine with three PCI functions (StreamIDs 0x8, 0x10, 0x100); by default with QEMU's SMMU. */
export function virt({ config = qemuVirt, endpoints, schedule, observer }: VirtOptions = {}): Machine {
  return createMachine({
    smmus: [{ config, base: VIRT.smmu }],
    endpoints: endpoints ?? [pciFunction(0, 1, 0), pciFunction(0, 2, 0), pciFunction(1, 0, 0)],
    ram: [VIRT.ram],
    ...(schedule === undefined ? {} : { schedule }),
    ...(observer === undefined ? {} : { observer }),
  });
}

/** {@link virt} with two SMMUs for nesting, 0x2_0000 apart, and two PCI functions behind each. */
export function twoSmmus({ config = linuxNesting, endpoints, schedule, observer }: VirtOptions = {}): Machine {
  const functions = [0, 1, 2, 3].map((n) => ({ ...pciFunction(n >> 1, 1 + (n & 1), 0), smmu: n >> 1 }));
  return createMachine({
    smmus: [0n, 1n].map((n) => ({ config, base: VIRT.smmu + n * BigInt(FOOTPRINT) })),
    endpoints: endpoints ?? functions,
    ram: [VIRT.ram],
    ...(schedule === undefined ? {} : { schedule }),
    ...(observer === undefined ? {} : { observer }),
  });
}
