/** Bugs in how STEs, CDs and tables are written. */
import { CMD_CFGI_STE, linuxCdUsed, linuxSteUsed, opcodeOf, STE } from '../../../spec/index.ts';
import { type EntryWriter, planEntryUpdate, readEntry, storeEntry } from '../../driver/arm-smmu-v3/entry-writer.ts';
import { begun } from './begun.ts';
import { type Bug, type BugParts, changingCommands } from './bug.ts';

/** Replaces the writer of entries of one kind, from the first attachment of a user on. */
const writing =
  (kind: 'ste' | 'cd', write: (base: EntryWriter) => EntryWriter['write']) =>
  (parts: BugParts): void => {
    const { driver } = parts;
    const { entryWriter: base } = driver;
    const acts = begun(parts);
    const wrapped = write(base);
    driver.entryWriter = {
      write: (kernel, pa, target, rules, sync) => {
        const hit = acts() && rules.used === (kind === 'ste' ? linuxSteUsed : linuxCdUsed);
        return (hit ? wrapped : base.write)(kernel, pa, target, rules, sync);
      },
    };
  };

/** Replaces what the writer of STEs may change at any time. */
const safeBut =
  (name: 'EATS' | 'MEV') =>
  ({ driver }: BugParts): void => {
    const { entryWriter: base } = driver;
    const mask = STE.mask([name]);
    driver.entryWriter = {
      write: (kernel, pa, target, rules, sync) => {
        const safe: typeof rules.safe = (from, to) => rules.safe(from, to).map((word, i) => word & ~(mask[i] ?? 0));
        return base.write(kernel, pa, target, rules.used === linuxSteUsed ? { ...rules, safe } : rules, sync);
      },
    };
  };

