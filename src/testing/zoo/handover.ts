/** Bugs in hand-overs: a live Stream table adopted, an SMMU that comes back, the last VMIDs. */
import { CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, STRTAB_BASE, STRTAB_BASE_CFG } from '../../../spec/index.ts';
import { issueWithSync } from '../../driver/arm-smmu-v3/command-batch.ts';
import { cfgiAll, tlbiEl2All, tlbiNsnhAll } from '../../driver/arm-smmu-v3/commands.ts';
import { NestedDomain } from '../../driver/arm-smmu-v3/domains.ts';
import type { LiveTable, LiveView } from '../../driver/arm-smmu-v3/live-table.ts';
import { registerAt, type Smmu } from '../../driver/arm-smmu-v3/smmu.ts';
import { KernelError } from '../../driver/kernel.ts';
import type { Bug, BugParts } from './bug.ts';

/** Reads live tables otherwise. */
const reading =
  (read: (shipped: (view: LiveView) => LiveTable, view: LiveView) => LiveTable) =>
  ({ driver }: BugParts): void => {
    const { adoption } = driver;
    driver.adoption = { ...adoption, read: (view) => read(adoption.read, view) };
  };

/** What the registers say, and nothing that they lead to. */
function unread(view: LiveView): LiveTable {
  const cfg = view.kernel.read32('adopt', registerAt(view, STRTAB_BASE_CFG));
  const value = view.kernel.read64('adopt', registerAt(view, STRTAB_BASE));
  const words = Uint32Array.of(Number(value & 0xffff_ffffn), Number(value >> 32n));
  const twoLevel = STRTAB_BASE_CFG.of(cfg, 'FMT') === STRTAB_BASE_CFG.fields.FMT.values.TWO_LEVEL;
  const base = STRTAB_BASE.address(words, 'ADDR');
  return { base, cfg, twoLevel, log2size: STRTAB_BASE_CFG.of(cfg, 'LOG2SIZE'), l2: new Map(), streams: [] };
}

/** From its second reset on: a machine that boots is not concerned. */
const later =
  (change: (parts: BugParts['driver'], smmu: Smmu, shipped: () => boolean) => boolean) =>
  ({ driver }: BugParts): void => {
    const { reset } = driver;
    const booted = new Set<string>();
    driver.reset = {
      ...reset,
      invalidateAll: (smmu) => {
        if (!booted.has(smmu.name)) {
          booted.add(smmu.name);
          return reset.invalidateAll(smmu);
        }
        return change(driver, smmu, () => reset.invalidateAll(smmu));
      },
    };
  };

/** The registers of the SMMU's own queue, as far as they are written. */
function queueBase(smmu: Smmu): void {
  const { kernel, cmdq } = smmu;
  const value = CMDQ_BASE.value64({ RA: 1, ADDR: cmdq.base >> 5n, LOG2SIZE: cmdq.log2size });
  kernel.write64Relaxed('reset:CMDQ_BASE', registerAt(smmu, CMDQ_BASE), value);
}

