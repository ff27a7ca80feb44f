import { describe, expect, test } from 'vitest';
import { Tegra241Cmdqv } from '../../src/driver/index.ts';
import { runProperty } from '../../src/testing/campaign.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import { Lab, POLICIES } from '../../src/testing/lab.ts';
import { PROPERTIES } from '../../src/testing/properties/index.ts';

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
  test.each(POLICIES)('policy %s', (policy) => {
    const coverage = new Coverage();
    for (const property of PROPERTIES) {
      const report = runProperty(property, { seed: 241, runs: 6, fixed: { preset: 'grace', policy }, coverage });
      expect(report.findings).toEqual([]);
    }
    expect(coverage.report().presets).toEqual({ grace: 6 * PROPERTIES.length });
  });

  test('drawn cases have it too', () => {
    const coverage = new Coverage();
    for (const property of PROPERTIES.slice(0, 1)) runProperty(property, { seed: 1, runs: 30, coverage });
    expect(coverage.report().presets.grace).toBeGreaterThan(3);
  });
});
