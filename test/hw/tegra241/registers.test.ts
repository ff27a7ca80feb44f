import { describe, expect, test } from 'vitest';
import * as spec from '../../../spec/tegra241.ts';
import { cmdqvCounts, createMachine, HOST_PARAM, linuxNesting, SMALL_PARAM } from '../../../src/hw/index.ts';
import { CMDQV, CmdqvRegs, RAM, SMMU } from './cmdqv-regs.ts';

describe('reset values and access [tegra241-cmdqv 3]', () => {
  test('CONFIG 0x00020083, enabled; STATUS 1; everything else 0 [Q]', () => {
    const r = new CmdqvRegs();
    expect(r.bus.readl(CMDQV + 0x0n)).toBe(0x20083);
    expect(r.bus.readl(CMDQV + 0x8n)).toBe(1);
    for (let offset = 0x14n; offset < 0x34n; offset += 4n) expect(r.bus.readl(CMDQV + offset)).toBe(0);
    for (let q = 0n; q < 8n; q++) expect(r.bus.readl(CMDQV + 0x200n + 4n * q)).toBe(0);
    for (let v = 0n; v < 4n; v++)
      for (let offset = 0n; offset < 0x100n; offset += 4n)
        expect(r.bus.readl(CMDQV + 0x1000n + 0x100n * v + offset)).toBe(0);
  });

  test('older QEMU resets CONFIG to 0x00020403: an option', () => {
    const r = new CmdqvRegs({ cmdqv: { param: SMALL_PARAM, options: { resetConfig: 0x20403 } } });
    expect(r.bus.readl(CMDQV)).toBe(0x20403);
  });

  test('PARAM: host 7/6/4 is 0x4671, small 3/2/1 is 0x1231, a QEMU guest has 0x4011 [4]', () => {
    const param = (value: typeof HOST_PARAM): number =>
      new CmdqvRegs({ cmdqv: { param: value } }).bus.readl(CMDQV + 4n);
    expect(param(HOST_PARAM)).toBe(0x4671);
    expect(param(SMALL_PARAM)).toBe(0x1231);
    expect(param({ VER: 1, NUM_VCMDQ_LOG2: 1, NUM_VINTF_LOG2: 0, NUM_SID_PER_VM_LOG2: 4 })).toBe(0x4011);
  });

  test('a machine gets the host parameters unless told otherwise', () => {
    const machine = createMachine({
      smmus: [{ config: linuxNesting, base: SMMU, cmdqv: { base: CMDQV } }],
      ram: [{ base: RAM, size: 0x1000n }],
    });
    expect(machine.bus.readl(CMDQV + 4n)).toBe(0x4671);
    expect(machine.firmware.smmus[0]?.cmdqv).toEqual({ base: CMDQV, irq: 78 });
    expect(machine.cmdqv('smmu0').footprint).toBe(0x30000 + 0x20000 * 64);
  });

  test.each([
    [{ ...HOST_PARAM, NUM_VCMDQ_LOG2: 8 }, '2^8 VCMDQs, at most 128'],
    [{ ...HOST_PARAM, NUM_VINTF_LOG2: 7 }, '2^7 VINTFs, at most 64'],
    [{ ...HOST_PARAM, NUM_SID_PER_VM_LOG2: 5 }, '2^5 StreamID pairs, at most 16'],
    [{ ...HOST_PARAM, NUM_VCMDQ_LOG2: 5 }, 'cannot serve 2^6 VINTFs'],
    [{ ...HOST_PARAM, VER: 16 }, 'VER'],
  ])('parameters the registers cannot hold are refused [4]: %o', (param, why) => {
    expect(() => cmdqvCounts(param)).toThrow(why);
  });

  test('CONFIG keeps all its fields but reserved bits; PARAM and STATUS are read-only', () => {
    const r = new CmdqvRegs();
    r.bus.writel(CMDQV, 0xffffffff);
    expect(r.bus.readl(CMDQV)).toBe(0x1fffff);
    r.bus.writel(CMDQV + 4n, 0xffffffff);
    r.bus.writel(CMDQV + 8n, 0);
    expect([r.bus.readl(CMDQV + 4n), r.bus.readl(CMDQV + 8n)]).toEqual([0x1231, 1]);
  });

  test('CONS_DRAM_EN reads 0 where the write-back does not exist', () => {
    const r = new CmdqvRegs({ cmdqv: { param: SMALL_PARAM, options: { consDram: false } } });
    r.bus.writel(CMDQV, 0xffffffff);
    expect(r.bus.readl(CMDQV)).toBe(0x0fffff);
  });

  test('CMDQ_ALLOC and SID registers exist for as many as PARAM says; beyond reads 0', () => {
    const r = new CmdqvRegs();
    r.bus.writel(CMDQV + 0x200n + 4n * 8n, 1);
    expect(r.bus.readl(CMDQV + 0x200n + 4n * 8n)).toBe(0);
    r.pair(1, 1, 5, 6);
    expect(r.bus.readl(CMDQV + 0x1144n)).toBe(0xb);
    expect(r.bus.readl(CMDQV + 0x1184n)).toBe(6);
    r.bus.writel(CMDQV + 0x1148n, 0xb);
    expect(r.bus.readl(CMDQV + 0x1148n)).toBe(0);
    r.bus.writel(CMDQV + 0x1000n + 0x100n * 4n, 0x20000);
    expect(r.bus.readl(CMDQV + 0x1000n + 0x100n * 4n)).toBe(0);
  });

  test('VINTF_INT_MASK keeps bits of VINTFs that exist', () => {
    const r = new CmdqvRegs();
    r.bus.writel(CMDQV + 0x1cn, 0xffffffff);
    r.bus.writel(CMDQV + 0x20n, 0xffffffff);
    expect([r.bus.readl(CMDQV + 0x1cn), r.bus.readl(CMDQV + 0x20n)]).toEqual([0xf, 0]);
  });

  test('GLB_FILT_CFG and GLB_FILT_DATA, undefined and misaligned offsets: read 0, writes ignored', () => {
    const r = new CmdqvRegs();
    for (const offset of [0x100cn, 0x1010n, 0x10n, 0x180n, 0xfffcn, 0x10018n, 0x20010n, 0x1fffcn]) {
      r.bus.writel(CMDQV + offset, 0xffffffff);
      expect(r.bus.readl(CMDQV + offset)).toBe(0);
    }
    expect(r.bus.readl(CMDQV + 2n)).toBe(0);
    r.bus.writeq(CMDQV + 0x20004n, 0xffff_ffff_ffffn);
    expect(r.bus.readq(CMDQV + 0x20000n)).toBe(0n);
  });

  test('64-bit: reads anywhere, writes only of BASE and CONS_INDX_BASE, whole or by halves [2]', () => {
    const r = new CmdqvRegs();
    r.bus.writeq(CMDQV + 0x20080n, 0xffff_ffff_ffff_ffffn);
    r.bus.writeq(CMDQV + 0x20088n, 0xffff_ffff_ffff_ffffn);
    expect(r.bus.readq(CMDQV + 0x20080n)).toBe(0x0000_ffff_ffff_ffffn);
    expect(r.bus.readq(CMDQV + 0x20088n)).toBe(0x0000_ffff_ffff_ffffn);
    r.bus.writel(CMDQV + 0x20084n, 0x12);
    r.bus.writel(CMDQV + 0x20080n, 0x34);
    expect(r.bus.readq(CMDQV + 0x20080n)).toBe(0x12_0000_0034n);
    r.bus.writeq(CMDQV + 0x10080n, 0x5_0000_0005n);
    expect(r.bus.readq(CMDQV + 0x10080n)).toBe(0n);
    expect(r.bus.readq(CMDQV + 0x0n)).toBe(0x1231_0002_0083n);
  });

  test('VCMDQ page 0: CONS keeps RD and ERR, PROD its WR, CONFIG bit 0; STATUS and GERROR are read-only [6]', () => {
    const r = new CmdqvRegs();
    for (const offset of [0x0n, 0x4n, 0x8n, 0xcn, 0x10n, 0x14n]) r.bus.writel(CMDQV + 0x10100n + offset, 0xffffffff);
    expect([0x0n, 0x4n, 0x8n, 0xcn, 0x10n, 0x14n].map((offset) => r.bus.readl(CMDQV + 0x10100n + offset))).toEqual([
      0x7f0fffff, 0xfffff, 1, 0, 0, 7,
    ]);
  });

  test('reset puts everything back, StreamID pairs included [5]', () => {
    const r = new CmdqvRegs();
    r.guest(1, 2, 9);
    r.pair(1, 0, 1, 2);
    r.bus.writel(CMDQV + 0x1cn, 2);
    r.issue(2, [0xffn, 0n]);
    r.machine.cmdqv('smmu0').reset();
    const zero = [
      r.global(spec.CMDQV_CMDQ_ALLOC, 2),
      r.global(spec.CMDQV_VINTF_INT_MASK),
      r.global(spec.CMDQV_VINTF_ERR_MAP),
      r.global(spec.CMDQV_CMDQ_ERR_MAP),
      ...[spec.VINTF_CONFIG, spec.VINTF_STATUS, spec.VINTF_SID_MATCH, spec.VINTF_SID_REPLACE].map((one) =>
        r.vintf(1, one),
      ),
      ...[
        spec.VCMDQ_CONS,
        spec.VCMDQ_PROD,
        spec.VCMDQ_CONFIG,
        spec.VCMDQ_STATUS,
        spec.VCMDQ_GERROR,
        spec.VCMDQ_BASE,
      ].map((one) => r.vcmdq(2, one)),
    ];
    expect(zero.map((at) => r.bus.readl(at))).toEqual(zero.map(() => 0));
    expect(r.bus.readl(CMDQV)).toBe(0x20083);
    expect(r.machine.smmu('smmu0').vmidHolders(9)).toEqual([]);
  });
});
