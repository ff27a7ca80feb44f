/** Arbitraries of what is done with devices, and what they do. */
import fc from 'fast-check';
import type { DeviceOperation } from '../../operations/devices.ts';
import { fitting, type Makers, oneOf, op, type Pools, placed } from '../pools.ts';
import { page, seldom } from '../values.ts';

/** See the module comment. */
export const deviceMakers = (p: Pools): Makers<DeviceOperation> => {
  const dev = oneOf(p.devices);
  return {
    attach: placed(p, (dev, i) =>
      fc.record({
        op: op('attach'),
        dev,
        to: oneOf([...fitting(p.nested, p, i), ...fitting(p.nested, p, i), ...p.s2s, ...p.ioas]),
      }),
    ),
    detach: fc.record({ op: op('detach'), dev }),
    bind: fc.record({ op: op('bind'), dev }),
    unbind: fc.record({ op: op('unbind'), dev }),
    dma: seldom(
      fc.record({ op: op('dma'), dev, page, write: fc.boolean() }),
      { ats: true },
      { pasid: 1 },
      { unheard: true },
    ),
    settle: fc.record({ op: op('settle'), dev }),
    resetBegin: fc.record({ op: op('resetBegin'), dev }),
    resetEnd: fc.record({ op: op('resetEnd'), dev }),
  };
};
