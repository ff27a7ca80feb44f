import { describe, expect, test } from 'vitest';
import { CMD_SYNC, CMD_TLBI_S12_VMALL } from '../../spec/commands.ts';
import * as tegra from '../../spec/tegra241.ts';
import { SMALL_PARAM } from '../../src/hw/index.ts';
import { Sanitizer } from '../../src/sanitizer/index.ts';
import { BASE } from '../hw/harness.ts';
import { CMDQV, CmdqvRegs, nhAsid, ringOf } from '../hw/tegra241/cmdqv-regs.ts';
import { DATA, LAB_CONFIG, nested, page2, S2ROOT, SanitizerLab, s2 } from './lab.ts';

const IPA = 0x20_3000n;

const VMID = 5;

/** A CMDQV that is on, under the sanitizer; VMID 5 is owned. */
class Lab extends CmdqvRegs {
  readonly sanitizer: Sanitizer;

  constructor() {
    super();
    this.sanitizer = new Sanitizer(this.machine);
    this.bus.writel(CMDQV, tegra.CMDQV_CONFIG.bit('CMDQV_EN'));
    this.note('vmid', 'alloc', VMID, 'smmu0');
  }

  note(what: 'vmid' | 'page' | 'stream', act: 'alloc' | 'free' | 'give', id: number | bigint, where = ''): void {
    this.sanitizer.announce({ what, act, where, id: BigInt(id), owner: 'vm' });
  }

  get rules(): string[] {
    return this.sanitizer.report().findings.map(({ rule }) => rule);
  }
}

test('the life of a VINTF in the right order finds nothing', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.pair(1, 0, 0x77, 0x8);
  lab.bus.writel(lab.vcmdq(2, tegra.VCMDQ_CONFIG), 0);
  lab.unmap(2, 1, 0);
  lab.closeVintf(1);
  lab.note('vmid', 'free', VMID, 'smmu0');
  expect(lab.rules).toEqual([]);
});

describe('CMDQV-1', () => {
  test('enabled with a VMID that nobody owns', () => {
    const lab = new Lab();
    lab.openVintf(1, 6);
    expect(lab.rules).toEqual(['CMDQV-1']);
  });

  test('the VMID freed while it is enabled', () => {
    const lab = new Lab();
    lab.openVintf(1, VMID);
    lab.note('vmid', 'free', VMID, 'smmu0');
    expect(lab.rules).toEqual(['CMDQV-1']);
  });

  test("the host's own VINTF has no VMID", () => {
    const lab = new Lab();
    lab.openVintf(0, 0, true);
    expect(lab.rules).toEqual([]);
  });
});

test('CMDQV-4: a StreamID given away while it is mapped', () => {
  const lab = new Lab();
  lab.openVintf(1, VMID);
  lab.pair(1, 0, 0x77, 0x8);
  lab.note('stream', 'give', 0x8, 'smmu0');
  expect(lab.rules).toEqual(['CMDQV-4']);
});

test('CMDQV-5: SID_REPLACE under an enabled SID_MATCH', () => {
  const lab = new Lab();
  lab.openVintf(1, VMID);
  lab.pair(1, 0, 0x77, 0x8);
  lab.bus.writel(lab.vintf(1, tegra.VINTF_SID_REPLACE, 0), 0x10);
  expect(lab.rules).toEqual(['CMDQV-5']);
});

test('CMDQV-6: one virtual StreamID twice', () => {
  const lab = new Lab();
  lab.openVintf(1, VMID);
  lab.pair(1, 0, 0x77, 0x8);
  lab.pair(1, 1, 0x77, 0x10);
  expect(lab.rules).toEqual(['CMDQV-6']);
});

test('CMDQV-8: a VINTF disabled before its queues', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.closeVintf(1);
  expect(lab.rules).toEqual(['CMDQV-8']);
});

test('CMDQV-9: an LVCMDQ unmapped while it is enabled', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.unmap(2, 1, 0);
  expect(lab.rules).toEqual(['CMDQV-9']);
});

