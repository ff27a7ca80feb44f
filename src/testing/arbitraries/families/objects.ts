/** Arbitraries of iommufd objects: made and destroyed. */
import fc from 'fast-check';
import type { ObjectOperation } from '../../operations/objects.ts';
import { fitting, type Makers, oneOf, op, type Pools, placed } from '../pools.ts';
import { cd, seldom, vsid, vsteMode } from '../values.ts';

/** See the module comment. */
export const objectMakers = (p: Pools): Makers<ObjectOperation> => ({
  hwptAlloc: seldom(
    fc.record({
      op: op('hwptAlloc'),
      as: oneOf(p.s2s),
      dev: oneOf(p.devices),
      ioas: oneOf(p.ioas),
      nestParent: fc.constantFrom(true, true, true, false),
    }),
    { pasid: true },
    { dirty: true },
    { fault: 'f0' },
  ),
  viommuAlloc: placed(p, (dev, i) =>
    fc.record({ op: op('viommuAlloc'), as: oneOf(fitting(p.viommus, p, i)), dev, parent: oneOf(p.s2s) }),
  ),
  vdeviceAlloc: placed(p, (dev, i) =>
    fc.record({
      op: op('vdeviceAlloc'),
      as: fc.constant(`x${i}`),
      dev,
      viommu: oneOf(fitting(p.viommus, p, i)),
      vsid,
    }),
  ),
  nestedAlloc: placed(p, (dev, i) =>
    seldom(
      fc.record({
        op: op('nestedAlloc'),
        as: oneOf(fitting(p.nested, p, i)),
        dev,
        on: oneOf([...fitting(p.viommus, p, i), ...p.s2s]),
        vste: vsteMode,
        cd,
      }),
      { ats: true },
      { ssids: 2, dss: 'SSID0' },
      { fault: 'f0' },
    ),
  ),
  destroy: fc.record({
    op: op('destroy'),
    name: oneOf([...p.nested, ...p.viommus, ...p.vdevices, ...p.s2s, ...p.ioas.slice(-1), ...p.faults, ...p.veventqs]),
  }),
});
