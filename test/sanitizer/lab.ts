/** A bare machine under the sanitizer: structures stored by hand, commands with real words, no driver. */
import { CD } from '../../spec/cd.ts';
import * as commands from '../../spec/commands.ts';
import { pte1, pte2 } from '../../spec/descriptors.ts';
import { L1STD } from '../../spec/l1std.ts';
import type { Encoding, Layout, Words } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import type { OwnershipNote } from '../../src/driver/kernel.ts';
import { linuxNesting, type Machine, type MachineConfig, type SmmuConfig } from '../../src/hw/index.ts';
import { Sanitizer, type SanitizerOptions } from '../../src/sanitizer/index.ts';
import { BASE, CMDQ, machineWith, Regs } from '../hw/harness.ts';

export const STRTAB = 0x4040_0000n;
export const L2TAB = 0x4044_0000n;
export const CDTAB = 0x4048_0000n;
/** Root of a stage 2 table; further ones 64 KiB apart. */
export const S2ROOT = 0x4050_0000n;
/** Root of a stage 1 table; further ones 64 KiB apart. */
export const S1ROOT = 0x4060_0000n;
/** Data pages. */
export const DATA = 0x4080_0000n;

/** SIDSIZE 8, so that a linear Stream table is small; ATS, HTTU. */
export const LAB_CONFIG: SmmuConfig = {
  ...linuxNesting,
  IDR0: { ...linuxNesting.IDR0, HTTU: 'ACCESS_DIRTY', ATS: 1, VMW: 1 },
  IDR1: { ...linuxNesting.IDR1, SIDSIZE: 8, ATTR_PERMS_OVR: 1 },
};

type Ste = Encoding<typeof STE.fields>;
type Cd = Encoding<typeof CD.fields>;

/** Stage 2: 40-bit intermediate addresses, 4 KB granule, start level 1. */
export const s2 = (VMID: number, root = S2ROOT, more: Ste = {}): Words =>
  STE.encode({
    V: 1,
    Config: 'S2_TRANS',
    S2VMID: VMID,
    S2T0SZ: 25,
    S2SL0: 1,
    S2IR0: 'WB_RA_WA',
    S2OR0: 'WB_RA_WA',
    S2SH0: 'ISH',
    S2TG: '4KB',
    S2PS: 'BITS_48',
    S2AA64: 'AARCH64',
    S2PTW: 1,
    S2R: 1,
    S2TTB: root >> 4n,
    ...more,
  });

/** Both stages; the VM's CD table at an intermediate address. */
export const nested = (VMID: number, root = S2ROOT, more: Ste = {}): Words =>
  s2(VMID, root, {
    Config: 'NESTED',
    S1ContextPtr: 0x1_0000n >> 6n,
    S1CIR: 'WB_RA',
    S1COR: 'WB_RA',
    S1CSH: 'ISH',
    ...more,
  });

/** Stage 1 alone through the host's CD table. */
export const s1 = (table = CDTAB, more: Ste = {}): Words =>
  STE.encode({
    V: 1,
    Config: 'S1_TRANS',
    S1ContextPtr: table >> 6n,
    S1CIR: 'WB_RA',
    S1COR: 'WB_RA',
    S1CSH: 'ISH',
    ...more,
  });

export const abort = (): Words => STE.encode({ V: 1, Config: 'ABORT' });
export const bypass = (): Words => STE.encode({ V: 1, Config: 'BYPASS', SHCFG: 'INCOMING' });

/** A CD with one TTB of 39 bits. */
export const cd = (ASID: number, root = S1ROOT, more: Cd = {}): Words =>
  CD.encode({
    V: 1,
    T0SZ: 25,
    TG0: '4KB',
    IR0: 'WB_RA_WA',
    OR0: 'WB_RA_WA',
    SH0: 'ISH',
    EPD1: 1,
    IPS: 'BITS_48',
    AA64: 'AARCH64',
    R: 1,
    A: 'ABORT',
    ASET: 'PRIVATE',
    ASID,
    TTB0: root >> 4n,
    MAIR0: 0xff,
    ...more,
  });

/** Bytes between the tables of one root: level 2 at +0x2000, level 3 at +0x4000 and up. */
const LEVEL2 = 0x2000n;
const LEVEL3 = 0x4000n;

const qwordOf = (words: Words): bigint => (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0);

/** A Table descriptor. */
export const tableDescriptor = (pa: bigint): bigint =>
  qwordOf(pte2('4k', 2, 'table').encode({ Valid: 1, Type: 1, NextLevelTableAddress: pa >> 12n }));

type LeafFields = Readonly<Record<string, number | bigint | string>>;

function encoded(table: Layout, fields: LeafFields): Words {
  const words = table.zero();
  for (const [name, value] of Object.entries(fields)) table.set(words, name, value);
  return words;
}

