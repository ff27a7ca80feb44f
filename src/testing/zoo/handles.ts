/** Bugs in what a vIOMMU and its vDEVICEs hold and find. */
import type { IommufdCallbacks, IommufdVdevice, IommufdViommu, ViommuOps } from '../../driver/iommu/ops.ts';
import { KernelError } from '../../driver/kernel.ts';
import type { Bug, BugParts, Replaceable } from './bug.ts';

/** Wraps what the core offers the driver with each vIOMMU. */
const finding =
  (wrap: (callbacks: IommufdCallbacks, viommu: IommufdViommu) => Partial<IommufdCallbacks>) =>
  ({ driver }: BugParts): void => {
    const { vmidPolicy: base } = driver;
    driver.vmidPolicy = {
      ...base,
      vsmmuInit: (vsmmu) => {
        base.vsmmuInit(vsmmu);
        const callbacks: Replaceable<IommufdCallbacks> = vsmmu.viommu.callbacks;
        Object.assign(callbacks, wrap({ ...callbacks }, vsmmu.viommu));
      },
    };
  };

/** A vDEVICE's init that takes devices it must not take. */
function lenient(ops: ViommuOps, vdev: IommufdVdevice): void {
  try {
    ops.vdeviceInit?.(vdev);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== 'EOPNOTSUPP') throw error;
  }
}

/** Bugs of this family. */
export const HANDLE_BUGS: readonly Bug[] = [
  {
    name: 'vsid-left-behind',
    story:
      'A vDEVICE is destroyed and its vSID still finds the device: commands of the VM reach a stream that is no longer its own.',
    apply: finding((base) => {
      const seen = new Map<bigint, ReturnType<IommufdCallbacks['findDev']>>();
      return {
        findDev: (viommu, virtId) => {
          const dev = base.findDev(viommu, virtId) ?? seen.get(virtId);
          seen.set(virtId, dev);
          return dev;
        },
      };
    }),
  },
  {
    name: 'vdevice-of-two-streams',
    story:
      'A vDEVICE is made of a device with two StreamIDs, and its vSID stands for the first: what the VM invalidates stays cached for the second (arm_vsmmu_vsid_to_sid takes streams[0]; the number of streams must be checked).',
    lab: { streams: 2 },
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        vsmmuInit: (vsmmu) => {
          base.vsmmuInit(vsmmu);
          let ops = vsmmu.viommu.ops;
          // The driver sets its operations after this.
          Object.defineProperty(vsmmu.viommu, 'ops', {
            get: () => ops,
            set: (given: ViommuOps | null) => {
              ops = given === null ? null : { ...given, vdeviceInit: (vdev) => lenient(given, vdev) };
            },
          });
        },
      };
    },
  },
  {
    name: 'vsid-not-found',
    story: 'Of two vDEVICEs of a vIOMMU only the one with vSID 0 is found: the key of the map is truncated.',
    apply: finding((base) => ({
      findDev: (viommu, virtId) => (virtId === 0n ? base.findDev(viommu, virtId) : undefined),
    })),
  },
  {
    name: 'events-of-the-old-vm',
    story:
      "A device goes from one vIOMMU to another without a detach in between and keeps whom its events are for: the VM before reads the next one's faults (arm_smmu_attach_commit_vmaster).",
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        commit: (state) => {
          const { vmaster } = state.master;
          attach.commit(state.vmaster === null || vmaster === null ? state : { ...state, vmaster });
        },
      };
    },
  },
];
