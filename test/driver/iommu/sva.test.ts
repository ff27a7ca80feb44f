import { describe, expect, test } from 'vitest';
import {
  attachDevicePasid,
  attachHandleGet,
  detachDevicePasid,
  newAttachHandle,
} from '../../../src/driver/iommu/attach.ts';
import { groupOf } from '../../../src/driver/iommu/group.ts';
import { IopfQueue, reportDeviceFault } from '../../../src/driver/iommu/io-pgfault.ts';
import type { MmStruct, PageFault } from '../../../src/driver/iommu/ops.ts';
import { errnoOf, type Fixture, fixture, node, pageFault } from './mock-ops.ts';

function mm(name: string, allows?: (fault: PageFault) => boolean): MmStruct {
  return { name, pgd: 0x1000n, notifiers: new Set(), ...(allows ? { handleFault: allows } : {}) };
}

/** Devices A and B in groups of their own. */
function setup(overrides: Parameters<typeof fixture>[0] = {}) {
  const f: Fixture = fixture(overrides);
  const a = f.core.probeDevice(node('A'), f.driver.iommu);
  const b = f.core.probeDevice(node('B'), f.driver.iommu);
  f.driver.take();
  return { ...f, a, b, sva: f.core.sva };
}

describe('bind [iommu_sva_bind_device, iommufd.md 13.4]', () => {
  test('a bond is the attach handle of the PASID of the address space', () => {
    const { a, sva, driver } = setup();
    const p = mm('p');
    const bond = sva.bindDevice(a, p);
    expect([bond.pasid, bond.users, bond.live, sva.pasidOf(p)]).toEqual([1, 1, true, 1]);
    expect(attachHandleGet(groupOf(a), 1, 'sva')).toBe(bond);
    expect(driver.take()).toEqual(['pasid A 1 sva-p#3 <- none']);
  });

  test('a second bind of the same device and address space returns the same handle and attaches nothing', () => {
    const { a, sva, driver } = setup();
    const p = mm('p');
    const bond = sva.bindDevice(a, p);
    driver.take();
    expect(sva.bindDevice(a, p)).toBe(bond);
    expect([bond.users, driver.take()]).toEqual([2, []]);
    sva.unbindDevice(bond);
    expect([bond.users, bond.live, driver.take()]).toEqual([1, true, []]);
    sva.unbindDevice(bond);
    expect(bond.live).toBe(false);
    expect(driver.take()).toEqual(['pasid A 1 blocked <- sva-p#3', 'free sva-p#3']);
    expect(() => sva.unbindDevice(bond)).toThrow('not bound');
  });

  test('another device of the same address space shares the domain; its last bond frees it', () => {
    const { a, b, sva, driver } = setup();
    const p = mm('p');
    const first = sva.bindDevice(a, p);
    const second = sva.bindDevice(b, p);
    expect(second).not.toBe(first);
    expect([second.domain, second.pasid]).toEqual([first.domain, first.pasid]);
    sva.unbindDevice(first);
    expect(driver.take()).not.toContain('free sva-p#3');
    sva.unbindDevice(second);
    expect(driver.take()).toContain('free sva-p#3');
  });

  test('a device that refuses every domain of the address space gets a new one; the newest is tried first', () => {
    const { a, b, core, sva, driver } = setup();
    const c = core.probeDevice(node('C'), driver.iommu);
    const p = mm('p');
    const first = sva.bindDevice(a, p);
    driver.refuse('B', 'sva-p#4', 'EINVAL');
    const second = sva.bindDevice(b, p);
    expect(second.domain).not.toBe(first.domain);
    expect(second.pasid).toBe(first.pasid);
    driver.take();
    const third = sva.bindDevice(c, p);
    expect(third.domain).toBe(second.domain);
    expect(driver.take()).toEqual(['pasid C 1 sva-p#5 <- none']);
  });

  test('the group shares a bond: a bind of its other device returns the same handle', () => {
    const f = fixture();
    const [a, b] = ['A', 'B'].map((name) => f.core.probeDevice(node(name, { groupAlias: 'g' }), f.driver.iommu));
    if (!a || !b) throw new Error('no devices');
    const p = mm('p');
    const bond = f.core.sva.bindDevice(a, p);
    expect(f.core.sva.bindDevice(b, p)).toBe(bond);
    expect(bond.users).toBe(2);
  });

  test('EBUSY: a domain of another type at that PASID, with or without a handle', () => {
    for (const withHandle of [true, false]) {
      const { a, sva, driver } = setup();
      const s1 = driver.alloc('s1');
      attachDevicePasid(s1, a, 1, withHandle ? newAttachHandle(s1, null) : null);
      expect(errnoOf(() => sva.bindDevice(a, mm('p')))).toBe('EBUSY');
      expect([...driver.domains].filter((domain) => domain.type === 'sva')).toEqual([]);
      detachDevicePasid(s1, a, 1);
    }
  });

  test('EBUSY: the SVA domain of another address space at that PASID', () => {
    const { a, sva, driver } = setup();
    const foreign = driver.alloc('s1', 'sva');
    attachDevicePasid(foreign, a, 1, newAttachHandle(foreign, null));
    expect(errnoOf(() => sva.bindDevice(a, mm('p')))).toBe('EBUSY');
  });

  test('PASIDs are global: each address space has its own, on every device', () => {
    const { a, b, sva } = setup();
    const [p, q] = [mm('p'), mm('q')];
    expect([sva.bindDevice(a, p).pasid, sva.bindDevice(b, q).pasid, sva.bindDevice(b, p).pasid]).toEqual([1, 2, 1]);
  });

  test('ENOSPC without a PASID the device can use; EOVERFLOW if the address space has one beyond it', () => {
    const { a, core, driver, sva } = setup();
    const small = core.probeDevice(node('S', { ssidBits: 1 }), driver.iommu);
    const none = core.probeDevice(node('N', { ssidBits: 0 }), driver.iommu);
    const [p, q] = [mm('p'), mm('q')];
    expect(errnoOf(() => sva.bindDevice(none, p))).toBe('ENOSPC');
    expect(sva.bindDevice(small, p).pasid).toBe(1);
    expect(errnoOf(() => sva.bindDevice(small, q))).toBe('ENOSPC');
    expect(sva.bindDevice(a, q).pasid).toBe(2);
    expect(errnoOf(() => sva.bindDevice(small, q))).toBe('EOVERFLOW');
    expect(errnoOf(() => sva.bindDevice(none, q))).toBe('EOVERFLOW');
  });

  test('EOPNOTSUPP: the driver has no SVA; ENODEV: the device has no group', () => {
    const { a, core, sva } = setup({ domainAllocSva: undefined } as never);
    expect(errnoOf(() => sva.bindDevice(a, mm('p')))).toBe('EOPNOTSUPP');
    core.releaseDevice(a);
    expect(errnoOf(() => sva.bindDevice(a, mm('p')))).toBe('ENODEV');
  });

  test('every failing allocation or attach leaves no bond and no domain; the next bind succeeds', () => {
    for (let nth = 1; ; nth++) {
      const { a, sva, driver, kernel } = setup();
      const p = mm('p');
      const plan = kernel.failNth(nth, '');
      const errno = errnoOf(() => sva.bindDevice(a, p));
      if (plan.fired === null) {
        expect(nth).toBeGreaterThan(3);
        break;
      }
      expect(errno).toBe('ENOMEM');
      expect([sva.bonds.length, [...driver.domains].filter((domain) => domain.type === 'sva').length]).toEqual([0, 0]);
      expect(sva.bindDevice(a, p).pasid).toBe(1);
    }
    const { a, sva, driver } = setup();
    driver.refuse('A', null, 'EINVAL');
    expect(errnoOf(() => sva.bindDevice(a, mm('p')))).toBe('EINVAL');
    expect([...driver.domains].filter((domain) => domain.type === 'sva')).toEqual([]);
  });
});

