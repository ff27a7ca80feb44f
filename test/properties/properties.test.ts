import { describe, expect, test } from 'vitest';
import { CMD_CFGI_STE, CMD_TLBI_NH_ALL, CMD_TLBI_S12_VMALL } from '../../spec/index.ts';
import { makeVmidPolicy } from '../../src/driver/arm-smmu-v3/vmid-policy.ts';
import { KernelError } from '../../src/driver/kernel.ts';
import { runCampaign } from '../../src/testing/campaign.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import {
  dmaContained,
  failureChangesNothing,
  isolation,
  nothingLeft,
  PROPERTIES,
  vmidCounted,
  vmidFree,
} from '../../src/testing/properties/index.ts';
import { find, oneStage2, policy, type Wrap, without } from './broken.ts';

describe('the shipped driver: every flavour, policy, preset, width and schedule drawn', () => {
  test.each([77, 78])('all properties hold on the same cases, seed %i', (seed) => {
    const coverage = new Coverage();
    const reports = runCampaign(PROPERTIES, { seed, runs: 100, coverage });
    for (const { name, title } of PROPERTIES)
      expect(reports, title).toContainEqual(expect.objectContaining({ name, ok: true, runs: 100 }));
    // Nothing holds because nothing happens: what a property needs, the cases do.
    const { operations, policies } = coverage.report();
    expect(Object.keys(policies)).toHaveLength(4);
    for (const op of ['viommuAlloc', 'nestedAlloc', 'attach', 'dma', 'unmap', 'map', 'invalidate', 'guestMap'])
      expect(operations[op], op).toBeGreaterThan(40);
  });
});

describe('a free VMID is named by nothing in hardware [VMID-1, VMID-2; 7.7 invariant 1]', () => {
  test('no CMD_TLBI_S12_VMALL at the last detach: the TLB still has it', () => {
    const { found, story } = find(vmidFree, without(CMD_TLBI_S12_VMALL.opcode));
    expect(found.finding.message).toMatch(/VMID \d+ is freed and is named by (tlb|walk-cache)/);
    expect(story).toContain('attach');
    expect(story.length).toBeLessThanOrEqual(7);
  });

  test('no CMD_CFGI_STE: the old STE stays cached and fills the TLB again', () => {
    const { found } = find(vmidFree, without(CMD_CFGI_STE.opcode), { policy: 'at-attach' });
    expect(found.finding.message).toMatch(/VMID \d+ is freed? and is named by (cached-ste|tlb|walk-cache)/);
  });
});

describe('each SMMU has as many VMIDs owned as the policy has owners', () => {
  test('a vIOMMU that never gives its VMID back', () => {
    const { found, story } = find(
      vmidCounted,
      policy(() => ({ vsmmuDestroy: () => {} })),
      { policy: 'at-attach' },
    );
    expect(found.finding.message).toMatch(/^smmu\d: VMIDs 1 are owned; the owners are nobody$/);
    expect(story).toEqual(['hwptAlloc', 'viommuAlloc', 'destroy']);
  });

  test("policy 'viommu-only' that refuses nothing", () => {
    const lax: Wrap = (shipped) => ({
      ...shipped,
      vmidPolicy: makeVmidPolicy('at-attach', { hypervisor: null, nestedWithoutViommu: false }),
    });
    const { found } = find(vmidCounted, lax, { policy: 'viommu-only' });
    expect(found.finding.message).toMatch(
      /^(attach|viommuAlloc) succeeded; policy viommu-only has to refuse it: EBUSY$/,
    );
  });
});