test('CMDQV-10: a queue handed on without a CMD_SYNC', () => {
  const lab = new Lab();
  lab.note('vmid', 'alloc', 6, 'smmu0');
  lab.guest(1, 2, VMID);
  lab.bus.writel(lab.vcmdq(2, tegra.VCMDQ_CONFIG), 0);
  lab.unmap(2, 1, 0);
  lab.closeVintf(1);
  lab.openVintf(1, 6);
  lab.map(2, 1, 0);
  expect(lab.rules).toEqual(['CMDQV-10']);
});

test('CMDQV-11: memory of an enabled queue given back', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.note('page', 'free', ringOf(2));
  expect(lab.rules).toEqual(['CMDQV-11']);
});

test('CMDQV-12: HYP_OWN for a VM', () => {
  const lab = new Lab();
  lab.openVintf(1, VMID, true);
  expect(lab.rules).toEqual(['CMDQV-12']);
});

test('CMDQV-13: the VMID rewritten while enabled', () => {
  const lab = new Lab();
  lab.openVintf(1, VMID);
  lab.bus.writel(lab.vintf(1, tegra.VINTF_CONFIG), tegra.VINTF_CONFIG.value({ VMID: 6, EN: 1 }));
  expect(lab.rules).toEqual(['CMDQV-13']);
});

test('BASE and CONS of an enabled queue, CMDQ_ALLOC of an allocated one', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.bus.writel(lab.vcmdq(2, tegra.VCMDQ_CONS), 1);
  expect(lab.rules).toEqual(['CMDQV-CONS']);
  lab.bus.writel(lab.vcmdq(2, tegra.VCMDQ_BASE), 0);
  expect(lab.rules.slice(1)).toEqual(['CMDQV-BASE']);
  lab.map(2, 2, 0);
  expect(lab.rules.slice(2)).toEqual(['CMDQV-ALLOC']);
});

test("CONS of an enabled queue written through its VINTF's page 0: it may be the VM, and is not judged", () => {
  const write = (hypOwn: boolean): string[] => {
    const lab = new Lab();
    lab.guest(1, 2, VMID, hypOwn);
    lab.bus.writel(CMDQV + BigInt(tegra.vintfPage0(1) + tegra.VCMDQ_CONS.offset), 1);
    return lab.rules;
  };
  expect(write(false)).toEqual([]);
  // The host's own queue, but for the VINTF that it should not have (CMDQV-12).
  expect(write(true)).toEqual(['CMDQV-12', 'CMDQV-CONS']);
});

test('VMID-14: a TLBI on a VCMDQ that no CMD_SYNC of that queue completed', () => {
  const lab = new Lab();
  lab.guest(0, 0, 0, true);
  lab.issue(0, nhAsid(BigInt(VMID), 7n));
  lab.note('vmid', 'free', VMID, 'smmu0');
  expect(lab.rules).toEqual(['VMID-14']);
});

test('VMID-14: a VCMDQ that has been disabled has nothing under way, CMD_SYNC or not', () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.issue(2, nhAsid(0n, 7n));
  lab.bus.writel(lab.vcmdq(2, tegra.VCMDQ_CONFIG), 0);
  lab.unmap(2, 1, 0);
  lab.closeVintf(1);
  lab.note('vmid', 'free', VMID, 'smmu0');
  expect(lab.rules).toEqual([]);
});

test("a VM's commands count under the VMID of its VINTF, whatever they say", () => {
  const lab = new Lab();
  lab.guest(1, 2, VMID);
  lab.issue(2, nhAsid(0n, 7n));
  lab.note('vmid', 'free', VMID, 'smmu0');
  // The queue is still enabled, and so is the VINTF: that comes first.
  expect(lab.rules).toEqual(['CMDQV-1']);
});

