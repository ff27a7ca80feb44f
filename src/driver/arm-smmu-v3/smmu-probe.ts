/** Bringing up one SMMU and the devices behind it (kernel: `arm_smmu_device_probe`, `arm_smmu_probe_device`). */
import {
  CMDQ_CONS,
  CMDQ_PROD,
  COMMAND_BYTES,
  EVENT_BYTES,
  EVENTQ_CONS,
  EVENTQ_PROD,
  PRI_BYTES,
  PRIQ_CONS,
  PRIQ_PROD,
  type Words,
} from '../../../spec/index.ts';
import type { Pa, SmmuNode } from '../../hw/bus.ts';
import { VmidAllocator } from '../../hw/vmid.ts';
import { IopfQueue } from '../iommu/io-pgfault.ts';
import type { Device, IommuDevice } from '../iommu/ops.ts';
import { type Kernel, KernelError } from '../kernel.ts';
import { CD_LEAF_LOG2, CdTable } from './cd-table.ts';
import { CommandBatch } from './command-batch.ts';
import { CommandQueue, type CommandSink } from './command-queue.ts';
import { atcInvAll } from './commands.ts';
import { HardwareQueue } from './event-queue.ts';
import { drainEvents, drainPageRequests, handleGlobalErrors } from './events.ts';
import { Inherited, type InheritedAsids } from './inherited.ts';
import { isolateStreams } from './isolate.ts';
import type { LiveTable } from './live-table.ts';
import type { DriverOptions } from './options.ts';
import type { DriverParts } from './parts.ts';
import { type AtsDevice, atsIsOn, disableAts, findCapability, setPasid } from './pci.ts';
import { probeFeatures } from './probe.ts';
import type { Quarantine, Settling } from './quarantine.ts';
import { disableSmmu, isEnabled, resetSmmu, retainSmmu } from './reset.ts';
import { type Master, registerAt, type Smmu, type SmmuImpl, type Stream } from './smmu.ts';
import { makeStreamTable, presetSte } from './stream-table.ts';

/** What all SMMUs of a driver share. */
export interface SmmuContext {
  readonly kernel: Kernel;
  readonly options: DriverOptions;
  readonly parts: DriverParts;
  readonly quarantine: Quarantine;
  readonly label: (kind: string) => string;
  readonly inheritedAsids: InheritedAsids;
}

/** A ring as large as wanted, or as large as memory allows (`arm_smmu_init_one_queue`). @throws KernelError ENOMEM */
export function allocRing(
  kernel: Kernel,
  what: string,
  log2size: number,
  entryBytes: number,
): { base: Pa; log2size: number } {
  for (let log2 = log2size; ; log2--) {
    try {
      return { base: kernel.allocPages(what, entryBytes << log2), log2size: log2 };
    } catch (error) {
      // Below a page there is nothing to be won.
      if (entryBytes << log2 <= SMALLEST_RING) throw error;
    }
  }
}

const SMALLEST_RING = 4096;

/** See {@link Smmu}; the fields that probe fills in order. */
class SmmuInstance implements Smmu {
  readonly name: string;
  readonly index: number;
  readonly node: SmmuNode;
  readonly kernel: Kernel;
  readonly options: DriverOptions;
  readonly parts: DriverParts;
  readonly features: Smmu['features'];
  readonly device: IommuDevice;
  readonly vmids: VmidAllocator;
  readonly quarantine: Quarantine;
  readonly label: (kind: string) => string;
  cmdq: CommandQueue;
  evtq: HardwareQueue;
  priq: HardwareQueue | null;
  strtab: Smmu['strtab'];
  impl: SmmuImpl | null;
  enabled = false;
  suspended = false;
  readonly streams = new Map<number, Stream>();
  readonly streamsLock: Smmu['streamsLock'];
  readonly iopf: IopfQueue;
  readonly inherited: Inherited;

