/** A machine with its command and event queues set up, for tests of the programming interface. */
import * as spec from '../../spec/registers.ts';
import {
  createMachine,
  linuxNesting,
  type Machine,
  type MachineConfig,
  type SmmuConfig,
  VIRT,
} from '../../src/hw/index.ts';

export const BASE = VIRT.smmu;
export const CMDQ = 0x4010_0000n;
export const EVENTQ = 0x4020_0000n;
export const PRIQ = 0x4030_0000n;
export const LOG2 = 4;

/** Register access by table, on an SMMU of a machine. */
export class Regs {
  readonly machine: Machine;
  readonly base: bigint;
  constructor(machine: Machine, base: bigint = BASE) {
    this.machine = machine;
    this.base = base;
  }
  address(register: { offset: number; page: string }): bigint {
    return this.base + BigInt(register.offset + (register.page === 'page1' ? spec.PAGE1 : 0));
  }
  read(register: { offset: number; page: string }): number {
    return this.machine.bus.readl(this.address(register));
  }
  read64(register: { offset: number; page: string }): bigint {
    return this.machine.bus.readq(this.address(register));
  }
  write(register: { offset: number; page: string }, value: number): void {
    this.machine.bus.writel(this.address(register), value);
  }
  write64(register: { offset: number; page: string }, value: bigint): void {
    this.machine.bus.writeq(this.address(register), value);
  }
  /** Queues of 2^LOG2 entries, CMDQEN and EVENTQEN. */
  start(log2 = LOG2): void {
    this.write64(spec.CMDQ_BASE, CMDQ | BigInt(log2));
    this.write64(spec.EVENTQ_BASE, EVENTQ | BigInt(log2));
    for (const index of [spec.CMDQ_PROD, spec.CMDQ_CONS, spec.EVENTQ_PROD, spec.EVENTQ_CONS]) this.write(index, 0);
    this.write(spec.CR0, spec.CR0.bit('CMDQEN', 'EVENTQEN'));
  }
  /** Puts commands (dword pairs) at PROD on and rings. */
  issue(...commands: readonly (readonly [bigint, bigint])[]): void {
    let prod = this.read(spec.CMDQ_PROD);
    const size = 2 ** (Number(this.read64(spec.CMDQ_BASE)) & 31);
    for (const [low, high] of commands) {
      const at = CMDQ + BigInt((prod & (size - 1)) * 16);
      this.machine.memory.write64(at, low);
      this.machine.memory.write64(at + 8n, high);
      prod = (prod + 1) & (2 * size - 1);
    }
    this.write(spec.CMDQ_PROD, prod);
  }
  /** CMDQ_CONS.RD */
  get cons(): number {
    return spec.CMDQ_CONS.of(this.read(spec.CMDQ_CONS), 'RD');
  }
  /** CMDQ_CONS.ERR */
  get err(): number {
    return spec.CMDQ_CONS.of(this.read(spec.CMDQ_CONS), 'ERR');
  }
  /** Active errors. */
  get errors(): number {
    return (this.read(spec.GERROR) ^ this.read(spec.GERRORN)) >>> 0;
  }
  acknowledge(): void {
    this.write(spec.GERRORN, this.read(spec.GERROR));
  }
}

/** One SMMU at BASE, 16 MiB of RAM at 0x4000_0000. */
export function machineWith(config: SmmuConfig = linuxNesting, more: Partial<MachineConfig> = {}): Machine {
  return createMachine({
    smmus: [{ config, base: BASE }],
    ram: [{ base: 0x4000_0000n, size: 0x100_0000n }],
    ...more,
  });
}

export const NSNH_ALL: readonly [bigint, bigint] = [0x30n, 0n];
export const SYNC_NONE: readonly [bigint, bigint] = [0x46n, 0n];
