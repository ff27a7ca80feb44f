import { describe, expect, test } from 'vitest';
import * as spec from '../../../spec/tegra241.ts';
import { type CmdqvOptions, HOST_PARAM, SMALL_PARAM } from '../../../src/hw/index.ts';
import { CmdqvRegs, ringOf, SYNC } from './cmdqv-regs.ts';

const withOptions = (options: Partial<CmdqvOptions>): CmdqvRegs =>
  new CmdqvRegs({ cmdqv: { param: SMALL_PARAM, options } });
const BAD = [0x30n, 0n] as const;

/** All error maps: VINTF_ERR_MAP x 2, CMDQ_ERR_MAP x 4, LVCMDQ_ERR_MAP of v x 4. */
const maps = (r: CmdqvRegs, v: number): number[] => [
  ...[0, 1].map((n) => r.bus.readl(r.global(spec.CMDQV_VINTF_ERR_MAP, n))),
  ...[0, 1, 2, 3].map((n) => r.bus.readl(r.global(spec.CMDQV_CMDQ_ERR_MAP, n))),
  ...[0, 1, 2, 3].map((n) => r.bus.readl(r.vintf(v, spec.VINTF_LVCMDQ_ERR_MAP, n))),
];

describe('error maps and interrupt [tegra241-cmdqv 10]', () => {
  test('10.2 a queue error shows in all three maps and pulses the interrupt; 10.3 they drop with the acknowledge', () => {
    const r = new CmdqvRegs();
    r.guest(3, 5, 3);
    r.issue(5, BAD);
    expect(maps(r, 3)).toEqual([8, 0, 0x20, 0, 0, 0, 1, 0, 0, 0]);
    expect(r.interrupts).toBe(1);
    // STATUS 3:1 = 1, VCMDQ error; one queue mapped; enabled.
    expect(r.bus.readl(r.vintf(3, spec.VINTF_STATUS))).toBe(0x10003);
    r.machine.memory.write64(ringOf(5), 0x46n);
    r.ack(5);
    expect(maps(r, 3)).toEqual(maps(r, 3).map(() => 0));
    expect(r.interrupts).toBe(1);
  });

  test('the last VINTF and VCMDQ of the host parameters: bit 63, bit 127; LVCMDQ_ERR_MAP reads as 64 bits [2]', () => {
    const r = new CmdqvRegs({ cmdqv: { param: HOST_PARAM } });
    r.openVintf(63, 3);
    r.map(126, 63, 0);
    r.map(127, 63, 1);
    // Rings of high queues do not fit this RAM: an abort is an error, too.
    r.bus.writeq(r.vcmdq(127, spec.VCMDQ_BASE), 0x9_0000_0004n);
    r.bus.writel(r.vcmdq(127, spec.VCMDQ_CONFIG), 1);
    r.bus.writel(r.vcmdq(127, spec.VCMDQ_PROD), 1);
    expect(maps(r, 63)).toEqual([0, 0x80000000, 0, 0, 0, 0x80000000, 2, 0, 0, 0]);
    expect(r.bus.readq(r.vintf(63, spec.VINTF_LVCMDQ_ERR_MAP))).toBe(2n);
    // The global map at 0x14 is not 8-aligned: a 64-bit read there gives nothing.
    expect(r.bus.readq(r.global(spec.CMDQV_VINTF_ERR_MAP))).toBe(0n);
  });

  test('10.1 each new error fires again, though the bit is set already', () => {
    const r = new CmdqvRegs();
    r.openVintf(1, 3);
    for (const l of [0, 1]) {
      r.map(l, 1, l);
      r.startQueue(l);
    }
    r.issue(0, BAD);
    r.issue(1, BAD);
    expect([r.interrupts, ...maps(r, 1)]).toEqual([2, 2, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
    // Pending and unacknowledged: no further edge by itself.
    r.machine.drain();
    expect(r.interrupts).toBe(2);
  });

  test('10.2 VINTF_INT_MASK keeps the edge back, not the map', () => {
    const r = new CmdqvRegs();
    r.bus.writel(r.global(spec.CMDQV_VINTF_INT_MASK), 2);
    r.guest(1, 0, 3);
    r.guest(2, 1, 4);
    r.issue(0, BAD);
    expect([r.interrupts, maps(r, 1)[0]]).toEqual([0, 2]);
    r.issue(1, BAD);
    expect(r.interrupts).toBe(1);
    // 10.4 unmasking gives no edge [IMPDEF].
    r.bus.writel(r.global(spec.CMDQV_VINTF_INT_MASK), 0);
    expect(r.interrupts).toBe(1);
  });

  test("unmaskInterrupt 'pulse'", () => {
    const r = withOptions({ unmaskInterrupt: 'pulse' });
    r.bus.writel(r.global(spec.CMDQV_VINTF_INT_MASK), 6);
    r.guest(1, 0, 3);
    r.issue(0, BAD);
    r.bus.writel(r.global(spec.CMDQV_VINTF_INT_MASK), 0);
    expect(r.interrupts).toBe(1);
  });

  test("errorMaps 'at-last-error': they stay until the next error (QEMU)", () => {
    const r = withOptions({ errorMaps: 'at-last-error' });
    r.guest(1, 0, 3);
    r.guest(2, 1, 4);
    r.issue(0, BAD);
    r.machine.memory.write64(ringOf(0), 0x46n);
    r.ack(0);
    expect(maps(r, 1)[0]).toBe(2);
    r.issue(1, BAD);
    expect(maps(r, 1)[0]).toBe(4);
  });

  test("mapBits 'cmdq-err': CMDQ_INIT_ERR counts for nothing", () => {
    const r = withOptions({ mapBits: 'cmdq-err' });
    r.openVintf(1, 3);
    r.map(0, 1, 0);
    r.startQueue(0, 20);
    expect([r.errors(0), r.interrupts, maps(r, 1)[0]]).toEqual([4, 0, 0]);
  });

  test('an active error survives the disabling of the queue until it is acknowledged', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    r.issue(0, BAD);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    expect(maps(r, 1)[0]).toBe(2);
    r.ack(0);
    expect(maps(r, 1)[0]).toBe(0);
  });

  test('the edge is announced with its source', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    r.issue(0, BAD);
    const edges = r.acts.flatMap((act) => (act.kind === 'interrupt' ? [[act.smmu, act.source, act.how]] : []));
    expect(edges).toEqual([['smmu0', 'cmdqv', 'wired']]);
  });
});

