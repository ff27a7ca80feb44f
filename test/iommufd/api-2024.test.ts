import { expect, test } from 'vitest';
import type { IommufdViommu } from '../../src/driver/iommu/ops.ts';
import { KernelError } from '../../src/driver/kernel.ts';
import { Iommufd2024, type IommuOps2024 } from '../../src/iommufd/api-2024.ts';
import { errno, Lab, users } from './lab.ts';

function lab2024(ops?: IommuOps2024) {
  const lab = new Lab();
  const freed: IommufdViommu[] = [];
  const driver: IommuOps2024 = ops ?? {
    viommuAlloc: (_iommu, _parent, _type, alloc) => alloc({ free: (viommu) => freed.push(viommu) }),
  };
  const api = new Iommufd2024(lab.ctx, driver);
  const dev = lab.ctx.bind(lab.a);
  const hwpt = lab.ctx.hwptAlloc({ dev_id: dev.id, pt_id: lab.mapped(), flags: 1 }).out_hwpt_id;
  return { lab, api, dev, hwpt, freed, ctx: lab.ctx };
}

test('v3: the driver allocates with the helper, and free() runs once, from destroy', () => {
  const { api, dev, hwpt, freed, ctx } = lab2024();
  const id = api.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt });
  expect(users(ctx, hwpt)).toBe(2);
  expect(freed).toEqual([]);
  ctx.destroy({ id });
  expect(freed).toHaveLength(1);
  expect(users(ctx, hwpt)).toBe(1);
});

test('v3: a failed answer aborts and destroys: free() runs, the count on the parent and the id come back', () => {
  const { api, dev, hwpt, freed, ctx, lab } = lab2024();
  lab.kernel.failNth(1, 'copy:to-user:response');
  expect(errno(() => api.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt }))).toBe('EFAULT');
  expect(freed).toHaveLength(1);
  expect(users(ctx, hwpt)).toBe(1);
  expect(api.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt })).toBe(hwpt + 1);
});

test('v3: a driver that fails after its own call of the helper leaves the id reserved until close; 7.2 does not', () => {
  const { api, dev, hwpt, ctx, lab } = lab2024({
    viommuAlloc: (_iommu, _parent, _type, alloc) => {
      alloc(null);
      throw new KernelError('ENOSPC', 'no more');
    },
  });
  expect(errno(() => api.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt }))).toBe('ENOSPC');
  expect(ctx.ioasAlloc().out_ioas_id).toBe(hwpt + 2);

  lab.driver.fail('viommu-init', 'ENOSPC');
  expect(errno(() => ctx.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt }))).toBe('ENOSPC');
  expect(ctx.ioasAlloc().out_ioas_id).toBe(hwpt + 3);
});

test('v3: TYPE_DEFAULT makes a plain vIOMMU without ops; 7.2 refuses it', () => {
  const { api, dev, hwpt, ctx } = lab2024();
  const id = api.viommuAlloc({ type: 0, dev_id: dev.id, hwpt_id: hwpt });
  expect(errno(() => ctx.hwptInvalidate({ hwpt_id: id }))).toBe('EOPNOTSUPP');
  expect(errno(() => ctx.viommuAlloc({ type: 0, dev_id: dev.id, hwpt_id: hwpt }))).toBe('EOPNOTSUPP');
});

// The report of 12 October 2024: "users set to 1 in the allocator plus inc in bind breaks unbind".
test('the report, first reading: bias 1 and driver 1 are two owners; bind makes 2, unbind needs exactly the bias', () => {
  const { dev, ctx } = lab2024();
  expect(dev.users).toBe(2);
  expect(ctx.unbind(dev)).toBe(true);
  expect(dev.live).toBe(false);
});

test('the report, what it would take to "fix" it: without the inc, a user DESTROY frees a bound device', () => {
  const { dev, ctx, lab } = lab2024();
  expect(errno(() => ctx.destroy({ id: dev.id }))).toBe('EBUSY');
  dev.users--;
  ctx.destroy({ id: dev.id });
  expect(dev.live).toBe(false);
  expect(() => ctx.attach(dev, 1)).toThrow('DEVICE 1 was freed');
  expect(lab.driver.rids.get('a')).toBe(lab.driver.identity);
});

test('the report, second reading: the vDEVICE of that series counts on the device, so unbind finds users 3', () => {
  const { api, dev, hwpt, ctx, lab } = lab2024();
  const viommu = api.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt });
  api.vdeviceAlloc({ viommu_id: viommu, dev_id: dev.id, virt_id: 5n });
  expect(dev.users).toBe(3);
  expect(ctx.unbind(dev)).toBe(false);
  expect(lab.kernel.messages.at(-1)?.text).toBe('iommufd: DEVICE 1 is destroyed with 1 other users');
  expect(dev.live).toBe(true);
});

test('the same life on 7.2: the vDEVICE is revoked, unbind succeeds, its id is a tombstone and its virtual id free', () => {
  const { dev, hwpt, ctx, lab } = lab2024();
  const viommu = ctx.viommuAlloc({ type: 1, dev_id: dev.id, hwpt_id: hwpt }).out_viommu_id;
  const vdev = ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: dev.id, virt_id: 5n }).out_vdevice_id;
  expect(ctx.unbind(dev)).toBe(true);
  expect(errno(() => ctx.destroy({ id: vdev }))).toBe('ENOENT');
  const again = ctx.bind(lab.a);
  expect(again.id).toBe(dev.id);
  const next = ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: again.id, virt_id: 5n }).out_vdevice_id;
  expect(next).toBeGreaterThan(vdev);
});
