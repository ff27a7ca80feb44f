/**
 * The third part of the demonstration: a VM with a Tegra241 VINTF invalidates on its own command queue, without the
 * host, and cannot reach beyond its VMID and its devices.
 */
import { CERROR, CMD_SYNC, commandOf, opcodeOf, toQwords, VCMDQ_ERR, type Words } from '../../../spec/index.ts';
import {
  HW_QUEUE_TYPE,
  HWPT_ALLOC_FLAGS,
  HWPT_DATA_TYPE,
  IOAS_MAP_FLAGS,
  iommu_vevent_tegra241_cmdqv,
  iommu_viommu_tegra241_cmdqv,
  iommufd_vevent_header,
  VEVENTQ_TYPE,
  VIOMMU_TYPE,
} from '../../../spec/uapi.ts';
import { ArmSmmuDriver, IommuCore, LocalKernel } from '../../driver/index.ts';
import { grace, type Machine } from '../../hw/index.ts';
import { IommufdContext, VfioDevice } from '../../iommufd/index.ts';
import { GuestCmdqv, type GuestResult } from '../../testing/guest-cmdqv.ts';
import type { DemoLine } from './nested-vm.ts';
import { DemoVm } from './vm.ts';

const GPA = 0x8000_0000n;
const VM_BYTES = 0x40_0000;
const IOVA = 0x10_000n;
const ASID = 0x11;
const VSID = 0x20;
/** What the guest believes its VMID to be. */
const GUEST_VMID = 0x7777;
const RING_BYTES = 4096n;

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** A command as it went through a queue. */
interface Seen {
  readonly queue: string;
  readonly given: Words;
  readonly executed: Words;
}

/** Runs it. Lines come in order through `say`. */
export function runCmdqvVm(say: (line: DemoLine) => void): void {
  new CmdqvVm(say).run();
}

class CmdqvVm {
  readonly #say: (line: DemoLine) => void;
  readonly #machine: Machine;
  readonly #kernel: LocalKernel;
  readonly #vm: DemoVm;
  readonly #ctx: IommufdContext;
  readonly #vfio: VfioDevice;
  readonly #devId: number;
  #seen: Seen[] = [];
  #hostAccesses = 0;
  #steps = 0;

