import { describe, expect, test } from 'vitest';
import { fromQwords } from '../../../spec/index.ts';
import { iommuMap, iommuUnmap } from '../../../src/driver/iommu/index.ts';
import type { IommuDomain } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData } from './shim.ts';

const DEV = 'dev';
const RW = { read: true, write: true, cache: true };
const PAGE = 0x8000_0000n;

interface Scene {
  readonly rig: Rig;
  readonly s2: IommuDomain;
  /** What the unmap is to come between. */
  readonly run: () => void;
}

function rigOf(): Rig {
  const rig = new Rig({
    machine: {
      smmus: [{ config: linuxNesting, base: 0x0905_0000n }],
      endpoints: [{ name: DEV, streamIds: [1], canWbs: true }],
    },
    settings: { disableMsiPolling: true },
  }).boot();
  deviceDetach(rig, rig.device(DEV));
  return rig;
}

const mapped = (rig: Rig): IommuDomain => {
  const s2 = rig.driver.domainAllocPagingFlags(rig.device(DEV), { nestParent: true }, null);
  iommuMap(s2, PAGE, 0x6000_0000n, 0x2000n, RW);
  return s2;
};

const bypassOf = (rig: Rig, s2: IommuDomain): IommuDomain => {
  const iommufd = new FakeIommufd();
  return iommufd.nested(iommufd.viommu(rig, rig.device(DEV), s2), hwptData(fromQwords([0x9n, 0n])));
};

const scenes: Readonly<Record<string, () => Scene>> = {
  'attach of an S2': () => {
    const rig = rigOf();
    const s2 = mapped(rig);
    return { rig, s2, run: () => deviceAttach(rig, s2, rig.device(DEV)) };
  },
  'S2 replaced by a nested domain of its vIOMMU (another VMID)': () => {
    const rig = rigOf();
    const s2 = mapped(rig);
    deviceAttach(rig, s2, rig.device(DEV));
    const nested = bypassOf(rig, s2);
    return { rig, s2, run: () => deviceAttach(rig, nested, rig.device(DEV)) };
  },
  'detach and attach again': () => {
    const rig = rigOf();
    const s2 = mapped(rig);
    deviceAttach(rig, s2, rig.device(DEV));
    return {
      rig,
      s2,
      run: () => {
        deviceDetach(rig, rig.device(DEV));
        deviceAttach(rig, s2, rig.device(DEV));
      },
    };
  },
};

describe('an unmap that comes between any two steps reaches the device (TLB-16)', () => {
  test.each(Object.keys(scenes))('%s', (name) => {
    const make = scenes[name];
    if (make === undefined) throw new Error(name);
    let places = 0;
    for (let place = 1; ; place++) {
      const { rig, s2, run } = make();
      const endpoint = rig.machine.endpoint(DEV);
      let at = 0;
      let unmapped = false;
      const stop = rig.kernel.onPoint(() => {
        // The device keeps using the page, so that hardware caches what it may.
        if (!unmapped) endpoint.write(PAGE, Uint8Array.of(1));
        if (++at !== place) return;
        unmapped = true;
        iommuUnmap(s2, PAGE, 0x1000n);
        expect(endpoint.write(PAGE, Uint8Array.of(1)).status, `after the unmap at point ${place}`).toBe('abort');
      });
      run();
      stop();
      if (!unmapped) break;
      places++;
      expect(endpoint.write(PAGE, Uint8Array.of(1)).status, `at the end, point ${place}`).toBe('abort');
      expect(endpoint.write(PAGE + 0x1000n, Uint8Array.of(1)).status).toBe('ok');
    }
    expect(places).toBeGreaterThan(10);
  });
});
