/** ATS in PCI configuration space (kernel: drivers/pci/ats.c). */
import { PCI_ATS, PCI_EXT_CAPABILITY, PCI_EXT_CAPABILITY_ATS, PCI_EXT_CONFIG_START } from '../../../spec/pci-ats.ts';
import type { DeviceNode } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';
import type { Master } from './smmu.ts';

/** Most capabilities that fit: a list that is longer runs in a circle. */
const MAX_CAPABILITIES = 960;

/** Offset of the ATS capability; undefined: the device has none (`pci_ats_init`). */
export function findAts(kernel: Kernel, node: DeviceNode): number | undefined {
  if (node.bdf === undefined) return undefined;
  let offset = PCI_EXT_CONFIG_START;
  for (let i = 0; i < MAX_CAPABILITIES; i++) {
    const header = Uint32Array.of(kernel.bus.pciRead32(node.bdf, offset));
    const id = PCI_EXT_CAPABILITY.num(header, 'CapabilityID');
    if (id === PCI_EXT_CAPABILITY.mask(['CapabilityID'])[0] || header[0] === 0) return undefined;
    if (id === PCI_EXT_CAPABILITY_ATS) return offset;
    offset = PCI_EXT_CAPABILITY.num(header, 'Next');
    if (offset < PCI_EXT_CONFIG_START) return undefined;
  }
  return undefined;
}

function control(master: Master, enable: boolean): void {
  const { smmu, node, atsOffset } = master;
  if (node.bdf === undefined || atsOffset === undefined) return;
  const at = atsOffset + PCI_EXT_CAPABILITY.bytes;
  const words = Uint32Array.of(smmu.kernel.bus.pciRead32(node.bdf, at));
  const smallest = smmu.features.pgsizeBitmap & -smmu.features.pgsizeBitmap;
  PCI_ATS.set(words, 'Enable', enable ? 1 : 0);
  // The smallest unit the SMMU translates, in 4 KiB pages as log2.
  if (enable) PCI_ATS.set(words, 'STU', (smallest >> 12n).toString(2).length - 1);
  smmu.kernel.bus.pciWrite32(node.bdf, at, words[0] ?? 0);
}

/** Lets the device ask for translations (`pci_enable_ats`). */
export const enableAts = (master: Master): void => control(master, true);
/** From now on it asks for none and uses none (`pci_disable_ats`). */
export const disableAts = (master: Master): void => control(master, false);
