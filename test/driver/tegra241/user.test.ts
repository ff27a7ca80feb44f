import { describe, expect, test } from 'vitest';
import { linuxNesting, SMALL_PARAM } from '../../../src/hw/index.ts';
import { CMDQV, Lab, type LabOptions, Vm } from './lab.ts';

function vmOn(options: LabOptions = {}, names?: readonly string[]): { lab: Lab; vm: Vm } {
  const lab = new Lab(options).boot();
  const vm = new Vm(lab, names);
  lab.take();
  return { lab, vm };
}

const deinit = (v: number, l: number): string[] => [
  `L${v}.${l}.CONFIG=0x0`,
  'SYNC',
  'SYNC',
  `L${v}.${l}.PROD=0x0`,
  `L${v}.${l}.CONS=0x0`,
  `L${v}.${l}.BASE=0x0`,
  `L${v}.${l}.CONS_INDX_BASE=0x0`,
];
const off = (v: number): string[] => [
  `V${v}.CONFIG=0x0`,
  `V${v}.SID_MATCH0=0x0`,
  `V${v}.SID_REPLACE0=0x0`,
  `V${v}.SID_MATCH1=0x0`,
  `V${v}.SID_REPLACE1=0x0`,
];

describe('GET_HW_INFO type 3 [tegra241-cmdqv 4]', () => {
  test('flags 0, version, log2 of the queues of a VINTF, log2 of its StreamID pairs', () => {
    const info = (param: typeof SMALL_PARAM): number[] => {
      const { vm } = vmOn({ cmdqv: { param } });
      const data = new Uint8Array(8);
      const answer = vm.ctx.getHwInfo({ dev_id: vm.id(), flags: 1, in_data_type: 3, data_len: 8, data_uptr: data });
      return [answer.out_data_type, ...data];
    };
    expect(info(SMALL_PARAM)).toEqual([3, 0, 0, 0, 0, 1, 1, 1, 0]);
    expect(info({ VER: 2, NUM_VCMDQ_LOG2: 7, NUM_VINTF_LOG2: 4, NUM_SID_PER_VM_LOG2: 4 })).toEqual([
      3, 0, 0, 0, 0, 2, 3, 4, 0,
    ]);
  });

  test('another type: EOPNOTSUPP', () => {
    const { lab, vm } = vmOn();
    const data = new Uint8Array(8);
    expect(
      lab.errno(() => vm.ctx.getHwInfo({ dev_id: vm.id(), flags: 1, in_data_type: 1, data_len: 8, data_uptr: data })),
    ).toBe('EOPNOTSUPP');
  });
});

