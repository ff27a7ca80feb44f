import { describe, expect, test } from 'vitest';
import * as spec from '../../../spec/tegra241.ts';
import { type CmdqvOptions, linuxNesting, SMALL_PARAM } from '../../../src/hw/index.ts';
import { CMDQV, CmdqvRegs, ringOf } from './cmdqv-regs.ts';

const withOptions = (options: Partial<CmdqvOptions>): CmdqvRegs =>
  new CmdqvRegs({ cmdqv: { param: SMALL_PARAM, options } });
const ALLOC = (q: number): bigint => CMDQV + 0x200n + 4n * BigInt(q);
/** CMDQ_ALLOC fields by hand: VINTF 20:15, LVCMDQ 7:1, ALLOCATED 0. */
const alloc = (v: number, l: number, allocated: 0 | 1): number => (v << 15) | (l << 1) | allocated;

describe('CMDQ_ALLOC and aliasing [tegra241-cmdqv 7]', () => {
  test('7.1 global slot q and logical slot l are one set of registers', () => {
    const r = new CmdqvRegs();
    r.bus.writel(ALLOC(5), alloc(2, 0, 1));
    // Logical page 0 of VINTF 2 is at 0x30000 + 0x20000 * 2, page 1 one page above.
    r.bus.writel(CMDQV + 0x70004n, 0x123);
    expect(r.bus.readl(CMDQV + 0x10000n + 0x80n * 5n + 4n)).toBe(0x123);
    r.bus.writeq(CMDQV + 0x20000n + 0x80n * 5n, 0x4000_0004n);
    expect(r.bus.readq(CMDQV + 0x80000n)).toBe(0x4000_0004n);
    expect(r.bus.readl(CMDQV + 0x70084n)).toBe(0);
  });

  test('7.2 VINTF and LVCMDQ written with ALLOCATED 0 map nothing; toggling bit 0 does', () => {
    const r = new CmdqvRegs();
    r.bus.writel(ALLOC(3), alloc(1, 0, 0));
    expect(r.bus.readl(ALLOC(3))).toBe(0x8000);
    r.bus.writel(r.vcmdq(3, spec.VCMDQ_PROD), 7);
    expect(r.bus.readl(r.lvcmdq(1, 0, spec.VCMDQ_PROD))).toBe(0);
    r.bus.writel(ALLOC(3), r.bus.readl(ALLOC(3)) | 1);
    expect(r.bus.readl(r.lvcmdq(1, 0, spec.VCMDQ_PROD))).toBe(7);
    r.bus.writel(ALLOC(3), r.bus.readl(ALLOC(3)) & ~1);
    expect(r.bus.readl(r.lvcmdq(1, 0, spec.VCMDQ_PROD))).toBe(0);
    expect(r.violations).toEqual([]);
  });

  test('7.3 an unmapped logical slot reads 0 and takes writes silently: on record, no violation [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.bus.writel(r.lvcmdq(0, 1, spec.VCMDQ_CONFIG), 1);
    r.bus.writeq(r.lvcmdq(0, 1, spec.VCMDQ_BASE), 0x4000_0004n);
    expect(r.bus.readl(r.lvcmdq(0, 1, spec.VCMDQ_CONFIG))).toBe(0);
    expect(r.bus.readq(r.lvcmdq(0, 1, spec.VCMDQ_BASE))).toBe(0n);
    expect(r.violations).toEqual([]);
    expect(r.acts.filter((act) => act.kind === 'cmdqv-unmapped').length).toBeGreaterThan(0);
  });

  test("unmappedSlot 'abort': all ones", () => {
    const r = withOptions({ unmappedSlot: 'abort' });
    r.bus.writel(r.lvcmdq(0, 1, spec.VCMDQ_CONFIG), 1);
    expect(r.bus.readl(r.lvcmdq(0, 1, spec.VCMDQ_CONFIG))).toBe(0xffffffff);
    expect(r.acts.flatMap((act) => (act.kind === 'cmdqv-write' ? [act.ignored] : []))).toEqual(['aborted']);
  });

  test('7.4 mapping must ascend: the bits are taken, no mapping is made, CMDQV-9 [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.map(1, 0, 1);
    expect(r.bus.readl(ALLOC(1))).toBe(alloc(0, 1, 1));
    expect(r.violations).toEqual(['CMDQV-9']);
    r.bus.writel(r.vcmdq(1, spec.VCMDQ_PROD), 7);
    expect(r.bus.readl(r.lvcmdq(0, 1, spec.VCMDQ_PROD))).toBe(0);
    r.map(0, 0, 0);
    // Still allocated without a mapping: it has to be unmapped and mapped again.
    expect(r.bus.readl(r.lvcmdq(0, 1, spec.VCMDQ_PROD))).toBe(0);
    r.unmap(1, 0, 1);
    r.map(1, 0, 1);
    expect(r.bus.readl(r.lvcmdq(0, 1, spec.VCMDQ_PROD))).toBe(7);
    expect(r.violations).toEqual(['CMDQV-9']);
  });

  test("allocOutOfOrder 'write-ignored' and 'mapped'", () => {
    const ignored = withOptions({ allocOutOfOrder: 'write-ignored' });
    ignored.map(1, 0, 1);
    expect(ignored.bus.readl(ALLOC(1))).toBe(0);
    const mapped = withOptions({ allocOutOfOrder: 'mapped' });
    mapped.map(1, 0, 1);
    mapped.bus.writel(mapped.vcmdq(1, spec.VCMDQ_PROD), 7);
    expect(mapped.bus.readl(mapped.lvcmdq(0, 1, spec.VCMDQ_PROD))).toBe(7);
    expect([ignored.violations, mapped.violations]).toEqual([['CMDQV-9'], ['CMDQV-9']]);
  });

  test.each(['unmapped', 'write-ignored', 'mapped'] as const)(
    "a slot that another VCMDQ has is never taken, allocOutOfOrder '%s'",
    (allocOutOfOrder) => {
      const r = withOptions({ allocOutOfOrder });
      r.map(0, 0, 0);
      r.map(1, 0, 0);
      r.bus.writel(r.vcmdq(1, spec.VCMDQ_PROD), 7);
      expect(r.bus.readl(r.lvcmdq(0, 0, spec.VCMDQ_PROD))).toBe(0);
      expect(r.violations).toEqual(['CMDQV-9']);
    },
  );

  test('a VINTF that does not exist maps nothing', () => {
    const r = new CmdqvRegs();
    r.map(0, 9, 0);
    expect(r.violations).toEqual(['CMDQV-9']);
  });

  test('7.4 unmapping must descend: CMDQV-9, unmapped all the same', () => {
    const r = new CmdqvRegs();
    r.map(0, 0, 0);
    r.map(1, 0, 1);
    r.unmap(0, 0, 0);
    expect(r.violations).toEqual(['CMDQV-9']);
    expect(r.machine.cmdqv('smmu0').vintfs[0]?.slots.has(0)).toBe(false);
  });

  test('fields rewritten while ALLOCATED are latched on the 0 to 1 edge [IMPDEF]', () => {
    const latched = new CmdqvRegs();
    latched.map(0, 0, 0);
    latched.map(0, 1, 0);
    latched.bus.writel(latched.vcmdq(0, spec.VCMDQ_PROD), 7);
    expect(latched.bus.readl(latched.lvcmdq(0, 0, spec.VCMDQ_PROD))).toBe(7);
    expect(latched.bus.readl(latched.lvcmdq(1, 0, spec.VCMDQ_PROD))).toBe(0);
    const moves = withOptions({ allocRewrite: 'takes-effect' });
    moves.map(0, 0, 0);
    moves.map(0, 1, 0);
    moves.bus.writel(moves.vcmdq(0, spec.VCMDQ_PROD), 7);
    expect(moves.bus.readl(moves.lvcmdq(0, 0, spec.VCMDQ_PROD))).toBe(0);
    expect(moves.bus.readl(moves.lvcmdq(1, 0, spec.VCMDQ_PROD))).toBe(7);
    expect([latched.violations, moves.violations]).toEqual([['CMDQV-ALLOC'], ['CMDQV-ALLOC']]);
  });

  test('ALLOCATED 1 to 0 while the queue runs: it stops, CMDQV-9 [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    expect(r.enabled(0)).toBe(1);
    r.unmap(0, 1, 0);
    expect(r.enabled(0)).toBe(0);
    expect(r.violations).toEqual(['CMDQV-9']);
    r.issue(0, [0x46n, 0n]);
    expect(r.rd(0)).toBe(0);
  });

  test("unmapRunning 'keep-running': it consumes until it is disabled", () => {
    const r = withOptions({ unmapRunning: 'keep-running' });
    r.guest(1, 0, 3);
    r.unmap(0, 1, 0);
    r.issue(0, [0x46n, 0n]);
    expect(r.rd(0)).toBe(1);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    expect(r.enabled(0)).toBe(0);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 1);
    expect(r.enabled(0)).toBe(0);
  });

  test("the global window on a mapped queue: alias, or 'blocked' [IMPDEF]", () => {
    const r = withOptions({ globalWindow: 'blocked' });
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_PROD), 7);
    r.map(0, 0, 0);
    expect(r.bus.readl(r.vcmdq(0, spec.VCMDQ_PROD))).toBe(0);
    expect(r.bus.readl(r.lvcmdq(0, 0, spec.VCMDQ_PROD))).toBe(7);
  });

  test('VI_NUM_LVCMDQ counts what is mapped [5, Q]', () => {
    const r = new CmdqvRegs();
    r.map(0, 2, 0);
    r.map(1, 2, 1);
    expect(r.bus.readl(r.vintf(2, spec.VINTF_STATUS))).toBe(0x20000);
  });
});

