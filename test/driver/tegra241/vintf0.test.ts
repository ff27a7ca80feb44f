import { describe, expect, test } from 'vitest';
import { CMD_ATC_INV, CMD_TLBI_NH_ASID, CMD_TLBI_NSNH_ALL, encodeCommand, type Words } from '../../../spec/index.ts';
import { issueWithSync } from '../../../src/driver/arm-smmu-v3/command-batch.ts';
import { tegra241Impl } from '../../../src/driver/index.ts';
import type { Bus } from '../../../src/hw/index.ts';
import { CMDQV, Lab, type LabOptions, Vm } from './lab.ts';

const opcodes = (lab: Lab): [string, number][] =>
  lab.commands.map(({ queue, words }) => [queue, (words[0] ?? 0) & 0xff]);

function booted(options: LabOptions = {}): Lab {
  const lab = new Lab(options).boot();
  lab.commands = [];
  return lab;
}

/** A guest's view: HYP_OWN of VINTF0 is wired to 0. */
const wired = (bus: Bus): Bus =>
  new Proxy(bus, {
    get: (target, name: keyof Bus) => {
      if (name === 'writel')
        return (at: bigint, value: number) => target.writel(at, at === CMDQV + 0x1000n ? value & ~(1 << 17) : value);
      const value = target[name];
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });

const nhAsid = (): Words => CMD_TLBI_NH_ASID.encode({ ASID: 5 });
const nsnhAll = (): Words => CMD_TLBI_NSNH_ALL.encode();

describe('VINTF0 queues [tegra241-cmdqv 9, linux-driver 4.5]', () => {
  test('with HYP_OWN every command goes there, with CS=NONE and MSH=ISH, MSIATTR=OIWB: word 0 0x0FC00046', () => {
    const lab = booted();
    const smmu = lab.driver.smmu('smmu0');
    expect(issueWithSync(smmu, nsnhAll(), encodeCommand('CMD_CFGI_STE', { StreamID: 8, Leaf: 1 }))).toBe(true);
    expect(opcodes(lab)).toEqual([
      ['vcmdq0.0', 0x30],
      ['vcmdq0.0', 0x03],
      ['vcmdq0.0', 0x46],
    ]);
    expect([...(lab.commands.at(-1)?.words ?? [])]).toEqual([0x0fc00046, 0, 0, 0]);
  });

  test('the queue is chosen by CPU modulo the queues of a VINTF', () => {
    let cpu = 0;
    const lab = booted({ extras: { impl: tegra241Impl({ cpu: () => cpu }) } });
    for (cpu = 0; cpu < 5; cpu++) issueWithSync(lab.driver.smmu('smmu0'), nsnhAll());
    expect(lab.commands.filter(({ words }) => words[0] === 0x30).map(({ queue }) => queue)).toEqual([
      'vcmdq0.0',
      'vcmdq0.1',
      'vcmdq0.0',
      'vcmdq0.1',
      'vcmdq0.0',
    ]);
  });

  test("bypass_vcmdq: the SMMU's own queue", () => {
    const lab = booted({ extras: { impl: tegra241Impl({ bypass: true }) } });
    issueWithSync(lab.driver.smmu('smmu0'), nsnhAll());
    expect(opcodes(lab)).toEqual([
      ['cmdq', 0x30],
      ['cmdq', 0x46],
    ]);
  });

  test("without HYP_OWN (read back as 0): a list's unsupported commands go to the SMMU's own queue, each list synchronised on the queue it used [CMDQV-14]", () => {
    const lab = booted({ bus: wired });
    expect(lab.impl.vintf0?.hypOwn).toBe(false);
    const smmu = lab.driver.smmu('smmu0');
    issueWithSync(smmu, nhAsid());
    issueWithSync(smmu, nsnhAll());
    expect(opcodes(lab)).toEqual([
      ['vcmdq0.0', 0x11],
      ['vcmdq0.0', 0x46],
      ['cmdq', 0x30],
      ['cmdq', 0x46],
    ]);
    lab.commands = [];
    // A mixed batch: the queue of the first command, until one that it does not take.
    issueWithSync(smmu, nhAsid(), nsnhAll(), nhAsid());
    expect(opcodes(lab)).toEqual([
      ['vcmdq0.0', 0x11],
      ['vcmdq0.0', 0x46],
      ['cmdq', 0x30],
      ['cmdq', 0x11],
      ['cmdq', 0x46],
    ]);
  });

  test('a guest driver, on a VINTF without HYP_OWN whose pairs the VMM has set up, attaches and invalidates', () => {
    const lab = new Lab({ bus: wired });
    const { smmus, devices } = lab.machine.firmware;
    const [node] = smmus;
    if (node === undefined) throw new Error('no SMMU');
    const iommu = lab.driver.probe(node);
    for (const [s, { streamIds }] of devices.entries()) {
      lab.machine.bus.writel(CMDQV + 0x1080n + 4n * BigInt(s), streamIds[0] ?? 0);
      lab.machine.bus.writel(CMDQV + 0x1040n + 4n * BigInt(s), ((streamIds[0] ?? 0) << 1) | 1);
    }
    const [dev] = lab.core.registerIommu(iommu, [...devices]);
    if (dev === undefined) throw new Error('no device');
    const domain = lab.driver.domainAllocPagingFlags(dev, {}, null);
    domain.ops.attachDev(domain, dev, lab.driver.blockedDomain);
    expect(
      new Set(lab.commands.filter(({ words }) => ((words[0] ?? 0) & 0xff) === 0x40).map(({ queue }) => queue)),
    ).toEqual(new Set(['vcmdq0.0']));
    expect(lab.kernel.messages.filter(({ level }) => level === 'err')).toEqual([]);
    expect(lab.violations).toEqual([]);
  });

  test("a VM's commands by ioctl stay on the SMMU's own queue", () => {
    const lab = new Lab().boot();
    const vm = new Vm(lab);
    const { id } = vm.viommu();
    lab.commands = [];
    const command = new Uint8Array(nhAsid().buffer);
    vm.ctx.hwptInvalidate({ hwpt_id: id, data_uptr: command, data_type: 1, entry_len: 16, entry_num: 1 });
    expect(opcodes(lab)).toEqual([
      ['cmdq', 0x11],
      ['cmdq', 0x46],
    ]);
    expect((lab.commands[0]?.words[1] ?? 0) & 0xffff).toBe(1);
  });

  test('an illegal command: the ISR puts a CMD_SYNC in its place and acknowledges, within the wait [10.5]', () => {
    const lab = booted();
    lab.reads = true;
    lab.take();
    const smmu = lab.driver.smmu('smmu0');
    expect(issueWithSync(smmu, Uint32Array.of(0xff, 0, 0, 0), nhAsid())).toBe(true);
    expect(opcodes(lab)).toEqual([
      ['vcmdq0.0', 0x46],
      ['vcmdq0.0', 0x11],
      ['vcmdq0.0', 0x46],
    ]);
    const log = lab.take();
    const isr = log.slice(log.indexOf('VINTF_ERR_MAP1?'));
    expect(isr.slice(0, 6)).toEqual([
      'VINTF_ERR_MAP1?',
      'VINTF_ERR_MAP0?',
      'CMDQ_ERR_MAP3?',
      'CMDQ_ERR_MAP2?',
      'CMDQ_ERR_MAP1?',
      'CMDQ_ERR_MAP0?',
    ]);
    expect(isr.slice(6, 12)).toEqual([
      'V0.LVCMDQ_ERR_MAP0?64',
      'V0.LVCMDQ_ERR_MAP2?64',
      'L0.0.GERROR?',
      'L0.0.CONS?',
      'L0.0.GERRORN=0x1',
      'L0.0.CONS?',
    ]);
    expect(lab.kernel.messages.map(({ text }) => text).join('\n')).toMatch(
      /vcmdq0: CMDQ error \(cons 0x0100....\): Illegal command/,
    );
  });

  test('ATC time-out: the CMD_SYNC repeats after the acknowledge, and the time-out is counted', () => {
    const lab = booted();
    const { ats } = lab.machine.endpoint('0000:00:01.0');
    if (ats === null) throw new Error('no ATS');
    ats.hang = true;
    const smmu = lab.driver.smmu('smmu0');
    const [queue] = lab.impl.vintf0?.queues ?? [];
    expect(queue?.cmdq?.issue([CMD_ATC_INV.encode({ StreamID: 8, Size: 52 })], true)).toBe(true);
    expect(queue?.cmdq?.atcTimeouts).toBe(1);
    expect(smmu.queues.every(({ quiet }) => quiet)).toBe(true);
  });

  test('errors of both queues are handled by one interrupt', () => {
    const eager = booted();
    const [a, b] = eager.impl.vintf0?.queues ?? [];
    a?.cmdq?.issue([Uint32Array.of(0xff, 0, 0, 0)], false);
    b?.cmdq?.issue([Uint32Array.of(0xff, 0, 0, 0)], false);
    expect(eager.peek(0x24)).toBe(3);
    eager.kernel.runInterrupts();
    expect(eager.peek(0x24)).toBe(0);
    expect(opcodes(eager)).toEqual([
      ['vcmdq0.0', 0x46],
      ['vcmdq0.1', 0x46],
    ]);
  });

  test("VINTF0's VMID is 0 and its commands name the real ones: it holds no VMID", () => {
    const lab = booted();
    expect(
      lab.machine
        .smmu('smmu0')
        .vmidHolders(0)
        .filter(({ kind }) => kind === 'vintf'),
    ).toEqual([]);
    issueWithSync(lab.driver.smmu('smmu0'), encodeCommand('CMD_TLBI_S12_VMALL', { VMID: 0x1234 }));
    expect(lab.commands[0]?.words[1]).toBe(0x1234);
  });
});
