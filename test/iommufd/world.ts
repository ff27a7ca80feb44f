/** Random commands on a context, and what must hold after each: the counts of every object follow from who holds it. */
import fc from 'fast-check';
import type { IommufdViommu } from '../../src/driver/iommu/ops.ts';
import { type IommufdObject, VfioDevice } from '../../src/iommufd/index.ts';
import { errno, FILE, Lab, type LabOptions, RO, RW, VSTE } from './lab.ts';

/** Objects as the test sees them: their links by name. */
interface Linked {
  readonly ioas?: IommufdObject | null;
  readonly hwpt?: IommufdObject;
  readonly parent?: IommufdObject;
  readonly viommu?: IommufdObject | null;
  readonly fault?: IommufdObject | null;
  readonly idev?: IommufdObject;
  readonly access?: IommufdObject | null;
  readonly ops?: unknown;
  readonly fd?: number;
}

/** One command: a kind and three numbers that it picks its arguments with. */
export interface Command {
  readonly kind: (typeof KINDS)[number];
  readonly n: readonly [number, number, number];
}

const KINDS = [
  'bind',
  'close-device',
  'ioas',
  'map',
  'map-file',
  'copy',
  'unmap',
  'hwpt',
  'nested',
  'nested-on-parent',
  'viommu',
  'vdevice',
  'veventq',
  'fault',
  'queue',
  'attach',
  'detach',
  'destroy',
  'close-fd',
  'report',
  'read',
  'invalidate',
  'mmap',
  'munmap',
] as const;

export const commandArbitrary: fc.Arbitrary<Command> = fc.record({
  kind: fc.constantFrom(...KINDS),
  n: fc.tuple(fc.nat(20), fc.nat(20), fc.nat(20)),
});

const GPA = 0x8000_0000n;

/** A context, two VFIO devices, and everything that was made. */
export class World {
  readonly lab: Lab;
  readonly devices: readonly VfioDevice[];
  readonly fds: number[] = [];
  readonly vmas: { close(): void }[] = [];

  constructor(options: LabOptions = {}) {
    this.lab = new Lab({ contiguous: true, ...options });
    this.devices = [this.lab.a, this.lab.b].map((dev) => new VfioDevice(dev));
  }

  /** Runs a command. @returns its errno, or 'ok' */
  run({ kind, n }: Command): string {
    return errno(() => this.#act(kind, n));
  }

  #pick(kind: IommufdObject['kind'], n: number): number {
    const ids = this.lab.ctx.objects.list().filter((object) => object.kind === kind);
    return ids[n % Math.max(1, ids.length)]?.id ?? n;
  }

