/**
 * Random software against the hardware: register writes in any width at any moment, random memory (with structures that
 * point at each other more often than chance would), random DMA, any schedule. One seed is one run.
 */
import { CD } from '../../spec/cd.ts';
import { COMMANDS } from '../../spec/commands.ts';
import { L1STD } from '../../spec/l1std.ts';
import type { Layout } from '../../spec/layout.ts';
import { PAGE1, REGISTERS } from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import {
  createMachine,
  type DmaResult,
  full,
  linuxNesting,
  type Machine,
  minimal,
  qemuVirt,
  type ScheduleMode,
  type SmmuConfig,
  smallVmid,
} from '../../src/hw/index.ts';

const BASE = 0x0905_0000n;
/** Room for optional pages in between. */
const SECOND = 0x80000n;
const RAM = 0x4000_0000n;
const RAM_SIZE = 0x40_0000n;

/** xorshift32: the fuzzer's own draws, apart from the schedule's. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) | 1;
    for (let i = 0; i < 8; i++) this.next();
  }
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(n: number): boolean {
    return this.below(n) === 0;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
  wide(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }
}

/** Where pages lie if they are there; queue 0 of the ECMDQs, after the VATOS page. */
const PAGES: Readonly<Record<string, number>> = { page1: PAGE1, vatos: 0x20000, ecmdq: 0x30000 };

const STREAMS = [0, 1, 8, 9, 0x40, 0x100];

const CONFIGS: readonly SmmuConfig[] = [
  minimal,
  full,
  full,
  qemuVirt,
  linuxNesting,
  smallVmid,
  { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, BTM: 1, VMW: 1, SEV: 1, HTTU: 'ACCESS_DIRTY' } },
  { ...linuxNesting, IDR5: { ...linuxNesting.IDR5, STALL_MAX: 2 }, options: { queueWriteAbort: 'unreported' } },
  {
    ...linuxNesting,
    IDR0: { ...linuxNesting.IDR0, ATOS: 1, VATOS: 1 },
    IDR1: { ...linuxNesting.IDR1, ECMDQ: 1 },
    IDR6: { CMDQ_CONTROL_PAGE_LOG2NUMQ: 8 },
  },
  { ...qemuVirt, options: { ...qemuVirt.options, guardedWrites: 'taken', unknownReset: 0xffffffff } },
  {
    ...linuxNesting,
    options: { handshakeRewrite: 'cease-if-reverted', queueWriteAbort: 'asynchronous', reservedCommandBits: 'ill' },
  },
];

/** One run. */
export class Fuzzer {
  readonly random: Random;
  readonly machine: Machine;
  readonly mode: ScheduleMode;
  /** How accesses ended. */
  readonly ends: Record<DmaResult['status'], number> = { ok: 0, abort: 0, stall: 0 };

  constructor(seed: number) {
    this.random = new Random(seed);
    this.mode = this.random.pick(['eager', 'stepped', 'seeded']);
    const { random } = this;
    this.machine = createMachine({
      smmus: [
        { config: random.pick(CONFIGS), base: BASE },
        { config: random.pick(CONFIGS), base: BASE + SECOND },
      ],
      endpoints: [0, 1].flatMap((smmu) => [
        { name: `pci${smmu}`, smmu, streamIds: STREAMS.slice(0, 3), bdf: 8 + smmu, ats: true, pri: true, ssidBits: 8 },
        { name: `soc${smmu}`, smmu, streamIds: STREAMS.slice(3), canStall: true, ssidBits: 8 },
      ]),
      ram: [{ base: RAM, size: RAM_SIZE }],
      schedule: { mode: this.mode, seed, recordLimit: 0 },
    });
  }

