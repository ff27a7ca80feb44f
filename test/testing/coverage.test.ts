import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { COMMANDS, EVENTS } from '../../spec/index.ts';
import { neverDecided, RULES } from '../../src/sanitizer/index.ts';
import { runCampaign } from '../../src/testing/campaign.ts';
import { askAll, type LabCase } from '../../src/testing/case.ts';
import { COVERAGE_KINDS, Coverage } from '../../src/testing/coverage.ts';
import { coverable } from '../../src/testing/covered/coverable.ts';
import {
  DECIDABLE,
  edge,
  NEVER_COMMANDS,
  NEVER_EVENTS,
  NEVER_RULES,
  NEVER_VMID_STEPS,
  SEEDED_RULES,
  VMID_EDGES,
} from '../../src/testing/covered/lists.ts';
import { RULE_CAUSES } from '../../src/testing/covered/rules.ts';
import { FLAVOURS } from '../../src/testing/flavours/index.ts';
import type { Operation } from '../../src/testing/operations.ts';
import { OPERATION_NAMES } from '../../src/testing/operations.ts';
import { PROPERTIES, rulesKept, s2vmidOwned, vmidFree } from '../../src/testing/properties/index.ts';

/** A case on one SMMU with one device, whose hardware does nothing by itself. */
const caseOf = (...operations: readonly Operation[]): LabCase => ({
  config: { preset: 'linuxNesting', smmus: 1, devices: 1, vms: 1, policy: 'at-attach', defaultDomain: 'identity' },
  steps: operations.map((operation, i) => ({ id: i + 1, operation })),
});

