/** A machine with one small CMDQV, and register access to it by table. */
import type { Register } from '../../../spec/layout.ts';
import { CR0, STRTAB_BASE } from '../../../spec/registers.ts';
import * as spec from '../../../spec/tegra241.ts';
import {
  type Announcement,
  type CmdqvConfig,
  createMachine,
  linuxNesting,
  type Machine,
  type ScheduleConfig,
  SMALL_PARAM,
  type SmmuConfig,
} from '../../../src/hw/index.ts';

export const SMMU = 0x1000_0000n;
export const CMDQV = 0x1100_0000n;
export const RAM = 0x4000_0000n;
/** Ring of VCMDQ q: 1 MiB apart. */
export const ringOf = (q: number): bigint => RAM + 0x10_0000n * BigInt(q + 1);
export const LOG2 = 4;

/** Which physical interrupt the CMDQV has by default: the fifth of the first SMMU. */
export const IRQ = 78;

export interface Options {
  readonly cmdqv?: CmdqvConfig;
  readonly config?: SmmuConfig;
  readonly schedule?: ScheduleConfig;
}

type Pair = readonly [bigint, bigint];

/** See the module comment. Announcements are kept, words copied. */
export class CmdqvRegs {
  readonly machine: Machine;
  readonly acts: Announcement[] = [];
  interrupts = 0;

  constructor({ cmdqv = { param: SMALL_PARAM }, config = linuxNesting, schedule }: Options = {}) {
    this.machine = createMachine({
      smmus: [{ config, base: SMMU, cmdqv: { base: CMDQV, config: cmdqv } }],
      endpoints: [
        { name: 'a', streamIds: [0x8], bdf: 0x8, ats: true },
        { name: 'b', streamIds: [0x10], bdf: 0x10, ats: true },
      ],
      ram: [{ base: RAM, size: 0x100_0000n }],
      observer: (act) =>
        this.acts.push(
          act.kind === 'command' || act.kind === 'command-error' ? { ...act, words: act.words.slice() } : { ...act },
        ),
      ...(schedule === undefined ? {} : { schedule }),
    });
    this.machine.onInterrupt(IRQ, () => {
      this.interrupts++;
    });
  }

  get bus() {
    return this.machine.bus;
  }

  // Addresses.

  global(register: Register, copy = 0): bigint {
    return CMDQV + BigInt(register.offset + copy * (register.info.repeat?.stride ?? 0));
  }
  vintf(v: number, register: Register, copy = 0): bigint {
    return CMDQV + BigInt(spec.vintfBlock(v) + register.offset + copy * (register.info.repeat?.stride ?? 0));
  }
  /** In the global window. */
  vcmdq(q: number, register: Register): bigint {
    const page = register.page === 'vcmdq0' ? spec.CMDQV_VCMDQ_PAGE0 : spec.CMDQV_VCMDQ_PAGE1;
    return CMDQV + BigInt(page + q * spec.VCMDQ_STRIDE + register.offset);
  }
  /** In VINTF v's logical window. */
  lvcmdq(v: number, l: number, register: Register): bigint {
    const page = register.page === 'vcmdq0' ? spec.vintfPage0(v) : spec.vintfPage1(v);
    return CMDQV + BigInt(page + l * spec.VCMDQ_STRIDE + register.offset);
  }

  // What software does.

  /** Translation on, over an empty Stream table: commands towards devices have an effect. */
  smmuOn(): void {
    this.bus.writeq(SMMU + BigInt(STRTAB_BASE.offset), RAM);
    this.bus.writel(SMMU + BigInt(CR0.offset), CR0.bit('SMMUEN'));
  }

