/** The dirty bitmap, and that the property about it fails when it should. */
import { describe, expect, test } from 'vitest';
import { askAll, type LabCase, runCase } from '../../src/testing/case.ts';
import type { LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import { dirtyReported, PROPERTIES } from '../../src/testing/properties/index.ts';
import { infected } from '../../src/testing/zoo/bug.ts';
import { ZOO } from '../../src/testing/zoo/index.ts';

const LAB: LabConfig = { preset: 'mmu700', smmus: 1, devices: 1, vms: 1, pasidBits: 4, ats: true };
const write = (page: number, more: Partial<Extract<Operation, { op: 'dma' }>> = {}): Operation => ({
  op: 'dma',
  dev: 'd0',
  page,
  write: true,
  ...more,
});
const READ: Operation = { op: 'dirtyRead', hwpt: 's0' };
const UP: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', dirty: true, pasid: true },
  { op: 'attach', dev: 'd0', to: 's0' },
  { op: 'dirtyTracking', hwpt: 's0', on: true },
];

const caseOf = (operations: readonly Operation[], config = LAB): LabCase => ({
  config,
  steps: operations.map((operation, i) => ({ id: i + 1, operation })),
});

/** What each dirtyRead of a story names. */
const bitmaps = (operations: readonly Operation[]): unknown[] =>
  runCase(dirtyReported, caseOf(operations)).steps.flatMap(({ operation, result }) =>
    operation.op === 'dirtyRead' ? [result.status === 'ok' ? result.dirty : result] : [],
  );

describe('dirty tracking of a HWPT on an SMMU with HTTU [3.13]', () => {
  const story: readonly Operation[] = [
    ...UP,
    write(9),
    // From here on the TLB has it as dirty.
    write(9),
    READ,
    // Seen only if that entry went with the bitmap.
    write(9),
    write(12, { ats: true }),
    READ,
    write(12, { ats: true }),
    READ,
    { op: 'pasidAttach', dev: 'd0', pasid: 1, to: 's0' },
    write(10, { pasid: 1 }),
    READ,
    READ,
  ];

  test('what was written since the last bitmap is in the next: through the TLB, an ATC, by PASID', () => {
    expect(bitmaps(story)).toEqual([[9], [9, 12], [12], [10], []]);
  });

  test('no property has anything to say', () => {
    const properties = PROPERTIES.filter(({ run }) => run === undefined);
    expect([...askAll(properties, caseOf(story)).findings.values()]).toEqual([]);
  });

  test('a page that is mapped anew is dirty at first; the bitmap ends at a page that is not mapped', () => {
    const unmap: Operation = { op: 'unmap', ioas: 'a0', page: 9, pages: 1 };
    const map: Operation = { op: 'map', ioas: 'a0', vm: 'vm0', page: 9, from: 9, pages: 1 };
    expect(bitmaps([...UP, write(12), unmap, READ, map, READ, READ])).toEqual([[], [9, 12], []]);
    expect(runCase(dirtyReported, caseOf([...UP, write(12), unmap, READ, map, READ, READ])).finding).toBeNull();
  });

  test.each([
    [
      'dirty-cleared-without-flush',
      [...UP, write(9), write(9), READ, write(9), READ],
      'page 9 is clean; a device has written it',
    ],
    ['dirty-not-cleared', [...UP, write(9), READ, READ], 'page 0 is dirty; nothing has written it'],
  ] as const)('%s is found', (name, operations, message) => {
    const bug = ZOO.find((one) => one.name === name);
    if (bug === undefined) throw new Error(`${name} is no bug`);
    const { finding } = runCase(dirtyReported, caseOf(operations), { extras: infected(bug) });
    expect(finding?.message).toContain(message);
  });
});

describe('what a device does that nobody has allowed', () => {
  const lab: LabConfig = { preset: 'linuxNesting', smmus: 1, devices: 1, vms: 1, ats: true, pri: true };
  const results = (...operations: readonly Operation[]) =>
    runCase(dirtyReported, caseOf(operations, lab)).steps.map(({ result }) => result);

  test('ATS is off: its Translation Requests and Translated transactions end [3.9.1, STE.EATS]', () => {
    expect(results({ op: 'forge', dev: 'd0', page: 9 })).toMatchObject([{ dma: { status: 'abort' } }]);
    const on: Operation = { op: 'attach', dev: 'd0', to: 'a0' };
    expect(results(on, { op: 'forge', dev: 'd0', page: 9 }).at(-1)).toMatchObject({ status: 'skipped' });
  });

  test('a page request that nobody asked for is refused [8.1]', () => {
    const on: Operation = { op: 'attach', dev: 'd0', to: 'a0' };
    expect(results(on, { op: 'pageRequest', dev: 'd0', page: 9 }).at(-1)).toMatchObject({ saw: 'ResponseFailure' });
  });
});
