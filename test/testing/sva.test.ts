/** Devices in the address spaces of processes: operations, what is asked of them, and cases that were alarms once. */
import { describe, expect, test } from 'vitest';
import { askAll, type LabCase } from '../../src/testing/case.ts';
import { Lab, type LabConfig } from '../../src/testing/lab.ts';
import { execute, type Operation, operationText } from '../../src/testing/operations.ts';
import { PROPERTIES, svaShared } from '../../src/testing/properties/index.ts';
import { infected } from '../../src/testing/zoo/bug.ts';
import { ZOO } from '../../src/testing/zoo/index.ts';

const LAB: LabConfig = {
  preset: 'linuxNesting',
  smmus: 1,
  devices: 2,
  vms: 1,
  processes: 2,
  pasidBits: 4,
  defaultDomain: 'identity',
};
const bind = (as: string, dev = 'd0', mm = 'mm0'): Operation => ({ op: 'svaBind', as, dev, mm });
const dma = (page: number, pasid = 1, dev = 'd0'): Operation => ({ op: 'dma', dev, page, pasid });
const FREE: Operation = { op: 'unbind', dev: 'd0' };

/** Each step as it is told, and how it ended. */
function told(operations: readonly Operation[]): string[] {
  const lab = new Lab(LAB);
  const lines = operations.map((o) => {
    const result = execute(lab, o);
    if (result.status !== 'ok') return `${operationText(o)}: ${result.status === 'error' ? result.errno : result.why}`;
    const { dma: end, saw } = result;
    const what = end === undefined ? (saw ?? 'ok') : end.mm === undefined ? end.status : `mm${end.mm}:${end.page}`;
    return `${operationText(o)}: ${what}`;
  });
  lab.close();
  return lines;
}

const caseOf = (...operations: readonly Operation[]): LabCase => ({
  config: LAB,
  steps: operations.map((operation, i) => ({ id: i + 1, operation })),
});

/** What all properties say of a case. */
const findings = (...operations: readonly Operation[]): string[] =>
  [
    ...askAll(
      PROPERTIES.filter(({ run }) => run === undefined),
      caseOf(...operations),
    ).findings.values(),
  ].map(({ message }) => message);

describe('a device shares the address space of a process [iommu_sva_bind_device]', () => {
  test('it reaches what the process maps; a second bind keeps the bond until the second unbind', () => {
    const story: readonly Operation[] = [
      bind('b0'),
      FREE,
      bind('b0'),
      bind('b1'),
      dma(9),
      { op: 'mmMap', mm: 'mm0', page: 9, to: 12 },
      dma(9),
      { op: 'svaUnbind', name: 'b0' },
      dma(9),
      { op: 'svaUnbind', name: 'b1' },
      dma(9),
    ];
    expect(told(story)).toEqual([
      "b0 = svaBind(d0, mm0): d0 is a VM's",
      'unbind(d0): ok',
      'b0 = svaBind(d0, mm0): PASID 1',
      'b1 = svaBind(d0, mm0): PASID 1',
      'dma(d0, read page 9, PASID 1): mm0:9',
      'mmMap(mm0, page 9, page 12): ok',
      'dma(d0, read page 9, PASID 1): mm0:12',
      'svaUnbind(b0): ok',
      'dma(d0, read page 9, PASID 1): mm0:12',
      'svaUnbind(b1): ok',
      'dma(d0, read page 9, PASID 1): abort',
    ]);
    expect(findings(...story)).toEqual([]);
  });

  test('an address space that has ended is reached by nobody, and its PASID is kept until the last unbind', () => {
    const story: readonly Operation[] = [
      FREE,
      bind('b0'),
      { op: 'mmExec', mm: 'mm0' },
      dma(9),
      bind('b1'),
      dma(9, 2),
      { op: 'svaUnbind', name: 'b0' },
      bind('b2', 'd0', 'mm1'),
    ];
    expect(told(story)).toEqual([
      'unbind(d0): ok',
      'b0 = svaBind(d0, mm0): PASID 1',
      'mmExec(mm0): ok',
      'dma(d0, read page 9, PASID 1): abort',
      'b1 = svaBind(d0, mm0): PASID 2',
      'dma(d0, read page 9, PASID 2): mm0:9',
      'svaUnbind(b0): ok',
      'b2 = svaBind(d0, mm1): PASID 1',
    ]);
    // The CD stays valid without tables (EPD0), so that its ASID is in use: the flush has emptied it all the same (TLB-3).
    expect(findings(...story)).toEqual([]);
  });

  test('a device with a bond is given to no VM', () => {
    const lines = told([
      FREE,
      bind('b0'),
      { op: 'bind', dev: 'd0' },
      { op: 'svaUnbind', name: 'b0' },
      { op: 'bind', dev: 'd0' },
    ]);
    expect(lines.slice(2)).toEqual(['bind(d0): EBUSY', 'svaUnbind(b0): ok', 'bind(d0): ok']);
  });
});

describe('sva-shared fails when it should', () => {
  const second = [FREE, bind('b0'), bind('b1'), { op: 'svaUnbind', name: 'b0' }, dma(9)] as const;
  test.each([
    ['sva-second-bond', second, 'gave abort; the process has page 9 there'],
    ['sva-handle-not-shared', second, 'a further bind of d0 to mm0 failed with EBUSY'],
    ['sva-exit-keeps-tables', [FREE, bind('b0'), { op: 'mmExec', mm: 'mm0' }, dma(9)], 'it has nothing there'],
  ] as const)('%s', (name, story, message) => {
    const bug = ZOO.find((one) => one.name === name);
    if (bug === undefined) throw new Error(`${name} is no bug`);
    const { findings } = askAll([svaShared], caseOf(...story), { extras: infected(bug) });
    expect(findings.get(svaShared)?.message).toContain(message);
  });
});
