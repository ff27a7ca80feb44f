import { describe, expect, test } from 'vitest';
import { Tegra241Cmdqv } from '../../src/driver/index.ts';
import { runCampaign, runProperty } from '../../src/testing/campaign.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import { FLAVOURS } from '../../src/testing/flavours/index.ts';
import { Lab, POLICIES } from '../../src/testing/lab.ts';
import { isolation, PROPERTIES, vmidFree } from '../../src/testing/properties/index.ts';

describe('preset grace: an SMMU with a Tegra241 CMDQV beside it', () => {
  test('the shipped driver finds it and issues its own commands on VINTF 0 [tegra241_cmdqv_probe]', () => {
    const queues = new Set<string>();
    const lab = new Lab(
      { preset: 'grace' },
      { observer: (act) => act.kind === 'command' && act.smmu === 'smmu1' && queues.add(act.queue) },
    );
    for (const { name } of lab.machine.smmus) {
      expect(lab.driver?.smmu(name).impl).toBeInstanceOf(Tegra241Cmdqv);
      expect(lab.machine.cmdqv(name).counts).toEqual({ vcmdqs: 8, vintfs: 4, lvcmdqs: 2, sids: 2 });
      expect(lab.machine.cmdqv(name).vintfs[0]).toMatchObject({ enabled: true, hypOwn: true });
    }
    lab.devices.at(-1)?.vfio.attach(lab.ctx.ioasAlloc().out_ioas_id);
    expect(queues).toContain('vcmdq0.0');
  });

  test('others have none', () => {
    expect(new Lab({ preset: 'linuxNesting' }).machine.cmdqvs.size).toBe(0);
  });

  test('sidPairsLog2 says how many StreamID pairs a VINTF has, and is bounded', () => {
    expect(new Lab({ preset: 'grace', sidPairsLog2: 0 }).machine.cmdqv('smmu0').counts.sids).toBe(1);
    expect(() => new Lab({ preset: 'grace', sidPairsLog2: 5 })).toThrow('sidPairsLog2: 5, expected 0 to 4');
  });
});

describe('the shipped driver on grace keeps every property, the sanitizer among them', () => {
  const monitors = PROPERTIES.filter(({ run }) => run === undefined);
  const flavours = FLAVOURS.filter(({ name }) => name === 'vcmdq');

  test.each(POLICIES)('policy %s, VMs on VCMDQs', (policy) => {
    const coverage = new Coverage();
    const options = {
      seed: 241,
      runs: 8,
      fixed: { preset: 'grace', policy, maxOps: 100 },
      coverage,
      flavours,
    } as const;
    const reports = runCampaign(monitors, options);
    expect(reports.flatMap(({ findings }) => findings)).toEqual([]);
    // Nothing holds because nothing happens.
    const { operations } = coverage.report();
    for (const op of ['hwQueueAlloc', 'mmap', 'vcmdqStart', 'vcmdqIssue'] as const)
      expect(operations[op], op).toBeGreaterThan(4);
  });

  test('isolation of VMs on VCMDQs', () => {
    const report = runProperty(isolation, { seed: 241, runs: 15, fixed: { preset: 'grace', maxOps: 60 } });
    expect(report.findings).toEqual([]);
  });

  test('drawn cases have a grace too', () => {
    const coverage = new Coverage();
    runProperty(vmidFree, { seed: 1, runs: 30, coverage, fixed: { maxOps: 5 } });
    expect(coverage.report().presets.grace).toBeGreaterThan(3);
  });
});