describe('life of a user VINTF [tegra241-cmdqv 8]', () => {
  test('every register write from VIOMMU_ALLOC to DESTROY, in order; never HYP_OWN, VMID before EN [CMDQV-5, 12, 13]', () => {
    const { lab, vm } = vmOn();
    const { id, offset, length } = vm.viommu();
    // VINTF init is a deinit, then the VMID (1, bits 16:1) without EN, then with it; no HYP_OWN, no command.
    expect(lab.take()).toEqual([...off(1), 'V1.CONFIG=0x2', 'V1.CONFIG=0x3']);
    expect([offset, length]).toEqual([0x1000n, 0x10000n]);
    const vdev = vm.vdevice(id, 0x20n);
    // Physical before the match that enables it.
    expect(lab.take()).toEqual(['V1.SID_REPLACE0=0x8', 'V1.SID_MATCH0=0x41']);
    const ring0 = vm.pages(1);
    const q0 = vm.queue(id, 0, ring0, 4096n);
    const base = vm.ram.hostOf(ring0);
    // VCMDQ 2: read-modify-write of ALLOCATED; deinit with its flush; BASE with log2 of 256 entries; no EN.
    expect(lab.take()).toEqual(['ALLOC2=0x8001', ...deinit(1, 0), `L1.0.BASE=0x${(base | 8n).toString(16)}`]);
    const ring1 = vm.pages(2);
    const q1 = vm.queue(id, 1, ring1, 8192n);
    expect(lab.take()).toEqual([
      'ALLOC3=0x8003',
      ...deinit(1, 1),
      `L1.1.BASE=0x${(vm.ram.hostOf(ring1) | 9n).toString(16)}`,
    ]);
    vm.ctx.destroy({ id: q1 });
    expect(lab.take()).toEqual([...deinit(1, 1), 'ALLOC3=0x8002']);
    vm.ctx.destroy({ id: q0 });
    expect(lab.take()).toEqual([...deinit(1, 0), 'ALLOC2=0x8000']);
    vm.ctx.destroy({ id: vdev });
    expect(lab.take()).toEqual(['V1.SID_MATCH0=0x0', 'V1.SID_REPLACE0=0x0']);
    vm.ctx.destroy({ id });
    expect(lab.take()).toEqual(off(1));
    expect(lab.violations).toEqual([]);
  });

  test('F goes to the main queue: CMD_SYNC 0x46 with CS=NONE, then the completing one [linux-driver 13]', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    lab.commands = [];
    vm.queue(id, 0, vm.pages(1), 4096n);
    const words = lab.commands.map(({ queue, words: w }) => [queue, w[0], w[2]]);
    // The second is an MSI to its own slot: CS = IRQ, MSH = ISH, MSIATTR = OIWB.
    expect(words[0]).toEqual(['cmdq', 0x46, 0]);
    expect(words.map(([queue, low]) => [queue, low])).toEqual([
      ['cmdq', 0x46],
      ['cmdq', 0x0fc01046],
    ]);
  });

  test('VINTFs are taken lowest first from 1, each with a VMID of its own [CMDQV-3]; the last but one too many is ENOSPC; a freed one is used again', () => {
    const { lab, vm } = vmOn();
    const ids = [vm.viommu(), vm.viommu(), vm.viommu()].map(({ id }) => id);
    expect([1, 2, 3].map((v) => lab.vintfConfig(v))).toEqual([0x3, 0x5, 0x7]);
    expect(lab.errno(() => vm.viommu())).toBe('ENOSPC');
    // Its VMID went back with the failure.
    expect(lab.driver.smmu('smmu0').vmids.taken).toEqual([1, 2, 3]);
    vm.ctx.destroy({ id: ids[1] ?? 0 });
    expect(lab.vintfConfig(2)).toBe(0);
    vm.viommu();
    expect(lab.vintfConfig(2)).toBe(0x5);
  });

  test.each([
    ['no user data', 0, undefined, 'EINVAL'],
    ['8 bytes', 8, 8, 'EINVAL'],
    ['24 bytes', 24, 24, 'EINVAL'],
  ])('user data of exactly 16 bytes: %s', (_, data_len, bytes, errno) => {
    const { lab, vm } = vmOn();
    const data = bytes === undefined ? {} : { data_uptr: new Uint8Array(bytes) };
    expect(lab.errno(() => vm.ctx.viommuAlloc({ type: 2, dev_id: vm.id(), hwpt_id: vm.s2, data_len, ...data }))).toBe(
      errno,
    );
    expect(lab.take()).toEqual([]);
    expect(lab.driver.smmu('smmu0').vmids.taken).toEqual([]);
  });

  test('an SMMU without CMDQV: EOPNOTSUPP', () => {
    const { lab, vm } = vmOn({ extras: { impl: () => null } });
    expect(lab.errno(() => vm.viommu())).toBe('EOPNOTSUPP');
  });

  /** Everything that a failed VIOMMU_ALLOC must leave as it was. */
  function unchanged(lab: Lab, vm: Vm): void {
    expect(lab.vintfConfig(1)).toBe(0);
    expect(lab.driver.smmu('smmu0').vmids.taken).toEqual([]);
    expect(lab.impl.users.size).toBe(0);
    expect(lab.impl.vintfIds.used).toBe(1);
    expect(lab.driver.quarantined()).toEqual([]);
    vm.viommu();
    expect(lab.vintfConfig(1)).toBe(3);
  }

  // Everything in VIOMMU_ALLOC that can fail, found by failing the nth use of each kind until none is left.
  test.each([
    ['alloc:', 'ENOMEM'],
    ['ids:', 'ENOMEM'],
    ['copy:', 'EFAULT'],
  ])('failure at any %s of VIOMMU_ALLOC leaves nothing behind, and the same call then succeeds', (prefix, errno) => {
    let failed = 0;
    for (let nth = 1; nth < 30; nth++) {
      const { lab, vm } = vmOn();
      const plan = lab.kernel.failNth(nth, prefix);
      const got = lab.errno(() => vm.viommu());
      if (plan.fired === null) break;
      expect([plan.fired, got]).toEqual([plan.fired, errno]);
      lab.kernel.clearFailures();
      unchanged(lab, vm);
      failed++;
    }
    expect(failed).toBeGreaterThan(0);
  });

  test('EN not followed in time: ETIMEDOUT; CONFIG is cleared before VINTF and VMID are given away [CMDQV-15]', () => {
    const { lab, vm } = vmOn();
    lab.kernel.failNth(2, 'poll:cmdqv:VINTF_STATUS');
    expect(lab.errno(() => vm.viommu())).toBe('ETIMEDOUT');
    unchanged(lab, vm);
  });

  test('quirk: Linux leaves EN and the VMID in CONFIG and frees both', () => {
    const { lab, vm } = vmOn({ settings: { quirks: 'linux-7.2' } });
    lab.kernel.failNth(2, 'poll:cmdqv:VINTF_STATUS');
    expect(lab.errno(() => vm.viommu())).toBe('ETIMEDOUT');
    expect(lab.vintfConfig(1)).toBe(3);
    expect([lab.driver.smmu('smmu0').vmids.taken, lab.impl.vintfIds.has(1)]).toEqual([[], false]);
  });

  test('a VINTF that does not disable keeps its index and VMID until STATUS says so', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    lab.kernel.failNth(1, 'poll:cmdqv:VINTF_STATUS');
    let stuck = true;
    const real = lab.machine.cmdqv('smmu0').vintfs[1];
    if (real === undefined) throw new Error('no VINTF 1');
    // The hardware's own STATUS is what the driver asks again: keep it at 1 for a while.
    Object.defineProperty(real, 'wanted', { get: () => stuck, configurable: true });
    vm.ctx.destroy({ id });
    expect(
      lab.driver
        .quarantined()
        .map(({ what }) => what)
        .sort(),
    ).toEqual(['smmu0 VINTF 1', 'smmu0 VMID 1']);
    const other = vm.viommu();
    expect([lab.vintfConfig(2), lab.driver.smmu('smmu0').vmids.taken]).toEqual([0x5, [1, 2]]);
    stuck = false;
    lab.machine.cmdqv('smmu0').changed();
    lab.machine.drain();
    // The next CMD_SYNC that completes finds STATUS = 0.
    vm.queue(other.id, 0, vm.pages(1), 4096n);
    expect(lab.driver.quarantined()).toEqual([]);
    expect(lab.driver.smmu('smmu0').vmids.taken).toEqual([2]);
  });

  test('a VCMDQ that does not stop: what its VM gives up waits until STATUS says so', () => {
    const { lab, vm } = vmOn({ cmdqv: { param: SMALL_PARAM, options: { unmapRunning: 'keep-running' } } });
    const { id } = vm.viommu();
    const queue = vm.queue(id, 0, vm.pages(1), 4096n);
    const real = lab.machine.cmdqv('smmu0').vcmdqs[2];
    if (real === undefined) throw new Error('no VCMDQ 2');
    lab.machine.bus.writel(CMDQV + 0x50008n, 1);
    let stuck = true;
    Object.defineProperty(real, 'wanted', { get: () => stuck, configurable: true });
    const points: string[] = [];
    const stop = lab.kernel.onPoint((point) => points.push(point));
    vm.ctx.destroy({ id: queue });
    expect(lab.errno(() => vm.queue(id, 0, vm.pages(1), 4096n))).toBe('ETIMEDOUT');
    stop();
    expect(lab.impl.queues.filter(({ quiet }) => !quiet).length).toBe(1);
    // It may still fetch: what it fetches by is left alone [CMDQV-BASE].
    expect(points.filter((point) => /VCMDQ_(PROD|BASE)/.test(point))).toEqual([]);
    stuck = false;
    lab.machine.cmdqv('smmu0').changed();
    lab.machine.drain();
    expect(lab.impl.queues.every(({ quiet }) => quiet)).toBe(true);
    vm.ctx.destroy({ id: vm.queue(id, 0, vm.pages(1), 4096n) });
    vm.ctx.destroy({ id });
    expect(lab.driver.smmu('smmu0').vmids.taken).toEqual([]);
  });

  test('the VMID is announced free only after the VINTF is disabled [12.1, CMDQV-1]', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    const seen: (readonly [string, number])[] = [];
    lab.kernel.onNote(({ what, act, id: vmid }) => {
      if (what === 'vmid') seen.push([`${act} ${vmid}`, lab.vintfConfig(1)]);
    });
    vm.ctx.destroy({ id });
    expect(seen).toEqual([['free 1', 0]]);
    expect(lab.machine.smmu('smmu0').vmidHolders(1)).toEqual([]);
  });

  test.each(['at-attach', 'viommu-only', 'at-domain-alloc'] as const)(
    'the VMID comes from the policy: %s',
    (vmidPolicy) => {
      const { lab, vm } = vmOn({ settings: { vmidPolicy } });
      vm.viommu();
      vm.viommu();
      // 7.2's policy: the S2's VMID 1, borrowed by both. Others: one for each vIOMMU.
      const expected = vmidPolicy === 'at-domain-alloc' ? [0x3, 0x3] : [0x3, 0x5];
      expect([lab.vintfConfig(1), lab.vintfConfig(2)]).toEqual(expected);
    },
  );

  test("policy external: the hypervisor's VMID of the VM, unpinned after the VINTF is off", () => {
    const pins: string[] = [];
    const hypervisor = {
      pinVmid: () => {
        pins.push('pin');
        return 0x77;
      },
      unpinVmid: () => void pins.push(`unpin with CONFIG ${lab.vintfConfig(1)}`),
    };
    const { lab, vm } = vmOn({ settings: { vmidPolicy: 'external', hypervisor } });
    const { id } = vm.viommu();
    expect(lab.vintfConfig(1)).toBe((0x77 << 1) | 1);
    vm.ctx.destroy({ id });
    expect(pins).toEqual(['pin', 'unpin with CONFIG 0']);
  });

  test('type 1 vIOMMUs take no VINTF', () => {
    const { lab, vm } = vmOn();
    vm.ctx.viommuAlloc({ type: 1, dev_id: vm.id(), hwpt_id: vm.s2 });
    expect(lab.take()).toEqual([]);
  });

  test('while page 0 is mapped, DESTROY of the vIOMMU is EBUSY [iommufd 9.4]', () => {
    const { lab, vm } = vmOn();
    const { id, offset, length } = vm.viommu();
    const vma = vm.ctx.mmap({ offset, length });
    expect(vma.pa).toBe(CMDQV + 0x50000n);
    expect(lab.errno(() => vm.ctx.destroy({ id }))).toBe('EBUSY');
    vma.close();
    vm.ctx.destroy({ id });
    expect(lab.errno(() => vm.ctx.mmap({ offset, length }))).toBe('ENXIO');
  });
});

