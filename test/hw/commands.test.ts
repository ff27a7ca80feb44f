import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { createMachine, linuxNesting, qemuVirt, type SmmuConfig, type TlbInvalidation } from '../../src/hw/index.ts';
import { NoTranslation } from '../../src/hw/translation-unit.ts';
import { BASE, machineWith, Regs } from './harness.ts';
import { mapPage, PAGE_RW, stage2Ste, turnOn, writeSte } from './stage2.ts';

type Pair = readonly [bigint, bigint];

/** Writes down what commands ask of the caches. */
class Recorder extends NoTranslation {
  readonly calls: unknown[] = [];
  override tlb(invalidation?: TlbInvalidation): void {
    this.calls.push({ ...invalidation });
  }
  override ste(...args: unknown[]): void {
    this.calls.push(['ste', ...args]);
  }
  override steRange(...args: unknown[]): void {
    this.calls.push(['steRange', ...args]);
  }
  override allConfig(): void {
    this.calls.push(['allConfig']);
  }
  override cd(...args: unknown[]): void {
    this.calls.push(['cd', ...args]);
  }
  override allCds(...args: unknown[]): void {
    this.calls.push(['allCds', ...args]);
  }
  override prefetch(...args: unknown[]): void {
    this.calls.push(['prefetch', ...args]);
  }
}

function callsOf(commands: readonly Pair[], config: SmmuConfig = linuxNesting): unknown[] {
  const recorder = new Recorder();
  const ram = [{ base: 0x4000_0000n, size: 0x100_0000n }];
  const r = new Regs(createMachine({ smmus: [{ config, base: BASE }], ram }, () => recorder));
  r.start();
  r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN'));
  r.issue(...commands);
  expect(r.errors).toBe(0);
  return recorder.calls;
}

const NONE = { VMID: 0, ASID: 0, addrHi: 0, addrLo: 0, Leaf: false, TTL: 0, TG: 0, NUM: 0, SCALE: 0, broadcast: false };

describe('TLBI commands as the TLB gets them [4.4; the encoded examples of the reference]', () => {
  test.each<[string, Pair, Partial<TlbInvalidation>]>([
    ['NH_ALL', [0x0000001200000010n, 0n], { opcode: 0x10, VMID: 0x12 }],
    ['NH_ASID', [0x0034001200000011n, 0n], { opcode: 0x11, VMID: 0x12, ASID: 0x34 }],
    [
      'NH_VA, one address',
      [0x0034001200000012n, 0x0000400012345001n],
      { opcode: 0x12, VMID: 0x12, ASID: 0x34, addrHi: 0x4000, addrLo: 0x12345000, Leaf: true },
    ],
    [
      'NH_VA, 16 pages of 4 KB at level 3',
      [0x0034001200400012n, 0x0000400012345701n],
      { opcode: 0x12, VMID: 0x12, ASID: 0x34, addrHi: 0x4000, addrLo: 0x12345000, Leaf: true, TG: 1, TTL: 3, SCALE: 4 },
    ],
    ['S12_VMALL', [0x0000001200000028n, 0n], { opcode: 0x28, VMID: 0x12 }],
    ['S2_IPA', [0x000000120000002an, 0x0000000087654000n], { opcode: 0x2a, VMID: 0x12, addrLo: 0x87654000 }],
    ['NSNH_ALL', [0x30n, 0n], { opcode: 0x30 }],
    ['EL2_ASID, VMID bits ignored', [0x0034001200000021n, 0n], { opcode: 0x21, ASID: 0x34 }],
    [
      'NH_VA with TG 0: NUM, SCALE and TTL do not count',
      [0x00340012005ff012n, 0x0000400012345301n],
      { opcode: 0x12, VMID: 0x12, ASID: 0x34, addrHi: 0x4000, addrLo: 0x12345000, Leaf: true },
    ],
    [
      'bit 25 is no part of SCALE without IDR5.DS',
      [0x0000001202100013n, 0x1400n],
      { opcode: 0x13, VMID: 0x12, addrLo: 0x1000, TG: 1, SCALE: 1 },
    ],
  ])('%s', (_, command, expected) => {
    expect(callsOf([command])).toEqual([{ ...NONE, ...expected }]);
  });

  test('without RIL the range fields do not count', () => {
    const noRil: SmmuConfig = { ...qemuVirt, IDR3: { ...qemuVirt.IDR3, RIL: 0 } };
    expect(callsOf([[0x0034001200400012n, 0x0000400012345701n]], noRil)).toEqual([
      { ...NONE, opcode: 0x12, VMID: 0x12, ASID: 0x34, addrHi: 0x4000, addrLo: 0x12345000, Leaf: true },
    ]);
  });

  test("a VMID wider than the SMMU's hits nothing; the command is consumed", () => {
    const narrow: SmmuConfig = { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, VMID16: 0 } };
    expect(callsOf([[0x0000011200000028n, 0n]], narrow)).toEqual([]);
    expect(callsOf([[0x0000001200000028n, 0n]], narrow).length).toBe(1);
  });
});

