/** A client of QEMU's `iommu-testdev`: places the function and starts its DMA through BAR0. */
import {
  ITD_BAR_BYTES,
  ITD_DOORBELL,
  ITD_GPA_HI,
  ITD_GPA_LO,
  ITD_IOVA_HI,
  ITD_IOVA_LO,
  ITD_LENGTH,
  ITD_PCI_ID,
  ITD_RESULT,
  ITD_RUN,
} from '../../../spec/iommu-testdev.ts';
import { PCI_TYPE0 } from '../../../spec/pci-header.ts';
import type { Bus, Pa } from '../../hw/bus.ts';

/** What the result register says after a run. */
export type TestdevResult = keyof typeof ITD_RESULT.fields.Value.values;

/** A DMA: `length` bytes to `iova` through the SMMU, read back at the physical address `pa` past it. */
export interface TestdevDma {
  readonly iova: bigint;
  readonly pa: Pa;
  readonly length: number;
}

const HEADER = PCI_TYPE0.slot('VendorID').word * 4;
const COMMAND = PCI_TYPE0.slot('MemorySpace').word * 4;
const BAR0 = PCI_TYPE0.slot('Bar0Address').word * 4;
const RESULTS = ITD_RESULT.fields.Value.values;

/**
 * Gives a function's BAR0 its address and enables memory accesses and bus mastering. QEMU without firmware leaves
 * both to the client; a root port that the function is behind must forward that address already.
 * @param bar 4 KiB aligned, below 4 GiB
 * @throws Error where the function is no iommu-testdev
 */
export function placeTestdev(bus: Bus, bdf: number, bar: Pa): void {
  const found = bus.pciRead32(bdf, HEADER) >>> 0;
  if (found !== ITD_PCI_ID)
    throw new Error(`function 0x${bdf.toString(16)} is 0x${found.toString(16)}, no iommu-testdev`);
  if (bar % BigInt(ITD_BAR_BYTES) !== 0n || bar >> 32n !== 0n)
    throw new Error(`BAR0 cannot be 0x${bar.toString(16)}: ${ITD_BAR_BYTES}-byte aligned, below 4 GiB`);
  bus.pciWrite32(bdf, BAR0, Number(bar));
  const words = PCI_TYPE0.encode({ MemorySpace: 1, BusMaster: 1 });
  bus.pciWrite32(bdf, COMMAND, words[COMMAND / 4] ?? 0);
}

/** Runs one DMA of the function whose BAR0 is at `bar`. Events it causes are in the Event queue when this returns. */
export function runTestdev(bus: Pick<Bus, 'readl' | 'writel'>, bar: Pa, dma: TestdevDma): TestdevResult {
  const set = (register: { readonly offset: number }, value: number): void =>
    bus.writel(bar + BigInt(register.offset), value);
  const halves = (value: bigint): [number, number] => [Number(value & 0xffff_ffffn), Number(value >> 32n)];
  const [iovaLo, iovaHi] = halves(dma.iova);
  const [paLo, paHi] = halves(dma.pa);
  set(ITD_IOVA_LO, iovaLo);
  set(ITD_IOVA_HI, iovaHi);
  set(ITD_LENGTH, dma.length);
  set(ITD_GPA_LO, paLo);
  set(ITD_GPA_HI, paHi);
  set(ITD_DOORBELL, ITD_DOORBELL.bit('Arm'));
  bus.readl(bar + BigInt(ITD_RUN.offset));
  const value = bus.readl(bar + BigInt(ITD_RESULT.offset)) >>> 0;
  for (const name of Object.keys(RESULTS) as TestdevResult[]) if (RESULTS[name] === value) return name;
  throw new Error(`the result register reads 0x${value.toString(16)}, which means nothing`);
}
