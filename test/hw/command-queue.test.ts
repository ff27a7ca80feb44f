import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { type Announcement, linuxNesting, qemuVirt, type SmmuConfig } from '../../src/hw/index.ts';
import { CMDQ, machineWith, NSNH_ALL, Regs, SYNC_NONE } from './harness.ts';

type Pair = readonly [bigint, bigint];

function started(config: SmmuConfig = linuxNesting): Regs {
  const r = new Regs(machineWith(config));
  r.start();
  return r;
}

const ILL = 1;
const ABT = 2;

describe('consumption [4.1]', () => {
  test('a doorbell drains the queue; the wrap bit toggles at its end [3.5.1]', () => {
    const r = started();
    for (let i = 0; i < 5; i++) r.issue(...Array.from({ length: 7 }, () => NSNH_ALL));
    expect(r.cons).toBe(35 % 32);
    expect(r.read(spec.CMDQ_PROD)).toBe(35 % 32);
    expect(r.errors).toBe(0);
  });

  test('a full queue of 16 is consumed whole: PROD equals CONS with the other wrap', () => {
    const r = started();
    r.issue(...Array.from({ length: 16 }, () => NSNH_ALL));
    expect(r.cons).toBe(16);
  });

  test('LOG2SIZE 0: one entry, the wrap bit is bit 0', () => {
    const r = new Regs(machineWith());
    r.start(0);
    r.issue(NSNH_ALL);
    expect(r.cons).toBe(1);
    r.issue(NSNH_ALL);
    expect([r.cons, r.errors]).toEqual([0, 0]);
  });

  test('inconsistent indices: nothing is consumed until they fit again [3.5.1]', () => {
    const r = started();
    r.write(spec.CMDQ_PROD, 0x1f);
    expect([r.cons, r.errors]).toEqual([0, 0]);
    r.write(spec.CMDQ_PROD, 0);
    r.issue(NSNH_ALL);
    expect(r.cons).toBe(1);
  });

  test('nothing is consumed while CMDQEN is 0, and all of it when it becomes 1 [6.3.9.3]', () => {
    const r = started();
    r.write(spec.CR0, 0);
    r.issue(NSNH_ALL, SYNC_NONE);
    expect(r.cons).toBe(0);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    expect(r.cons).toBe(2);
  });

  test('in a stepped machine a command moves only when stepped', () => {
    const r = new Regs(machineWith(linuxNesting, { schedule: { mode: 'stepped' } }));
    r.start();
    r.machine.drain();
    r.issue(NSNH_ALL, SYNC_NONE);
    expect(r.cons).toBe(0);
    r.machine.step('smmu0.cmdq');
    expect(r.cons).toBe(1);
    r.machine.step('smmu0.cmdq');
    expect(r.machine.step()).toBe(false);
    expect(r.cons).toBe(2);
  });

  test('a base that is not aligned to the queue counts as aligned [6.3.26]', () => {
    const r = new Regs(machineWith());
    r.write64(spec.CMDQ_BASE, (CMDQ + 0x60n) | 4n);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    r.issue([0xffn, 0n]);
    expect([r.cons, r.err, r.errors]).toEqual([0, ILL, 1]);
  });
});

describe('errors and restart [7.1]', () => {
  test('CERROR_ILL: CONS stays, later commands wait, acknowledging fetches again', () => {
    const r = started();
    r.issue(NSNH_ALL, [0xffn, 0n], NSNH_ALL);
    expect([r.cons, r.err, r.errors]).toEqual([1, ILL, spec.GERROR.bit('CMDQ_ERR')]);
    r.issue(NSNH_ALL);
    expect(r.cons).toBe(1);
    r.machine.memory.write64(CMDQ + 16n, 0x46n);
    r.acknowledge();
    expect([r.cons, r.errors]).toEqual([4, 0]);
  });

  test('acknowledging without a repair fails again: GERROR toggles a second time', () => {
    const r = started();
    r.issue([0xffn, 0n]);
    expect(r.read(spec.GERROR)).toBe(1);
    r.acknowledge();
    expect([r.read(spec.GERROR), r.read(spec.GERRORN), r.errors]).toEqual([0, 1, 1]);
  });

  test('PROD may be moved back to CONS while the error is active', () => {
    const r = started();
    r.issue([0xffn, 0n], NSNH_ALL);
    r.write(spec.CMDQ_PROD, 0);
    r.acknowledge();
    expect([r.cons, r.errors]).toEqual([0, 0]);
  });

  test('CERROR_ABT: a queue outside memory', () => {
    const r = started();
    r.write(spec.CR0, 0);
    r.write64(spec.CMDQ_BASE, 0x1000_0004n);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    r.write(spec.CMDQ_PROD, 1);
    expect([r.cons, r.err, r.errors]).toEqual([0, ABT, 1]);
  });

  test('an active CMDQ_ERR survives CMDQEN', () => {
    const r = started();
    r.issue([0xffn, 0n], NSNH_ALL);
    r.write(spec.CR0, 0);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    expect([r.cons, r.errors]).toEqual([0, 1]);
  });

  test('toggling GERRORN for an inactive error makes it active: the choice made here [6.3.20]', () => {
    const r = started();
    r.write(spec.GERRORN, 1);
    r.issue(NSNH_ALL);
    expect(r.cons).toBe(0);
    r.write(spec.GERRORN, 0);
    expect(r.cons).toBe(1);
  });
});

