import { describe, expect, test } from 'vitest';
import { type LabCase, runCase } from '../../src/testing/case.ts';
import { Lab, type LabConfig } from '../../src/testing/lab.ts';
import type { VcmdqCommand } from '../../src/testing/operations/cmdqv.ts';
import { execute, type Operation } from '../../src/testing/operations.ts';
import { PROPERTIES, vcmdqConfined } from '../../src/testing/properties/index.ts';
import { infected } from '../../src/testing/zoo/bug.ts';
import { ZOO } from '../../src/testing/zoo/index.ts';
import type { Wrap } from '../properties/broken.ts';

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

  test('a device gets no vDEVICE on another VINTF while it is attached through the first [CMDQV-2]', () => {
    const steps: Operation[] = [
      ...UP.slice(0, 2),
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 2 },
      { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate', cd: 0 },
      { op: 'attach', dev: 'd0', to: 'n0' },
      { op: 'destroy', name: 'x0' },
      { op: 'viommuAlloc', as: 'v1', dev: 'd0', parent: 's0', type: 'tegra241-cmdqv' },
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v1', vsid: 2 },
    ];
    expect(broken(steps)).toEqual([]);
    const lab = new Lab(GRACE);
    expect(steps.map((one) => execute(lab, one)).at(-1)).toMatchObject({ status: 'error', errno: 'EBUSY' });
    execute(lab, { op: 'detach', dev: 'd0' });
    expect(steps.slice(-1).map((one) => execute(lab, one).status)).toEqual(['ok']);
  });

  test('a failure that is planned when the case is over fails nothing', () => {
    const steps: Operation[] = [...UP.slice(0, 2), { op: 'fail', point: 'poll:cmdqv:VINTF_STATUS', nth: 1 }];
    expect(broken(steps, { ...GRACE, schedule: { mode: 'seeded', seed: 3 } })).toEqual([]);
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

/** v0's mmap offset is v2's by the time it is used: offsets are given out again (iommufd_fops_mmap). */
const STALE: readonly Operation[] = [
  ...UP.slice(0, 2),
  { op: 'destroy', name: 'v0' },
  { op: 'viommuAlloc', as: 'v2', dev: 'd2', parent: 's0', type: 'tegra241-cmdqv' },
  { op: 'mmap', as: 'w0', viommu: 'v0', vm: 'vm0' },
];
const TWO_SMMUS: LabConfig = { ...GRACE, smmus: 2, vms: 1 };

describe('an mmap offset that was kept for too long [iommufd_fops_mmap]', () => {
  test('shows the page of whoever has the offset now, and keeps that vIOMMU alone', () => {
    const steps: Operation[] = [
      ...STALE,
      { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0', type: 'tegra241-cmdqv' },
      { op: 'destroy', name: 'v0' },
    ];
    expect(broken(steps, TWO_SMMUS)).toEqual([]);
    const lab = new Lab(TWO_SMMUS);
    expect(steps.map((one) => execute(lab, one).status)).toEqual(steps.map(() => 'ok'));
    expect(lab.windows.get('w0')?.viommu).toBe('v2');
    expect(execute(lab, { op: 'destroy', name: 'v2' })).toMatchObject({ errno: 'EBUSY' });
    execute(lab, { op: 'munmap', name: 'w0' });
    expect(execute(lab, { op: 'destroy', name: 'v2' })).toEqual({ status: 'ok' });
  });

  test('shows nothing where nobody has it', () => {
    const lab = new Lab(TWO_SMMUS);
    const steps = STALE.filter((one) => !('as' in one && one.as === 'v2'));
    expect(steps.map((one) => execute(lab, one)).at(-1)).toMatchObject({ errno: 'ENXIO' });
  });

  test('a window of that kind which does not keep its vIOMMU is found', () => {
    const bug = ZOO.find(({ name }) => name === 'window-outlives-viommu');
    if (bug === undefined) throw new Error('no such bug');
    const gone: Operation = { op: 'destroy', name: 'v2' };
    const { finding } = runCase(vcmdqConfined, caseOf([...STALE, gone], TWO_SMMUS), { extras: infected(bug) });
    expect(finding?.message).toBe('v2 was destroyed while w0 shows page 0 of its VINTF');
  });
});

describe('what went with a device or an SMMU is gone', () => {
  test('vDEVICEs of an SMMU that was unplugged do not keep their vIOMMU', () => {
    const steps: Operation[] = [
      ...UP.slice(0, 2),
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 2 },
      { op: 'smmuUnplug', smmu: 'smmu0' },
      { op: 'destroy', name: 'v0' },
    ];
    expect(broken(steps, { ...TWO_SMMUS, iommuHold: 'revoke' })).toEqual([]);
  });

  test('an SMMU that was suspended when another kernel took over is watched again', () => {
    const parts: Wrap = (shipped) => ({
      ...shipped,
      vintfUser: { ...shipped.vintfUser, destroyVintf: (cmdqv, { vintf }) => void cmdqv.users.delete(vintf.index) },
    });
    const steps: Operation[] = [
      { op: 'smmuSuspend', smmu: 'smmu0' },
      { op: 'kexec', how: 'orderly' },
      { op: 'bind', dev: 'd0' },
      ...UP.slice(0, 2),
      { op: 'destroy', name: 'v0' },
    ];
    expect(broken(steps)).toEqual([]);
    expect(runCase(vcmdqConfined, caseOf(steps), { extras: { parts } }).finding?.message).toBe(
      'smmu0: VINTF 1 is enabled with VMID 1, and no vIOMMU has it',
    );
  });
});

describe('what a guest sees at its queue', () => {
  const saw = (...operations: readonly Operation[]): (string | undefined)[] => {
    const lab = new Lab(GRACE);
    return operations.map((operation) => {
      const result = execute(lab, operation);
      return result.status === 'ok' ? result.saw : result.status === 'error' ? result.errno : result.status;
    });
  };
  const issue = (...commands: readonly VcmdqCommand[]): Operation => ({
    op: 'vcmdqIssue',
    window: 'w0',
    index: 0,
    commands,
  });

  test('what it may not send is refused, and it goes on after that [tegra241-cmdqv 9]', () => {
    const steps: Operation[] = [
      issue({ command: 'NH_ASID', asid: 1 }),
      issue({ command: 'CFGI_STE', vsid: 1 }),
      { op: 'vcmdqRecover', window: 'w0', index: 0 },
      issue({ command: 'GARBAGE' }),
      { op: 'vcmdqRecover', window: 'w0', index: 0 },
      issue({ command: 'SYNC_IRQ' }),
      { op: 'vcmdqRecover', window: 'w0', index: 0 },
      issue({ command: 'ATC_INV', vsid: 0 }),
    ];
    expect(saw(...UP, ...steps).slice(UP.length)).toEqual([
      'done',
      'error:CERROR_ILL_ACCESS at 2',
      'done',
      'error:CERROR_ILL at 4',
      'done',
      'error:CERROR_ILL at 6',
      'done',
      'error:CERROR_ILL_ACCESS at 8',
    ]);
  });

  test('a window that is not mapped, a queue that is not there, registers as written', () => {
    const register = (op: 'PROD' | 'CONFIG', value: number): Operation => ({
      op: 'vcmdqWrite',
      window: 'w0',
      index: 0,
      register: op,
      value,
    });
    expect(
      saw(
        { op: 'vcmdqStart', window: 'w0', index: 0 },
        ...UP.slice(0, 3),
        { op: 'vcmdqStart', window: 'w0', index: 0 },
        ...UP.slice(3, 4),
        register('PROD', 0x15),
        { op: 'vcmdqRead', window: 'w0', index: 0, register: 'PROD' },
        { op: 'vcmdqRead', window: 'w0', index: 0, register: 'STATUS' },
        { op: 'mmap', as: 'w0', viommu: 'v0', vm: 'vm0' },
        { op: 'mmap', as: 'w1', viommu: 'v9', vm: 'vm0' },
      ),
    ).toEqual([
      'skipped',
      undefined,
      undefined,
      undefined,
      'disabled',
      undefined,
      undefined,
      '0x15',
      '0x0',
      'skipped',
      'EINVAL',
    ]);
  });

  test("where a queue may lie: the kernel's own checks [linux-driver 10.3]", () => {
    const queue = (index: number, page: number, offset: number, bytes: number): Operation => ({
      op: 'hwQueueAlloc',
      as: `q${index}`,
      viommu: 'v0',
      index,
      page,
      offset,
      bytes,
    });
    expect(
      saw(
        ...UP.slice(0, 3),
        queue(1, 7, 0, 2048),
        queue(2, 7, 0, 2048),
        queue(0, 7, 1024, 2048),
        queue(0, 7, 0, 1000),
        queue(0, 7, 0, 16),
        queue(0, 8, 0, 8192),
        queue(0, 16, 0, 2048),
        queue(0, 7, 0, 2048),
        queue(1, 7, 2048, 2048),
      ).slice(3),
    ).toEqual(['EIO', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'ENOENT', undefined, undefined]);
  });
});

describe('vcmdq-confined can fail', () => {
  const says = (parts: Wrap, ...operations: readonly Operation[]): string | undefined =>
    runCase(vcmdqConfined, caseOf(operations), { extras: { parts } }).finding?.message;

  test('a VINTF that stays on, with the VMID of nobody [tegra241-cmdqv 12.1]', () => {
    const parts: Wrap = (shipped) => ({
      ...shipped,
      vintfUser: { ...shipped.vintfUser, destroyVintf: (cmdqv, { vintf }) => void cmdqv.users.delete(vintf.index) },
    });
    expect(says(parts, ...UP.slice(0, 2), { op: 'destroy', name: 'v0' })).toBe(
      'smmu0: VINTF 1 is enabled with VMID 1, and no vIOMMU has it',
    );
  });

  test('a StreamID pair that outlives its vDEVICE [tegra241-cmdqv 12.5]', () => {
    const parts: Wrap = (shipped) => ({ ...shipped, vintf: { ...shipped.vintf, clearSid: () => {} } });
    const steps: Operation[] = [
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 2 },
      { op: 'destroy', name: 'x0' },
    ];
    expect(says(parts, ...UP.slice(0, 2), ...steps)).toBe('smmu0: VINTF 1 has the StreamID pairs 0x2:0x1; v0 has none');
  });

  test('a queue that is not there in hardware, or is still there [tegra241-cmdqv 12.3]', () => {
    const parts: Wrap = (shipped) => ({ ...shipped, vintf: { ...shipped.vintf, unmapQueue: () => {} } });
    expect(says(parts, ...UP.slice(0, 4), { op: 'destroy', name: 'q0' })).toBe(
      'smmu0: VINTF 1 has the LVCMDQs 0; v0 has none',
    );
  });
});
