/**
 * The second half of the demonstration: a host with two SMMUs, one VM with a device behind each, one S2 shared by two
 * vIOMMUs, guest tables, DMA, a guest invalidation, an unmap and its fault, teardown.
 */
import { STE, toQwords, type Words } from '../../../spec/index.ts';
import {
  HWPT_ALLOC_FLAGS,
  HWPT_DATA_TYPE,
  HWPT_INVALIDATE_DATA_TYPE,
  IOAS_MAP_FLAGS,
  iommu_vevent_arm_smmuv3,
  iommufd_vevent_header,
  VEVENTQ_TYPE,
  VIOMMU_TYPE,
} from '../../../spec/uapi.ts';
import { ArmSmmuDriver, IommuCore, LocalKernel } from '../../driver/index.ts';
import { type DeviceNode, type Machine, twoSmmus } from '../../hw/index.ts';
import { decode } from '../../inspect/decode.ts';
import { IommufdContext, VfioDevice } from '../../iommufd/index.ts';
import { DemoVm } from './vm.ts';

/** A line of the account; a step has a number, a detail none. */
export interface DemoLine {
  readonly step?: number;
  readonly text: string;
}

const GPA = 0x8000_0000n;
const VM_BYTES = 0x40_0000;
const IOVA = 0x10_000n;
const ASID = 0x11;

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** Runs it. Lines come in order through `say`. */
export function runNestedVm(say: (line: DemoLine) => void): void {
  new NestedVm(say).run();
}

/** One of the VM's devices. */
interface Passed {
  readonly name: string;
  readonly smmu: string;
  readonly sid: number;
  readonly vSID: bigint;
  readonly vfio: VfioDevice;
  readonly devId: number;
  viommu: number;
  vdevice: number;
  veventq: { id: number; fd: number };
  nested: number;
}

class NestedVm {
  readonly #say: (line: DemoLine) => void;
  readonly #machine: Machine;
  readonly #kernel: LocalKernel;
  readonly #driver: ArmSmmuDriver;
  readonly #vm: DemoVm;
  readonly #ctx: IommufdContext;
  readonly #devices: readonly Passed[];
  /** A device that is attached to the S2 without a vIOMMU. */
  readonly #bystander: Passed;
  #ioas = 0;
  readonly #events: Words[] = [];
  readonly #vmids = new Map<string, string[]>();
  #steps = 0;

