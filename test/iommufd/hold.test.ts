import { describe, expect, test } from 'vitest';
import { type DeviceObject, type HoldPolicyName, removeIommu } from '../../src/iommufd/index.ts';
import { errno, Lab, users, VSTE } from './lab.ts';

/** The six ways to keep a physical IOMMU without keeping the device; each test shows the weakness of one. */
function holding(iommuHold: HoldPolicyName) {
  const lab = new Lab({ context: { iommuHold } });
  const ids = lab.nested();
  const idev = lab.ctx.objects.peek(ids.dev) as DeviceObject;
  const other = lab.ctx.bind(lab.b);
  const use = (): string => errno(() => lab.ctx.hwptInvalidate({ hwpt_id: ids.viommu }));
  return { lab, ctx: lab.ctx, ids, idev, other, use };
}

describe('hot-unplug of the device that made the vIOMMU', () => {
  test.each(['raw', 'driver-count', 'device-ref', 'revoke'] as const)(
    '%s: unbind works, and the vIOMMU goes on for the other device',
    (policy) => {
      const { ctx, ids, idev, other } = holding(policy);
      expect(users(ctx, ids.dev)).toBe(2);
      expect(ctx.unbind(idev)).toBe(true);
      expect(ctx.vdeviceAlloc({ viommu_id: ids.viommu, dev_id: other.id, virt_id: 1n }).out_vdevice_id).toBeGreaterThan(
        0,
      );
      ctx.hwptAlloc({ dev_id: other.id, pt_id: ids.viommu, data_type: 2, data_uptr: VSTE });
    },
  );

  test('users: its weakness: the device cannot be unbound while the vIOMMU lives, though others use it', () => {
    const { lab, ctx, ids, idev, other } = holding('users');
    expect(ctx.unbind(idev)).toBe(false);
    expect(lab.kernel.messages.at(-1)?.text).toBe('iommufd: DEVICE 1 is destroyed with 1 other users');
    expect(ctx.unbind(other)).toBe(true);
    ctx.destroy({ id: ids.viommu });
    ctx.destroy({ id: ids.dev });
    expect(idev.live).toBe(false);
  });

  test('wait-cnt: its weakness: unbind works, but orphans the vIOMMU for every other member', () => {
    const { ctx, ids, idev, other, use } = holding('wait-cnt');
    expect(ctx.unbind(idev)).toBe(true);
    expect(use()).toBe('ENODEV');
    expect(errno(() => ctx.vdeviceAlloc({ viommu_id: ids.viommu, dev_id: other.id }))).toBe('ENODEV');
    ctx.destroy({ id: ids.viommu });
    expect(users(ctx, ids.parent)).toBe(1);
  });
});

describe('a whole IOMMU instance goes away', () => {
  test('raw (7.2): its weakness: the next call is a use after free, which the simulator reports', () => {
    const { lab, ctx, ids, use } = holding('raw');
    expect(removeIommu(lab.kernel, lab.driver.iommu)).toBe(true);
    expect(ctx.holdReports).toEqual([]);
    use();
    expect(ctx.holdReports).toEqual([
      { kind: 'use-after-free', viommu: `VIOMMU ${ids.viommu}`, iommu: 'mock0', entry: 'HWPT_INVALIDATE' },
    ]);
    ctx.destroy({ id: ids.viommu });
    expect(ctx.holdReports.map(({ entry }) => entry)).toEqual(['HWPT_INVALIDATE', 'destroy']);
  });

  test('driver-count: removal waits for the last vIOMMU', () => {
    const { lab, ctx, ids } = holding('driver-count');
    const stop = lab.kernel.onPoint((point) => {
      if (point !== 'poll:iommufd:iommu-users') return;
      stop();
      ctx.destroy({ id: ids.viommu });
    });
    expect(removeIommu(lab.kernel, lab.driver.iommu)).toBe(true);
    expect(ctx.holdReports).toEqual([]);
  });

  test('driver-count: its weakness: removal blocks on user space, and after the time-out it is as raw', () => {
    const { lab, ctx, use } = holding('driver-count');
    expect(removeIommu(lab.kernel, lab.driver.iommu)).toBe(false);
    expect(lab.kernel.messages.at(-1)?.text).toBe('iommufd: mock0 is removed while 1 vIOMMUs use it');
    use();
    expect(ctx.holdReports[0]?.kind).toBe('use-after-free');
  });

  test('device-ref: its weakness: the memory stays and no check sees that the hardware is gone', () => {
    const { lab, ctx, use } = holding('device-ref');
    removeIommu(lab.kernel, lab.driver.iommu);
    expect(use()).toBe('ok');
    expect(ctx.holdReports[0]?.kind).toBe('stale-hardware');
  });

  test('revoke: its weakness: every entry point has to ask; each that does answers ENODEV', () => {
    const { lab, ctx, ids, idev, use } = holding('revoke');
    const nested = ctx.hwptAlloc({ dev_id: ids.dev, pt_id: ids.viommu, data_type: 2, data_uptr: VSTE }).out_hwpt_id;
    removeIommu(lab.kernel, lab.driver.iommu);
    expect([
      use(),
      errno(() => ctx.hwptAlloc({ dev_id: ids.dev, pt_id: ids.viommu, data_type: 2, data_uptr: VSTE })),
      errno(() => ctx.vdeviceAlloc({ viommu_id: ids.viommu, dev_id: ids.dev })),
      errno(() => ctx.hwQueueAlloc({ viommu_id: ids.viommu, type: 1, length: 4096n })),
      errno(() => ctx.attach(idev, nested)),
    ]).toEqual(['ENODEV', 'ENODEV', 'ENODEV', 'ENODEV', 'ENODEV']);
    expect(ctx.holdReports).toEqual([]);
    ctx.destroy({ id: nested });
    ctx.destroy({ id: ids.viommu });
  });
});