  constructor(context: SmmuContext, node: SmmuNode, index: number, device: IommuDevice, impl: SmmuImpl | null) {
    this.name = node.name;
    this.index = index;
    this.node = node;
    this.kernel = context.kernel;
    this.options = context.options;
    this.parts = context.parts;
    this.quarantine = context.quarantine;
    this.label = context.label;
    this.device = device;
    this.impl = impl;
    this.streamsLock = context.kernel.lock(`${node.name}:streams`);
    this.iopf = new IopfQueue(context.kernel, node.name);
    this.features = probeFeatures(context.kernel, node, context.options);
    this.vmids = new VmidAllocator(2 ** this.features.vmidBits - 1);
    this.inherited = new Inherited(this, context.inheritedAsids);
    const made: { what: string; pa: Pa }[] = [];
    try {
      this.cmdq = this.#commandQueue();
      made.push({ what: 'cmdq', pa: this.cmdq.base });
      this.evtq = this.#hardwareQueue('evtq', this.features.evtqLog2, EVENT_BYTES, EVENTQ_PROD, EVENTQ_CONS);
      made.push({ what: 'evtq', pa: this.evtq.setup.base });
      this.priq = this.features.pri
        ? this.#hardwareQueue('priq', this.features.priqLog2, PRI_BYTES, PRIQ_PROD, PRIQ_CONS)
        : null;
      if (this.priq !== null) made.push({ what: 'priq', pa: this.priq.setup.base });
      this.strtab = makeStreamTable(this, this.#liveTable());
    } catch (error) {
      for (const { what, pa } of made.reverse()) this.kernel.freePages(what, pa);
      throw error;
    }
  }

  /**
   * The Stream table that hardware uses now, if it is to be adopted (`arm_smmu_kdump_adopt_strtab`). One that is damaged
   * is not: the reset that follows stops all traffic.
   */
  #liveTable(): LiveTable | null {
    if (this.options.adopt === 'reset' || !isEnabled(this)) return null;
    try {
      const table = this.inherited.adopt();
      this.kernel.log('info', `${this.name}: adopted the Stream table, ${table.streams.length} streams`);
      return table;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.kernel.log('warn', `${error.message}: the Stream table is not adopted`);
      this.inherited.refuse();
      return null;
    }
  }

  get queues(): readonly Settling[] {
    return [this.cmdq, ...(this.impl?.queues ?? [])];
  }

  atcTimedOut(sids: readonly number[]): void {
    isolateStreams(this, sids);
  }

  queueFor(first: Words): CommandSink {
    return this.impl?.getSecondaryQueue?.(this, first) ?? this.cmdq;
  }

  #commandQueue(): CommandQueue {
    return new CommandQueue(this.kernel, {
      name: this.name,
      ...allocRing(this.kernel, 'cmdq', this.features.cmdqLog2, COMMAND_BYTES),
      prodReg: registerAt(this, CMDQ_PROD),
      consReg: registerAt(this, CMDQ_CONS),
      signal: this.features.msiPoll ? 'SIG_IRQ' : 'SIG_SEV',
      onQuiet: () => this.quarantine.settle(this),
    });
  }

  #hardwareQueue(
    name: string,
    log2size: number,
    entryBytes: number,
    prod: { readonly offset: number; readonly page: string },
    cons: { readonly offset: number; readonly page: string },
  ): HardwareQueue {
    return new HardwareQueue(this.kernel, {
      name,
      ...allocRing(this.kernel, name, log2size, entryBytes),
      entryBytes,
      prodReg: registerAt(this, prod),
      consReg: registerAt(this, cons),
    });
  }
}

function requestInterrupts(smmu: Smmu): void {
  const { kernel, node, priq } = smmu;
  kernel.requestIrq(`${smmu.name}:evtq`, node.irqs.eventq, () => drainEvents(smmu));
  if (priq !== null) kernel.requestIrq(`${smmu.name}:priq`, node.irqs.priq, () => drainPageRequests(smmu));
  kernel.requestIrq(`${smmu.name}:gerror`, node.irqs.gerror, () => handleGlobalErrors(smmu), 'hard');
}

/**
 * Resets an SMMU whose devices may use ATS still, as the driver before left it: it is turned off in each before SMMUEN is
 * cleared, and what they have cached goes once commands to them have an effect again (IHI 0070 3.9.2, 4.5.1).
 * @throws KernelError ETIMEDOUT
 */
function resetWithoutAts(smmu: Smmu): void {
  const { kernel } = smmu;
  const using = kernel.bus.firmware.devices
    .filter((node) => node.smmu === smmu.name)
    .map((node): AtsDevice => ({ smmu, node, atsOffset: findCapability(kernel, node, 'ATS') }))
    .filter(atsIsOn);
  for (const device of using) disableAts(device);
  resetSmmu(smmu);
  if (!smmu.features.ats) return;
  const batch = new CommandBatch(smmu);
  for (const { node } of using) for (const sid of node.streamIds) batch.add(atcInvAll(sid, 0));
  if (!batch.empty) batch.submit();
}

