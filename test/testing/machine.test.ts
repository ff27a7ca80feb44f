import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { POLICIES } from '../../src/testing/lab.ts';
import { labCommands, labSetup, OperationCommand, PropertyBroken } from '../../src/testing/machine.ts';
import { s2vmidOwned, vmidCounted, vmidFree } from '../../src/testing/properties/index.ts';
import { policy } from '../properties/broken.ts';

const WEIGHTS = {
  hwptAlloc: 3,
  viommuAlloc: 4,
  vdeviceAlloc: 3,
  nestedAlloc: 5,
  attach: 8,
  detach: 3,
  destroy: 6,
  dma: 3,
};
const PROPERTIES = [s2vmidOwned, vmidFree, vmidCounted];

describe('the stack as a state machine of fast-check', () => {
  test('weights of no operation, or of none at all, are refused by name', () => {
    const wrong = { atach: 1 } as object;
    expect(() => labCommands(wrong)).toThrow('weights: there is no operation atach; there are ');
    expect(() => labCommands({ attach: 0 })).toThrow('weights: no operation has a weight above 0');
  });

  test.each(POLICIES)('the shipped driver under policy %s', (name) => {
    let ran = 0;
    const setup = labSetup({ policy: name, streamTable: 'linear', defaultDomain: 'identity' }, PROPERTIES);
    fc.assert(
      fc.property(labCommands(WEIGHTS), (commands) => {
        fc.modelRun(setup, commands);
        ran += [...commands].length;
      }),
      { numRuns: 60, seed: 5 },
    );
    expect(ran).toBeGreaterThan(300);
  });

  test('a leaked VMID is found and shrinks to three commands', () => {
    const parts = policy(() => ({ vsmmuDestroy: () => {} }));
    const setup = labSetup({ policy: 'at-attach', streamTable: 'linear' }, PROPERTIES, { parts });
    const details = fc.check(
      fc.property(labCommands(WEIGHTS), (commands) => fc.modelRun(setup, commands)),
      { numRuns: 200, seed: 5 },
    );
    expect(details.failed).toBe(true);
    expect(details.errorInstance).toBeInstanceOf(PropertyBroken);
    expect(String(details.counterexample?.[0])).toMatch(
      /^s\d = hwptAlloc\(.*\),v\d = viommuAlloc\(.*\),destroy\(v\d\)/,
    );
  });

  test('a command runs only where its names are there, and the one it gives is not', () => {
    const { model } = labSetup({}, [])();
    const can = (operation: ConstructorParameters<typeof OperationCommand>[0]): boolean =>
      new OperationCommand(operation).check(model);
    expect(can({ op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0' })).toBe(true);
    expect(can({ op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a7' })).toBe(false);
    expect(can({ op: 'ioasAlloc', as: 'a0' })).toBe(false);
    expect(can({ op: 'destroy', name: 'v0' })).toBe(false);
  });
});
