import { describe, expect, test } from 'vitest';
import { STE } from '../../spec/index.ts';
import type { MapProt } from '../../src/driver/iommu/ops.ts';
import { KernelError } from '../../src/driver/kernel.ts';
import { twinCase, vmOf } from '../../src/testing/arbitraries/twins.ts';
import { runProperty } from '../../src/testing/campaign.ts';
import { type CaseStep, type RunResult, runCase } from '../../src/testing/case.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import type { LabConfig, LabExtras } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import { isolation } from '../../src/testing/properties/index.ts';
import { oneStage2 } from './broken.ts';

const LAB: LabConfig = {
  smmus: 1,
  devices: 2,
  vms: 2,
  contexts: 'per-vm',
  streamTable: 'linear',
  defaultDomain: 'identity',
  eventsLog2: 4,
};

/** Device k of VM k, attached to its stage 2. */
const up = (k: number): Operation[] => [
  { op: 'hwptAlloc', as: `s${k}`, dev: `d${k}`, ioas: `a${k}`, nestParent: true },
  { op: 'attach', dev: `d${k}`, to: `s${k}` },
];

const steps = (list: readonly (Operation | readonly [Operation, Operation | null])[]): CaseStep[] =>
  list.map((one, id) => ('op' in one ? { id, operation: one } : { id, operation: one[0], twin: one[1] }));

const run = (
  list: readonly (Operation | readonly [Operation, Operation | null])[],
  extras: LabExtras = {},
  config: LabConfig = LAB,
): RunResult => runCase(isolation, { config, steps: steps(list) }, { extras });

/** VM 0's device runs into a page that is not there, `times` times, or reads one that is. */
const storm = (times: number): [Operation, Operation] => [
  { op: 'dma', dev: 'd0', page: 9, times },
  { op: 'dma', dev: 'd0', page: 8 },
];
const gone: Operation = { op: 'unmap', ioas: 'a0', page: 9, pages: 1 };
const read: Operation = { op: 'dma', dev: 'd1', page: 8 };

