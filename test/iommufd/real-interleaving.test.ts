/** Calls inside calls on the real driver: there the hooks include MMIO, barriers and the polls of its queues. */
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { CMD_TLBI_NSNH_ALL } from '../../spec/index.ts';
import { ArmSmmuDriver } from '../../src/driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../src/driver/iommu/index.ts';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { createMachine, linuxNesting, VIRT } from '../../src/hw/index.ts';
import { IommufdContext, VfioDevice } from '../../src/iommufd/index.ts';
import { AddressSpace, PageList } from '../../src/lab/vmm/address-space.ts';
import { errno } from './lab.ts';
import { type Nested, schedulable } from './nested-calls.ts';

const GPA = 0x8000_0000n;
const VA = 0x4000_0000n;
const NAMES = ['nic', 'ssd'] as const;
/** A vSTE that says stage 1 with a Context descriptor nowhere: its DMA gives an event for the VM. */
const FAULTING = new Uint8Array(new BigUint64Array([0xbn | 0x7000_0000n, 0n]).buffer);
const BYPASS = Uint8Array.from([9, ...new Array<number>(15).fill(0)]);
/** CMD_TLBI_NSNH_ALL. */
const FLUSH = Uint8Array.from([0x30, ...new Array<number>(15).fill(0)]);

/** Two devices, one parent, one vIOMMU, a vDEVICE and two nested HWPTs, one of them attached. */
class Vm {
  readonly kernel: LocalKernel;
  readonly driver: ArmSmmuDriver;
  readonly ctx: IommufdContext;
  readonly devices: readonly VfioDevice[];
  readonly fd: number;
  readonly ids: readonly number[];
  readonly pages: number;

  constructor() {
    const machine = createMachine({
      smmus: [{ config: linuxNesting, base: VIRT.smmu }],
      endpoints: NAMES.map((name, i) => ({ name, streamIds: [8 + i], canWbs: true })),
      ram: [VIRT.ram],
    });
    this.kernel = new LocalKernel(machine.bus, { pollTurns: 20 });
    this.driver = new ArmSmmuDriver(this.kernel);
    const core = new IommuCore(this.kernel);
    for (const iommu of this.driver.probeAll()) core.registerIommu(iommu, machine.bus.firmware.devices);
    const memory = new AddressSpace();
    const first = this.kernel.allocPages('vm', 0x4000);
    const pages = [0n, 1n, 2n, 3n].map((i) => first + i * 4096n);
    memory.map({ va: VA, pages: new PageList(machine.bus, pages), writable: true });
    this.pages = this.kernel.pagesUsed;
    const ctx = new IommufdContext({ kernel: this.kernel, process: { memory } });
    this.ctx = ctx;
    this.devices = NAMES.map((name) => {
      const dev = core.device(name);
      if (dev === undefined) throw new Error(`no ${name}`);
      return new VfioDevice(dev, (iova, bytes) => machine.endpoint(name).write(iova, bytes).status === 'ok');
    });
    const [devid = 0] = this.devices.map((device) => device.bind(ctx));
    const ioas = ctx.ioasAlloc().out_ioas_id;
    ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: VA, length: 0x4000n, iova: GPA });
    const s2 = ctx.hwptAlloc({ flags: 1, dev_id: devid, pt_id: ioas }).out_hwpt_id;
    const viommu = ctx.viommuAlloc({ type: 1, dev_id: devid, hwpt_id: s2 }).out_viommu_id;
    const vdevice = ctx.vdeviceAlloc({ viommu_id: viommu, dev_id: devid, virt_id: 5n }).out_vdevice_id;
    const queue = ctx.veventqAlloc({ viommu_id: viommu, type: 1, veventq_depth: 2 });
    this.fd = queue.out_veventq_fd;
    const nested = (data: Uint8Array): number =>
      ctx.hwptAlloc({ dev_id: devid, pt_id: viommu, data_type: 2, data_uptr: data }).out_hwpt_id;
    const [bypass, faulting] = [nested(BYPASS), nested(FAULTING)];
    this.devices[0]?.attach(bypass);
    this.ids = [ioas, s2, viommu, vdevice, queue.out_veventq_id, bypass, faulting];
  }

  /** One call of the choice. @returns its errno, or 'ok' */
  run({ kind, n }: Call): string {
    const { ctx } = this;
    const id = this.ids[n % this.ids.length] ?? 0;
    const device = this.devices[n % 2];
    return errno(() => {
      switch (kind) {
        case 'destroy':
          return ctx.destroy({ id });
        case 'unplug':
          return device?.close();
        case 'close':
          return ctx.close();
        case 'attach':
          return device?.attach(this.ids[(n >> 1) % this.ids.length] ?? 0);
        case 'detach':
          return device?.detach();
        case 'invalidate':
          return ctx.hwptInvalidate({
            hwpt_id: this.ids[2] ?? 0,
            data_type: 1,
            entry_len: 16,
            entry_num: 1,
            data_uptr: FLUSH,
          });
        case 'unmap':
          return ctx.ioasUnmap({ ioas_id: this.ids[0] ?? 0, iova: GPA, length: 0x4000n });
        case 'event':
          device?.dma(0x1234_0000n, new Uint8Array(4));
          return this.kernel.runInterrupts();
        case 'read':
          return ctx.read(this.fd, 80);
        default:
          return kind satisfies never;
      }
    });
  }

  /** Takes everything apart. @returns what is left of it */
  tearDown(): unknown {
    for (const device of this.devices) device.close();
    errno(() => this.ctx.closeFd(this.fd));
    errno(() => this.ctx.close());
    const smmu = this.driver.smmu('smmu0');
    return {
      released: this.ctx.objects.empty,
      pinned: this.ctx.pins.pinned,
      vmids: smmu.vmids.used,
      quarantined: this.driver.quarantined(),
      warnings: this.kernel.messages.filter(({ text }) => text.startsWith('iommufd')),
    };
  }
}