  #act(kind: Command['kind'], [a, b, c]: Command['n']): unknown {
    const { ctx } = this.lab;
    const device = this.devices[a % 2];
    const dev = this.#pick('DEVICE', a);
    switch (kind) {
      case 'bind':
        return device?.bind(ctx);
      case 'close-device':
        return device?.close();
      case 'ioas':
        return ctx.ioasAlloc();
      case 'map':
        return ctx.ioasMap({
          ioas_id: this.#pick('IOAS', a),
          flags: b % 2 ? 7 : 5,
          user_va: b % 3 ? RW : RO,
          length: BigInt(1 + (c % 3)) * 4096n,
          iova: GPA + BigInt(b) * 4096n,
        });
      case 'map-file':
        return ctx.ioasMapFile({
          ioas_id: this.#pick('IOAS', a),
          flags: 6,
          fd: FILE,
          start: BigInt(b) * 4096n,
          length: 4096n,
        });
      case 'copy':
        return ctx.ioasCopy({
          flags: 6,
          src_ioas_id: this.#pick('IOAS', a),
          dst_ioas_id: this.#pick('IOAS', b),
          src_iova: GPA + BigInt(c) * 4096n,
          length: 4096n,
        });
      case 'unmap':
        return ctx.ioasUnmap({
          ioas_id: this.#pick('IOAS', a),
          iova: GPA + BigInt(b) * 4096n,
          length: BigInt(1 + c) * 4096n,
        });
      case 'hwpt':
        return ctx.hwptAlloc({ dev_id: dev, pt_id: this.#pick('IOAS', b), flags: c % 2 });
      case 'nested':
        return ctx.hwptAlloc({
          dev_id: dev,
          pt_id: this.#pick('VIOMMU', b),
          data_type: 2,
          data_uptr: VSTE,
          ...(c % 2 ? { flags: 4, fault_id: this.#pick('FAULT', c) } : {}),
        });
      case 'nested-on-parent':
        return ctx.hwptAlloc({ dev_id: dev, pt_id: this.#pick('HWPT_PAGING', b), data_type: 2, data_uptr: VSTE });
      case 'viommu':
        return ctx.viommuAlloc({ type: 1, dev_id: dev, hwpt_id: this.#pick('HWPT_PAGING', b) });
      case 'vdevice':
        return ctx.vdeviceAlloc({ viommu_id: this.#pick('VIOMMU', b), dev_id: dev, virt_id: BigInt(c % 3) });
      case 'veventq':
        return this.fds.push(
          ctx.veventqAlloc({ viommu_id: this.#pick('VIOMMU', b), type: 1 + (c % 2), veventq_depth: 2 }).out_veventq_fd,
        );
      case 'fault':
        return this.fds.push(ctx.faultQueueAlloc().out_fault_fd);
      case 'queue':
        return ctx.hwQueueAlloc({
          viommu_id: this.#pick('VIOMMU', b),
          type: 1,
          index: c % 2,
          nesting_parent_iova: GPA + BigInt(a) * 4096n,
          length: 4096n,
        });
      case 'attach':
        return device?.attach(this.#pick((['IOAS', 'HWPT_PAGING', 'HWPT_NESTED'] as const)[b % 3] ?? 'IOAS', c));
      case 'detach':
        return device?.detach();
      case 'destroy':
        return ctx.destroy({ id: 1 + a + b });
      case 'close-fd':
        return ctx.closeFd(this.fds.splice(a % Math.max(1, this.fds.length), 1)[0] ?? -1);
      case 'report': {
        const viommu = ctx.objects.peek(this.#pick('VIOMMU', a)) as unknown as IommufdViommu | undefined;
        return viommu?.callbacks?.reportEvent(viommu, 1 + (b % 2), new Uint8Array(32));
      }
      case 'read':
        return ctx.read(this.fds[a % Math.max(1, this.fds.length)] ?? -1, 80);
      case 'invalidate':
        return ctx.hwptInvalidate({
          hwpt_id: this.#pick('VIOMMU', a),
          data_type: 1,
          entry_len: 16,
          entry_num: 1,
          data_uptr: new Uint8Array(16),
        });
      case 'mmap':
        return this.vmas.push(ctx.mmap({ offset: 0x1000n + BigInt(a % 2) * 0x1_0000n, length: 0x1_0000n }));
      case 'munmap':
        return this.vmas.shift()?.close();
    }
  }

  /** `users` of every object as its holders make it (the table of who pins what). */
  expectedUsers(): Map<number, number> {
    const { ctx } = this.lab;
    const count = new Map<number, number>();
    const hold = (object: IommufdObject | null | undefined, by = 1): void => {
      if (object) count.set(object.id, (count.get(object.id) ?? 1) + by);
    };
    for (const object of ctx.objects.list()) {
      const link = object as unknown as Linked;
      hold(object, 0);
      if (object.kind === 'HWPT_PAGING' || object.kind === 'ACCESS') hold(link.ioas);
      if (object.kind === 'HWPT_NESTED') hold(link.viommu ?? link.parent);
      if (object.kind === 'HWPT_PAGING' || object.kind === 'HWPT_NESTED') hold(link.fault);
      if (object.kind === 'VIOMMU') hold(link.hwpt);
      if (object.kind === 'VDEVICE' || object.kind === 'VEVENTQ' || object.kind === 'HW_QUEUE') hold(link.viommu);
      if (object.kind === 'VDEVICE') hold(link.idev);
      if (object.kind === 'HW_QUEUE') hold(link.access);
      if (object.kind === 'DEVICE') hold(object);
      if ((object.kind === 'VEVENTQ' || object.kind === 'FAULT') && this.fds.includes(link.fd ?? -1)) hold(object);
    }
    for (const { attachments } of ctx.igroups.values())
      for (const { hwpt, devices } of attachments.values())
        for (const idev of devices.values()) {
          hold(hwpt);
          hold(idev);
        }
    return count;
  }

  /** Gives up everything from outside, then the context. @returns what is left */
  tearDown(): unknown {
    const { ctx, driver, kernel } = this.lab;
    for (const vma of this.vmas.splice(0)) vma.close();
    for (const fd of this.fds.splice(0)) ctx.closeFd(fd);
    for (const device of this.devices) device.close();
    if (!ctx.closed) ctx.close();
    const warnings = kernel.messages.filter(({ level }) => level === 'warn').map(({ text }) => text);
    return {
      objects: ctx.objects.size,
      driver: driver.live.size,
      pinned: ctx.pins.pinned,
      files: ctx.files.size,
      mmaps: ctx.mmaps.size,
      released: ctx.released,
      warnings,
    };
  }
}

/** {@link World.tearDown} of a world that leaks nothing. */
export const NOTHING_LEFT = { objects: 0, driver: 0, pinned: 0, files: 0, mmaps: 0, released: true, warnings: [] };
