/** Bugs in what VMs get of a Tegra241 CMDQV: VINTFs, their VMIDs and StreamID pairs, VCMDQs, page 0. */
import {
  CMDQV_CMDQ_ALLOC,
  CMDQV_MAX_SIDS,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VINTF_CONFIG,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
} from '../../../spec/index.ts';
import type { DriverParts } from '../../driver/arm-smmu-v3/index.ts';
import type { Vsmmu } from '../../driver/arm-smmu-v3/vsmmu.ts';
import type { IdAllocator } from '../../driver/kernel.ts';
import type { Vcmdq, Vintf } from '../../driver/tegra241/index.ts';
import { HwQueueObject } from '../../iommufd/hw-queue.ts';
import type { Bug, Replaceable } from './bug.ts';
import { live } from './vmid.ts';
import { WINDOW_BUGS } from './windows.ts';

type Parts = Replaceable<DriverParts>;

/** A VINTF, or a queue, of a VM's. */
const ofVm = (vintf: Vintf): boolean => vintf.index !== 0;

/** Replaces what is done with a VM's VINTF when it is switched on, or off for good: switching on begins with off, too. */
function vintfSteps(
  driver: Parts,
  steps: {
    readonly on?: (vintf: Vintf, hypOwn: boolean, base: DriverParts['vintf']) => void;
    readonly off?: (vintf: Vintf, base: DriverParts['vintf']) => boolean;
    readonly clearSid?: (vintf: Vintf, s: number, base: DriverParts['vintf']) => void;
  },
): void {
  const { vintf: base } = driver;
  let inside = false;
  const within = <T>(body: () => T): T => {
    inside = true;
    try {
      return body();
    } finally {
      inside = false;
    }
  };
  driver.vintf = {
    ...base,
    hwInit: (vintf, hypOwn) =>
      within(() =>
        steps.on !== undefined && ofVm(vintf) ? steps.on(vintf, hypOwn, base) : base.hwInit(vintf, hypOwn),
      ),
    hwDeinit: (vintf) => {
      if (inside || steps.off === undefined || !ofVm(vintf))
        return inside ? base.hwDeinit(vintf) : within(() => base.hwDeinit(vintf));
      return within(() => steps.off?.(vintf, base) ?? true);
    },
    clearSid: (vintf, s) => {
      if (inside || steps.clearSid === undefined || !ofVm(vintf)) base.clearSid(vintf, s);
      else steps.clearSid(vintf, s, base);
    },
  };
}

/** Replaces what a VM's queue goes through when it is stopped. */
function queueStops(driver: Parts, stop: (queue: Vcmdq, base: DriverParts['vintf']) => boolean): void {
  const { vintf: base } = driver;
  driver.vintf = {
    ...base,
    queueDeinit: (queue) => (queue.cmdq === null ? stop(queue, base) : base.queueDeinit(queue)),
  };
}

const register = (queue: Vcmdq, which: typeof VCMDQ_PROD | typeof VCMDQ_CONS | typeof VCMDQ_GERRORN) => {
  const { regs, index } = queue.vintf;
  const at = regs.lvcmdq(index, queue.lvcmdq, which);
  return { read: () => regs.read32(which, at), write: (value: number) => regs.write32(which, at, value) };
};

/** Numbers of a VINTF's pairs, of which the last is given out again when none is left. */
function lastShared({ sids, numSids }: Vintf): IdAllocator {
  let again = 0;
  return {
    name: sids.name,
    alloc: () => {
      if (sids.used < numSids) return sids.alloc();
      again++;
      return numSids - 1;
    },
    free: (id) => {
      if (id === numSids - 1 && again > 0) again--;
      else sids.free(id);
    },
    reserve: (id) => sids.reserve(id),
    has: (id) => sids.has(id),
    get used() {
      return sids.used;
    },
  };
}

/** Gives each VM's VINTF other numbers for its pairs, when it is switched on first. */
function sidNumbers(driver: Parts, numbers: (vintf: Vintf) => IdAllocator): void {
  const known = new WeakSet<Vintf>();
  vintfSteps(driver, {
    on: (vintf, hypOwn, base) => {
      if (!known.has(vintf)) Object.assign(vintf, { sids: numbers(vintf) });
      known.add(vintf);
      base.hwInit(vintf, hypOwn);
    },
  });
}

const presets = ['grace'] as const;