describe('order between queues [tegra241-cmdqv 9]', () => {
  test('round robin, one command a step', () => {
    const r = new CmdqvRegs({ schedule: { mode: 'stepped' } });
    r.guest(1, 0, 3);
    r.guest(2, 1, 4);
    r.guest(3, 2, 5);
    r.machine.drain();
    r.issue(0, SYNC, SYNC, SYNC);
    r.issue(1, SYNC);
    r.issue(2, SYNC, SYNC);
    while (r.machine.step('smmu0.vcmdq'));
    expect(r.executed.map(([queue]) => queue)).toEqual([
      'vcmdq1.0',
      'vcmdq2.0',
      'vcmdq3.0',
      'vcmdq1.0',
      'vcmdq3.0',
      'vcmdq1.0',
    ]);
  });

  test('a seeded schedule chooses the queue; the recorded choices replay', () => {
    const run = (schedule: { mode: 'seeded'; seed: number; replay?: readonly never[] }) => {
      const r = new CmdqvRegs({ schedule });
      r.guest(1, 0, 3);
      r.guest(2, 1, 4);
      r.machine.drain();
      for (let i = 0; i < 4; i++) {
        r.issue(0, SYNC);
        r.issue(1, SYNC);
      }
      r.machine.drain();
      return { order: r.executed.map(([queue]) => queue).join(' '), choices: r.machine.conductor.schedule.choices };
    };
    const orders = new Set([1, 2, 3, 4, 5, 6].map((seed) => run({ mode: 'seeded', seed }).order));
    expect(orders.size).toBeGreaterThan(1);
    const first = run({ mode: 'seeded', seed: 3 });
    expect(run({ mode: 'seeded', seed: 0, replay: first.choices as never }).order).toBe(first.order);
  });
});
