/** The shipped stack keeps the rules: stories in which the sanitizer once said otherwise, and cases of every flavour. */
import { describe, expect, test } from 'vitest';
import { runProperty } from '../../src/testing/campaign.ts';
import { type CaseStep, runCase } from '../../src/testing/case.ts';
import type { LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import { rulesKept } from '../../src/testing/properties/index.ts';

const LAB: LabConfig = { smmus: 1, devices: 2, vms: 1, streamTable: 'linear', defaultDomain: 'identity' };

const up = (viommu: string, nested: string): Operation[] => [
  { op: 'hwptAlloc', as: 's0', dev: 'd1', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: viommu, dev: 'd1', parent: 's0' },
  { op: 'vdeviceAlloc', as: 'x1', dev: 'd1', viommu, vsid: 0 },
  { op: 'nestedAlloc', as: nested, dev: 'd1', on: viommu, vste: 'translate' },
  { op: 'attach', dev: 'd1', to: nested },
];

const STORIES: readonly (readonly [title: string, lab: Partial<LabConfig>, operations: readonly Operation[]])[] = [
  [
    'a CMD_SYNC of one domain is lost while the next domain of the IOAS unmaps the same addresses [4.7.3]',
    {},
    [
      ...up('v0', 'n0'),
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'fail', point: 'poll:cmdq:sync', nth: 1 },
      { op: 'unmap', ioas: 'a0', page: 8, pages: 1 },
    ],
  ],
  [
    'the same, and the other domain is on an SMMU whose queue lost nothing: its unmap is done first [4.7.3]',
    { smmus: 2, devices: 2 },
    [
      { op: 'hwptAlloc', as: 's0', dev: 'd2', ioas: 'a0', nestParent: true },
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'fail', point: 'poll:cmdq:sync', nth: 1 },
      { op: 'unmap', ioas: 'a0', page: 8, pages: 1 },
    ],
  ],
  [
    'an SMMU is suspended while the next domain of the IOAS unmaps the same addresses on another [3.21.1]',
    { smmus: 2, devices: 2, vms: 2 },
    [
      { op: 'hwptAlloc', as: 's1', dev: 'd0', ioas: 'a1', nestParent: true },
      { op: 'attach', dev: 'd2', to: 'a1' },
      { op: 'smmuSuspend', smmu: 'smmu1' },
      { op: 'unmap', ioas: 'a1', page: 8, pages: 1 },
    ],
  ],
  [
    'the flush of an ASID that nobody uses is consumed in the middle of the unmap after it, its CMD_SYNC lost [4.7.3]',
    { smmus: 2, devices: 2, vms: 2, ats: true, schedule: { mode: 'seeded', seed: 1 } },
    [
      { op: 'attach', dev: 'd2', to: 'a0' },
      { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
      { op: 'fail', point: 'poll:cmdq:sync', nth: 5 },
      { op: 'attach', dev: 'd2', to: 'a1' },
    ],
  ],
  [
    'a nested stream leaves its VMID to one with stage 2 alone; later unmaps need no stage 1 invalidation [4.4.3.1]',
    { policy: 'external' },
    [
      ...up('v0', 'n0'),
      { op: 'attach', dev: 'd0', to: 's0' },
      { op: 'detach', dev: 'd1' },
      { op: 'unmap', ioas: 'a0', page: 8, pages: 1 },
    ],
  ],
  [
    'a device with a vDEVICE on a VINTF is attached to a nested HWPT that has no vIOMMU [CMDQV-2]',
    { preset: 'grace' },
    [
      { op: 'hwptAlloc', as: 's1', dev: 'd0', ioas: 'a0', nestParent: true },
      { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 's1', vste: 'translate' },
      { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
      { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0', type: 'tegra241-cmdqv' },
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 0 },
      { op: 'attach', dev: 'd0', to: 'n0' },
    ],
  ],
  [
    'an SMMU is suspended, resumed and reset while endpoints have ATS [3.9.2]',
    { ats: true },
    [
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'smmuSuspend', smmu: 'smmu0' },
      { op: 'smmuResume', smmu: 'smmu0' },
      { op: 'smmuResume', smmu: 'smmu0' },
      { op: 'smmuReset', smmu: 'smmu0' },
      { op: 'dma', dev: 'd0', page: 8, ats: true },
    ],
  ],
  [
    'a device with ATS is attached while its SMMU is suspended [3.9.2]',
    { ats: true },
    [
      { op: 'smmuSuspend', smmu: 'smmu0' },
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'smmuResume', smmu: 'smmu0' },
      { op: 'dma', dev: 'd0', page: 8, ats: true },
    ],
  ],
  [
    'a kernel takes over that cannot adopt the Stream table, while endpoints have ATS [3.9.2, 4.5.1]',
    { ats: true },
    [
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'dma', dev: 'd0', page: 8, ats: true },
      { op: 'kexec', how: 'kdump', damage: { dev: 'd0', what: 'vmid' } },
      { op: 'bind', dev: 'd0' },
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'dma', dev: 'd0', page: 8, ats: true },
    ],
  ],
  [
    'an ASID of two adopted tables is free once both SMMUs have flushed it, one of them suspended meanwhile [3.11]',
    { smmus: 2, devices: 2 },
    [
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'attach', dev: 'd2', to: 'a0' },
      { op: 'kexec', how: 'kexec' },
      { op: 'smmuSuspend', smmu: 'smmu1' },
      { op: 'bind', dev: 'd2' },
      { op: 'bind', dev: 'd0' },
    ],
  ],
  [
    'a kernel takes over while one SMMU is suspended: its old tags are flushed before it goes on [3.11]',
    { smmus: 2, devices: 1, defaultDomain: 'dma' },
    [
      { op: 'kexec', how: 'kexec' },
      { op: 'smmuSuspend', smmu: 'smmu1' },
      { op: 'kexec', how: 'kexec' },
    ],
  ],
  [
    'a RID leaves its ASID while a PASID keeps the CD table: SubstreamID 0 reaches the CD until it is cleared [7.3.9]',
    { devices: 2, vms: 2, pasidBits: 4 },
    [
      { op: 'hwptAlloc', as: 's1', dev: 'd0', ioas: 'a1', pasid: true },
      { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', pasid: true },
      { op: 'attach', dev: 'd1', to: 's0' },
      { op: 'pasidAttach', dev: 'd1', pasid: 1, to: 's1' },
      { op: 'detach', dev: 'd1' },
    ],
  ],
];

