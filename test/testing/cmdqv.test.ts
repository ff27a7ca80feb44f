import { describe, expect, test } from 'vitest';
import { type LabCase, runCase } from '../../src/testing/case.ts';
import type { LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operations.ts';
import { PROPERTIES } from '../../src/testing/properties/index.ts';

const GRACE: LabConfig = { preset: 'grace', streamTable: 'linear', defaultDomain: 'identity', smmus: 1 };

const caseOf = (operations: readonly Operation[], config: LabConfig = GRACE): LabCase => ({
  config,
  steps: operations.map((operation, id) => ({ id, operation })),
});

/** What breaks on the shipped driver. */
const broken = (operations: readonly Operation[], config?: LabConfig): string[] =>
  PROPERTIES.filter(({ run }) => run === undefined).flatMap((property) => {
    const { finding } = runCase(property, caseOf(operations, config));
    return finding === null ? [] : [`${property.name}: ${finding.message}`];
  });

/** A VM with a VINTF, page 0 of it, and LVCMDQ 0 in half of its page 7. */
const UP: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0', type: 'tegra241-cmdqv' },
  { op: 'mmap', as: 'w0', viommu: 'v0', vm: 'vm0' },
  { op: 'hwQueueAlloc', as: 'q0', viommu: 'v0', index: 0, page: 7, bytes: 2048 },
  { op: 'vcmdqStart', window: 'w0', index: 0 },
];

describe('no false alarm on the shipped driver', () => {
  test('memory of a queue that is mapped twice is in use until the last mapping goes [CMDQV-11]', () => {
    const steps: Operation[] = [
      { op: 'unmap', ioas: 'a0', page: 10, pages: 1 },
      { op: 'map', ioas: 'a0', vm: 'vm0', page: 10, from: 11, pages: 1 },
      ...UP.slice(0, 3),
      { op: 'hwQueueAlloc', as: 'q0', viommu: 'v0', index: 0, page: 11, offset: 2048, bytes: 2048 },
      { op: 'vcmdqStart', window: 'w0', index: 0 },
      { op: 'unmap', ioas: 'a0', page: 10, pages: 1 },
    ];
    expect(broken(steps)).toEqual([]);
  });

  test('a VM that sends no CMD_SYNC [VMID-14]', () => {
    const steps: Operation[] = [
      ...UP,
      { op: 'vcmdqIssue', window: 'w0', index: 0, commands: [{ command: 'NH_ASID', asid: 1 }], post: true },
    ];
    expect(broken(steps)).toEqual([]);
  });

  test('a VM that writes CONS of its running queue [CMDQV-CONS]', () => {
    expect(broken([...UP, { op: 'vcmdqWrite', window: 'w0', index: 0, register: 'CONS', value: 3 }])).toEqual([]);
  });
});