describe('CERROR_ILL conditions of every command [4.1.3 and each command]', () => {
  const noStage2: SmmuConfig = {
    ...qemuVirt,
    IDR0: { ...qemuVirt.IDR0, S2P: 0 },
    IDR3: { ...qemuVirt.IDR3, XNX: 0 },
  };
  const noStage1: SmmuConfig = {
    ...qemuVirt,
    IDR0: { ...qemuVirt.IDR0, S1P: 0 },
    IDR3: { ...qemuVirt.IDR3, HAD: 0 },
  };
  const legal: readonly (readonly [string, Pair])[] = [
    ['PREFETCH_CONFIG', [0x0000010800005801n, 0n]],
    ['PREFETCH_ADDR', [0x0000010800000002n, 0x1000n]],
    ['CFGI_STE', [0x0000010800000003n, 1n]],
    ['CFGI_STE_RANGE', [0x0000010000000004n, 7n]],
    ['CFGI_ALL', [4n, 0x1fn]],
    ['CFGI_CD', [0x0000010800005005n, 1n]],
    ['CFGI_CD_ALL', [0x0000010800000006n, 0n]],
    ['TLBI_NH_ALL', [0x0000001200000010n, 0n]],
    ['TLBI_NH_ASID', [0x0034001200000011n, 0n]],
    ['TLBI_NH_VA', [0x0034001200000012n, 0x0000400012345001n]],
    ['TLBI_NH_VA range', [0x0034001200400012n, 0x0000400012345701n]],
    ['TLBI_NH_VAA', [0x0000001200000013n, 0x0000400012345001n]],
    ['TLBI_EL2_ALL', [0x20n, 0n]],
    ['TLBI_EL2_ASID', [0x0034000000000021n, 0n]],
    ['TLBI_EL2_VA', [0x0034000000000022n, 0x1000n]],
    ['TLBI_EL2_VAA', [0x23n, 0x1000n]],
    ['TLBI_S12_VMALL', [0x0000001200000028n, 0n]],
    ['TLBI_S2_IPA', [0x000000120000002an, 0x0000000087654000n]],
    ['TLBI_NSNH_ALL', [0x30n, 0n]],
    ['RESUME', [0x0000010800001044n, 7n]],
    ['STALL_TERM', [0x0000010800000045n, 0n]],
    ['SYNC', [0x000000000fc02046n, 0n]],
  ];

  test.each(legal)('%s is consumed', (_, command) => {
    const r = started();
    r.issue(command);
    expect([r.cons, r.errors]).toEqual([1, 0]);
  });

  const el2 = legal.filter(([name]) => name.startsWith('TLBI_EL2'));
  const nh = legal.filter(([name]) => name.startsWith('TLBI_NH') || name.startsWith('CFGI_CD'));
  const s2 = legal.filter(([name]) => name.startsWith('TLBI_S'));
  const stall = legal.filter(([name]) => name === 'RESUME' || name === 'STALL_TERM');
  const ssec = legal
    .filter(([name]) => /^(PREFETCH|CFGI|RESUME|STALL)/.test(name))
    .map(([name, [low, high]]): [string, Pair] => [`${name} with SSec`, [low | 0x400n, high]]);
  const illegal: readonly (readonly [string, SmmuConfig, Pair])[] = [
    ...el2.map(([n, c]) => [`${n} without Hyp`, qemuVirt, c] as const),
    ...el2.map(([n, c]) => [`${n} without stage 1`, noStage1, c] as const),
    ...nh.map(([n, c]) => [`${n} without stage 1`, noStage1, c] as const),
    ...s2.filter(([n]) => n !== 'SYNC').map(([n, c]) => [`${n} without stage 2`, noStage2, c] as const),
    ...stall.map(([n, c]) => [`${n} with STALL_MODEL 1`, qemuVirt, c] as const),
    ...ssec.map(([n, c]) => [n, linuxNesting, c] as const),
    ['ATC_INV without ATS', qemuVirt, [0x0000010800000040n, 0x34n]],
    ['PRI_RESP without PRI', qemuVirt, [0x0000010800000041n, 0x2009n]],
    ['CFGI_VMS_PIDM without MPAM', linuxNesting, [7n, 0n]],
    ['SYNC with CS 3', linuxNesting, [0x3046n, 0n]],
    ['TLBI_NH_VA, TG without range or level', linuxNesting, [0x0034001200000012n, 0x1400n]],
    ['TLBI_NH_VA, 16 KB with TTL 1 without DS', linuxNesting, [0x0034001200000012n, 0x1900n]],
    ['DPTI_ALL', linuxNesting, [0x70n, 0n]],
    ...[0x00n, 0x08n, 0x0fn, 0x18n, 0x1an, 0x50n, 0x53n, 0x58n, 0x5an, 0x60n, 0x80n, 0x8fn, 0xffn].map(
      (opcode) => [`opcode 0x${opcode.toString(16)}`, linuxNesting, [opcode, 0n] as Pair] as const,
    ),
  ];

  test.each(illegal)('%s', (_, config, command) => {
    const r = started(config);
    r.issue(command);
    expect([r.cons, r.err, r.errors]).toEqual([0, ILL, 1]);
  });

  test('TLBI_NSNH_ALL is legal whatever the stages [4.4.4.1]', () => {
    for (const config of [noStage1, noStage2]) {
      const r = started(config);
      r.issue(NSNH_ALL);
      expect([r.cons, r.errors]).toEqual([1, 0]);
    }
  });

  test('set reserved bits are ignored, or ILL by the option [4.1.5]', () => {
    const ignoring = started();
    ignoring.issue([0x30n | (1n << 20n), 0n]);
    expect(ignoring.cons).toBe(1);
    const checking = started({ ...linuxNesting, options: { reservedCommandBits: 'ill' } });
    checking.issue([0x30n | (1n << 20n), 0n]);
    expect([checking.cons, checking.err]).toEqual([0, ILL]);
  });
});

