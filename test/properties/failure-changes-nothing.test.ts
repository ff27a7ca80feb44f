import { expect, test } from 'vitest';
import { type RunResult, runCase } from '../../src/testing/case.ts';
import type { Operation } from '../../src/testing/operations.ts';
import { failureChangesNothing } from '../../src/testing/properties/index.ts';

const run = (operations: readonly Operation[]): RunResult =>
  runCase(failureChangesNothing, {
    config: { policy: 'at-attach', defaultDomain: 'dma' },
    steps: operations.map((operation, id) => ({ id, operation })),
  });

/** `smmulab check --seed 910 --preset smallVmid --vmid-bits 8 --schedule seeded`, run 99. */
const bind = (...nths: readonly number[]): RunResult =>
  run([
    { op: 'unbind', dev: 'd2' },
    ...nths.map((nth): Operation => ({ op: 'fail', point: 'alloc:', nth })),
    { op: 'bind', dev: 'd2' },
  ]);

test('a bind that fails gives the device its default domain back [iommu_device_release_dma_owner]', () => {
  const { finding, steps } = bind(3);
  expect(steps.at(-1)?.result).toMatchObject({ status: 'error', errno: 'ENOMEM' });
  expect(finding).toBeNull();
});

test('unless the way back fails as well: it stays blocked, and Linux warns [__iommu_group_set_domain_nofail]', () => {
  const { finding, steps } = bind(3, 4);
  expect(steps.at(-1)?.result).toMatchObject({ status: 'error', errno: 'ENOMEM' });
  expect(finding).toBeNull();
});
