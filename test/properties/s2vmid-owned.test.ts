import { describe, expect, test } from 'vitest';
import { STE, type Words } from '../../spec/index.ts';
import type { DriverParts } from '../../src/driver/arm-smmu-v3/index.ts';
import { runProperty } from '../../src/testing/campaign.ts';
import { runCase } from '../../src/testing/case.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import { POLICIES } from '../../src/testing/lab.ts';
import { s2vmidOwned } from '../../src/testing/properties/s2vmid-owned.ts';
import { operationText } from '../../src/testing/story.ts';

const SEED = 20261120;

describe('the S2VMID of every valid STE with stage 2 on is non-zero, allocated on its SMMU, and has one owner [VMID-1, VMID-5]', () => {
  for (const policy of POLICIES)
    for (const schedule of ['eager', 'seeded'] as const)
      test(`policy ${policy}, schedule ${schedule}`, () => {
        const coverage = new Coverage();
        const runs = schedule === 'eager' ? 120 : 40;
        const report = runProperty(s2vmidOwned, { seed: SEED, runs, fixed: { policy, schedule }, coverage });
        expect(report).toMatchObject({ ok: true, runs });
        // It would also hold where nothing ever happens.
        const { operations } = coverage.report();
        for (const op of ['viommuAlloc', 'nestedAlloc', 'attach', 'detach', 'destroy'])
          expect(operations[op], op).toBeGreaterThan(10);
      });
});

/** A run of the property on a driver with a wrapped part. */
const broken = (parts: (shipped: DriverParts) => DriverParts, policy: (typeof POLICIES)[number] = 'at-attach') => {
  const options = { seed: SEED, runs: 400, fixed: { policy }, extras: { parts } };
  const report = runProperty(s2vmidOwned, options);
  const [found] = report.findings;
  if (found === undefined) throw new Error(`not found in ${report.runs} runs`);
  return { found, story: found.case.steps.map(({ operation }) => operationText(operation)) };
};

describe('the property can fail, and hands back the shortest story', () => {
  test('a vIOMMU that gives its VMID back at once: free, and named by the STE', () => {
    const { found, story } = broken((shipped) => {
      const { vmidPolicy } = shipped;
      const vsmmuInit: typeof vmidPolicy.vsmmuInit = (vsmmu) => {
        vmidPolicy.vsmmuInit(vsmmu);
        vmidPolicy.vsmmuDestroy(vsmmu);
      };
      return { ...shipped, vmidPolicy: { ...vmidPolicy, vsmmuInit, vsmmuDestroy: () => {} } };
    });
    expect(found.finding.message).toMatch(/^smmu\d: the STE of StreamID 0x\w+ names VMID 1, which is free$/);
    expect(story.map((line) => line.replace(/^\w+ = |\(.*/g, ''))).toEqual([
      'hwptAlloc',
      'viommuAlloc',
      'nestedAlloc',
      'attach',
    ]);
  });

  test('an STE whose maker forgets the VMID', () => {
    const { found } = broken((shipped) => {
      const { makers } = shipped;
      const without = (ste: Words): Words => {
        STE.set(ste, 'S2VMID', 0);
        return ste;
      };
      const nestedCdTableSte: typeof makers.nestedCdTableSte = (...args) => without(makers.nestedCdTableSte(...args));
      const s2DomainSte: typeof makers.s2DomainSte = (...args) => without(makers.s2DomainSte(...args));
      return { ...shipped, makers: { ...makers, nestedCdTableSte, s2DomainSte } };
    });
    expect(found.finding.message).toMatch(/has stage 2 on and S2VMID 0$/);
    expect(found.case.steps.length).toBeLessThanOrEqual(4);
  });

  test('two vIOMMUs that are told the same number: the second owner is found', () => {
    const { found, story } = broken((shipped) => {
      const { vmidPolicy } = shipped;
      const first = new Map<string, number>();
      const vsmmuInit: typeof vmidPolicy.vsmmuInit = (vsmmu) => {
        vmidPolicy.vsmmuInit(vsmmu);
        const known = first.get(vsmmu.smmu.name);
        if (known === undefined) first.set(vsmmu.smmu.name, vsmmu.vmid);
        own.set(vsmmu, vsmmu.vmid);
        vsmmu.vmid = known ?? vsmmu.vmid;
      };
      const own = new Map<object, number>();
      const vsmmuDestroy: typeof vmidPolicy.vsmmuDestroy = (vsmmu) => {
        vsmmu.vmid = own.get(vsmmu) ?? vsmmu.vmid;
        vmidPolicy.vsmmuDestroy(vsmmu);
      };
      return { ...shipped, vmidPolicy: { ...vmidPolicy, vsmmuInit, vsmmuDestroy } };
    });
    expect(found.finding.message).toMatch(/names VMID \d/);
    expect(story.filter((line) => line.includes('viommuAlloc')).length).toBeLessThanOrEqual(2);
  });

  test('what was found is found again from the case alone', () => {
    const parts = (shipped: DriverParts): DriverParts => ({
      ...shipped,
      vmidPolicy: {
        ...shipped.vmidPolicy,
        vsmmuDestroy: () => {},
        vsmmuInit: (vsmmu) => Object.assign(vsmmu, { vmid: 5 }),
      },
    });
    const { found } = broken(parts);
    const again = runCase(s2vmidOwned, JSON.parse(JSON.stringify(found.case)), { extras: { parts } });
    expect(again.finding).toEqual(found.finding);
  });
});