/**
 * Brings up one SMMU (`arm_smmu_device_probe`): ID registers, structures, companion, reserved-memory streams, reset.
 * @throws KernelError ENXIO, ENOMEM, ETIMEDOUT; the SMMU is then off
 */
export function probeSmmu(
  context: SmmuContext,
  node: SmmuNode,
  index: number,
  device: IommuDevice,
  impl: SmmuImpl | null,
): Smmu {
  const smmu = new SmmuInstance(context, node, index, device, impl);
  try {
    impl?.initStructures?.(smmu);
    const adopted = smmu.inherited.table !== null;
    // In an adopted table their STEs stand already.
    for (const dev of adopted ? [] : context.kernel.bus.firmware.devices)
      if (dev.smmu === node.name && (dev.reserved ?? []).some((region) => region.type === 'direct'))
        for (const sid of dev.streamIds) presetSte(smmu, sid, context.parts.makers.bypassSte(smmu));
    requestInterrupts(smmu);
    if (adopted) retainSmmu(smmu);
    else resetWithoutAts(smmu);
    return smmu;
  } catch (error) {
    disableSmmu(smmu);
    freeStructures(smmu);
    throw error;
  }
}

/** Gives the memory of a switched-off SMMU back. */
export function freeStructures(smmu: Smmu): void {
  const { kernel } = smmu;
  smmu.impl?.freeStructures?.(smmu);
  for (const { pa, foreign } of [...smmu.strtab.memory].reverse()) if (!foreign) kernel.freePages('strtab', pa);
  if (smmu.priq !== null) kernel.freePages('priq', smmu.priq.setup.base);
  kernel.freePages('evtq', smmu.evtq.setup.base);
  kernel.freePages('cmdq', smmu.cmdq.base);
}

/** A crash kernel leaves the Event queue of an adopted SMMU off: nobody would answer what stalls (7.2). */
const hearsNothing = ({ options, inherited }: Smmu): boolean => options.adopt === 'kdump' && inherited.table !== null;

/**
 * Makes the driver's part of a device (`arm_smmu_probe_device`, `arm_smmu_insert_master`).
 * @throws KernelError ERANGE (a StreamID outside the table), ENODEV (owned by another device), ENOMEM
 */
export function probeMaster(smmu: Smmu, dev: Device): Master {
  const { kernel, features } = smmu;
  const { node } = dev;
  kernel.alloc('master');
  const sids = [...new Set(node.streamIds)].sort((a, b) => a - b);
  for (const sid of sids) {
    smmu.strtab.prepare(sid);
    if (smmu.streams.has(sid))
      throw new KernelError(
        'ENODEV',
        `StreamID 0x${sid.toString(16)} belongs to ${smmu.streams.get(sid)?.master.dev.name}`,
      );
  }
  const wanted = Math.min(features.ssidBits, node.ssidBits);
  const ssidBits = features.twoLevelCd ? wanted : Math.min(wanted, CD_LEAF_LOG2);
  const atsOffset = features.ats ? findCapability(kernel, node, 'ATS') : undefined;
  const streams: Stream[] = [];
  const master: Master = {
    smmu,
    dev,
    node,
    streams,
    cdTable: new CdTable(() => master, ssidBits, features.twoLevelCd),
    ssidBits,
    stallEnabled: (node.canStall && features.stalls && !hearsNothing(smmu)) || features.stallForce,
    atsSupported: atsOffset !== undefined,
    atsOffset,
    atsEnabled: false,
    steAts: false,
    vmaster: null,
    current: null,
    records: new Map(),
    iopfUsers: 0,
    stalls: new Map(),
    atcBroken: false,
  };
  streams.push(...sids.map((sid) => ({ sid, master })));
  kernel.withLock(smmu.streamsLock, () => {
    for (const stream of streams) smmu.streams.set(stream.sid, stream);
  });
  // The device's ATS was left on with the stream: the first attachment turns it off in order.
  if (smmu.inherited.holds(master)) master.atsEnabled = atsIsOn(master);
  dev.maxPasids = ssidBits === 0 ? 0 : Math.min(dev.maxPasids, 2 ** ssidBits);
  if (ssidBits > 0) setPasid(master, true);
  return master;
}

/** Forgets a device whose streams are blocked (`arm_smmu_release_device`). */
export function releaseMaster(master: Master): void {
  const { smmu } = master;
  smmu.kernel.withLock(smmu.streamsLock, () => {
    for (const { sid } of master.streams) smmu.streams.delete(sid);
  });
  if (master.ssidBits > 0) setPasid(master, false);
  master.cdTable.free();
}