describe('the end of an address space [mmu_notifier release, mm_pasid_drop]', () => {
  test('notifiers are told; bonds stay until unbind; then the PASID is free', () => {
    const { a, sva } = setup();
    const p = mm('p');
    const bond = sva.bindDevice(a, p);
    const told: string[] = [];
    const notifier = {
      invalidateRange: (start: bigint, end: bigint) => told.push(`${start}-${end}`),
      release: () => {
        told.push('release');
        p.notifiers.delete(notifier);
      },
    };
    p.notifiers.add(notifier);
    sva.mmInvalidate(p, 0x1000n, 0x3000n);
    sva.mmRelease(p);
    sva.mmRelease(p);
    expect(told).toEqual(['4096-12288', 'release']);
    expect([bond.live, sva.pasidOf(p)]).toEqual([true, 1]);
    expect(errnoOf(() => sva.bindDevice(a, p))).toBe('EINVAL');
    const q = mm('q');
    expect(sva.bindDevice(a, q).pasid).toBe(2);
    sva.unbindDevice(bond);
    expect(sva.pasidOf(p)).toBe(undefined);
    expect(sva.bindDevice(a, mm('r')).pasid).toBe(1);
  });

  test('without a bond the PASID stays with the address space until its end', () => {
    const { a, sva } = setup();
    const p = mm('p');
    sva.unbindDevice(sva.bindDevice(a, p));
    expect(sva.bindDevice(a, mm('q')).pasid).toBe(2);
    sva.mmRelease(p);
    expect(sva.bindDevice(a, mm('r')).pasid).toBe(1);
  });
});

describe('page faults of a bond [iommu_sva_handle_iopf]', () => {
  function faulting(allows?: (fault: PageFault) => boolean) {
    const f = setup();
    new IopfQueue(f.kernel, 'iopf').addDevice(f.a);
    const p = mm('p', allows);
    f.sva.bindDevice(f.a, p);
    f.driver.take();
    return { ...f, p };
  }

  test('are handled one by one; all present: success', () => {
    const seen: bigint[] = [];
    const { a, driver } = faulting((fault) => {
      seen.push(fault.addr);
      return true;
    });
    reportDeviceFault(a, pageFault(1, { pasid: 1, addr: 0x1000n, lastPage: false }));
    reportDeviceFault(a, pageFault(1, { pasid: 1, addr: 0x2000n }));
    expect(seen).toEqual([0x1000n, 0x2000n]);
    expect(driver.take()).toEqual(['respond A g1 success']);
  });

  test('the first that the address space does not allow ends the group: invalid', () => {
    const seen: bigint[] = [];
    const { a, driver } = faulting((fault) => {
      seen.push(fault.addr);
      return false;
    });
    reportDeviceFault(a, pageFault(1, { pasid: 1, addr: 0x1000n, lastPage: false }));
    reportDeviceFault(a, pageFault(1, { pasid: 1, addr: 0x2000n }));
    expect(seen).toEqual([0x1000n]);
    expect(driver.take()).toEqual(['respond A g1 invalid']);
  });

  test('no fault handler, or an address space that has ended: invalid', () => {
    const bare = faulting();
    reportDeviceFault(bare.a, pageFault(1, { pasid: 1 }));
    expect(bare.driver.take()).toEqual(['respond A g1 invalid']);
    const ended = faulting(() => true);
    ended.sva.mmRelease(ended.p);
    reportDeviceFault(ended.a, pageFault(2, { pasid: 1 }));
    expect(ended.driver.take()).toEqual(['respond A g2 invalid']);
  });
});