/** A stage 2 page, Normal, read and write. */
export const page2 = (pa: bigint, more: LeafFields = {}): bigint =>
  qwordOf(
    encoded(pte2('4k', 3, 'page'), {
      Valid: 1,
      Type: 1,
      MemAttr: 15,
      S2AP: 'RW',
      SH: 'ISH',
      AF: 1,
      OutputAddress: pa >> 12n,
      ...more,
    }),
  );

/** A stage 1 page, not global, read and write. */
export const page1 = (pa: bigint, more: LeafFields = {}): bigint =>
  qwordOf(
    encoded(pte1('4k', 3, 'page'), {
      Valid: 1,
      Type: 1,
      AP: 'RW',
      SH: 'ISH',
      AF: 1,
      nG: 1,
      OutputAddress: pa >> 12n,
      ...more,
    }),
  );

/** A stage 2 block of 2 MiB. */
export const block2 = (pa: bigint, more: LeafFields = {}): bigint =>
  qwordOf(
    encoded(pte2('4k', 2, 'block'), {
      Valid: 1,
      Type: 0,
      MemAttr: 15,
      S2AP: 'RW',
      SH: 'ISH',
      AF: 1,
      OutputAddress: pa >> 21n,
      ...more,
    }),
  );

/** An SMMU with a linear Stream table of 256 STEs, and the sanitizer on its machine. */
export class SanitizerLab {
  readonly machine: Machine;
  readonly regs: Regs;
  readonly sanitizer: Sanitizer;

  constructor(options: SanitizerOptions = {}, config: SmmuConfig = LAB_CONFIG, more: Partial<MachineConfig> = {}) {
    this.machine = machineWith(config, {
      endpoints: [0x10, 0x11, 0x12].map((sid) => ({ name: `dev${sid.toString(16)}`, streamIds: [sid] })),
      ...more,
    });
    this.regs = new Regs(this.machine, BASE);
    this.sanitizer = new Sanitizer(this.machine, options);
  }

  /** Ids of the findings so far. */
  get rules(): string[] {
    return this.sanitizer.report().findings.map(({ rule }) => rule);
  }

  note(what: OwnershipNote['what'], act: OwnershipNote['act'], id: bigint | number, owner: string, where = ''): void {
    this.sanitizer.announce({ what, act, where, id: BigInt(id), owner });
  }

  vmid(act: 'alloc' | 'free' | 'give', id: number, owner = 'vm', where = 'smmu0'): void {
    this.note('vmid', act, id, owner, where);
  }

  asid(act: 'alloc' | 'free', id: number, owner = 'process'): void {
    this.note('asid', act, id, owner);
  }

  freePage(pa: bigint, owner = 'page'): void {
    this.note('page', 'free', pa, owner);
  }

  done(owner: string, sid = -1): void {
    this.note('operation', 'done', Math.max(sid, 0), owner, sid < 0 ? '' : 'smmu0');
  }

  /** What Linux does at reset: queues, table, CFGI_ALL, TLBI of everything, SMMUEN. */
  boot(): this {
    this.fillAbort(STRTAB, 256);
    this.regs.start(8);
    this.regs.write64(spec.STRTAB_BASE, STRTAB);
    this.regs.write(spec.STRTAB_BASE_CFG, spec.STRTAB_BASE_CFG.value({ LOG2SIZE: 8 }));
    this.invalidateAll();
    this.enable();
    return this;
  }

  /** As {@link boot} with two levels, 64 STEs each, one of them active. */
  bootTwoLevel(): this {
    this.fillAbort(L2TAB, 64);
    this.store(STRTAB, L1STD.encode({ Span: 7, L2Ptr: L2TAB >> 6n }));
    this.regs.start(8);
    this.regs.write64(spec.STRTAB_BASE, STRTAB);
    this.regs.write(spec.STRTAB_BASE_CFG, spec.STRTAB_BASE_CFG.value({ FMT: 'TWO_LEVEL', SPLIT: '4K', LOG2SIZE: 8 }));
    this.invalidateAll();
    this.enable();
    return this;
  }

  invalidateAll(): void {
    this.machine.drain();
    this.commands(commands.encodeCommand('CMD_CFGI_ALL'));
    this.machine.drain();
    this.commands(commands.CMD_TLBI_EL2_ALL.encode());
    this.commands(commands.CMD_TLBI_NSNH_ALL.encode());
    this.machine.drain();
  }

  enable(more = 0): void {
    const on = spec.CR0.bit('CMDQEN', 'EVENTQEN', 'SMMUEN');
    this.regs.write(spec.CR0, on | more);
    this.machine.drain();
  }

  disable(): void {
    this.regs.write(spec.CR0, spec.CR0.bit('CMDQEN', 'EVENTQEN'));
  }

