import { describe, expect, test } from 'vitest';
import { askAll } from '../../../src/testing/case.ts';
import type { LabConfig } from '../../../src/testing/lab.ts';
import type { VcmdqCommand } from '../../../src/testing/operations/cmdqv.ts';
import type { Operation } from '../../../src/testing/operations.ts';
import { PROPERTIES } from '../../../src/testing/properties/index.ts';
import { QUIRK_BUGS } from '../../../src/testing/zoo/ats.ts';
import { CMDQV_BUGS } from '../../../src/testing/zoo/cmdqv.ts';
import { infected } from '../../../src/testing/zoo/index.ts';

const GRACE: LabConfig = { preset: 'grace', streamTable: 'linear', defaultDomain: 'identity', smmus: 1 };

/** VM k: its S2, a vIOMMU with a VINTF, page 0 of it, LVCMDQ 0 running in its page 7; and its end. */
const vintf = (k: number): Operation[] => [
  { op: 'hwptAlloc', as: `s${k}`, dev: 'd0', ioas: `a${k}`, nestParent: true },
  { op: 'viommuAlloc', as: `v${k}`, dev: 'd0', parent: `s${k}`, type: 'tegra241-cmdqv' },
];
const queue = (k: number, index = 0): Operation[] => [
  {
    op: 'hwQueueAlloc',
    as: `q${k}${index}`,
    viommu: `v${k}`,
    index,
    page: 7,
    offset: 2048 * index,
    bytes: 2048,
  },
  { op: 'vcmdqStart', window: `w${k}`, index },
];
const up = (k: number): Operation[] => [
  ...vintf(k),
  { op: 'mmap', as: `w${k}`, viommu: `v${k}`, vm: `vm${k}` },
  ...queue(k),
];
const destroy = (...names: readonly string[]): Operation[] => names.map((name) => ({ op: 'destroy', name }));
const down = (k: number): Operation[] => [{ op: 'munmap', name: `w${k}` }, ...destroy(`q${k}0`, `v${k}`)];
const issue = (k: number, ...commands: readonly VcmdqCommand[]): Operation => ({
  op: 'vcmdqIssue',
  window: `w${k}`,
  index: 0,
  commands,
});
const device = (k: number, vsid = 2, dev = 'd0'): Operation => ({
  op: 'vdeviceAlloc',
  as: `x${k}${dev}`,
  dev,
  viommu: `v${k}`,
  vsid,
});
const nested = (k: number): Operation[] => [
  { op: 'nestedAlloc', as: `n${k}`, dev: 'd0', on: `v${k}`, vste: 'translate', cd: 0 },
  { op: 'attach', dev: 'd0', to: `n${k}` },
];
const tlbi: VcmdqCommand = { command: 'NH_ASID', asid: 1 };