/** Bugs of this family. */
export const ENTRY_BUGS: readonly Bug[] = [
  {
    name: 'ste-torn',
    story:
      'A valid STE is rewritten in place, word after word, with one CFGI_STE at the end: hardware that fetches meanwhile sees half of each (IHI 0070 3.21.3.1).',
    apply: writing('ste', () => (kernel, pa, target, _rules, sync) => {
      storeEntry(kernel, pa, target);
      return sync();
    }),
  },
  {
    name: 'ste-words-without-sync',
    story: 'The steps of an STE update are right, and nobody waits between them: hardware may see any mixture.',
    apply: writing('ste', () => (kernel, pa, target, { used, safe }, sync) => {
      const { steps } = planEntryUpdate(readEntry(kernel, pa, target.length), target, used, safe);
      for (const { writes } of steps)
        for (const { qword, value } of writes) kernel.bus.store64(pa + BigInt(8 * qword), value);
      return sync();
    }),
  },
  {
    name: 'ste-valid-first',
    story: 'The word with V is written before the others: for a moment a valid STE points anywhere.',
    apply: writing('ste', (base) => (kernel, pa, target, rules, sync) => {
      const early = readEntry(kernel, pa, target.length);
      early.set(target.subarray(0, 2));
      storeEntry(kernel, pa, early);
      sync();
      return base.write(kernel, pa, target, rules, sync);
    }),
  },
  {
    name: 'ste-without-cfgi',
    story: 'An STE is changed and the cached one is not invalidated (CMD_CFGI_STE, IHI 0070 4.3.1).',
    apply: writing('ste', (base) => (kernel, pa, target, rules) => base.write(kernel, pa, target, rules, () => true)),
  },
  {
    name: 'cd-without-cfgi',
    story: 'A CD is changed and the cached one is not invalidated: CMD_CFGI_CD is left out (IHI 0070 4.3.3).',
    apply: writing('cd', (base) => (kernel, pa, target, rules) => base.write(kernel, pa, target, rules, () => true)),
  },
  {
    name: 'cd-torn',
    story: 'A valid CD is rewritten in place, TTB0 and ASID one after the other, while a device uses it.',
    apply: writing('cd', () => (kernel, pa, target, _rules, sync) => {
      storeEntry(kernel, pa, target);
      return sync();
    }),
  },
  {
    name: 'ste-not-reset',
    story: 'A detach leaves the STE as it was: nobody writes the blocking one.',
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        installSte: (master, ste) => {
          if (STE.num(ste, 'Config') !== STE.fields.Config.values.ABORT) attach.installSte(master, ste);
        },
      };
    },
  },
  {
    name: 'bypass-without-stage2',
    story:
      'A vSTE that says bypass becomes an STE that bypasses both stages: the VM reaches all memory. It must become stage 2 alone (arm_smmu_make_nested_domain_ste).',
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        s2DomainSte: (master, domain, vmid, ats) =>
          domain.nestParent ? makers.bypassSte(master.smmu) : makers.s2DomainSte(master, domain, vmid, ats),
      };
    },
  },
  {
    name: 'abort-vste-bypasses',
    story: 'A vSTE without V is taken for a bypass instead of an abort (STE.V, IHI 0070 5.2).',
    apply: ({ driver }) => {
      const { nested } = driver;
      driver.nested = {
        ...nested,
        mode: (vste) => (nested.mode(vste) === 'abort' ? 'bypass' : nested.mode(vste)),
      };
    },
  },
  {
    name: 'nested-ste-keeps-s1-bypass',
    story: 'Config of the nested STE stays stage 2 alone: the tables of the guest are never walked.',
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        nestedCdTableSte: (master, parent, vmid, vste, ats) => {
          const ste = makers.nestedCdTableSte(master, parent, vmid, vste, ats);
          STE.set(ste, 'Config', 'S2_TRANS');
          return ste;
        },
      };
    },
  },
  {
    name: 'mev-not-safe',
    story:
      'MEV counts as a bit that hardware uses, and nested STEs set it: a VM that turns its stage 1 on gets a moment with V=0, in which its DMA aborts. Linux: da0c56520e88 set MEV; mended by "Mark STE MEV safe when computing the update sequence" (January 2026).',
    apply: safeBut('MEV'),
  },
  {
    name: 'eats-not-safe',
    story:
      'EATS counts as a bit that hardware uses, though ATS is off in the device whenever it changes: a VM that turns stage 1 and ATS off at once gets a moment with V=0. Linux 1e8be08d1c91; mended by 7cad80048595, "Mark EATS_TRANS safe when computing the update sequence".',
    lab: { ats: true },
    apply: safeBut('EATS'),
  },
  {
    name: 's1stalld-where-illegal',
    story:
      'S1STALLD is set on an SMMU that cannot stall at all, where it must be 0: the STE is ILLEGAL and the device reaches nothing (5.2.2). Linux b264f3cca730, "Avoid ILLEGAL setting of STE.S1STALLD and CD.S".',
    presets: ['qemuVirt'],
    apply: (parts) => {
      const { driver } = parts;
      const { makers } = driver;
      const acts = begun(parts);
      driver.makers = {
        ...makers,
        cdTableSte: (master, ats, s1dss) => {
          const ste = makers.cdTableSte(master, ats, s1dss);
          if (acts()) STE.set(ste, 'S1STALLD', 1);
          return ste;
        },
      };
    },
  },
  {
    name: 's2s-for-all',
    story:
      'S2S is set for every device, also for those that must not be stalled: a fault of a PCIe function waits for an answer and blocks what is behind it (3.12.2.3). Linux 6.12 mended its stall configuration of stage 2.',
    presets: ['linuxNesting', 'grace'],
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        s2DomainSte: (master, domain, vmid, ats) => {
          const ste = makers.s2DomainSte(master, domain, vmid, ats);
          STE.set(ste, 'S2S', 1);
          return ste;
        },
      };
    },
  },
  {
    name: 'blocked-is-bypass',
    story:
      'A device that is detached gets an STE that bypasses instead of one that aborts: it reaches all memory until somebody attaches it again.',
    apply: (parts) => {
      const { driver } = parts;
      const { makers } = driver;
      const acts = begun(parts);
      const bypass = STE.encode({ V: 1, Config: 'BYPASS' });
      driver.makers = { ...makers, abortSte: () => (acts() ? bypass.slice() : makers.abortSte()) };
    },
  },
  {
    name: 'leaf-for-a-new-table',
    story:
      'CMD_CFGI_STE after a new level 2 table has Leaf=1: a cached L1STD with Span 0 stays, and the device that comes is refused (IHI 0070 4.3.1, 5.1.1).',
    lab: { streamTable: 'two-level' },
    apply: ({ driver }) =>
      changingCommands(driver, (command) => {
        if (opcodeOf(command) !== CMD_CFGI_STE.opcode) return command;
        const leaf = command.slice();
        CMD_CFGI_STE.set(leaf, 'Leaf', 1);
        return leaf;
      }),
  },
  {
    name: 'strtab-l2-not-visible',
    story:
      'The L1 descriptor of a two-level Stream table is stored without a barrier after the STEs it leads to: hardware may follow it to zeros or garbage. Linux has had no dma_wmb() there to this day (arm_smmu_init_l2_strtab).',
    lab: { streamTable: 'two-level' },
    apply: ({ kernel }) => {
      const barrier = kernel.dmaWmb.bind(kernel);
      kernel.dmaWmb = (point) => {
        if (point !== 'strtab-l2') barrier(point);
      };
    },
  },
];
