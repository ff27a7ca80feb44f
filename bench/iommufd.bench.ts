/**
 * Complete VM life cycles through iommufd: S2, vIOMMU, vDEVICE, nested HWPT, attach, one DMA, one invalidation, detach,
 * destroy. At the start, after many of them, and with 10,000 VMs alive. `node dist/bench/iommufd.bench.js [CYCLES]`.
 */
import { CD, encodeCommand, STE, toQwords } from '../spec/index.ts';
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE, HWPT_INVALIDATE_DATA_TYPE, VIOMMU_TYPE } from '../spec/uapi.ts';
import { IommufdContext, type UserMemory, VfioDevice } from '../src/iommufd/index.ts';
import { line, nanoseconds, stack } from './stack.ts';

const GPA = 0x8000_0000n;
const VM_BYTES = 0x1_0000n;
const USER_VA = 0x7f00_0000_0000n;
const LIVE = 10_000;
const cycles = Number(process.argv[2] ?? 20_000);

const { machine, kernel, devices } = stack(2);
const { bus } = machine;
const pages = kernel.allocPages('vm', Number(VM_BYTES));
const memory: UserMemory = {
  read: (va, length) => bus.loadBytes(pages + va - USER_VA, length),
  write: (va, bytes) => bus.storeBytes(pages + va - USER_VA, bytes),
  lookup: (va, maxPages) => ({
    pa: pages + va - USER_VA,
    pages: Math.min(maxPages, Number((USER_VA + VM_BYTES - va) / 4096n)),
  }),
};

// A bypass CD would not need tables; a CD with one table level of its own keeps the guest's part small.
const cd = CD.encode({
  V: 1,
  AA64: 1,
  A: 1,
  R: 1,
  ASET: 1,
  T0SZ: 16,
  EPD1: 1,
  IPS: 5,
  TTB0: (GPA + 0x1000n) >> 4n,
  MAIR0: 0xff,
});
for (const [i, word] of toQwords(cd).entries()) bus.store64(pages + BigInt(8 * i), word);
for (const [table, next] of [
  [0x1000n, 0x2000n],
  [0x2000n, 0x3000n],
  [0x3000n, 0x4000n],
] as const)
  bus.store64(pages + table, (GPA + next) | 3n);
bus.store64(pages + 0x4000n, (GPA + 0x5000n) | 0xf43n);

const vste = new Uint8Array(STE.encode({ V: 1, Config: 'S1_TRANS', S1ContextPtr: GPA >> 6n }).slice(0, 4).buffer);
const tlbi = new Uint8Array(encodeCommand('CMD_TLBI_NH_VA', { Leaf: 1 }).buffer);
const data = new Uint8Array(8).fill(0x5a);

const ctx = new IommufdContext({ kernel, process: { memory } });
const vfios = devices.map((dev) => {
  const endpoint = machine.endpoint(dev.name);
  return new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok');
});
const ids = vfios.map((vfio) => vfio.bind(ctx));
const ioas = ctx.ioasAlloc().out_ioas_id;
ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: USER_VA, length: VM_BYTES, iova: GPA });

/** One VM, from its S2 to the end of it. */
function life(): void {
  const [dev_id] = ids;
  const [vfio] = vfios;
  if (dev_id === undefined || vfio === undefined) throw new Error('no device');
  const s2 = ctx.hwptAlloc({ dev_id, pt_id: ioas, flags: HWPT_ALLOC_FLAGS.NEST_PARENT }).out_hwpt_id;
  const viommu = ctx.viommuAlloc({ type: VIOMMU_TYPE.ARM_SMMUV3, dev_id, hwpt_id: s2 }).out_viommu_id;
  const vdevice = ctx.vdeviceAlloc({ viommu_id: viommu, dev_id, virt_id: 0x20n }).out_vdevice_id;
  const vsteArgs = { data_type: HWPT_DATA_TYPE.ARM_SMMUV3, data_len: vste.length, data_uptr: vste };
  const nested = ctx.hwptAlloc({ dev_id, pt_id: viommu, ...vsteArgs }).out_hwpt_id;
  vfio.attach(nested);
  if (!vfio.dma(0n, data)) throw new Error('the DMA was refused');
  const entry = { entry_len: tlbi.length, entry_num: 1, data_uptr: tlbi };
  ctx.hwptInvalidate({ hwpt_id: viommu, data_type: HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3, ...entry });
  vfio.detach();
  for (const id of [nested, vdevice, viommu, s2]) ctx.destroy({ id });
}

function run(count: number): void {
  for (let i = 0; i < count; i++) life();
}

/** Life cycles a second and core, and what the process holds then. */
function show(what: string): void {
  const perSecond = Math.round(1e9 / nanoseconds(9, 500, life));
  const held = Math.round(process.memoryUsage().rss / 2 ** 20);
  line(`VM life cycles, ${what}`, `${perSecond.toLocaleString('en')} /s`, `bar 10,000 /s; ${held} MiB resident`);
}

/** Lives until the engine has compiled all that they run, and again when 10,000 live VMs have changed what it saw. */
const WARM_UP = 10_000;

run(WARM_UP);
show('at the start');
run(cycles);
show(`after ${cycles.toLocaleString('en')}`);

const live: number[] = [];
const other = ids[1] ?? 0;
for (let i = 0; i < LIVE; i++) {
  const s2 = ctx.hwptAlloc({
    dev_id: other,
    pt_id: ctx.ioasAlloc().out_ioas_id,
    flags: HWPT_ALLOC_FLAGS.NEST_PARENT,
  }).out_hwpt_id;
  live.push(ctx.viommuAlloc({ type: VIOMMU_TYPE.ARM_SMMUV3, dev_id: other, hwpt_id: s2 }).out_viommu_id);
}
run(WARM_UP);
show(`with ${LIVE.toLocaleString('en')} VMs alive`);
