/** Bugs in whose VMID is taken, carried and given back. */
import { NestedDomain, PagingDomain } from '../../driver/arm-smmu-v3/domains.ts';
import { type InvKey, isTag } from '../../driver/arm-smmu-v3/invalidation.ts';
import type { Smmu } from '../../driver/arm-smmu-v3/smmu.ts';
import type { Vsmmu } from '../../driver/arm-smmu-v3/vsmmu.ts';
import type { Bug, BugParts } from './bug.ts';

/** Policies in which numbers are taken at attach and by vIOMMUs. */
const SHARING = ['at-attach', 'viommu-only', 'external'] as const;

/** The tag that a domain has on an SMMU already. */
export const live = (domain: PagingDomain, smmu: Smmu, type: InvKey['type']): InvKey | undefined =>
  domain.invs.find((inv) => inv.smmu === smmu && inv.type === type && inv.users > 0);

/** Whether an attach is being prepared now. */
function noticePrepare(driver: BugParts['driver']): () => boolean {
  const { attach } = driver;
  let preparing = false;
  driver.attach = {
    ...attach,
    prepare: (request) => {
      preparing = true;
      try {
        return attach.prepare(request);
      } finally {
        preparing = false;
      }
    },
  };
  return () => preparing;
}

/** Bugs of this family. */
export const VMID_BUGS: readonly Bug[] = [
  {
    name: 'vmid-freed-at-last-nested-detach',
    story:
      "The VMID of a vIOMMU is given back when the last device leaves it, as a direct attach gives its own back; the vIOMMU lives on and lends a number that is somebody else's. From the review of per-vIOMMU VMIDs (linux-driver, VMID: today and proposed).",
    policies: ['at-attach', 'viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      const owners = new Map<string, Vsmmu>();
      const freed = new Set<Vsmmu>();
      const key = (smmu: Smmu, vmid: number): string => `${smmu.name} ${vmid}`;
      driver.vmidPolicy = {
        ...base,
        vsmmuInit: (vsmmu) => {
          base.vsmmuInit(vsmmu);
          owners.set(key(vsmmu.smmu, vsmmu.vmid), vsmmu);
        },
        vsmmuDestroy: (vsmmu) => {
          if (!freed.has(vsmmu)) base.vsmmuDestroy(vsmmu);
        },
        tagUnused: (parent, tag) => {
          const owner = tag.type === 'S2_VMID_VSMMU' ? owners.get(key(tag.smmu, tag.id)) : undefined;
          if (owner !== undefined && !freed.has(owner)) {
            freed.add(owner);
            base.vsmmuDestroy(owner);
          } else base.tagUnused(parent, tag);
        },
      };
    },
  },
  {
    name: 'vmid-freed-with-first-viommu',
    story:
      'A vIOMMU that borrows the VMID of its S2 frees it at its own end. The S2 lives on, attached or under another vIOMMU. Linux 7.2 borrows, and arm_vsmmu_destroy must free nothing.',
    policies: ['at-domain-alloc'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = { ...base, vsmmuDestroy: ({ parent }) => base.s2Free(parent) };
    },
  },
  {
    name: 'vmid-freed-before-detach',
    story:
      'The last detach of an S2 frees its VMID first and changes the STE afterwards: until then hardware runs under a number that is free.',
    policies: ['at-attach', 'viommu-only'],
    apply: ({ driver }) => {
      const { attach, vmidPolicy: base } = driver;
      const early = new Set<InvKey>();
      driver.attach = {
        ...attach,
        installSte: (master, ste) => {
          const old = master.records.get(0);
          const tag = old?.invs.find(isTag);
          const tracker = old?.domain instanceof NestedDomain ? old.domain.parent : old?.domain;
          if (tag?.type === 'S2_VMID' && tracker instanceof PagingDomain) {
            const inv = live(tracker, tag.smmu, 'S2_VMID');
            if (inv !== undefined && 'users' in inv && inv.users === 1) {
              early.add(inv);
              base.tagUnused(tracker, inv);
            }
          }
          attach.installSte(master, ste);
        },
      };
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => {
          if (!early.delete(tag)) base.tagUnused(parent, tag);
        },
      };
    },
  },
  {
    name: 'vmid-freed-before-tlbi',
    story:
      'At the last detach the VMID goes back to the allocator before its TLB entries are removed. Another VM that takes it in between hits them (linux-driver 7: free after flush).',
    policies: SHARING,
    apply: ({ driver }) => {
      const { invalidation, vmidPolicy: base } = driver;
      let owed: InvKey | null = null;
      driver.invalidation = {
        ...invalidation,
        flushTag: (tag) => {
          if (tag.type !== 'S2_VMID') return invalidation.flushTag(tag);
          owed = tag;
          return true;
        },
      };
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => {
          base.tagUnused(parent, tag);
          if (owed !== null) invalidation.flushTag(owed);
          owed = null;
        },
      };
    },
  },
  {
    name: 'tag-of-another-viommu',
    story:
      'The search for a tag in use on the SMMU finds the one of another vIOMMU of the same S2. arm_smmu_domain_get_iotlb_tag searches the array; two vIOMMUs on one SMMU must not be found for each other.',
    policies: ['at-attach', 'viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagFor: (domain, smmu) => {
          const other =
            domain instanceof NestedDomain && domain.vsmmu !== null
              ? live(domain.parent, smmu, 'S2_VMID_VSMMU')
              : undefined;
          return other === undefined
            ? base.tagFor(domain, smmu)
            : { type: 'S2_VMID_VSMMU', vmid: other.id, fresh: false };
        },
      };
    },
  },
  {
    name: 'ste-has-vmid-of-s2',
    story:
      "The nested STE takes the VMID of its S2 while the invalidation takes the vIOMMU's: both look right alone. The danger that one place for both removes (design: where a nested STE's VMID comes from).",
    policies: ['at-attach'],
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        nestedCdTableSte: (master, parent, vmid, vste, ats) => {
          const tag = live(parent, master.smmu, 'S2_VMID');
          return makers.nestedCdTableSte(master, parent, tag?.id ?? vmid, vste, ats);
        },
      };
    },
  },
  {
    name: 'nested-ste-vmid-0',
    story:
      'The maker of a nested STE leaves S2VMID at 0, a number that no allocator hands out and every such VM shares.',
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        nestedCdTableSte: (master, parent, _vmid, vste, ats) => makers.nestedCdTableSte(master, parent, 0, vste, ats),
      };
    },
  },
  {
    name: 'vmid-of-first-smmu',
    story:
      'An S2 attached on a second SMMU takes the number that it has on the first, which the second never allocated. Numbers are of one SMMU each.',
    policies: ['at-attach', 'viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagFor: (domain, smmu) => {
          const first =
            domain instanceof PagingDomain
              ? domain.invs.find((inv) => inv.type === 'S2_VMID' && inv.users > 0)
              : undefined;
          return first === undefined ? base.tagFor(domain, smmu) : { type: 'S2_VMID', vmid: first.id, fresh: false };
        },
      };
    },
  },
  {
    name: 'vmid-leaks-in-unwind',
    story:
      'An attach that fails after the VMID was taken does not give it back: no entry of the array names it yet, so nobody ever will.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      const preparing = noticePrepare(driver);
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => {
          if (!preparing()) base.tagUnused(parent, tag);
        },
      };
    },
  },
  {
    name: 'vmid-freed-twice-in-unwind',
    story: 'The error path of an attach frees the VMID, and so does its caller: the second free may hit a new owner.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      const preparing = noticePrepare(driver);
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => {
          base.tagUnused(parent, tag);
          if (preparing()) base.tagUnused(parent, tag);
        },
      };
    },
  },
  {
    name: 'viommu-vmid-leaks',
    story: 'The destroy of a vIOMMU forgets its VMID: after 255 virtual machines an 8-bit SMMU has none left.',
    policies: SHARING,
    apply: ({ driver }) => {
      driver.vmidPolicy = { ...driver.vmidPolicy, vsmmuDestroy: () => {} };
    },
  },
  {
    name: 'viommu-vmid-freed-twice',
    story: 'Two paths of the destroy of a vIOMMU both free its VMID.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        vsmmuDestroy: (vsmmu) => {
          base.vsmmuDestroy(vsmmu);
          base.vsmmuDestroy(vsmmu);
        },
      };
    },
  },
  {
    name: 's2-vmid-leaks',
    story: 'A stage 2 domain is freed without its VMID (an early return in arm_smmu_domain_free_paging).',
    policies: ['at-domain-alloc'],
    apply: ({ driver }) => {
      driver.vmidPolicy = { ...driver.vmidPolicy, s2Free: () => {} };
    },
  },
  {
    name: 'tag-leaks-at-last-detach',
    story: 'The last direct detach of an S2 keeps the VMID although nothing names it any more.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => {
          if (live(parent, tag.smmu, 'S2_VMID') !== undefined) base.tagUnused(parent, tag);
        },
      };
    },
  },
  {
    name: 'direct-attach-not-refused',
    story:
      "Policy viommu-only forgets to refuse a direct attach of an S2 that has a vIOMMU on the SMMU: two tags for one S2, of which an invalidation of the VM's reaches one (review of 2024).",
    policies: ['viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagFor: (domain, smmu) => {
          const parent = domain instanceof NestedDomain ? domain.parent : domain;
          const count = parent.vsmmus.get(smmu);
          parent.vsmmus.delete(smmu);
          try {
            return base.tagFor(domain, smmu);
          } finally {
            if (count !== undefined) parent.vsmmus.set(smmu, count);
          }
        },
      };
    },
  },
  {
    name: 'viommu-not-refused',
    story:
      'Policy viommu-only forgets the other direction: a vIOMMU is made on an SMMU where its S2 is attached directly.',
    policies: ['viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        vsmmuInit: (vsmmu) => {
          const { invs } = vsmmu.parent;
          vsmmu.parent.invs = [];
          try {
            base.vsmmuInit(vsmmu);
          } finally {
            vsmmu.parent.invs = invs;
          }
        },
      };
    },
  },
  {
    name: 'vmid-freed-on-first-smmu',
    story:
      'The last detach of a shared S2 on its second SMMU gives the number back to the first: there another may own it, and here it is lost.',
    policies: ['at-attach', 'viommu-only'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagUnused: (parent, tag) => base.tagUnused(parent, { ...tag, smmu: parent.smmu }),
      };
    },
  },
  {
    name: 'direct-attach-borrows-viommu-vmid',
    story:
      "A direct attach of an S2 finds the live tag of a vIOMMU on the SMMU and uses its number. The vIOMMU's end frees it under the attachment.",
    policies: ['at-attach'],
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        tagFor: (domain, smmu) => {
          const lent = domain instanceof PagingDomain ? live(domain, smmu, 'S2_VMID_VSMMU') : undefined;
          return lent === undefined
            ? base.tagFor(domain, smmu)
            : { type: 'S2_VMID_VSMMU', vmid: lent.id, fresh: false };
        },
      };
    },
  },
  {
    name: 'viommu-vmid-leaks-without-answer',
    story:
      'The answer to IOMMU_VIOMMU_ALLOC cannot be copied to the user. The object is taken apart as one that was never finished, and its VMID is forgotten.',
    policies: SHARING,
    apply: ({ driver, kernel }) => {
      const { vmidPolicy: base } = driver;
      let last = '';
      kernel.onPoint((point) => {
        last = point;
      });
      driver.vmidPolicy = {
        ...base,
        vsmmuDestroy: (vsmmu) => {
          if (!last.startsWith('copy:to-user')) base.vsmmuDestroy(vsmmu);
        },
      };
    },
  },
];