  constructor(say: (line: DemoLine) => void) {
    this.#say = say;
    this.#machine = twoSmmus({
      observer: (act) => {
        if (act.kind === 'event') this.#events.push(act.words.slice());
      },
    });
    this.#kernel = new LocalKernel(this.#machine.bus);
    this.#kernel.onNote((note) => {
      if (note.what === 'vmid')
        this.#note(
          note.where,
          Number(note.id),
          note.act === 'alloc' ? `${note.owner} takes it` : `${note.owner} gives it back`,
        );
    });
    this.#driver = new ArmSmmuDriver(this.#kernel);
    const core = new IommuCore(this.#kernel);
    const { smmus, devices } = this.#machine.firmware;
    for (const node of smmus)
      core.registerIommu(
        this.#driver.probe(node),
        devices.filter((one) => one.smmu === node.name),
      );
    this.#vm = new DemoVm(this.#kernel, GPA, VM_BYTES);
    this.#ctx = new IommufdContext({ kernel: this.#kernel, process: { memory: this.#vm.memory } });
    const bind = (node: DeviceNode, i: number): Passed => {
      const endpoint = this.#machine.endpoint(node.name);
      const dev = core.device(node.name);
      if (dev === undefined) throw new Error(`${node.name} was not probed`);
      const vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
      const [sid = 0] = node.streamIds;
      const made = { viommu: 0, vdevice: 0, veventq: { id: 0, fd: 0 }, nested: 0 };
      return {
        name: node.name,
        smmu: node.smmu,
        sid,
        vSID: BigInt(0x20 + i),
        vfio,
        devId: vfio.bind(this.#ctx),
        ...made,
      };
    };
    const [first, ...others] = smmus.map(({ name }) => devices.filter((one) => one.smmu === name));
    const [passed, bystander] = first ?? [];
    if (passed === undefined || bystander === undefined) throw new Error('the first SMMU needs two devices');
    this.#devices = [passed, ...others.flatMap((behind) => behind.slice(0, 1))].map(bind);
    this.#bystander = bind(bystander, 0);
  }

  #note(smmu: string, vmid: number, what: string): void {
    const key = `VMID ${vmid} of ${smmu}`;
    this.#vmids.set(key, [...(this.#vmids.get(key) ?? []), `step ${this.#steps} ${what}`]);
  }

  #step(text: string): void {
    this.#steps++;
    this.#say({ step: this.#steps, text });
  }

  #detail(text: string): void {
    this.#say({ text });
  }

  run(): void {
    const { cd, leaf, page } = this.#guestTables();
    const s2 = this.#host();
    this.#direct(s2);
    this.#viommus(s2, cd);
    this.#stes('STEs before the nested attach');
    this.#step('nested attach of a device behind each vIOMMU; each STE takes the VMID of its vIOMMU');
    for (const device of this.#devices) device.vfio.attach(device.nested);
    this.#stes('STEs after it');
    this.#dma(page);
    this.#guest(leaf, page);
    this.#hostUnmap(page);
    this.#teardown(s2);
    this.#stes('STEs at the end, back on the default domains of the host');
    this.#say({ text: 'Each VMID from allocation to release:' });
    for (const [name, story] of [...this.#vmids].sort(([a], [b]) => (a < b ? -1 : 1)))
      this.#detail(`${name}: ${story.join('; ')}`);
  }

  #guestTables(): { cd: bigint; leaf: bigint; page: bigint } {
    const vm = this.#vm;
    const [root, page] = [vm.page(), vm.page()];
    const leaf = vm.map(root, IOVA, page);
    const cd = vm.contextDescriptor(root, ASID);
    this.#step(
      `guest: a stage 1 table maps IOVA ${hex(IOVA)} to GPA ${hex(page)}; CD at GPA ${hex(cd)}, ASID ${hex(ASID)}`,
    );
    return { cd, leaf, page };
  }

  #host(): number {
    this.#step(`IOMMU_IOAS_MAP: the VM's 4 MiB at GPA ${hex(GPA)}`);
    const ioas = this.#ctx.ioasAlloc().out_ioas_id;
    this.#ioas = ioas;
    const flags = IOAS_MAP_FLAGS.FIXED_IOVA | IOAS_MAP_FLAGS.READABLE | IOAS_MAP_FLAGS.WRITEABLE;
    // Two mappings, so that one half can be taken away later.
    const [half, userVa] = [this.#vm.bytes / 2n, this.#vm.userVa];
    this.#ctx.ioasMap({ ioas_id: ioas, flags, user_va: userVa, length: half, iova: GPA });
    this.#ctx.ioasMap({ ioas_id: ioas, flags, user_va: userVa + half, length: half, iova: GPA + half });
    this.#step('IOMMU_HWPT_ALLOC with NEST_PARENT: one S2 for both SMMUs; it takes no VMID of its own');
    const [one] = this.#devices;
    return this.#ctx.hwptAlloc({ dev_id: one?.devId ?? 0, pt_id: ioas, flags: HWPT_ALLOC_FLAGS.NEST_PARENT })
      .out_hwpt_id;
  }

  #direct(s2: number): void {
    const { name, smmu, vfio } = this.#bystander;
    this.#step(`${name} on ${smmu} is attached to the S2 itself: a VMID for (S2, ${smmu}), until it is detached`);
    vfio.attach(s2);
  }

  #viommus(s2: number, cd: bigint): void {
    for (const device of this.#devices) {
      const { devId, smmu, vSID } = device;
      this.#step(`IOMMU_VIOMMU_ALLOC on ${smmu}: the vIOMMU takes a VMID there; vDEVICE, vEVENTQ, nested HWPT`);
      const viommu = { type: VIOMMU_TYPE.ARM_SMMUV3, dev_id: devId, hwpt_id: s2 };
      device.viommu = this.#ctx.viommuAlloc(viommu).out_viommu_id;
      const vdevice = { viommu_id: device.viommu, dev_id: devId, virt_id: vSID };
      device.vdevice = this.#ctx.vdeviceAlloc(vdevice).out_vdevice_id;
      const events = { viommu_id: device.viommu, type: VEVENTQ_TYPE.ARM_SMMUV3, veventq_depth: 16 };
      const queue = this.#ctx.veventqAlloc(events);
      device.veventq = { id: queue.out_veventq_id, fd: queue.out_veventq_fd };
      const vste = this.#vm.vste(cd);
      device.nested = this.#ctx.hwptAlloc({
        dev_id: devId,
        pt_id: device.viommu,
        data_type: HWPT_DATA_TYPE.ARM_SMMUV3,
        data_len: vste.length,
        data_uptr: vste,
      }).out_hwpt_id;
      this.#detail(`${device.name}, StreamID ${hex(device.sid)}, is vSID ${hex(vSID)} in the VM`);
    }
  }

  #dma(page: bigint): void {
    this.#step('DMA: both devices write through both stages');
    for (const [i, device] of this.#devices.entries()) {
      const at = BigInt(16 * i);
      const text = `from ${device.smmu}`;
      const went = device.vfio.dma(IOVA + at, new TextEncoder().encode(text));
      const found = new TextDecoder().decode(this.#vm.load(page + at, text.length));
      this.#detail(
        `${device.name} writes IOVA ${hex(IOVA + at)}: ${went ? `GPA ${hex(page + at)} holds "${found}"` : 'refused'}`,
      );
    }
  }

  /** One 4-byte DMA write of a device. @returns false if it was refused */
  #write(device: Passed, byte: number): boolean {
    const went = device.vfio.dma(IOVA, new Uint8Array(4).fill(byte));
    this.#kernel.runInterrupts();
    return went;
  }

  #invalidate(device: Passed): void {
    const command = this.#vm.tlbiVa(ASID, IOVA);
    this.#ctx.hwptInvalidate({
      hwpt_id: device.viommu,
      data_uptr: command,
      data_type: HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3,
      entry_len: command.length,
      entry_num: 1,
    });
  }

  #guest(leaf: bigint, page: bigint): void {
    const [device] = this.#devices;
    if (device === undefined) return;
    const other = this.#vm.page();
    this.#step(`guest: moves IOVA ${hex(IOVA)} to GPA ${hex(other)} and does not invalidate yet`);
    this.#vm.store(leaf, this.#vm.leaf(other));
    const landed = (byte: number): string =>
      this.#vm.load(other, 1)[0] === byte ? hex(other) : `${hex(page)}, the old page`;
    this.#write(device, 0x55);
    this.#detail(`DMA of ${device.name} lands at GPA ${landed(0x55)}: the TLB still has the translation`);
    this.#step('guest: CMD_TLBI_NH_VA through IOMMU_HWPT_INVALIDATE; the driver puts in the VMID of the vIOMMU');
    this.#invalidate(device);
    this.#write(device, 0x66);
    this.#detail(`DMA of ${device.name} lands at GPA ${landed(0x66)}`);
    this.#step(`guest: unmaps IOVA ${hex(IOVA)} and invalidates; the next DMA faults at stage 1`);
    this.#vm.store(leaf, new Uint32Array(2));
    this.#invalidate(device);
    this.#write(device, 0);
    this.#showEvent();
    const vevent = this.#ctx.read(device.veventq.fd, VEVENT_BYTES);
    this.#detail(`the VM reads it from its vEVENTQ, with vSID ${hex(device.vSID)}:`);
    this.#detail(`  ${recordText(new Uint32Array(vevent.slice(HEADER_BYTES).buffer))}`);
    this.#vm.store(leaf, this.#vm.leaf(page));
  }

  #hostUnmap(page: bigint): void {
    this.#step(`IOMMU_IOAS_UNMAP of the lower 2 MiB: both SMMUs forget them, under every VMID of the S2`);
    this.#ctx.ioasUnmap({ ioas_id: this.#ioas, iova: GPA, length: this.#vm.bytes / 2n });
    const [, device] = this.#devices;
    if (device === undefined) return;
    const went = this.#write(device, 0);
    this.#detail(`${device.name} writes IOVA ${hex(IOVA)} (GPA ${hex(page)}): ${went ? 'done' : 'refused'}`);
    this.#showEvent();
  }

  #showEvent(): void {
    const words = this.#events.at(-1);
    if (words === undefined) return;
    this.#detail(`event ${recordText(words)}`);
    this.#detail(`  ${decode('event', words).summary}`);
  }

  #teardown(s2: number): void {
    this.#step('teardown: detach; nested HWPTs, vDEVICEs, vEVENTQs, vIOMMUs; S2; IOAS; close');
    this.#bystander.vfio.detach();
    for (const device of this.#devices) {
      device.vfio.detach();
      for (const id of [device.nested, device.vdevice]) this.#ctx.destroy({ id });
      this.#ctx.closeFd(device.veventq.fd);
      for (const id of [device.veventq.id, device.viommu]) this.#ctx.destroy({ id });
    }
    for (const id of [s2, this.#ioas]) this.#ctx.destroy({ id });
    for (const { vfio } of [...this.#devices, this.#bystander]) vfio.close();
    this.#ctx.close();
  }

  #stes(title: string): void {
    this.#say({ text: `${title}:` });
    for (const { smmu, sid } of [...this.#devices, this.#bystander].sort((a, b) => a.sid - b.sid)) {
      const base = this.#driver.smmu(smmu).strtab.steOf(sid);
      const ste = new Uint32Array(this.#machine.bus.loadBytes(base, STE.bytes).slice().buffer);
      const config = STE.valueName('Config', STE.get(ste, 'Config')) ?? '';
      const words = toQwords(ste)
        .slice(0, 4)
        .map((word) => word.toString(16));
      this.#detail(
        `${smmu} ${hex(sid).padEnd(6)} ${config.padEnd(9)} S2VMID ${STE.num(ste, 'S2VMID')}   ${words.join(' ')}`,
      );
    }
  }
}

const HEADER_BYTES = iommufd_vevent_header.bytes;
const VEVENT_BYTES = HEADER_BYTES + iommu_vevent_arm_smmuv3.bytes;

/** The four words of an event record. */
const recordText = (words: Words): string =>
  toQwords(words)
    .map((word) => word.toString(16).padStart(16, '0'))
    .join(' ');
