import type { RuleInfo } from '../rule.ts';

const STALE = 'descriptors that were valid in a table under each tag, until a TLBI that covers them has completed';

/** Translation tables and TLB invalidation. */
export const TLB_RULES: readonly RuleInfo[] = [
  {
    id: 'TLB-1',
    severity: 'H',
    section: '3.21.1',
    broken:
      'A leaf was changed or cleared, and the page is given back, or the unmap reported done, before a TLBI that covers it has completed under every tag.',
    observed: STALE,
    needs: ['page', 'operation'],
    undecidable:
      'The flush queue of DMA domains returns addresses before the TLBI on purpose: do not announce its unmaps as done.',
  },
  {
    id: 'TLB-2',
    severity: 'H',
    section: '4.4, 4.4.1',
    broken:
      'A Table descriptor was changed or cleared, and only an invalidation of last-level entries (Leaf=1, or TTL of another level) followed when its table is given back.',
    observed: STALE,
    needs: ['page'],
  },
  {
    id: 'TLB-3',
    severity: 'H',
    section: '3.21.1',
    broken: 'A table page is given back before an invalidation of the descriptors that led to it has completed.',
    observed: STALE,
    needs: ['page'],
  },
  {
    id: 'TLB-4',
    severity: 'H',
    section: '3.21.1.1 to 3.21.1.3',
    broken:
      'A valid descriptor was replaced by another valid one with another output address, memory type or size, without break-before-make as IDR3.BBML demands.',
    observed: 'old and new value of each store to a table in use',
  },
  {
    id: 'TLB-5',
    severity: 'H',
    section: '4.4.3.1',
    broken:
      'A stage 2 leaf of a VMID with nested streams was removed with TLBI_S2_IPA alone: entries that combine both stages stay.',
    observed: STALE,
    needs: ['page', 'operation'],
  },
  {
    id: 'TLB-6',
    severity: 'H',
    section: '4.4.3.1',
    broken: 'As TLB-5, but the stage 1 invalidation was consumed before the TLBI_S2_IPA had completed.',
    observed: STALE,
    needs: ['page', 'operation'],
    ordering: true,
  },
  {
    id: 'TLB-7',
    severity: 'H',
    section: '3.21.1',
    broken: 'Only TLBI_S2_IPA has completed, and software takes client writes through a nested stream for drained.',
    observed: '',
    undecidable:
      'Transactions here are complete when they return: nothing of them is left in flight. What is missing is found as TLB-5.',
  },
  {
    id: 'TLB-8',
    severity: 'H',
    section: '4.4.2, 5.2 S2VMID',
    broken:
      'The only invalidations after a change have the wrong opcode for the StreamWorld, or the wrong VMID for a stream with stage 1 alone.',
    observed: STALE,
    needs: ['page', 'operation'],
  },
  {
    id: 'TLB-9',
    severity: 'H',
    section: '4.4.2.2',
    broken: 'Only TLBI_NH_ASID followed the change of a global leaf.',
    observed: STALE,
    needs: ['page', 'operation'],
  },
  {
    id: 'TLB-10',
    severity: 'H',
    section: '4.4.1.1',
    broken: 'Operands of a range: low address bits set for the level, granule or level that the table does not have.',
    observed: 'operands of TLBI commands, against the tables under the tag',
  },
  {
    id: 'TLB-11',
    severity: 'H',
    section: '4.3.8, 4.7.3, 7.1',
    broken:
      'A covering TLBI was consumed, but no CMD_SYNC of the same queue has completed after it when software relies on it.',
    observed: STALE,
    needs: ['page', 'operation'],
  },
  {
    id: 'TLB-12',
    severity: 'H',
    section: '3.13',
    broken:
      'A permission was taken away, a page made clean, or an Access flag cleared, and an operation relies on it before the TLBI has completed.',
    observed: STALE,
    needs: ['operation'],
  },
  {
    id: 'TLB-13',
    severity: 'H',
    section: '3.13, 3.15',
    broken: 'A descriptor in use was written in pieces smaller than 64 bits.',
    observed: 'width of stores to tables in use',
    undecidable: 'A plain read and write that loses an update made by hardware looks like any other store.',
  },
  {
    id: 'TLB-14',
    severity: 'H',
    section: '5.2 S2IR0, 3.15',
    broken: 'Hardware updates of descriptors are on, and walks are not write-back cacheable.',
    observed: 'HA and HD with the walk attributes of STEs and CDs in use',
  },
  {
    id: 'TLB-15',
    severity: 'H',
    section: 'Linux arm_smmu_invs',
    broken: 'A table that several SMMUs use was invalidated on some of them only.',
    observed: STALE,
    needs: ['page', 'operation'],
  },
  {
    id: 'TLB-16',
    severity: 'H',
    section: 'Linux arm_smmu_attach_prepare',
    broken:
      'Attach raced with unmap: a tag joined the invalidation list after its STE was reachable, or left it too early.',
    observed: '',
    undecidable:
      "Invalidation lists are the driver's own. An unmap that misses a tag for that reason is found as TLB-1 or VMID-6.",
  },
  {
    id: 'TLB-17',
    severity: 'H',
    section: '3.21.1',
    broken:
      "A page that holds a VM's stage 1 tables was unmapped at stage 2, and the invalidation is incomplete when it is given back.",
    observed: '',
    undecidable: "Which pages hold a VM's tables does not matter to the host: the unmap is judged as TLB-1 and TLB-5.",
  },
  {
    id: 'TLB-18',
    severity: 'H',
    section: '3.17, 3.17.5',
    broken: 'Software counts on broadcast invalidation that does not reach the SMMU.',
    observed: '',
    undecidable: 'Broadcasts are CPU instructions; what software expects of one is not visible here.',
  },
];
