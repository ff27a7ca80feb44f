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
