import { describe, expect, test } from 'vitest';
import { runCase } from '../../src/testing/case.ts';
import type { Operation } from '../../src/testing/operations.ts';
import { dmaContained } from '../../src/testing/properties/index.ts';

/** Pages 15 and 16 become one area; an unmap of 14 and 15 takes 14 away and stops at it. */
const PARTIAL: readonly Operation[] = [
  { op: 'unmap', ioas: 'a0', page: 15, pages: 1 },
  { op: 'map', ioas: 'a0', vm: 'vm0', page: 15, from: 14, pages: 2 },
  { op: 'unmap', ioas: 'a0', page: 14, pages: 2 },
  { op: 'attach', dev: 'd0', to: 'a0' },
  { op: 'dma', dev: 'd0', page: 14 },
];

function run(operations: readonly Operation[]) {
  const config = { policy: 'at-attach', streamTable: 'linear', defaultDomain: 'identity' } as const;
  return runCase(dmaContained, { config, steps: operations.map((operation, id) => ({ id, operation })) });
}

describe('an unmap that fails has unmapped the areas below the one that it stopped at [iopt_unmap_iova_range]', () => {
  test('DMA to them may abort', () => {
    const { finding, steps } = run(PARTIAL);
    expect(steps.map(({ result }) => result)).toMatchObject([
      { status: 'ok' },
      { status: 'ok' },
      { status: 'error', errno: 'ENOENT' },
      { status: 'ok' },
      { status: 'ok', dma: { status: 'abort' } },
    ]);
    expect(finding).toBeNull();
  });

  test('a page that is mapped again must work again', () => {
    const again: Operation[] = [...PARTIAL, { op: 'map', ioas: 'a0', vm: 'vm0', page: 14, from: 9, pages: 1 }];
    const { finding, steps } = run([...again, { op: 'dma', dev: 'd0', page: 14 }]);
    expect(finding).toBeNull();
    expect(steps.at(-1)?.result).toEqual({ status: 'ok', dma: { status: 'ok', vm: 0, page: 9 } });
  });
});

test('a device that may stall and has ATS reaches its memory: EATS with S2S=1 would be ILLEGAL (IHI 0070 5.2, EATS)', () => {
  const config = { policy: 'at-attach', streamTable: 'linear', ats: true, stalls: true } as const;
  const operations: Operation[] = [
    { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
    { op: 'attach', dev: 'd0', to: 's0' },
    { op: 'dma', dev: 'd0', page: 8 },
  ];
  const { finding, steps } = runCase(dmaContained, {
    config,
    steps: operations.map((operation, id) => ({ id, operation })),
  });
  expect(finding).toBeNull();
  expect(steps.at(-1)?.result).toEqual({ status: 'ok', dma: { status: 'ok', vm: 0, page: 8 } });
});

test('a stalled access that is sent again while its page is being unmapped may still reach it (IHI 0070 3.21.1: until the CMD_SYNC)', () => {
  // `smmulab check --seed 12`, run 167: the retry is under way when the answer's operation ends.
  const config = {
    policy: 'viommu-only',
    streamTable: 'linear',
    defaultDomain: 'identity',
    entryNum: 'uapi',
    stalls: true,
    smmus: 1,
    devices: 1,
    schedule: { mode: 'seeded', seed: 1015269753 },
  } as const;
  const invalidated = [{ command: 'CFGI_CD_ALL', vsid: 0 }, { command: 'NH_ALL' }] as const;
  const operations: readonly (readonly [id: number, Operation])[] = [
    [1773312, { op: 'faultQueueAlloc', as: 'f1', dev: 'd0' }],
    [1773313, { op: 'hwptAlloc', as: 's1', dev: 'd0', ioas: 'a1', nestParent: true }],
    [1773314, { op: 'viommuAlloc', as: 'v1', dev: 'd0', parent: 's1' }],
    [1773315, { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v1', vsid: 0 }],
    [1773316, { op: 'nestedAlloc', as: 'n1', dev: 'd0', on: 'v1', vste: 'translate', fault: 'f1' }],
    [1773317, { op: 'attach', dev: 'd0', to: 'n1' }],
    [1773318, { op: 'guestCd', vm: 'vm1', cd: 0, space: 0, stall: true }],
    [1773319, { op: 'guestMap', vm: 'vm1', space: 0, page: 8, to: null }],
    [1773320, { op: 'invalidate', on: 'v1', commands: invalidated }],
    [1773321, { op: 'dma', dev: 'd0', page: 8 }],
    [1773322, { op: 'faultRead', on: 'f1' }],
    [1773323, { op: 'guestMap', vm: 'vm1', space: 0, page: 8, to: 9 }],
    [1773324, { op: 'faultRespond', on: 'f1', code: 'success' }],
    [854881, { op: 'unmap', ioas: 'a1', page: 9, pages: 1 }],
  ];
  const { finding, steps } = runCase(dmaContained, {
    config,
    steps: operations.map(([id, operation]) => ({ id, operation })),
  });
  expect(steps[9]?.result).toMatchObject({ status: 'ok', dma: { status: 'stall' } });
  expect(steps.at(-1)?.result).toMatchObject({ status: 'ok' });
  expect(finding).toBeNull();
});