describe('enable and disable [tegra241-cmdqv 8]', () => {
  test('8.1 STATUS follows EN only when hardware moves', () => {
    const r = new CmdqvRegs({ schedule: { mode: 'stepped' } });
    const statusOf = (): number[] => [r.bus.readl(CMDQV + 8n), r.vintfEnabled(1), r.enabled(0)];
    r.openVintf(1, 3);
    r.map(0, 1, 0);
    r.startQueue(0);
    expect(statusOf()).toEqual([1, 0, 0]);
    r.machine.step('smmu0.cmdqv');
    expect(statusOf()).toEqual([1, 1, 0]);
    r.machine.step('smmu0.cmdqv');
    expect(statusOf()).toEqual([1, 1, 1]);
    r.bus.writel(CMDQV, 0);
    const down: number[][] = [];
    while (r.machine.step('smmu0.cmdqv')) down.push(statusOf());
    // Queues stop before their VINTF, VINTFs before the block.
    expect(down).toEqual([
      [1, 1, 0],
      [1, 0, 0],
      [0, 0, 0],
    ]);
  });

  test('8.3 VMID and HYP_OWN are latched when EN is set; CMDQV-13 if rewritten while enabled [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.openVintf(1, 3);
    r.bus.writel(r.vintf(1, spec.VINTF_CONFIG), (4 << 1) | 1);
    const vintf = r.machine.cmdqv('smmu0').vintfs[1];
    expect([vintf?.VMID, r.bus.readl(r.vintf(1, spec.VINTF_CONFIG)) >>> 1]).toEqual([3, 4]);
    r.bus.writel(r.vintf(1, spec.VINTF_CONFIG), (4 << 1) | 1 | (1 << 17));
    expect(vintf?.hypOwn).toBe(false);
    expect(r.violations).toEqual(['CMDQV-13', 'CMDQV-13']);
    r.closeVintf(1);
    r.openVintf(1, 4);
    expect(vintf?.VMID).toBe(4);
  });

  test("vintfRewrite 'takes-effect'", () => {
    const r = withOptions({ vintfRewrite: 'takes-effect' });
    r.openVintf(1, 3);
    r.bus.writel(r.vintf(1, spec.VINTF_CONFIG), (4 << 1) | 1);
    expect(r.machine.cmdqv('smmu0').vintfs[1]?.VMID).toBe(4);
  });

  test('8.3 the VMID is in use from EN = 1 until STATUS.ENABLED = 0', () => {
    const r = new CmdqvRegs({ schedule: { mode: 'stepped' } });
    const holders = (vmid: number) => r.machine.smmu('smmu0').vmidHolders(vmid);
    r.bus.writel(r.vintf(1, spec.VINTF_CONFIG), 3 << 1);
    expect(holders(3)).toEqual([]);
    r.bus.writel(r.vintf(1, spec.VINTF_CONFIG), (3 << 1) | 1);
    expect(holders(3)).toEqual([{ kind: 'vintf', what: '1' }]);
    r.machine.drain();
    r.closeVintf(1);
    expect(holders(3)).toEqual([{ kind: 'vintf', what: '1' }]);
    r.machine.drain();
    expect(holders(3)).toEqual([]);
  });

  test("a VINTF of the hypervisor's own does not use its VMID; its queued commands name theirs", () => {
    const r = new CmdqvRegs();
    r.guest(0, 0, 0, true);
    expect(
      r.machine
        .smmu('smmu0')
        .vmidHolders(0)
        .filter(({ kind }) => kind === 'vintf'),
    ).toEqual([]);
    r.issue(0, [0xffn, 0n], [(7n << 32n) | 0x28n, 0n]);
    expect(r.machine.smmu('smmu0').vmidHolders(7)).toEqual([
      { kind: 'command', what: 'vcmdq0.0 1 CMD_TLBI_S12_VMALL' },
    ]);
  });

  test('8.4 EN under a disabled VINTF: nothing is fetched; EN_OK follows when the VINTF is enabled [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.map(0, 1, 0);
    r.startQueue(0);
    r.issue(0, [0x46n, 0n]);
    expect([r.enabled(0), r.rd(0)]).toEqual([0, 0]);
    r.openVintf(1, 3);
    expect([r.enabled(0), r.rd(0)]).toEqual([1, 1]);
  });

  test('8.4 EN of an unmapped queue: EN_OK follows when it is mapped', () => {
    const r = new CmdqvRegs();
    r.openVintf(1, 3);
    r.startQueue(0);
    expect(r.enabled(0)).toBe(0);
    r.map(0, 1, 0);
    expect(r.enabled(0)).toBe(1);
  });

  test('8.4 VINTF EN under a disabled CMDQV', () => {
    const r = new CmdqvRegs();
    r.bus.writel(CMDQV, 0);
    r.openVintf(1, 3);
    expect(r.vintfEnabled(1)).toBe(0);
    r.bus.writel(CMDQV, 1);
    expect(r.vintfEnabled(1)).toBe(1);
  });

  test("earlyEnable 'lost': EN has to be written again", () => {
    const r = withOptions({ earlyEnable: 'lost' });
    r.map(0, 1, 0);
    r.startQueue(0);
    r.openVintf(1, 3);
    expect(r.enabled(0)).toBe(0);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 1);
    expect(r.enabled(0)).toBe(1);
  });

  test('8.5 disabling a VINTF stops its queues between commands, keeps CONS, is CMDQV-8 [IMPDEF]', () => {
    const r = new CmdqvRegs({ schedule: { mode: 'stepped' } });
    r.guest(1, 0, 3);
    r.machine.drain();
    r.issue(0, [0x46n, 0n], [0x46n, 0n], [0x46n, 0n]);
    r.machine.step('smmu0.vcmdq');
    r.closeVintf(1);
    r.machine.step('smmu0.vcmdq');
    expect([r.rd(0), r.enabled(0)]).toEqual([2, 1]);
    r.machine.drain();
    expect([r.enabled(0), r.vintfEnabled(1)]).toEqual([0, 0]);
    expect(r.violations).toEqual(['CMDQV-8']);
    const stoppedAt = r.rd(0);
    expect(stoppedAt).toBe(2);
    // Commands pending are not executed, and that is no error.
    expect([r.err(0), r.errors(0)]).toEqual([0, 0]);
    r.openVintf(1, 3);
    r.machine.drain();
    expect(r.rd(0)).toBe(3);
  });

  test("vintfDisable 'reset-queues': page 0 is cleared, BASE survives (QEMU)", () => {
    const r = withOptions({ vintfDisable: 'reset-queues' });
    r.guest(1, 0, 3);
    r.issue(0, [0x46n, 0n]);
    r.closeVintf(1);
    expect([r.rd(0), r.read(0, spec.VCMDQ_PROD), r.read(0, spec.VCMDQ_CONFIG)]).toEqual([0, 0, 0]);
    expect(r.bus.readq(r.vcmdq(0, spec.VCMDQ_BASE))).toBe(ringOf(0) | 4n);
  });

  test('8.6 CMDQV EN 1 to 0: VINTFs and queues stop, their registers stay', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    r.bus.writel(CMDQV, 0);
    expect([r.bus.readl(CMDQV + 8n), r.vintfEnabled(1), r.enabled(0)]).toEqual([0, 0, 0]);
    expect(r.bus.readl(ALLOC(0))).toBe(alloc(1, 0, 1));
    expect(r.bus.readl(r.vintf(1, spec.VINTF_CONFIG))).toBe(7);
    expect(r.read(0, spec.VCMDQ_CONFIG)).toBe(1);
  });

  test.each([
    ['LOG2SIZE 0', ringOf(0)],
    ['LOG2SIZE above 19', ringOf(0) | 20n],
    ['ADDR not aligned to the size', (ringOf(0) + 0x80n) | 4n],
    ['LOG2SIZE 19 needs 8 MiB of alignment', ringOf(0) | 19n],
  ])('8.7 CMDQ_INIT_ERR for a bad BASE: %s [IMPDEF]', (_, base) => {
    const r = new CmdqvRegs();
    r.openVintf(1, 3);
    r.map(0, 1, 0);
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_BASE), base);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 1);
    expect([r.enabled(0), r.read(0, spec.VCMDQ_GERROR), r.interrupts]).toEqual([0, 4, 1]);
    // Acknowledging alone does not start it; a good BASE and EN anew do.
    r.ack(0);
    expect([r.enabled(0), r.errors(0)]).toEqual([0, 0]);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.startQueue(0);
    expect([r.enabled(0), r.read(0, spec.VCMDQ_GERROR)]).toEqual([1, 4]);
  });

  test("8.7 LOG2SIZE above the SMMU's IDR1.CMDQS", () => {
    const r = new CmdqvRegs({ config: { ...linuxNesting, IDR1: { ...linuxNesting.IDR1, CMDQS: 8 } } });
    r.guest(1, 0, 3);
    expect(r.enabled(0)).toBe(1);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.startQueue(0, 9);
    expect([r.enabled(0), r.errors(0)]).toEqual([0, 4]);
  });

  test("initError 'level': set, not toggled; EN_OK stays 0 until a good BASE clears it (QEMU)", () => {
    const r = withOptions({ initError: 'level' });
    r.openVintf(1, 3);
    r.map(0, 1, 0);
    r.startQueue(0, 20);
    expect([r.enabled(0), r.errors(0)]).toEqual([0, 4]);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 1);
    expect(r.enabled(0)).toBe(0);
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_BASE), ringOf(0) | 4n);
    expect([r.enabled(0), r.read(0, spec.VCMDQ_GERROR)]).toEqual([1, 0]);
  });

  test('8.8 BASE written while enabled: ignored, CMDQV-BASE [IMPDEF]', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_BASE), 0n);
    expect(r.bus.readq(r.vcmdq(0, spec.VCMDQ_BASE))).toBe(ringOf(0) | 4n);
    expect(r.violations).toContain('CMDQV-BASE');
    const taken = withOptions({ baseWhileEnabled: 'taken' });
    taken.guest(1, 0, 3);
    taken.bus.writeq(taken.vcmdq(0, spec.VCMDQ_BASE), ringOf(1) | 4n);
    expect(taken.bus.readq(taken.vcmdq(0, spec.VCMDQ_BASE))).toBe(ringOf(1) | 4n);
  });

  test('CONS is written by software while the queue is disabled only [6]', () => {
    const r = new CmdqvRegs();
    r.guest(1, 0, 3);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONS), 5);
    expect([r.rd(0), r.violations]).toEqual([0, ['CMDQV-CONS']]);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONS), 5);
    expect(r.rd(0)).toBe(5);
    const taken = withOptions({ consWhileEnabled: 'taken' });
    taken.guest(1, 0, 3);
    taken.bus.writel(taken.vcmdq(0, spec.VCMDQ_CONS), 0x1f);
    expect(taken.rd(0)).toBe(0x1f);
  });
});