/** What shows each bug, and what is then said. */
const SHOWN: Readonly<Record<string, readonly [RegExp, readonly Operation[], LabConfig?]>> = {
  'vintf-left-enabled': [/VMID 1 is freed and is named by vintf 1/, [...vintf(0), ...destroy('v0')]],
  'vintf-vmid-freed-first': [/VMID 1 is freed and is named by vintf 1/, [...vintf(0), ...destroy('v0')]],
  'vintf-vmid-0': [/CMDQV-1: .* VINTF 1 is enabled with VMID 0/, vintf(0)],
  'vintf-vmid-of-s2': [
    /CMDQV-2: .* VINTF 1 has VMID 1 and maps StreamID 0x1, whose STE has VMID 2/,
    [
      { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
      { op: 'attach', dev: 'd1', to: 's0' },
      { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0', type: 'tegra241-cmdqv' },
      device(0),
      ...nested(0),
    ],
  ],
  'vintf-vmid-after-enable': [/CMDQV-1: .* VINTF 1 is enabled with VMID 0, which nobody owns/, vintf(0)],
  'vintf-hyp-own': [/CMDQV-12/, vintf(0)],
  'vcmdq-of-another-vintf': [/CMDQV-ALLOC: .* VCMDQ 2/, [...up(0), ...up(1)]],
  'lvcmdq-order-not-checked': [/LVCMDQ 1 without LVCMDQ 0: it has to be refused/, [...vintf(0), ...queue(0, 1)]],
  'lvcmdq-does-not-keep-lower': [
    /CMDQV-9: .* LVCMDQ 0 of VINTF 1 unmapped before 1/,
    [...up(0), ...queue(0, 1), ...destroy('q00')],
  ],
  'vcmdq-unmapped-before-stopped': [/CMDQV-9: .* VCMDQ 2: unmapped while enabled/, [...up(0), ...down(0)]],
  'vcmdq-left-mapped': [/VINTF 1 has the LVCMDQs 0; v0 has none/, [...up(0), ...destroy('q00')]],
  'vcmdq-inherited-dirty': [
    /q10, just allocated, has PROD 2 and CONS 2/,
    [...up(0), issue(0, tlbi), ...down(0), ...up(1)],
  ],
  'vcmdq-error-inherited': [
    /q10, just allocated, has errors 1/,
    [...up(0), issue(0, { command: 'GARBAGE' }), ...down(0), ...up(1)],
  ],
  'vcmdq-timeout-not-flushed': [/CMDQV-10: .* VCMDQ 2/, [...up(0), ...down(0), ...up(1)]],
  'vcmdq-enabled-by-host': [/q00, just allocated, is enabled/, up(0)],
  'vcmdq-size-doubled': [/q00, just allocated, has 4096 bytes in hardware, 2048 were given/, up(0)],
  'vcmdq-base-is-ipa': [/q00, just allocated, fetches from 0x80007000, which is not where/, up(0)],
  'vcmdq-address-not-checked': [
    /q0 was allocated at an address that is not a multiple of 2048: it has to be refused/,
    [...vintf(0), { op: 'hwQueueAlloc', as: 'q0', viommu: 'v0', index: 0, page: 7, offset: 1024, bytes: 2048 }],
  ],
  'vcmdq-memory-unpinned': [
    /a0 was unmapped at page 9, where q0 fetches its commands/,
    [
      ...vintf(0),
      { op: 'hwQueueAlloc', as: 'q0', viommu: 'v0', index: 0, page: 9, offset: 2048, bytes: 2048 },
      { op: 'unmap', ioas: 'a0', page: 9, pages: 1 },
    ],
  ],
  'vcmdq-memory-freed-while-running': [
    /CMDQV-11: .* memory of VCMDQ \d at 0x\w+ was given back while it is enabled/,
    [{ op: 'smmuUnplug', smmu: 'smmu0' }],
  ],
  'sid-match-overflow': [
    /has the StreamID pairs 0x2:0x1; v0 has 0x2:0x1 0x3:0x2/,
    [...vintf(0), device(0), device(0, 3, 'd1')],
  ],
  'sid-match-reused': [
    /CMDQV-5: .* SID_REPLACE\(0\) written while SID_MATCH is enabled/,
    [...vintf(0), device(0), device(0, 3, 'd1')],
  ],
  'sid-match-left-behind': [
    /VINTF 1 has the StreamID pairs 0x2:0x1; v0 has none/,
    [...vintf(0), device(0), ...destroy('x0d0')],
  ],
  'sid-replace-after-match': [/CMDQV-5: .* SID_REPLACE\(0\) written/, [...vintf(0), device(0)]],
  'window-of-next-vintf': [/w0 shows 0x10000 bytes from 0x\w+ on: not page 0 of VINTF 1/, up(0)],
  'window-shows-page-1': [/w0 shows 0x20000 bytes from 0x\w+ on: not page 0 of VINTF 1/, up(0)],
  'window-outlives-viommu': [
    /v0 was destroyed while w0 shows page 0 of its VINTF/,
    [...up(0), ...destroy('q00', 'v0')],
  ],
  'error-report-after-teardown': [
    /report event: VIOMMU \d+ was freed/,
    [...up(0), issue(0, { command: 'GARBAGE' }), ...down(0), ...up(1)],
  ],
  'vintf-timeout-left-enabled': [
    /VMID 1 is freed and is named by vintf 1/,
    [vintf(0)[0] ?? [], { op: 'fail' as const, point: 'poll:cmdqv:VINTF_STATUS', nth: 2 }, vintf(0)[1] ?? []].flat(),
  ],
  'cmdqv-reset-in-operation': [/VINTF 1 is off, and v0 lives/, [...vintf(0), { op: 'cmdqvReset', smmu: 'smmu0' }]],
};

const monitors = PROPERTIES.filter(({ run }) => run === undefined);
const BUGS = [...CMDQV_BUGS, ...QUIRK_BUGS.filter(({ presets }) => presets?.includes('grace'))];

/** Everything that is said of a case. */
function said(operations: readonly Operation[], config: LabConfig, extras?: ReturnType<typeof infected>): string[] {
  const steps = operations.map((operation, id) => ({ id, operation }));
  const { findings } = askAll(
    monitors,
    { config: { ...GRACE, ...config }, steps },
    extras === undefined ? {} : { extras },
  );
  return [...findings.values()].map(({ message }) => message);
}

describe('bugs in what VMs get of a CMDQV [tegra241-cmdqv 12]', () => {
  test.each(BUGS)('$name', (bug) => {
    const [as, operations] = SHOWN[bug.name] ?? [];
    if (as === undefined || operations === undefined) throw new Error(`${bug.name} is not shown here`);
    const policy = bug.policies?.[0] ?? 'at-attach';
    const { quirks: _, ...lab } = bug.lab ?? {};
    // The same is in order without the bug.
    expect(said(operations, { ...lab, policy })).toEqual([]);
    expect(said(operations, { ...bug.lab, policy }, infected(bug)).filter((message) => as.test(message))).not.toEqual(
      [],
    );
  });

  test('all of them exist where there is a CMDQV, and nowhere else', () => {
    for (const { name, presets } of BUGS) expect(presets, name).toEqual(['grace']);
    expect(BUGS.map(({ name }) => name).sort()).toEqual(Object.keys(SHOWN).sort());
  });
});
