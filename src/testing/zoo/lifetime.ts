/** Bugs in what keeps what alive in iommufd, and in how an object that could not be made is undone. */
import type { IommufdParts } from '../../iommufd/index.ts';
import type { Bug, BugParts } from './bug.ts';

type Unwound = Parameters<IommufdParts['unwind']>[1];

/** Undoes failed allocations of one kind otherwise. */
const unwinding =
  (
    kind: Unwound['kind'],
    undo: (ctx: Parameters<IommufdParts['unwind']>[0], object: Unwound, shipped: () => void) => void,
  ) =>
  ({ iommufd }: BugParts): void => {
    const { unwind } = iommufd;
    iommufd.unwind = (ctx, object) =>
      object.kind === kind ? undo(ctx, object, () => unwind(ctx, object)) : unwind(ctx, object);
  };

/** Bugs of this family. */
export const LIFETIME_BUGS: readonly Bug[] = [
  {
    name: 'bind-counts-twice',
    story:
      'Binding a device takes a second count that nobody drops: unbind finds another user, and the object stays. Suspected on the list in October 2024 (VIOMMU series v3), where the count was right and a vDEVICE the cause.',
    apply: ({ iommufd }) => {
      const { bound } = iommufd;
      iommufd.bound = (idev) => {
        bound(idev);
        idev.users++;
      };
    },
  },
  {
    name: 'vdevice-outlives-device',
    story:
      'A vDEVICE holds its DEVICE until it is destroyed or the file is closed, and unbind does not take it away: the device can be unplugged by nobody (what the trace of October 2024, VIOMMU series v3, showed).',
    apply: ({ iommufd }) => {
      iommufd.devicePreDestroy = (idev) => {
        idev.destroying = true;
      };
    },
  },
  {
    name: 'viommu-pins-device',
    story:
      'A vIOMMU keeps its physical IOMMU by a count on the device that it was made with: that one device cannot be unplugged while others use the vIOMMU.',
    apply: ({ iommufd }) => {
      const { hold } = iommufd;
      iommufd.hold = {
        take: (viommu, idev) => {
          hold.take(viommu, idev);
          idev.users++;
          viommu.hold.device = idev;
          idev.heldBy.add(viommu);
        },
        drop: hold.drop,
      };
    },
  },
  {
    name: 'viommu-pins-nothing',
    story:
      'A vIOMMU keeps a bare pointer to its physical IOMMU and is not told when that goes away: its next use is one after free (the vIOMMU of Linux 7.2, which relies on an SMMU that cannot be removed).',
    lab: { iommuHold: 'revoke' },
    apply: ({ iommufd }) => {
      iommufd.hold = { ...iommufd.hold, take: () => {} };
    },
  },
  {
    name: 'handle-of-nobody',
    story:
      'An attach handle is counted, every user puts it, and when the count reaches zero nobody is there to free it (the count of the page-fault series v4, April 2024, which was dropped).',
    apply: ({ iommufd }) => {
      iommufd.handles = { ...iommufd.handles, free: () => {} };
    },
  },
  {
    name: 'vdevice-visible-early',
    story:
      'A vDEVICE is put into the map of its vIOMMU before the driver has accepted it: an invalidation on another CPU finds it half made.',
    apply: ({ iommufd }) => {
      const { vdevices } = iommufd;
      iommufd.vdevices = {
        ...vdevices,
        reserve: (vdev) => {
          vdev.viommu.vdevs.set(vdev.virtId, vdev);
          vdev.ctx.kernel.alloc('iommufd:vdevs');
        },
      };
    },
  },
  {
    name: 'vsid-stays-after-failure',
    story:
      'A vDEVICE whose allocation failed leaves its vSID in the map: commands of the VM go to a device it has not got.',
    apply: ({ iommufd }) => {
      const { vdevices } = iommufd;
      iommufd.vdevices = {
        ...vdevices,
        withdraw: (vdev) => {
          if (vdev.ctx.objects.peek(vdev.id) !== undefined || vdev.users !== 1) vdevices.withdraw(vdev);
        },
      };
    },
  },
  {
    name: 'replace-keeps-old-count',
    story: 'A replace counts the new HWPT and forgets to let go of the old one: it can never be destroyed.',
    apply: ({ iommufd }) => {
      iommufd.replaced = (_from, to, devices) => {
        to.users += devices;
        _from.users++;
      };
    },
  },
  {
    name: 'replace-drops-old-twice',
    story: 'A replace drops the count of the old HWPT in the loop over the devices and once more at its end.',
    apply: ({ iommufd }) => {
      const { replaced } = iommufd;
      iommufd.replaced = (from, to, devices) => {
        replaced(from, to, devices);
        from.users--;
      };
    },
  },
  {
    name: 'replace-counts-nothing',
    story: 'After a replace the new HWPT has no count of the attachment: it can be destroyed under the device.',
    apply: ({ iommufd }) => {
      iommufd.replaced = (from, _to, devices) => {
        from.users -= devices - 1;
      };
    },
  },
  {
    name: 'ioas-goes-under-hwpt',
    story:
      'A HWPT does not keep its IO address space: that can be destroyed with pages pinned and mapped for a device, and takes them away under it.',
    apply: ({ iommufd }) => {
      iommufd.spaceHold = { get: () => {}, put: () => {} };
    },
  },
  {
    name: 'nested-unwind-leaks',
    story:
      'HWPT_ALLOC of a nested HWPT fails after it has counted its vIOMMU, and is undone with abort instead of abort_and_destroy: the vIOMMU keeps the count.',
    apply: unwinding('HWPT_NESTED', ({ objects }, object) => objects.abort(object)),
  },
  {
    name: 'hwpt-unwind-leaks',
    story: 'HWPT_ALLOC fails in its last step and is undone with abort alone: domain, tables and VMID stay.',
    apply: unwinding('HWPT_PAGING', ({ objects }, object) => objects.abort(object)),
  },
  {
    name: 'hwpt-unwind-frees-twice',
    story: 'HWPT_ALLOC fails, the error path frees what it made, and abort_and_destroy frees it again.',
    apply: unwinding('HWPT_PAGING', (_ctx, object, shipped) => {
      const domain = 'domain' in object ? (object.domain as { ops: { free(d: unknown): void } } | null) : null;
      domain?.ops.free(domain);
      shipped();
    }),
  },
  {
    name: 'viommu-unwind-frees-twice',
    story:
      'VIOMMU_ALLOC fails in its last step, the error path drops the count on the nesting parent, and so does abort_and_destroy.',
    apply: unwinding('VIOMMU', (_ctx, object, shipped) => {
      if ('hwpt' in object) (object.hwpt as { users: number }).users--;
      shipped();
    }),
  },
  {
    name: 'viommu-unwind-leaks',
    story: 'VIOMMU_ALLOC fails in its last step and is undone with abort alone: VMID and parent keep their holder.',
    apply: unwinding('VIOMMU', ({ objects }, object) => objects.abort(object)),
  },
  {
    name: 'vdevice-unwind-leaks',
    story:
      'VDEVICE_ALLOC fails in its last step and is undone with abort alone: the vIOMMU keeps a user that is not there.',
    apply: unwinding('VDEVICE', ({ objects }, object) => objects.abort(object)),
  },
];
