import { describe, expect, test } from 'vitest';
import { linuxSteUsed, STE } from '../../spec/index.ts';
import { runCase } from '../../src/testing/case.ts';
import type { Operation } from '../../src/testing/operations.ts';
import { vmidFree } from '../../src/testing/properties/index.ts';
import { policy, type Wrap } from './broken.ts';

/** A VM comes, does DMA, and goes. */
const LIFE: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
  { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'bypass' },
  { op: 'attach', dev: 'd0', to: 'n0' },
  { op: 'dma', dev: 'd0', page: 8 },
  { op: 'detach', dev: 'd0' },
  { op: 'destroy', name: 'n0' },
  { op: 'destroy', name: 'v0' },
];

/** An STE that leaves stage 2 gets no CMD_CFGI_STE. */
const leaving: Wrap = (shipped) => ({
  ...shipped,
  entryWriter: {
    write: (kernel, pa, target, rules, sync) => {
      const leaves = rules.used === linuxSteUsed && STE.num(target, 'S2VMID') === 0;
      return shipped.entryWriter.write(kernel, pa, target, rules, leaves ? () => true : sync);
    },
  },
});

/** A vIOMMU gives its VMID back as soon as it has it. */
const hasty = policy((shipped) => ({
  vsmmuInit: (vsmmu) => {
    shipped.vsmmuInit(vsmmu);
    shipped.vsmmuDestroy(vsmmu);
  },
  vsmmuDestroy: () => {},
}));

function verdict(parts: Wrap): string | undefined {
  const config = { policy: 'at-attach', streamTable: 'linear', defaultDomain: 'identity' } as const;
  const steps = LIFE.map((operation, id) => ({ id, operation }));
  return runCase(vmidFree, { config, steps }, { extras: { parts } }).finding?.message;
}

describe('no CMD_CFGI_STE: a VMID is nobody’s and still named [VMID-1; 3.21.3; lifecycle L7, L8]', () => {
  test('what a cache holds when it is given back is found there and then', () => {
    expect(verdict(leaving)).toBe('smmu0: VMID 1 is freed and is named by cached-ste 0x1');
  });

  test('what a cache holds later is found when the case is over', () => {
    expect(verdict((shipped) => leaving(hasty(shipped)))).toMatch(
      /^smmu0: VMID 1 is free and is named by cached-ste 0x1, walk-cache /,
    );
  });

  test('with both commands there is nothing to find', () => {
    expect(verdict((shipped) => shipped)).toBeUndefined();
  });
});
