import { describe, expect, test } from 'vitest';
import type { DriverParts } from '../../../src/driver/index.ts';
import { GuestCmdqv } from '../../../src/testing/guest-cmdqv.ts';
import { Lab, type LabOptions, Vm } from './lab.ts';

const ASID = 0x11;
const IOVA = 0x10_000n;
const VSID = 0x20;

/** A VM with its own stage 1 table behind a VINTF: nested domain attached, queue 0 of 256 entries started. */
class Guest {
  readonly lab: Lab;
  readonly vm: Vm;
  readonly viommu: { readonly id: number; readonly offset: bigint; readonly length: bigint };
  readonly queue: GuestCmdqv;
  readonly hwQueue: number;
  readonly vdevice: number;
  readonly nested: number;
  readonly leaf: bigint;
  readonly page: bigint;
  readonly other: bigint;
  readonly vma;

  constructor(lab: Lab, names: readonly string[] = ['0000:00:01.0'], vmid = 0) {
    this.lab = lab;
    const vm = new Vm(lab, names);
    this.vm = vm;
    const { ram } = vm;
    const root = ram.page();
    this.page = ram.page();
    this.other = ram.page();
    this.leaf = ram.map(root, IOVA, this.page);
    const cd = ram.contextDescriptor(root, ASID);
    this.viommu = vm.viommu();
    this.vdevice = vm.vdevice(this.viommu.id, BigInt(VSID));
    this.vma = vm.ctx.mmap({ offset: this.viommu.offset, length: this.viommu.length });
    const ring = vm.pages(1);
    this.hwQueue = vm.queue(this.viommu.id, 0, ring, 4096n);
    this.queue = new GuestCmdqv({
      bus: lab.machine.addCpu(`guest${this.viommu.id}`),
      ram,
      page0: this.vma.pa,
      lvcmdq: 0,
      ring,
      log2size: 8,
      vmid,
      pollTurns: 300,
    });
    this.nested = vm.nested(this.viommu.id, ram.vste(cd));
    vm.devices[0]?.vfio.attach(this.nested);
    lab.commands = [];
    lab.take();
  }

  /** Where a DMA write of the device lands: the page that holds the byte. */
  dma(byte: number): 'page' | 'other' | 'refused' {
    const { ram, devices } = this.vm;
    if (devices[0]?.vfio.dma(IOVA, new Uint8Array([byte])) !== true) return 'refused';
    return ram.load(this.other, 1)[0] === byte ? 'other' : 'page';
  }

  /** Moves IOVA to the other page, without invalidation. */
  remap(): void {
    this.vm.ram.store(this.leaf, this.vm.ram.leaf(this.other));
  }

  teardown(): void {
    const { vm } = this;
    vm.devices[0]?.vfio.detach();
    this.vma.close();
    for (const id of [this.nested, this.hwQueue, this.vdevice, this.viommu.id, vm.s2, vm.ioas]) vm.ctx.destroy({ id });
  }
}

const guestOn = (options: LabOptions = {}): Guest => new Guest(new Lab(options).boot());