const KINDS = ['destroy', 'unplug', 'close', 'attach', 'detach', 'invalidate', 'unmap', 'event', 'read'] as const;

interface Call {
  readonly kind: (typeof KINDS)[number];
  readonly n: number;
}

const call = fc.record({ kind: fc.constantFrom(...KINDS), n: fc.nat(13) });
const leaf = call.map((command): Nested<Call> => ({ command, at: 0, inner: null }));
const around = (inner: fc.Arbitrary<Nested<Call>>): fc.Arbitrary<Nested<Call>> =>
  fc.record({ command: call, at: fc.nat(60), inner });

/** Hooks at which an inner call ran, by kind. */
const hooks = new Map<string, number>();

const hooked = (point: string): void => {
  const kind = point.slice(0, point.indexOf(':'));
  hooks.set(kind, (hooks.get(kind) ?? 0) + 1);
};

const counts = { given: 0, done: 0 };
afterAll(() => {
  const where = [...hooks].map(([kind, n]) => `${n} at ${kind}`).join(', ');
  console.info(
    `interleavings on the real driver: ${counts.given}, ${counts.given - counts.done} not schedulable; ${where}`,
  );
});

test('a whole call at any hook of another, MMIO and barriers included, to depth 2: nothing leaks, nothing is used after free', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(around(leaf), around(around(leaf))), { minLength: 1, maxLength: 5 }), (steps) => {
      const vm = new Vm();
      for (const step of steps) {
        counts.given++;
        const done = schedulable({ kernel: vm.kernel, run: (one) => vm.run(one), hooked }, step);
        if (done) counts.done++;
        fc.pre(done);
      }
      expect(vm.tearDown()).toEqual({ released: true, pinned: 0, vmids: 0, quarantined: [], warnings: [] });
    }),
    { numRuns: 150, maxSkipsPerRun: 20 },
  );
  expect(counts.done).toBeGreaterThan(200);
  expect(hooks.get('mmio') ?? 0).toBeGreaterThan(0);
});

test('an unmap keeps domains from coming while an area is on its way out (domains_rwsem)', () => {
  let ran = 0;
  for (let at = 0; at < 12; at++) {
    const vm = new Vm();
    const unmap: Nested<Call> = {
      command: { kind: 'unmap', n: 0 },
      at,
      inner: { command: { kind: 'attach', n: 1 }, at: 0, inner: null },
    };
    const done = schedulable({ kernel: vm.kernel, run: (one) => vm.run(one), hooked }, unmap);
    if (!done) continue;
    ran++;
    expect(vm.tearDown()).toEqual({ released: true, pinned: 0, vmids: 0, quarantined: [], warnings: [] });
  }
  expect(ran).toBeGreaterThan(0);
});

test('a CMD_SYNC completes although another list without one follows it before the doorbell (IHI 0070 4.7.3)', () => {
  const vm = new Vm();
  const { cmdq: queue } = vm.driver.smmu('smmu0');
  const flush = CMD_TLBI_NSNH_ALL.encode({});
  const stop = vm.kernel.onPoint((point) => {
    if (point !== 'barrier:cmdq:entries') return;
    stop();
    expect(queue.issue([flush], false)).toBe(true);
  });
  expect(queue.issue([flush], true)).toBe(true);
  expect(queue.quiet).toBe(true);
});