const BUGS: readonly Omit<Bug, 'presets'>[] = [
  {
    name: 'vintf-left-enabled',
    story:
      'The destroy of a vIOMMU gives its VINTF back and leaves EN in CONFIG: whoever gets the VMID next has a stranger who invalidates it (tegra241-cmdqv 12.1).',
    apply: ({ driver }) => vintfSteps(driver, { off: () => true }),
  },
  {
    name: 'vintf-vmid-freed-first',
    story:
      "The destroy of a vIOMMU frees the VMID and switches the VINTF off afterwards: until then the VM's queues invalidate under a number that may be somebody else's (CMDQV-15).",
    policies: ['at-attach', 'viommu-only', 'external'],
    apply: ({ driver }) => {
      const { vmidPolicy } = driver;
      const owners = new Map<string, Vsmmu>();
      const freed = new Set<Vsmmu>();
      const key = (smmu: { readonly name: string }, vmid: number): string => `${smmu.name} ${vmid}`;
      driver.vmidPolicy = {
        ...vmidPolicy,
        vsmmuInit: (vsmmu) => {
          vmidPolicy.vsmmuInit(vsmmu);
          owners.set(key(vsmmu.smmu, vsmmu.vmid), vsmmu);
        },
        vsmmuDestroy: (vsmmu) => {
          if (!freed.delete(vsmmu)) vmidPolicy.vsmmuDestroy(vsmmu);
        },
      };
      vintfSteps(driver, {
        off: (vintf, base) => {
          const owner = owners.get(key(vintf.smmu, vintf.vmid));
          if (owner !== undefined && !freed.has(owner)) {
            vmidPolicy.vsmmuDestroy(owner);
            freed.add(owner);
          }
          return base.hwDeinit(vintf);
        },
      });
    },
  },
  {
    name: 'vintf-vmid-0',
    story: "CONFIG of a VM's VINTF is written without its VMID: what the VM invalidates is that of all hosts' streams.",
    apply: ({ driver }) =>
      vintfSteps(driver, {
        on: (vintf, hypOwn, base) => base.hwInit(Object.assign(vintf, { vmid: 0 }), hypOwn),
      }),
  },
  {
    name: 'vintf-vmid-of-s2',
    story:
      "The VINTF takes the VMID that its S2 has from a direct attach, as if a vIOMMU still borrowed it (Linux 7.2); the VM's streams have the vIOMMU's, and keep what the VM invalidates.",
    policies: ['at-attach'],
    apply: ({ driver }) => {
      const { vmidPolicy } = driver;
      let last: Vsmmu | null = null;
      driver.vmidPolicy = {
        ...vmidPolicy,
        vsmmuInit: (vsmmu) => {
          vmidPolicy.vsmmuInit(vsmmu);
          last = vsmmu;
        },
      };
      vintfSteps(driver, {
        on: (vintf, hypOwn, base) => {
          const tag = last === null ? undefined : live(last.parent, vintf.smmu, 'S2_VMID');
          base.hwInit(tag === undefined ? vintf : Object.assign(vintf, { vmid: tag.id }), hypOwn);
        },
      });
    },
  },
  {
    name: 'vintf-vmid-after-enable',
    story: 'CONFIG gets EN first and the VMID afterwards. Hardware takes VMID and ownership when EN is set (CMDQV-13).',
    apply: ({ driver }) =>
      vintfSteps(driver, {
        on: (vintf, hypOwn, base) => {
          const { vmid, regs, index } = vintf;
          base.hwInit(Object.assign(vintf, { vmid: 0 }), hypOwn);
          Object.assign(vintf, { vmid });
          regs.write32(VINTF_CONFIG, regs.vintf(index, VINTF_CONFIG), VINTF_CONFIG.value({ VMID: vmid, EN: 1 }));
        },
      }),
  },
  {
    name: 'vintf-hyp-own',
    story:
      "A VM's VINTF is switched on as the host's own, with HYP_OWN: its queues execute every command, with any VMID and StreamID. The uAPI says since 2026 that a VINTF of a vIOMMU has HYP_OWN=0 (series by Nicolin Chen of 12 March 2026, for commit 4dc0d12474f9).",
    apply: ({ driver }) => vintfSteps(driver, { on: (vintf, _hypOwn, base) => base.hwInit(vintf, true) }),
  },
  {
    name: 'vcmdq-of-another-vintf',
    story:
      'The number of a VCMDQ is computed without that of its VINTF, so all VMs are given the queues of the first: CMDQ_ALLOC of a queue in use is rewritten for another VM.',
    apply: ({ driver }) => {
      const { vintf: base } = driver;
      driver.vintf = {
        ...base,
        mapQueue: (queue) => {
          const { vintf, lvcmdq } = queue;
          if (!ofVm(vintf)) return base.mapQueue(queue);
          const { regs, index, queues } = vintf;
          Object.assign(queue, { q: queues.length + lvcmdq });
          const value = CMDQV_CMDQ_ALLOC.value({ VINTF: index, LVCMDQ: lvcmdq, ALLOCATED: 1 });
          regs.write32(CMDQV_CMDQ_ALLOC, regs.global(CMDQV_CMDQ_ALLOC, queue.q), value);
        },
      };
    },
  },
  {
    name: 'lvcmdq-order-not-checked',
    story:
      'HW_QUEUE_ALLOC takes LVCMDQ 1 before LVCMDQ 0. Hardware maps them in ascending order only (uAPI, IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV).',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        checkIndex: (user, index) => {
          if (user.hwQueues.has(index)) base.checkIndex(user, index);
        },
      };
    },
  },
  {
    name: 'lvcmdq-does-not-keep-lower',
    story:
      'A queue does not depend on the one below it (iommufd_hw_queue_depend left out): the VMM destroys LVCMDQ 0 first, which hardware does not allow.',
    apply: ({ driver }) => {
      driver.vintfUser = { ...driver.vintfUser, depend: () => undefined };
    },
  },
  {
    name: 'vcmdq-unmapped-before-stopped',
    story:
      'The destroy of a queue clears ALLOCATED and stops the queue afterwards: through a window in which it no longer is. It ran until it lost its VINTF, and keeps its indexes for the next owner.',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        destroyQueue: (cmdqv, user, vcmdq, queue, lower) => {
          driver.vintf.unmapQueue(vcmdq);
          base.destroyQueue(cmdqv, user, vcmdq, queue, lower);
        },
      };
    },
  },
  {
    name: 'vcmdq-left-mapped',
    story:
      'The destroy of a queue forgets the hardware: the VCMDQ stays mapped and enabled, and fetches from memory that was given back.',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        destroyQueue: (cmdqv, user, vcmdq, queue, lower) => {
          const { vintf } = driver;
          driver.vintf = { ...vintf, queueDeinit: () => true, unmapQueue: () => {} };
          try {
            base.destroyQueue(cmdqv, user, vcmdq, queue, lower);
          } finally {
            driver.vintf = vintf;
          }
        },
      };
    },
  },
  {
    name: 'vcmdq-inherited-dirty',
    story:
      'A queue is stopped and its indexes stay: the next VM begins with PROD and CONS of the last one (tegra241_vcmdq_hw_deinit clears them before each use and after it).',
    apply: ({ driver }) =>
      queueStops(driver, (queue, base) => {
        const [prod, cons] = [register(queue, VCMDQ_PROD), register(queue, VCMDQ_CONS)];
        const [p, c] = [prod.read(), cons.read()];
        const stopped = base.queueDeinit(queue);
        prod.write(p);
        cons.write(c);
        return stopped;
      }),
  },
  {
    name: 'vcmdq-error-inherited',
    story: 'A queue is given on with an error that its last VM never acknowledged: it will not run for the next one.',
    apply: ({ driver }) =>
      queueStops(driver, (queue, base) => {
        const gerrorn = register(queue, VCMDQ_GERRORN);
        const before = gerrorn.read();
        const stopped = base.queueDeinit(queue);
        gerrorn.write(before);
        return stopped;
      }),
  },
  {
    name: 'vcmdq-timeout-not-flushed',
    story:
      "No CMD_SYNC on the SMMU's own queue after a VM's queue was stopped: an ATC time-out that the VM left behind is the next VM's (tegra241_vcmdq_hw_flush_timeout).",
    apply: ({ driver }) => {
      const { vintf: base } = driver;
      driver.vintf = {
        ...base,
        flushTimeout: (vintf) => {
          if (!ofVm(vintf)) base.flushTimeout(vintf);
        },
      };
    },
  },
  {
    name: 'vcmdq-enabled-by-host',
    story:
      "The host enables a VM's queue itself, as it does its own: it runs before the VM has said where it begins (tegra241_vcmdq_hw_init_user writes BASE only).",
    apply: ({ driver }) => {
      const { vintf: base } = driver;
      driver.vintf = {
        ...base,
        queueInitUser: (queue) => {
          base.queueInitUser(queue);
          const { regs, index } = queue.vintf;
          regs.write32(VCMDQ_CONFIG, regs.lvcmdq(index, queue.lvcmdq, VCMDQ_CONFIG), VCMDQ_CONFIG.bit('CMDQ_EN'));
        },
      };
    },
  },
  {
    name: 'vcmdq-size-doubled',
    story:
      'LOG2SIZE of BASE is one too many: half of what hardware fetches is memory beside the queue, which nobody pinned.',
    apply: ({ driver }) => {
      const { vintf: base } = driver;
      driver.vintf = {
        ...base,
        queueInitUser: (queue) => base.queueInitUser({ ...queue, log2size: queue.log2size + 1 }),
      };
    },
  },
  {
    name: 'vcmdq-base-is-ipa',
    story:
      'BASE gets the address that the VMM gave, which is one of the VM, instead of the pinned memory behind it: the VM reads host memory as commands.',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        initQueue: (cmdqv, user, queue, index) => base.initQueue(cmdqv, user, queue, index, queue.baseAddr),
      };
    },
  },
  {
    name: 'vcmdq-address-not-checked',
    story:
      'HW_QUEUE_ALLOC does not ask whether the address is a multiple of the length: BASE has no bits for the rest, and hardware refuses it when the VM enables its queue.',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = { ...base, checkMemory: (vintf, length) => base.checkMemory(vintf, length, 0n) };
    },
  },
  {
    name: 'vcmdq-memory-unpinned',
    story:
      'The pages of a queue are unpinned when BASE has been written, not when the queue is gone: the VMM unmaps them, and hardware fetches on. IOMMU_HW_QUEUE_ALLOC takes an access for as long as the queue lives (series by Nicolin Chen of June 2025).',
    apply: ({ driver }) => {
      const { vintfUser: base } = driver;
      driver.vintfUser = {
        ...base,
        initQueue: (cmdqv, user, queue, index, pa) => {
          base.initQueue(cmdqv, user, queue, index, pa);
          if (!(queue instanceof HwQueueObject) || queue.access === null) return;
          queue.access.unpinPages(queue.cover.iova, queue.cover.length);
          queue.dropAccess(queue.access);
        },
      };
    },
  },
  {
    name: 'vcmdq-memory-freed-while-running',
    story:
      "An SMMU is removed with its VINTF 0 still on: the memory of the kernel's own VCMDQs is given back while they run. Linux had the order of this teardown wrong until commit 5994617e09ee, iommu/tegra241-cmdqv: Fix CMD_SYNC use-after-free on teardown.",
    apply: ({ driver }) => {
      const { vintf: base } = driver;
      let starting = false;
      driver.vintf = {
        ...base,
        hwInit: (vintf, hypOwn) => {
          starting = true;
          try {
            base.hwInit(vintf, hypOwn);
          } finally {
            starting = false;
          }
        },
        hwDeinit: (vintf) => (starting || ofVm(vintf) ? base.hwDeinit(vintf) : true),
      };
    },
  },
  {
    name: 'sid-match-overflow',
    story:
      'vSIDs are not bounded by the pairs that a VINTF has: the next vDEVICE gets a SID_MATCH that does not exist, and its invalidations are refused.',
    lab: { sidPairsLog2: 0 },
    apply: ({ driver }) => sidNumbers(driver, () => driver.kernel.ids('vsid', 0, CMDQV_MAX_SIDS - 1)),
  },
  {
    name: 'sid-match-reused',
    story:
      "With no pair left the last one is taken again: the vDEVICE that had it is invalidated under another one's vSID.",
    lab: { sidPairsLog2: 0 },
    apply: ({ driver }) => sidNumbers(driver, lastShared),
  },
  {
    name: 'sid-match-left-behind',
    story:
      "The destroy of a vDEVICE gives the number of its pair back and leaves the pair enabled: the VM still reaches a device that may be another VM's (CMDQV-4).",
    apply: ({ driver }) => vintfSteps(driver, { clearSid: () => {} }),
  },
  {
    name: 'sid-replace-after-match',
    story:
      'SID_MATCH is enabled before SID_REPLACE says which device is meant: in between the VM reaches the one that had the pair before (CMDQV-5).',
    apply: ({ driver }) => {
      driver.vintf = {
        ...driver.vintf,
        writeSid: ({ regs, index }, s, virtSid, physSid) => {
          const match = VINTF_SID_MATCH.value({ VIRT_SID: virtSid, ENABLE: 1 });
          regs.write32(VINTF_SID_MATCH, regs.vintf(index, VINTF_SID_MATCH, s), match);
          const replace = VINTF_SID_REPLACE.value({ PHYS_SID: physSid });
          regs.write32(VINTF_SID_REPLACE, regs.vintf(index, VINTF_SID_REPLACE, s), replace);
        },
      };
    },
  },
  ...WINDOW_BUGS,
];

/** Bugs of this family. */
export const CMDQV_BUGS: readonly Bug[] = BUGS.map((bug) => ({ ...bug, presets }));