describe('vDEVICEs [linux-driver 10.2]', () => {
  const NAMES = ['0000:00:01.0', '0000:00:02.0'];

  test('pairs are taken lowest first', () => {
    const { lab, vm } = vmOn({}, NAMES);
    const { id } = vm.viommu();
    lab.take();
    const first = vm.vdevice(id, 0xfffffn, 0);
    vm.vdevice(id, 0n, 1);
    expect(lab.take()).toEqual([
      'V1.SID_REPLACE0=0x8',
      'V1.SID_MATCH0=0x1fffff',
      'V1.SID_REPLACE1=0x10',
      'V1.SID_MATCH1=0x1',
    ]);
    vm.ctx.destroy({ id: first });
    vm.vdevice(id, 1n, 0);
    expect(lab.take().slice(2)).toEqual(['V1.SID_REPLACE0=0x8', 'V1.SID_MATCH0=0x3']);
  });

  test('a vSID of more than 20 bits: EINVAL', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    expect(lab.errno(() => vm.vdevice(id, 0x10_0000n))).toBe('EINVAL');
    expect(lab.errno(() => vm.vdevice(id, 1n << 40n))).toBe('EINVAL');
  });

  test('no pair left: ENOSPC', () => {
    const { lab, vm } = vmOn({ cmdqv: { param: { ...SMALL_PARAM, NUM_SID_PER_VM_LOG2: 0 } } }, NAMES);
    const { id } = vm.viommu();
    vm.vdevice(id, 1n, 0);
    lab.take();
    expect(lab.errno(() => vm.vdevice(id, 2n, 1))).toBe('ENOSPC');
    expect(lab.take()).toEqual([]);
  });

  test('unbinding the device clears its pair first [CMDQV-4]', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    vm.vdevice(id, 5n);
    lab.take();
    vm.devices[0]?.vfio.close();
    expect(lab.take().slice(0, 2)).toEqual(['V1.SID_MATCH0=0x0', 'V1.SID_REPLACE0=0x0']);
  });
});