  map(q: number, v: number, l: number): void {
    this.bus.writel(
      this.global(spec.CMDQV_CMDQ_ALLOC, q),
      spec.CMDQV_CMDQ_ALLOC.value({ VINTF: v, LVCMDQ: l, ALLOCATED: 1 }),
    );
  }
  unmap(q: number, v: number, l: number): void {
    this.bus.writel(this.global(spec.CMDQV_CMDQ_ALLOC, q), spec.CMDQV_CMDQ_ALLOC.value({ VINTF: v, LVCMDQ: l }));
  }
  openVintf(v: number, VMID: number, hypOwn = false): void {
    const at = this.vintf(v, spec.VINTF_CONFIG);
    const config = spec.VINTF_CONFIG.value({ VMID, HYP_OWN: hypOwn ? 1 : 0 });
    this.bus.writel(at, config);
    this.bus.writel(at, config | 1);
  }
  closeVintf(v: number): void {
    this.bus.writel(this.vintf(v, spec.VINTF_CONFIG), 0);
  }
  /** BASE at the ring of q, EN. */
  startQueue(q: number, log2 = LOG2): void {
    this.bus.writeq(this.vcmdq(q, spec.VCMDQ_BASE), ringOf(q) | BigInt(log2));
    this.bus.writel(this.vcmdq(q, spec.VCMDQ_CONFIG), 1);
  }
  /** VINTF v with VMID, VCMDQ q mapped as LVCMDQ 0 and enabled. */
  guest(v: number, q: number, VMID: number, hypOwn = false): void {
    this.openVintf(v, VMID, hypOwn);
    this.map(q, v, 0);
    this.startQueue(q);
  }
  pair(v: number, s: number, virt: number, phys: number): void {
    this.bus.writel(this.vintf(v, spec.VINTF_SID_REPLACE, s), phys);
    this.bus.writel(this.vintf(v, spec.VINTF_SID_MATCH, s), spec.VINTF_SID_MATCH.value({ VIRT_SID: virt, ENABLE: 1 }));
  }
  /** Puts commands at PROD on and rings. */
  issue(q: number, ...commands: readonly Pair[]): void {
    let prod = this.read(q, spec.VCMDQ_PROD);
    const size = 2 ** Number(this.bus.readq(this.vcmdq(q, spec.VCMDQ_BASE)) & 31n);
    for (const [low, high] of commands) {
      const at = ringOf(q) + BigInt((prod & (size - 1)) * 16);
      this.machine.memory.write64(at, low);
      this.machine.memory.write64(at + 8n, high);
      prod = (prod + 1) & (2 * size - 1);
    }
    this.bus.writel(this.vcmdq(q, spec.VCMDQ_PROD), prod);
  }

  // What software sees.

  read(q: number, register: Register): number {
    return this.bus.readl(this.vcmdq(q, register));
  }
  enabled(q: number): number {
    return this.read(q, spec.VCMDQ_STATUS);
  }
  vintfEnabled(v: number): number {
    return this.bus.readl(this.vintf(v, spec.VINTF_STATUS)) & 1;
  }
  rd(q: number): number {
    return spec.VCMDQ_CONS.of(this.read(q, spec.VCMDQ_CONS), 'RD');
  }
  err(q: number): number {
    return spec.VCMDQ_CONS.of(this.read(q, spec.VCMDQ_CONS), 'ERR');
  }
  /** Active errors. */
  errors(q: number): number {
    return (this.read(q, spec.VCMDQ_GERROR) ^ this.read(q, spec.VCMDQ_GERRORN)) >>> 0;
  }
  ack(q: number): void {
    this.bus.writel(this.vcmdq(q, spec.VCMDQ_GERRORN), this.read(q, spec.VCMDQ_GERROR));
  }

  // What hardware announced.

  get violations(): string[] {
    return this.acts.flatMap((act) => (act.kind === 'cmdqv-violation' ? [act.rule] : []));
  }
  /** Executed commands as [queue, qword 0, qword 1]. */
  get executed(): [string, bigint, bigint][] {
    return this.acts.flatMap((act): [string, bigint, bigint][] => {
      if (act.kind !== 'command') return [];
      const word = (i: number): bigint => BigInt(act.words[i] ?? 0);
      return [[act.queue, (word(1) << 32n) | word(0), (word(3) << 32n) | word(2)]];
    });
  }
}

// Commands, as dwords written by hand from the tables of IHI 0070 chapter 4.

/** CMD_SYNC, CS = NONE. */
export const SYNC: Pair = [0x46n, 0n];
/** CMD_TLBI_NH_ASID. */
export const nhAsid = (vmid: bigint, asid: bigint): Pair => [(asid << 48n) | (vmid << 32n) | 0x11n, 0n];
/** CMD_TLBI_NH_VA, one address. */
export const nhVa = (vmid: bigint, asid: bigint, va: bigint): Pair => [(asid << 48n) | (vmid << 32n) | 0x12n, va];
/** CMD_ATC_INV of everything. */
export const atcInv = (sid: bigint): Pair => [(sid << 32n) | 0x40n, 52n];