  fillAbort(base: bigint, count: number): void {
    for (let i = 0; i < count; i++) this.store(base + BigInt(i * STE.bytes), abort());
  }

  /** Stores a whole record, words in order. */
  store(pa: bigint, words: Words): void {
    this.storeWords(pa, words, [...Array(words.length / 2).keys()]);
  }

  /** Stores some 64-bit words of a record. */
  storeWords(pa: bigint, words: Words, qwords: readonly number[]): void {
    for (const q of qwords) {
      const value = (BigInt(words[2 * q + 1] ?? 0) << 32n) | BigInt(words[2 * q] ?? 0);
      this.machine.bus.store64(pa + BigInt(8 * q), value);
    }
  }

  ste(sid: number): bigint {
    return STRTAB + BigInt(sid * STE.bytes);
  }

  cdAt(ssid: number, table = CDTAB): bigint {
    return table + BigInt(ssid * CD.bytes);
  }

  /** Commands without a CMD_SYNC. */
  raw(...list: readonly Words[]): void {
    const pairs = list.map((words): [bigint, bigint] => [
      (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0),
      (BigInt(words[3] ?? 0) << 32n) | BigInt(words[2] ?? 0),
    ]);
    this.regs.issue(...pairs);
  }

  /** Commands and a CMD_SYNC. */
  commands(...list: readonly Words[]): void {
    this.raw(...list, commands.CMD_SYNC.encode());
  }

  cfgiSte(sid: number, leaf = 1): void {
    this.commands(commands.CMD_CFGI_STE.encode({ StreamID: sid, Leaf: leaf }));
  }

  cfgiCd(sid: number, ssid = 0, leaf = 1): void {
    this.commands(commands.CMD_CFGI_CD.encode({ StreamID: sid, SubstreamID: ssid, Leaf: leaf }));
  }

  vmall(VMID: number): void {
    this.commands(commands.CMD_TLBI_S12_VMALL.encode({ VMID }));
  }

  /** Puts an STE in place that aborted before: everything but word 0, CFGI, word 0, CFGI. */
  install(sid: number, words: Words): void {
    this.storeWords(this.ste(sid), words, [1, 2, 3, 4, 5, 6, 7]);
    this.cfgiSte(sid);
    this.storeWords(this.ste(sid), words, [0]);
    this.cfgiSte(sid);
  }

  /** Makes an STE abort: word 0, CFGI, the rest, CFGI. */
  remove(sid: number): void {
    this.storeWords(this.ste(sid), abort(), [0]);
    this.cfgiSte(sid);
    this.storeWords(this.ste(sid), abort(), [1, 2, 3, 4, 5, 6, 7]);
    this.cfgiSte(sid);
  }

  /** Puts a CD in place that was not valid before. */
  installCd(sid: number, ssid: number, words: Words, table = CDTAB): void {
    this.storeWords(this.cdAt(ssid, table), words, [1, 2, 3, 4, 5, 6, 7]);
    this.cfgiCd(sid, ssid);
    this.storeWords(this.cdAt(ssid, table), words, [0]);
    this.cfgiCd(sid, ssid);
  }

  /** Where the descriptor of a level stands for an input address below 2 GiB. */
  entryAt(root: bigint, level: 1 | 2 | 3, input: bigint): bigint {
    if (level === 1) return root + 8n * (input >> 30n);
    if (level === 2) return root + LEVEL2 + 0x1000n * (input >> 30n) + 8n * ((input >> 21n) & 0x1ffn);
    return this.level3(root, input) + 8n * ((input >> 12n) & 0x1ffn);
  }

  /** The level 3 table of an input address. */
  level3(root: bigint, input: bigint): bigint {
    return root + LEVEL3 + 0x1000n * (input >> 21n);
  }

  /** Tables down to level 3 for an input address, and a leaf there. */
  map(root: bigint, input: bigint, leaf: bigint): void {
    const { bus } = this.machine;
    bus.store64(this.entryAt(root, 1, input), tableDescriptor(root + LEVEL2 + 0x1000n * (input >> 30n)));
    bus.store64(this.entryAt(root, 2, input), tableDescriptor(this.level3(root, input)));
    bus.store64(this.entryAt(root, 3, input), leaf);
  }

  /** Stores a descriptor of a level. */
  put(root: bigint, level: 1 | 2 | 3, input: bigint, descriptor: bigint): void {
    this.machine.bus.store64(this.entryAt(root, level, input), descriptor);
  }

  /** A DMA read by a stream. */
  dma(sid: number, iova = 0n): void {
    this.machine.endpoint(`dev${sid.toString(16)}`).read(iova, 8);
  }

  get cmdq(): bigint {
    return CMDQ;
  }
}
