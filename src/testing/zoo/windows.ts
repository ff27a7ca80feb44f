/** Bugs in what a VM maps of its VINTF, and in what its VMM hears of it. */
import { CMDQV_PAGE_BYTES } from '../../../spec/index.ts';
import type { Bug } from './bug.ts';

/** Bugs of this family; they exist where there is a CMDQV. */
export const WINDOW_BUGS: readonly Omit<Bug, 'presets'>[] = [
  {
    name: 'window-of-next-vintf',
    story:
      'VIOMMU_ALLOC offers page 0 of the VINTF after the one that it made: the VM drives the queues of another VM.',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        window: (vintf) => ({ ...base.window(vintf), at: base.window(vintf).at + 2n * BigInt(CMDQV_PAGE_BYTES) }),
      };
    },
  },
  {
    name: 'window-shows-page-1',
    story:
      'VIOMMU_ALLOC offers both pages of a VINTF for mmap. Page 1 has BASE, which holds host addresses: the VM has any memory fetched as its commands. QEMU traps it (RFC by Shameer Kolothum of 10 December 2025).',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        window: (vintf) => ({ ...base.window(vintf), length: 2n * base.window(vintf).length }),
      };
    },
  },
  {
    name: 'window-outlives-viommu',
    story:
      "A mapping of page 0 does not keep the vIOMMU: it is destroyed, and the VM goes on writing to a VINTF that is soon another VM's. QEMU relies on the opposite (hw/arm/tegra241-cmdqv: page 0 is unmapped before the vIOMMU is freed).",
    apply: ({ iommufd }) => {
      iommufd.mmapHold = { get: () => {}, put: () => {} };
    },
  },
  {
    name: 'error-report-after-teardown',
    story:
      'The error handler of a VINTF is still on its way when the vIOMMU is destroyed, and reports to what has been freed: nobody waits for it after the slot was emptied (tegra241_cmdqv_destroy_vintf_user drains the interrupt).',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      const underWay: (() => void)[] = [];
      const arrive = (): void => {
        for (const report of underWay.splice(0)) report();
      };
      driver.vintfUser = {
        ...base,
        report: (user) => {
          arrive();
          const { errorMap } = user;
          if (errorMap === null) return;
          user.errorMap = null;
          underWay.push(() => base.report(Object.assign(user, { errorMap })));
        },
        initQueue: (...args) => {
          arrive();
          base.initQueue(...args);
        },
      };
    },
  },
];