describe('a VM on page 0 of its VINTF [tegra241-cmdqv 11]', () => {
  test('TLBI_NH_VA and CMD_SYNC: the device sees the new translation, the host is not involved', () => {
    const g = guestOn();
    expect(g.queue.start()).toBe(true);
    expect(g.dma(1)).toBe('page');
    g.remap();
    expect(g.dma(2)).toBe('page');
    g.lab.take();
    expect(g.queue.issue(g.queue.nhVa(ASID, IOVA))).toEqual({ status: 'done' });
    expect(g.dma(3)).toBe('other');
    // Only the doorbell: no register of the host's, no command on its queues.
    expect(g.lab.take().filter((line) => !line.startsWith('L1.0.PROD'))).toEqual([]);
    expect(new Set(g.lab.commands.map(({ queue }) => queue))).toEqual(new Set(['vcmdq1.0']));
  });

  test('TLBI_NH_ASID: the same', () => {
    const g = guestOn();
    g.queue.start();
    g.dma(1);
    g.remap();
    expect(g.queue.issue(g.queue.nhAsid(ASID))).toEqual({ status: 'done' });
    expect(g.dma(2)).toBe('other');
  });

  test('the VMID that the VM writes is ignored: it neither needs the right one nor reaches another VM [9.3]', () => {
    const lab = new Lab().boot();
    const victim = new Guest(lab, ['0000:00:01.0']);
    // Says VMID 1, which is the victim's; its own is 2.
    const g = new Guest(lab, ['0000:00:02.0'], 1);
    expect(lab.machine.cmdqv('smmu0').vintfs.map(({ VMID }) => VMID)).toEqual([0, 1, 2, 0]);
    g.queue.start();
    for (const one of [victim, g]) {
      one.dma(1);
      one.remap();
    }
    lab.commands = [];
    expect(g.queue.issue(g.queue.nhAsid(ASID), g.queue.nhVa(ASID, IOVA))).toEqual({ status: 'done' });
    expect(lab.commands.slice(0, 2).map(({ words }) => (words[1] ?? 0) & 0xffff)).toEqual([2, 2]);
    expect([g.dma(2), victim.dma(2)]).toEqual(['other', 'page']);
  });

  test("CMD_ATC_INV by vSID reaches the VM's device; another vSID is refused, code 4 [9.4]", () => {
    const g = guestOn();
    g.queue.start();
    expect(g.queue.issue(g.queue.atcInvAll(VSID))).toEqual({ status: 'done' });
    expect(g.lab.commands[0]?.words[1]).toBe(0x8);
    // The physical StreamID is no vSID.
    expect(g.queue.issue(g.queue.atcInvAll(0x8))).toEqual({ status: 'error', code: 4, index: 2 });
    expect(g.queue.errors).toBe(1);
    g.queue.recover();
    expect(g.queue.wait()).toEqual({ status: 'done' });
    expect(g.queue.errors).toBe(0);
  });

  test("an ATC time-out is the VM's own error, code 3, once", () => {
    const g = guestOn();
    const { ats } = g.lab.machine.endpoint('0000:00:01.0');
    if (ats === null) throw new Error('no ATS');
    g.queue.start();
    ats.hang = true;
    expect(g.queue.issue(g.queue.atcInvAll(VSID))).toMatchObject({ status: 'error', code: 3 });
    ats.hang = false;
    g.queue.recover();
    expect(g.queue.wait()).toEqual({ status: 'done' });
  });

  test('commands of the host kind are refused, code 4', () => {
    const g = guestOn();
    g.queue.start();
    expect(g.queue.issue(Uint32Array.of(0x28, 1, 0, 0))).toEqual({ status: 'error', code: 4, index: 0 });
  });

  test('the ring wraps: 600 lists in 256 entries', () => {
    const g = guestOn();
    g.queue.start();
    for (let i = 0; i < 600; i++) expect(g.queue.issue(g.queue.nhVa(ASID, BigInt(i) << 12n)).status).toBe('done');
    expect(g.lab.commands.filter(({ words }) => (words[0] ?? 0) === 0x12).length).toBe(600);
  });

  test('before a queue is allocated EN has no effect; after its destruction neither', () => {
    const g = guestOn();
    expect(g.queue.start()).toBe(true);
    g.vm.ctx.destroy({ id: g.hwQueue });
    expect(g.queue.enabled).toBe(false);
    expect(g.queue.start()).toBe(false);
    expect(g.queue.issue(g.queue.nhAsid(ASID)).status).toBe('timeout');
  });

  test('the queue is destroyed with commands in flight: stopped at a boundary, time-out flushed, indexes 0 [12.4]', () => {
    const g = guestOn();
    const { ats } = g.lab.machine.endpoint('0000:00:01.0');
    if (ats === null) throw new Error('no ATS');
    g.queue.start();
    ats.hang = true;
    g.queue.post(g.queue.atcInvAll(VSID));
    ats.hang = false;
    g.vm.ctx.destroy({ id: g.hwQueue });
    const q = g.lab.machine.cmdqv('smmu0').vcmdqs[2];
    expect([q?.atcTimeout, q?.ring.prod, q?.ring.cons, q?.errors, q?.enabled]).toEqual([false, 0, 0, 0, false]);
    // The next owner of VCMDQ 2 starts clean.
    g.vm.queue(g.viommu.id, 0, g.vm.pages(1), 4096n);
    expect(g.lab.violations).toEqual([]);
  });

  test('with the flush left out, the time-out surfaces in the next VM [CMDQV-10]', () => {
    const parts = (shipped: DriverParts): DriverParts => ({
      ...shipped,
      vintf: { ...shipped.vintf, flushTimeout: () => {} },
    });
    const lab = new Lab({ extras: { parts } }).boot();
    const first = new Guest(lab, ['0000:00:01.0']);
    const { ats } = lab.machine.endpoint('0000:00:01.0');
    if (ats === null) throw new Error('no ATS');
    first.queue.start();
    ats.hang = true;
    first.queue.post(first.queue.atcInvAll(VSID));
    ats.hang = false;
    first.teardown();
    const next = new Guest(lab, ['0000:00:02.0']);
    next.queue.start();
    // Its first CMD_SYNC, in another VINTF's life, on the same VCMDQ.
    expect(next.queue.issue(next.queue.nhAsid(ASID))).toMatchObject({ status: 'error', code: 3 });
    expect(lab.violations.map((line) => line.split(' ')[0])).toEqual(['CMDQV-10']);
  });

  test('a VM whose queue stops with an error that it never acknowledges: teardown clears it', () => {
    const g = guestOn();
    g.queue.start();
    g.queue.issue(Uint32Array.of(0xff, 0, 0, 0));
    g.lab.take();
    g.teardown();
    expect(g.lab.take()).toContain('L1.0.GERRORN=0x1');
    expect([g.lab.peek(0x14), g.lab.peek(0x24), g.lab.violations]).toEqual([0, 0, []]);
    expect(g.lab.driver.smmu('smmu0').vmids.taken).toEqual([]);
  });

  test('reset in operation: VINTF, pairs and queues are set up again; the VM starts its queue anew', () => {
    const g = guestOn();
    g.queue.start();
    g.lab.driver.reset('smmu0');
    expect(g.lab.violations).toEqual([]);
    expect(g.queue.enabled).toBe(false);
    expect(g.queue.start()).toBe(true);
    g.dma(1);
    g.remap();
    expect(g.queue.issue(g.queue.nhVa(ASID, IOVA), g.queue.atcInvAll(VSID))).toEqual({ status: 'done' });
    expect(g.dma(2)).toBe('other');
  });

  test.each(['at-attach', 'viommu-only', 'at-domain-alloc'] as const)(
    "the VINTF's VMID is that of the nested STE [CMDQV-2]: %s",
    (vmidPolicy) => {
      const g = guestOn({ settings: { vmidPolicy } });
      const { strtab } = g.lab.driver.smmu('smmu0');
      // S2VMID: bits 143:128, word 2 of the STE as 64-bit words.
      const s2vmid = Number(g.lab.machine.bus.load64(strtab.steOf(8) + 16n) & 0xffffn);
      expect(g.lab.vintfConfig(1) >>> 1).toBe(s2vmid);
      g.queue.start();
      g.dma(1);
      g.remap();
      g.queue.issue(g.queue.nhVa(ASID, IOVA));
      expect(g.dma(2)).toBe('other');
    },
  );

  test.each([1, 2, 3, 4, 5])(
    'under a seeded schedule %i: after its CMD_SYNC the VM finds the new translation',
    (seed) => {
      const g = guestOn({ schedule: { mode: 'seeded', seed }, pollTurns: 2000 });
      expect(g.queue.start()).toBe(true);
      g.dma(1);
      g.remap();
      g.lab.kernel.mb('guest');
      expect(g.queue.issue(g.queue.nhVa(ASID, IOVA))).toEqual({ status: 'done' });
      expect(g.dma(2)).toBe('other');
      g.teardown();
      expect(g.lab.violations).toEqual([]);
      expect(g.lab.driver.smmu('smmu0').vmids.taken).toEqual([]);
    },
  );
});

