import { describe, expect, test } from 'vitest';
import { runCase } from '../../src/testing/case.ts';
import type { LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import type { GuestCommand } from '../../src/testing/operations/guest-command.ts';
import { guestTables } from '../../src/testing/properties/index.ts';
import { infected } from '../../src/testing/zoo/bug.ts';
import { ZOO } from '../../src/testing/zoo/index.ts';

const CONFIG: LabConfig = { policy: 'at-attach', streamTable: 'linear', smmus: 1, devices: 1, vms: 1 };

function broken(operations: readonly Operation[], bug?: string, config: LabConfig = {}): string | null {
  const one = {
    config: { ...CONFIG, ...config },
    steps: operations.map((operation, id) => ({ id, operation })),
  };
  const found = ZOO.find(({ name }) => name === bug);
  if ((bug === undefined) !== (found === undefined)) throw new Error(`no bug ${bug}`);
  const { finding } = runCase(guestTables, one, found === undefined ? {} : { extras: infected(found) });
  return finding?.message ?? null;
}

/** A device behind the stage 1 of VM 0, CD 1: data pages in reverse. */
const NESTED: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
  { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 3 },
  { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate', cd: 1 },
  { op: 'attach', dev: 'd0', to: 'n0' },
];
const READ: Operation = { op: 'dma', dev: 'd0', page: 8 };

describe("DMA follows the guest's own tables [IHI 0070 3.3.3, 5.2 Config]", () => {
  test('stage 1 is walked: with stage 2 alone page 8 would be page 8', () => {
    expect(broken([...NESTED, READ])).toBeNull();
    expect(broken([...NESTED, READ], 'nested-ste-keeps-s1-bypass')).toMatch(
      /gave page 8 of vm0; .* it gives page 15 of vm0$/,
    );
  });

  test('a vSTE that aborts is a fault [5.2 STE.V, Config]', () => {
    const aborts: Operation[] = NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, vste: 'abort' } : o));
    expect(broken([...aborts, READ])).toBeNull();
    expect(broken([...aborts, READ], 'abort-vste-bypasses')).toMatch(/it gives a fault$/);
  });

  test('a CD whose faults stall is a fault where the SMMU never stalls, or its vSTE forbids it [5.4 S]', () => {
    const stalling: Operation = { op: 'guestCd', vm: 'vm0', cd: 1, space: 1, stall: true };
    const forbids: Operation[] = NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, stalld: true } : o));
    expect(broken([stalling, ...NESTED, READ])).toBeNull();
    expect(broken([stalling, ...NESTED, READ], undefined, { preset: 'qemuVirt' })).toBeNull();
    expect(broken([stalling, ...forbids, READ])).toBeNull();
  });

  test('a vSTE with S1STALLD is a fault where the SMMU never stalls [5.2 S1STALLD]', () => {
    const forbids: Operation[] = NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, stalld: true } : o));
    expect(broken([...forbids, READ], undefined, { preset: 'qemuVirt' })).toBeNull();
    expect(broken([...forbids, READ])).toBeNull();
  });

  test('what the guest has invalidated is gone: its VMID in the command does not count [4.4.2.4]', () => {
    const changed: Operation[] = [
      ...NESTED,
      READ,
      { op: 'guestMap', vm: 'vm0', space: 1, page: 8, to: 11 },
      { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_VA', asid: 2, page: 8 }] },
      READ,
    ];
    expect(broken(changed)).toBeNull();
    expect(broken(changed, 'guest-vmid-kept')).toMatch(/gave page 15 of vm0; .* it gives page 11 of vm0$/);
  });

  test('CFGI_CD of a SubstreamID reaches that CD [4.3.3]', () => {
    const changed: Operation[] = [
      ...NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, ssids: 1, dss: 'SSID0' as const } : o)),
      { ...READ, pasid: 1 },
      { op: 'guestCd', vm: 'vm0', cd: 1, space: 0 },
      { op: 'invalidate', on: 'v0', commands: [{ command: 'CFGI_CD_ALL', vsid: 3 }] },
      { ...READ, pasid: 1 },
    ];
    expect(broken(changed)).toBeNull();
    expect(broken(changed, 'guest-cfgi-of-one-cd')).toMatch(/gave page 15 of vm0; .* it gives page 8 of vm0$/);
  });

  test("what is not invalidated may be old, or not: neither is the driver's fault [3.21.1]", () => {
    for (const mode of ['eager', 'seeded'] as const)
      for (let seed = 0; seed < 8; seed++)
        expect(
          broken([...NESTED, READ, { op: 'guestMap', vm: 'vm0', space: 1, page: 8, to: 11 }, READ], undefined, {
            schedule: { mode, seed },
          }),
        ).toBeNull();
  });

  test('what was made of a table that goes from the walk cache stays, unless it is covered itself [4.4.2.3]', () => {
    const operations: Operation[] = [
      ...NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, cd: 0 } : o)),
      READ,
      { op: 'guestTable', vm: 'vm0', space: 0, level: 1, to: 1 },
      { op: 'guestMap', vm: 'vm0', space: 0, page: 11, to: 8 },
      { ...READ, page: 11 },
      { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_VAA', page: 8, pages: 1, leaf: false }] },
      { ...READ, page: 11 },
    ];
    expect(broken(operations)).toBeNull();
  });

  test('a page that a TLBI has removed may come back from a table descriptor that the next one removes [4.7.3]', () => {
    const page13: GuestCommand = { command: 'NH_VA', asid: 1, page: 13, pages: 3, leaf: true };
    const page8: GuestCommand = { command: 'NH_VA', asid: 1, page: 8, pages: 1, leaf: false };
    const operations: Operation[] = [
      ...NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, cd: 0 } : o)),
      { ...READ, page: 15 },
      { op: 'guestTable', vm: 'vm0', space: 0, level: 1, to: 1 },
    ];
    const invalidate = (...commands: GuestCommand[]): Operation => ({ op: 'invalidate', on: 'v0', commands });
    for (const seed of [1, 2, 3, 4, 5, 6, 7, 8])
      for (const one of [invalidate(page13, page8), invalidate(page8, page13)])
        expect(
          broken([...operations, one, { ...READ, page: 15 }], undefined, { schedule: { mode: 'seeded', seed } }),
        ).toBeNull();
  });

  test('a move to a HWPT with the same vSTE writes no STE: the cached CD may stay [arm_smmu_write_entry]', () => {
    const again: Operation[] = NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, as: 'n1', ats: true } : o));
    const moved: Operation[] = [
      ...NESTED,
      READ,
      { op: 'guestCd', vm: 'vm0', cd: 1, space: 0 },
      ...again.slice(3, 4),
      { op: 'attach', dev: 'd0', to: 'n1' },
      READ,
    ];
    expect(broken(moved)).toBeNull();
    const other: Operation[] = moved.map((o) => (o.op === 'nestedAlloc' && o.as === 'n1' ? { ...o, stalld: true } : o));
    expect(broken(other)).toBeNull();
  });

  test('what stage 2 has taken away is gone in every VMID [4.4.2.1]', () => {
    const taken: Operation[] = [...NESTED, READ, { op: 'unmap', ioas: 'a0', page: 15, pages: 1 }, READ];
    expect(broken(taken)).toBeNull();
    expect(broken(taken, 'unmap-misses-viommu')).toMatch(/gave page 15 of vm0; .* it gives a fault$/);
  });

  test('an ATC that was not told keeps a page only until the host takes it away [3.9.1]', () => {
    const config: LabConfig = { ats: true };
    const through: Operation = { ...READ, ats: true };
    const taken: Operation[] = [
      ...NESTED.map((o) => (o.op === 'nestedAlloc' ? { ...o, ats: true } : o)),
      through,
      { op: 'guestMap', vm: 'vm0', space: 1, page: 8, to: 11 },
      { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_ALL' }] },
      through,
      { op: 'unmap', ioas: 'a0', page: 15, pages: 1 },
      through,
    ];
    expect(broken(taken, undefined, config)).toBeNull();
    expect(broken(taken, 'atc-not-flushed', config)).toMatch(
      /gave page 15 of vm0; .* it gives page 11 of vm0 or a fault$|a fault or page 11/,
    );
  });

  test('of a machine that began anew nothing is claimed', () => {
    expect(
      broken([...NESTED, READ, { op: 'fail', point: 'poll:', nth: 1 }, READ], 'nested-ste-keeps-s1-bypass'),
    ).toMatch(/page 8/);
    expect(broken([...NESTED, { op: 'fail', point: 'poll:', nth: 1 }, READ], 'nested-ste-keeps-s1-bypass')).toBeNull();
  });
});