describe('hardware queues [linux-driver 10.3, iommufd 9.3]', () => {
  test.each([
    ['index beyond those of a VINTF', 2, 4096n, 0n, 1, 'EINVAL'],
    ['index - 1 missing', 1, 4096n, 0n, 1, 'EIO'],
    ['length no power of two', 0, 0x3000n, 0n, 1, 'EINVAL'],
    ['length below 32', 0, 16n, 0n, 1, 'EINVAL'],
    ['length 0', 0, 0n, 0n, 1, 'EINVAL'],
    ['address not aligned to the length', 0, 4096n, 0x800n, 1, 'EINVAL'],
    ['another type', 0, 4096n, 0n, 2, 'EOPNOTSUPP'],
    ['type DEFAULT', 0, 4096n, 0n, 0, 'EOPNOTSUPP'],
  ] as const)('%s', (_, index, length, shift, type, errno) => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    const ring = vm.pages(8);
    lab.take();
    expect(lab.errno(() => vm.queue(id, index, ring + shift, length, type))).toBe(errno);
    expect(lab.take()).toEqual([]);
    vm.queue(id, 0, ring, 4096n);
  });

  test('an index in use: EEXIST, before the check of index - 1', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    vm.queue(id, 0, vm.pages(1), 4096n);
    expect(lab.errno(() => vm.queue(id, 0, vm.pages(1), 4096n))).toBe('EEXIST');
  });

  test('the smallest queue has two entries, 32 bytes; one above 2^(IDR1.CMDQS + 4) bytes is EINVAL', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    const ring = vm.pages(1);
    vm.queue(id, 0, ring + 32n, 32n);
    expect(lab.take().at(-1)).toBe(`L1.0.BASE=0x${((vm.ram.hostOf(ring) + 32n) | 1n).toString(16)}`);
    // With IDR1.CMDQS = 8: 4096 bytes at most.
    const { lab: small, vm: other } = vmOn({ config: { ...linuxNesting, IDR1: { ...linuxNesting.IDR1, CMDQS: 8 } } });
    const { id: on } = other.viommu();
    const rings = other.pages(2);
    expect(small.errno(() => other.queue(on, 0, rings, 8192n))).toBe('EINVAL');
    other.queue(on, 0, rings, 4096n);
  });

  test('a physical address of more than 48 bits: EINVAL', () => {
    const { lab, vm } = vmOn();
    vm.viommu();
    const viommu = lab.impl.users.get(1)?.viommu;
    if (viommu === undefined) throw new Error('no VINTF 1');
    const queue = { viommu, type: 1, baseAddr: 0n, length: 4096n, destroy: null, priv: null };
    expect(lab.errno(() => viommu.ops?.hwQueueInitPhys?.(queue, 0, 1n << 48n))).toBe('EINVAL');
    expect(queue.destroy).toBeNull();
  });

  test('memory that the VM does not have: ENOENT; its pages are pinned while the queue lives: UNMAP is EBUSY [CMDQV-11]', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    expect(lab.errno(() => vm.queue(id, 0, 0x1000_0000n, 4096n))).toBe('ENOENT');
    const queue = vm.queue(id, 0, vm.pages(1), 4096n);
    const all = { ioas_id: vm.ioas, iova: 0x8000_0000n, length: 0x40_0000n };
    expect(lab.errno(() => vm.ctx.ioasUnmap(all))).toBe('EBUSY');
    vm.ctx.destroy({ id: queue });
    vm.ctx.ioasUnmap(all);
  });

  test('destroyed from the highest index down only: EBUSY otherwise, nothing written', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    const q0 = vm.queue(id, 0, vm.pages(1), 4096n);
    const q1 = vm.queue(id, 1, vm.pages(1), 4096n);
    lab.take();
    expect(lab.errno(() => vm.ctx.destroy({ id: q0 }))).toBe('EBUSY');
    expect(lab.errno(() => vm.ctx.destroy({ id }))).toBe('EBUSY');
    expect(lab.take()).toEqual([]);
    for (const one of [q1, q0, id]) vm.ctx.destroy({ id: one });
    expect(lab.violations).toEqual([]);
  });

  test('closing the file tears everything down in order', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    vm.vdevice(id, 1n);
    vm.queue(id, 0, vm.pages(1), 4096n);
    vm.queue(id, 1, vm.pages(1), 4096n);
    lab.take();
    vm.devices[0]?.vfio.close();
    vm.ctx.close();
    const log = lab.take();
    const order = ['L1.1.CONFIG=0x0', 'ALLOC3=0x8002', 'L1.0.CONFIG=0x0', 'ALLOC2=0x8000', 'V1.CONFIG=0x0'].map(
      (line) => log.indexOf(line),
    );
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(order).not.toContain(-1);
    expect([lab.violations, lab.driver.smmu('smmu0').vmids.taken]).toEqual([[], []]);
  });

  // ENOMEM of pinning and of the queue itself; each leaves the VINTF as it was.
  test('failure at any allocation of HW_QUEUE_ALLOC leaves nothing behind', () => {
    let failed = 0;
    for (let nth = 1; nth < 30; nth++) {
      const { lab, vm } = vmOn();
      const { id } = vm.viommu();
      const ring = vm.pages(1);
      lab.take();
      const plan = lab.kernel.failNth(nth, 'alloc:');
      const got = lab.errno(() => vm.queue(id, 0, ring, 4096n));
      if (plan.fired === null) break;
      expect([plan.fired, got]).toEqual([plan.fired, 'ENOMEM']);
      expect(lab.take()).toEqual([]);
      lab.kernel.clearFailures();
      vm.queue(id, 0, ring, 4096n);
      failed++;
    }
    expect(failed).toBeGreaterThan(1);
  });

  test('a copy fault on the answer, after the queue is set up, undoes it', () => {
    const { lab, vm } = vmOn();
    const { id } = vm.viommu();
    const ring = vm.pages(1);
    lab.take();
    lab.kernel.failNth(1, 'copy:to-user:response');
    expect(lab.errno(() => vm.queue(id, 0, ring, 4096n))).toBe('EFAULT');
    const log = lab.take();
    expect([log[0], log.at(-1)]).toEqual(['ALLOC2=0x8001', 'ALLOC2=0x8000']);
    expect([lab.impl.users.get(1)?.hwQueues.size, lab.violations]).toEqual([0, []]);
    vm.queue(id, 0, ring, 4096n);
  });
});