describe('with streams', () => {
  const base = 0x1100_0000n;
  const config = LAB_CONFIG;

  function both(): SanitizerLab {
    const lab = new SanitizerLab({}, config, {
      smmus: [{ config, base: BASE, cmdqv: { base, config: { param: SMALL_PARAM } } }],
    });
    lab.boot();
    lab.machine.bus.writel(base, tegra.CMDQV_CONFIG.bit('CMDQV_EN'));
    return lab;
  }

  const vintf = (v: number, register: { readonly offset: number }): bigint =>
    base + BigInt(tegra.vintfBlock(v) + register.offset);

  function open(lab: SanitizerLab, vmid: number, sid: number): void {
    const { bus } = lab.machine;
    bus.writel(vintf(1, tegra.VINTF_CONFIG), tegra.VINTF_CONFIG.value({ VMID: vmid, EN: 1 }));
    bus.writel(vintf(1, tegra.VINTF_SID_REPLACE), sid);
    bus.writel(vintf(1, tegra.VINTF_SID_MATCH), tegra.VINTF_SID_MATCH.value({ VIRT_SID: 0x77, ENABLE: 1 }));
  }

  test('CMDQV-2: the STE has another VMID than the VINTF', () => {
    const lab = both();
    lab.install(0x10, nested(3));
    open(lab, 3, 0x10);
    expect(lab.rules).toEqual([]);
    const other = both();
    other.install(0x10, nested(4));
    open(other, 3, 0x10);
    expect(other.rules).toEqual(['CMDQV-2']);
  });

  test('CMDQV-2: the STE comes after the VINTF', () => {
    const lab = both();
    open(lab, 3, 0x10);
    lab.install(0x10, nested(4));
    expect(lab.rules).toEqual(['CMDQV-2']);
  });

  test.each([
    ['CMDQV-7: its vDEVICE is on a VINTF that does not map it', 'vDEVICE of a VINTF made', 'FULL', 0x11, ['CMDQV-7']],
    ['mapped', 'vDEVICE of a VINTF made', 'FULL', 0x10, []],
    ['without ATS', 'vDEVICE of a VINTF made', 'OFF', 0x11, []],
    ['without a VINTF', 'vDEVICE made', 'FULL', 0x11, []],
  ] as const)('a nested stream with ATS is attached: %s', (_, vdevice, EATS, mapped, rules) => {
    const lab = both();
    lab.done(vdevice, 0x10);
    open(lab, 3, mapped);
    lab.install(0x10, nested(3, S2ROOT, { EATS }));
    lab.done('attach to nested', 0x10);
    expect(lab.rules).toEqual(rules);
  });

  test('CMDQV-4: a vDEVICE is destroyed and stays mapped', () => {
    const lab = both();
    open(lab, 3, 0x10);
    lab.done('vDEVICE destroyed', 0x10);
    expect(lab.rules).toEqual(['CMDQV-4']);
  });

  test('CMDQV-14: TLBI on a VCMDQ of the host, CMD_SYNC on the own queue', () => {
    const run = (sameQueue: boolean): string[] => {
      const lab = both();
      const { bus, memory } = lab.machine;
      lab.map(S2ROOT, IPA, page2(DATA));
      lab.install(0x10, s2(3));
      const ring = 0x40c0_0000n;
      const vcmdq = (register: { readonly offset: number; readonly page: string }): bigint =>
        base +
        BigInt(register.page === 'vcmdq0' ? tegra.CMDQV_VCMDQ_PAGE0 : tegra.CMDQV_VCMDQ_PAGE1) +
        BigInt(register.offset);
      bus.writel(vintf(0, tegra.VINTF_CONFIG), tegra.VINTF_CONFIG.value({ HYP_OWN: 1, EN: 1 }));
      bus.writel(
        base + BigInt(tegra.CMDQV_CMDQ_ALLOC.offset),
        tegra.CMDQV_CMDQ_ALLOC.value({ VINTF: 0, LVCMDQ: 0, ALLOCATED: 1 }),
      );
      bus.writeq(vcmdq(tegra.VCMDQ_BASE), ring | 4n);
      bus.writel(vcmdq(tegra.VCMDQ_CONFIG), 1);
      lab.put(S2ROOT, 3, IPA, 0n);
      const list = [CMD_TLBI_S12_VMALL.encode({ VMID: 3 }), ...(sameQueue ? [CMD_SYNC.encode()] : [])];
      for (const [i, words] of list.entries())
        for (const half of [0, 1])
          memory.write64(
            ring + BigInt(16 * i + 8 * half),
            (BigInt(words[2 * half + 1] ?? 0) << 32n) | BigInt(words[2 * half] ?? 0),
          );
      bus.writel(vcmdq(tegra.VCMDQ_PROD), list.length);
      lab.commands();
      lab.freePage(DATA);
      return lab.rules;
    };
    expect(run(false)).toEqual(['CMDQV-14']);
    expect(run(true)).toEqual([]);
  });
});
