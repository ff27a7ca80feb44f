import { describe, expect, test } from 'vitest';
import { CMD_STALL_TERM } from '../../spec/index.ts';
import { type LabCase, runCase } from '../../src/testing/case.ts';
import { Lab, type LabConfig } from '../../src/testing/lab.ts';
import { execute, type Operation } from '../../src/testing/operations.ts';
import { nothingLeft, PROPERTIES } from '../../src/testing/properties/index.ts';
import { hunt, ZOO } from '../../src/testing/zoo/index.ts';
import { without } from '../properties/broken.ts';

const LINUX: LabConfig = { preset: 'linuxNesting', streamTable: 'two-level', defaultDomain: 'identity', smmus: 1 };

const UP: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
];

const GONE: Operation = { op: 'smmuUnplug', smmu: 'smmu0' };
const FLUSH: Operation = { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_ALL' }] };

const run = (config: LabConfig, steps: readonly Operation[]) => {
  const lab = new Lab(config);
  const results = steps.map((step) => execute(lab, step));
  return { lab, last: results.at(-1) };
};

describe('an SMMU is unplugged under a live vIOMMU (iommufd_viommu.c, viommu->iommu_dev)', () => {
  test.each([
    ['raw', 'use-after-free'],
    ['driver-count', 'use-after-free'],
    ['device-ref', 'stale-hardware'],
  ] as const)('%s: what is done with the vIOMMU afterwards is a %s', (iommuHold, kind) => {
    const { lab } = run({ ...LINUX, iommuHold }, [...UP, GONE, FLUSH]);
    expect(lab.contexts.flatMap(({ holdReports }) => holdReports)[0]).toMatchObject({ kind });
  });

  test('driver-count: the driver stops waiting for user space, and says so', () => {
    const { last } = run({ ...LINUX, iommuHold: 'driver-count' }, [...UP, GONE]);
    expect(last).toMatchObject({ saw: 'still used' });
  });

  test('users: EBUSY, and the SMMU stays', () => {
    const { lab, last } = run({ ...LINUX, iommuHold: 'users' }, [...UP, GONE]);
    expect(last).toMatchObject({ status: 'error', errno: 'EBUSY' });
    expect(lab.core.iommus.map(({ name }) => name)).toEqual(['smmu0']);
  });

  test.each(['wait-cnt', 'revoke'] as const)('%s: ENODEV afterwards', (iommuHold) => {
    expect(run({ ...LINUX, iommuHold }, [...UP, GONE, FLUSH]).last).toMatchObject({ errno: 'ENODEV' });
  });
});

describe('users: a vIOMMU counts on the device that made it (a choice that was discussed for viommu->iommu_dev)', () => {
  const HELD: LabConfig = { ...LINUX, iommuHold: 'users' };

  test('a VMM that is killed leaves everything: the device keeps the file, and the vIOMMU the device', () => {
    const { lab } = run(HELD, UP);
    for (const { vfio } of lab.devices) vfio.close();
    lab.ctx.close();
    expect(lab.ctx.objects.list().map(({ kind }) => kind)).toContain('VIOMMU');
    expect(lab.ledger.list()).toEqual(['smmu0 1 viommu:1']);
  });

  test.each([
    ['as it is', []],
    ['attached', [{ op: 'attach', dev: 'd0', to: 's0' }]],
    ['its device is closed first', [{ op: 'unbind', dev: 'd0' }]],
    [
      'its device is closed first, and bound again',
      [
        { op: 'unbind', dev: 'd0' },
        { op: 'bind', dev: 'd0' },
      ],
    ],
    [
      'it goes after its device',
      [
        { op: 'unbind', dev: 'd0' },
        { op: 'destroy', name: 'v0' },
      ],
    ],
    [
      'its SMMU is unplugged after its device was closed',
      [
        { op: 'unbind', dev: 'd0' },
        { op: 'smmuUnplug', smmu: 'smmu0' },
      ],
    ],
  ] as const)('a VMM that destroys what it made leaves nothing: a vIOMMU, %s', (_, steps) => {
    const one = (operations: readonly Operation[], config: LabConfig): string[] =>
      PROPERTIES.filter(({ run: own }) => own === undefined).flatMap((property) => {
        const { finding } = runCase(property, {
          config,
          steps: operations.map((operation, id) => ({ id, operation })),
        });
        return finding === null ? [] : [`${property.name}: ${finding.message}`];
      });
    expect(one([...UP, ...steps], HELD)).toEqual([]);
  });

  test('an SMMU whose device object is left behind is not unplugged', () => {
    const steps: readonly Operation[] = [...UP, { op: 'unbind', dev: 'd0' }, GONE];
    expect(run(HELD, steps).last).toMatchObject({ status: 'error', errno: 'EBUSY' });
  });
});

describe('no false alarm on the shipped driver', () => {
  const clean = (steps: readonly Operation[], config: LabConfig = LINUX): string[] => {
    const lab: LabCase = { config, steps: steps.map((operation, id) => ({ id, operation })) };
    return PROPERTIES.filter(({ run: own }) => own === undefined).flatMap((property) => {
      const { finding } = runCase(property, lab);
      return finding === null ? [] : [`${property.name}: ${finding.message}`];
    });
  };

  test.each(['orderly', 'kexec', 'kdump'] as const)('a kernel takes over, %s, twice [VMID L43]', (how) => {
    expect(
      clean([...UP, { op: 'attach', dev: 'd0', to: 's0' }, { op: 'kexec', how }, ...UP, { op: 'kexec', how }]),
    ).toEqual([]);
  });

  const STALLS: LabConfig = { ...LINUX, streamTable: 'linear', defaultDomain: 'dma', devices: 1, vms: 1, stalls: true };

  test('a crash kernel, whose Event queue is off, lets no device stall that it claims [7.2]', () => {
    expect(
      clean(
        [
          { op: 'kexec', how: 'kdump' },
          { op: 'dma', dev: 'd0', page: 8 },
        ],
        STALLS,
      ),
    ).toEqual([]);
  });

  test('what stalls in a stream that it has inherited, and nobody has claimed, waits [7.2]', () => {
    const steps: Operation[] = [
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'kexec', how: 'kdump' },
      { op: 'dma', dev: 'd0', page: 40 },
    ];
    expect(clean(steps, { ...STALLS, defaultDomain: 'identity' })).toEqual([]);
  });

  test('a stall that SMMUEN=0 has ended is not answered when its event is read after [6.3.9.6, DET-3]', () => {
    const steps: Operation[] = [
      { op: 'attach', dev: 'd0', to: 'a0' },
      { op: 'kexec', how: 'kdump' },
      { op: 'dma', dev: 'd0', page: 40 },
      { op: 'kexec', how: 'kexec' },
      { op: 'smmuSuspend', smmu: 'smmu0' },
    ];
    expect(clean(steps, { ...STALLS, defaultDomain: 'identity' })).toEqual([]);
  });

  test('an answer that is still in the queue when SMMUEN=0 ends its stall is no wrong one [4.7.1, DET-3]', () => {
    const config: LabConfig = { ...STALLS, smmus: 2, devices: 2, schedule: { mode: 'seeded', seed: 175 } };
    const steps: Operation[] = [
      { op: 'kexec', how: 'kexec' },
      { op: 'dma', dev: 'd3', page: 8 },
      { op: 'smmuSuspend', smmu: 'smmu1' },
    ];
    const one: LabCase = { config, steps: steps.map((operation, i) => ({ id: 1225 + i, operation })) };
    const rules = PROPERTIES.find(({ name }) => name === 'rules-kept');
    if (rules === undefined) throw new Error('no rules-kept');
    expect(runCase(rules, one).finding).toBeNull();
  });

  test('what stalled while nobody heard of it ends when a kernel comes that hears [3.12.2, 3.18]', () => {
    const steps: Operation[] = [
      { op: 'kexec', how: 'kexec' },
      { op: 'kexec', how: 'kdump' },
      { op: 'dma', dev: 'd0', page: 8 },
      { op: 'kexec', how: 'kexec' },
    ];
    expect(clean(steps, STALLS)).toEqual([]);
    const { lab } = run(STALLS, steps);
    expect(lab.stalled.map(({ end }) => end)).toEqual([{ status: 'abort' }]);
  });

  test('what the kernel before has not answered waits until its device is claimed [4.7.2]', () => {
    const steps: Operation[] = [
      { op: 'unbind', dev: 'd0' },
      { op: 'dma', dev: 'd0', page: 8, unheard: true },
      { op: 'kexec', how: 'kexec' },
    ];
    expect(clean(steps, STALLS)).toEqual([]);
    expect(run(STALLS, steps).lab.stalled.map(({ end }) => end)).toEqual([undefined]);
    const bind: Operation = { op: 'bind', dev: 'd0' };
    expect(clean([...steps, bind], STALLS)).toEqual([]);
    expect(run(STALLS, [...steps, bind]).lab.stalled.map(({ end }) => end)).toEqual([{ status: 'abort' }]);
  });

  test('and no longer: a claim without CMD_STALL_TERM leaves it, and nothing-left says so', () => {
    const steps: Operation[] = [
      { op: 'unbind', dev: 'd0' },
      { op: 'dma', dev: 'd0', page: 8, unheard: true },
      { op: 'kexec', how: 'kexec' },
      { op: 'bind', dev: 'd0' },
    ];
    const one: LabCase = { config: STALLS, steps: steps.map((operation, id) => ({ id, operation })) };
    const parts = without(CMD_STALL_TERM.opcode);
    expect(runCase(nothingLeft, one, { extras: { parts } }).finding?.message).toBe(
      'after close the access of d0 to page 8 still stalls',
    );
  });

  test('what stalls in an inherited stream once a reset has switched the Event queue on is answered [3.12.2]', () => {
    const steps: Operation[] = [
      { op: 'unbind', dev: 'd0' },
      { op: 'kexec', how: 'kdump' },
      { op: 'smmuReset', smmu: 'smmu0' },
      { op: 'dma', dev: 'd0', page: 8 },
    ];
    expect(clean(steps, STALLS)).toEqual([]);
    expect(run(STALLS, steps).last).toMatchObject({ dma: { status: 'abort' } });
  });

  test('what the second stream of a device stalls is answered under its own StreamID [4.7.1, DET-3]', () => {
    const steps: Operation[] = [
      { op: 'unmap', ioas: 'a0', page: 8, pages: 1 },
      { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
      { op: 'attach', dev: 'd0', to: 's0' },
      { op: 'dma', dev: 'd0', page: 8, stream: 1 },
    ];
    expect(clean(steps, { ...STALLS, defaultDomain: 'identity', streams: 2 })).toEqual([]);
  });

  test.each(['on', 'warm', 'off'] as const)('an SMMU is suspended, power %s [VMID L44]', (power) => {
    const steps: Operation[] = [...UP, { op: 'smmuSuspend', smmu: 'smmu0', power }, { op: 'destroy', name: 'v0' }];
    expect(clean([...steps, { op: 'smmuResume', smmu: 'smmu0' }, ...UP])).toEqual([]);
  });
});

test('ready is called when iommufd is built, and again for the kernel after', () => {
  const seen: number[] = [];
  const lab = new Lab(LINUX, { ready: (one) => seen.push(one.contexts.length) });
  execute(lab, { op: 'kexec', how: 'kexec' });
  expect(seen).toHaveLength(2);
  expect(Math.min(...seen)).toBeGreaterThan(0);
});

test.each([
  ['viommu-pins-nothing', 'iommu-held'],
  ['vdevice-visible-early', 'published-last'],
  ['adopt-refuses-all', 'adopted-kept'],
])('%s is found by %s', (name, by) => {
  const bug = ZOO.find((one) => one.name === name);
  if (bug === undefined) throw new Error(`no bug ${name}`);
  const properties = PROPERTIES.filter((one) => one.name === by);
  expect(hunt(bug, { seed: 1, runs: 60, properties }).catch).not.toBeNull();
});
