import { describe, expect, test } from 'vitest';
import { CR0ACK, GBPA } from '../../../spec/index.ts';
import { iommuMap } from '../../../src/driver/iommu/map.ts';
import type { IommuDomain } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';

const RW = { read: true, write: true, cache: true } as const;
const IOVA = 0x8000_0000n;

class Bench extends Rig {
  readonly dev;
  readonly s2: IommuDomain;
  readonly page;
  readonly freed: { readonly vmid: bigint; readonly holders: number }[] = [];

  constructor() {
    super({ machine: { smmus: [{ config: linuxNesting, base: 0x0905_0000n }] } });
    this.boot();
    this.dev = this.device('0000:00:05.0');
    this.s2 = this.driver.domainAllocPagingFlags(this.dev, { nestParent: true }, null);
    this.page = this.kernel.allocPages('data', 4096);
    this.machine.memory.write64(this.page, 0x1234n);
    iommuMap(this.s2, IOVA, this.page, 0x1000n, RW);
    this.attach(this.s2, this.dev);
    this.kernel.onNote(({ what, act, id }) => {
      if (what === 'vmid' && act === 'free')
        this.freed.push({ vmid: id, holders: this.machine.vmidHolders(Number(id)).length });
    });
  }

  get hw() {
    return this.machine.smmu('smmu0');
  }

  read(): string {
    const result = this.machine.endpoint('0000:00:05.0').read(IOVA, 8);
    return result.status === 'ok' ? `ok ${result.data[0]}` : result.status;
  }

  detach(): void {
    this.driver.blockedDomain.ops.attachDev(this.driver.blockedDomain, this.dev, this.s2);
  }
}

describe('suspend and resume (arm_smmu_runtime_suspend, arm_smmu_runtime_resume)', () => {
  test('suspended: CR0 is 0 and GBPA aborts; resumed: DMA goes through the same tables', () => {
    const bench = new Bench();
    expect(bench.read()).toBe('ok 52');
    const before = bench.ste(0x28);
    bench.driver.suspend('smmu0');
    expect(bench.hw.mmioRead32(CR0ACK.offset)).toBe(0);
    expect(bench.hw.mmioRead32(GBPA.offset) & GBPA.bit('ABORT')).not.toBe(0);
    expect(bench.read()).toBe('abort');
    bench.driver.resume('smmu0');
    expect(bench.ste(0x28)).toEqual(before);
    expect(bench.read()).toBe('ok 52');
  });

  test.each(['lost', 'kept'] as const)(
    'power goes meanwhile, caches %s: resume programs every register again [3.11]',
    (caches) => {
      const bench = new Bench();
      bench.read();
      bench.driver.suspend('smmu0');
      bench.machine.resetSmmu('smmu0', caches);
      bench.driver.resume('smmu0');
      expect(bench.read()).toBe('ok 52');
      bench.detach();
      expect(bench.read()).toBe('abort');
    },
  );

  test('without a suspend: resume brings an SMMU back that lost its registers', () => {
    const bench = new Bench();
    bench.machine.resetSmmu('smmu0');
    bench.driver.resume('smmu0');
    expect(bench.read()).toBe('ok 52');
  });

  test('a VMID given up while suspended is freed by resume, once nothing in hardware names it [lifecycle L7]', () => {
    const bench = new Bench();
    bench.read();
    bench.driver.suspend('smmu0');
    const queued = bench.smmu.cmdq.prod;
    bench.detach();
    expect(bench.smmu.cmdq.prod).toBe(queued);
    expect(bench.machine.vmidHolders(1).length).toBeGreaterThan(0);
    expect(bench.smmu.vmids.taken).toEqual([1]);
    bench.driver.resume('smmu0');
    expect(bench.freed).toEqual([{ vmid: 1n, holders: 0 }]);
  });

  test('an STE written while suspended counts from resume on', () => {
    const bench = new Bench();
    bench.read();
    bench.driver.suspend('smmu0');
    bench.detach();
    bench.driver.resume('smmu0');
    expect(bench.read()).toBe('abort');
  });
});

test('reset after a lost CMD_SYNC: the VMID waits for CMD_TLBI_NSNH_ALL, not for the first CMD_SYNC of the reset [4.7.3; 3.17]', () => {
  const bench = new Bench();
  bench.read();
  // CFGI_STE is consumed (two syncs of the STE's update), S12_VMALL stays in the queue, and the reset drops it.
  let stuck = false;
  const { commandQueue } = bench.hw;
  const ready = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(commandQueue), 'ready')?.get;
  Object.defineProperty(commandQueue, 'ready', { get: () => !stuck && ready?.call(commandQueue) });
  let syncs = 0;
  const poll = bench.kernel.poll.bind(bench.kernel);
  bench.kernel.poll = (point, done) => {
    if (stuck && point === 'cmdq:sync') return false;
    const result = poll(point, done);
    if (point === 'cmdq:sync') stuck = ++syncs === 2;
    return result;
  };
  bench.detach();
  expect(bench.machine.vmidHolders(1).map(({ kind }) => kind)).toContain('tlb');
  expect(bench.driver.quarantined()).toEqual([{ what: 'smmu0 VMID 1', waitsFor: ['smmu0'] }]);
  bench.machine.watch.observer = (act) => {
    if (act.kind === 'update' && act.register === 'CR0' && act.after === 0) stuck = false;
  };
  bench.driver.reset('smmu0');
  expect(bench.freed).toEqual([{ vmid: 1n, holders: 0 }]);
});