describe('no false alarm', () => {
  test.each(STORIES)('%s', (_, lab, operations) => {
    const steps = operations.map((operation, id) => ({ id, operation }));
    const { finding, steps: done } = runCase(rulesKept, { config: { ...LAB, ...lab }, steps });
    expect(done.filter(({ result }) => result.status === 'error')).toEqual([]);
    expect(finding).toBeNull();
  });

  test('an unmap goes on while the CMD_SYNC of its first page, taken for lost, is still on its way [4.7.3]', () => {
    const schedule = { mode: 'seeded', seed: 1113548061 } as const;
    // The schedule draws by the ids.
    const steps: readonly CaseStep[] = [
      { id: 394657, operation: { op: 'attach', dev: 'd0', to: 'a0' } },
      { id: 754754, operation: { op: 'fail', point: 'poll:cmdq:sync', nth: 1 } },
      { id: 754755, operation: { op: 'unmap', ioas: 'a0', page: 8, pages: 2 } },
    ];
    const { finding, steps: done } = runCase(rulesKept, { config: { ...LAB, smmus: 2, devices: 1, schedule }, steps });
    expect(done.map(({ result }) => result.status)).toEqual(['ok', 'ok', 'ok']);
    expect(finding).toBeNull();
  });

  test('in cases of every flavour, policy, preset and schedule', () => {
    expect(runProperty(rulesKept, { seed: 20261120, runs: 60 })).toMatchObject({ ok: true, runs: 60 });
  });
});
