/** Bugs in the order in which an attachment ends. */
import { linuxSteUsed } from '../../../spec/index.ts';
import { isTag } from '../../driver/arm-smmu-v3/invalidation.ts';
import { begun } from './begun.ts';
import type { Bug } from './bug.ts';

const SHARING = ['at-attach', 'viommu-only', 'external'] as const;

/** Bugs of this family. */
export const TEARDOWN_BUGS: readonly Bug[] = [
  {
    name: 'tlbi-before-cfgi',
    story:
      'A detach invalidates the TLB first and the cached STE afterwards: in between the old STE fills the TLB again (IHI 0070 3.21.2: configuration first).',
    apply: (parts) => {
      const { driver } = parts;
      const { attach, entryWriter } = driver;
      const acts = begun(parts);
      let owed: (() => boolean)[] = [];
      driver.entryWriter = {
        write: (kernel, pa, target, rules, sync) => {
          if (rules.used !== linuxSteUsed || !acts()) return entryWriter.write(kernel, pa, target, rules, sync);
          owed.push(sync);
          return entryWriter.write(kernel, pa, target, rules, () => true);
        },
      };
      driver.attach = {
        ...attach,
        commit: (state) => {
          attach.commit(state);
          const late = owed;
          owed = [];
          for (const sync of late) sync();
        },
      };
    },
  },
  {
    name: 'old-tag-flushed-before-ste',
    story: 'The TLB entries of the old attachment are removed while its STE is still in use, and not again afterwards.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { attach, invalidation } = driver;
      driver.attach = {
        ...attach,
        installSte: (master, ste) => {
          const tag = master.records.get(0)?.invs.find(isTag);
          if (tag !== undefined) invalidation.flushTag(tag);
          attach.installSte(master, ste);
        },
      };
      driver.invalidation = { ...invalidation, flushTag: () => true };
    },
  },
  {
    name: 'left-domain-keeps-device',
    story: 'The commit of an attach forgets the old attachment: its tag is never let go (arm_smmu_attach_commit).',
    policies: SHARING,
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        commit: (state) => {
          if (state.old?.type !== 'nested') attach.commit(state);
        },
      };
    },
  },
  {
    name: 'prepared-and-not-undone',
    story:
      'An attach fails for want of memory after the new domain has taken the device into its array: error unwind leaves the entry, and the number with it.',
    policies: SHARING,
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        prepare: (request) => {
          const state = attach.prepare(request);
          request.master.smmu.kernel.alloc('attach-late');
          return state;
        },
      };
    },
  },
  {
    name: 'replace-through-old-vmid',
    story: 'A replace within one SMMU keeps the STE of the old domain when only the domain changes: it looks the same.',
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        installSte: (master, ste) => {
          if (master.current?.type !== 'nested' || ste[0] === 0) attach.installSte(master, ste);
        },
      };
    },
  },
  {
    name: 'core-forgets-detach',
    story: 'The core drops its record of an attachment and never tells the driver: DMA goes on.',
    apply: ({ core }) => {
      const { attachDevice } = core;
      core.attachDevice = (domain, dev, old) => {
        if (domain.type !== 'blocked' || old.type === 'identity' || old.type === 'dma') attachDevice(domain, dev, old);
      };
    },
  },
  {
    name: 'attach-fails-when-done',
    story:
      'The core does its own bookkeeping after the driver has attached the device, and that fails for want of memory: the caller is told no, the hardware says yes.',
    apply: (parts) => {
      const { core, kernel } = parts;
      const acts = begun(parts);
      const { attachDevice } = core;
      core.attachDevice = (domain, dev, old) => {
        attachDevice(domain, dev, old);
        if (acts() && domain.type !== 'blocked') kernel.alloc('attach-books');
      };
    },
  },
];
