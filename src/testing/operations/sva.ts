/** Shared virtual addressing: devices of the host's that use the address space of a process, by its PASID. */
import { groupOf } from '../../driver/iommu/index.ts';
import type { Performers, Texts } from './family.ts';

/** See the module comment. */
export type SvaOperation =
  /** The driver of a device binds it to a process (`iommu_sva_bind_device`). A device that is a VM's has no such driver. */
  | { readonly op: 'svaBind'; readonly as: string; readonly dev: string; readonly mm: string }
  | { readonly op: 'svaUnbind'; readonly name: string }
  /** A process changes its page table: a data page leads to another one, or nowhere. Devices are told. */
  | { readonly op: 'mmMap'; readonly mm: string; readonly page: number; readonly to: number | null }
  /** It executes another program: its address space ends, and another one with its name begins. */
  | { readonly op: 'mmExec'; readonly mm: string };

/** How each is carried out. */
export const performSva: Performers<SvaOperation> = {
  svaBind: (lab, { as, dev, mm }) => {
    if (lab.processes.bond(as) !== undefined) return { status: 'skipped', why: `${as} is there already` };
    const { vfio, dev: device } = lab.device(dev);
    // No driver of the host's is probed for a device that somebody owns (`iommu_device_use_default_domain`).
    if (vfio.bound || groupOf(device).owner !== null) return { status: 'skipped', why: `${dev} is a VM's` };
    const { pasid } = lab.processes.bind(as, device, mm);
    return { status: 'ok', saw: `PASID ${pasid}` };
  },
  svaUnbind: ({ processes }, { name }) =>
    processes.unbind(name) ? undefined : { status: 'skipped', why: `${name} is not bound` },
  mmMap: ({ processes }, { mm, page, to }) => {
    processes.map(mm, page, to);
    return undefined;
  },
  mmExec: ({ processes }, { mm }) => {
    processes.exec(mm);
    return undefined;
  },
};

/** How each is told. */
export const svaTexts: Texts<SvaOperation> = {
  svaBind: (o) => [o.dev, o.mm],
  svaUnbind: (o) => [o.name],
  mmMap: (o) => [o.mm, `page ${o.page}`, o.to === null ? 'nothing' : `page ${o.to}`],
  mmExec: (o) => [o.mm],
};
