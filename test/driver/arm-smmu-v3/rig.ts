/** A machine with the driver and the iommu core on it, and eyes on what the driver queues. */
import { COMMAND_BYTES, STE, toQwords } from '../../../spec/index.ts';
import {
  ArmSmmuDriver,
  type DriverExtras,
  type DriverSettings,
  type Smmu,
} from '../../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../../src/driver/iommu/index.ts';
import type { Device, IommuDomain } from '../../../src/driver/iommu/ops.ts';
import { LocalKernel, type LocalKernelOptions } from '../../../src/driver/local-kernel.ts';
import { createMachine, type Machine, type MachineConfig, qemuVirt } from '../../../src/hw/index.ts';

export interface RigOptions {
  readonly machine?: Partial<MachineConfig>;
  readonly settings?: DriverSettings;
  readonly extras?: DriverExtras;
  readonly kernel?: LocalKernelOptions;
}

export const hex16 = (value: bigint): string => value.toString(16).padStart(16, '0');

export class Rig {
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  readonly driver: ArmSmmuDriver;
  readonly core: IommuCore;
  readonly #read = new Map<string, number>();

  constructor({ machine = {}, settings = {}, extras = {}, kernel = {} }: RigOptions = {}) {
    this.machine = createMachine({
      smmus: [{ config: qemuVirt, base: 0x0905_0000n }],
      ram: [{ base: 0x4000_0000n, size: 0x4000_0000n }],
      endpoints: [
        { name: '0000:00:05.0', streamIds: [0x28], canWbs: true },
        { name: '0000:01:00.0', streamIds: [0x100], canWbs: true },
      ],
      ...machine,
    });
    this.kernel = new LocalKernel(this.machine.bus, kernel);
    this.driver = new ArmSmmuDriver(this.kernel, settings, extras);
    this.core = new IommuCore(this.kernel);
  }

  /** Probes all SMMUs and devices. */
  boot(): this {
    const { smmus, devices } = this.machine.bus.firmware;
    for (const node of smmus)
      this.core.registerIommu(
        this.driver.probe(node),
        devices.filter((dev) => dev.smmu === node.name),
      );
    return this;
  }

  get smmu(): Smmu {
    return this.driver.smmu('smmu0');
  }

  device(name: string): Device {
    const dev = this.core.devices.find((each) => each.name === name);
    if (dev === undefined) throw new Error(`no device ${name}`);
    return dev;
  }

  /** Commands queued on an SMMU since the last call: "word0,word1". */
  commands(smmu: Smmu = this.smmu): string[] {
    const out: string[] = [];
    const from = this.#read.get(smmu.name) ?? 0;
    const entries = 2 ** smmu.cmdq.log2size;
    let at = from;
    for (; at !== smmu.cmdq.prod; at = (at + 1) % (2 * entries)) {
      const slot = smmu.cmdq.base + BigInt((at % entries) * COMMAND_BYTES);
      out.push(`${hex16(this.machine.bus.load64(slot))},${hex16(this.machine.bus.load64(slot + 8n))}`);
    }
    this.#read.set(smmu.name, at);
    return out;
  }

  /** The eight words of an STE in memory. */
  ste(sid: number, smmu: Smmu = this.smmu): bigint[] {
    const base = smmu.strtab.steOf(sid);
    return Array.from({ length: STE.bytes / 8 }, (_, i) => this.machine.bus.load64(base + BigInt(8 * i)));
  }

  attach(domain: IommuDomain, dev: Device): void {
    domain.ops.attachDev(domain, dev, this.driver.blockedDomain);
  }
}

export const words = (values: Uint32Array): string[] => toQwords(values).map((value) => hex16(value));
