import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { caseOf, parseScenario, scenarioData, scenarioYaml } from '../../src/lab/scenario.ts';
import { makers } from '../../src/testing/arbitraries/families/index.ts';
import { pools } from '../../src/testing/arbitraries/pools.ts';
import { vmOf } from '../../src/testing/arbitraries/twins.ts';
import type { LabCase } from '../../src/testing/case.ts';
import { CaseError, Lab, type LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import type { GuestCommand } from '../../src/testing/operations/guest-command.ts';
import { execute, OPERATION_NAMES, operationText } from '../../src/testing/operations.ts';

const POOLS = pools(2, 2, 2);

describe('an operation of any family is a step of a scenario file, a line of a story, and somebody’s', () => {
  const all = makers(POOLS);
  test.each(OPERATION_NAMES)('%s as drawn is read back from YAML as it was written', (name) => {
    const drawn = all[name] as fc.Arbitrary<Operation>;
    fc.assert(
      fc.property(fc.array(drawn, { minLength: 1, maxLength: 4 }), (operations) => {
        const one: LabCase = { config: {}, steps: operations.map((operation, id) => ({ id, operation })) };
        expect(caseOf(parseScenario(scenarioYaml(scenarioData(one))))).toEqual(one);
        for (const operation of operations) {
          expect(operationText(operation)).toContain(`${name}(`);
          expect([0, 1]).toContain(vmOf(operation));
        }
      }),
      { numRuns: 40, seed: 1 },
    );
  });
});

function run(config: LabConfig, ...operations: readonly Operation[]) {
  const lab = new Lab({ smmus: 1, devices: 1, vms: 2, policy: 'at-attach', streamTable: 'linear', ...config });
  const results = operations.map((operation) => execute(lab, operation));
  return { lab, results, last: results.at(-1) };
}

const NESTED: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
  { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 3 },
  { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate' },
  { op: 'attach', dev: 'd0', to: 'n0' },
];

describe('what a machine lacks is a case that cannot be, not an error of the kernel', () => {
  const impossible: readonly (readonly [string, Operation])[] = [
    ['a Translation Request of a device without ATS', { op: 'translate', dev: 'd0', page: 8 }],
    ['a second stream of a device with one', { op: 'dma', dev: 'd0', page: 8, stream: 1 }],
    ['a fifth CD', { op: 'guestCd', vm: 'vm0', cd: 4, space: 0 }],
    ['a table of level 3', { op: 'guestTable', vm: 'vm0', space: 0, level: 3, to: 0 }],
    ['a third space', { op: 'guestTable', vm: 'vm0', space: 0, level: 1, to: 2 }],
  ];
  test.each(impossible)('%s', (_, operation) => {
    expect(() => run({}, operation)).toThrow(CaseError);
  });
});

describe('entry_num says how many commands of a failed call were handled [IOMMU_HWPT_INVALIDATE]', () => {
  const bad: GuestCommand[] = [{ command: 'NH_ALL' }, { command: 'CFGI_CD', vsid: 4 }, { command: 'NH_ALL' }];
  test('by Linux those that were converted, by the header those that were issued', () => {
    const invalidate: Operation = { op: 'invalidate', on: 'v0', commands: bad };
    expect(run({}, ...NESTED, invalidate).last).toMatchObject({ errno: 'EIO', entries: 1 });
    expect(run({ entryNum: 'uapi' }, ...NESTED, invalidate).last).toMatchObject({ errno: 'EIO', entries: 0 });
    const good: Operation = { op: 'invalidate', on: 'v0', commands: bad.slice(0, 1) };
    expect(run({}, ...NESTED, good).last).toEqual({ status: 'ok', entries: 1 });
  });
});

describe('a device that software blocks for a reset reaches nothing until it ends [pci_dev_reset_iommu_prepare]', () => {
  const around: readonly Operation[] = [
    { op: 'resetBegin', dev: 'd0' },
    { op: 'dma', dev: 'd0', page: 9 },
    { op: 'resetEnd', dev: 'd0' },
    { op: 'dma', dev: 'd0', page: 9 },
  ];
  test('with ATS', () => {
    const { results } = run({ ats: true }, { op: 'attach', dev: 'd0', to: 'a1' }, ...around);
    expect(results.map((result) => (result.status === 'ok' ? (result.dma?.status ?? 'ok') : result.status))).toEqual([
      'ok',
      'ok',
      'abort',
      'ok',
      'ok',
    ]);
  });

  test('without ATS the core leaves it alone', () => {
    const { results } = run({}, { op: 'attach', dev: 'd0', to: 'a1' }, ...around);
    expect(results[2]).toEqual({ status: 'ok', dma: { status: 'ok', vm: 1, page: 9 } });
  });

  test('what cannot be given back after the reset is said, and the device stays blocked', () => {
    const { results } = run(
      { ats: true },
      { op: 'attach', dev: 'd0', to: 'a1' },
      { op: 'resetBegin', dev: 'd0' },
      { op: 'fail', point: 'alloc:', nth: 1 },
      { op: 'resetEnd', dev: 'd0' },
      { op: 'dma', dev: 'd0', page: 9 },
    );
    expect(results.slice(3)).toEqual([
      { status: 'ok', saw: 'stays blocked' },
      { status: 'ok', dma: { status: 'abort' } },
    ]);
  });
});

describe('a stalled access is told once: while it waits, and when it has ended [3.12.2]', () => {
  test('settle', () => {
    const { results } = run(
      { stalls: true },
      { op: 'faultQueueAlloc', as: 'f0', dev: 'd0' },
      { op: 'hwptAlloc', as: 's1', dev: 'd0', ioas: 'a1', fault: 'f0' },
      { op: 'attach', dev: 'd0', to: 's1' },
      { op: 'unmap', ioas: 'a1', page: 9, pages: 1 },
      { op: 'dma', dev: 'd0', page: 9 },
      { op: 'settle', dev: 'd0' },
      { op: 'faultRead', on: 'f0' },
      { op: 'map', ioas: 'a1', vm: 'vm1', page: 9, from: 14, pages: 1 },
      { op: 'faultRespond', on: 'f0', code: 'success' },
      { op: 'settle', dev: 'd0' },
      { op: 'settle', dev: 'd0' },
    );
    expect(results.slice(4)).toMatchObject([
      { dma: { status: 'stall' } },
      { dma: { status: 'stall' } },
      { saw: 'faults 1' },
      { status: 'ok' },
      { status: 'ok' },
      { dma: { status: 'ok', vm: 1, page: 14 } },
      { status: 'skipped' },
    ]);
  });
});
