/** A VM on an SMMU with a device: names that belong together, and the operations that begin most stories. */
import fc from 'fast-check';
import type { VsteOptions } from '../guest.ts';
import type { Operation } from '../operation.ts';
import type { GuestCommand } from '../operations/guest-command.ts';
import { EACH, type Pools } from './pools.ts';
import { vsid } from './values.ts';

/** See the module comment. Everything of VM k ends in a number that is k modulo {@link EACH}. */
export interface Place {
  readonly dev: string;
  readonly vm: string;
  readonly ioas: string;
  readonly s2: string;
  readonly viommu: string;
  readonly nested: string;
  readonly vdevice: string;
  readonly veventq: string;
  readonly fault: string;
  readonly vsid: number;
}

/** Any place of a lab. */
export const place = (p: Pools): fc.Arbitrary<Place> =>
  fc
    .record({
      d: fc.nat({ max: p.devices.length - 1 }),
      vm: fc.nat({ max: Math.min(EACH, p.vms.length) - 1 }),
      vsid,
    })
    .map(({ d, vm, vsid }) => {
      const i = Math.floor(d / p.perSmmu) * EACH + vm;
      return {
        dev: `d${d}`,
        vm: `vm${vm}`,
        ioas: `a${vm}`,
        s2: `s${vm}`,
        viommu: `v${i}`,
        nested: `n${i}`,
        vdevice: `x${d}`,
        veventq: `e${i}`,
        fault: `f${vm}`,
        vsid,
      };
    });

/** A nested HWPT of a place, replacing the one of that name, and its device on it. */
export const renest = (at: Place, options: VsteOptions & { readonly fault?: string } = {}): Operation[] => [
  { op: 'nestedAlloc', as: at.nested, dev: at.dev, on: at.viommu, vste: 'translate', ...options },
  { op: 'attach', dev: at.dev, to: at.nested },
];

/** Everything that a guest's stage 1 needs, up to the attached device. */
export const nestedUp = (at: Place, options: VsteOptions & { readonly fault?: string } = {}): Operation[] => [
  { op: 'hwptAlloc', as: at.s2, dev: at.dev, ioas: at.ioas, nestParent: true },
  { op: 'viommuAlloc', as: at.viommu, dev: at.dev, parent: at.s2 },
  { op: 'vdeviceAlloc', as: at.vdevice, dev: at.dev, viommu: at.viommu, vsid: at.vsid },
  ...renest(at, options),
];

/** Commands of the guest of a place. */
export const commands = (at: Place, ...list: readonly GuestCommand[]): Operation => ({
  op: 'invalidate',
  on: at.viommu,
  commands: list,
});
