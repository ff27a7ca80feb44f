/** Bugs in how bonds with processes are counted, and ended. */
import type { MmStruct } from '../../driver/iommu/ops.ts';
import { KernelError } from '../../driver/kernel.ts';
import type { Bug } from './bug.ts';

/** Where the SMMU can walk a process's tables, and devices have PASIDs. */
const where = { presets: ['linuxNesting', 'grace', 'mmu700'], lab: { pasidBits: 4, processes: 2 } } as const;

/** Bugs of this family. */
export const SVA_BUGS: readonly Bug[] = [
  {
    name: 'sva-second-bond',
    story:
      'A second bind of a device and an address space makes a second bond instead of one more user of the first: the first unbind takes the PASID away under the other, whose unbind then works on what is gone.',
    ...where,
    apply: ({ core }) => {
      core.shareBond = (bond) => ({ ...bond, users: 1 });
    },
  },
  {
    name: 'sva-handle-not-shared',
    story:
      'A second bind of a device and an address space does not find the bond of the first, and fails as the PASID is taken (Linux 6.6 to 6.8 with several devices; "iommu/sva: Fix SVA handle sharing in multi device case").',
    ...where,
    apply: ({ core }) => {
      core.shareBond = () => {
        throw new KernelError('EBUSY', 'the PASID has an attachment');
      };
    },
  },
  {
    name: 'sva-exit-keeps-tables',
    story:
      'When an address space ends, CDs go on naming its tables until the last unbind: devices reach pages that were given back (the release notifier of the mm; Linux sets EPD0).',
    ...where,
    apply: ({ driver }) => {
      const { makers } = driver;
      const last = new Map<number, MmStruct>();
      driver.makers = {
        ...makers,
        svaCd: (master, mm, asid) => {
          if (mm !== null) last.set(asid, mm);
          return makers.svaCd(master, mm ?? last.get(asid) ?? null, asid);
        },
      };
    },
  },
];
