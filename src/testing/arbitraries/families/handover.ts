/** Arbitraries of hand-overs. */
import fc from 'fast-check';
import { DAMAGES, type HandoverOperation } from '../../operations/handover.ts';
import { type Makers, oneOf, op, type Pools } from '../pools.ts';
import { seldom } from '../values.ts';

/** Names of the SMMUs of a lab. */
export const smmuNames = (p: Pools): string[] =>
  Array.from({ length: p.devices.length / p.perSmmu }, (_, i) => `smmu${i}`);

/** See the module comment. */
export const handoverMakers = (p: Pools): Makers<HandoverOperation> => {
  const smmu = oneOf(smmuNames(p));
  return {
    smmuSuspend: fc.record({
      op: op('smmuSuspend'),
      smmu,
      power: fc.constantFrom('on' as const, 'off' as const, 'warm' as const),
    }),
    smmuResume: fc.record({ op: op('smmuResume'), smmu }),
    smmuReset: fc.record({ op: op('smmuReset'), smmu, warm: fc.boolean() }),
    cmdqvReset: fc.record({ op: op('cmdqvReset'), smmu }),
    smmuUnplug: fc.record({ op: op('smmuUnplug'), smmu }),
    kexec: fc.tuple(oneOf(p.devices), fc.constantFrom(...DAMAGES)).chain(([dev, what]) =>
      seldom(
        fc.record({
          op: op('kexec'),
          how: fc.constantFrom('kexec' as const, 'kexec' as const, 'kdump' as const, 'orderly' as const),
        }),
        { damage: { dev, what } },
      ),
    ),
    tenants: fc.record({ op: op('tenants'), smmu, left: fc.constantFrom(0, 0, 1, 1, 2, 3, 255) }),
  };
};
