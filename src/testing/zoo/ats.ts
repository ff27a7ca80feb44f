/** Bugs in how devices' own caches are kept in step, and the deviations of Linux 7.2 as bugs. */
import { ATC_INV_SIZE_ALL, CMD_ATC_INV, opcodeOf } from '../../../spec/index.ts';
import { enableAts } from '../../driver/arm-smmu-v3/pci.ts';
import { QUIRK_NAMES, type QuirkName } from '../../driver/arm-smmu-v3/quirks.ts';
import type { LabConfig } from '../lab.ts';
import { type Bug, changingCommands } from './bug.ts';

const QUIRK_STORIES: Readonly<
  Record<QuirkName, Pick<Bug, 'story' | 'presets'> & { readonly lab?: Partial<LabConfig> }>
> = {
  'l1std-no-cfgi': {
    story: 'A new level 2 table is not announced with CFGI_STE, Leaf=0: a cached Span of 0 stays (5.1.1; 7.2).',
    lab: { streamTable: 'two-level' },
  },
  'sync-timeout-ignored': { story: 'What a timed-out CMD_SYNC should have protected is freed at once (7.2).' },
  'atc-timeout-ignored': { story: 'A CMD_ATC_INV that was never answered counts as done (7.2).', lab: { ats: true } },
  'stalls-on-detach': {
    story: 'Stalled transactions survive the detach of their stream (3.12.2.2; 7.2).',
    lab: { stalls: true },
  },
  'ats-off-after-ste': { story: 'ATS goes off with the ATC_INV after the STE (3.9.1; 7.2).', lab: { ats: true } },
  'abort-vste-keeps-ats': { story: 'A vSTE that aborts leaves ATS on in the endpoint (7.2).', lab: { ats: true } },
  'events-not-drained': { story: 'A stream changes its VM while events of the old one wait in the queue (7.2).' },
  'cd0-after-tlbi': {
    story:
      'A RID leaves stage 1 while PASIDs keep the CD table: the ASID is flushed before CD 0, which SubstreamID 0 reaches, is cleared (7.3.9; 7.2).',
    lab: { pasidBits: 4 },
  },
  'vintf-timeout-left-enabled': {
    story:
      'A VINTF whose STATUS does not follow EN in time keeps EN and VMID; VINTF and VMID are given to others (7.2).',
    presets: ['grace'],
  },
  'cmdqv-reset-in-operation': {
    story: 'A reset in operation unmaps VCMDQs that run, lowest first, and VMs lose theirs (7.2).',
    presets: ['grace'],
  },
};

/**
 * A deviation and no bug: an endpoint whose ATS is off uses nothing that it holds, so an ATC_INV after the STE comes in
 * time. ATS-4 accepts the order.
 */
const HARMLESS: ReadonlySet<QuirkName> = new Set(['ats-off-after-ste']);

/** Quirks of Linux 7.2 as bugs; the names are the quirks'. */
export const QUIRK_BUGS: readonly Bug[] = QUIRK_NAMES.filter((name) => !HARMLESS.has(name)).map((name) => {
  const { lab, ...bug } = QUIRK_STORIES[name];
  return { name, ...bug, lab: { ...lab, quirks: [name] }, apply: () => {} };
});

/** Bugs of this family. */
export const ATS_BUGS: readonly Bug[] = [
  {
    name: 'atc-before-tlbi',
    story:
      'CMD_ATC_INV goes out before the TLB invalidation: the device may ask again and get the old translation (3.9.1). Linux had it so until "Fix ATC invalidation ordering wrt main TLBs" (2019).',
    lab: { ats: true },
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        invRange: (kernel, invs, range) => {
          const ats = invs.filter(({ type }) => type.startsWith('ATS'));
          const rest = invs.filter(({ type }) => !type.startsWith('ATS'));
          const first = invalidation.invRange(kernel, ats, range);
          return invalidation.invRange(kernel, rest, range) && first;
        },
      };
    },
  },
  {
    name: 'atc-not-flushed',
    story: 'An unmap invalidates the TLB and leaves the caches of devices with ATS alone.',
    lab: { ats: true },
    apply: ({ driver }) => {
      const { invalidation } = driver;
      driver.invalidation = {
        ...invalidation,
        invRange: (kernel, invs, range) =>
          invalidation.invRange(
            kernel,
            invs.filter(({ type }) => !type.startsWith('ATS')),
            range,
          ),
      };
    },
  },
  {
    name: 'eats-not-set',
    story: 'ATS is enabled in the device and EATS stays 0 in the STE: translated requests abort (5.2, EATS).',
    lab: { ats: true },
    apply: ({ driver }) => {
      const { makers } = driver;
      driver.makers = {
        ...makers,
        cdTableSte: (master, _ats, s1dss) => makers.cdTableSte(master, false, s1dss),
        s2DomainSte: (master, domain, vmid) => makers.s2DomainSte(master, domain, vmid, false),
      };
    },
  },
  {
    name: 'atc-range-halved',
    story:
      'The span of a CMD_ATC_INV is one power of two too small: of a range of pages the upper half stays in the device (IHI 0070 4.5.1, Size).',
    lab: { ats: true },
    apply: ({ driver }) =>
      changingCommands(driver, (command) => {
        const size = opcodeOf(command) === CMD_ATC_INV.opcode ? CMD_ATC_INV.num(command, 'Size') : 0;
        if (size === 0 || size === ATC_INV_SIZE_ALL) return command;
        const half = command.slice();
        CMD_ATC_INV.set(half, 'Size', size - 1);
        return half;
      }),
  },
  {
    name: 'ats-on-before-ste',
    story:
      'ATS is turned on in the device before the STE that allows it: its translation requests meet EATS=0 and end the use of ATS (IHI 0070 3.9.2).',
    lab: { ats: true },
    apply: ({ driver }) => {
      const { attach } = driver;
      driver.attach = {
        ...attach,
        prepare: (request) => {
          const state = attach.prepare(request);
          if (state.ats && !request.master.atsEnabled) enableAts(request.master);
          return state;
        },
      };
    },
  },
  {
    name: 'atc-kept-at-detach',
    story:
      'A device that leaves for a domain without ATS keeps what it has cached: CMD_ATC_INV is sent when ATS goes on, and not when it goes off (IHI 0070 3.9.1).',
    lab: { ats: true },
    apply: ({ driver }) => {
      const { attach, commandQueue } = driver;
      let leaving = false;
      driver.attach = {
        ...attach,
        prepare: (request) => {
          leaving = request.master.atsEnabled;
          try {
            return attach.prepare(request);
          } finally {
            leaving = false;
          }
        },
      };
      driver.commandQueue = {
        issue: (queue, commands, sync) => {
          const left = leaving ? commands.filter((one) => opcodeOf(one) !== CMD_ATC_INV.opcode) : commands;
          return commandQueue.issue(queue, left, sync);
        },
      };
    },
  },
];