describe('CFGI commands [4.3]', () => {
  test.each<[string, Pair, unknown[]]>([
    ['STE, Leaf', [0x0000010800000003n, 1n], ['ste', 0x108, true]],
    ['STE', [0x0000010800000003n, 0n], ['ste', 0x108, false]],
    ['STE_RANGE', [0x0000010000000004n, 7n], ['steRange', 0x100, 7]],
    ['ALL', [0x0000123400000004n, 0x1fn], ['allConfig']],
    ['CD, Leaf', [0x0000010800005005n, 1n], ['cd', 0x108, 5, true]],
    ['CD', [0x0000010800005005n, 0n], ['cd', 0x108, 5, false]],
    ['CD_ALL', [0x0000010800000006n, 0n], ['allCds', 0x108]],
  ])('%s', (_, command, expected) => {
    expect(callsOf([command])).toEqual([expected]);
  });

  test('a StreamID or SubstreamID out of range has no effect and is no error [4.1.7]', () => {
    expect(
      callsOf([
        [0x0001000000000003n, 1n],
        [0x0001000000000006n, 0n],
      ]),
    ).toEqual([]);
    expect(callsOf([[0x0000000800005005n, 1n]], qemuVirt)).toEqual([]);
  });
});

describe('CMD_PREFETCH_* [4.2]', () => {
  test('CONFIG and ADDR: which streams and addresses', () => {
    expect(callsOf([[0x0000010800005801n, 0n]])).toEqual([['prefetch', 0x108, 5, null]]);
    const four: Pair = [0x0000010800000002n, 0x0000400012345042n];
    expect(callsOf([four])).toEqual(
      [0x12345000, 0x12349000, 0x1234d000, 0x12351000].map((lo) => ['prefetch', 0x108, -1, { hi: 0x4000, lo }]),
    );
  });

  test('SSV without SubstreamIDs acts as SSV 0, or has no effect by the option; so do out of range ids', () => {
    expect(callsOf([[0x0000010800005801n, 0n]], qemuVirt)).toEqual([['prefetch', 0x108, -1, null]]);
    const none: SmmuConfig = { ...qemuVirt, options: { ...qemuVirt.options, ssvWithoutSubstreams: 'no-effect' } };
    expect(callsOf([[0x0000010800005801n, 0n]], none)).toEqual([]);
    expect(callsOf([[0x0001000000000001n, 0n]])).toEqual([]);
  });

  test('fills the TLB, and a faulting one leaves no event', () => {
    const r = new Regs(machineWith());
    r.start();
    turnOn(r);
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 1, 0x4080_0000n | PAGE_RW);
    const tlb = (): number =>
      r.machine.smmus[0]?.caches.vmidHolders(3).filter(({ kind }) => kind === 'tlb').length ?? -1;
    r.issue([0x0000000800000002n, 0x2000n], [0x0000010800000002n, 0x1000n]);
    expect([tlb(), r.read(spec.EVENTQ_PROD), r.cons]).toEqual([0, 0, 2]);
    r.issue([0x0000000800000002n, 0x1000n]);
    expect([tlb(), r.read(spec.EVENTQ_PROD)]).toEqual([1, 0]);
  });

  test('SMMUEN 0: nothing is fetched', () => {
    const r = new Regs(machineWith());
    r.start();
    turnOn(r);
    writeSte(r, 8, stage2Ste(3));
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    r.issue([0x0000000800000001n, 0n]);
    expect(r.machine.smmus[0]?.caches.vmidHolders(3)).toEqual([]);
  });
});

test('VMW widens invalidation to a group of VMIDs, the lookup stays exact [3.17.6]', () => {
  const r = new Regs(
    machineWith(
      { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, VMW: 1 } },
      { endpoints: [{ name: 'd', streamIds: [8] }] },
    ),
  );
  r.start();
  turnOn(r);
  r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN') | (1 << 6));
  writeSte(r, 8, stage2Ste(7));
  mapPage(r, 0, 0x4080_0000n | PAGE_RW);
  r.machine.endpoint('d').read(0n, 1);
  const held = (): number =>
    r.machine.smmus[0]?.caches.vmidHolders(7).filter(({ kind }) => kind === 'tlb').length ?? -1;
  r.issue([(4n << 32n) | 0x28n, 0n]);
  expect(held()).toBe(1);
  r.issue([(6n << 32n) | 0x28n, 0n]);
  expect(held()).toBe(0);
});

test('an aborted Event queue MSI raises MSI_EVENTQ_ABT_ERR; a good one is written after PROD moved [7.5, 3.18]', () => {
  const r = new Regs(machineWith(linuxNesting, { endpoints: [{ name: 'd', streamIds: [8] }] }));
  r.start();
  turnOn(r);
  r.write64(spec.EVENTQ_IRQ_CFG0, 0x1000n);
  r.write(spec.EVENTQ_IRQ_CFG1, 0x77);
  r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('EVENTQ_IRQEN'));
  r.machine.endpoint('d').read(0n, 1);
  expect([r.errors, r.read(spec.EVENTQ_PROD)]).toEqual([spec.GERROR.bit('MSI_EVENTQ_ABT_ERR'), 1]);
  r.acknowledge();
  r.write(spec.IRQ_CTRL, 0);
  r.write64(spec.EVENTQ_IRQ_CFG0, 0x4000_2000n);
  r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('EVENTQ_IRQEN'));
  r.write(spec.EVENTQ_CONS, 1);
  r.machine.endpoint('d').read(0n, 1);
  expect([r.errors, r.machine.memory.read32(0x4000_2000n)]).toEqual([0, 0x77]);
});