const S2: Operation = { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true };
const VIOMMU: Operation = { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' };
const NESTED: Operation = { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate' };
const VDEVICE: Operation = { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 0 };

function covered(one: LabCase, properties = [s2vmidOwned, vmidFree, rulesKept]) {
  const coverage = new Coverage();
  expect(askAll(properties, one, { coverage }).findings.size).toBe(0);
  return coverage.report();
}

describe('lists of what can be covered', () => {
  test('a step of a VMID is an edge of the diagram in spec/vmid-lifecycle.md, and each edge is a step', () => {
    const page = readFileSync(new URL('../../spec/vmid-lifecycle.md', import.meta.url), 'utf8');
    const [, diagram = ''] = /```mermaid\n([\s\S]*?)```/.exec(page) ?? [];
    const edges = [...diagram.matchAll(/^ +([A-Z_]+) --> ([A-Z_]+)/gm)].map(([, from = '', to = '']) =>
      [from, to].map((state) => state.replace('_', '-')),
    );
    expect(VMID_EDGES.map((edge) => [...edge]).sort()).toEqual(edges.sort());
  });

  test('each rule that the sanitizer can decide says what its subject is, and no other does', () => {
    const decidable = RULES.filter((rule) => !neverDecided(rule)).map(({ id }) => id);
    expect(Object.keys(RULE_CAUSES).sort()).toEqual([...decidable].sort());
  });

  test('what cannot occur is left out, and is a name of spec/', () => {
    for (const name of Object.keys(NEVER_COMMANDS)) expect(Object.keys(COMMANDS)).toContain(name);
    for (const name of Object.keys(NEVER_EVENTS)) expect(Object.keys(EVENTS)).toContain(name);
    const { commands = [], events = [], rules = [] } = coverable(PROPERTIES, {});
    expect(commands.filter((name) => name in NEVER_COMMANDS || name.startsWith('CMD_TLBI_S_'))).toEqual([]);
    expect(events.filter((name) => name in NEVER_EVENTS)).toEqual([]);
    expect(rules).not.toContain('DET-7');
    for (const id of [...Object.keys(NEVER_RULES), ...Object.keys(SEEDED_RULES)]) expect(DECIDABLE).toContain(id);
    for (const step of Object.keys(NEVER_VMID_STEPS))
      expect(VMID_EDGES.map(([from, to]) => edge(from, to))).toContain(step);
    expect(rules.filter((id) => id in NEVER_RULES)).toEqual([]);
    expect(Object.keys(SEEDED_RULES).every((id) => rules.includes(id))).toBe(true);
    expect(coverable(PROPERTIES, { schedule: 'eager' }).rules?.filter((id) => id in SEEDED_RULES)).toEqual([]);
  });

  test('errors and points that can fail: none twice, each of an operation, or in the sources', () => {
    const { errnos = [], failures = [] } = coverable(PROPERTIES, {});
    expect(new Set([...errnos, ...failures]).size).toBe(errnos.length + failures.length);
    for (const one of errnos) expect(OPERATION_NAMES).toContain(one.split(' ')[0]);
    const root = new URL('../../src/', import.meta.url);
    const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((file) => ['driver', 'iommufd'].includes(file.split('/')[0] ?? '') && file.endsWith('.ts'))
      .map((file) => readFileSync(new URL(file, root), 'utf8'))
      .join('\n');
    // `alloc:iommufd:HWPT_PAGING` is put together from a kind of object; so are registers and ioctls with their fields.
    for (const point of failures)
      expect(
        sources.includes(
          point
            .slice(point.lastIndexOf(':') + 1)
            .replace(/^.*\./, '')
            .replace(/_STATUS$|^s[12]-/, ''),
        ),
        point,
      ).toBe(true);
    expect(coverable(PROPERTIES, { preset: 'qemuVirt' }).failures).not.toContain('ids:vintf');
  });

  test('what is fixed is all there is', () => {
    const fixed = { policy: 'external', preset: 'qemuVirt', vmidBits: 8, schedule: 'eager' } as const;
    const list = coverable(PROPERTIES, fixed);
    expect(list).toMatchObject({
      policies: ['external'],
      presets: ['qemuVirt'],
      vmidBits: ['8'],
      schedules: ['eager'],
    });
    expect(list.cmdqv).toEqual([]);
    expect(list.rules?.filter((id) => id.startsWith('CMDQV-'))).toEqual([]);
    // Only that policy refuses a vIOMMU where its S2 is attached.
    expect(list.errnos).not.toContain('viommuAlloc EBUSY');
    expect(coverable(PROPERTIES, { policy: 'viommu-only' }).errnos).toContain('viommuAlloc EBUSY');
    expect(coverable(PROPERTIES, {}).flavours).toEqual(FLAVOURS.map(({ name }) => name));
    expect(coverable(PROPERTIES, {}).operations).toEqual(OPERATION_NAMES);
    expect(coverable([s2vmidOwned], {}).rules).toEqual(['s2vmid-owned']);
  });
});

describe('what is counted', () => {
  test("the life of a vIOMMU's VMID: each step once, and the stream's, in order [lifecycle]", () => {
    const { vmids, streams } = covered(
      caseOf(
        S2,
        VIOMMU,
        VDEVICE,
        NESTED,
        { op: 'attach', dev: 'd0', to: 'n0' },
        { op: 'detach', dev: 'd0' },
        {
          op: 'destroy',
          name: 'n0',
        },
        { op: 'destroy', name: 'x0' },
        { op: 'destroy', name: 'v0' },
      ),
    );
    expect(vmids).toEqual({
      'FREE to ALLOCATED': 1,
      'ALLOCATED to INSTALLED': 1,
      'INSTALLED to DRAINING-CFG': 1,
      'DRAINING-CFG to DRAINING-TLB': 1,
      'DRAINING-TLB to CLEAN': 1,
      'CLEAN to FREE': 1,
    });
    expect(streams).toEqual({ 'abort to nested': 1, 'nested to abort': 1, 'abort to bypass': 1 });
  });

  test('a VMID that was never installed, and a number that was', () => {
    const again: Operation[] = [VIOMMU, { op: 'destroy', name: 'v0' }];
    const { vmids } = covered(
      caseOf(S2, ...again, { op: 'attach', dev: 'd0', to: 's0' }, { op: 'detach', dev: 'd0' }, ...again),
    );
    expect(vmids).toMatchObject({ 'FREE to ALLOCATED': 3, 'ALLOCATED to FREE': 2, 'CLEAN to FREE': 1 });
  });

  test('operations, errnos, and failures of the kernel by point', () => {
    const { operations, errnos, failures } = covered(
      caseOf(
        { op: 'fail', point: 'alloc:', nth: 1 },
        S2,
        S2,
        { op: 'destroy', name: 'v0' },
        { op: 'attach', dev: 'd0', to: 's9' },
      ),
    );
    expect(operations).toEqual({ fail: 1, hwptAlloc: 1 });
    expect(errnos).toEqual({ 'attach ENOENT': 1, 'destroy ENOENT': 1, 'hwptAlloc ENOMEM': 1 });
    expect(failures).toEqual({ 'alloc:iommufd:HWPT_PAGING': 1 });
  });

  test('a rule counts in cases in which its subject was there: of the sanitizer, and of a property', () => {
    const idle = covered(caseOf({ op: 'detach', dev: 'd0' })).rules;
    expect(idle).toMatchObject({ 'rules-kept': 1 });
    for (const rule of ['VMID-1', 'VMID-2', 'CFG-10', 'vmid-free', 's2vmid-owned'])
      expect(idle).not.toHaveProperty(rule);
    const used = covered(caseOf(S2, { op: 'attach', dev: 'd0', to: 's0' }, { op: 'detach', dev: 'd0' })).rules;
    expect(used).toMatchObject({ 'VMID-1': 1, 'VMID-2': 1, 'vmid-free': 1, 's2vmid-owned': 1, 'TLB-3': 1 });
    for (const rule of ['CFG-10', 'ATS-2', 'DET-3', 'CMDQV-1']) expect(used).not.toHaveProperty(rule);
  });

  test('without a sanitizer its rules, and lives of VMIDs, are not counted', () => {
    const { rules, vmids, commands } = covered(caseOf(S2, { op: 'attach', dev: 'd0', to: 's0' }), [s2vmidOwned]);
    expect(rules).toEqual({ 's2vmid-owned': 1 });
    expect(vmids).toEqual({});
    expect(commands.CMD_CFGI_STE).toBeGreaterThan(0);
  });

  test('a report has a 0 for what could be covered and was not; two added are their sums', () => {
    const coverage = new Coverage();
    runCampaign([s2vmidOwned], { seed: 1, runs: 3, coverage, fixed: { policy: 'external', maxOps: 10 } });
    const list = coverable([s2vmidOwned], {});
    const report = coverage.report(list);
    expect(report.policies).toEqual({ 'at-attach': 0, 'at-domain-alloc': 0, external: 3, 'viommu-only': 0 });
    expect(Object.keys(report)).toEqual([...COVERAGE_KINDS]);
    const both = new Coverage();
    both.add(report);
    both.add(report);
    expect(both.report().policies).toEqual({ 'at-attach': 0, 'at-domain-alloc': 0, external: 6, 'viommu-only': 0 });
  });

  test('counting changes nothing: the same runs with and without', () => {
    const options = { seed: 4, runs: 6, fixed: { maxOps: 30 } };
    const counted = runCampaign(PROPERTIES, { ...options, coverage: new Coverage() });
    expect(counted).toEqual(runCampaign(PROPERTIES, options));
  });
});