describe('after close nothing remains [iommufd.md 14.4]', () => {
  test('a VMID that outlives its vIOMMU', () => {
    const { found, story } = find(
      nothingLeft,
      policy(() => ({ vsmmuDestroy: () => {} })),
      { policy: 'viommu-only' },
    );
    expect(found.finding.message).toMatch(/^after close VMIDs are owned: smmu\d 1 viommu:\d+$/);
    expect(story).toEqual(['hwptAlloc', 'viommuAlloc']);
  });

  test('page tables that are never freed', () => {
    const keeping: Wrap = (shipped) => ({
      ...shipped,
      pageTable: (...args) => Object.assign(shipped.pageTable(...args), { free: () => {} }),
    });
    const { found, story } = find(nothingLeft, keeping);
    expect(found.finding.message).toMatch(/^after close pages are left: 0x/);
    expect(story.length).toBeLessThanOrEqual(1);
  });
});

describe('an operation that fails changes nothing [iommufd.md 14.3, 14.6]', () => {
  test('an attach that aborts the stream before it knows that it can succeed', () => {
    const hasty: Wrap = (shipped) => ({
      ...shipped,
      attach: {
        ...shipped.attach,
        prepare: (request) => {
          shipped.attach.installSte(request.master, shipped.makers.abortSte());
          return shipped.attach.prepare(request);
        },
      },
    });
    const { found, story } = find(failureChangesNothing, hasty);
    expect(found.finding.message).toMatch(/^attach failed with E\w+; before: smmu\d STE 0x\w+ /);
    expect(story.at(-1)).toBe('attach');
  });
});

describe('DMA reaches only what is mapped now [TLB-1, TLB-5; 7.7 invariant 2]', () => {
  test('an unmap without an invalidation', () => {
    const lazy: Wrap = (shipped) => ({ ...shipped, invalidation: { ...shipped.invalidation, invRange: () => true } });
    const { found, story } = find(dmaContained, lazy);
    expect(found.finding.message).toMatch(
      /^the (read|write) of d\d at page \d+ reached page \d+ of vm\d, which a\d does not map$/,
    );
    // A DMA or a Translation Request has filled the TLB.
    expect(story.at(-3)).toMatch(/^(dma|translate)$/);
    expect(story.slice(-2)).toEqual(['unmap', 'dma']);
  });

  test('stage 2 invalidated by IPA, and combined entries of a nested stream left [TLB-5]', () => {
    const { found } = find(dmaContained, without(CMD_TLBI_NH_ALL.opcode), { policy: 'at-attach' }, 2000);
    expect(found.finding.message).toMatch(/reached page \d+ of vm\d, which a\d does not map$/);
    expect(found.case.steps.some(({ operation }) => operation.op === 'nestedAlloc')).toBe(true);
  });

  test("an STE with another VM's stage 2", () => {
    const { found } = find(dmaContained, oneStage2('s2DomainSte'));
    expect(found.finding.message).toMatch(/reached page \d+ of vm\d; it is attached to a\d|does not map|expected/);
  });
});

describe('isolation: what VM 0 controls changes nothing that VM 1 can observe [issue 6 item 6]', () => {
  test("a driver that refuses everybody after one VM's bad command", () => {
    const touchy: Wrap = (shipped) => {
      let refused = false;
      return {
        ...shipped,
        nested: {
          ...shipped.nested,
          convertCommand: (command, vmid, sidOf) => {
            if (refused) throw new KernelError('EIO', 'somebody was refused before');
            try {
              return shipped.nested.convertCommand(command, vmid, sidOf);
            } catch (error) {
              refused = true;
              throw error;
            }
          },
        },
      };
    };
    const { found } = find(isolation, touchy, { maxOps: 60 }, 2000);
    expect(found.finding.message).toMatch(
      /^invalidate\(v\d, .*\) gives vm1 (?:EIO, )?\d+ entries in one run and (?:EIO, )?\d+ entries in the other/,
    );
    expect(found.case.steps.some(({ twin }) => twin !== undefined)).toBe(true);
  });

  test('one stage 2 for everybody: what VM 0 writes is what VM 1 reads', () => {
    const { found } = find(isolation, oneStage2('nestedCdTableSte'), {}, 2000);
    expect(found.finding.rule).toBe('isolation');
  });
});