  /** Mostly a place in memory, sometimes anything. */
  #address(): bigint {
    if (this.random.chance(16)) return this.random.wide();
    return (
      RAM + BigInt(this.random.below(0x40)) * 0x1000n + BigInt(this.random.chance(4) ? this.random.below(0x1000) : 0)
    );
  }

  /** One of the few pages that tables lie in. */
  #table(): bigint {
    return RAM + 0x8000n + BigInt(this.random.below(4)) * 0x1000n;
  }

  /** A value that may mean something: small, an address with low bits set, all ones, anything. */
  #value(): bigint {
    switch (this.random.below(6)) {
      case 0:
        return BigInt(this.random.below(64));
      case 1:
        return this.#address() | BigInt(this.random.below(32));
      case 2:
        return 0xffffffffffffffffn;
      case 3:
        return this.random.wide();
      case 4:
        return 1n << BigInt(this.random.below(64));
      default:
        return BigInt(this.random.next());
    }
  }

  /** One random act. */
  step(): void {
    const acts = [
      () => this.#register(),
      () => this.#enable(),
      () => this.#structure(),
      () => this.#structure(),
      () => this.#structure(),
      () => this.#working(),
      () => this.#descriptor(),
      () => this.#descriptor(),
      () => this.#descriptor(),
      () => this.#commands(),
      () => this.#dma(),
      () => this.#dma(),
      () => this.#dma(),
      () => this.#dma(),
      () => this.#other(),
    ];
    this.random.pick(acts)();
  }

  get #base(): bigint {
    return BASE + (this.random.chance(4) ? SECOND : 0n);
  }

  #register(): void {
    const { bus } = this.machine;
    const register = this.random.pick(REGISTERS);
    const page = PAGES[register.page] ?? 0;
    const at = this.random.chance(8) ? BigInt(this.random.below(0x40010)) : BigInt(page + register.offset);
    const addr = this.#base + at;
    const value = this.#value();
    switch (this.random.below(6)) {
      case 0:
        bus.writel(addr, Number(value & 0xffffffffn));
        break;
      case 1:
        bus.writelRelaxed(addr + BigInt(this.random.below(4)), Number(value & 0xffffffffn));
        break;
      case 2:
        bus.writeqRelaxed(addr + BigInt(this.random.below(8)), value);
        break;
      case 3:
        bus.readl(addr);
        break;
      case 4:
        bus.readq(addr);
        break;
      default:
        bus.writeq(addr, value);
    }
  }

  /** Bases and enables as a driver sets them, so that something works now and then. */
  #enable(): void {
    const { bus } = this.machine;
    const base = this.#base;
    if (this.random.chance(3)) bus.writel(base + 0x20n, 0);
    bus.writeq(base + 0x80n, RAM + BigInt(this.random.below(2)) * 0x10000n);
    bus.writel(base + 0x88n, this.random.pick([8, 8, 9, 9, 4, 0x10188, 0x10208, 63, this.random.next()]));
    bus.writeq(base + 0x90n, RAM + 0x20000n + BigInt(this.random.below(6)));
    bus.writeq(base + 0xa0n, RAM + 0x30000n + BigInt(this.random.below(4)));
    bus.writeq(base + 0xc0n, RAM + 0x38000n + BigInt(this.random.below(4)));
    for (const index of [0x98n, 0x9cn, 0x100a8n, 0x100acn, 0x100c8n, 0x100ccn]) bus.writel(base + index, 0);
    bus.writel(base + 0x64n, bus.readl(base + 0x60n));
    bus.writel(base + 0x50n, this.random.below(8));
    bus.writel(base + 0x20n, this.random.chance(8) ? this.random.next() : 0x1f);
  }

  #store(at: bigint, words: Uint32Array): void {
    // A CPU's store outside memory is a bus error: its own fault, not the hardware's.
    if (at < RAM || at + BigInt(words.byteLength) > RAM + RAM_SIZE) return;
    for (const [i, word] of words.entries()) this.machine.bus.store32(at + BigInt(4 * i), word);
  }

  /** A record with some fields set to likely values, others to anything. */
  #record(table: Layout, fixed: Readonly<Record<string, number>>): Uint32Array {
    const words = table.zero();
    const clean = !this.random.chance(3);
    for (const name of table.names) {
      const field = table.field(name);
      if (field.reserved !== undefined && !this.random.chance(64)) continue;
      const width = BigInt(table.width(name));
      let value = 0n;
      if (name in fixed && !this.random.chance(16)) value = BigInt(fixed[name] ?? 0);
      else if (field.address !== undefined)
        value = (this.random.chance(2) ? this.#table() : this.#address()) >> BigInt(field.address);
      else if (!clean && this.random.chance(4)) value = this.random.wide();
      table.set(words, name, value & ((1n << width) - 1n));
    }
    return words;
  }

  #structure(): void {
    const place = BigInt(this.random.below(2)) * 0x10000n;
    switch (Math.max(0, this.random.below(5) - 2)) {
      case 0: {
        const fixed = {
          V: 1,
          Config: this.random.pick([0, 4, 5, 6, 6, 7, 7]),
          S2AA64: 1,
          S2T0SZ: 25,
          S2SL0: 1,
          S2TG: 0,
          S2PS: 5,
          S2R: 1,
        };
        const more = {
          S2VMID: this.random.below(4),
          EATS: this.random.below(3),
          S2S: this.random.below(2),
          S1CDMax: this.random.below(3),
          STRW: 0,
          S2ENDI: 0,
          S1Fmt: 0,
        };
        this.#store(
          RAM + place + BigInt(64 * this.random.pick(STREAMS.slice(0, 5))),
          this.#record(STE as Layout, { ...fixed, ...more }),
        );
        break;
      }
      case 1: {
        const fixed = {
          V: 1,
          AA64: 1,
          T0SZ: 25,
          TG0: 0,
          IPS: 5,
          A: 1,
          R: 1,
          S: this.random.below(2),
          EPD1: 1,
          ENDI: 0,
          ASID: this.random.below(4),
        };
        this.#store((this.#address() / 64n) * 64n, this.#record(CD as Layout, fixed));
        break;
      }
      default:
        this.#store(
          RAM + place + BigInt(8 * this.random.below(4)),
          this.#record(L1STD as Layout, { Span: this.random.below(10), L2Ptr: Number((RAM + place) >> 6n) }),
        );
    }
  }

  /** A stream whose stage 2 works, told to the hardware: what random bits would hardly ever make. */
  #working(): void {
    const S2S = this.random.below(2);
    const fixed = { V: 1, Config: 6, S2VMID: 1, S2AA64: 1, S2T0SZ: 25, S2SL0: 1, S2PS: 5, S2R: 1 };
    const ste = STE.encode({
      ...fixed,
      S2S: this.machine.smmus[0]?.caps.STALL_MODEL === 0 ? S2S : 0,
      S2TTB: (RAM >> 4n) | 0x800n,
    });
    for (const sid of [0, 1, 8, 9, 0x40])
      for (const place of [0n, 0x10000n]) this.#store(RAM + place + BigInt(64 * sid), ste);
    for (const [i, entry] of [RAM + 0x9003n, RAM + 0xa003n].entries())
      this.machine.bus.store64(RAM + 0x8000n + BigInt(0x1000 * i), entry);
    for (let i = 0; i < 4; i++)
      this.machine.bus.store64(
        RAM + 0xa000n + BigInt(8 * i),
        (RAM + BigInt(0x20000 + this.random.below(64) * 0x1000)) | 0x7ffn,
      );
    this.#enable();
    this.#ring([
      [4n, 0x1fn],
      [0x30n, 0n],
      [0x46n, 0n],
    ]);
  }

  /** Puts commands into the queue and moves PROD. */
  #ring(commands: readonly (readonly [bigint, bigint])[]): void {
    const { bus } = this.machine;
    const base = BASE;
    const queue = bus.readq(base + 0x90n) & 0xffffffffffe0n;
    if (queue < RAM || queue + 0x100n > RAM + RAM_SIZE) return;
    for (const [i, [low, high]] of commands.entries()) {
      bus.store64(queue + BigInt(16 * i), low);
      bus.store64(queue + BigInt(16 * i + 8), high);
    }
    bus.writel(base + 0x98n, commands.length);
  }

  /** A translation table descriptor that points somewhere in memory, itself included. */
  #descriptor(): void {
    const page = this.random.chance(4) ? RAM + BigInt(this.random.below(0x40)) * 0x1000n : this.#table();
    const at = page + BigInt(8 * this.random.below(this.random.chance(8) ? 512 : 8));
    const attributes = this.random.pick([0x7ffn, 0x7c3n, 0x4c3n, 0x401n, 0x7c1n, BigInt(this.random.below(0x1000))]);
    const target = this.random.chance(2) ? this.#table() : this.#address();
    const value = this.random.chance(16) ? this.random.wide() : (target & ~0xfffn) | attributes;
    this.machine.bus.store64(at, value);
  }

  #commands(): void {
    const { bus } = this.machine;
    const base = this.#base;
    const queue = bus.readq(base + 0x90n) & 0xffffffffffe0n;
    const log2 = Number(bus.readq(base + 0x90n) & 31n);
    const prod = bus.readl(base + 0x98n);
    const count = 1 + this.random.below(4);
    for (let i = 0; i < count; i++) {
      const layout = this.random.pick(Object.values(COMMANDS)) as Layout;
      const fixed = {
        Opcode: (layout as unknown as { opcode: number }).opcode,
        SSec: 0,
        StreamID: this.random.pick(STREAMS),
        VMID: this.random.below(4),
        STAG: this.random.below(4),
        MSIAddress: this.random.chance(2) ? 0 : Number((RAM + 0x3f000n) >> 2n),
      };
      const at = queue + BigInt(((prod + i) & (2 ** Math.min(log2, 10) - 1)) * 16);
      this.#store(at, this.#record(layout, fixed));
    }
    bus.writel(base + 0x98n, this.random.chance(8) ? this.random.next() : (prod + count) & (2 ** (log2 + 1) - 1));
  }

  #dma(): void {
    const endpoint = this.random.pick(this.machine.endpoints);
    const low = BigInt(this.random.below(0x8000)) + (this.random.chance(4) ? RAM : 0n);
    const iova = this.random.chance(8) ? this.random.wide() : low;
    const options = {
      stream: this.random.below(endpoint.streamIds.length),
      ...(this.random.chance(3)
        ? { SubstreamID: this.random.chance(8) ? this.random.below(1 << 20) : this.random.below(4) }
        : {}),
      privileged: this.random.chance(4),
      instruction: this.random.chance(4),
      atomic: this.random.chance(4),
      ats: this.random.chance(2),
    };
    const length = this.random.chance(16) ? 0x3000 : this.random.below(64);
    const result = this.random.chance(2)
      ? endpoint.read(iova, length, options)
      : endpoint.write(iova, new Uint8Array(length).fill(this.random.next()), options);
    this.ends[result.status]++;
    if (!['ok', 'abort', 'stall'].includes(result.status)) throw new Error(`an access ended in ${result.status}`);
  }

  #other(): void {
    const { machine, random } = this;
    switch (random.below(8)) {
      case 0:
        machine.drain();
        break;
      case 1:
        for (let i = random.below(8); i > 0; i--) machine.step();
        break;
      case 2:
        machine.bus.mb();
        break;
      case 3:
        machine.bus.pciWrite32(
          8 + random.below(2),
          0x100 + 4 * random.below(0x20),
          random.chance(2) ? 0x80000001 : random.next(),
        );
        break;
      case 4: {
        const ats = random.pick(machine.endpoints).ats;
        if (ats !== null) ats.hang = random.chance(8);
        ats?.send({
          StreamID: random.pick(STREAMS),
          SubstreamID: random.chance(2) ? -1 : random.below(8),
          PRGIndex: random.below(512),
          address: random.wide(),
          read: random.chance(2),
          write: random.chance(2),
          execute: false,
          privileged: false,
          last: random.chance(2),
        });
        break;
      }
      case 5:
        machine.broadcastTlbi({
          op: random.pick(['VMALLS12E1', 'VAE1', 'IPAS2E1', 'ALLE1', 'ALLE2', 'VAE2', 'ASIDE1']),
          VMID: random.below(4),
          ASID: random.below(4),
          address: random.wide(),
        });
        break;
      case 6:
        machine.bus.cpuRelax();
        break;
      default:
        machine.smmus[random.below(2)]?.vmidHolders(random.below(4));
    }
  }
}