describe('CMD_SYNC [4.7.3]', () => {
  test('SIG_IRQ writes the MSI after CONS shows the command consumed', () => {
    const r = started();
    r.issue([0xabcd12340fc01046n, 0x40001000n]);
    expect(r.machine.memory.read32(0x40001000n)).toBe(0xabcd1234);
    expect(r.cons).toBe(1);
  });

  test('SIG_IRQ pulses the wire whatever the address; address 0 sends no MSI', () => {
    const r = started();
    let edges = 0;
    r.machine.bus.onInterrupt(76, () => edges++);
    r.issue([0x1046n, 0n]);
    expect([edges, r.errors]).toEqual([1, 0]);
  });

  test('an aborted MSI does not fail the CMD_SYNC: MSI_CMDQ_ABT_ERR [7.5]', () => {
    const r = started();
    r.issue([0x1046n, 0x1000n], NSNH_ALL);
    expect([r.cons, r.errors]).toEqual([2, spec.GERROR.bit('MSI_CMDQ_ABT_ERR')]);
  });

  test("an MSI into the CMD_SYNC's own slot, as Linux polls it", () => {
    const r = started();
    r.issue([0x1046n, CMDQ]);
    expect(r.machine.memory.read32(CMDQ)).toBe(0);
    expect([r.cons, r.errors]).toEqual([1, 0]);
  });

  test('SIG_SEV sends a wake-up event only with IDR0.SEV', () => {
    const without = started();
    without.issue([0x2046n, 0n]);
    expect([without.cons, without.machine.wakeUps]).toEqual([1, 0]);
    const having = started({ ...linuxNesting, IDR0: { ...linuxNesting.IDR0, SEV: 1 } });
    having.issue([0x2046n, 0n]);
    expect([having.cons, having.machine.wakeUps]).toEqual([1, 1]);
  });
});

test('interrupts: GERROR pulses its wire and writes its MSI when enabled [3.18]', () => {
  const r = started();
  let edges = 0;
  r.machine.bus.onInterrupt(77, () => edges++);
  r.write64(spec.GERROR_IRQ_CFG0, 0x40002000n);
  r.write(spec.GERROR_IRQ_CFG1, 0x55);
  r.issue([0xffn, 0n]);
  expect([edges, r.machine.memory.read32(0x40002000n)]).toEqual([0, 0]);
  r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('GERROR_IRQEN'));
  expect(edges).toBe(0);
  r.acknowledge();
  expect([edges, r.machine.memory.read32(0x40002000n)]).toEqual([1, 0x55]);
});

test('an aborted GERROR MSI raises MSI_GERROR_ABT_ERR and no further interrupt [6.3.19]', () => {
  const r = started();
  let edges = 0;
  r.machine.bus.onInterrupt(77, () => edges++);
  r.write64(spec.GERROR_IRQ_CFG0, 0x2000n);
  r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('GERROR_IRQEN'));
  r.issue([0xffn, 0n]);
  expect([edges, r.errors]).toEqual([1, spec.GERROR.bit('CMDQ_ERR', 'MSI_GERROR_ABT_ERR')]);
});

test('the observer hears commands, errors and what broke', () => {
  const heard: string[] = [];
  const observer = (act: Announcement): void => {
    if (act.kind === 'command' || act.kind === 'command-error')
      heard.push(`${act.kind} ${act.index} ${(act.words[0] ?? 0) & 0xff} ${act.rule}`);
  };
  const r = new Regs(machineWith(linuxNesting, { observer }));
  r.start();
  r.issue(NSNH_ALL, [0x3046n, 0n]);
  expect(heard).toEqual(['command 0 48 ', 'command-error 1 70 CMD-SYNC-CS']);
});
