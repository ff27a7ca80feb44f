/** Bugs in what an unmap and a detach invalidate. */
import { opcodeOf } from '../../../spec/index.ts';
import type { Inv } from '../../driver/arm-smmu-v3/invalidation.ts';
import { begun } from './begun.ts';
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
    apply: (parts) => {
      const { driver } = parts;
      const { asids } = driver;
      const acts = begun(parts);
      let held = 0;
      let shared = 0;
      driver.asids = {
        name: asids.name,
        alloc: () => {
          if (!acts()) return asids.alloc();
          if (held === 0) shared = asids.alloc();
          held++;
          return shared;
        },
        free: (id) => {
          if (held > 0 && id === shared) held--;
          if (held === 0 || id !== shared) asids.free(id);
        },
        reserve: (id) => asids.reserve(id),
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
    name: 'unmap-misses-one-viommu',
    story:
      'An unmap of an S2 reaches one vIOMMU of each SMMU: the search for the VMID to invalidate ends with the first that it finds, as it may where a VMID belongs to the S2.',
    policies: SHARING,
    apply: narrowed((live) =>
      live.filter(
        (inv, i) =>
          inv.type !== 'S2_VMID_VSMMU' ||
          live.findIndex(({ type, smmu }) => type === 'S2_VMID_VSMMU' && smmu === inv.smmu) === i,
      ),
    ),
  },
  {
    name: 'unmap-of-odd-pages-rounded-down',
    story:
      'The pages of an unmap are rounded down to a power of two before they become a range: of three pages two are invalidated (NUM and SCALE, IHI 0070 4.4.1.1).',
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        invRange: (kernel, invs, range) => {
          let size = range.granule;
          while (size !== 0n && size * 2n <= range.size) size *= 2n;
          return invalidation.invRange(kernel, invs, range.size === 0n ? range : { ...range, size });
        },
      };
    },
  },
  {
    name: 'stage1-kept-under-living-vmid',
    story:
      'The last nested device without a vIOMMU leaves an S2 whose VMID lives on, as others are attached to it directly: its combined entries stay, and no unmap sends NH_ALL any more. Where only nested streams have their S2 clean stage 1, the nested detach must.',
    policies: ['at-attach', 'viommu-only', 'external'],
    apply: ({ driver }) => {
      driver.invalidation = { ...driver.invalidation, flushStage1: () => true };
    },
  },
  {
    name: 'entries-after-prod',
    story:
      'PROD is published without a barrier after the entries: hardware may fetch what the slot held before. Entries first, then the index (IHI 0070 3.5.3; Linux: dma_wmb() in queue_sync_prod_out).',
    apply: (parts) => {
      const { kernel } = parts;
      const acts = begun(parts);
      const barrier = kernel.dmaWmb.bind(kernel);
      kernel.dmaWmb = (point) => {
        if (point !== 'cmdq:entries' || !acts()) barrier(point);
      };
    },
  },
];

/** Opcodes of TLB invalidations: all of 4.4 lie in one row of the table of opcodes. */
const TLBI: ReadonlySet<number> = new Set(
  Array.from({ length: 16 }, (_, low) => low).flatMap((low) => [0x10 | low, 0x20 | low]),
);
