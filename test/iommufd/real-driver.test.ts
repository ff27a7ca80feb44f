import { expect, test } from 'vitest';
import { ArmSmmuDriver } from '../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../src/driver/iommu/index.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { createMachine, linuxNesting, VIRT } from '../../src/hw/index.ts';
import { IommufdContext, VfioDevice } from '../../src/iommufd/index.ts';
import { AddressSpace, PageList } from '../../src/lab/vmm/address-space.ts';
import { errno } from './lab.ts';

const GPA = 0x8000_0000n;
/** A vSTE that says bypass. */
const VSTE = Uint8Array.from([9, ...new Array<number>(15).fill(0)]);
/** CMD_TLBI_NSNH_ALL. */
const FLUSH = Uint8Array.from([0x30, ...new Array<number>(15).fill(0)]);

function vm() {
  const machine = createMachine({
    smmus: [{ config: linuxNesting, base: VIRT.smmu }],
    endpoints: [{ name: 'nic', streamIds: [8], canWbs: true }],
    ram: [VIRT.ram],
  });
  const kernel = new LocalKernel(machine.bus, { pollTurns: 20 });
  const driver = new ArmSmmuDriver(kernel);
  const core = new IommuCore(kernel);
  for (const iommu of driver.probeAll()) core.registerIommu(iommu, machine.bus.firmware.devices);
  const first = kernel.allocPages('vm', 0x1_0000);
  const memory = new AddressSpace();
  memory.map({
    va: 0x4000_0000n,
    pages: new PageList(
      machine.bus,
      Array.from({ length: 16 }, (_, i) => first + BigInt(i) * 4096n),
    ),
    writable: true,
  });
  const ctx = new IommufdContext({ kernel, process: { memory } });
  const dev = core.device('nic');
  if (dev === undefined) throw new Error('no device');
  const nic = new VfioDevice(dev, (iova, bytes) => machine.endpoint('nic').write(iova, bytes).status === 'ok');
  return { kernel, driver, ctx, nic };
}

/** One life of a VM; what was made is taken apart again, whatever fails in between. */
function life({ ctx, nic }: ReturnType<typeof vm>): string {
  const made: number[] = [];
  const result = errno(() => {
    const devid = nic.bind(ctx);
    const ioas = ctx.ioasAlloc().out_ioas_id;
    made.push(ioas);
    ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: 0x4000_0000n, length: 0x1_0000n, iova: GPA });
    const s2 = ctx.hwptAlloc({ flags: 1, dev_id: devid, pt_id: ioas }).out_hwpt_id;
    made.push(s2);
    const viommu = ctx.viommuAlloc({ type: 1, dev_id: devid, hwpt_id: s2 }).out_viommu_id;
    made.push(viommu);
    made.push(ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: devid, virt_id: 5n }).out_vdevice_id);
    const nested = ctx.hwptAlloc({ dev_id: devid, pt_id: viommu, data_type: 2, data_uptr: VSTE }).out_hwpt_id;
    made.push(nested);
    nic.attach(nested);
    expect(nic.dma(GPA, new Uint8Array(4))).toBe(true);
    ctx.hwptInvalidate({ hwpt_id: viommu, data_type: 1, entry_len: 16, entry_num: 1, data_uptr: FLUSH });
  });
  if (nic.bound) nic.detach();
  for (const id of made.reverse()) ctx.destroy({ id });
  nic.close();
  return result;
}

test.each([
  ['alloc:', 'ENOMEM'],
  ['ids:', 'ENOMEM'],
  ['copy:', 'EFAULT'],
] as const)(
  'the life of a VM on the real driver with every %s failing in turn: %s, nothing leaks, the next life succeeds',
  (prefix, expected) => {
    const lab = vm();
    expect(life(lab)).toBe('ok');
    const pages = lab.kernel.pagesUsed;
    for (let n = 1; ; n++) {
      const plan = lab.kernel.failNth(n, prefix);
      const result = life(lab);
      if (plan.fired === null) break;
      expect(['ok', expected], `${plan.fired}`).toContain(result);
      expect(lab.ctx.objects.size, `${plan.fired}`).toBe(0);
      expect(lab.driver.smmu('smmu0').vmids.used, `${plan.fired}`).toBe(0);
      expect(lab.kernel.pagesUsed, `${plan.fired}`).toBe(pages);
      lab.kernel.clearFailures();
      expect(life(lab)).toBe('ok');
    }
  },
);

test('every poll timing out in turn: a VMID whose invalidation is not confirmed is quarantined, not leaked and not reused', () => {
  for (let n = 1; n < 40; n++) {
    const lab = vm();
    const plan = lab.kernel.failNth(n, 'poll:');
    const result = life(lab);
    if (plan.fired === null) return;
    expect(['ok', 'ETIMEDOUT'], `${plan.fired}`).toContain(result);
    expect(lab.ctx.objects.size).toBe(0);
    const { used } = lab.driver.smmu('smmu0').vmids;
    expect(used, `${plan.fired}`).toBeLessThanOrEqual(lab.driver.quarantined().length);
    expect(life(lab)).toBe('ok');
  }
});
