/** The whole stack for the benches: one SMMU, as many devices as asked for, and a process with memory of its own. */
import { ArmSmmuDriver } from '../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../src/driver/iommu/index.ts';
import type { Device } from '../src/driver/iommu/ops.ts';
import { LocalKernel } from '../src/driver/local-kernel.ts';
import { createMachine, linuxNesting, type Machine } from '../src/hw/index.ts';

/** What {@link stack} makes. */
export interface Stack {
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  readonly driver: ArmSmmuDriver;
  readonly core: IommuCore;
  readonly devices: readonly Device[];
}

/** Boots a machine with `count` devices behind one SMMU. */
export function stack(count: number): Stack {
  const endpoints = Array.from({ length: count }, (_, i) => ({ name: `d${i}`, streamIds: [i + 1], canWbs: true }));
  const machine = createMachine({
    smmus: [{ config: linuxNesting, base: 0x0905_0000n }],
    ram: [{ base: 0x4000_0000n, size: 0x2_0000_0000n }],
    endpoints,
  });
  const kernel = new LocalKernel(machine.bus, { mmioPoints: false });
  const driver = new ArmSmmuDriver(kernel, { defaultDomain: 'identity' });
  const core = new IommuCore(kernel);
  for (const node of machine.firmware.smmus) core.registerIommu(driver.probe(node), machine.firmware.devices);
  return { machine, kernel, driver, core, devices: core.devices };
}

/** Processor time of this process so far, in nanoseconds: what a shared machine does beside it does not count. */
export function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

/** Nanoseconds of processor time of one `body()`, the median of several rounds after one that does not count. */
export function nanoseconds(rounds: number, perRound: number, body: (i: number) => void): number {
  const times: number[] = [];
  let i = 0;
  for (let round = -1; round < rounds; round++) {
    const start = processorTime();
    for (let n = 0; n < perRound; n++) body(i++);
    if (round >= 0) times.push((processorTime() - start) / perRound);
  }
  return times.sort((a, b) => a - b)[rounds >> 1] ?? 0;
}

/** One line of a bench's table. */
export const line = (what: string, value: string, note = ''): void =>
  void process.stdout.write(`${what.padEnd(52)} ${value.padStart(16)}   ${note}\n`);
