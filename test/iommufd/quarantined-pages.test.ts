import { describe, expect, test } from 'vitest';
import { ArmSmmuDriver } from '../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../src/driver/iommu/index.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { createMachine, linuxNesting, VIRT } from '../../src/hw/index.ts';
import { IommufdContext, type PageRun, VfioDevice } from '../../src/iommufd/index.ts';
import { AddressSpace, PageList } from '../../src/lab/vmm/address-space.ts';

const VA = 0x4000_0000n;
const GPA = 0x8000_0000n;
const PAGES = 4;

/** Notes what it gets back. */
class Memory extends AddressSpace {
  back = 0;
  unpin({ pages }: PageRun): void {
    this.back += pages;
  }
}

/** A device attached to a HWPT of an IOAS that shows four pages. */
function attached(quirks: 'none' | 'linux-7.2' = 'none') {
  const machine = createMachine({
    smmus: [{ config: linuxNesting, base: VIRT.smmu }],
    endpoints: [{ name: 'nic', streamIds: [8], canWbs: true }],
    ram: [VIRT.ram],
  });
  const kernel = new LocalKernel(machine.bus, { pollTurns: 20 });
  const driver = new ArmSmmuDriver(kernel, quirks === 'none' ? {} : { quirks });
  const core = new IommuCore(kernel);
  for (const iommu of driver.probeAll()) core.registerIommu(iommu, machine.bus.firmware.devices);
  const first = kernel.allocPages('vm', PAGES * 4096);
  const memory = new Memory();
  const pages = Array.from({ length: PAGES }, (_, i) => first + BigInt(i) * 4096n);
  memory.map({ va: VA, pages: new PageList(machine.bus, pages), writable: true });
  const ctx = new IommufdContext({ kernel, process: { memory } });
  const dev = core.device('nic');
  if (dev === undefined) throw new Error('no device');
  const nic = new VfioDevice(dev);
  const devid = nic.bind(ctx);
  const ioas = ctx.ioasAlloc().out_ioas_id;
  ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: VA, length: BigInt(PAGES) * 4096n, iova: GPA });
  const hwpt = ctx.hwptAlloc({ dev_id: devid, pt_id: ioas }).out_hwpt_id;
  nic.attach(hwpt);
  return { kernel, driver, ctx, nic, memory, devid, ioas, hwpt };
}

const unmapAll = ({ ctx, ioas }: ReturnType<typeof attached>): void =>
  void ctx.ioasUnmap({ ioas_id: ioas, iova: 0n, length: 0xffff_ffff_ffff_ffffn });

/** Any later command that completes makes the lost one good (IHI 0070 4.7.3). */
const flush = ({ nic }: ReturnType<typeof attached>): void => nic.detach();

describe('user pages after an unmap whose CMD_SYNC timed out', () => {
  test('without a time-out they go back with the unmap', () => {
    const lab = attached();
    unmapAll(lab);
    expect([lab.memory.back, lab.ctx.pins.pinned]).toEqual([PAGES, 0]);
  });

  test('they stay pinned until the SMMU has completed a CMD_SYNC', () => {
    const lab = attached();
    const plan = lab.kernel.failNth(1, 'poll:');
    unmapAll(lab);
    expect(plan.fired).not.toBeNull();
    expect([lab.memory.back, lab.ctx.pins.pinned]).toEqual([0, PAGES]);
    expect(lab.driver.quarantined().map(({ what }) => what)).toContain('user pages');
    flush(lab);
    expect([lab.memory.back, lab.ctx.pins.pinned]).toEqual([PAGES, 0]);
    expect(lab.driver.quarantined()).toEqual([]);
  });

  test('a time-out of a domain that does not stand for the pins counts as well', () => {
    const lab = attached();
    const { ctx, kernel, nic, devid, ioas } = lab;
    nic.attach(ctx.hwptAlloc({ flags: 1, dev_id: devid, pt_id: ioas }).out_hwpt_id);
    const plan = kernel.failNth(1, 'poll:');
    unmapAll(lab);
    expect(plan.fired).not.toBeNull();
    expect([lab.memory.back, ctx.pins.pinned]).toEqual([0, PAGES]);
    flush(lab);
    expect([lab.memory.back, ctx.pins.pinned]).toEqual([PAGES, 0]);
  });

  test('mapped again meanwhile, they are pinned twice and go back twice', () => {
    const lab = attached();
    lab.kernel.failNth(1, 'poll:');
    unmapAll(lab);
    lab.kernel.failNth(1, 'poll:');
    lab.ctx.ioasMap({ ioas_id: lab.ioas, flags: 7, user_va: VA, length: BigInt(PAGES) * 4096n, iova: GPA });
    expect(lab.ctx.pins.pinned).toBe(2 * PAGES);
    lab.kernel.clearFailures();
    unmapAll(lab);
    expect([lab.memory.back, lab.ctx.pins.pinned]).toEqual([2 * PAGES, 0]);
  });

  test('Linux 7.2 hands them back at once', () => {
    const lab = attached('linux-7.2');
    lab.kernel.failNth(1, 'poll:');
    unmapAll(lab);
    expect([lab.memory.back, lab.ctx.pins.pinned]).toEqual([PAGES, 0]);
  });
});
