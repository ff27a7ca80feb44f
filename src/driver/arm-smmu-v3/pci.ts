/** ATS and PASID in PCI configuration space (kernel: drivers/pci/ats.c, `arm_smmu_enable_pasid`). */
import {
  PCI_ATS,
  PCI_CAP_CONTROL,
  PCI_EXT_CAP,
  PCI_EXT_CAP_HEADER,
  PCI_EXT_CAPS,
  PCI_PASID,
} from '../../../spec/pci-capabilities.ts';
import type { DeviceNode } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';
import type { Master } from './smmu.ts';

/** Most capabilities that fit: a list that is longer runs in a circle. */
const MAX_CAPABILITIES = 960;

const ABSENT = 0xffff_ffff;

/** Offset of a device's extended capability; undefined: it has none (`pci_find_ext_capability`). */
export function findCapability(kernel: Kernel, node: DeviceNode, name: keyof typeof PCI_EXT_CAP): number | undefined {
  if (node.bdf === undefined) return undefined;
  let offset = PCI_EXT_CAPS;
  for (let i = 0; i < MAX_CAPABILITIES && offset >= PCI_EXT_CAPS; i++) {
    const header = Uint32Array.of(kernel.bus.pciRead32(node.bdf, offset));
    if (header[0] === 0 || header[0] === ABSENT) return undefined;
    if (PCI_EXT_CAP_HEADER.num(header, 'ID') === PCI_EXT_CAP[name]) return offset;
    offset = PCI_EXT_CAP_HEADER.num(header, 'Next');
  }
  return undefined;
}

function change(
  kernel: Kernel,
  node: DeviceNode,
  capability: number | undefined,
  edit: (words: Uint32Array) => void,
): void {
  if (node.bdf === undefined || capability === undefined) return;
  const at = capability + PCI_CAP_CONTROL;
  const words = Uint32Array.of(kernel.bus.pciRead32(node.bdf, at));
  edit(words);
  kernel.bus.pciWrite32(node.bdf, at, words[0] ?? 0);
}

/** What it takes to switch ATS of a device, whether or not the driver has met the device. */
export type AtsDevice = Pick<Master, 'smmu' | 'node' | 'atsOffset'>;

/** Lets the device ask for translations of the SMMU's smallest page (`pci_enable_ats`). */
export function enableAts({ smmu, node, atsOffset }: AtsDevice): void {
  const { pgsizeBitmap } = smmu.features;
  const smallest = pgsizeBitmap & -pgsizeBitmap;
  change(smmu.kernel, node, atsOffset, (words) => {
    PCI_ATS.set(words, 'Enable', 1);
    PCI_ATS.set(words, 'STU', (smallest >> STU_SHIFT).toString(2).length - 1);
  });
}

/** Whether the device uses ATS now. */
export function atsIsOn({ smmu, node, atsOffset }: AtsDevice): boolean {
  if (node.bdf === undefined || atsOffset === undefined) return false;
  const words = Uint32Array.of(smmu.kernel.bus.pciRead32(node.bdf, atsOffset + PCI_CAP_CONTROL));
  return PCI_ATS.get(words, 'Enable') === 1n;
}

/** STU counts from 4 KiB. */
const STU_SHIFT = 12n;

/** From now on it asks for none and uses none (`pci_disable_ats`). */
export function disableAts({ smmu, node, atsOffset }: AtsDevice): void {
  change(smmu.kernel, node, atsOffset, (words) => PCI_ATS.set(words, 'Enable', 0));
}

/** PASIDs on or off, with what the device says it can do with them; before ATS is enabled (`pci_enable_pasid`). */
export function setPasid({ smmu, node }: Pick<Master, 'smmu' | 'node'>, on: boolean): void {
  change(smmu.kernel, node, findCapability(smmu.kernel, node, 'PASID'), (words) => {
    PCI_PASID.set(words, 'ExecuteEnable', on ? PCI_PASID.get(words, 'Execute') : 0);
    PCI_PASID.set(words, 'PrivilegedEnable', on ? PCI_PASID.get(words, 'Privileged') : 0);
    PCI_PASID.set(words, 'Enable', on ? 1 : 0);
  });
}