  constructor(say: (line: DemoLine) => void) {
    this.#say = say;
    this.#machine = grace({
      smmus: 1,
      observer: (act) => {
        if (act.kind === 'register-write' || act.kind === 'cmdqv-write') this.#hostAccesses++;
        if (act.kind !== 'command') return;
        const executed = act.words.slice();
        this.#seen.push({ queue: act.queue, given: act.fetched?.slice() ?? executed, executed });
      },
    });
    this.#kernel = new LocalKernel(this.#machine.bus);
    const driver = new ArmSmmuDriver(this.#kernel);
    const core = new IommuCore(this.#kernel);
    const { smmus, devices } = this.#machine.firmware;
    for (const node of smmus)
      core.registerIommu(
        driver.probe(node),
        devices.filter((one) => one.smmu === node.name),
      );
    this.#vm = new DemoVm(this.#kernel, GPA, VM_BYTES);
    this.#ctx = new IommufdContext({ kernel: this.#kernel, process: { memory: this.#vm.memory } });
    const [dev] = core.devices;
    if (dev === undefined) throw new Error('no device was probed');
    const endpoint = this.#machine.endpoint(dev.name);
    this.#vfio = new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
    this.#devId = this.#vfio.bind(this.#ctx);
  }

  #step(text: string): void {
    this.#steps++;
    this.#say({ step: this.#steps, text });
  }

  #detail(text: string): void {
    this.#say({ text });
  }

  run(): void {
    const vm = this.#vm;
    const [root, page, other, ring] = [vm.page(), vm.page(), vm.page(), vm.page()];
    const leaf = vm.map(root, IOVA, page);
    const cd = vm.contextDescriptor(root, ASID);
    const { viommu, page0, events, objects, close } = this.#host(cd, ring);
    const queue = new GuestCmdqv({
      bus: this.#machine.addCpu('guest'),
      ram: vm,
      page0,
      lvcmdq: 0,
      ring,
      log2size: Math.log2(Number(RING_BYTES) / CMD_SYNC.bytes),
      vmid: GUEST_VMID,
    });
    this.#step('guest: clears PROD and CONS and enables the queue through page 0');
    this.#detail(queue.start() ? 'STATUS says enabled' : 'STATUS does not follow');
    this.#invalidate(queue, leaf, page, other);
    this.#devices(queue, events.fd);
    this.#step('teardown: detach; munmap; queue, vDEVICE, vIOMMU: the VINTF is off before its VMID is free');
    this.#vfio.detach();
    close();
    this.#ctx.closeFd(events.fd);
    for (const id of [...objects, events.id, viommu.id, viommu.s2, viommu.ioas]) this.#ctx.destroy({ id });
    const holders = this.#machine.smmu('smmu0').vmidHolders(viommu.vmid);
    this.#detail(`hardware that still names VMID ${viommu.vmid}: ${holders.length === 0 ? 'none' : holders.length}`);
    this.#vfio.close();
    this.#ctx.close();
  }

  #host(cd: bigint, ring: bigint) {
    const ctx = this.#ctx;
    const dev_id = this.#devId;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    const flags = IOAS_MAP_FLAGS.FIXED_IOVA | IOAS_MAP_FLAGS.READABLE | IOAS_MAP_FLAGS.WRITEABLE;
    ctx.ioasMap({ ioas_id: ioas, flags, user_va: this.#vm.userVa, length: this.#vm.bytes, iova: GPA });
    const s2 = ctx.hwptAlloc({ dev_id, pt_id: ioas, flags: HWPT_ALLOC_FLAGS.NEST_PARENT }).out_hwpt_id;
    this.#step('host: IOMMU_VIOMMU_ALLOC of type TEGRA241_CMDQV: a VMID, and a VINTF that has it');
    const data = iommu_viommu_tegra241_cmdqv.encode();
    const type = VIOMMU_TYPE.TEGRA241_CMDQV;
    const answer = ctx.viommuAlloc({ type, dev_id, hwpt_id: s2, data_len: data.length, data_uptr: data });
    const id = answer.out_viommu_id;
    const { out_vintf_mmap_offset: offset, out_vintf_mmap_length: length } = iommu_viommu_tegra241_cmdqv.decode(data);
    const vma = ctx.mmap({ offset, length });
    const vintf = this.#machine.cmdqv('smmu0').vintfs.find((one) => one.inUse && !one.hypOwn);
    const vmid = vintf?.VMID ?? 0;
    this.#detail(`VINTF ${vintf?.index} with VMID ${vmid}; its page 0, ${hex(length)} bytes, is mapped into the VM`);
    const vdevice = ctx.vdeviceAlloc({ viommu_id: id, dev_id, virt_id: BigInt(VSID) }).out_vdevice_id;
    const pairs = (vintf?.pairs() ?? []).map(([virtual, physical]) => `vSID ${hex(virtual)} is ${hex(physical)}`);
    this.#step(`host: IOMMU_VDEVICE_ALLOC fills a StreamID pair: ${pairs.join(', ')}`);
    const hwQueue = ctx.hwQueueAlloc({
      viommu_id: id,
      type: HW_QUEUE_TYPE.TEGRA241_CMDQV,
      index: 0,
      nesting_parent_iova: ring,
      length: RING_BYTES,
    }).out_hw_queue_id;
    this.#step(
      `host: IOMMU_HW_QUEUE_ALLOC: LVCMDQ 0 fetches from GPA ${hex(ring)}, host address ${hex(this.#vm.hostOf(ring))}`,
    );
    const made = ctx.veventqAlloc({ viommu_id: id, type: VEVENTQ_TYPE.TEGRA241_CMDQV, veventq_depth: 4 });
    const vste = this.#vm.vste(cd);
    const data_type = HWPT_DATA_TYPE.ARM_SMMUV3;
    const nested = ctx.hwptAlloc({ dev_id, pt_id: id, data_type, data_len: vste.length, data_uptr: vste }).out_hwpt_id;
    this.#vfio.attach(nested);
    return {
      viommu: { id, vmid, s2, ioas },
      page0: vma.pa,
      events: { id: made.out_veventq_id, fd: made.out_veventq_fd },
      objects: [nested, hwQueue, vdevice],
      close: () => vma.close(),
    };
  }

  #dma(byte: number, page: bigint, other: bigint): string {
    if (!this.#vfio.dma(IOVA, Uint8Array.of(byte))) return 'is refused';
    return `lands at GPA ${hex(this.#vm.load(other, 1)[0] === byte ? other : page)}`;
  }

  #invalidate(queue: GuestCmdqv, leaf: bigint, page: bigint, other: bigint): void {
    this.#step(`guest: moves IOVA ${hex(IOVA)} from GPA ${hex(page)} to ${hex(other)}`);
    this.#dma(1, page, other);
    this.#vm.store(leaf, this.#vm.leaf(other));
    this.#detail(`DMA ${this.#dma(2, page, other)}: the TLB still has the translation`);
    this.#step(
      `guest: CMD_TLBI_NH_VA and CMD_SYNC on its own queue, with VMID ${hex(GUEST_VMID)}, which is not its own`,
    );
    this.#hostAccesses = 0;
    this.#issue(queue, queue.nhVa(ASID, IOVA));
    this.#detail(`register writes: ${this.#hostAccesses}, the guest's doorbell`);
    this.#detail(`DMA ${this.#dma(3, page, other)}`);
  }

  #devices(queue: GuestCmdqv, fd: number): void {
    this.#step(`guest: CMD_ATC_INV for vSID ${hex(VSID)}`);
    this.#issue(queue, queue.atcInvAll(VSID));
    this.#step('guest: CMD_ATC_INV for a vSID that it does not have');
    this.#issue(queue, queue.atcInvAll(VSID + 1));
    this.#kernel.runInterrupts();
    const vevent = this.#ctx.read(fd, iommufd_vevent_header.bytes + iommu_vevent_tegra241_cmdqv.bytes);
    const { lvcmdq_err_map } = iommu_vevent_tegra241_cmdqv.decode(vevent.slice(iommufd_vevent_header.bytes));
    this.#detail(`the VMM reads a vEVENT: LVCMDQs in error ${lvcmdq_err_map.map(hex).join(' ')}`);
    queue.recover();
    this.#detail(`the guest puts a CMD_SYNC in its place and acknowledges: ${resultText(queue.wait())}`);
  }

  #issue(queue: GuestCmdqv, command: Words): void {
    this.#seen = [];
    const result = queue.issue(command);
    for (const { queue: name, given, executed } of this.#seen) {
      if (opcodeOf(given) === CMD_SYNC.opcode) continue;
      this.#detail(`${name} ${commandOf(given)?.name}: written ${words(given)}, executed ${words(executed)}`);
    }
    this.#detail(`the CMD_SYNC: ${resultText(result)}`);
  }
}

const words = (command: Words): string =>
  toQwords(command)
    .map((word) => word.toString(16).padStart(16, '0'))
    .join(' ');

function resultText(result: GuestResult): string {
  if (result.status !== 'error') return result.status;
  const names = Object.entries({ ...CERROR, ...VCMDQ_ERR }).filter(([, code]) => code === result.code);
  return `not reached, the queue stopped at entry ${result.index}: ${names.at(-1)?.[0] ?? result.code}`;
}