describe('error events to the VM [tegra241-cmdqv 10.5, 10.7]', () => {
  /** vEVENTQ of type TEGRA241_CMDQV (2). */
  function eventQueue(g: Guest): { fd: number; id: number } {
    const made = g.vm.ctx.veventqAlloc({ viommu_id: g.viommu.id, type: 2, veventq_depth: 4 });
    return { fd: made.out_veventq_fd, id: made.out_veventq_id };
  }
  const records = (g: Guest, fd: number): number[][] => {
    const bytes = g.vm.ctx.read(fd, 4096);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    // Header of 8 bytes (flags, sequence), then two little-endian 64-bit words.
    return Array.from({ length: bytes.length / 24 }, (_, i) =>
      [0, 4, 8, 12, 16, 20].map((at) => view.getUint32(24 * i + at, true)),
    );
  };

  test('the map of its queues as two 64-bit words; the host does not acknowledge', () => {
    const g = guestOn();
    const { fd } = eventQueue(g);
    const second = g.vm.pages(1);
    g.vm.queue(g.viommu.id, 1, second, 4096n);
    const other = new GuestCmdqv({
      bus: g.lab.machine.bus,
      ram: g.vm.ram,
      page0: g.vma.pa,
      lvcmdq: 1,
      ring: second,
      log2size: 8,
    });
    g.queue.start();
    other.start();
    g.lab.take();
    other.issue(Uint32Array.of(0xff, 0, 0, 0));
    g.lab.kernel.runInterrupts();
    expect(records(g, fd)).toEqual([[0, 0, 2, 0, 0, 0]]);
    g.queue.issue(Uint32Array.of(0xff, 0, 0, 0));
    g.lab.kernel.runInterrupts();
    expect(records(g, fd)).toEqual([[0, 1, 3, 0, 0, 0]]);
    expect([g.queue.errors, other.errors]).toEqual([1, 1]);
    expect(g.lab.take().filter((line) => line.includes('GERRORN'))).toEqual([]);
  });

  test('without a vEVENTQ the event is dropped, and logged', () => {
    const g = guestOn();
    g.queue.start();
    g.queue.issue(Uint32Array.of(0xff, 0, 0, 0));
    g.lab.kernel.runInterrupts();
    expect(g.lab.kernel.messages.map(({ text }) => text).join('\n')).toContain('EOPNOTSUPP');
    const { fd } = eventQueue(g);
    expect(records(g, fd)).toEqual([]);
  });

  test('an event of one VM goes to no other', () => {
    const lab = new Lab().boot();
    const [a, b] = [new Guest(lab, ['0000:00:01.0']), new Guest(lab, ['0000:00:02.0'])];
    const [ea, eb] = [eventQueue(a), eventQueue(b)];
    b.queue.start();
    b.queue.issue(Uint32Array.of(0xff, 0, 0, 0));
    lab.kernel.runInterrupts();
    expect([records(a, ea.fd), records(b, eb.fd).length]).toEqual([[], 1]);
  });

  test('the VINTF is destroyed between interrupt and report: nobody is told', () => {
    const g = guestOn();
    g.queue.start();
    g.queue.issue(Uint32Array.of(0xff, 0, 0, 0));
    g.lab.impl.interrupt();
    g.teardown();
    g.lab.impl.report();
    expect(g.lab.impl.users.size).toBe(0);
  });
});
