/** Bugs in what an unmap and a detach invalidate. */
import { CMD_TLBI_NH_ALL, opcodeOf } from '../../../spec/index.ts';
import type { Inv } from '../../driver/arm-smmu-v3/invalidation.ts';
import type { Bug, BugParts } from './bug.ts';

const SHARING = ['at-attach', 'viommu-only', 'external'] as const;

const isVmid = ({ type }: Inv): boolean => type === 'S2_VMID' || type === 'S2_VMID_VSMMU';

/** An unmap invalidates only what `keep` leaves of the array. */
const narrowed =
  (keep: (live: readonly Inv[]) => readonly Inv[]) =>
  ({ driver }: BugParts): void => {
    const { invalidation } = driver;
    driver.invalidation = {
      ...invalidation,
      invRange: (kernel, invs, range) =>
        invalidation.invRange(kernel, keep(invs.filter(({ users }) => users > 0)), range),
    };
  };

/** Bugs of this family. */
export const INVALIDATION_BUGS: readonly Bug[] = [
  {
    name: 'unmap-without-tlbi',
    story: 'An unmap clears the page table and forgets the TLB: the device goes on using pages given back.',
    apply: ({ driver }) => {
      driver.invalidation = { ...driver.invalidation, invRange: () => true };
    },
  },
  {
    name: 'unmap-misses-last-vmid',
    story:
      'An unmap reaches all VMIDs of an S2 but one: the loop over the array ends one entry early. With one tag nothing is left out.',
    policies: SHARING,
    apply: narrowed((live) => {
      const tags = live.filter(isVmid);
      return tags.length < 2 ? live : live.filter((inv) => inv !== tags.at(-1));
    }),
  },
  {
    name: 'unmap-misses-viommu',
    story:
      "An unmap of an S2 invalidates the S2's own VMID and not those of the vIOMMUs on it: entries cached for nested devices stay.",
    policies: SHARING,
    apply: narrowed((live) => live.filter(({ type }) => type !== 'S2_VMID_VSMMU')),
  },
  {
    name: 'unmap-reaches-one-smmu',
    story: 'An unmap of an S2 shared between SMMUs sends its commands to the first one alone.',
    policies: SHARING,
    apply: narrowed((live) => live.filter(({ smmu }) => smmu === live[0]?.smmu)),
  },
  {
    name: 'unmap-keeps-stage1',
    story:
      'An unmap of stage 2 of a nesting parent invalidates by IPA alone. A TLB may hold both stages as one entry by VA, which TLBI_S2_IPA does not remove (IHI 0070 4.4.3): NH_ALL must follow.',
    apply: narrowed((live) => live.filter(({ type }) => type !== 'S2_VMID_S1_CLEAR')),
  },
  {
    name: 'unmap-misses-last-page',
    story:
      'The end of the range to invalidate is taken as exclusive where it is inclusive: the last page stays cached.',
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        invRange: (kernel, invs, range) =>
          range.size === 0n
            ? invalidation.invRange(kernel, invs, range)
            : range.size <= range.granule ||
              invalidation.invRange(kernel, invs, { ...range, size: range.size - range.granule }),
      };
    },
  },
  {
    name: 'unmap-flushes-stage1-only',
    story: 'An unmap of stage 2 sends CMD_TLBI_NH_ALL and nothing by IPA: stage 2 entries of the VMID stay (4.4.2.1).',
    apply: narrowed((live) => live.filter(({ type }) => !type.startsWith('S2_VMID') || type === 'S2_VMID_S1_CLEAR')),
  },
  {
    name: 'flush-by-nh-all-only',
    story:
      'A VMID that is given up is cleaned with CMD_TLBI_NH_ALL. That removes stage 1 and combined entries, not those of stage 2 alone: CMD_TLBI_S12_VMALL does (IHI 0070 4.4.2).',
    policies: SHARING,
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        flushTag: (tag) => (tag.type === 'S1_ASID' ? invalidation.flushTag(tag) : invalidation.flushStage1(tag)),
      };
    },
  },
  {
    name: 'vmid-not-flushed',
    story: 'The last detach frees the VMID without any invalidation: the next owner inherits the TLB.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        flushTag: (tag) => (tag.type === 'S1_ASID' ? invalidation.flushTag(tag) : true),
      };
    },
  },
  {
    name: 'asid-not-flushed',
    story: 'An ASID is freed without CMD_TLBI_NH_ASID: the next domain that gets it sees the pages of the last.',
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        flushTag: (tag) => tag.type === 'S1_ASID' || invalidation.flushTag(tag),
      };
    },
  },
  {
    name: 'shared-tag-not-counted',
    story:
      'A second attachment under a tag does not count: arm_smmu_invs_merge keeps the users as they were, and the first detach takes the tag from both.',
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        merge: (kernel, invs, add) => {
          const merged = invalidation.merge(kernel, invs, add);
          for (const inv of merged) inv.users = Math.min(inv.users, 1);
          return merged;
        },
        unref: (invs, remove) => {
          try {
            return invalidation.unref(invs, remove);
          } catch {
            return [];
          }
        },
      };
    },
  },
  {
    name: 'asid-shared',
    story: 'Two domains get one ASID: the allocator is asked before its lock is taken (arm_smmu_asid_lock).',
    apply: ({ driver }) => {
      const { asids } = driver;
      let held = 0;
      let shared = 0;
      driver.asids = {
        name: asids.name,
        alloc: () => {
          if (held === 0) shared = asids.alloc();
          held++;
          return shared;
        },
        free: (id) => {
          held--;
          if (held === 0) asids.free(id);
        },
        has: (id) => asids.has(id),
        get used() {
          return asids.used;
        },
      };
    },
  },
  {
    name: 'tlbi-not-waited-for',
    story:
      'TLB invalidations are published without CMD_SYNC: what they protect is reused while they wait in the queue.',
    apply: ({ driver }) => {
      const { commandQueue } = driver;
      driver.commandQueue = {
        issue: (queue, commands, sync) => {
          const [first] = commands;
          const tlbi = first !== undefined && TLBI.has(opcodeOf(first));
          return commandQueue.issue(queue, commands, sync && !tlbi);
        },
      };
    },
  },
  {
    name: 'guest-vmid-kept',
    story:
      "A VM's TLBI goes to the queue with the VMID that the VM wrote in it: it hits another VM, or nobody (arm_vsmmu_convert_user_cmd must replace it).",
    apply: ({ driver }) => {
      const { nested } = driver;
      driver.nested = {
        ...nested,
        convertCommand: (command, _vmid, sidOf) =>
          nested.convertCommand(command, CMD_TLBI_NH_ALL.num(command, 'VMID'), sidOf),
      };
    },
  },
];

/** Opcodes of TLB invalidations: all of 4.4 lie in one row of the table of opcodes. */
const TLBI: ReadonlySet<number> = new Set(
  Array.from({ length: 16 }, (_, low) => low).flatMap((low) => [0x10 | low, 0x20 | low]),
);