describe('runs that are counted apart [issue 6 item 6]', () => {
  test('a storm that the Event queue holds is compared', () => {
    const result = run([...up(0), ...up(1), gone, storm(15), read]);
    expect(result).toMatchObject({ finding: null });
    expect(result.apart).toBeUndefined();
  });

  test('one that makes it overflow is not [OVFLG, 7.4]', () => {
    expect(run([...up(0), ...up(1), gone, storm(17), read])).toMatchObject({ finding: null, apart: 'overflow' });
  });

  test('in it an access that leaves its VM is found all the same', () => {
    const result = run([...up(0), ...up(1), gone, storm(17), read], { parts: oneStage2('s2DomainSte') });
    expect(result.finding?.message).toMatch(/^a read of vm1's stream smmu0 2 reached 0x\w+, memory of vm0$/);
  });

  /** VM 1's attach finds nothing left if VM 0's device did anything. */
  const scarce = (errno: 'ENOSPC' | 'EBUSY'): LabExtras => {
    let storms = 0;
    return {
      withKernel: (kernel, machine) => {
        storms = 0;
        machine.watch.observer = ((before) => (act) => {
          before?.(act);
          if (act.kind === 'event') storms++;
        })(machine.watch.observer);
        expect(kernel.pagesUsed).toBe(0);
      },
      parts: (shipped) => ({
        ...shipped,
        vmidPolicy: {
          ...shipped.vmidPolicy,
          tagFor: (domain, smmu) => {
            if (storms > 0) throw new KernelError(errno, 'nothing is left');
            return shipped.vmidPolicy.tagFor(domain, smmu);
          },
        },
      }),
    };
  };

  test('a resource that ran out for VM 1 in one run', () => {
    expect(run([...up(0), gone, storm(1), ...up(1)], scarce('ENOSPC'))).toMatchObject({
      finding: null,
      apart: 'exhausted',
    });
  });

  test('STAGs that ran out for VM 1 in one run: its access waits without a record [3.12, 7.2.1]', () => {
    const behind = (k: number, fault?: string): Operation[] => [
      { op: 'hwptAlloc', as: `s${k}`, dev: `d${k}`, ioas: `a${k}`, nestParent: true },
      { op: 'viommuAlloc', as: `v${k}`, dev: `d${k}`, parent: `s${k}` },
      {
        op: 'nestedAlloc',
        as: `n${k}`,
        dev: `d${k}`,
        on: `v${k}`,
        vste: 'bypass',
        ...(fault === undefined ? {} : { fault }),
      },
      { op: 'attach', dev: `d${k}`, to: `n${k}` },
    ];
    const list: readonly (Operation | readonly [Operation, Operation | null])[] = [
      { op: 'faultQueueAlloc', as: 'f0', dev: 'd0' },
      ...behind(0, 'f0'),
      { op: 'unmap', ioas: 'a0', page: 10, pages: 1 },
      [
        { op: 'guestMap', vm: 'vm0', space: 0, page: 8, to: null },
        { op: 'dma', dev: 'd0', page: 10, times: 24 },
      ],
      { op: 'unmap', ioas: 'a1', page: 8, pages: 1 },
      ...behind(1),
      { op: 'dma', dev: 'd1', page: 8 },
    ];
    const one = { config: { ...LAB, stalls: true }, steps: steps(list) };
    expect(runCase(isolation, one)).toMatchObject({ finding: null, apart: 'exhausted' });
  });

  test('any other error is told apart by: a finding', () => {
    const { finding } = run([...up(0), gone, storm(1), ...up(1)], scarce('EBUSY'));
    expect(finding?.message).toMatch(/^attach\(d1, s1\) gives vm1 EBUSY in one run and ok in the other/);
  });

  test('a campaign says how many: overflow can be reached', () => {
    const { ok, apart } = runProperty(isolation, { seed: 5, runs: 40 });
    expect(ok).toBe(true);
    expect(apart?.overflow).toBeGreaterThan(0);
  });
});

describe('what VM 1 can tell two runs apart by', () => {
  /** Calls `heard` at each event of a run. */
  const listening = (parts: (heard: () => boolean) => NonNullable<LabExtras['parts']>): LabExtras => {
    let any = false;
    return {
      withKernel: (_kernel, machine) => {
        any = false;
        machine.watch.observer = ((before) => (act) => {
          before?.(act);
          any ||= act.kind === 'event';
        })(machine.watch.observer);
      },
      parts: (shipped) => parts(() => any)(shipped),
    };
  };

  test('the memory type of an access', () => {
    const extras = listening((heard) => (shipped) => ({
      ...shipped,
      makers: {
        ...shipped.makers,
        s2DomainSte: (...args) => {
          const ste = shipped.makers.s2DomainSte(...args);
          if (heard()) STE.set(ste, 'MTCFG', 1);
          return ste;
        },
      },
    }));
    const { finding } = run([...up(0), gone, storm(1), ...up(1), read], extras);
    expect(finding?.message).toMatch(
      /^dma\(d1, read page 8\) gives vm1 .* memAttr \d+ .* in one run and .* memAttr \d+ /,
    );
  });

  test('the physical address of a write, which shows no data', () => {
    const extras = listening((heard) => (shipped) => ({
      ...shipped,
      pageTable: (...args) => {
        const table = shipped.pageTable(...args);
        const mapPages = table.mapPages.bind(table);
        // Pages of the VM's own, the wrong ones.
        const moved = (pa: bigint): bigint => (heard() ? pa ^ 0x1000n : pa);
        return Object.assign(table, {
          mapPages: (iova: bigint, pa: bigint, size: bigint, count: number, prot: MapProt): bigint => {
            for (let i = 0n; i < BigInt(count); i++) mapPages(iova + i * size, moved(pa + i * size), size, 1, prot);
            return size * BigInt(count);
          },
        });
      },
    }));
    const write: Operation = { op: 'dma', dev: 'd1', page: 8, write: true };
    const { finding } = run([...up(0), gone, storm(1), ...up(1), write], extras);
    expect(finding?.message).toMatch(
      /^dma\(d1, write page 8\) gives vm1 ok, Untranslated to 0x\w+ .* in one run and ok/,
    );
  });
});

test("draws of hardware during VM 1's operations do not depend on what VM 0 did [design, schedule]", () => {
  // Each run with its own schedule object, as the property makes them.
  const list = [
    ...up(0),
    ...up(1),
    gone,
    storm(3),
    read,
    { op: 'unmap', ioas: 'a1', page: 10, pages: 1 } as const,
    read,
  ];
  for (let seed = 0; seed < 25; seed++) {
    const result = run(list, {}, { ...LAB, schedule: { mode: 'seeded', seed } });
    expect(result).toMatchObject({ finding: null });
  }
});

test('VM 0 does in the other run whatever it can: every kind of thing that it controls is drawn', () => {
  const coverage = new Coverage();
  const report = runProperty(isolation, { seed: 11, runs: 60, coverage });
  expect(report.ok).toBe(true);
  const { operations } = coverage.report();
  for (const op of ['dma', 'translate', 'atcHang', 'guestMap', 'guestCd', 'guestTable', 'invalidate', 'nestedAlloc'])
    expect(operations[op], op).toBeGreaterThan(0);
  for (const op of ['vcmdqStart', 'vcmdqIssue', 'vcmdqWrite', 'veventRead'])
    expect(operations[op], op).toBeGreaterThan(0);
});

test('every operation of a case belongs to one of the two VMs, by its names', () => {
  expect(vmOf({ op: 'dma', dev: 'd3', page: 8 })).toBe(1);
  expect(vmOf({ op: 'viommuAlloc', as: 'v2', dev: 'd2', parent: 's0', type: 'arm-smmuv3' })).toBe(0);
  expect(vmOf({ op: 'vcmdqIssue', window: 'w3', index: 0, commands: [] })).toBe(1);
  expect(() => twinCase({ lab: { vms: 1 } })).toThrow('no lab has all that is asked for');
});