/** Bugs of this family. */
export const HANDOVER_BUGS: readonly Bug[] = [
  {
    name: 'adopt-reuses-vmid',
    story:
      'A kdump kernel adopts the Stream table and hands out VMIDs from 1: streams of the crashed kernel and new ones share a number (what "Reserve crashed kernel\'s ASIDs and VMIDs" of August 2026 mends in the adoption series of April 2026).',
    apply: ({ driver }) => {
      const { vmidPolicy, adoption } = driver;
      driver.adoption = { ...adoption, reserveVmid: () => {} };
      driver.vmidPolicy = { ...vmidPolicy, disown: () => {} };
    },
  },
  {
    name: 'adopt-reuses-asid',
    story: 'The same with the ASIDs of CDs: stage 1 of the host mixes with that of the kernel before.',
    apply: ({ driver }) => {
      driver.adoption = { ...driver.adoption, reserveAsid: () => {} };
    },
  },
  {
    name: 'adopt-asids-too-late',
    story:
      'Each SMMU reserves the ASIDs of its own table when it is probed; the default domain of a device on the first takes one that the table of the second names, and one ASID serves all SMMUs. (So it was here at first.)',
    apply: reading((read, view) => {
      const table = read(view);
      if ('cmdq' in view || 'inherited' in view) return table;
      return { ...table, streams: table.streams.map((one) => ({ ...one, asids: [] })) };
    }),
  },
  {
    name: 'adopt-frees-unflushed',
    story:
      'The last stream that names an inherited number is claimed, and the number is free with entries of it in the TLB.',
    apply: ({ driver }) => {
      driver.adoption = { ...driver.adoption, flushVmid: () => {}, flushAsid: () => {} };
    },
  },
  {
    name: 'adopt-frees-early',
    story:
      'An inherited VMID is remembered with one stream: when that is claimed it is free, and another still names it.',
    apply: reading((read, view) => {
      const table = read(view);
      const seen = new Set<number>();
      const once = (vmid: number): number => {
        if (seen.has(vmid)) return 0;
        seen.add(vmid);
        return vmid;
      };
      return { ...table, streams: table.streams.map((one) => ({ ...one, vmid: once(one.vmid) })) };
    }),
  },
  {
    name: 'adopt-never-frees',
    story: 'Inherited numbers are reserved for good: each crash costs the SMMU those that it had in use.',
    apply: ({ driver }) => {
      driver.vmidPolicy = { ...driver.vmidPolicy, disown: () => {} };
    },
  },
  {
    name: 'adopt-trusts-table',
    story:
      'What STRTAB_BASE leads to is adopted without a look: a table that the crash has damaged goes on being used.',
    apply: reading((read, view) => {
      try {
        return read(view);
      } catch (error) {
        if (error instanceof KernelError) return unread(view);
        throw error;
      }
    }),
  },
  {
    name: 'adopt-refuses-all',
    story: 'A sound table is taken for a damaged one: DMA that is under way is aborted, which was to be avoided.',
    apply: reading((_read, view) => {
      throw new KernelError('EINVAL', `${view.name}: not this one`);
    }),
  },
  {
    name: 'resume-without-tlbi',
    story: 'Resume writes every register and forgets the TLB, which kept its entries over the suspend (IHI 0070 3.11).',
    apply: later((_driver, smmu) => issueWithSync(smmu, cfgiAll())),
  },
  {
    name: 'resume-without-cfgi',
    story: 'Resume flushes the TLB and forgets cached configuration: STEs that were changed meanwhile count as before.',
    apply: later((_driver, smmu) => {
      const el2 = !smmu.features.hyp || issueWithSync(smmu, tlbiEl2All());
      return issueWithSync(smmu, tlbiNsnhAll()) && el2;
    }),
  },
  {
    name: 'resume-keeps-queue-stopped',
    story:
      'Resume sets the registers of the Command queue and leaves the gate closed that suspend has shut: no command is ever sent.',
    apply: ({ driver }) => {
      const { reset } = driver;
      driver.reset = {
        ...reset,
        startCommandQueue: (smmu) => {
          if (!smmu.suspended) {
            reset.startCommandQueue(smmu);
            return;
          }
          queueBase(smmu);
          for (const register of [CMDQ_PROD, CMDQ_CONS])
            smmu.kernel.write32Relaxed(`reset:${register.name}`, registerAt(smmu, register), 0);
        },
      };
    },
  },
  {
    name: 'resume-without-indexes',
    story: 'Resume takes it for granted that CMDQ_PROD and CMDQ_CONS are 0 because power was off, and it was not.',
    apply: ({ driver }) => {
      const { reset } = driver;
      driver.reset = {
        ...reset,
        startCommandQueue: (smmu) => {
          if (!smmu.suspended) {
            reset.startCommandQueue(smmu);
            return;
          }
          queueBase(smmu);
          smmu.cmdq.restart();
        },
      };
    },
  },
  {
    name: 'resume-frees-first',
    story:
      'What was given up during a suspend is free with the first CMD_SYNC of the resume, before anything is flushed.',
    apply: ({ driver }) => {
      const { reset } = driver;
      driver.reset = {
        ...reset,
        startCommandQueue: (smmu) => {
          reset.startCommandQueue(smmu);
          if (smmu.suspended) smmu.cmdq.settled(true);
        },
      };
    },
  },
  {
    name: 'suspend-lets-pass',
    story: 'Suspend clears SMMUEN and leaves GBPA alone: DMA passes untranslated (6.3.14).',
    apply: ({ driver }) => {
      driver.reset = { ...driver.reset, abortWhileOff: () => {} };
    },
  },
  {
    name: 'exhausted-means-zero',
    story: 'When no VMID is left a vIOMMU is made with VMID 0, that of streams without stage 2.',
    policies: ['at-attach', 'viommu-only'],
    lab: { vmidBits: 8 },
    apply: ({ driver }) => {
      const { vmidPolicy } = driver;
      driver.vmidPolicy = {
        ...vmidPolicy,
        vsmmuInit: (vsmmu) => {
          try {
            vmidPolicy.vsmmuInit(vsmmu);
          } catch (error) {
            if (!(error instanceof KernelError) || error.errno !== 'ENOSPC') throw error;
            vsmmu.vmid = 0;
          }
        },
        vsmmuDestroy: (vsmmu) => {
          if (vsmmu.vmid !== 0) vmidPolicy.vsmmuDestroy(vsmmu);
        },
      };
    },
  },
  {
    name: 'exhausted-shares',
    story: 'When no VMID is left for a direct attach the S2 shares the one of its vIOMMU, which does not know.',
    policies: ['at-attach'],
    lab: { vmidBits: 8 },
    apply: ({ driver }) => {
      const { vmidPolicy } = driver;
      driver.vmidPolicy = {
        ...vmidPolicy,
        tagFor: (domain, smmu) => {
          try {
            return vmidPolicy.tagFor(domain, smmu);
          } catch (error) {
            const s2 = domain instanceof NestedDomain ? domain.parent : domain;
            const other = s2.invs.find((inv) => inv.smmu === smmu && inv.type === 'S2_VMID_VSMMU');
            if (!(error instanceof KernelError) || error.errno !== 'ENOSPC' || other === undefined) throw error;
            return { type: 'S2_VMID', vmid: other.id, fresh: false };
          }
        },
        tagUnused: (parent, tag) => {
          if (tag.smmu.vmids.ownerOf(tag.id) === parent.name) vmidPolicy.tagUnused(parent, tag);
        },
      };
    },
  },
];
